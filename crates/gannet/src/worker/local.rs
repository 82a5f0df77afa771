//! What belongs to the worker's thread: the ends of the rings.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

use gannet_shm::{Doorbell, Region};
use tokio::sync::Notify;

use super::{
    outbound::Outbound,
    shared::{Command, Shared},
};
use crate::{
    ConnId, SendError,
    control::Role as Kind,
    layout::WorkerCounter,
    wire::{
        command::{CommandKind, TASK_TIME},
        stamp,
    },
};

pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    /// By reactor.
    links: Vec<Link>,
    /// The loop sleeps: who writes a command has to wake it, so that it is published.
    asleep: Cell<bool>,
    /// Of a task worker: it has more to do at once, so that results wake nobody.
    more_tasks: Cell<bool>,
    /// When its task began, in nanoseconds.
    task_began: Cell<u64>,
    /// Of the handler that is being polled.
    progress: Cell<Progress>,
    /// Responses that are being streamed.
    streams: RefCell<HashMap<ConnId, Rc<Notify>>>,
    /// Events that are finished, once what other threads sent for them has found room.
    owed: RefCell<VecDeque<Owed>>,
}

/// An event that has ended.
#[derive(Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) reactor: usize,
    pub(crate) conn: ConnId,
    /// 0: no outcome is awaited.
    pub(crate) seq: u64,
    pub(crate) failed: bool,
}

struct Owed {
    finished: Finished,
    /// By reactor: how many commands must have been taken out of its inbox.
    taken: Vec<u64>,
}

struct Link {
    out: RefCell<Outbound>,
    bell: Doorbell,
}

/// How far the handler of an event has come, where that decides what a failure means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    #[default]
    Started,
    /// The head of its response has left.
    HeadSent,
    /// Its outcome has been written.
    Answered,
}

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

impl Local {
    /// Attaches the rings. `bells` are the reactors' eventfds.
    pub(crate) fn new(shared: Arc<Shared>, control: &Arc<Region>, bells: Vec<OwnedFd>) -> Rc<Self> {
        let dimensions = shared.dimensions;
        let links = bells.into_iter().enumerate().map(|(reactor, bell)| Link {
            out: RefCell::new(Outbound::attach(&shared, reactor)),
            bell: Doorbell::attach(control.clone(), dimensions.reactor_bell(reactor), bell),
        });
        Rc::new(Local {
            links: links.collect(),
            shared,
            asleep: Cell::new(false),
            more_tasks: Cell::new(false),
            task_began: Cell::new(0),
            progress: Cell::default(),
            streams: RefCell::default(),
            owed: RefCell::default(),
        })
    }

    /// Makes this thread the worker's, until the guard is dropped.
    pub(crate) fn install(self: &Rc<Self>) -> Installed {
        LOCAL.replace(Some(self.clone()));
        Installed
    }

    /// Runs `act` if this is the thread of that worker.
    pub(crate) fn with<T>(shared: &Shared, act: impl FnOnce(&Local) -> T) -> Option<T> {
        // While the thread ends there is no local any more: then it is like another thread.
        LOCAL
            .try_with(|local| {
                let local = local.try_borrow().ok()?;
                let local = local.as_ref()?;
                std::ptr::eq(&*local.shared, shared).then(|| act(local))
            })
            .ok()
            .flatten()
    }

    /// Writes a command if there is room.
    pub(crate) fn offer(&self, reactor: usize, command: &Command) -> Result<(), SendError> {
        let Some(link) = self.links.get(reactor) else {
            return Ok(());
        };
        let result = link.out.borrow_mut().offer(command);
        self.written(link, command.header.kind);
        result
    }

    /// Writes a command of the engine, now or as soon as there is room.
    pub(crate) fn post(&self, reactor: usize, command: Command) {
        let Some(link) = self.links.get(reactor) else {
            return;
        };
        let kind = command.header.kind;
        link.out.borrow_mut().post(command);
        self.written(link, kind);
    }

    /// Finishes an event. What its handler has written, to whatever reactor and from whatever
    /// thread, is visible before.
    pub(crate) fn finish(&self, finished: Finished) {
        if self.take_mail() {
            self.finish_now(finished);
            return;
        }
        let taken = self
            .shared
            .lanes
            .iter()
            .map(|lane| lane.inbox().delivered)
            .collect();
        self.owed.borrow_mut().push_back(Owed { finished, taken });
    }

    /// As the first half of [`Local::finish`]: after it a command may finish the event itself, if
    /// this says so.
    pub(crate) fn may_finish(&self, reactor: usize) -> bool {
        let may = self.take_mail();
        if may {
            self.publish_others(reactor);
        }
        may
    }

    fn finish_now(
        &self,
        Finished {
            reactor,
            conn,
            seq,
            failed,
        }: Finished,
    ) {
        self.publish_others(reactor);
        if seq != 0
            && let Some(link) = self.links.get(reactor)
        {
            link.out.borrow_mut().done(conn, seq, failed);
            self.written(link, CommandKind::Done);
        }
    }

    fn publish_others(&self, reactor: usize) {
        for (other, link) in self.links.iter().enumerate() {
            let mut out = link.out.borrow_mut();
            if other != reactor && out.has_unpublished() {
                out.publish();
            }
        }
    }

