//! TLS between socket and protocol.
//!
//! A connection of a TLS listener goes through these states; all others have none of this, but for
//! one pointer.
//!
//! ```text
//!   fresh ──▶ hello ──it is whole──▶ its turn ──▶ handshake ──▶ open ──we close──▶ done
//!     │         │                    waiting ──▶     │           │
//!     │         └────────────────────────────────────┴── alert ──┴──────────────▶ done
//!     └── no handshake's byte: told in plain text ──────────────────────────────▶ done
//! ```
//!
//! - *fresh*: nothing has come, and there is no session: half-open connections cost what plain ones do.
//! - *hello*: it is under way, and has no turn yet: see `hello`.
//! - *waiting*: `max_handshakes_per_s` is used up. What has come is kept, nothing more is read.
//!   Who leaves gives the place back.
//! - *handshake*: no event of the connection has been given to anybody, `Close` included.
//! - *open*: what is decrypted goes where plain bytes go; what is queued is encrypted only as far as
//!   the socket takes it: `sealed` holds [`BATCH`] bytes and their overhead at most, and counts as
//!   queued.
//! - *done*: nothing more is decrypted or encrypted; what is sealed (an alert, `close_notify`) leaves.
//!
//! What stands in front of the handshake is not read here: until a PROXY header is taken, its
//! connection has no TLS, as if its listener had none. Then [`Reactor::take_header`] makes it
//! *fresh*, its deadline begins, and what is behind the header enters at
//! [`Reactor::take_encrypted`]: it does not matter where bytes come from. After the handshake,
//! [`Reactor::established`] knows what ALPN has chosen.
//!
//! The client's `close_notify` is the end of what it sends, as an end of file is on plain TCP:
//! answers still go to it. An end of file without it is an end that anybody on the way may have
//! made: on a connection whose protocol does not say by itself where things end, it is a reset.
//!
//! Handshakes are made in the reactor's thread.

mod hello;
mod session;

use gannet_proto::http1;
use rustix::{io::Errno, net::RecvFlags};

use self::{
    hello::{Gathering, Hello},
    session::{Received, Session},
};
use super::{
    conn::{Closed, Conn, Stall},
    output::{Output, Pool},
    reactor::Reactor,
};
use crate::{
    close::CloseReason,
    layout::ReactorCounter,
    tls::{Place, TlsListener},
    wire::event::{BODY_ABORT, EventKind},
};

/// The TLS of one connection.
pub(super) struct Tls {
    state: State,
    /// Bytes of the wire that wait for the socket.
    sealed: Option<Box<Output>>,
    /// The client has said that it sends no more.
    ended: bool,
    /// The handshake is behind it, and the worker may know the connection.
    established: bool,
    /// When the handshake is to be over, ms.
    deadline: u64,
}

enum State {
    Fresh,
    Hello(Gathering),
    Waiting {
        hello: Hello,
        until: u64,
        place: Place,
    },
    Session(Session),
    Done,
}

/// Failures are logged once in a while.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    last: u64,
    unsaid: u64,
}

impl Tls {
    fn new(now: u64, listener: &TlsListener) -> Self {
        Tls {
            state: State::Fresh,
            sealed: None,
            ended: false,
            established: false,
            deadline: now + listener.handshake_timeout_ms,
        }
    }

    /// No event has been given to anybody yet.
    pub(super) fn is_handshaking(&self) -> bool {
        !self.established
    }

    /// When a handshake has to be looked at again.
    pub(super) fn next_deadline(&self) -> u64 {
        match self.state {
            State::Waiting { until, .. } => until.min(self.deadline),
            _ => self.deadline,
        }
    }

    pub(super) fn sealed(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.queued())
    }

    /// What is queued can be encrypted.
    pub(super) fn seals(&self) -> bool {
        self.established && matches!(self.state, State::Session(_))
    }

    /// Takes what the session has to send.
    fn drain(&mut self, pool: &mut Pool) {
        if let State::Session(session) = &mut self.state
            && session.has_output()
        {
            let sealed = pool.queue(&mut self.sealed);
            sealed.append(pool, |out| session.drain(out));
        }
    }
}

