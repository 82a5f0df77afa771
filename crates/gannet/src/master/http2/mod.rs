//! HTTP/2 (RFC 9113): connections that carry many, each stream a connection of its own.
//!
//! The frames, HPACK and flow control are the crate `h2`'s. It reads and writes memory (`pipe`), is
//! polled by the reactor, and wakes by putting a connection on a list (`woken`).
//!
//! A connection speaks HTTP/2 when ALPN has chosen it, or when it begins with the preface. Then it is
//! a **parent** ([`Session`]): it has the socket, the TLS and the library's state, and no event of it
//! is given to anybody. Every request that comes on it opens a **stream** ([`Stream`]): a connection
//! in the slab and in the table like any other, with id, place, events, topics and uid of its own,
//! that has no socket. What it sends goes through its queue to the library as far as the windows of
//! the client and the library's own buffer have room; what it receives is taken from the library only
//! when it can be handed over, and only then the client may send more. So everything that holds for a
//! connection holds for a stream: dispatch, redelivery, back-pressure, deadlines, limits, stop.
//!
//! A stream is open until its answer has been given to the library in full. Its exchange goes the
//! same way as that of HTTP/1 (see `http`), but once: collecting → streaming → answering → ending →
//! gone. A WebSocket (RFC 8441) is upgraded like one of HTTP/1 and then speaks frames in DATA.
//!
//! | file | idea |
//! |---|---|
//! | `pipe`, `woken` | memory in place of a socket, a list in place of an executor |
//! | `session` | the library's state for a connection, and what its client may do |
//! | `stream` | the library's two ways of a stream |
//! | `streams` | streams as connections |
//!
//! Invariants:
//! - A stream that is not gone is in `streams` of its parent, at `index`; its parent is open, or is
//!   being closed and has none left.
//! - A parent leaves after all of its streams.
//! - The library is called from [`Reactor::drive`] and for one stream at a time, never from within
//!   itself; whoever it wakes is looked at by [`Reactor::serve_woken`], which runs before the reactor
//!   shows its events, after it has taken commands, and before it writes to sockets.
//! - What the library has not read of a parent's input (it reads nothing while it cannot write) stays
//!   in `input`, and the parent is stalled (`Own`) until its output has been written.
//! - A parent counts at no place; its `place` is where the last stream went, for those that go round.
//! - `streams` of the reactor is the number of streams in the slab, those gone included.

mod pipe;
mod session;
mod stream;
mod streams;
mod woken;

use gannet_proto::http2::PREFACE;
use h2::Reason;

use self::session::{Polled, ROOM};
pub(super) use self::{session::Session, stream::Stream, woken::Woken};
use super::{
    conn::{Closed, Conn, Speaks, Stall},
    reactor::Reactor,
};
use crate::{close::CloseReason, layout::ReactorCounter, settings::Listener};

impl Reactor {
    /// What an HTTP connection turns out to speak, by its first bytes. `None`: more are needed.
    pub(super) fn begins_http2(&mut self, slot: usize, input: &[u8]) -> Option<bool> {
        let Some(conn) = self.conns.get_mut(slot) else {
            return Some(false);
        };
        let now = self.clock.now;
        match &mut conn.speaks {
            Speaks::Http(http) if http.is_fresh() && conn.tls.is_none() => {
                let len = input.len().min(PREFACE.len());
                if input[..len] != PREFACE[..len] {
                    return Some(false);
                }
                if len == PREFACE.len() {
                    return Some(true);
                }
                if http.exchange.began == 0 && len > 0 {
                    http.exchange.began = now;
                }
                None
            }
            _ => Some(false),
        }
    }

