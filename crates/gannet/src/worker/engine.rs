//! The loop of a worker: read events, dispatch, publish, sleep.

use std::{
    cell::Cell,
    collections::HashMap,
    convert::Infallible,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use gannet_shm::Doorbell;
use tokio::{io::unix::AsyncFd, time::Instant};

use super::{
    awaited::Answer, case::Case, dispatch::Dispatcher, doze::Doze, hand::Hand, inbound::Inbound,
    inline::Inline, local::Local, shared::Shared, upload::Upload,
};
use crate::{
    ConnId, TaskId,
    channel::Channel,
    claim::Claim,
    direct::Event,
    layout::WorkerCounter,
    master::Reactor,
    wire::{
        event::{
            BODY_ABORT, BODY_COMPLETE, BODY_END, BODY_TRAILERS, EXPECT_CONTINUE, EventHeader,
            EventKind, FAILED, UNTOLD,
        },
        head::Head,
        stamp,
    },
};

pub(crate) struct Engine<F, M> {
    pub(super) shared: Arc<Shared>,
    pub(super) local: Rc<Local>,
    pub(super) dispatcher: Rc<Dispatcher<F, M>>,
    pub(super) orders: Rc<Orders>,
    pub(super) bell: Doorbell,
    /// The bell's descriptor, registered. It is edge-triggered and never drained.
    readable: AsyncFd<OwnedFd>,
    /// By reactor.
    inbound: Vec<Inbound>,
    retired: Vec<bool>,
    /// Payloads are cut from it.
    chunk: BytesMut,
    /// Requests whose body is coming in.
    uploads: HashMap<ConnId, Arc<Upload>>,
    /// How many of them there may be before those that are over are looked for.
    uploads_kept: usize,
    /// Tasks that have come and are not begun.
    hand: Hand,
    /// Events with an outcome taken so far, and at how many a successor is wanted (0: never).
    taken: u64,
    retire_at: u64,
    /// When the runtime was last let in.
    pub(super) yielded: Tick,
    /// In thread mode: the reactor of this thread, if it does not run.
    inline: Option<Box<Inline>>,
    /// How it sleeps while nothing but events can wake it.
    doze: Option<Doze>,
}

/// What the manager, or the worker itself, has decided.
#[derive(Default)]
pub(crate) struct Orders {
    /// No more events; finish and exit.
    pub(crate) exit: Cell<bool>,
    /// The manager has died.
    pub(crate) orphaned: Cell<bool>,
    /// `max_requests` is reached; the manager is to be told.
    pub(crate) wants_successor: tokio::sync::Notify,
    /// Of a user process: its function is to run.
    pub(crate) begin: Cell<bool>,
    /// Of a user process: its function is to end.
    pub(crate) stop: tokio::sync::watch::Sender<bool>,
}

/// Why the loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// What it was to wait for has come.
    Over,
    /// The time was up first.
    TimedOut,
    /// The manager has died.
    Orphaned,
}

