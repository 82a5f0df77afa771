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
//! - `behind` has each request that was handed over and whose answer has not begun, but for the one that the
//!   exchange is in, which is the oldest.
//! - While it has any, the exchange is *answering*, and no piece of a body is in flight.

use gannet_proto::http1::{Decoder, Version};

use super::{
    conn::Stall,
    exchange::{Exchange, Method, Response, State},
    reactor::Reactor,
};
use crate::{
    layout::ReactorCounter,
    settings::{Dispatch, Forwarded},
    wire::{
        event::{BODY_COMPLETE, EventKind},
        head,
    },
};

/// Requests that wait for their turn, oldest first: whether each asks for a head only. All are safe, and nothing else
/// matters of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behind {
    /// A bit for each, the lowest for the oldest.
    heads: u16,
    len: u16,
}

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
        let request = decoder.peek_plain(input)?;
        exchange.answers(Method::safe(false));
        self.count(ReactorCounter::Requests);
        let pieces: [&[u8]; _] = [&head::front(head::GET, &request), request.rest()];
        self.offer_or_hold(slot, EventKind::Request, BODY_COMPLETE, 0, &pieces);
        Some(request.len_on_wire())
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
        let (mut used, before) = (0, exchange.behind.len());
        for _ in 0..exchange.takes_more() {
            let Some(request) = decoder.peek_plain(&input[used..]) else {
                break;
            };
            let Some((number, is_head)) = safe(request.method()) else {
                break;
            };
            let pieces: [&[u8]; _] = [&head::front(number, &request), request.rest()];
            if !self.offer(slot, EventKind::Request, BODY_COMPLETE, 0, &pieces) {
                break;
            }
            exchange.behind.push(is_head);
            used += request.len_on_wire();
        }
        let given = exchange.behind.len() - before;
        self.add(ReactorCounter::Requests, given as usize);
        used
    }
}

impl Exchange {
    /// How many requests more may be handed over behind this one.
    fn takes_more(&self) -> u16 {
        let may = self.state == State::Answering
            && self.method.safe
            && self.version == Version::Http11
            && self.keep_alive
            && self.pieces == 0;
        if may {
            Behind::MOST - self.behind.len
        } else {
            0
        }
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
    #[inline(always)]
    pub(super) fn next_behind(&mut self) -> bool {
        if !self.keep_alive {
            return false;
        }
        let Some(head) = self.behind.pop() else {
            return false;
        };
        self.method = Method::safe(head);
        self.response = Response::None;
        true
    }
}

impl Behind {
    /// Requests that may be handed over behind another. What a client that does not read makes the
    /// server hold is `max_queued` and the answers to these, at most 256 KiB each that are sent whole.
    const MOST: u16 = 15;

    /// There is room: see [`Behind::MOST`].
    #[inline]
    fn push(&mut self, head: bool) {
        self.heads |= u16::from(head) << self.len;
        self.len += 1;
    }

    #[inline]
    fn pop(&mut self) -> Option<bool> {
        self.len = self.len.checked_sub(1)?;
        let head = self.heads & 1 != 0;
        self.heads >>= 1;
        Some(head)
    }

    pub(super) fn len(self) -> u32 {
        self.len.into()
    }

    pub(super) fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The number of a method that is safe, and whether it is HEAD.
#[inline]
fn safe(method: &str) -> Option<(u8, bool)> {
    match method {
        "GET" => Some((head::GET, false)),
        _ => other_safe(method),
    }
}

#[inline(never)]
fn other_safe(method: &str) -> Option<(u8, bool)> {
    let Method { head, safe, .. } = Method::of(method);
    Some((head::number(method)?, head)).filter(|_| safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_comes_in_its_order() {
        let mut behind = Behind::default();
        let mut expected = std::collections::VecDeque::new();
        for round in 0..1000_u32 {
            if round % 7 < 4 && behind.len < Behind::MOST {
                let head = round % 3 == 0;
                behind.push(head);
                expected.push_back(head);
            } else {
                assert_eq!(behind.pop(), expected.pop_front());
            }
            assert_eq!(behind.len() as usize, expected.len());
            assert_eq!(behind.is_empty(), expected.is_empty());
        }
        while let Some(head) = behind.pop() {
            assert_eq!(Some(head), expected.pop_front());
        }
        assert!(expected.is_empty());
    }
}