    /// From now on the connection speaks HTTP/2.
    pub(super) fn speak_http2(&mut self, slot: usize) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let waker = self.woken.waker(conn.id);
        // Our SETTINGS leave at once.
        waker.wake_by_ref();
        conn.speaks = Speaks::Http2(Box::new(Session::new(listener, waker, now)));
        // No event of it will go there: its streams have places.
        self.places[usize::from(conn.place)].connections -= 1;
        self.count(ReactorCounter::Http2Connections);
        self.watch(slot);
    }

    /// Takes the first `len` bytes of the buffer; what is not taken stays with the connection.
    pub(super) fn take_http2(&mut self, slot: usize, len: usize) {
        let now = self.clock.now;
        let Some(Conn {
            listener,
            speaks: Speaks::Http2(session),
            ..
        }) = self.conns.get_mut(slot)
        else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(*listener)];
        let fresh = session.scanned.min(len);
        if let Err(stop) = session.look(&self.buffer[fresh..len], now, listener) {
            return match stop.code {
                None => self.flooded(slot, stop.why),
                Some(code) => self.broken(slot, fresh + stop.at, code, stop.why),
            };
        }
        self.drive(slot, len);
    }

    /// Looks at all that the library has woken.
    pub(super) fn serve_woken(&mut self) {
        if self.woken.is_empty() {
            return;
        }
        let mut woken = std::mem::take(&mut self.woken_ids);
        for _ in 0..ROUNDS {
            self.woken.take(&mut woken);
            if woken.is_empty() {
                break;
            }
            for id in woken.drain(..) {
                let Some(slot) = self.conns.find(id) else {
                    continue;
                };
                match self.conns.get(slot) {
                    Some(conn) if conn.stream.is_some() => self.stream_ready(slot),
                    Some(_) => self.drive_again(slot),
                    None => {}
                }
            }
        }
        self.woken_ids = woken;
    }

    /// Goes on with a session that was woken, or whose output has been written.
    pub(super) fn drive_again(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let len = conn.input.len();
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        self.buffer[..len].copy_from_slice(&conn.input);
        conn.input.clear();
        self.drive(slot, len);
    }

    /// Another stream of the same connection waits for its worker, and so perhaps holds the window
    /// that this one needs.
    pub(super) fn is_held_up(&self, slot: usize) -> bool {
        let of_parent = self.conns.get(slot).and_then(|conn| self.parent_of(conn));
        let Some(Speaks::Http2(session)) = of_parent.map(|parent| &parent.speaks) else {
            return false;
        };
        let mut streams = session.streams.iter().filter_map(|&id| self.conns.find(id));
        streams.any(|other| {
            let conn = self.conns.get(other);
            other != slot && conn.is_some_and(|conn| conn.stall != Stall::No)
        })
    }

    /// Ends all streams of a connection that ends.
    pub(super) fn leave_streams(&mut self, slot: usize, closed: Closed) {
        let Some(session) = self.session(slot) else {
            return;
        };
        for id in std::mem::take(&mut session.streams) {
            if let Some(stream) = self.conns.find(id) {
                self.leave(stream, closed);
            }
        }
    }

    /// A stream that ends because its connection does.
    pub(super) fn ends_with_parent(&self, slot: usize) -> bool {
        self.conns
            .get(slot)
            .and_then(|conn| self.parent_of(conn))
            .is_some_and(|parent| !parent.is_open())
    }

    /// The connection that carries this one, if it is a stream.
    pub(super) fn parent_of(&self, conn: &Conn) -> Option<&Conn> {
        let stream = conn.stream.as_ref()?;
        self.conns.get(self.conns.find(stream.parent)?)
    }

    /// Tells a client that its connection ends, and why: for those that are being closed.
    pub(super) fn say_goaway(&mut self, slot: usize, reason: CloseReason) {
        self.leave_streams(slot, Closed::of(reason));
        let Some(session) = self.session(slot) else {
            return;
        };
        match session.abandon(session.broken.unwrap_or(goaway_reason(reason))) {
            Some(goaway) => self.write(slot, |out| out.extend_from_slice(&goaway)),
            None => self.drive(slot, 0),
        }
    }

    /// Takes no new streams from now on; the connection ends when those that are there have.
    pub(super) fn drain_session(&mut self, slot: usize) {
        let now = self.clock.now;
        let Some(session) = self.session(slot) else {
            return;
        };
        if !session.is_open() {
            return self.begin_close(slot, Closed::of(CloseReason::Stopping), "");
        }
        session.drain(now);
        self.watch(slot);
    }

    /// When the wheel is to look at a parent.
    pub(super) fn session_deadline(&self, session: &Session, listener: &Listener) -> Option<u64> {
        let timeout = listener.request_timeout_ms;
        let timed = |since: u64| (timeout > 0 && since > 0).then(|| since + timeout);
        let drained = (session.drains > 0 && session.streams.is_empty())
            .then(|| session.drains.max(session.idle_since) + DRAIN);
        let idle = match session.streams.is_empty() {
            true => timed(session.idle_since),
            false => None,
        };
        let owed = timed(session.owes_since());
        [drained, idle, owed, timed(session.block_since)]
            .into_iter()
            .flatten()
            .min()
    }

    /// A deadline of a parent has passed.
    pub(super) fn session_due(&mut self, slot: usize) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let timeout = listener.request_timeout_ms;
        let Speaks::Http2(session) = &mut conn.speaks else {
            return;
        };
        let is_late = |since: u64| timeout > 0 && since > 0 && now >= since + timeout;
        if is_late(session.owes_since()) || is_late(session.block_since) {
            return self.begin_close(slot, Closed::of(CloseReason::Timeout), "");
        }
        if session.drains == 0 {
            // Nobody asks for anything: its client is told before it does.
            session.drain(now);
            return self.watch(slot);
        }
        let reason = match self.stopping {
            Some(_) => CloseReason::Stopping,
            None => CloseReason::Idle,
        };
        self.begin_close(slot, Closed::of(reason), "");
    }

    fn session(&mut self, slot: usize) -> Option<&mut Session> {
        match &mut self.conns.get_mut(slot)?.speaks {
            Speaks::Http2(session) => Some(session),
            _ => None,
        }
    }

    /// Lets the library have the first `len` bytes of the buffer, and takes what it has to say.
    fn drive(&mut self, slot: usize, len: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Speaks::Http2(session) = &mut conn.speaks else {
            return;
        };
        let queued = conn.output.as_ref().map_or(0, |output| output.queued());
        let room = ROOM.saturating_sub(queued);
        let input = std::mem::take(&mut self.buffer);
        session.pipe.fill(input, len, self.pool.take(), room);
        let polled = session.poll();
        let (input, used, output, is_full) = session.pipe.empty();
        session.sent += output.len() as u64;
        self.buffer = input;
        session.is_full = is_full;
        session.scanned = len - used;
        if output.is_empty() {
            self.pool.give(output);
        } else {
            let queue = self.pool.queue(&mut conn.output);
            queue.push(&mut self.pool, output);
        }
        if used < len {
            conn.input.extend_from_slice(&self.buffer[used..len]);
        }
        let (is_stalled, is_dirty) = (conn.stall != Stall::No, conn.queued() > 0);
        let left = used < len;
        if is_dirty {
            self.mark_dirty(slot);
        }
        if left && !is_stalled {
            self.stall(slot, Stall::Own);
        } else if !left && is_stalled {
            self.wake(slot);
        }
        self.driven(slot, polled);
    }

    fn driven(&mut self, slot: usize, polled: Polled) {
        for accepted in polled.accepted {
            self.open_stream(slot, accepted);
        }
        if polled.panicked {
            tracing::error!("the HTTP/2 library panicked: the connection is closed");
            self.forget_ways(slot);
        }
        let is_open = self.conns.get(slot).is_some_and(Conn::is_open);
        let drains = self
            .session(slot)
            .is_some_and(|session| session.drains != 0);
        if let Some(reason) = polled.over
            && is_open
        {
            let reason = match reason {
                CloseReason::Complete if self.stopping.is_some() => CloseReason::Stopping,
                CloseReason::Complete if drains => CloseReason::Idle,
                CloseReason::Complete => CloseReason::Client,
                other => other,
            };
            self.begin_close(slot, Closed::of(reason), "");
        }
    }

    /// The library is broken: what it has given away must not be touched again.
    fn forget_ways(&mut self, slot: usize) {
        let Some(session) = self.session(slot) else {
            return;
        };
        for id in session.streams.clone() {
            if let Some(conn) = self
                .conns
                .find(id)
                .and_then(|slot| self.conns.get_mut(slot))
                && let Some(stream) = &mut conn.stream
            {
                stream.forget();
            }
        }
    }

    fn flooded(&mut self, slot: usize, why: &str) {
        if let Some(conn) = self.conns.get(slot) {
            tracing::debug!(conn = %conn.id, "closing: {why}");
        }
        self.begin_close(slot, Closed::of(CloseReason::Flood), "");
    }

    /// A rule was broken behind the first `len` bytes of the buffer: they are taken, and nothing else is.
    fn broken(&mut self, slot: usize, len: usize, code: Reason, why: &str) {
        self.drive(slot, len);
        // What came before may have ended it already.
        let is_open = self.conns.get(slot).is_some_and(Conn::is_open);
        let Some(session) = self.session(slot).filter(|_| is_open) else {
            return;
        };
        session.broken = Some(code);
        if let Some(conn) = self.conns.get(slot) {
            tracing::debug!(conn = %conn.id, "closing: {why}");
        }
        self.begin_close(slot, Closed::of(CloseReason::Protocol), "");
    }
}

/// What a client is told about a connection that ends.
fn goaway_reason(reason: CloseReason) -> Reason {
    match reason {
        CloseReason::Protocol => Reason::PROTOCOL_ERROR,
        CloseReason::Flood => Reason::ENHANCE_YOUR_CALM,
        CloseReason::Timeout => Reason::SETTINGS_TIMEOUT,
        _ => Reason::NO_ERROR,
    }
}

/// How long streams that were under way when GOAWAY was sent are still taken, in ms.
const DRAIN: u64 = 1_000;
/// How often in a row the list of the woken is looked at.
const ROUNDS: usize = 32;
