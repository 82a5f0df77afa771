//! The exchange of an HTTP connection: a request, and its response. The states stand in `http`.

use gannet_proto::{
    http1::{self, Decoder, Framing, Version},
    websocket::Deflate,
};

use super::{pace::Progress, pipeline::Behind};

/// An HTTP connection: what reads it, and the request that it is in.
pub(super) struct Http {
    pub(super) source: Source,
    pub(super) exchange: Exchange,
}

/// A request and its response.
pub(super) struct Exchange {
    pub(super) state: State,
    pub(super) response: Response,
    /// The encoded head of the request being collected, then its body.
    pub(super) request: Vec<u8>,
    pub(super) head_len: usize,
    /// Length of the body, as far as known: `u64::MAX` for chunked.
    pub(super) length: u64,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// Pieces of the body that were given to the worker.
    pub(super) pieces: u32,
    pub(super) upgrade: Option<Box<Upgrade>>,
    /// The requests that were handed over behind this one, in HTTP/1.1: see `pipeline`.
    pub(super) behind: Behind,
    /// When the current request began, ms; 0: it has not.
    pub(super) began: u64,
    /// How the body that is passed on as it arrives comes on.
    pub(super) progress: Option<Progress>,
}

/// A handshake that is with a worker.
pub(super) struct Upgrade {
    pub(super) accept_key: [u8; 28],
    /// What is sent right behind the acceptance.
    pub(super) early: Vec<u8>,
    pub(super) deflate: Option<Deflate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Collecting,
    Streaming,
    Answering,
    Upgrading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    None,
    /// The head has left; the body follows.
    Body(Framing),
    Complete,
}

/// What matters of a method.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Method {
    pub(super) head: bool,
    pub(super) connect: bool,
    pub(super) idempotent: bool,
    pub(super) safe: bool,
}

/// Where requests come from.
pub(super) enum Source {
    /// The bytes of a connection of HTTP/1.
    Wire(Decoder),
    /// A stream of HTTP/2, which has one request.
    Stream,
}

impl Http {
    /// A connection of HTTP/1.
    pub(super) fn new(limits: http1::Limits) -> Self {
        Http {
            source: Source::Wire(Decoder::new(limits)),
            exchange: Exchange::new(),
        }
    }

    /// A stream of HTTP/2.
    pub(super) fn of_stream() -> Self {
        Http {
            source: Source::Stream,
            exchange: Exchange::new(),
        }
    }

    /// Nothing of a request has come yet, and there was none before.
    pub(super) fn is_fresh(&self) -> bool {
        let untouched = matches!(&self.source, Source::Wire(decoder) if decoder.is_idle());
        untouched && self.exchange.is_fresh()
    }
}

impl Method {
    pub(super) fn of(method: &str) -> Self {
        if method == "GET" {
            return Method::safe(false);
        }
        Method {
            head: method == "HEAD",
            connect: method == "CONNECT",
            idempotent: IDEMPOTENT.contains(&method),
            safe: SAFE.contains(&method),
        }
    }

    /// A safe one, of which no more matters than whether it is HEAD.
    #[inline]
    pub(super) fn safe(head: bool) -> Self {
        Method {
            head,
            connect: false,
            idempotent: true,
            safe: true,
        }
    }
}

impl Exchange {
    fn new() -> Self {
        Exchange {
            state: State::Idle,
            response: Response::None,
            request: Vec::new(),
            head_len: 0,
            length: 0,
            method: Method::default(),
            version: Version::Http11,
            keep_alive: true,
            expects_continue: false,
            pieces: 0,
            upgrade: None,
            behind: Behind::default(),
            began: 0,
            progress: None,
        }
    }

    fn is_fresh(&self) -> bool {
        self.state == State::Idle && self.response == Response::None
    }

    /// A request is with a worker.
    pub(super) fn is_busy(&self) -> bool {
        matches!(
            self.state,
            State::Streaming | State::Answering | State::Upgrading
        )
    }

    /// The answer, or the rest of it, is to come from the worker. A stream whose answer is complete
    /// may still be busy with a body: what then becomes of the handler is nothing to its client.
    pub(super) fn awaits_worker(&self) -> bool {
        self.is_busy() && self.response != Response::Complete
    }

    /// The request is here in full, has no answer yet, and is one whose answer, if that is whole, says no more than its
    /// status, its length and its headers: HTTP/1.1, no HEAD, no tunnel, and the connection goes on.
    #[inline]
    pub(super) fn awaits_plain_answer(&self) -> bool {
        self.state == State::Answering
            && self.response == Response::None
            && self.keep_alive
            && self.version == Version::Http11
            && !self.method.head
            && !self.method.connect
    }

    /// A request has begun and is not here in full.
    pub(super) fn is_receiving(&self) -> bool {
        self.began != 0
            && matches!(
                self.state,
                State::Idle | State::Collecting | State::Streaming
            )
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.state == State::Streaming
    }

    /// A handshake is with a worker.
    pub(super) fn is_upgrading(&self) -> bool {
        self.state == State::Upgrading
    }

    /// The client has sent all; it is the worker's turn.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.state, State::Answering | State::Upgrading)
    }

    /// The time from which the request's time-out counts.
    pub(super) fn since(&self, last_seen: u64) -> u64 {
        match self.state {
            // A body may take long as long as it moves; a head may not.
            State::Streaming => last_seen,
            _ if self.began != 0 => self.began,
            _ => last_seen,
        }
    }

    /// See [`Conn::may_repeat_request`](super::conn::Conn::may_repeat_request).
    pub(super) fn may_repeat(&self, in_flight: u32) -> bool {
        self.is_busy()
            && self.method.idempotent
            && self.response == Response::None
            // The request itself and all its pieces, and those behind it.
            && in_flight == self.handed_over()
    }

    /// Events of the request that is answered, and of those behind it.
    fn handed_over(&self) -> u32 {
        1 + self.pieces + self.behind.len()
    }

    /// Whether the event that has just ended can be that of the request that is answered: its own
    /// is the first of those in flight, but for one whose answer was complete before its end.
    pub(super) fn may_have_ended(&self, in_flight: u32) -> bool {
        in_flight < self.handed_over()
    }

    /// The answer on a stream is complete: nothing more is awaited of its client.
    pub(super) fn ends(&mut self) {
        self.response = Response::Complete;
        self.began = 0;
        self.progress = None;
        if self.state != State::Streaming {
            self.state = State::Idle;
        }
    }

    /// The handshake that is being accepted.
    pub(super) fn take_handshake(&mut self) -> Option<Box<Upgrade>> {
        self.upgrade
            .take()
            .filter(|_| self.state == State::Upgrading)
    }

    /// Where frames go that are sent before the handshake is accepted.
    pub(super) fn before_accept(&mut self) -> Option<&mut Vec<u8>> {
        self.upgrade.as_mut().map(|upgrade| &mut upgrade.early)
    }
}

/// Methods that change nothing (RFC 9110 section 9.2.1).
const SAFE: [&str; 4] = ["GET", "HEAD", "OPTIONS", "TRACE"];
/// Methods that may be tried again (RFC 9110 section 9.2.2).
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"];
