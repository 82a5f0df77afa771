//! The event that a slot of the dispatcher has at hand, between those who give it and the future that
//! handles it.
//!
//! The future of a slot never ends: it handles one event after another, and waits for the next where it
//! began. So nothing is made, moved or dropped for an event but what its handler needs; a future that is
//! made for each would be copied into its slot with room for whatever any event might need.
//!
//! | state | left by | to |
//! |---|---|---|
//! | **fine**, **wrong**: told, or new | [`Case::give`] | given |
//! | **given** | the future, in [`Case::next`] | open |
//! | **open**: handled | the future, in [`Case::tell`] | fine or wrong |
//! | | a panic ([`Case::fail`]): the future is made anew | wrong |
//!
//! What stands in the event stays readable until the next is given, for whoever finishes it; its payload
//! belongs to the handler. What went wrong is taken by whoever finishes it.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{dispatch::Outcome, upload::Upload};
use crate::{
    ConnId, Result,
    direct::Event,
    wire::event::{EventHeader, EventKind},
};

/// See the module's documentation.
pub(crate) struct Case {
    state: Cell<State>,
    reactor: Cell<usize>,
    epoch: Cell<u32>,
    header: Cell<EventHeader>,
    payload: Cell<Option<Bytes>>,
    upload: Cell<Option<Arc<Upload>>>,
    /// In the state wrong: what.
    wrong: Cell<Option<Box<Outcome>>>,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Given,
    Open,
    Fine,
    Wrong,
}

impl Case {
    pub(crate) fn new() -> Rc<Self> {
        let nothing = EventHeader::new(EventKind::Tick, ConnId::from_u64(0));
        Rc::new(Case {
            state: Cell::new(State::Fine),
            reactor: Cell::new(0),
            epoch: Cell::new(0),
            header: Cell::new(nothing),
            payload: Cell::new(None),
            upload: Cell::new(None),
            wrong: Cell::new(None),
        })
    }

    /// Lays an event down; the future is to be polled.
    ///
    /// Until here nothing is taken out of an event or moved into something else: each time would copy it. (That
    /// is why this is a call: inlined, its caller would begin with a copy of each field.)
    #[inline(never)]
    pub(crate) fn give(
        &self,
        reactor: usize,
        epoch: u32,
        event: Event,
        upload: Option<Arc<Upload>>,
    ) {
        self.reactor.set(reactor);
        self.epoch.set(epoch);
        self.header.set(event.header);
        self.payload.set(Some(event.payload));
        if upload.is_some() {
            self.upload.set(upload);
        }
        self.state.set(State::Given);
    }

    /// Waits for an event. Only the slot's future does: who gives one polls it.
    pub(crate) fn next(&self) -> Next<'_> {
        Next(self)
    }

    /// The handler has ended.
    #[inline]
    pub(crate) fn tell(&self, outcome: Result) {
        match outcome {
            Ok(()) => self.state.set(State::Fine),
            Err(error) => self.fail(Outcome::Failed(error)),
        }
    }

    /// The handler has ended so, which is not fine.
    #[cold]
    pub(crate) fn fail(&self, outcome: Outcome) {
        self.wrong.set(Some(Box::new(outcome)));
        self.state.set(State::Wrong);
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// How the handler has ended.
    pub(crate) fn outcome(&self) -> Outcome {
        self.wrong.take().map_or(Outcome::Fine, |wrong| *wrong)
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

    #[inline]
    pub(crate) fn kind(&self) -> EventKind {
        self.header.get().kind
    }

    #[inline]
    pub(crate) fn conn(&self) -> ConnId {
        self.header.get().conn
    }

    #[inline]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.header.get().has(flag)
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

    /// The event has ended: what nobody took would be kept until the next.
    #[inline]
    pub(crate) fn clear(&self) {
        self.payload.set(None);
        if let Some(upload) = self.upload.take() {
            upload.abandon();
        }
    }
}

/// See [`Case::next`].
pub(crate) struct Next<'a>(&'a Case);

impl Future for Next<'_> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.state.get() != State::Given {
            return Poll::Pending;
        }
        self.0.state.set(State::Open);
        Poll::Ready(())
    }
}
