//! The event that a slot of the dispatcher has at hand, between those who give it and the future that
//! handles it.
//!
//! The future of a slot never ends: it handles one event after another, and waits for the next where it
//! began. So nothing is made, moved or dropped for an event but what its handler needs; a future that is
//! made for each would be copied into its slot with room for whatever any event might need.
//!
//! | state | left by | to |
//! |---|---|---|
//! | **empty** | [`Case::give`] | given |
//! | **given** | the future, in [`Case::next`] | open |
//! | **open**: handled | the future, in [`Case::tell`] | told |
//! | | a panic: the future is made anew | empty |
//! | **told** | [`Case::outcome`] | empty |
//!
//! What stands in the event stays readable until the next is given, for whoever finishes it; its payload
//! belongs to the handler.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{handle::Job, upload::Upload};
use crate::{
    ConnId, Result,
    wire::event::{EventHeader, EventKind},
};

/// See the module's documentation.
pub(crate) struct Case {
    is_given: Cell<bool>,
    reactor: Cell<usize>,
    epoch: Cell<u32>,
    header: Cell<EventHeader>,
    payload: Cell<Option<Bytes>>,
    upload: Cell<Option<Arc<Upload>>>,
    outcome: Cell<Option<Result>>,
}

impl Case {
    pub(crate) fn new() -> Rc<Self> {
        let nothing = EventHeader::new(EventKind::Tick, ConnId::from_u64(0));
        Rc::new(Case {
            is_given: Cell::new(false),
            reactor: Cell::new(0),
            epoch: Cell::new(0),
            header: Cell::new(nothing),
            payload: Cell::new(None),
            upload: Cell::new(None),
            outcome: Cell::new(None),
        })
    }

    /// Lays an event down; the future is to be polled.
    #[inline]
    pub(crate) fn give(&self, job: Job) {
        self.reactor.set(job.reactor);
        self.epoch.set(job.epoch);
        self.header.set(job.header);
        self.payload.set(Some(job.payload));
        self.upload.set(job.upload);
        self.is_given.set(true);
    }

    /// Waits for an event. Only the slot's future does: who gives one polls it.
    pub(crate) fn next(&self) -> Next<'_> {
        Next(self)
    }

    /// The handler has ended.
    #[inline]
    pub(crate) fn tell(&self, outcome: Result) {
        self.outcome.set(Some(outcome));
    }

    /// What the handler has returned, once it has.
    #[inline]
    pub(crate) fn outcome(&self) -> Option<Result> {
        self.outcome.take()
    }

    #[inline]
    pub(crate) fn reactor(&self) -> usize {
        self.reactor.get()
    }

    /// Of the lane, when the event was read.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.get()
    }

    #[inline]
    pub(crate) fn header(&self) -> EventHeader {
        self.header.get()
    }

    /// The payload, once.
    #[inline]
    pub(crate) fn payload(&self) -> Bytes {
        self.payload.take().unwrap_or_default()
    }

    /// The body of a request that is still coming in.
    pub(crate) fn upload(&self) -> Option<Arc<Upload>> {
        let upload = self.upload.take();
        self.upload.set(upload.clone());
        upload
    }

    /// The same; the event has ended.
    #[inline]
    pub(crate) fn take_upload(&self) -> Option<Arc<Upload>> {
        self.upload.take()
    }
}

/// See [`Case::next`].
pub(crate) struct Next<'a>(&'a Case);

impl Future for Next<'_> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.is_given.replace(false) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
