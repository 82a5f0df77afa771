//! How connections end: closed by us, by the client, by a deadline, by a stop of the server.
//! The phases stand in `conn`.

use std::{
    borrow::Cow,
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed},
};

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
    id::WorkerId,
    layout::ReactorCounter,
    wire::event::{BODY_ABORT, EventKind, UNTOLD},
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

    /// The server stops: no new connections; those that are here finish what they have.
    pub(super) fn stop(&mut self, deadline_ms: u64) {
        if self.stopping.is_some() {
            return;
        }
        // Who has connected, and what they have sent by now, is still taken.
        self.closing_time = true;
        self.accept_backlog();
        self.stop_packets();
        for slot in self.conns.slots() {
            self.read_once_more(slot);
        }
        self.stopping = Some(self.clock.now + deadline_ms);
        self.stop_accepting();
        for slot in self.conns.slots() {
            self.read_no_more(slot);
        }
        self.check_stop();
    }

    /// A connection that another reactor has accepted before it heard of the stop.
    pub(super) fn wind_down(&mut self, slot: usize) {
        self.read_once_more(slot);
        self.read_no_more(slot);
    }

    fn read_once_more(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get(slot)
            && conn.is_open()
            && conn.stall == Stall::No
            && !conn.eof
        {
            self.readable(slot);
        }
    }

    fn read_no_more(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get(slot)
            && conn.is_open()
        {
            let (reads, writing) = (conn.reading && conn.reads_on(), conn.writing);
            self.interest(slot, reads, writing);
            self.settle(slot);
        }
        self.hurry_reader(slot);
    }

    /// Whether the stop is complete; at its deadline, what is left is cut.
    pub(super) fn check_stop(&mut self) {
        let Some(deadline) = self.stopping else {
            return;
        };
        if self.clock.now >= deadline {
            for slot in self.conns.slots() {
                self.leave(slot, Closed::of(CloseReason::Stopping));
            }
        }
        let late = self.clock.now >= deadline;
        if !late {
            self.update_works();
            // A handler may use any reactor, whichever its event came from.
            if self.working.load(Acquire) > 0 {
                return;
            }
            // What the last handler of another reactor has asked of this one is here by now.
            self.take_all_commands(usize::MAX);
            self.update_works();
            if self.works {
                return;
            }
        }
        self.drop_mail_of_processes();
        for place in &mut self.places {
            place.current = None;
        }
        for link in self.links.iter_mut().flatten() {
            link.retiring = true;
        }
        self.check_retiring();
        let retired = self.links.iter().flatten().all(|link| link.retired);
        self.stopped = retired || late;
    }

    /// A user process that has ended before the others is not followed when the server stops:
    /// nobody will handle what it has left.
    fn drop_mail_of_processes(&mut self) {
        for place in self.settings.first_process()..self.places.len() {
            let left = std::mem::take(&mut self.places[place].backlog);
            if left.is_empty() {
                continue;
            }
            let worker = WorkerId(place as u16);
            let name = self.settings.process_name(worker).unwrap_or_default();
            tracing::warn!(
                "{} messages to the process {name} were not handled",
                left.len()
            );
            left.iter()
                .for_each(|_| self.count(ReactorCounter::Dropped));
        }
    }

    /// Says whether anything is left to do here.
    pub(super) fn update_works(&mut self) {
        let works = self.conns.len() > 0
            || self.places[..self.settings.first_process()]
                .iter()
                .any(|place| !place.backlog.is_empty())
            || self.links.iter().flatten().any(|link| !link.is_idle())
            || self.desk.as_ref().is_some_and(|desk| !desk.is_empty());
        if works && !self.works {
            self.working.fetch_add(1, AcqRel);
        } else if !works && self.works {
            self.working.fetch_sub(1, AcqRel);
        }
        self.works = works;
    }

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
/// After so long without a byte from a client whose connection we have shut, it is closed, in ms.
const QUIET: u64 = 300;
