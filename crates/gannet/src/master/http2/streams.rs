//! Streams as connections: how they begin, what is taken from them, how they end.

use std::sync::atomic::Ordering::Relaxed;

use gannet_proto::{
    http1::{Limits, RequestError},
    http2::{self, Fault, Pseudo},
};
use h2::Reason;

use super::{
    DRAIN,
    session::Accepted,
    stream::{Received, Stream},
};
use crate::{
    close::CloseReason,
    conn_table::{Cell, Row},
    id::WorkerId,
    layout::ReactorCounter,
    master::{
        conn::{Closed, Conn, Phase, Speaks, Stall},
        exchange::{Http, State},
        reactor::Reactor,
    },
    settings::Dispatch,
    wire::event::{BODY_ABORT, EventKind},
};

impl Reactor {
    /// A request has come: it is a connection now.
    pub(super) fn open_stream(&mut self, parent_slot: usize, accepted: Accepted) {
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
        let tls = of_parent.tls.is_some();
        let last_place = usize::from(of_parent.place);
        let most = self.settings.most_streams();
        let is_refused = late || !of_parent.is_open() || self.streams >= most;
        let id = match is_refused {
            true => None,
            false => self.conns.next_id(|slot| table.generation(reactor, slot)),
        };
        let Some(id) = id else {
            // It was not looked at: the client may try again.
            send.send_reset(Reason::REFUSED_STREAM);
            return self.count(ReactorCounter::Http2Refused);
        };
        let slot = id.slot();
        let place = match self.settings.dispatch {
            // Its first event goes on to the next.
            Dispatch::RoundRobin => last_place,
            _ => self.first_place(id, usize::from(listener), self.table.peer(parent_id)),
        };
        self.places[place].connections += 1;
        if let Some(of_parent) = self.conns.get_mut(parent_slot) {
            of_parent.place = ((last_place + 1) % self.settings.workers) as u16;
        }
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
                closed: false,
                ..row
            };
            if tls {
                self.table.copy_tls(parent_at, at, id);
            }
            self.table.open(at, &row);
            self.table
                .cell(at, Cell::LastSeen)
                .store(self.clock.unix, Relaxed);
        }
        let waker = self.woken.waker(id);
        let (head, receive) = request.into_parts();
        let ends = receive.is_end_stream();
        let mut conn = Conn::new(
            id,
            listener,
            place as u16,
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

    /// Something may have changed about a stream: it has bytes, room, or was reset.
    pub(in crate::master) fn stream_ready(&mut self, slot: usize) {
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
    pub(in crate::master) fn end_stream(
        &mut self,
        slot: usize,
        trailers: &[u8],
        reason: CloseReason,
    ) {
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
    pub(in crate::master) fn forget_stream(&mut self, slot: usize, closed: Closed) {
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
        let (id, parent_id, index) = (conn.id, stream.parent, stream.index);
        let Some(at) = self.conns.find(parent_id) else {
            return;
        };
        let Some(session) = self.session(at) else {
            return;
        };
        if session.streams.get(index) != Some(&id) {
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

    /// Takes what has come of a request's body, as far as it can be handed over.
    fn take_body(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Speaks::Http(mut http) = std::mem::replace(&mut conn.speaks, Speaks::Taken) else {
            return;
        };
        let outcome = self.take_pieces(slot, &mut http);
        let is_receiving = http.exchange.is_receiving();
        self.put_back(slot, Speaks::Http(http));
        if is_receiving {
            self.watch(slot);
        }
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
                    return Outcome::Fine;
                }
                Received::Data(data) => {
                    exchange.expects_continue = false;
                    if self.body_so_far(slot) > most {
                        return Outcome::TooLarge(RequestError::new(
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
            && conn.rare().held.is_none()
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

    fn body_so_far(&self, slot: usize) -> u64 {
        let stream = self.conns.get(slot).and_then(|conn| conn.stream.as_ref());
        stream.map_or(0, |stream| stream.received)
    }
}

enum Outcome {
    Fine,
    TooLarge(RequestError),
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
