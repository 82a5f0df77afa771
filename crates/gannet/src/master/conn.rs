//! One connection, as its reactor knows it.
//!
//! Phases: **open** (events flow) → **closing** (nothing more is taken from the client; what is
//! queued is being written) → **lingering** (our side is shut down; the client's bytes are read
//! and dropped until it closes too, so that no reset destroys what it has not read yet) → **gone**
//! (no socket; waits until its last event is done, so that its row can be read in `close`) → slot
//! free. From any phase to gone at once, when the peer is gone or must be cut.
//!
//! A connection is **stalled** while an event of it cannot be handed over. Then nothing is parsed;
//! its socket is taken out of the poll set lazily, when it has more to say.

use std::os::fd::OwnedFd;

use super::{
    exchange::Http,
    framed::Framed,
    http2::{Session, Stream},
    output::Output,
    pace::Progress,
    rare::{Input, Rare, Ties},
    tls::Tls,
    websocket::WebSocket,
    wheel::Timer,
};
use crate::{close::CloseReason, id::ConnId};

/// There are very many of these, most of them idle: whatever one has in addition, all pay for. Two cache
/// lines, the first of which has what every message needs.
#[repr(C, align(64))]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) speaks: Speaks,
    /// What is queued for the client.
    pub(super) output: Option<Box<Output>>,
    /// Received and not yet understood: the beginning of something, or what came during a stall.
    pub(super) input: Input,
    /// Clock of the reactor, ms, when something last came.
    pub(super) last_seen: u64,
    /// Incarnation of the worker that has the events in flight.
    pub(super) link: u64,
    /// Events given to the link that are not done.
    pub(super) in_flight: u32,
    /// `None` once gone.
    pub(super) socket: Option<OwnedFd>,
    /// Under what it speaks; `None` on plain listeners, and as long as a PROXY header is awaited.
    pub(super) tls: Option<Box<Tls>>,
    /// What it has in place of a socket, if it is a stream of HTTP/2: see `http2`.
    pub(super) stream: Option<Box<Stream>>,
    pub(super) listener: u16,
    /// The worker's number among the places.
    pub(super) place: u16,
    pub(super) phase: Phase,
    pub(super) stall: Stall,
    /// What the poll set waits for.
    pub(super) reading: bool,
    pub(super) writing: bool,
    /// In the list of connections to flush.
    pub(super) dirty: bool,
    /// In the list of connections to resume.
    pub(super) resuming: bool,
    /// The client will send no more.
    pub(super) eof: bool,
    /// Frames are spoken.
    pub(super) websocket: bool,
    /// Both directions are shut; the socket is out of the poll set.
    pub(super) hup: bool,
    /// A `Close` event is owed to the worker.
    pub(super) close_due: bool,
    /// A ping is out and nothing has come since.
    pub(super) pinged: bool,
    timer: Timer,
    /// See there, and [`Conn::rare`].
    pub(super) rare: Option<Box<Rare>>,
    /// See there, and [`Conn::ties`].
    pub(super) ties: Option<Box<Ties>>,
}

const _: () = assert!(size_of::<Conn>() == 128 && size_of::<Option<Conn>>() == 128);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    No,
    /// Waits for its own events to be done (too many in flight, a worker is being replaced, a
    /// request is being answered), for its client to read the answers it has, or for the next turn.
    Own,
    /// Waits for room in the ring of its place, or for the place to be filled; is in its list.
    Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closing(Closed),
    Lingering(Closed),
    Gone(Closed),
}

/// How a connection ended, as its `Close` event tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) reason: CloseReason,
    /// WebSocket close code, 0 for none.
    pub(super) code: u16,
}

pub(super) enum Speaks {
    Tcp,
    Framed(Box<Framed>),
    Http(Box<Http>),
    WebSocket(Box<WebSocket>),
    /// Carries streams, which are connections of their own.
    Http2(Box<Session>),
    /// Being worked on: the value is on the stack of the function that parses.
    Taken,
}

impl Conn {
    /// One that is open, and has no socket yet.
    pub(super) fn new(id: ConnId, listener: u16, place: u16, speaks: Speaks, now: u64) -> Self {
        Conn {
            id,
            speaks,
            output: None,
            input: Input::default(),
            last_seen: now,
            link: 0,
            in_flight: 0,
            socket: None,
            tls: None,
            stream: None,
            listener,
            place,
            phase: Phase::Open,
            stall: Stall::No,
            reading: true,
            writing: false,
            dirty: false,
            resuming: false,
            eof: false,
            websocket: false,
            hup: false,
            close_due: false,
            pinged: false,
            timer: Timer::new(),
            rare: None,
            ties: None,
        }
    }

    /// For the wheel.
    pub(super) fn timer_mut(&mut self) -> &mut Timer {
        &mut self.timer
    }

    /// There is somewhere for bytes to go to.
    pub(super) fn has_outlet(&self) -> bool {
        self.socket.is_some() || self.stream.as_ref().is_some_and(|stream| stream.is_live())
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone(_))
    }

    pub(super) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.queued())
            + self.tls.as_ref().map_or(0, |tls| tls.sealed())
    }

    /// The protocol is the program's own, framed or not: only it knows where a conversation ends.
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.speaks, Speaks::Tcp | Speaks::Framed(_))
    }

    /// A handler waits for the rest of a body.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(&self.speaks, Speaks::Http(http) if http.exchange.is_streaming())
    }

    /// It is read on when the server stops: a body comes in, or the windows of its streams.
    pub(super) fn reads_on(&self) -> bool {
        self.is_streaming() || matches!(self.speaks, Speaks::Http2(_))
    }

    /// Part of a message has come.
    pub(super) fn is_mid_message(&self) -> bool {
        !self.input.is_empty()
            || matches!(&self.speaks, Speaks::Framed(framed) if !framed.decoder.is_idle())
    }

    /// Gives back what has come of a message that will not be handed over.
    pub(super) fn forget_message(&mut self) {
        if let Speaks::Framed(framed) = &mut self.speaks {
            framed.decoder.abandon();
        }
    }

    /// Nothing was read from the client for a while: what it is in the middle of counts anew.
    pub(super) fn forgive_slowness(&mut self, now: u64) {
        let progress = match &mut self.speaks {
            Speaks::Http(http) => &mut http.exchange.progress,
            Speaks::WebSocket(websocket) => &mut websocket.progress,
            Speaks::Framed(framed) => &mut framed.progress,
            Speaks::Tcp | Speaks::Http2(_) | Speaks::Taken => return,
        };
        if progress.is_some() {
            *progress = Some(Progress::begin(now));
        }
    }

    /// Whether the request in progress could begin again at another worker: its method is
    /// idempotent (RFC 9110 section 9.2.2), nothing of a response has left, and no piece of its
    /// body was used up.
    pub(super) fn may_repeat_request(&self) -> bool {
        match &self.speaks {
            Speaks::Http(http) => http.exchange.may_repeat(self.in_flight),
            _ => false,
        }
    }
}

impl Closed {
    pub(super) fn of(reason: CloseReason) -> Self {
        Closed { reason, code: 0 }
    }

    pub(super) fn aux(self) -> u64 {
        u64::from(self.reason as u16) | u64::from(self.code) << 16
    }
}
