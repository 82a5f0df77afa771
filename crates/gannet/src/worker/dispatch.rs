//! Which handler runs when.
//!
//! A handler is polled once where its event was read. Most are ready then, and have cost no task
//! and no allocation: the future lies in a slot that is used again and again (see [`Case`]). One that is
//! pending takes its slot along into a task of its own; events of its connection queue up behind it until
//! it has ended.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
};

use gannet_shm::Words;

use super::{
    case::{Case, State},
    handle::task_done,
    latency::Latency,
    local::{Finished, Local, Progress},
    shared::Command,
    upload::Upload,
};
use crate::{
    ConnId, Error,
    control::Role as Kind,
    direct::Event,
    layout::{WORKER_COUNTS, WorkerCounter},
    traces::{self, EventSpan},
    wire::{command::CommandKind, event::EventKind},
};

/// `make` makes the future that handles what is given to its case, one event after another.
pub(crate) struct Dispatcher<F, M> {
    make: M,
    local: Rc<Local>,
    /// Slots to be used again: the next, and others.
    next: Cell<Option<Slot<F>>>,
    spare: RefCell<Vec<Slot<F>>>,
    /// Connections whose handler is pending, and what came for them since.
    busy: RefCell<HashMap<ConnId, VecDeque<Job>>>,
    in_flight: Cell<u64>,
    /// Tasks that run.
    tasks: Cell<usize>,
    latency: Latency,
    /// Of this worker.
    counters: Words<WORKER_COUNTS>,
    /// By reactor, the word that tells the master which of its events is being handled. None in a user
    /// process: there the handler that is polled only waits for the function, which says itself what it
    /// has taken.
    current: Vec<Words<1>>,
}

struct Slot<F> {
    case: Rc<Case>,
    future: Pin<Box<F>>,
}

/// An event that waits for those of its connection before it.
struct Job {
    reactor: usize,
    /// Of the lane, when it was read.
    epoch: u32,
    event: Event,
    /// The body of a request that is still coming in.
    upload: Option<Arc<Upload>>,
}

/// What is known of an event that has begun, apart from its case.
struct Ticket {
    progress: Progress,
    span: EventSpan,
    /// When it began, in nanoseconds.
    began: u64,
    /// Whether the master awaits its outcome: not if another has come since.
    owed: bool,
}

pub(crate) enum Outcome {
    Fine,
    Failed(Error),
    Panicked(String),
}

