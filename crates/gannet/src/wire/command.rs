//! Commands: what a worker asks of a reactor.

use super::{ARENA, HEADER, TEXT, u16_at, u64_at};
use crate::id::ConnId;

/// Header of a command record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandHeader {
    pub(crate) kind: CommandKind,
    /// [`super::TEXT`], [`super::ARENA`] and the constants below.
    pub(crate) flags: u8,
    /// Meaning depends on the kind: HTTP status, close code, query, worker, time.
    pub(crate) code: u16,
    /// The connection meant; 0 where none is.
    pub(crate) conn: ConnId,
    /// The event (by `seq`, on the event ring of the same reactor and worker) that is finished
    /// with this command; 0 for none.
    pub(crate) done: u64,
    /// Meaning depends on the kind.
    pub(crate) aux: u64,
}

/// Where `done` stands in an encoded header, for the ring's `amend`.
pub(crate) const DONE_OFFSET: usize = 16;

/// `Response`: the whole body is in this record.
pub(crate) const COMPLETE: u8 = 0x02;
/// `Close`: at once, dropping what is queued.
pub(crate) const ABORT: u8 = 0x02;
/// `Publish`: a subscriber that is slow may lose this message and stays connected.
pub(crate) const DROPPABLE: u8 = 0x02;
/// `TaskSubmit`: nobody awaits the result.
pub(crate) const DETACHED: u8 = 0x02;
/// `TaskSubmit`, with [`DETACHED`]: it was numbered by its submitter, and is not refused (see
/// `admission`).
pub(crate) const ADMITTED: u8 = 0x08;
/// `TaskSubmit`, with [`DETACHED`]: it was numbered by its submitter, and is refused if there is no room (see
/// `admission`).
pub(crate) const EARLY: u8 = 0x10;
/// Unit of what a task has taken, as `TaskDone` tells it in `code`: nanoseconds.
pub(crate) const TASK_TIME: u64 = 256;
/// `TaskDone`: the task failed; the payload is the reason as text.
pub(crate) const FAILED: u8 = 0x02;
/// `Done`: the handler returned an error or panicked. The reactor tells the client: TCP
/// connections and WebSockets are closed (1011); an HTTP request without response gets 500.
pub(crate) const HANDLER_FAILED: u8 = 0x04;
// Any command may finish an event, also one of another connection.
const _: () = assert!(
    HANDLER_FAILED
        & (TEXT | ARENA | COMPLETE | ABORT | DROPPABLE | DETACHED | ADMITTED | EARLY | FAILED)
        == 0
);

/// Kinds of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CommandKind {
    /// Only `done` matters.
    Done = 1,
    /// Bytes (TCP) or one message (WebSocket) to a connection.
    Send = 2,
    /// Close after what is queued has been sent; code is the WebSocket close code (0: 1000), the
    /// payload its reason.
    Close = 3,
    /// Head of a response; code is the status. Payload: u32 length of the header lines, the
    /// lines (`name: value\r\n`, none of the engine's own), an empty line, then, with [`COMPLETE`], the body.
    /// Without it aux is the length of the body to come, or `u64::MAX` for chunked.
    Response = 4,
    /// A piece of the response's body.
    ResponseBody = 5,
    /// End of the response's body; the payload is the trailer lines.
    ResponseEnd = 6,
    /// The body cannot be finished: the connection is closed so that the client sees it.
    ResponseAbort = 7,
    /// The handshake is accepted; the payload is extra header lines, `Sec-WebSocket-Protocol` too.
    Accept = 8,
    /// The payload is the topic.
    Subscribe = 9,
    /// The payload is the topic.
    Unsubscribe = 10,
    /// Payload: u16 length of the topic, the topic, the data. `conn` does not get it (0: all do).
    Publish = 11,
    /// The payload is the uid, at most [`MAX_UID`] bytes; empty removes it.
    Bind = 12,
    /// A question; code is a [`Query`], aux the token of the reply.
    Query = 13,
    /// Payload: u32 time-out in ms (0: none), then the task's data. code is the task worker
    /// wanted by its number among the task workers, or `u16::MAX` for any. aux is the token,
    /// or with [`ADMITTED`] or [`EARLY`] the task id. Reactor 0 only.
    TaskSubmit = 14,
    /// aux is the task id, code what it has taken ([`TASK_TIME`]); the payload is the result. Reactor 0
    /// only.
    TaskDone = 15,
    /// The payload goes to worker `code` as a `Pipe` event. Reactor 0 only.
    Pipe = 16,
    /// The application reads the body of a request with `Expect: 100-continue`.
    Continue = 17,
    /// The submitter gave up on the task with token aux (its future was dropped). Reactor 0 only.
    TaskCancel = 18,
    /// A datagram from the socket of listener `code`: a `route::Route`, then the data.
    Datagram = 19,
}

/// Questions to a reactor and the form of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Query {
    /// Payload: topic. Reply: u64 number of subscribers on this reactor.
    TopicCount = 1,
    /// Payload: topic. Reply: connection ids (u64 each) on this reactor.
    TopicMembers = 2,
    /// Payload: uid. Reply: connection ids (u64 each) on this reactor.
    Bound = 3,
    /// Payload: u64 bytes. Reply (empty), when at most so many bytes are queued for `conn`, or
    /// it is closed.
    Drained = 4,
}

/// Longest uid in bytes.
pub(crate) const MAX_UID: usize = 63;

impl CommandKind {
    fn from_u8(kind: u8) -> Option<Self> {
        use CommandKind::*;
        Some(match kind {
            1 => Done,
            2 => Send,
            3 => Close,
            4 => Response,
            5 => ResponseBody,
            6 => ResponseEnd,
            7 => ResponseAbort,
            8 => Accept,
            9 => Subscribe,
            10 => Unsubscribe,
            11 => Publish,
            12 => Bind,
            13 => Query,
            14 => TaskSubmit,
            15 => TaskDone,
            16 => Pipe,
            17 => Continue,
            18 => TaskCancel,
            19 => Datagram,
            _ => return None,
        })
    }
}

impl Query {
    pub(crate) fn from_u16(query: u16) -> Option<Self> {
        Some(match query {
            1 => Query::TopicCount,
            2 => Query::TopicMembers,
            3 => Query::Bound,
            4 => Query::Drained,
            _ => return None,
        })
    }
}

impl CommandHeader {
    /// A header that finishes no event.
    #[inline]
    pub(crate) fn new(kind: CommandKind, conn: ConnId) -> Self {
        CommandHeader {
            kind,
            flags: 0,
            code: 0,
            conn,
            done: 0,
            aux: 0,
        }
    }

    #[inline]
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.code.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.conn.as_u64().to_le_bytes());
        bytes[DONE_OFFSET..DONE_OFFSET + 8].copy_from_slice(&self.done.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.aux.to_le_bytes());
        bytes
    }

    /// `None` for a kind that this build does not know.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        Some(CommandHeader {
            kind: CommandKind::from_u8(bytes[0])?,
            flags: bytes[1],
            code: u16_at(bytes, 2),
            conn: ConnId::from_u64(u64_at(bytes, 8)),
            done: u64_at(bytes, DONE_OFFSET),
            aux: u64_at(bytes, 24),
        })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}
