//! How connections end: closed by us, by the client, by a deadline (`deadlines`), by a stop of the server
//! (`stopping`). The phases stand in `conn`.

use std::{borrow::Cow, sync::atomic::Ordering::Relaxed};

use gannet_proto::websocket;
use rustix::net::Shutdown;

use super::{
    conn::{Closed, Conn, Phase, Speaks, Stall},
    rare::Ending,
    reactor::Reactor,
    routes::BODY_IN_FLIGHT,
};
use crate::{
    close::CloseReason,
    layout::ReactorCounter,
    wire::event::{EventKind, UNTOLD},
};

impl Reactor {
    /// Closes in good order: what is queued is sent first, for a WebSocket with a close frame
    /// behind it. Nothing more is taken from the client.
    pub(super) fn begin_close(&mut self, slot: usize, closed: Closed, text: &str) {
        self.catch_up(slot);
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if !conn.is_open() {
            return;
        }
        let closed = match closed.code {
            0 if conn.websocket => Closed {
                code: close_code(closed.reason),
                ..closed
            },
            _ => closed,
        };
        conn.phase = Phase::Closing(closed);
        conn.input.release();
        conn.forget_message();
        let (is_parent, is_websocket) = (matches!(conn.speaks, Speaks::Http2(_)), conn.websocket);
        self.begin_closing_window(slot);
        if is_parent {
            self.say_goaway(slot, closed.reason);
        } else if is_websocket {
            self.write(slot, |out| websocket::encode_close(out, closed.code, text));
        }
        self.watch(slot);
        self.shut_if_flushed(slot);
    }

