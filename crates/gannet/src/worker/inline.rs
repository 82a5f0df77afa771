//! Thread mode: the loop of a thread that is a reactor and a worker in turn.
//!
//! # A turn
//!
//! Sleep; take what the sockets have; run the handlers of it; take what they have sent; write it to the
//! sockets. All three parts see what the one before has done without anybody being woken: while a
//! turn runs, both doorbells of the thread say "awake". So a message costs one wait, one read and
//! one write, and no other system call. Between the two halves lies what keeps the limits, the ledger and the
//! back-pressure of a pair of rings: [`crate::direct`]. Rings lead to the reactors and workers of other threads.
//!
//! # Where it sleeps
//!
//! | state | when | sleeps in | woken by |
//! |---|---|---|---|
//! | **quiet** | no handler is pending and no task of the handler is alive | the reactor's poll set, outside of the runtime | sockets; both eventfds; the manager's channel; [`Wake`](super::wake::Wake) |
//! | **mixed** | some task is alive, or the manager has spoken | the runtime, which watches the poll set among all else | the same, and whatever tasks wait for |
//!
//! Invariants:
//!
//! 1. Nothing that only the runtime could tell of is waited for outside of it: in the quiet state
//!    the tasks that are alive are the loop's own, which wait for the channel (a guest of the poll
//!    set, whose readiness makes the next turns mixed) or for what this thread does.
//! 2. Before every sleep both doorbells announce it, and then all rings are looked at.
//! 3. The runtime's watch of the poll set is edge-triggered: before it is waited for, the poll set
//!    was found empty, so that any readiness is a new edge.
//! 4. Under steady load the runtime has a turn every few milliseconds, and whenever a handler is
//!    pending.
//!
//! A task that another thread spawns here through a `Handle` of this runtime is noticed when the
//! loop looks next, [50 ms](crate::master) later at most.

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use gannet_shm::Doorbell;
use tokio::{io::unix::AsyncFd, runtime::RuntimeMetrics, time::Instant};

use super::{
    case::Case,
    doze::{DUE, OWN_TASKS},
    engine::{Ended, Engine, tick},
    shared::Shared,
};
use crate::{
    layout::WorkerCounter,
    master::{Failed, Reactor, Ready},
    watch,
};

/// The reactor of a worker's thread, and how to wait for both.
pub(crate) struct Inline {
    pub(super) reactor: Reactor,
    ready: Ready,
    runtime: RuntimeMetrics,
    /// The poll set in the runtime's eyes, while that is needed.
    watched: Option<AsyncFd<OwnedFd>>,
    /// Sleeps since it was needed last.
    unneeded: u32,
    /// Turns that the runtime is to have because the manager has spoken.
    due: u32,
}

impl Inline {
    pub(super) fn new(
        shared: &Shared,
        bell: &Doorbell,
        channel: impl AsFd,
        reactor: Reactor,
    ) -> io::Result<Self> {
        reactor.watch_guest(bell.fd(), BELL)?;
        reactor.watch_guest(channel, CHANNEL)?;
        shared.wake.reach_outside(bell.fd().try_clone_to_owned()?);
        Ok(Inline {
            reactor,
            ready: Ready::default(),
            runtime: tokio::runtime::Handle::current().metrics(),
            watched: None,
            unneeded: 0,
            due: 0,
        })
    }

    /// As [`Engine::run`].
    pub(super) async fn run<F, M>(
        &mut self,
        engine: &mut Engine<F, M>,
        over: impl Fn(&Engine<F, M>) -> bool,
        deadline: Option<Instant>,
    ) -> Ended
    where
        F: Future<Output = Infallible> + 'static,
        M: Fn(Rc<Case>) -> F + 'static,
    {
        loop {
            self.reactor.begin_turn(&mut self.ready);
            if std::mem::take(&mut self.ready.guests) & 1 << CHANNEL != 0 {
                self.due = DUE;
            }
            engine.shared.count(WorkerCounter::Turns);
            let more = !engine.orders.exit.get() && engine.turn();
            engine.local.flush();
            self.reactor.end_turn();
            if let Some(ended) = engine.has_ended(&over, deadline) {
                return ended;
            }
            let busy = more || !engine.prepare_sleep();
            let pending = self.due > 0 || engine.dispatcher.in_flight() > 0;
            let quiet = !pending && self.runtime.num_alive_tasks() <= OWN_TASKS;
            let slept = match quiet {
                true => self.sleep_outside(engine, busy, deadline),
                false => self.sleep_inside(engine, busy, pending, deadline).await,
            };
            engine.bell.cancel_sleep();
            if slept.is_err() {
                // The master knows, and ends the server.
                return Ended::Orphaned;
            }
        }
    }

    /// Sleeps in the poll set.
    fn sleep_outside<F, M>(
        &mut self,
        engine: &Engine<F, M>,
        busy: bool,
        deadline: Option<Instant>,
    ) -> std::result::Result<(), Failed> {
        if self.watched.is_some() {
            self.unneeded += 1;
            if self.unneeded > KEEP {
                self.watched = None;
            }
        }
        let wake = &engine.shared.wake;
        let ms = self.reactor.prepare_sleep();
        if busy || ms == 0 || !wake.fall_asleep_outside() {
            wake.wake_up_outside();
            return self.reactor.wait(&mut self.ready, 0);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // At least 1: what is left of a millisecond is not spent in turns.
        let ms = left.map_or(ms, |left| ms.min(left.as_millis() as u64 + 1));
        let waited = self.reactor.wait(&mut self.ready, ms);
        wake.wake_up_outside();
        waited
    }

    /// Sleeps in the runtime, which runs whatever tasks there are.
    async fn sleep_inside<F, M>(
        &mut self,
        engine: &mut Engine<F, M>,
        busy: bool,
        pending: bool,
        deadline: Option<Instant>,
    ) -> std::result::Result<(), Failed> {
        let ms = self.reactor.prepare_sleep();
        self.reactor.wait(&mut self.ready, 0)?;
        if busy || ms == 0 || !self.ready.is_empty() {
            if pending || tick() != engine.yielded {
                tokio::task::yield_now().await;
                self.due = self.due.saturating_sub(1);
                engine.yielded = tick();
            }
            return Ok(());
        }
        self.unneeded = 0;
        if self.watched.is_none() {
            match watch::readable(self.reactor.poll_set()) {
                Ok(watched) => self.watched = Some(watched),
                Err(error) => {
                    self.reactor
                        .fail(format!("cannot watch the poll set: {error}"));
                    return Err(Failed);
                }
            }
        }
        let until = Instant::now() + Duration::from_millis(ms);
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        let began = tick();
        engine.local.set_asleep(true);
        tokio::select! {
            biased;
            () = readable(self.watched.as_ref()) => {}
            () = engine.shared.wake.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        engine.local.set_asleep(false);
        if self.due > 0 || began != engine.yielded && tick() == began {
            // It may have been over before it began: another thread has called.
            tokio::task::yield_now().await;
        }
        self.due = self.due.saturating_sub(1);
        engine.yielded = tick();
        self.reactor.wait(&mut self.ready, 0)
    }
}

async fn readable(watched: Option<&AsyncFd<OwnedFd>>) {
    let Some(watched) = watched else {
        return std::future::pending().await;
    };
    if let Ok(mut readable) = watched.readable().await {
        // The poll set is emptied before this is waited for again.
        readable.clear_ready();
    }
}

/// Guests of the reactor's poll set.
const BELL: u32 = 0;
const CHANNEL: u32 = 1;
/// Sleeps outside after which the runtime forgets the poll set: being watched makes every event of
/// it a little dearer.
const KEEP: u32 = 256;
