//! Which handler runs when.
//!
//! A handler is polled once where its event was read. Most are ready then, and have cost no task
//! and no allocation: the future lies in a slot that is used again and again. One that is pending
//! takes its slot along into a task of its own; events of its connection queue up behind it until
//! it has ended.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
};

use super::{
    handle::{Job, task_done},
    latency::Latency,
    local::{Finished, Local, Progress},
    shared::Command,
    upload::Upload,
};
use crate::{
    ConnId, Error, Result,
    control::Role as Kind,
    layout::WorkerCounter,
    traces::{self, EventSpan},
    wire::{
        command::CommandKind,
        event::{EventHeader, EventKind},
    },
};

/// `make` turns a job into the future that handles it.
pub(crate) struct Dispatcher<F, M> {
    make: M,
    local: Rc<Local>,
    /// Slots to be used again.
    spare: RefCell<Vec<Slot<F>>>,
    /// Connections whose handler is pending, and what came for them since.
    busy: RefCell<HashMap<ConnId, VecDeque<Job>>>,
    in_flight: Cell<u64>,
    /// Tasks that run.
    tasks: Cell<usize>,
    latency: Latency,
    /// Whether the handler that is polled is the one that runs. In a user process it only waits for
    /// the function, which says itself what it has taken.
    marks_current: bool,
}

type Slot<F> = Pin<Box<Option<F>>>;

/// What of a job is needed when its handler has ended, however it ended.
struct Ticket {
    reactor: usize,
    epoch: u32,
    header: EventHeader,
    upload: Option<Arc<Upload>>,
    progress: Progress,
    span: EventSpan,
    /// When it began, in nanoseconds.
    began: u64,
}

pub(crate) enum Outcome {
    Fine,
    Failed(Error),
    Panicked(String),
}