impl<F, M> Engine<F, M>
where
    F: Future<Output = Infallible> + 'static,
    M: Fn(Rc<Case>) -> F + 'static,
{
    pub(crate) fn new(
        local: Rc<Local>,
        dispatcher: Rc<Dispatcher<F, M>>,
        orders: Rc<Orders>,
        bell: OwnedFd,
        retire_at: u64,
    ) -> io::Result<Self> {
        let shared = local.shared.clone();
        let readable = crate::watch::readable(&bell)?;
        let bell = Doorbell::attach(shared.region.clone(), shared.dimensions.worker_bell(), bell);
        let reactors = shared.dimensions.reactors;
        let inbound = (0..reactors)
            .map(|reactor| Inbound::attach(&shared, reactor, local.direct(reactor)))
            .collect();
        let claim = Claim::attach(shared.region.clone(), shared.dimensions);
        Ok(Engine {
            local,
            dispatcher,
            orders,
            bell,
            readable,
            inbound,
            retired: vec![false; reactors],
            chunk: BytesMut::new(),
            uploads: HashMap::new(),
            uploads_kept: UPLOADS,
            hand: Hand::new(claim),
            taken: 0,
            retire_at,
            yielded: tick(),
            inline: None,
            doze: None,
            shared,
        })
    }

    /// In thread mode: has the reactor run in turn with the worker.
    pub(crate) fn join(&mut self, reactor: Reactor, channel: &Channel) -> io::Result<()> {
        let inline = Inline::new(&self.shared, &self.bell, channel, reactor)?;
        self.inline = Some(Box::new(inline));
        Ok(())
    }

    /// Without a reactor: has the loop sleep outside of the runtime where it can.
    pub(crate) fn doze(&mut self, channel: &Channel) -> io::Result<()> {
        self.doze = Some(Doze::new(self.bell.fd(), channel)?);
        let bell = self.bell.fd().try_clone_to_owned()?;
        self.shared.wake.reach_outside(bell);
        Ok(())
    }

    /// The reactor that was taken in.
    pub(crate) fn part(self) -> Option<Reactor> {
        self.inline.map(|inline| inline.reactor)
    }

    /// Whether no more events come and nothing is left to be done.
    pub(crate) fn is_finished(&self) -> bool {
        let last = self.orders.exit.get() || self.retired.iter().all(|retired| *retired);
        last && self.dispatcher.in_flight() == 0 && !self.local.is_blocked()
    }

    /// Whether everything written is in the rings.
    pub(crate) fn is_settled(&self) -> bool {
        !self.local.is_blocked()
    }

    /// Whether the manager wants the worker to exit.
    pub(crate) fn is_told_to_exit(&self) -> bool {
        self.orders.exit.get()
    }

    /// Serves until `over` says so, which is looked at once a turn.
    pub(crate) async fn run(
        &mut self,
        over: impl Fn(&Self) -> bool,
        deadline: Option<Instant>,
    ) -> Ended {
        self.local.serve();
        if let Some(mut inline) = self.inline.take() {
            let ended = inline.run(self, over, deadline).await;
            self.inline = Some(inline);
            return ended;
        }
        loop {
            self.shared.count(WorkerCounter::Turns);
            let more = !self.orders.exit.get() && self.turn();
            self.local.flush();
            if let Some(ended) = self.has_ended(&over, deadline) {
                return ended;
            }
            let slept = !more && self.sleep(deadline).await;
            // Under steady load the tasks, timers and sockets of handlers still have their turn; so has
            // what the manager says, where every sleep is outside of the runtime or over at once.
            let pending = !slept && self.dispatcher.in_flight() > 0;
            if pending || tick() != self.yielded {
                tokio::task::yield_now().await;
                self.yielded = tick();
            }
        }
    }

    /// Whether the loop is to end, and why.
    pub(super) fn has_ended(
        &self,
        over: &impl Fn(&Self) -> bool,
        deadline: Option<Instant>,
    ) -> Option<Ended> {
        if self.orders.orphaned.get() {
            return Some(Ended::Orphaned);
        }
        if over(self) {
            return Some(Ended::Over);
        }
        let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        late.then_some(Ended::TimedOut)
    }

    /// Reads and dispatches a bounded number of events of each reactor. Says whether there are
    /// more.
    pub(super) fn turn(&mut self) -> bool {
        self.dispatcher.time_passes();
        let mut more = false;
        let mut flushed = self.dispatcher.tick();
        for reactor in 0..self.inbound.len() {
            let mut count = 0;
            while count < TURN {
                count += 1;
                match self.inbound[reactor].next(&mut self.chunk) {
                    Some(event) if event.header.is_plain() => self.dispatch(reactor, event, None),
                    Some(event) => self.take(reactor, event),
                    None => break,
                }
                // Handlers that compute for long do not hold back what others have written.
                let is_late = self.dispatcher.tick() != flushed;
                if count.is_multiple_of(PUBLISH) || is_late {
                    self.local.flush();
                    self.dispatcher.time_passes();
                    flushed = self.dispatcher.tick();
                }
                more |= count == TURN;
                if is_late {
                    // Other reactors, what handlers have pending and the manager wait for the turn to end;
                    // in thread mode so does what was flushed.
                    more = true;
                    break;
                }
            }
        }
        self.begin_tasks();
        more
    }

    /// Runs the tasks that are here, one after another, as long as they do not wait.
    ///
    /// Their results are visible at once. The reactor, which looks for them by itself every
    /// millisecond, is woken for many of them together.
    fn begin_tasks(&mut self) {
        if self.hand.is_empty() {
            return;
        }
        let mut began = stamp::monotonic_nanos();
        let mut rung = began;
        while self.dispatcher.tasks() == 0
            && let Some((reactor, event)) = self.hand.begin()
        {
            self.local.begin_task(began, !self.hand.is_empty());
            self.dispatch_rare(reactor, event, None);
            began = stamp::monotonic_nanos();
            if began - rung > UNHEARD {
                self.local.flush();
                rung = began;
            }
        }
        self.local.no_more_tasks();
    }

    /// An event that not every message is.
    #[inline(never)]
    fn take(&mut self, reactor: usize, Event { header, payload }: Event) {
        let is_answer = matches!(
            header.kind,
            EventKind::Reply | EventKind::TaskResult | EventKind::TaskAccepted
        );
        if is_answer && header.seq != 0 {
            // It lies in the arena until it is known to have been taken.
            let epoch = self.shared.lanes[reactor].epoch();
            self.shared.finish(reactor, header.conn, header.seq, epoch);
        }
        match header.kind {
            EventKind::Tick => {}
            EventKind::Reply => self
                .shared
                .awaited
                .answer(header.aux, Answer::Data(payload)),
            EventKind::TaskResult => {
                let failed = header.has(FAILED);
                let answer = if failed {
                    Answer::Failed(payload)
                } else {
                    Answer::Data(payload)
                };
                self.shared.awaited.answer(header.aux, answer);
            }
            EventKind::TaskAccepted => {
                let task = payload
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes));
                self.shared
                    .awaited
                    .answer(header.aux, Answer::Accepted(TaskId(task)));
            }
            EventKind::Task => self.hand.take(reactor, Event { header, payload }),
            EventKind::Retire => self.retired[reactor] = true,
            EventKind::Reset => self.reset(reactor),
            EventKind::RequestBody => self.feed(reactor, &header, payload),
            EventKind::Close => {
                if let Some(upload) = self.uploads.remove(&header.conn) {
                    upload.fail();
                }
                self.local.cancel_stream(header.conn);
                if header.has(UNTOLD) {
                    let epoch = self.shared.lanes[reactor].epoch();
                    self.shared.finish(reactor, header.conn, header.seq, epoch);
                } else {
                    self.dispatch_rare(reactor, Event { header, payload }, None);
                }
            }
            EventKind::Request if !header.has(BODY_COMPLETE) => {
                let len = (header.aux != u64::MAX).then_some(header.aux);
                let expects_continue = header.has(EXPECT_CONTINUE);
                let shared = self.shared.clone();
                let upload = Upload::new(shared, reactor, header.conn, len, expects_continue);
                if let Some((_, begun)) = Head::split(&payload) {
                    upload.feed(payload.slice_ref(begun), 0);
                }
                self.keep_upload(header.conn, upload.clone());
                self.dispatch_rare(reactor, Event { header, payload }, Some(upload));
            }
            EventKind::Request if header.has(BODY_TRAILERS) => {
                let (shared, len) = (self.shared.clone(), Some(header.aux));
                let upload = Upload::new(shared, reactor, header.conn, len, false);
                if let Some((_, rest)) = Head::split(&payload)
                    && let Some((body, trailers)) = usize::try_from(header.aux)
                        .ok()
                        .and_then(|len| rest.split_at_checked(len))
                {
                    upload.feed(payload.slice_ref(body), 0);
                    upload.end(trailers, 0);
                }
                self.dispatch_rare(reactor, Event { header, payload }, Some(upload));
            }
            _ => self.dispatch_rare(reactor, Event { header, payload }, None),
        }
    }

    /// As [`Engine::dispatch`], for those who do not do so with every message.
    #[inline(never)]
    fn dispatch_rare(&mut self, reactor: usize, event: Event, upload: Option<Arc<Upload>>) {
        self.dispatch(reactor, event, upload);
    }

    #[inline]
    fn dispatch(&mut self, reactor: usize, event: Event, upload: Option<Arc<Upload>>) {
        self.taken += 1;
        if self.taken == self.retire_at {
            self.orders.wants_successor.notify_one();
            if let Some(doze) = &mut self.doze {
                doze.let_tasks_run();
            }
        }
        let epoch = self.shared.lanes[reactor].epoch();
        self.dispatcher.dispatch(reactor, epoch, event, upload);
    }

    /// Notes where the rest of a body goes. The end of a body that nobody waited for may never be
    /// told, so what no handler and no reader holds any more is let go when it has become much.
    fn keep_upload(&mut self, conn: ConnId, upload: Arc<Upload>) {
        if self.uploads.len() >= self.uploads_kept {
            self.uploads
                .retain(|_, upload| Arc::strong_count(upload) > 1);
            self.uploads_kept = (2 * self.uploads.len()).max(UPLOADS);
        }
        self.uploads.insert(conn, upload);
    }

    /// A piece of a body goes past those that wait in line: it belongs to a request that may be
    /// running, and that waits for it.
    fn feed(&mut self, reactor: usize, header: &EventHeader, payload: Bytes) {
        let conn = header.conn;
        if header.has(BODY_END | BODY_ABORT) {
            match self.uploads.remove(&conn) {
                Some(upload) if header.has(BODY_END) => upload.end(&payload, header.seq),
                other => {
                    if let Some(upload) = other {
                        upload.fail();
                    }
                    let epoch = self.shared.lanes[reactor].epoch();
                    self.shared.finish(reactor, conn, header.seq, epoch);
                }
            }
            return;
        }
        match self.uploads.get(&conn) {
            Some(upload) => upload.feed(payload, header.seq),
            None => {
                let epoch = self.shared.lanes[reactor].epoch();
                self.shared.finish(reactor, conn, header.seq, epoch);
            }
        }
    }

    /// A new master: what the one before had asked or sent concerns nobody any more. Handlers
    /// that run do so to their end.
    fn reset(&mut self, reactor: usize) {
        self.shared.lanes[reactor].epoch.fetch_add(1, Relaxed);
        self.retired[reactor] = false;
        for (_, upload) in self.uploads.extract_if(|conn, _| conn.reactor() == reactor) {
            upload.fail();
        }
        self.local.cancel_streams(reactor);
        self.local.forget(reactor);
        self.hand.forget(reactor);
        self.dispatcher.forget(reactor);
        self.shared.awaited.lose(reactor);
    }

    /// Waits for an event, a wake-up or the deadline. `false`: there was something to do.
    async fn sleep(&mut self, deadline: Option<Instant>) -> bool {
        if !self.prepare_sleep() {
            return false;
        }
        if let Some(doze) = &mut self.doze {
            if deadline.is_none() && self.dispatcher.in_flight() == 0 && doze.may_doze() {
                doze.doze(&self.shared.wake);
                self.bell.cancel_sleep();
                return true;
            }
            doze.slept();
        }
        let began = tick();
        self.local.set_asleep(true);
        tokio::select! {
            biased;
            readable = self.readable.readable() => {
                if let Ok(mut readable) = readable {
                    // A ring after the look above makes it readable again.
                    readable.clear_ready();
                }
            }
            () = self.shared.wake.notified() => {}
            () = until(deadline) => {}
        }
        self.local.set_asleep(false);
        self.bell.cancel_sleep();
        if tick() != began {
            // That was a sleep, and no call of another thread that was there before it began.
            self.yielded = tick();
        }
        true
    }
}

impl<F, M> Engine<F, M> {
    /// Announces sleep. `false`: there is something to do first.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.bell.prepare_sleep();
        let room = self.local.is_blocked() && self.local.ask_for_room();
        let exiting = self.orders.exit.get();
        if room || !exiting && self.inbound.iter().any(|inbound| !inbound.is_empty()) {
            self.bell.cancel_sleep();
            return false;
        }
        true
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A clock that moves every few milliseconds and costs next to nothing.
pub(super) fn tick() -> Tick {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    (now.tv_sec, now.tv_nsec)
}

pub(super) type Tick = (rustix::time::Secs, rustix::time::Nsecs);

/// Uploads that are kept without a look at whether they are over.
const UPLOADS: usize = 64;
/// Events of one reactor in one turn, if they take no longer than a few milliseconds: as many as clients
/// that send ahead bring in one of its turns.
const TURN: usize = 1024;
/// Events after which what their handlers wrote is published.
const PUBLISH: usize = 32;
/// How long results of tasks may lie before the reactor is woken, in nanoseconds.
const UNHEARD: u64 = 100_000;
