//! What sockets bring: reading, and taking complete things out of what was read.
//!
//! All sockets are read into one buffer. What is not understood yet, or cannot be handed over
//! now, stays with the connection and comes first next time. Nothing more is read from a
//! connection that is stalled: its client's TCP window closes, and so the client waits.

use rustix::{
    event::epoll::{self, EventFlags},
    io::Errno,
    net::RecvFlags,
};

use super::{
    conn::{Closed, Conn, Phase, Speaks, Stall},
    interest::BEHIND,
    reactor::Reactor,
};
use crate::{
    close::CloseReason,
    conn_table::Cell,
    id::ConnId,
    layout::ReactorCounter,
    wire::event::{BODY_ABORT, EventKind},
};

impl Reactor {
    /// The poll set has something about a connection.
    pub(super) fn socket_ready(&mut self, id: ConnId, flags: EventFlags) {
        let Some((slot, conn)) = self.conns.find_mut(id) else {
            return;
        };
        if flags == EventFlags::IN && conn.stall == Stall::No && !conn.eof {
            // It has sent something, and that is all.
            return self.readable(slot);
        }
        if flags.contains(EventFlags::OUT) {
            self.flush(slot);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let Some(conn) = self.conns.get_mut(slot) else {
                return;
            };
            let is_over = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            let listens = conn.stall == Stall::No && !conn.eof;
            if listens || matches!(conn.phase, Phase::Closing(_) | Phase::Lingering(_)) {
                self.readable(slot);
                if flags.intersects(BEHIND) {
                    self.ask_again(slot);
                }
            } else if is_over {
                self.hang_up(slot);
            } else {
                self.interest(slot, false, conn_writing(self, slot));
            }
        }
    }