    /// Closes when the events of what came before are done.
    pub(super) fn end_after_events(
        &mut self,
        slot: usize,
        closed: Closed,
        text: impl Into<Cow<'static, str>>,
    ) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let text = text.into();
        conn.rare_mut().ending = Some(Ending { closed, text });
        self.settle(slot);
    }

    /// Cuts the connection now.
    pub(super) fn leave(&mut self, slot: usize, closed: Closed) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.is_gone() {
            return;
        }
        // A reason that was set when the closing began is the true one.
        let closed = match conn.phase {
            Phase::Closing(first) | Phase::Lingering(first) => first,
            _ => conn.rare().ending.as_ref().map_or(closed, |it| it.closed),
        };
        conn.phase = Phase::Gone(closed);
        if conn.unread().is_some() {
            conn.reset_on_close();
        }
        conn.socket = None;
        let is_stream = conn.stream.is_some();
        let is_parent = matches!(conn.speaks, Speaks::Http2(_));
        conn.close_due = match &conn.speaks {
            Speaks::Http(http) => http.exchange.is_busy(),
            Speaks::Http2(_) => false,
            _ => !conn.awaits_header() && !conn.is_handshaking(),
        };
        // It may be long until the last event is done; nothing more is taken from the input.
        conn.input.release();
        conn.forget_message();
        let id = conn.id;
        let place = usize::from(conn.place);
        let output = conn.output.take();
        if let Some(output) = output {
            for &(_, incarnation, token) in &output.waiters {
                self.reply(incarnation, token, &[]);
            }
            output.recycle(&mut self.pool);
        }
        if is_stream {
            self.forget_stream(slot, closed);
        } else {
            self.leave_streams(slot, closed);
        }
        self.unsubscribe_all(slot);
        self.unbind(slot);
        if let Some(row) = self.table.row_of(id) {
            self.table.set_closed(row);
        }
        if !is_parent {
            self.places[place].connections -= 1;
        }
        if !is_stream {
            self.connections.fetch_sub(1, Relaxed);
        }
        // A stream that ends as it should is a request, and counted as such; those that end because
        // their connection does are one close, however many they are.
        let is_one_more = closed.reason != CloseReason::Complete && !self.ends_with_parent(slot);
        if !is_stream || is_one_more {
            self.count_closed(closed.reason);
        }
        // Otherwise its place, or the end of an event, goes on with it.
        let waits = self.conns.get(slot).is_some_and(|conn| match conn.stall {
            Stall::No => false,
            Stall::Own => conn.in_flight > 0,
            Stall::Place => true,
        });
        if !waits {
            self.deliver_close(slot);
        }
    }

    /// Gives the worker the last event of a connection that is gone, after all others.
    pub(super) fn deliver_close(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Phase::Gone(closed) = conn.phase else {
            return;
        };
        if conn.rare().held.is_some() {
            return;
        }
        if conn.close_due {
            let flags = match &conn.speaks {
                // While `open` runs, the handler may have noted the connection.
                Speaks::Http(http) if !http.exchange.is_upgrading() => UNTOLD,
                _ => 0,
            };
            if !self.offer(slot, EventKind::Close, flags, closed.aux(), &[]) {
                return;
            }
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.close_due = false;
            }
        }
        self.free_if_done(slot);
    }

    /// An event of the connection is done (or given up).
    pub(super) fn event_done(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.is_calm() && self.stopping.is_none() {
            // Nothing has waited for it.
            return;
        }
        let half = match &conn.speaks {
            // The pieces of a body have a limit of their own, and their request is always in flight.
            Speaks::Http(_) => BODY_IN_FLIGHT / 2,
            _ => self.settings.max_in_flight as u32 / 2,
        };
        if conn.is_gone() {
            if conn.stall == Stall::Own {
                self.wake(slot);
            } else {
                self.free_if_done(slot);
            }
            return;
        }
        if conn.stall == Stall::Own && (conn.in_flight <= half || conn.rare().held.is_some()) {
            self.wake(slot);
        }
        if conn_ends(self.conns.get(slot)) || self.stopping.is_some() {
            self.settle(slot);
        }
    }

    /// Puts the connection on the list of those to resume.
    pub(super) fn wake(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        // A connection that waits for its place is woken by the place.
        if !conn.resuming && conn.stall != Stall::Place {
            conn.resuming = true;
            self.resume.push(conn.id);
        }
    }

    /// Stops taking things from a connection that has had its share of this turn; what is kept of its
    /// input goes on in the next, which begins at once.
    pub(super) fn go_on_next_turn(&mut self, slot: usize) {
        self.count(ReactorCounter::Yields);
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.stall = Stall::Own;
        }
        self.wake(slot);
    }

    /// Closes a connection that has nothing left to do, if its client or the server is ending.
    pub(super) fn settle(&mut self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let busy = match &conn.speaks {
            Speaks::Http(http) => http.exchange.is_busy(),
            Speaks::Http2(_) if conn.is_open() => {
                if self.stopping.is_some() {
                    self.drain_session(slot);
                }
                return;
            }
            _ => false,
        };
        let busy = busy || conn.stream.as_ref().is_some_and(|it| it.is_ending());
        if !conn.is_open() || busy || conn.in_flight > 0 || conn.rare().held.is_some() {
            return;
        }
        if let Some(ending) = self.conns.get_mut(slot).and_then(Conn::take_ending) {
            return self.begin_close(slot, ending.closed, &ending.text);
        }
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        // An idle HTTP connection is stalled while its client does not read; a stop does not wait.
        let unread = self.stopping.is_some() && matches!(conn.speaks, Speaks::Http(_));
        if conn.stall != Stall::No && !unread || conn.resuming {
            return;
        }
        if conn.eof {
            let reason = match conn.is_mid_message() {
                false => CloseReason::Client,
                true => CloseReason::Reset,
            };
            self.begin_close(slot, Closed::of(reason), "");
        } else if self.stopping.is_some() {
            self.begin_close(
                slot,
                Closed::of(CloseReason::Stopping),
                "the server is stopping",
            );
        }
    }

    /// After a write: the closing goes on when all is out.
    pub(super) fn shut_if_flushed(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if let Some(reason) = conn.stream.as_ref().and_then(|stream| stream.ended()) {
            return self.leave(slot, Closed::of(reason));
        }
        let Phase::Closing(closed) = conn.phase else {
            return;
        };
        if conn.hup {
            // Nobody reads what is queued, and the poll set says no more when to write.
            return self.leave(slot, closed);
        }
        if conn.unwritten() > 0 {
            return;
        }
        if conn.say_end(&mut self.pool) {
            return self.flush(slot);
        }
        if let Some(stream) = &mut conn.stream {
            // An answer that is cut off is reset; frames end in good order.
            if !conn.websocket {
                return self.leave(slot, closed);
            }
            stream.say_end();
        }
        if conn.eof {
            return self.leave(slot, closed);
        }
        conn.phase = Phase::Lingering(closed);
        let rare = conn.rare_mut();
        rare.lingers = self.clock.now;
        rare.cut_at = self.clock.now + LINGER;
        if let Some(socket) = &conn.socket
            && rustix::net::shutdown(socket, Shutdown::Write).is_err()
        {
            return self.leave(slot, closed);
        }
        self.interest(slot, true, false);
        self.watch(slot);
    }

    fn free_if_done(&mut self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        if !conn.is_gone() || conn.in_flight > 0 || conn.close_due || conn.rare().held.is_some() {
            return;
        }
        let id = conn.id;
        self.streams -= usize::from(conn.stream.is_some());
        self.wheel.forget(&mut self.conns, slot as u32);
        self.conns.remove(slot);
        if let Some(row) = self.table.row_of(id) {
            self.table.clear(row);
        }
    }
}

impl Conn {
    /// Neither it nor its client waits for an event to be done.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.is_open() && self.stall == Stall::No && !self.eof && self.rare.is_none()
    }
}

fn conn_ends(conn: Option<&Conn>) -> bool {
    conn.is_some_and(|conn| conn.eof || conn.rare().ending.is_some())
}

/// The WebSocket close code that says this to the client (RFC 6455 section 7.4, IANA registry).
fn close_code(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::Idle | CloseReason::Stopping => 1001,
        CloseReason::Protocol => 1002,
        CloseReason::SlowReader
        | CloseReason::Kicked
        | CloseReason::Timeout
        | CloseReason::Flood => 1008,
        CloseReason::TooLarge => 1009,
        CloseReason::HandlerFailed => 1011,
        CloseReason::WorkerDied => 1012,
        _ => 1000,
    }
}

/// How long a client may read nothing of the last bytes, and take to close its side, in ms.
pub(super) const LINGER: u64 = 5_000;