impl Conn {
    /// Writes what is queued, as far as the socket takes it; `None`: there is nothing.
    pub(super) fn write_out(&mut self, pool: &mut Pool) -> Option<std::io::Result<usize>> {
        if let Some(stream) = &mut self.stream {
            return Some(Ok(stream.write_out(self.output.as_deref_mut(), pool)));
        }
        let socket = self.socket.as_ref()?;
        let Some(tls) = &mut self.tls else {
            return Some(self.output.as_mut()?.write_to(socket, pool));
        };
        if tls.sealed.is_none() && (self.output.is_none() || !tls.seals()) {
            return None;
        }
        let mut total = 0;
        loop {
            if let Some(sealed) = &mut tls.sealed {
                match sealed.write_to(socket, pool) {
                    Ok(written) => total += written,
                    Err(error) => return Some(Err(error)),
                }
                if sealed.queued() > 0 {
                    break;
                }
                if let Some(sealed) = tls.sealed.take() {
                    sealed.recycle(pool);
                }
                if total >= SEALED {
                    // The socket has room, so the poll set brings it up in the next turn.
                    break;
                }
            }
            let Some(output) = self.output.as_mut().filter(|output| output.queued() > 0) else {
                break;
            };
            let State::Session(session) = &mut tls.state else {
                break;
            };
            if !tls.established {
                break;
            }
            output.take(BATCH, pool, |plain| session.seal(plain));
            tls.drain(pool);
        }
        Some(Ok(total))
    }

    /// Bytes that are to be written before the connection may be shut, or could be written now.
    pub(super) fn unwritten(&self) -> usize {
        match &self.tls {
            Some(tls) if !tls.seals() => tls.sealed(),
            _ => self.queued(),
        }
    }

    /// Tells the client of a TLS connection that nothing follows. `false`: it has been told, or
    /// cannot be.
    pub(super) fn say_end(&mut self, pool: &mut Pool) -> bool {
        let Some(tls) = &mut self.tls else {
            return false;
        };
        let State::Session(session) = &mut tls.state else {
            return false;
        };
        session.close();
        tls.drain(pool);
        tls.state = State::Done;
        true
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }
}

impl Reactor {
    /// What a connection of this listener begins with; `None`: without TLS.
    pub(super) fn new_tls(&self, listener: usize) -> Option<Box<Tls>> {
        let listener = self.tls_listeners[listener].as_ref()?;
        Some(Box::new(Tls::new(self.clock.now, listener)))
    }

