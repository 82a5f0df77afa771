//! Requests of HTTP/1.1 that are handed over as they stand in the input: a GET that is all there, and those that are
//! read behind one that is still answered.
//!
//! A worker handles the events of a connection one after another, so their answers come in order,
//! and those to requests that were read at once leave in one write. Handed over behind another is only
//! what may be handled in vain without harm, because an answer in front of it may end the
//! connection: a safe method (RFC 9110 section 9.2.1), no body, and nothing asked of the connection.
//! All others wait in the input until everything in front of them is answered; so a request that
//! must not be run twice is alone with its worker.
//!
//! Invariants:
//! - `behind` has an entry for each request that was handed over and whose answer has not begun, but
//!   for the one that the exchange is in, which is the oldest.
//! - While it has any, the exchange is *answering*, and no piece of a body is in flight.

use gannet_proto::{
    http1::{Decoder, RequestHead, Version},
    websocket::handshake,
};

use super::{
    conn::Stall,
    exchange::{Exchange, Method, Response, State},
    reactor::Reactor,
};
use crate::{
    layout::ReactorCounter,
    settings::{Dispatch, Forwarded, Protocol},
    wire::{
        event::{BODY_COMPLETE, EventKind},
        head,
    },
};

impl Reactor {
    /// Gives the worker the request at the front of `input`, if it is all there and there is nothing to it but to
    /// be answered; how long it is. What stands in the exchange is then as if it had come in pieces.
    pub(super) fn hand_over(
        &mut self,
        slot: usize,
        decoder: &Decoder,
        exchange: &mut Exchange,
        input: &[u8],
    ) -> Option<usize> {
        let listener = &self.settings.listeners[usize::from(self.conns.get(slot)?.listener)];
        // A function of the user that chooses a worker is shown the first piece of an event.
        let is_plain =
            listener.forwarded == Forwarded::Off && self.settings.dispatch != Dispatch::Custom;
        // Most others have a body: they would be looked at twice.
        if !is_plain || !input.starts_with(b"GET ") {
            return None;
        }
        let upgrades = listener.protocol == Protocol::Websocket;
        let (len, head) = decoder.peek_plain(input)?;
        if upgrades && handshake::is_requested(&head) {
            return None;
        }
        let front = front(&head)?;
        exchange.answers(Method::of(head.method));
        self.count(ReactorCounter::Requests);
        let pieces: [&[u8]; _] = [&front, head.target.as_bytes(), head.headers.as_bytes()];
        self.offer_or_hold(slot, EventKind::Request, BODY_COMPLETE, 0, &pieces);
        Some(len)
    }

    /// Another request is answered from here on: its connection may have more.
    pub(super) fn take_more(&mut self, slot: usize) {
        if self
            .conns
            .get(slot)
            .is_some_and(|it| it.stall == Stall::Own)
        {
            self.wake(slot);
        }
    }

    /// Gives the worker the requests at the front of `input` that may go behind the one that is answered; how
    /// many bytes they are.
    pub(super) fn hand_over_behind(
        &mut self,
        slot: usize,
        decoder: &Decoder,
        exchange: &mut Exchange,
        input: &[u8],
    ) -> usize {
        let Some(conn) = self.conns.get(slot) else {
            return 0;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        // A request of a proxy may be another client's, and may then be another worker's.
        let is_open = listener.forwarded == Forwarded::Off && self.stopping.is_none();
        if !is_open || conn.queued() > listener.max_queued {
            return 0;
        }
        // None of this changes here.
        let upgrades = listener.protocol == Protocol::Websocket;
        let before = exchange.behind.len();
        let mut used = 0;
        while exchange.takes_more()
            && let Some((len, head)) = decoder.peek_plain(&input[used..])
        {
            let method = Method::of(head.method);
            if !method.safe || upgrades && handshake::is_requested(&head) {
                break;
            }
            let Some(front) = front(&head) else {
                break;
            };
            let pieces: [&[u8]; _] = [&front, head.target.as_bytes(), head.headers.as_bytes()];
            if !self.offer(slot, EventKind::Request, BODY_COMPLETE, 0, &pieces) {
                break;
            }
            exchange.behind.push_back(method);
            used += len;
        }
        self.add(ReactorCounter::Requests, exchange.behind.len() - before);
        used
    }
}

impl Exchange {
    /// Whether another request may be handed over behind this one.
    fn takes_more(&self) -> bool {
        self.state == State::Answering
            && self.method.safe
            && self.version == Version::Http11
            && self.keep_alive
            && self.pieces == 0
            && self.behind.len() < BEHIND
    }

    /// A whole request in HTTP/1.1 without a body is given to the worker.
    fn answers(&mut self, method: Method) {
        self.state = State::Answering;
        self.response = Response::None;
        self.method = method;
        self.version = Version::Http11;
        self.keep_alive = true;
        self.expects_continue = false;
        (self.length, self.pieces, self.began) = (0, 0, 0);
        self.progress = None;
    }

    /// The response is complete: goes on with the request behind, if there is one and the connection is kept.
    pub(super) fn next_behind(&mut self) -> bool {
        if !self.keep_alive {
            return false;
        }
        let Some(method) = self.behind.pop_front() else {
            return false;
        };
        self.method = method;
        self.response = Response::None;
        true
    }
}

/// What a head begins with that goes to the worker in pieces: its target and its lines follow.
#[inline]
fn front(head: &RequestHead<'_>) -> Option<[u8; head::FIXED]> {
    let lines = (head.headers.as_bytes(), head.headers.len());
    head::front(head.version as u8, head.method, head.target, lines)
}

/// Requests that may be handed over behind another. What a client that does not read makes the
/// server hold is `max_queued` and the answers to these, at most 256 KiB each that are sent whole.
const BEHIND: usize = 15;