impl<F, M> Dispatcher<F, M>
where
    F: Future<Output = Result> + 'static,
    M: Fn(Job) -> F + 'static,
{
    pub(crate) fn new(local: Rc<Local>, make: M) -> Rc<Self> {
        let marks_current = local.shared.kind != Kind::Process;
        traces::count_in(&local.shared);
        Rc::new(Dispatcher {
            make,
            latency: Latency::new(local.shared.clone()),
            local,
            spare: RefCell::default(),
            busy: RefCell::default(),
            in_flight: Cell::new(0),
            tasks: Cell::new(0),
            marks_current,
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
    pub(crate) fn time_passes(&self) {
        self.latency.pause();
    }

    /// A clock that moves every few milliseconds and costs next to nothing behind a handler.
    pub(crate) fn tick(&self) -> u64 {
        self.latency.tick()
    }

    /// Handles an event, now or when those of its connection before it are handled.
    pub(crate) fn dispatch(self: &Rc<Self>, job: Job) {
        self.set_in_flight(self.in_flight.get() + 1);
        {
            let mut busy = self.busy.borrow_mut();
            if !busy.is_empty()
                && let Some(queue) = busy.get_mut(&job.header.conn)
            {
                queue.push_back(job);
                return;
            }
        }
        let spare = self.spare.borrow_mut().pop();
        let mut slot = spare.unwrap_or_else(|| Box::pin(None));
        let mut ticket = self.begin(&mut slot, job);
        // What wakes it before its task has polled it again need not be known.
        match self.poll(
            &mut slot,
            &mut ticket,
            &mut Context::from_waker(Waker::noop()),
        ) {
            Poll::Ready(outcome) => {
                self.end(ticket, outcome);
                self.give_back(slot);
            }
            Poll::Pending => {
                self.latency.pause();
                if ticket.header.conn != ConnId::from_u64(0) {
                    self.busy
                        .borrow_mut()
                        .insert(ticket.header.conn, VecDeque::new());
                }
                tokio::task::spawn_local(self.clone().go_on(slot, ticket));
            }
        }
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
            let outcome = std::future::poll_fn(|cx| self.poll(&mut slot, &mut ticket, cx)).await;
            let conn = ticket.header.conn;
            self.end(ticket, outcome);
            let next = {
                let mut busy = self.busy.borrow_mut();
                let next = busy.get_mut(&conn).and_then(VecDeque::pop_front);
                if next.is_none() {
                    busy.remove(&conn);
                }
                next
            };
            let Some(job) = next else { break };
            ticket = self.begin(&mut slot, job);
            in_a_row += 1;
            if in_a_row % FAIR == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.give_back(slot);
        // The loop may be waiting for the last one, to retire.
        self.local.shared.wake.notify_one();
    }

    fn begin(&self, slot: &mut Slot<F>, job: Job) -> Ticket {
        let span = EventSpan::begin(&self.local.shared, &job);
        if job.header.kind == EventKind::Task {
            self.tasks.set(self.tasks.get() + 1);
        }
        let ticket = Ticket {
            reactor: job.reactor,
            epoch: job.epoch,
            header: job.header,
            upload: job.upload.clone(),
            progress: Progress::default(),
            span,
            began: self.latency.begin(&job.header),
        };
        slot.set(Some((self.make)(job)));
        ticket
    }

    /// Polls a handler, with a note for the master which event it is.
    fn poll(&self, slot: &mut Slot<F>, ticket: &mut Ticket, cx: &mut Context<'_>) -> Poll<Outcome> {
        let current = self
            .marks_current
            .then(|| self.local.shared.current(ticket.reactor));
        if let Some(current) = current {
            current.store(ticket.header.seq, Relaxed);
        }
        self.local.set_progress(ticket.progress);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let _entered = ticket.span.enter();
            let polled = match slot.as_mut().as_pin_mut() {
                Some(future) => future.poll(cx),
                None => Poll::Ready(Ok(())),
            };
            if polled.is_ready() {
                slot.set(None);
            }
            polled
        }));
        ticket.progress = self.local.progress();
        if let Some(current) = current {
            current.store(0, Relaxed);
        }
        match result {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(Outcome::Fine),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Outcome::Failed(error)),
            Err(panic) => {
                // What is left of it may panic once more when it is dropped.
                drop(catch_unwind(AssertUnwindSafe(|| slot.set(None))));
                Poll::Ready(Outcome::Panicked(panic_text(&*panic)))
            }
        }
    }

    /// Tells the reactor, and counts.
    fn end(&self, ticket: Ticket, outcome: Outcome) {
        let Ticket {
            reactor,
            epoch,
            header,
            upload,
            progress,
            span,
            began,
        } = ticket;
        let shared = &self.local.shared;
        if header.kind == EventKind::Task {
            self.tasks.set(self.tasks.get() - 1);
        }
        self.latency.end(&header, began);
        if let Some(upload) = upload {
            upload.abandon();
        }
        let unanswered = progress == Progress::default();
        span.end(&outcome, unanswered);
        // What is logged of it belongs to it.
        let _entered = span.enter();
        let failed = match &outcome {
            Outcome::Fine => None,
            Outcome::Failed(error) => {
                shared.count(WorkerCounter::Errors);
                tracing::error!(conn = %header.conn, event = ?header.kind, %error, "handler failed");
                Some(error.to_string())
            }
            Outcome::Panicked(message) => {
                shared.count(WorkerCounter::Panics);
                tracing::error!(conn = %header.conn, event = ?header.kind, message, "handler panicked");
                Some(format!("panic: {message}"))
            }
        };
        if shared.lanes[reactor].epoch() == epoch && progress != Progress::Answered {
            let conn = header.conn;
            let mut finished = Finished {
                reactor,
                conn,
                seq: header.seq,
                failed: failed.is_some(),
            };
            match failed {
                // The result of a task says itself that the task failed.
                Some(reason) if header.kind == EventKind::Task => {
                    let mut result = task_done(&header, Err(reason));
                    if self.local.may_finish(reactor) {
                        finished.seq = 0;
                    } else {
                        result.header.done = 0;
                    }
                    self.local.post(reactor, result);
                    finished.failed = false;
                }
                Some(_) if progress == Progress::HeadSent => {
                    let abort = Command::bare(CommandKind::ResponseAbort, conn);
                    self.local.post(reactor, abort);
                }
                _ => {}
            }
            self.local.finish(finished);
        }
        if !matches!(outcome, Outcome::Panicked(_)) {
            shared.count(WorkerCounter::Handled);
        }
        self.set_in_flight(self.in_flight.get() - 1);
    }

    /// Others see it at once: a handler may block the thread.
    fn set_in_flight(&self, to: u64) {
        self.in_flight.set(to);
        self.local
            .shared
            .counter(WorkerCounter::InFlight)
            .store(to, Relaxed);
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