    /// Reads once from a TLS connection and takes what is there.
    pub(super) fn readable_encrypted(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let (Some(socket), Some(tls)) = (&conn.socket, &conn.tls) else {
            return;
        };
        if tls.ended && conn.is_open() {
            // All that came before is handed over.
            return self.end_of_input(slot);
        }
        let mut wire = std::mem::take(&mut self.wire);
        if wire.is_empty() {
            wire.resize(READ, 0);
        }
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *wire, RecvFlags::empty()));
        match received {
            Ok((0, _)) => self.end_of_wire(slot),
            Ok((len, _)) => {
                self.count_received(slot, len);
                self.take_encrypted(slot, &wire[..len]);
                if len == wire.len() {
                    self.ask_again(slot);
                }
                self.read_on_if_hung_up(slot);
            }
            Err(Errno::AGAIN) => {}
            Err(_) => self.leave(slot, Closed::of(CloseReason::Reset)),
        }
        self.wire = wire;
    }

    /// Takes bytes of the wire, wherever they were read.
    pub(super) fn take_encrypted(&mut self, slot: usize, wire: &[u8]) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if !conn.is_open() {
            // Nothing is taken from a connection that is being closed.
            return;
        }
        let Some(tls) = &mut conn.tls else { return };
        match &mut tls.state {
            State::Fresh => self.first_bytes(slot, wire),
            State::Hello(_) => self.gather(slot, wire),
            State::Waiting { hello, .. } => hello.push(wire),
            State::Session(_) => self.feed(slot, wire),
            State::Done => {}
        }
    }

    /// A deadline of a connection that is not established.
    pub(super) fn handshake_due(&mut self, slot: usize) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(tls) = &mut conn.tls else { return };
        if now >= tls.deadline {
            self.count(ReactorCounter::TlsTimeouts);
            return self.leave(slot, Closed::of(CloseReason::Timeout));
        }
        if matches!(tls.state, State::Waiting { .. })
            && let State::Waiting { hello, place, .. } =
                std::mem::replace(&mut tls.state, State::Done)
        {
            place.use_up();
            self.begin_session(slot, hello);
            if let Some(conn) = self.conns.get(slot)
                && conn.is_open()
                && conn.stall == Stall::No
            {
                let writing = conn.writing;
                self.interest(slot, true, writing);
            }
        }
        self.watch(slot);
    }

    /// A client that speaks TLS to a listener that does not.
    pub(super) fn tls_on_plain(&mut self, slot: usize, first: Option<&u8>) {
        if first == Some(&HANDSHAKE) {
            let what = "speaks TLS to a listener without it: https://, wss:// or tls:// in \
                        place of http://, ws:// or tcp://?";
            self.log_failure(slot, &what);
        }
    }

    /// Bytes of the wire for the session.
    fn feed(&mut self, slot: usize, wire: &[u8]) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(tls) = &mut conn.tls else { return };
        let State::Session(session) = &mut tls.state else {
            return;
        };
        // What was kept of the input comes first.
        let kept = conn.input.len();
        let need = kept + wire.len() + Session::ROOM;
        if self.buffer.len() < need {
            self.buffer.resize(need, 0);
        }
        let received = session.receive(wire, &mut self.buffer[kept..]);
        let finished = !tls.established && !session.is_handshaking();
        tls.drain(&mut self.pool);
        if tls.sealed() > 0 {
            self.mark_dirty(slot);
        }
        let Received { plain, closed } = match received {
            Ok(received) => received,
            Err(error) => return self.tls_fails(slot, &error),
        };
        if finished {
            self.established(slot);
        }
        if plain > 0 {
            self.take_decrypted(slot, plain);
        }
        if closed {
            self.client_ends(slot);
        }
    }

    /// The first `plain` bytes of the buffer behind the connection's input are its.
    fn take_decrypted(&mut self, slot: usize, plain: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let kept = conn.input.len();
        if conn.stall != Stall::No {
            return conn
                .input
                .extend_from_slice(&self.buffer[kept..kept + plain]);
        }
        self.buffer[..kept].copy_from_slice(&conn.input);
        conn.input.clear();
        self.take_in(slot, kept + plain);
    }

    /// The handshake is done: from now on the connection is one like others.
    fn established(&mut self, slot: usize) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let (id, is_tcp) = (conn.id, conn.is_tcp());
        let Some(tls) = &mut conn.tls else { return };
        let State::Session(session) = &tls.state else {
            return;
        };
        tls.established = true;
        conn.last_seen = now;
        let info = session.info();
        tracing::debug!(
            conn = %id,
            version = info.version.name(),
            cipher = info.cipher,
            alpn = info.alpn,
            resumed = info.resumed,
            "TLS is established"
        );
        self.count(ReactorCounter::TlsHandshakes);
        if info.resumed {
            self.count(ReactorCounter::TlsResumed);
        }
        if let Some(row) = self.table.row_of(id) {
            self.table.set_tls(row, &info);
        }
        if info.alpn.as_deref() == Some("h2") {
            self.speak_http2(slot);
        }
        self.watch(slot);
        // Something may have been published to it.
        self.mark_dirty(slot);
        if is_tcp {
            self.offer_or_hold(slot, EventKind::Connect, 0, 0, &[]);
        }
    }

    /// The client's `close_notify`.
    fn client_ends(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(tls) = &mut conn.tls else { return };
        tls.ended = true;
        if !conn.is_open() {
            return;
        }
        if conn.is_handshaking() {
            return self.leave(slot, Closed::of(CloseReason::TlsFailed));
        }
        if conn.stall == Stall::No {
            self.end_of_input(slot);
        } else {
            // What came before it goes first: whoever resumes the connection finds the end.
            conn.eof = true;
        }
    }

    /// The client's end of file.
    fn end_of_wire(&mut self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let Some(tls) = &conn.tls else { return };
        if conn.is_open() && conn.is_handshaking() {
            let reason = match tls.state {
                // Somebody has looked whether the port is open.
                State::Fresh => CloseReason::Client,
                _ => {
                    self.count(ReactorCounter::TlsFailed);
                    CloseReason::TlsFailed
                }
            };
            return self.leave(slot, Closed::of(reason));
        }
        if conn.is_open() && !tls.ended {
            // HTTP says where a request ends, WebSocket has close frames.
            let bare = conn.is_tcp();
            self.count(ReactorCounter::TlsTruncated);
            if bare {
                return self.leave(slot, Closed::of(CloseReason::Reset));
            }
        }
        self.end_of_input(slot);
    }

    /// The handshake or a record is not what it should be. The alert that says so is sealed.
    fn tls_fails(&mut self, slot: usize, error: &rustls::Error) {
        self.count(ReactorCounter::TlsFailed);
        self.log_failure(slot, &format_args!("TLS failed: {error}"));
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if let Some(tls) = &mut conn.tls {
            tls.drain(&mut self.pool);
            tls.state = State::Done;
        }
        if conn.is_streaming() && conn.rare().held.is_none() {
            self.offer_or_hold(slot, EventKind::RequestBody, BODY_ABORT, 0, &[]);
        }
        self.begin_close(slot, Closed::of(CloseReason::TlsFailed), "");
        self.mark_dirty(slot);
    }

    /// Something else than TLS: if it may be HTTP, its client is told.
    fn not_tls(&mut self, slot: usize, wire: &[u8]) {
        self.count(ReactorCounter::TlsFailed);
        let date = *self.clock.date();
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(tls) = &mut conn.tls else { return };
        tls.state = State::Done;
        if wire.first().is_some_and(u8::is_ascii_uppercase) {
            let error = http1::RequestError::new(
                400,
                "this port speaks TLS: use https:// in place of http://, wss:// in place of ws://",
            );
            let sealed = self.pool.queue(&mut tls.sealed);
            sealed.append(&mut self.pool, |out| {
                http1::encode_error(out, &error, Some(&date));
            });
        }
        self.log_failure(slot, &"does not speak TLS");
        self.begin_close(slot, Closed::of(CloseReason::TlsFailed), "");
        self.mark_dirty(slot);
    }

    /// One line a second at most, with the number of those that are not there.
    fn log_failure(&mut self, slot: usize, what: &dyn std::fmt::Display) {
        let now = self.clock.now;
        let log = &mut self.failure_log;
        if log.last != 0 && now < log.last + LOG_PAUSE {
            log.unsaid += 1;
            return;
        }
        log.last = now;
        let unsaid = std::mem::take(&mut log.unsaid);
        if let Some(conn) = self.conns.get(slot) {
            let others = match unsaid {
                0 => String::new(),
                many => format!(" ({many} others since the last line like this)"),
            };
            tracing::info!(
                listener = conn.listener,
                "{}: {what}{others}",
                self.table.peer(conn.id)
            );
        }
    }
}

/// The first byte of a TLS connection: the type of a handshake record.
const HANDSHAKE: u8 = 0x16;
/// Bytes encrypted at a time: more is sealed when these have left.
const BATCH: usize = 64 << 10;
/// Bytes that are encrypted for one connection in one turn, and a batch more: some 0.5 ms of work.
const SEALED: usize = 1 << 20;
/// Bytes read from a socket at a time, and so decrypted in one turn.
const READ: usize = 64 << 10;
/// From line to line about failures, in ms.
const LOG_PAUSE: u64 = 1_000;