    /// Finishes what waited for mail that has been taken by now.
    fn pay(&self) {
        loop {
            let finished = {
                let mut owed = self.owed.borrow_mut();
                let Some(first) = owed.front() else { return };
                let mut lanes = self.shared.lanes.iter().zip(&first.taken);
                if !lanes.all(|(lane, taken)| lane.inbox().taken >= *taken) {
                    return;
                }
                let Some(first) = owed.pop_front() else {
                    return;
                };
                first.finished
            };
            self.finish_now(finished);
        }
    }

    /// The master is new: what was owed to the one before is not.
    pub(crate) fn forget(&self, reactor: usize) {
        self.owed
            .borrow_mut()
            .retain(|owed| owed.finished.reactor != reactor);
    }

    /// Finishes a piece of a body.
    pub(crate) fn finish_piece(&self, reactor: usize, conn: ConnId, seq: u64) {
        if let Some(link) = self.links.get(reactor) {
            link.out.borrow_mut().done(conn, seq, false);
            self.written(link, CommandKind::Done);
        }
    }

    /// Publishes everything and wakes the reactors that sleep.
    pub(crate) fn flush(&self) {
        self.take_mail();
        self.pay();
        for (link, lane) in self.links.iter().zip(&self.shared.lanes) {
            let mut out = link.out.borrow_mut();
            out.settle();
            out.publish();
            if out.take_bell_due() {
                link.bell.ring();
            }
            let room = !lane.room.is_empty() && out.may_have_room();
            if room {
                // The first wakes the next when it has gone.
                out.mark_full();
            }
            drop(out);
            if room {
                lane.room.wake_first();
            }
        }
    }

    /// Whether something waits for room in a ring, or for being written to one.
    pub(crate) fn is_blocked(&self) -> bool {
        self.links
            .iter()
            .zip(&self.shared.lanes)
            .any(|(link, lane)| {
                !lane.room.is_empty() || lane.mail.load(Relaxed) || link.out.borrow().is_stuck()
            })
    }

    /// Asks the reactors to ring when they have made room. Says whether one has by now.
    pub(crate) fn ask_for_room(&self) -> bool {
        self.shared
            .counter(WorkerCounter::CommandsBlocked)
            .store(1, Relaxed);
        fence(SeqCst);
        self.links
            .iter()
            .zip(&self.shared.lanes)
            .any(|(link, lane)| {
                let out = link.out.borrow();
                let waiting = !lane.room.is_empty() || lane.mail.load(Relaxed) || out.is_stuck();
                waiting && out.may_have_room()
            })
    }

    /// A task begins, and others follow at once, or none does.
    pub(crate) fn begin_task(&self, now: u64, more: bool) {
        self.task_began.set(now);
        self.more_tasks.set(more);
    }

    pub(crate) fn no_more_tasks(&self) {
        self.more_tasks.set(false);
    }

    /// How long the task has taken, in units of `TASK_TIME`.
    pub(crate) fn task_took(&self) -> u16 {
        let took = stamp::monotonic_nanos().saturating_sub(self.task_began.get());
        u16::try_from(took / TASK_TIME).unwrap_or(u16::MAX)
    }

    pub(crate) fn set_asleep(&self, asleep: bool) {
        self.asleep.set(asleep);
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.get()
    }

    pub(crate) fn set_progress(&self, progress: Progress) {
        self.progress.set(progress);
    }

    /// Notes that a response is being streamed; what is returned is notified if the client goes.
    pub(crate) fn stream(&self, conn: ConnId) -> Rc<Notify> {
        self.streams.borrow_mut().entry(conn).or_default().clone()
    }

    pub(crate) fn end_stream(&self, conn: ConnId) {
        self.streams.borrow_mut().remove(&conn);
    }

    /// The connection is gone.
    pub(crate) fn cancel_stream(&self, conn: ConnId) {
        let streams = self.streams.borrow();
        if !streams.is_empty()
            && let Some(gone) = streams.get(&conn)
        {
            gone.notify_one();
        }
    }

    /// The master is gone, and with it all connections of this reactor.
    pub(crate) fn cancel_streams(&self, reactor: usize) {
        for (conn, gone) in self.streams.borrow().iter() {
            if conn.reactor() == reactor {
                gone.notify_one();
            }
        }
    }

    /// After each change of a ring's end.
    fn written(&self, link: &Link, kind: CommandKind) {
        let mut out = link.out.borrow_mut();
        // A task or user process may block the thread for long after it has sent something.
        if self.shared.kind != Kind::Worker || out.is_heavy() {
            out.publish();
        }
        let waits = kind == CommandKind::TaskDone && self.more_tasks.get();
        if !waits && out.take_bell_due() {
            link.bell.ring();
        }
        if self.asleep.replace(false) {
            self.shared.wake.notify_one();
        }
    }

    /// Writes what other threads have sent, as far as there is room. Says whether that was all.
    fn take_mail(&self) -> bool {
        let mut all = true;
        for (link, lane) in self.links.iter().zip(&self.shared.lanes) {
            if !lane.mail.load(Relaxed) {
                continue;
            }
            let mut inbox = lane.inbox();
            let mut out = link.out.borrow_mut();
            while let Some(command) = inbox.queue.front() {
                if out.offer(command) == Err(SendError::Full) {
                    break;
                }
                let len = command.len();
                inbox.bytes -= len;
                inbox.taken += 1;
                inbox.queue.pop_front();
            }
            let left = !inbox.queue.is_empty();
            lane.mail.store(left, Relaxed);
            all &= !left;
            if inbox.has_room() {
                inbox.line.wake_first();
            }
        }
        all
    }
}

/// See [`Local::install`].
pub(crate) struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        LOCAL.replace(None);
    }
}
