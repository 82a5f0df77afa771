//! What belongs to the worker's thread: the ends of the rings.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    task::{Context, Poll},
};

use gannet_shm::{Doorbell, Region};
use http::HeaderMap;
use tokio::sync::Notify;

use super::{
    outbound::Outbound,
    shared::{Command, Shared},
};
use crate::{
    ConnId, SendError, TaskId,
    control::Role as Kind,
    direct::Direct,
    layout::WorkerCounter,
    wire::{
        command::{CommandHeader, CommandKind, TASK_TIME},
        stamp,
    },
};

pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    /// By reactor.
    links: Vec<Link>,
    /// Whether commands are visible at once: a task or user process may block the thread for long after
    /// it has sent something.
    at_once: bool,
    /// A bit for each reactor ([`bit`]) to which something was written that may not be visible yet.
    unpublished: Cell<u64>,
    /// The loop sleeps: who writes a command has to wake it, so that it is published.
    asleep: Cell<bool>,
    /// Of a task worker: it has more to do at once, so that results wake nobody.
    more_tasks: Cell<bool>,
    /// When its task began, in nanoseconds.
    task_began: Cell<u64>,
    /// `Handler::start` is being polled.
    starting: Cell<bool>,
    /// The engine reads events.
    serving: Cell<bool>,
    /// Tasks submitted in this turn of the loop without asking.
    unasked: Cell<u64>,
    /// Whether a handler is being polled whose event is owed an outcome, and how far it has come.
    handling: Cell<bool>,
    progress: Cell<Progress>,
    /// Responses that are being streamed.
    streams: RefCell<HashMap<ConnId, Rc<Notify>>>,
    /// For the fronts of payloads; its memory is used again.
    front: RefCell<Vec<u8>>,
    /// For the headers of the next request.
    header_map: RefCell<HeaderMap>,
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
    /// It is the reactor of this thread.
    direct: Option<Rc<Direct>>,
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
    /// Attaches the rings. `bells` are the reactors' eventfds; `own`: the reactor of this thread, and what
    /// leads there.
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: &Arc<Region>,
        bells: Vec<OwnedFd>,
        own: Option<(usize, Rc<Direct>)>,
    ) -> Rc<Self> {
        let dimensions = shared.dimensions;
        let direct = |reactor| {
            let own = own.as_ref().filter(|(own, _)| *own == reactor);
            own.map(|(_, direct)| direct.clone())
        };
        let links = bells.into_iter().enumerate().map(|(reactor, bell)| Link {
            out: RefCell::new(Outbound::attach(&shared, reactor, direct(reactor))),
            bell: Doorbell::attach(control.clone(), dimensions.reactor_bell(reactor), bell),
            direct: direct(reactor),
        });
        Rc::new(Local {
            links: links.collect(),
            at_once: shared.kind != Kind::Worker,
            unpublished: Cell::new(0),
            shared,
            asleep: Cell::new(false),
            more_tasks: Cell::new(false),
            task_began: Cell::new(0),
            starting: Cell::new(false),
            serving: Cell::new(false),
            unasked: Cell::new(0),
            handling: Cell::new(false),
            progress: Cell::default(),
            streams: RefCell::default(),
            front: RefCell::default(),
            header_map: RefCell::default(),
            owed: RefCell::default(),
        })
    }

    /// What leads to a reactor, if it runs on this thread.
    pub(crate) fn direct(&self, reactor: usize) -> Option<Rc<Direct>> {
        self.links.get(reactor)?.direct.clone()
    }

    /// Makes this thread the worker's, until the guard is dropped.
    pub(crate) fn install(self: &Rc<Self>) -> Installed {
        LOCAL.replace(Some(self.clone()));
        Installed
    }

    /// Runs `act` if this is the thread of that worker.
    #[inline]
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

    /// That of the worker whose thread this is.
    pub(crate) fn shared_of_thread() -> Option<Arc<Shared>> {
        LOCAL
            .try_with(|local| Some(local.try_borrow().ok()?.as_ref()?.shared.clone()))
            .ok()
            .flatten()
    }

    /// Writes a command if there is room.
    pub(crate) fn offer(&self, reactor: usize, command: &Command) -> Result<(), SendError> {
        self.send(reactor, &command.header, &command.head, &command.payload)
    }

    /// The same with a command in pieces: `head` is the front of its payload.
    #[inline]
    pub(crate) fn send(
        &self,
        reactor: usize,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<(), SendError> {
        let Some(link) = self.links.get(reactor) else {
            return Ok(());
        };
        let mut out = link.out.borrow_mut();
        let result = out.send(header, head, payload);
        self.written(reactor, link, &mut out, header.kind);
        result
    }

    /// Writes a command in pieces, as [`Local::send`] does, if there is room and nobody waits for it.
    #[inline]
    pub(crate) fn offer_now(
        &self,
        reactor: usize,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> bool {
        match self.shared.lanes.get(reactor) {
            Some(lane) if !lane.room.may_go(None) => false,
            Some(_) => self.send(reactor, header, head, payload).is_ok(),
            None => true,
        }
    }

    /// The same: `write` makes the front of the payload.
    pub(crate) fn offer_with(
        &self,
        reactor: usize,
        header: &CommandHeader,
        payload: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut front = self.front.take();
        front.clear();
        write(&mut front);
        let sent = self.offer_now(reactor, header, &front, payload);
        if front.capacity() <= FRONT {
            self.front.replace(front);
        }
        sent
    }

    /// The memory of a map that nobody needed any more, if there is any.
    #[inline]
    pub(crate) fn lend_header_map(&self) -> Option<HeaderMap> {
        let mut kept = self.header_map.borrow_mut();
        (kept.capacity() > 0).then(|| std::mem::take(&mut *kept))
    }

    /// Takes the memory of a map that nobody needs any more, if it has any.
    #[inline]
    pub(crate) fn keep_header_map(&self, map: &mut HeaderMap) {
        if map.capacity() > 0 {
            self.keep_memory(std::mem::take(map));
        }
    }

    fn keep_memory(&self, mut map: HeaderMap) {
        if map.capacity() <= HEADERS {
            map.clear();
            self.header_map.replace(map);
        }
    }

    /// Writes a command of the engine, now or as soon as there is room.
    pub(crate) fn post(&self, reactor: usize, command: Command) {
        let Some(link) = self.links.get(reactor) else {
            return;
        };
        let kind = command.header.kind;
        let mut out = link.out.borrow_mut();
        out.post(command);
        self.written(reactor, link, &mut out, kind);
    }

    /// See [`Shared::submit`].
    pub(crate) fn submit(&self, header: CommandHeader, head: &[u8], data: &[u8]) -> Option<TaskId> {
        // Before the loop runs, no master knows of this worker. And a handler that submits without end has
        // to wait at times, or the events that tell of the outcomes would never be read.
        if !self.serving.get() || self.unasked.get() >= self.shared.admission.ahead() {
            return None;
        }
        let link = self.links.first()?;
        let mut out = link.out.borrow_mut();
        let id = out.submit(&self.shared.admission, header, head, data)?;
        if !self.handling.get() {
            // No event is owed that would come again without it.
            out.publish();
        }
        self.written(0, link, &mut out, header.kind);
        self.unasked.set(self.unasked.get() + 1);
        Some(TaskId(id))
    }

    /// See [`Shared::submit_early`].
    pub(crate) fn submit_early(
        &self,
        header: CommandHeader,
        head: &[u8],
        data: &[u8],
    ) -> Result<TaskId, SendError> {
        let Some(link) = self.links.first() else {
            return Err(SendError::NotReady);
        };
        let mut out = link.out.borrow_mut();
        let id = out.submit_early(&self.shared.admission, header, head, data);
        self.written(0, link, &mut out, header.kind);
        id.map(TaskId)
    }

    /// Finishes an event. What its handler has written, to whatever reactor and from whatever
    /// thread, is visible before.
    #[inline]
    pub(crate) fn finish(&self, finished: Finished) {
        if self.take_mail() {
            self.finish_now(finished);
        } else {
            self.owe(finished);
        }
    }

    #[cold]
    fn owe(&self, finished: Finished) {
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

    #[inline]
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
        if seq != 0 {
            self.write_end(reactor, conn, seq, failed);
        }
    }

    /// Writes that an event has ended: with the last command, if that is possible, or else with one of its own.
    #[inline]
    fn write_end(&self, reactor: usize, conn: ConnId, seq: u64, failed: bool) {
        let Some(link) = self.links.get(reactor) else {
            return;
        };
        let mut out = link.out.borrow_mut();
        if failed || !out.amend(seq) {
            out.done(conn, seq, failed);
            self.written(reactor, link, &mut out, CommandKind::Done);
        }
    }

    #[inline]
    fn publish_others(&self, reactor: usize) {
        if self.unpublished.get() & !bit(reactor) != 0 {
            self.publish_all_but(reactor);
        }
    }

    fn publish_all_but(&self, reactor: usize) {
        for (other, link) in self.links.iter().enumerate() {
            if other != reactor {
                link.out.borrow_mut().publish();
            }
        }
        self.unpublished.set(self.unpublished.get() & bit(reactor));
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
        self.write_end(reactor, conn, seq, false);
    }

    /// Publishes everything and wakes the reactors that sleep.
    pub(crate) fn flush(&self) {
        self.take_mail();
        self.pay();
        self.unpublished.set(0);
        self.unasked.set(0);
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

    /// Polls `Handler::start`, or what is around it. What it spawns is polled apart, and may wait.
    pub(crate) fn poll_start<T>(
        &self,
        start: Pin<&mut impl Future<Output = T>>,
        cx: &mut Context<'_>,
    ) -> Poll<T> {
        self.starting.set(true);
        let polled = start.poll(cx);
        self.starting.set(false);
        polled
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.starting.get()
    }

    /// The engine reads events from now on.
    pub(crate) fn serve(&self) {
        self.serving.set(true);
    }

    /// A handler is polled, that has come so far; `owed`: the master awaits the outcome of its event.
    pub(crate) fn begin_handling(&self, progress: Progress, owed: bool) {
        self.handling.set(owed);
        self.progress.set(progress);
    }

    /// It was; how far it has come.
    pub(crate) fn end_handling(&self) -> Progress {
        self.handling.set(false);
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
    #[inline]
    fn written(&self, reactor: usize, link: &Link, out: &mut Outbound, kind: CommandKind) {
        self.unpublished.set(self.unpublished.get() | bit(reactor));
        if self.at_once || out.is_heavy() {
            out.publish();
        }
        if out.is_bell_due() {
            self.ring(link, out, kind);
        }
        if self.asleep.get() {
            self.asleep.set(false);
            self.shared.wake.notify_one();
        }
    }

    /// Something was published in the middle of a turn.
    #[cold]
    fn ring(&self, link: &Link, out: &mut Outbound, kind: CommandKind) {
        let waits = kind == CommandKind::TaskDone && self.more_tasks.get();
        if !waits && out.take_bell_due() {
            link.bell.ring();
        }
    }

    /// Writes what other threads have sent, as far as there is room. Says whether that was all.
    #[inline]
    fn take_mail(&self) -> bool {
        !self.shared.has_mail() || self.empty_inboxes()
    }

    #[cold]
    fn empty_inboxes(&self) -> bool {
        let mut all = true;
        // First this, then the inboxes: who has put something into one that was looked at says so after it.
        self.shared.set_mail(false);
        for (reactor, (link, lane)) in self.links.iter().zip(&self.shared.lanes).enumerate() {
            let mut inbox = lane.inbox();
            let mut out = link.out.borrow_mut();
            while let Some(command) = inbox.queue.front() {
                self.unpublished.set(self.unpublished.get() | bit(reactor));
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
            if left {
                self.shared.set_mail(true);
            }
            all &= !left;
            if inbox.has_room() {
                inbox.line.wake_first();
            }
        }
        all
    }
}

/// The place of a reactor in a set of them.
fn bit(reactor: usize) -> u64 {
    1 << reactor
}

const _: () = assert!(ConnId::MAX_REACTORS <= u64::BITS as usize);
/// Larger memory for fronts is not kept.
const FRONT: usize = 16 << 10;
/// Nor are maps with room for more headers.
const HEADERS: usize = 48;

/// See [`Local::install`].
pub(crate) struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        LOCAL.replace(None);
    }
}
