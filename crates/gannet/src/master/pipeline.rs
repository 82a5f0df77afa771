//! Requests of HTTP/1.1 that are handed over while those in front of them are still answered.
//!
//! A worker handles the events of a connection one after another, so their answers come in order,
//! and those to requests that were read at once leave in one write. Handed over in this way is only
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
    http1::{Decoder, Version},
    websocket::handshake,
};

use super::{
    exchange::{Exchange, Method, Response, State},
    reactor::Reactor,
};
use crate::{
    layout::ReactorCounter,
    settings::{Forwarded, Protocol},
    wire::event::{BODY_COMPLETE, EventKind},
};

impl Reactor {
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
        let mut request = self.pool.take();
        let mut used = 0;
        while exchange.takes_more()
            && let Some((len, head)) = decoder.peek_plain(&input[used..])
        {
            let method = Method::of(head.method);
            if !method.safe || upgrades && handshake::is_requested(&head) {
                break;
            }
            request.clear();
            super::http::encode_head(&mut request, &head, None);
            if !self.offer(slot, EventKind::Request, BODY_COMPLETE, 0, &[&request]) {
                break;
            }
            exchange.behind.push_back(method);
            used += len;
        }
        self.pool.give(request);
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

    /// The response is complete: goes on with the request behind, if there is one.
    pub(super) fn next_behind(&mut self) -> bool {
        let Some(method) = self.behind.pop_front() else {
            return false;
        };
        self.method = method;
        self.response = Response::None;
        true
    }
}

/// Requests that may be handed over behind another. What a client that does not read makes the
/// server hold is `max_queued` and the answers to these, at most 256 KiB each that are sent whole.
const BEHIND: usize = 15;
