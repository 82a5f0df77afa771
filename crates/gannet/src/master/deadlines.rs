//! When something is due for a connection, and what is done then.

use super::{
    conn::{Closed, Conn, Phase, Speaks, Stall},
    reactor::Reactor,
};
use crate::{
    close::CloseReason,
    wire::event::{BODY_ABORT, EventKind},
};

impl Reactor {
    /// Whether and when the wheel is to look at the connection.
    pub(super) fn watch(&mut self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let Some(at) = self.next_deadline(conn) else {
            return;
        };
        self.wheel.watch(&mut self.conns, slot as u32, at);
    }

    /// As [`Reactor::watch`], after a read from a connection that is open: unless a message goes on that
    /// is not whole, no deadline has come nearer.
    pub(super) fn watch_read(&mut self, slot: usize, goes_on: bool) {
        let watched = |conn: &mut Conn| conn.timer_mut().is_set();
        if goes_on || !self.conns.get_mut(slot).is_some_and(watched) {
            self.watch(slot);
        }
    }

    /// The wheel says that something may be due.
    pub(super) fn deadline(&mut self, slot: usize) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let Some(at) = self.next_deadline(conn) else {
            return;
        };
        if now < at {
            return self.watch(slot);
        }
        let phase = conn.phase;
        match phase {
            Phase::Closing(_) if self.goes_on_reading(slot) => return,
            Phase::Closing(closed) | Phase::Lingering(closed) => return self.leave(slot, closed),
            Phase::Gone(_) => return,
            Phase::Open => {}
        }
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        if conn.awaits_header() {
            let why = "the PROXY header did not come in time";
            return self.fail_header(slot, CloseReason::Timeout, why);
        }
        if conn.is_handshaking() {
            return self.handshake_due(slot);
        }
        if self.is_unread_only(slot) {
            return;
        }
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let unread = match &conn.speaks {
            // Between requests it is stalled only as long as it does not read itself.
            Speaks::Http(_) => conn.is_streaming(),
            _ => true,
        };
        if conn.stall != Stall::No && unread || self.is_held_up(slot) {
            // It is not the client that is silent: nothing is read from it.
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.last_seen = now;
                conn.forgive_slowness(now);
            }
            return self.watch(slot);
        }
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let idle = listener.idle_timeout_ms;
        match &conn.speaks {
            Speaks::WebSocket(websocket) if websocket.is_late(now, listener) => {
                let closed = Closed::of(CloseReason::Timeout);
                self.begin_close(slot, closed, "the message came too slowly");
            }
            Speaks::Framed(framed)
                if framed.progress.is_some_and(|it| it.is_late(now, listener)) =>
            {
                self.begin_close(slot, Closed::of(CloseReason::Timeout), "");
            }
            Speaks::Http(http) if http.exchange.is_receiving() => {
                if http.exchange.is_streaming() && conn.rare().held.is_none() {
                    self.offer_or_hold(slot, EventKind::RequestBody, BODY_ABORT, 0, &[]);
                }
                self.refuse_request(slot, &gannet_proto::http1::RequestError::timeout());
            }
            Speaks::Http2(_) => self.session_due(slot),
            Speaks::Http(_) if conn.stream.is_some() => {
                // Its answer is complete, and nothing of it moves.
                self.leave(slot, Closed::of(CloseReason::SlowReader));
            }
            Speaks::Http(_) => self.begin_close(slot, Closed::of(CloseReason::Idle), ""),
            _ if conn.websocket && now < conn.last_seen + idle => {
                if let Some(conn) = self.conns.get_mut(slot) {
                    conn.pinged = true;
                }
                self.ping(slot);
                self.watch(slot);
            }
            _ => self.begin_close(slot, Closed::of(CloseReason::Idle), "idle for too long"),
        }
    }

    pub(super) fn next_deadline(&self, conn: &Conn) -> Option<u64> {
        match conn.phase {
            Phase::Closing(_) => return Some(conn.rare().cut_at),
            // Silence means that the client has nothing on its way that a reset could answer.
            Phase::Lingering(_) => {
                let rare = conn.rare();
                let quiet = conn.last_seen.max(rare.lingers) + QUIET;
                return Some(rare.cut_at.min(quiet));
            }
            Phase::Gone(_) => return None,
            Phase::Open => {}
        }
        if conn.awaits_header() {
            return Some(conn.rare().header_due);
        }
        if let Some(tls) = conn.tls.as_ref().filter(|tls| tls.is_handshaking()) {
            return Some(tls.next_deadline());
        }
        let own = self.protocol_deadline(conn);
        [own, self.unread_deadline(conn)]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the protocol wants to be looked at.
    fn protocol_deadline(&self, conn: &Conn) -> Option<u64> {
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let idle = listener.idle_timeout_ms;
        match &conn.speaks {
            Speaks::Http2(session) => self.session_deadline(session, listener),
            Speaks::Http(http) if http.exchange.is_answering() => None,
            // It is not idle while it reads, and whether it does is looked at.
            Speaks::Http(http)
                if !http.exchange.is_receiving() && self.unread_deadline(conn).is_some() =>
            {
                None
            }
            Speaks::Http(http) if listener.request_timeout_ms > 0 => {
                let timeout = http.exchange.since(conn.last_seen) + listener.request_timeout_ms;
                let slow = http.exchange.progress.and_then(|it| it.deadline(listener));
                Some(slow.map_or(timeout, |slow| slow.min(timeout)))
            }
            Speaks::Http(_) => None,
            Speaks::WebSocket(websocket) => {
                let idle = (idle > 0).then(|| match conn.pinged {
                    true => conn.last_seen + idle,
                    false => conn.last_seen + idle / 2,
                });
                let slow = websocket.progress.and_then(|it| it.deadline(listener));
                [idle, slow].into_iter().flatten().min()
            }
            Speaks::Framed(framed) => {
                let idle = (idle > 0).then(|| conn.last_seen + idle);
                let slow = framed.progress.and_then(|it| it.deadline(listener));
                [idle, slow].into_iter().flatten().min()
            }
            _ if idle == 0 => None,
            _ => Some(conn.last_seen + idle),
        }
    }
}

/// After so long without a byte from a client whose connection we have shut, it is closed, in ms.
const QUIET: u64 = 300;