impl<F, M> Dispatcher<F, M>
where
    F: Future<Output = Infallible> + 'static,
    M: Fn(Rc<Case>) -> F + 'static,
{
    pub(crate) fn new(local: Rc<Local>, make: M) -> Rc<Self> {
        let current = match local.shared.kind {
            Kind::Process => Vec::new(),
            _ => local.shared.current_words().to_vec(),
        };
        traces::count_in(&local.shared);
        Rc::new(Dispatcher {
            make,
            latency: Latency::new(local.shared.clone()),
            counters: local.shared.counters().clone(),
            local,
            next: Cell::default(),
            spare: RefCell::default(),
            busy: RefCell::default(),
            in_flight: Cell::new(0),
            tasks: Cell::new(0),
            current,
        })
    }

    /// Events taken and not finished.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// Tasks that run.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.get()
    }

    /// Time has passed in which no handler ran.
    #[inline]
    pub(crate) fn time_passes(&self) {
        self.latency.pause();
    }

    /// A clock that moves every few milliseconds and costs next to nothing behind a handler.
    #[inline]
    pub(crate) fn tick(&self) -> u64 {
        self.latency.tick()
    }

    /// Handles an event, now or when those of its connection before it are handled. `epoch`: of the lane, when
    /// it was read; `upload`: the body of a request that is still coming in.
    #[inline]
    pub(crate) fn dispatch(
        self: &Rc<Self>,
        reactor: usize,
        epoch: u32,
        event: Event,
        upload: Option<Arc<Upload>>,
    ) {
        let before = self.in_flight.get();
        self.set_in_flight(before + 1);
        if before != 0 && self.is_busy(event.header.conn) {
            return self.queue_up(Job {
                reactor,
                epoch,
                event,
                upload,
            });
        }
        let next = self.next.take();
        let mut slot = next.unwrap_or_else(|| self.another_slot());
        let mut ticket = self.begin(&slot.case, reactor, epoch, event, upload);
        // What wakes it before its task has polled it again need not be known.
        let mut nobody = Context::from_waker(Waker::noop());
        let state = self.poll(&mut slot, &mut ticket, &mut nobody);
        if state == State::Open {
            return self.set_aside(slot, ticket);
        }
        self.end(&slot.case, ticket, state);
        self.next.set(Some(slot));
    }

    /// Whether an event of this connection is being handled.
    #[inline(never)]
    fn is_busy(&self, conn: ConnId) -> bool {
        self.busy.borrow().contains_key(&conn)
    }

    /// Puts an event behind those of its connection.
    #[cold]
    fn queue_up(&self, job: Job) {
        let mut busy = self.busy.borrow_mut();
        busy.entry(job.event.header.conn)
            .or_default()
            .push_back(job);
    }

    /// The handler waits: from now on it is a task.
    #[inline(never)]
    fn set_aside(self: &Rc<Self>, slot: Slot<F>, ticket: Ticket) {
        self.latency.pause();
        let conn = slot.case.conn();
        if conn != ConnId::from_u64(0) {
            self.busy.borrow_mut().insert(conn, VecDeque::new());
        }
        tokio::task::spawn_local(self.clone().go_on(slot, ticket));
    }

    /// The master is new: what waits for connections of this reactor is for nobody.
    pub(crate) fn forget(&self, reactor: usize) {
        let mut dropped = 0;
        for (conn, queue) in self.busy.borrow_mut().iter_mut() {
            if conn.reactor() == reactor {
                dropped += queue.len() as u64;
                queue.clear();
            }
        }
        self.set_in_flight(self.in_flight.get() - dropped);
    }

    /// The task of a handler that was pending, and of all that queues up behind it.
    async fn go_on(self: Rc<Self>, mut slot: Slot<F>, mut ticket: Ticket) {
        let mut in_a_row = 0;
        loop {
            let ended = std::future::poll_fn(|cx| {
                ticket.owed = self.is_owed(&slot.case);
                match self.poll(&mut slot, &mut ticket, cx) {
                    State::Open => Poll::Pending,
                    state => Poll::Ready(state),
                }
            });
            let state = ended.await;
            let conn = slot.case.conn();
            self.end(&slot.case, ticket, state);
            let next = {
                let mut busy = self.busy.borrow_mut();
                let next = busy.get_mut(&conn).and_then(VecDeque::pop_front);
                if next.is_none() {
                    busy.remove(&conn);
                }
                next
            };
            let Some(job) = next else { break };
            let Job {
                reactor,
                epoch,
                event,
                upload,
            } = job;
            ticket = self.begin(&slot.case, reactor, epoch, event, upload);
            in_a_row += 1;
            if in_a_row % FAIR == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.give_back(slot);
        // The loop may be waiting for the last one, to retire.
        self.local.shared.wake.notify_one();
    }

    #[inline]
    fn begin(
        &self,
        case: &Case,
        reactor: usize,
        epoch: u32,
        event: Event,
        upload: Option<Arc<Upload>>,
    ) -> Ticket {
        if event.header.kind == EventKind::Task {
            self.tasks.set(self.tasks.get() + 1);
        }
        let ticket = Ticket {
            progress: Progress::default(),
            span: EventSpan::begin(&self.local.shared, &event),
            began: self.latency.begin(event.header.stamp),
            owed: true,
        };
        case.give(reactor, epoch, event, upload);
        ticket
    }

    /// Polls a handler, with a note for the master which event it is. In the state that is returned the
    /// case is: open, if the handler is pending.
    fn poll(&self, slot: &mut Slot<F>, ticket: &mut Ticket, cx: &mut Context<'_>) -> State {
        let Slot { case, future } = slot;
        let current = self.current.get(case.reactor()).map(|word| &word[0]);
        if let Some(current) = current {
            current.store(case.header().seq, Relaxed);
        }
        self.local.begin_handling(ticket.progress, ticket.owed);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _entered = ticket.span.enter();
            let Poll::Pending = future.as_mut().poll(cx);
        }));
        ticket.progress = self.local.end_handling();
        if let Some(current) = current {
            current.store(0, Relaxed);
        }
        if let Err(panic) = polled {
            self.panicked(slot, &*panic);
        }
        slot.case.state()
    }

    /// The handler has panicked: its future is over.
    #[cold]
    fn panicked(&self, slot: &mut Slot<F>, panic: &(dyn Any + Send)) {
        let Slot { case, future } = slot;
        // What is left of it may panic once more when it is dropped.
        drop(catch_unwind(AssertUnwindSafe(|| {
            future.set((self.make)(case.clone()));
        })));
        case.fail(Outcome::Panicked(panic_text(panic)));
    }

    /// Whether the master awaits the outcome of an event: not if another has come since.
    fn is_owed(&self, case: &Case) -> bool {
        self.local.shared.lanes[case.reactor()].epoch() == case.epoch()
    }

    /// Tells the reactor, and counts. The case is in this state.
    #[inline]
    fn end(&self, case: &Case, ticket: Ticket, state: State) {
        let header = case.header();
        if header.kind == EventKind::Task {
            self.tasks.set(self.tasks.get() - 1);
        }
        self.latency.end(header.kind, ticket.began);
        case.clear();
        let is_due = ticket.owed && ticket.progress != Progress::Answered;
        let finished = Finished {
            reactor: case.reactor(),
            conn: header.conn,
            seq: header.seq,
            failed: false,
        };
        if state != State::Fine || ticket.span.is_on() {
            self.end_rarely(case, finished, &ticket, is_due);
        } else {
            if is_due {
                self.local.finish(finished);
            }
            self.count(WorkerCounter::Handled);
        }
        self.set_in_flight(self.in_flight.get() - 1);
    }

    /// As [`Dispatcher::end`]: the handler has failed, or the event has a span.
    #[cold]
    fn end_rarely(&self, case: &Case, finished: Finished, ticket: &Ticket, is_due: bool) {
        let outcome = case.outcome();
        let unanswered = ticket.progress == Progress::default();
        ticket.span.end(&outcome, unanswered);
        if !matches!(outcome, Outcome::Fine) {
            self.end_badly(case, finished, ticket, &outcome, is_due);
        } else if is_due {
            self.local.finish(finished);
        }
        if !matches!(outcome, Outcome::Panicked(_)) {
            self.count(WorkerCounter::Handled);
        }
    }

    /// The handler has failed: that is logged and counted, and if its event `is_due` it is finished.
    fn end_badly(
        &self,
        case: &Case,
        mut finished: Finished,
        ticket: &Ticket,
        outcome: &Outcome,
        is_due: bool,
    ) {
        let (header, reactor) = (case.header(), finished.reactor);
        // What is logged of it belongs to it.
        let _entered = ticket.span.enter();
        let reason = match outcome {
            Outcome::Fine => return,
            Outcome::Failed(error) => {
                self.count(WorkerCounter::Errors);
                tracing::error!(conn = %header.conn, event = ?header.kind, %error, "handler failed");
                error.to_string()
            }
            Outcome::Panicked(message) => {
                self.count(WorkerCounter::Panics);
                tracing::error!(conn = %header.conn, event = ?header.kind, message, "handler panicked");
                format!("panic: {message}")
            }
        };
        if !is_due {
            return;
        }
        finished.failed = true;
        if header.kind == EventKind::Task {
            // The result of a task says itself that the task failed.
            let mut result = task_done(&header, Err(reason));
            result.header.code = self.local.task_took();
            if self.local.may_finish(reactor) {
                finished.seq = 0;
            } else {
                result.header.done = 0;
            }
            self.local.post(reactor, result);
            finished.failed = false;
        } else if ticket.progress == Progress::HeadSent {
            let abort = Command::bare(CommandKind::ResponseAbort, header.conn);
            self.local.post(reactor, abort);
        }
        self.local.finish(finished);
    }

    /// Others see it at once: a handler may block the thread.
    #[inline]
    fn set_in_flight(&self, to: u64) {
        self.in_flight.set(to);
        self.counters[WorkerCounter::InFlight as usize].store(to, Relaxed);
    }

    /// As [`Shared::count`](super::shared::Shared::count).
    #[inline]
    fn count(&self, counter: WorkerCounter) {
        let word = &self.counters[counter as usize];
        word.store(word.load(Relaxed) + 1, Relaxed);
    }

    #[cold]
    fn another_slot(&self) -> Slot<F> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| {
            let case = Case::new();
            let future = Box::pin((self.make)(case.clone()));
            Slot { case, future }
        })
    }

    fn give_back(&self, slot: Slot<F>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE {
            spare.push(slot);
        }
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no text)".to_owned())
}

/// Slots that are kept.
const SPARE: usize = 64;
/// Handlers that one task runs before others get their turn.
const FAIR: u32 = 32;