    /// Reads once and takes what is there.
    pub(super) fn readable(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.tls.is_some() {
            return self.readable_encrypted(slot);
        }
        let Some(socket) = &conn.socket else { return };
        let kept = conn.input.len();
        if self.buffer.len() < kept + MIN_READ {
            self.buffer.resize(kept + MIN_READ, 0);
        }
        // Of what stands behind a PROXY header, little is read before it is known where it goes.
        let end = match conn.awaits_header() {
            true => kept + MIN_READ,
            false => self.buffer.len(),
        };
        let room = &mut self.buffer[kept..end];
        let most = room.len();
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *room, RecvFlags::empty()));
        match received {
            Ok((0, _)) => self.end_of_input(slot),
            Ok((len, _)) => {
                if kept > 0 {
                    self.buffer[..kept].copy_from_slice(&conn.input);
                    conn.input.clear();
                }
                conn.last_seen = self.clock.now;
                conn.pinged = false;
                let (is_bare, hup) = (conn.is_bare_tcp(), conn.hup);
                let row = self.row(slot);
                self.table.note_received(row, self.clock.unix, len);
                self.add(ReactorCounter::BytesIn, len);
                match is_bare {
                    true => self.take_tcp(slot, kept + len),
                    false => self.take_in(slot, kept + len),
                }
                if len == most {
                    self.ask_again(slot);
                }
                if hup {
                    self.read_on_if_hung_up(slot);
                }
            }
            Err(Errno::AGAIN) => {}
            Err(_) => self.leave(slot, Closed::of(CloseReason::Reset)),
        }
    }

    /// Something has come from the client.
    pub(super) fn count_received(&mut self, slot: usize, len: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        conn.last_seen = self.clock.now;
        conn.pinged = false;
        let row = self.row(slot);
        self.table.note_received(row, self.clock.unix, len);
        self.add(ReactorCounter::BytesIn, len);
    }

    /// Reads again from a connection that is out of the poll set: nobody else says that there is
    /// more, or the end.
    pub(super) fn read_on_if_hung_up(&mut self, slot: usize) {
        let more = |conn: &&Conn| conn.hup && conn.stall == Stall::No;
        if self.conns.get(slot).filter(more).is_some() {
            self.wake(slot);
        }
    }

    /// Goes on with a connection whose stall may be over.
    pub(super) fn resume_slot(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if std::mem::replace(&mut conn.stall, Stall::No) != Stall::No {
            // Its silence counts from here: nothing was read before.
            conn.last_seen = self.clock.now;
            conn.forgive_slowness(self.clock.now);
        }
        if let Some(held) = conn.take_held() {
            let offered = self.offer(slot, held.kind, held.flags, held.aux, &[&held.payload]);
            if let Some(conn) = self.conns.get_mut(slot) {
                match offered {
                    true => conn.tidy(),
                    false => conn.rare_mut().held = Some(held),
                }
            }
            if !offered {
                return;
            }
        }
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.is_gone() {
            return self.deliver_close(slot);
        }
        // The end of a body is taken from no byte at all: it may be due with nothing left to read.
        let unread = conn.is_streaming() && conn.stream.is_none() || !conn.input.is_empty();
        if conn.is_open() && unread {
            let len = conn.input.len();
            if self.buffer.len() < len {
                self.buffer.resize(len, 0);
            }
            self.buffer[..len].copy_from_slice(&conn.input);
            conn.input.clear();
            self.take_in(slot, len);
        }
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.stall != Stall::No || !conn.is_open() {
            return;
        }
        if conn.stream.is_some() {
            self.stream_ready(slot);
            return self.settle(slot);
        }
        if conn.eof || conn.hup {
            // All that was kept is handed over; what comes now is the end.
            return self.readable(slot);
        }
        // Once the server stops, nothing new is begun.
        if !conn.reading && (self.stopping.is_none() || conn.reads_on()) {
            let writing = conn.writing;
            self.interest(slot, true, writing);
        }
        self.settle(slot);
    }

    /// Takes what it can from the first `len` bytes of the buffer; the rest stays with the
    /// connection.
    pub(super) fn take_in(&mut self, slot: usize, len: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.is_bare_tcp() {
            return self.take_tcp(slot, len);
        }
        if !conn.is_open() {
            // Nothing is taken from a connection that is being closed.
            return;
        }
        let from = match conn.speaks {
            Speaks::WebSocket(_) => self.take_messages(slot, len),
            _ => 0,
        };
        // Else there may be something to be done though nothing has come: the end of a body.
        if from == 0 || from < len {
            self.take_rest(slot, from, len);
        }
    }

    /// As [`Reactor::take_in`]: what stands before `from` was taken.
    #[inline(never)]
    fn take_rest(&mut self, slot: usize, from: usize, len: usize) {
        let Some(len) = self.take_header(slot, len) else {
            return;
        };
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if matches!(conn.speaks, Speaks::Http2(_)) {
            return self.take_http2(slot, len);
        }
        if matches!(conn.speaks, Speaks::Http(_))
            && self.settings.listeners[usize::from(conn.listener)].http2
        {
            let buffer = std::mem::take(&mut self.buffer);
            let begins = self.begins_http2(slot, &buffer[..len]);
            self.buffer = buffer;
            match begins {
                Some(false) => {}
                Some(true) => {
                    self.speak_http2(slot);
                    return self.take_http2(slot, len);
                }
                None => {
                    // The first bytes of the preface: what else they begin shows later.
                    if let Some(conn) = self.conns.get_mut(slot) {
                        conn.input.extend_from_slice(&self.buffer[..len]);
                    }
                    return self.watch(slot);
                }
            }
        }
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let used = match std::mem::replace(&mut conn.speaks, Speaks::Taken) {
            Speaks::Tcp => {
                conn.speaks = Speaks::Tcp;
                self.buffer = buffer;
                return self.take_tcp(slot, len);
            }
            Speaks::Framed(mut framed) => {
                let used = self.take_framed(slot, &mut framed, &mut buffer[..len]);
                self.put_back(slot, Speaks::Framed(framed));
                self.watch(slot);
                used
            }
            Speaks::Http(mut http) => {
                let used = self.take_http(slot, &mut http, &mut buffer[..len]);
                self.put_back(slot, Speaks::Http(http));
                used
            }
            Speaks::WebSocket(mut websocket) => {
                let input = &mut buffer[from..len];
                let used = from + self.take_websocket(slot, &mut websocket, input);
                let goes_on = websocket.progress.is_some();
                self.put_back(slot, Speaks::WebSocket(websocket));
                self.watch_read(slot, goes_on);
                used
            }
            // Taken above.
            Speaks::Http2(_) | Speaks::Taken => 0,
        };
        self.keep_rest(slot, &buffer[used..len]);
        self.buffer = buffer;
    }

    /// What was not taken comes first next time.
    fn keep_rest(&mut self, slot: usize, rest: &[u8]) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        match conn.is_open() && !rest.is_empty() {
            true => conn.input.extend_from_slice(rest),
            false => conn.input.release(),
        }
    }

    pub(super) fn put_back(&mut self, slot: usize, speaks: Speaks) {
        if let Some(conn) = self.conns.get_mut(slot)
            && matches!(conn.speaks, Speaks::Taken)
        {
            conn.speaks = speaks;
        }
    }

    /// As [`Reactor::take_in`], without a protocol.
    fn take_tcp(&mut self, slot: usize, len: usize) {
        if (1..=self.piece).contains(&len) && self.offer_received(slot, len) {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rest.len().min(self.piece));
            if !self.offer(slot, EventKind::Receive, 0, 0, &[piece]) {
                break;
            }
            self.message_in(slot);
            rest = others;
        }
        self.keep_rest(slot, rest);
        self.buffer = buffer;
    }

    /// A message has come from the connection in this slot, which is open.
    #[inline]
    pub(super) fn message_in(&mut self, slot: usize) {
        self.table.add(self.row(slot), Cell::MessagesIn, 1);
    }

    /// The client sends no more.
    pub(super) fn end_of_input(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        conn.eof = true;
        match conn.phase {
            Phase::Open => {}
            Phase::Lingering(closed) => return self.leave(slot, closed),
            Phase::Closing(_) => {
                let writing = conn.writing;
                return self.interest(slot, false, writing);
            }
            Phase::Gone(_) => return,
        }
        if conn.awaits_header() {
            // Without a byte it was only to see whether somebody listens.
            return match conn.input.is_empty() {
                true => self.leave(slot, Closed::of(CloseReason::Client)),
                false => {
                    let why = "the connection ended within its PROXY header";
                    self.fail_header(slot, CloseReason::Reset, why);
                }
            };
        }
        let writing = conn.writing;
        match &conn.speaks {
            // Behind a close frame the end is in order, and answers may still be on their way.
            Speaks::WebSocket(_) if conn.rare().ending.is_none() => {
                self.leave(slot, Closed::of(CloseReason::Reset));
            }
            Speaks::Http2(session) => {
                // Its windows cannot be opened any more.
                let reason = match session.streams.is_empty() {
                    true => CloseReason::Client,
                    false => CloseReason::Reset,
                };
                self.leave(slot, Closed::of(reason));
            }
            Speaks::Http(http) if http.exchange.is_receiving() => {
                if http.exchange.is_streaming() {
                    self.offer_or_hold(slot, EventKind::RequestBody, BODY_ABORT, 0, &[]);
                }
                self.leave(slot, Closed::of(CloseReason::Reset));
            }
            _ => {
                // Answers may still be on their way: half-closed is a good state.
                self.interest(slot, false, writing);
                self.settle(slot);
            }
        }
    }

    /// Both directions are shut. What was received before is still handed over.
    fn hang_up(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if let Some(socket) = &conn.socket
            && !conn.hup
        {
            // Without interest the poll set would still report it, again and again.
            let _ = epoll::delete(&self.epoll, socket);
        }
        conn.hup = true;
        if conn.input.is_empty() && conn.rare().held.is_none() && conn.in_flight == 0 {
            self.leave(slot, Closed::of(CloseReason::Reset));
        } else if match &conn.speaks {
            Speaks::Http(http) => http.exchange.is_busy(),
            Speaks::Http2(_) => true,
            _ => false,
        } {
            // Nobody reads the answer any more.
            self.leave(slot, Closed::of(CloseReason::Reset));
        }
    }
}

impl Conn {
    /// Whatever comes is for its handler, as it is.
    #[inline]
    fn is_bare_tcp(&self) -> bool {
        matches!(self.speaks, Speaks::Tcp) && self.is_open() && !self.awaits_header()
    }
}

fn conn_writing(reactor: &Reactor, slot: usize) -> bool {
    reactor.conns.get(slot).is_some_and(|conn| conn.writing)
}

/// A read has at least this much room.
const MIN_READ: usize = 16 << 10;
