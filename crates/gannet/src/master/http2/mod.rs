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
//! Invariants:
//! - A stream that is not gone is in `streams` of its parent, at `index`; its parent is open, or is
//!   being closed and has none left.
//! - A parent leaves after all of its streams.
//! - The library is called from [`Reactor::drive`] and for one stream at a time, never from within
//!   itself; whoever it wakes is looked at by [`Reactor::serve_woken`], which runs before the reactor
//!   shows its events, after it has taken commands, and before it writes to sockets.
//! - What the library has not read of a parent's input (it reads nothing while it cannot write) stays
//!   in `input`, and the parent is stalled (`Own`) until its output has been written.
//! - `streams` of the reactor is the number of streams in the slab, those gone included.

mod pipe;
mod session;
mod stream;
mod woken;

use gannet_proto::{
    http1::Limits,
    http2::{self, Fault, PREFACE, Pseudo},
};
use h2::Reason;

use self::session::{Accepted, Polled, ROOM};
use self::stream::Received;
pub(super) use self::{session::Session, stream::Stream, woken::Woken};
use super::{
    conn::{Closed, Conn, Phase, Speaks, Stall},
    exchange::{Http, State},
    reactor::Reactor,
};
use crate::{
    close::CloseReason,
    conn_table::{Cell, Row},
    id::WorkerId,
    layout::ReactorCounter,
    settings::Listener,
    wire::event::{BODY_ABORT, EventKind},
};

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
        let fresh = session.scanned.min(len)..len;
        if let Err(why) = session.look(&self.buffer[fresh], now, listener) {
            return self.flooded(slot, why);
        }
        self.drive(slot, len);
    }

    /// Looks at all that the library has woken.
    pub(super) fn serve_woken(&mut self) {
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

    /// Something may have changed about a stream: it has bytes, room, or was reset.
    pub(super) fn stream_ready(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(stream) = &mut conn.stream else {
            return;
        };
        if !stream.is_live() {
            return;
        }
        if stream.is_reset() {
            return self.leave(slot, Closed::of(CloseReason::Reset));
        }
        match (&conn.phase, &conn.speaks) {
            (Phase::Open, Speaks::Http(_)) if stream.is_ending() => {}
            (Phase::Open, Speaks::Http(_)) => self.take_body(slot),
            (Phase::Open, _) => self.take_frames(slot),
            _ => self.drop_input(slot),
        }
        if let Some(conn) = self.conns.get(slot)
            && (conn.queued() > 0 || conn.stream.as_ref().is_some_and(|it| it.is_ending()))
        {
            self.mark_dirty(slot);
        }
    }

    /// The answer of a stream is complete but for what is queued.
    pub(super) fn end_stream(&mut self, slot: usize, trailers: &[u8], reason: CloseReason) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(stream) = &mut conn.stream else {
            return;
        };
        stream.end(trailers, reason);
        conn.last_seen = now;
        if let Speaks::Http(http) = &mut conn.speaks {
            http.exchange.ends();
        }
        self.mark_dirty(slot);
    }

    /// A stream is gone: its parent forgets it.
    pub(super) fn forget_stream(&mut self, slot: usize, closed: Closed) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(stream) = &mut conn.stream else {
            return;
        };
        let processed = match &conn.speaks {
            Speaks::Http(http) => http.exchange.is_busy(),
            _ => true,
        };
        stream.leave(reset_reason(closed.reason, processed));
        let (parent_id, index) = (stream.parent, stream.index);
        let Some(at) = self.conns.find(parent_id) else {
            return;
        };
        let Some(session) = self.session(at) else {
            return;
        };
        if session.streams.get(index).is_none() {
            return;
        }
        session.streams.swap_remove(index);
        if session.streams.is_empty() {
            session.idle_since = now;
        }
        let moved = session.streams.get(index).copied();
        let is_last = session.streams.is_empty();
        if let Some(moved) = moved.and_then(|id| self.conns.find(id))
            && let Some(conn) = self.conns.get_mut(moved)
            && let Some(stream) = &mut conn.stream
        {
            stream.index = index;
        }
        if is_last {
            self.watch(at);
            self.settle(at);
        }
    }

    /// Ends all streams of a connection that ends.
    pub(super) fn leave_streams(&mut self, slot: usize, closed: Closed) {
        while let Some(session) = self.session(slot)
            && let Some(id) = session.streams.last().copied()
        {
            match self.conns.find(id) {
                Some(stream) => self.leave(stream, closed),
                None => self.session(slot).map_or((), |session| {
                    session.streams.pop();
                }),
            }
        }
    }

    /// Tells a client that its connection ends, and why: for those that are being closed.
    pub(super) fn say_goaway(&mut self, slot: usize, reason: CloseReason) {
        self.leave_streams(slot, Closed::of(reason));
        if let Some(session) = self.session(slot) {
            session.abandon(goaway_reason(reason));
            self.drive(slot, 0);
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
        self.buffer = input;
        session.is_full = is_full;
        session.scanned = len - used;
        if output.is_empty() {
            self.pool.give(output);
        } else {
            conn.output.get_or_insert_default().push(output);
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

    /// A request has come: it is a connection now.
    fn open_stream(&mut self, parent_slot: usize, accepted: Accepted) {
        let (request, mut send) = accepted;
        let now = self.clock.now;
        let table = &self.table;
        let reactor = self.id;
        let Some(of_parent) = self.conns.get(parent_slot) else {
            return;
        };
        let Speaks::Http2(session) = &of_parent.speaks else {
            return;
        };
        let late = session.drains != 0 && now >= session.drains + DRAIN;
        let (parent_id, listener) = (of_parent.id, of_parent.listener);
        let (peer, tls) = (of_parent.peer, of_parent.tls.is_some());
        let most = self.settings.most_streams();
        let id = match late || self.streams >= most {
            true => None,
            false => self.conns.next_id(|slot| table.generation(reactor, slot)),
        };
        let Some(id) = id else {
            // It was not looked at: the client may try again.
            send.send_reset(Reason::REFUSED_STREAM);
            return self.count(ReactorCounter::Http2Refused);
        };
        let slot = id.slot();
        let place = self.first_place(id, usize::from(listener), peer);
        self.places[place].connections += 1;
        self.streams += 1;
        self.count(ReactorCounter::Http2Streams);
        let parent_row = self.table.row_of(parent_id);
        let row = parent_row.and_then(|at| self.table.row(at));
        if let (Some(at), Some(parent_at), Some(row)) = (self.table.row_of(id), parent_row, row) {
            let row = Row {
                id,
                worker: WorkerId(place as u16),
                opened: self.clock.unix,
                websocket: false,
                ..row
            };
            if tls {
                self.table.copy_tls(parent_at, at, id);
            }
            self.table.open(at, &row);
            self.table
                .cell(at, Cell::LastSeen)
                .store(self.clock.unix, std::sync::atomic::Ordering::Relaxed);
        }
        let waker = self.woken.waker(id);
        let (head, receive) = request.into_parts();
        let ends = receive.is_end_stream();
        let mut conn = Conn::new(
            id,
            listener,
            place as u16,
            peer,
            Speaks::Http(Box::new(Http::of_stream())),
            now,
        );
        let Some(session) = self.session(parent_slot) else {
            return;
        };
        let index = session.streams.len();
        session.streams.push(id);
        conn.stream = Some(Box::new(Stream::new(
            parent_id, index, waker, receive, send,
        )));
        self.conns.insert(conn);
        self.begin_request(slot, &head, ends);
        self.stream_ready(slot);
    }

    /// Gives the request of a new stream to the exchange.
    fn begin_request(&mut self, slot: usize, head: &http::request::Parts, ends: bool) {
        self.count(ReactorCounter::Requests);
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let limits = Limits {
            max_head_size: listener.max_head_size,
            max_body_size: listener.max_body_size,
            ..Limits::default()
        };
        let protocol = head.extensions.get::<h2::ext::Protocol>();
        let pseudo = Pseudo {
            method: head.method.as_str(),
            authority: head.uri.authority().map(|it| it.as_str()),
            path: head.uri.path_and_query().map(|it| it.as_str()),
            protocol: protocol.map(|it| it.as_str()),
        };
        let fields = || {
            let fields = head.headers.iter();
            fields.map(|(name, value)| (name.as_str(), value.as_bytes()))
        };
        let mut lines = self.pool.take();
        let request = http2::request_head(pseudo, fields, ends, &limits, &mut lines);
        let Speaks::Http(mut http) = std::mem::replace(&mut conn.speaks, Speaks::Taken) else {
            return;
        };
        let outcome = match request {
            Ok(request) => {
                http.exchange.began = self.clock.now;
                if self.request_begins(slot, &mut http.exchange, &request) && ends {
                    self.request_ends(slot, &mut http.exchange, &[]);
                }
                Ok(())
            }
            Err(fault) => Err(fault),
        };
        if let Some(conn) = self.conns.get(slot)
            && conn
                .stream
                .as_ref()
                .is_some_and(|stream| stream.is_ending())
        {
            http.exchange.ends();
        }
        self.put_back(slot, Speaks::Http(http));
        self.pool.give(lines);
        match outcome {
            Ok(()) => {}
            Err(Fault::Refused(error)) => self.refuse_request(slot, &error),
            Err(Fault::Malformed(why)) => self.malformed(slot, why),
        }
    }

    /// A request that breaks the protocol: its stream is reset, and who does so too often is closed.
    fn malformed(&mut self, slot: usize, why: &str) {
        let now = self.clock.now;
        tracing::debug!("a stream of HTTP/2 is reset: {why}");
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let of_parent = conn.stream.as_ref().map(|stream| stream.parent);
        let listener = usize::from(conn.listener);
        self.count(ReactorCounter::Http2Malformed);
        self.leave(slot, Closed::of(CloseReason::Protocol));
        let Some(at) = of_parent.and_then(|id| self.conns.find(id)) else {
            return;
        };
        let settings = self.settings.clone();
        if let Some(session) = self.session(at)
            && !session.admits_fault(now, &settings.listeners[listener])
        {
            self.flooded(at, "too many streams had to be reset in a second");
        }
    }

    fn flooded(&mut self, slot: usize, why: &str) {
        if let Some(conn) = self.conns.get(slot) {
            tracing::debug!(conn = %conn.id, "closing: {why}");
        }
        self.begin_close(slot, Closed::of(CloseReason::Flood), "");
    }

    /// Takes what has come of a request's body, as far as it can be handed over.
    fn take_body(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Speaks::Http(mut http) = std::mem::replace(&mut conn.speaks, Speaks::Taken) else {
            return;
        };
        let outcome = self.take_pieces(slot, &mut http);
        self.put_back(slot, Speaks::Http(http));
        match outcome {
            Outcome::Fine => {}
            Outcome::TooLarge(error) => {
                self.abort_body(slot);
                self.refuse_request(slot, &error);
            }
            Outcome::Broken(reason) => {
                self.abort_body(slot);
                match reason {
                    Some(_) => self.malformed(slot, "trailers that are none"),
                    None => self.leave(slot, Closed::of(CloseReason::Reset)),
                }
            }
        }
    }

    fn take_pieces(&mut self, slot: usize, http: &mut Http) -> Outcome {
        let exchange = &mut http.exchange;
        loop {
            let Some(conn) = self.conns.get(slot) else {
                return Outcome::Fine;
            };
            if conn.stall != Stall::No
                || !conn.is_open()
                || !matches!(exchange.state, State::Collecting | State::Streaming)
            {
                return Outcome::Fine;
            }
            let most = self.settings.listeners[usize::from(conn.listener)].max_body_size;
            if exchange.state == State::Streaming && !self.body_has_room(slot, self.piece) {
                return Outcome::Fine;
            }
            let piece = self.piece;
            let received = match self
                .conns
                .get_mut(slot)
                .and_then(|conn| conn.stream.as_mut())
            {
                Some(stream) => stream.receive(piece),
                None => return Outcome::Fine,
            };
            match received {
                Received::Nothing => {
                    if exchange.state == State::Collecting && exchange.length == u64::MAX {
                        // Nobody knows when the rest comes: its client may wait for an answer.
                        self.stream_request(slot, exchange);
                    }
                    self.watch(slot);
                    return Outcome::Fine;
                }
                Received::Data(data) => {
                    exchange.expects_continue = false;
                    if self.body_so_far(slot) > most {
                        return Outcome::TooLarge(gannet_proto::http1::RequestError::new(
                            413,
                            format!("the body is larger than {most} bytes: send less"),
                        ));
                    }
                    self.stream_received(slot, data.len());
                    self.request_body(slot, exchange, &data);
                }
                Received::End(trailers) => {
                    self.request_ends(slot, exchange, &trailers);
                }
                Received::Broken(reason) => return Outcome::Broken(reason),
            }
        }
    }

    /// Tells the worker that a body which it gets as it comes will not end.
    fn abort_body(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get(slot)
            && conn.is_streaming()
            && conn.held.is_none()
        {
            self.offer_or_hold(slot, EventKind::RequestBody, BODY_ABORT, 0, &[]);
        }
    }

    /// Takes WebSocket frames, as far as their messages can be handed over.
    fn take_frames(&mut self, slot: usize) {
        loop {
            let Some(conn) = self.conns.get_mut(slot) else {
                return;
            };
            if conn.stall != Stall::No || !conn.is_open() || conn.eof {
                return;
            }
            let Some(stream) = &mut conn.stream else {
                return;
            };
            match stream.receive(usize::MAX) {
                Received::Nothing => return,
                Received::Data(data) => {
                    let kept = conn.input.len();
                    let len = kept + data.len();
                    if self.buffer.len() < len {
                        self.buffer.resize(len, 0);
                    }
                    self.buffer[..kept].copy_from_slice(&conn.input);
                    self.buffer[kept..len].copy_from_slice(&data);
                    conn.input.clear();
                    self.stream_received(slot, data.len());
                    self.take_in(slot, len);
                }
                Received::End(_) => return self.end_of_input(slot),
                Received::Broken(_) => return self.leave(slot, Closed::of(CloseReason::Reset)),
            }
        }
    }

    /// Drops what comes on a stream that is being closed.
    fn drop_input(&mut self, slot: usize) {
        loop {
            let Some(stream) = self
                .conns
                .get_mut(slot)
                .and_then(|conn| conn.stream.as_mut())
            else {
                return;
            };
            match stream.receive(usize::MAX) {
                Received::Nothing => return,
                Received::Data(_) => {}
                Received::End(_) => return self.end_of_input(slot),
                Received::Broken(_) => return self.leave(slot, Closed::of(CloseReason::Reset)),
            }
        }
    }

    /// Something has come on a stream. The bytes of its connection are counted there.
    fn stream_received(&mut self, slot: usize, len: usize) {
        use std::sync::atomic::Ordering::Relaxed;

        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        conn.last_seen = self.clock.now;
        conn.pinged = false;
        if let Some(row) = self.table.row_of(conn.id) {
            let seen = self.table.cell(row, Cell::LastSeen);
            seen.store(self.clock.unix, Relaxed);
            let bytes = self.table.cell(row, Cell::BytesIn);
            bytes.store(bytes.load(Relaxed) + len as u64, Relaxed);
        }
    }
}

impl Reactor {
    fn body_so_far(&self, slot: usize) -> u64 {
        let stream = self.conns.get(slot).and_then(|conn| conn.stream.as_ref());
        stream.map_or(0, |stream| stream.received)
    }
}

enum Outcome {
    Fine,
    TooLarge(gannet_proto::http1::RequestError),
    Broken(Option<Reason>),
}

/// What a client is told about a stream that ends before its answer is complete.
fn reset_reason(reason: CloseReason, processed: bool) -> Reason {
    match reason {
        CloseReason::Protocol => Reason::PROTOCOL_ERROR,
        CloseReason::HandlerFailed | CloseReason::WorkerDied => Reason::INTERNAL_ERROR,
        CloseReason::Flood => Reason::ENHANCE_YOUR_CALM,
        CloseReason::Stopping if !processed => Reason::REFUSED_STREAM,
        _ => Reason::CANCEL,
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
