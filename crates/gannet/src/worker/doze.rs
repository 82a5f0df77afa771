//! How the worker of a process sleeps while nothing but events can wake it: outside of the runtime.
//!
//! A sleep in the runtime costs a good microsecond more than the system call: wakers are registered, timers
//! looked at, tasks asked. Under load a worker sleeps thousands of times a second, most of them for less than
//! a millisecond. So the loop *dozes* in a poll set of its own, which has what can bring it something to do:
//! its bell and the manager's channel.
//!
//! | state | when | sleeps in |
//! |---|---|---|
//! | **dozing** | no handler is pending, no task but the loop's own is alive, and the last doze brought something | the poll set, [`LONGEST`] at most |
//! | **sleeping** | otherwise | the runtime, for as long as it takes |
//!
//! Invariants:
//!
//! 1. While it dozes, the tasks that are alive are the loop's own ([`OWN_TASKS`]), and none of them has
//!    anything to do. What they wait for, a word of the manager or that the worker has done its share,
//!    has the next sleeps be in the runtime ([`DUE`]). Should all of these be over before they begin, since
//!    other threads keep calling, the runtime still has a turn every few milliseconds, as under any load.
//! 2. Other threads reach it by [`Wake`](super::wake::Wake), which strikes the bell.
//! 3. A worker that nothing comes for dozes once, then sleeps: it costs no processor time. A task that
//!    another thread spawns here through a `Handle` of this runtime is noticed when the doze ends.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    fs::Timespec,
};
use tokio::runtime::RuntimeMetrics;

use super::wake::Wake;

pub(super) struct Doze {
    set: OwnedFd,
    events: Vec<epoll::Event>,
    runtime: RuntimeMetrics,
    /// Sleeps that are to be in the runtime.
    due: u32,
}

impl Doze {
    /// Wakes up by the bell and by what the channel says; both edge-triggered.
    pub(super) fn new(bell: impl AsFd, channel: impl AsFd) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&set, bell, EventData::new_u64(BELL), edge)?;
        epoll::add(&set, channel, EventData::new_u64(CHANNEL), edge)?;
        Ok(Doze {
            set,
            events: Vec::with_capacity(2),
            runtime: tokio::runtime::Handle::current().metrics(),
            due: 0,
        })
    }

    /// Whether the next sleep may be outside of the runtime, if no handler is pending.
    pub(super) fn may_doze(&self) -> bool {
        self.due == 0 && self.runtime.num_alive_tasks() <= OWN_TASKS
    }

    /// Sleeps until there is something to do; or for so long that it is better done in the runtime.
    /// The bell has announced it.
    pub(super) fn doze(&mut self, wake: &Wake) {
        if wake.fall_asleep_outside() {
            self.events.clear();
            let space = rustix::buffer::spare_capacity(&mut self.events);
            // Where it fails the runtime does better, or says why not.
            let _ = epoll::wait(&self.set, space, Some(&LONGEST));
            let spoken = |event: &epoll::Event| event.data.u64() == CHANNEL;
            if self.events.iter().any(spoken) {
                self.let_tasks_run();
            } else if self.events.is_empty() {
                self.due = 1;
            }
        }
        wake.wake_up_outside();
    }

    /// A task of the loop's own has something to do: the next sleeps are in the runtime.
    pub(super) fn let_tasks_run(&mut self) {
        self.due = DUE;
    }

    /// It has slept in the runtime.
    pub(super) fn slept(&mut self) {
        self.due = self.due.saturating_sub(1);
    }
}

/// Tasks of the loop's own that are always there: see `run::serve`.
pub(super) const OWN_TASKS: usize = 2;
/// Turns of the runtime in which what it has found readable is surely read.
pub(super) const DUE: u32 = 4;
/// Longest doze.
const LONGEST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
const BELL: u64 = 0;
const CHANNEL: u64 = 1;
