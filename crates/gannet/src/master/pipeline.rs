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
    /// Gives the worker the request at the front of `input`, if it may go behind the one that is
    /// answered; how long it is.
    pub(super) fn hand_over_behind(
        &mut self,
        slot: usize,
        decoder: &Decoder,
        exchange: &mut Exchange,
        input: &[u8],
    ) -> Option<usize> {
        let conn = self.conns.get(slot)?;
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        // A request of a proxy may be another client's, and may then be another worker's.
        let is_open = listener.forwarded == Forwarded::Off && self.stopping.is_none();
        if !is_open || !exchange.takes_more() || conn.queued() > listener.max_queued {
            return None;
        }
        let (len, head) = decoder.peek_plain(input)?;
        let method = Method::of(head.method);
        if !method.safe
            || listener.protocol == Protocol::Websocket && handshake::is_requested(&head)
        {
            return None;
        }
        let mut request = self.pool.take();
        super::http::encode_head(&mut request, &head, None);
        let given = self.offer(slot, EventKind::Request, BODY_COMPLETE, 0, &[&request]);
        self.pool.give(request);
        if !given {
            return None;
        }
        self.count(ReactorCounter::Requests);
        exchange.behind.push_back(method);
        Some(len)
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
