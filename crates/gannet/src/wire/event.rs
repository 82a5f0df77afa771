//! Events: what a reactor tells a worker.

use super::{HEADER, u16_at, u64_at};
use crate::id::ConnId;

/// Header of an event record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventHeader {
    pub(crate) kind: EventKind,
    /// [`super::TEXT`], [`super::ARENA`] and the constants below.
    pub(crate) flags: u8,
    /// Index of the listener that the connection came from; for tasks and pipe messages
    /// the worker they come from.
    pub(crate) origin: u16,
    /// How often a worker died while it handled this event.
    pub(crate) attempts: u8,
    pub(crate) conn: ConnId,
    /// Number of this event on its ring, from 1; 0 where no outcome is awaited.
    pub(crate) seq: u64,
    /// Meaning depends on the kind.
    pub(crate) aux: u64,
    /// When it was written to the ring: see [`stamp`](super::stamp). Set by the link; 0: not known.
    pub(crate) stamp: u32,
}

/// The event was given to a worker before, which died before it was done.
pub(crate) const REDELIVERED: u8 = 0x40;
/// `Request`: the whole body follows the head in this record.
pub(crate) const BODY_COMPLETE: u8 = 0x02;
/// `Request` with [`BODY_COMPLETE`]: behind the body (aux bytes) stand its trailer lines.
pub(crate) const BODY_TRAILERS: u8 = 0x08;
/// `Request`: the client waits for 100 (Continue): send `Continue` when the body is first read.
pub(crate) const EXPECT_CONTINUE: u8 = 0x04;
/// `RequestBody`: the body ends here; the payload is the trailer lines.
pub(crate) const BODY_END: u8 = 0x02;
/// `RequestBody`: the client is gone or broke the protocol; the body ends in an error.
pub(crate) const BODY_ABORT: u8 = 0x04;
/// `TaskResult` and `Finish`: the task failed; the payload is the reason as text.
pub(crate) const FAILED: u8 = 0x02;
/// `Close`: it was an HTTP connection with a request in progress. The handler is not told, but the
/// request's body ends in an error and its response is given up.
pub(crate) const UNTOLD: u8 = 0x02;
/// `Task`: the submitter does not await the result; `finish` is to have it.
pub(crate) const DETACHED: u8 = 0x04;

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EventKind {
    /// A connection on a TCP listener. No payload. Sequenced.
    Connect = 1,
    /// Bytes from a TCP connection. Sequenced.
    Receive = 2,
    /// An HTTP request: `head::Head`, then, with [`BODY_COMPLETE`], the body. Without it the
    /// beginning of the body follows, maybe empty, the rest comes as `RequestBody` events, and aux
    /// is the length of all of it, or `u64::MAX` if not known.
    /// Sequenced; done when the response has been sent in full or given up.
    Request = 3,
    /// A piece of the body of the request that the connection is in. Sequenced; done when the
    /// application has taken it (this is the flow control of uploads).
    RequestBody = 4,
    /// A WebSocket handshake: `head::Head`. Sequenced; answered by `Accept` or `Response`.
    Open = 5,
    /// A WebSocket message. Sequenced.
    Message = 6,
    /// The connection is closed; aux is the `CloseReason` as a number in the low 16 bits, and
    /// the WebSocket close code in the next 16. Comes last of a connection. Sequenced. See
    /// [`UNTOLD`].
    Close = 7,
    /// For a task worker: aux is the task id, origin the submitting worker. Sequenced.
    Task = 8,
    /// The result of an awaited task: aux is the submitter's token. Sequenced only if it is so large
    /// that it lies in the arena; so are `Reply` and `TaskAccepted`.
    TaskResult = 9,
    /// The result of a detached task: aux is the task id. Sequenced.
    Finish = 10,
    /// A message from worker `origin`. Sequenced.
    Pipe = 11,
    /// The answer to a `Query`: aux is its token. Not sequenced.
    Reply = 12,
    /// Nothing; reading it shows that the worker lives. Not sequenced.
    Tick = 13,
    /// No event follows on this ring. A worker that has this from all its reactors, and has
    /// finished everything, calls `stop` and exits. Not sequenced.
    Retire = 14,
    /// A new master has taken over this ring: every connection and every request known so far
    /// is gone. Not sequenced.
    Reset = 15,
    /// A task was accepted: aux is the submitter's token, the payload the task id (u64).
    /// Not sequenced.
    TaskAccepted = 16,
    /// A datagram that came to listener `origin`: a `route::Route`, then the data. Sequenced.
    Packet = 17,
}

impl EventKind {
    fn from_u8(kind: u8) -> Option<Self> {
        use EventKind::*;
        Some(match kind {
            1 => Connect,
            2 => Receive,
            3 => Request,
            4 => RequestBody,
            5 => Open,
            6 => Message,
            7 => Close,
            8 => Task,
            9 => TaskResult,
            10 => Finish,
            11 => Pipe,
            12 => Reply,
            13 => Tick,
            14 => Retire,
            15 => Reset,
            16 => TaskAccepted,
            17 => Packet,
            _ => return None,
        })
    }
}

impl EventHeader {
    /// A header without flags, not sequenced.
    #[inline]
    pub(crate) const fn new(kind: EventKind, conn: ConnId) -> Self {
        EventHeader {
            kind,
            flags: 0,
            origin: 0,
            attempts: 0,
            conn,
            seq: 0,
            aux: 0,
            stamp: 0,
        }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.origin.to_le_bytes());
        bytes[4] = self.attempts;
        bytes[5..8].copy_from_slice(&self.stamp.to_le_bytes()[..3]);
        bytes[8..16].copy_from_slice(&self.conn.as_u64().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.aux.to_le_bytes());
        bytes
    }

    /// `None` for a kind that this build does not know.
    #[inline]
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        Some(EventHeader {
            kind: EventKind::from_u8(bytes[0])?,
            flags: bytes[1],
            origin: u16_at(bytes, 2),
            attempts: bytes[4],
            conn: ConnId::from_u64(u64_at(bytes, 8)),
            seq: u64_at(bytes, 16),
            aux: u64_at(bytes, 24),
            stamp: u32::from_le_bytes([bytes[5], bytes[6], bytes[7], 0]),
        })
    }

    /// Whether a worker only has to hand the event to the handler: of those that it has many of.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        match self.kind {
            EventKind::Receive | EventKind::Message => true,
            EventKind::Request => self.flags & (BODY_COMPLETE | BODY_TRAILERS) == BODY_COMPLETE,
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Why a task failed: first byte of the payload of a `TaskResult` or `Finish` with [`FAILED`];
/// for `Failed` the reason follows as text, for `QueueFull` the limit as u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TaskFailure {
    NoTaskWorkers = 1,
    QueueFull = 2,
    TimedOut = 3,
    Failed = 4,
    Poisonous = 5,
    NoSuchWorker = 6,
}
