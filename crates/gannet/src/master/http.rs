//! HTTP/1.1 connections in the reactor: requests in, responses out.
//!
//! The exchange is that of one request. Those that are pipelined behind it wait in the input, but for
//! such as change nothing: `pipeline` hands them over at once. All wait there while more than
//! `max_queued` bytes of answers wait for the client. States of the exchange:
//!
//! **idle** → **collecting** (a request arrives; a small body is kept, so that the worker gets
//! whole requests and a slow client occupies nobody) → **answering** (the request is with the
//! worker) → idle. A body that is large, or whose client waits for `100 Continue`, is passed on as
//! it arrives: collecting → **streaming** → answering. A WebSocket handshake: collecting →
//! **upgrading** → frames, or a response.
//!
//! The response may be complete before the request is; then the connection is closed after it.

use std::net::SocketAddr;

use gannet_proto::{
    http1::{self, Asked, BodyLength, Event, Framing, RequestError, ResponseHead, Version},
    websocket::handshake,
};

use super::{
    conn::{Closed, Phase, Speaks, Stall},
    exchange::{Exchange, Http, Method, Response, Source, State, Upgrade},
    pace::Progress,
    reactor::Reactor,
    sending::mark,
};
use crate::{
    close::CloseReason,
    layout::ReactorCounter,
    settings::Protocol,
    wire::{
        command::{COMPLETE, CommandHeader},
        event::{BODY_ABORT, BODY_COMPLETE, BODY_END, BODY_TRAILERS, EXPECT_CONTINUE, EventKind},
        head,
    },
};

impl Reactor {
    /// Takes requests from `input`; returns how many bytes are done with.
    pub(super) fn take_http(&mut self, slot: usize, http: &mut Http, input: &mut [u8]) -> usize {
        let Http {
            source: Source::Wire(decoder),
            exchange,
        } = http
        else {
            return input.len();
        };
        let mut used = 0;
        loop {
            let Some(conn) = self.conns.get(slot) else {
                return used;
            };
            if conn.stall != Stall::No || !conn.is_open() {
                return used;
            }
            if exchange.is_answering() {
                if used == input.len() {
                    return used;
                }
                used += self.hand_over_behind(slot, decoder, exchange, &input[used..]);
                if used == input.len() {
                    return used;
                }
                if self.conns.get(slot).is_some_and(|it| it.stall == Stall::No) {
                    // The next request waits; its bytes are not asked for again.
                    self.stall(slot, Stall::Own);
                }
                return used;
            }
            let limit = self.settings.listeners[usize::from(conn.listener)].max_queued;
            if exchange.state == State::Idle && conn.queued() > limit {
                // Its client does not read the answers that it has asked for: `flush` goes on.
                self.stall(slot, Stall::Own);
                return used;
            }
            if exchange.state == State::Idle
                && let Some(len) = self.hand_over(slot, decoder, exchange, &input[used..])
            {
                used += len;
                continue;
            }
            let whole = input.len();
            let mut end = whole;
            if exchange.state == State::Streaming {
                if !self.body_has_room(slot, self.piece) {
                    return used;
                }
                end = end.min(used + self.piece);
            }
            if exchange.began == 0 && used < end {
                exchange.began = self.clock.now;
            }
            let decoded = match decoder.decode(&mut input[used..end]) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.tls_on_plain(slot, input.get(used));
                    self.bad_request(slot, exchange, &error);
                    return used;
                }
            };
            used += decoded.used;
            match decoded.event {
                None if end < whole => {}
                None => {
                    if exchange.state == State::Collecting && exchange.length == u64::MAX {
                        // Nobody knows when the rest comes: its client may wait for an answer.
                        self.stream_request(slot, exchange);
                    }
                    self.watch(slot);
                    return used;
                }
                Some(Event::Head(head)) => {
                    self.count(ReactorCounter::Requests);
                    if !self.request_begins(slot, exchange, &head) {
                        return used;
                    }
                }
                Some(Event::Body(data)) => self.request_body(slot, exchange, data),
                Some(Event::End { trailers }) => {
                    self.request_ends(slot, exchange, trailers.as_bytes());
                }
            }
        }
    }

    /// A worker's response, or the head of one.
    ///
    /// Nearly all are whole, with status 200, and answer a request that is here in full, on a connection of HTTP/1.1 that
    /// goes on: these go straight to its output. [`Reactor::respond_otherwise`] knows the others.
    #[inline(never)]
    pub(super) fn respond(&mut self, command: &CommandHeader, payload: &[u8]) {
        let Some((slot, conn)) = self.conns.find_mut(command.conn) else {
            return;
        };
        let Some((len, rest)) = payload.split_first_chunk() else {
            return;
        };
        let lines = u32::from_le_bytes(*len) as usize;
        let Some(body) = rest.len().checked_sub(lines + 2) else {
            return;
        };
        let Speaks::Http(http) = &mut conn.speaks else {
            return;
        };
        let exchange = &mut http.exchange;
        if !(command.code == 200
            && command.has(COMPLETE)
            && exchange.awaits_plain_answer()
            && conn.phase == Phase::Open
            && conn.socket.is_some()
            && self.stopping.is_none()
            && self.topics.logs.is_empty())
        {
            let (headers, body) = (&rest[..lines], &rest[lines + 2..]);
            return self.respond_otherwise(slot, command, headers, body);
        }
        exchange.response = Response::Complete;
        let goes_on = exchange.next_behind();
        let length = command.aux.max(body as u64);
        let date = self.clock.date();
        let output = self.pool.queue(&mut conn.output);
        output.append(&mut self.pool, |out| {
            http1::encode_usual(out, date, length, rest);
        });
        mark(conn, &mut self.dirty);
        match goes_on {
            // What it has sent may go on behind this one.
            true if conn.stall == Stall::Own => self.wake(slot),
            true => {}
            false => self.exchange_ends(slot),
        }
    }

    #[inline(never)]
    fn respond_otherwise(
        &mut self,
        slot: usize,
        command: &CommandHeader,
        headers: &[u8],
        body: &[u8],
    ) {
        let stopping = self.stopping.is_some();
        let Some((exchange, open)) = self.http(slot) else {
            return;
        };
        if !open || !exchange.is_busy() || exchange.response != Response::None {
            return;
        }
        let complete = command.has(COMPLETE);
        let length = match complete {
            true => Some(command.aux.max(body.len() as u64)),
            false => Some(command.aux).filter(|&aux| aux != u64::MAX),
        };
        let asked = match exchange.method {
            Method { head: true, .. } => Asked::Head,
            Method { connect: true, .. } => Asked::Connect,
            _ => Asked::Other,
        };
        let framing = Framing::choose(exchange.version, asked, command.code, length);
        // A response that is whole before its request ends the connection. One that begins before
        // may still see the end of the request.
        let overtakes = complete && exchange.state == State::Streaming;
        let is_last = stopping && exchange.behind.is_empty();
        exchange.keep_alive &= !overtakes && !is_last && framing != Framing::Close;
        if exchange.state == State::Upgrading {
            exchange.keep_alive = false;
        }
        let head = ResponseHead {
            status: command.code,
            headers,
            framing,
            keep_alive: exchange.keep_alive,
            version: exchange.version,
            date: None,
        };
        let body = if exchange.method.head || framing == Framing::None {
            &[][..]
        } else {
            body
        };
        exchange.response = if complete {
            Response::Complete
        } else {
            Response::Body(framing)
        };
        let ends = complete && !exchange.next_behind();
        self.write_head(slot, head, body, complete && body.is_empty());
        match complete {
            true if ends => self.exchange_ends(slot),
            true => self.take_more(slot),
            false => {}
        }
    }

    /// A piece of a response's body.
    pub(super) fn respond_body(&mut self, slot: usize, data: &[u8]) {
        let Some((exchange, true)) = self.http(slot) else {
            return;
        };
        let Response::Body(framing) = exchange.response else {
            return;
        };
        if exchange.method.head || data.is_empty() {
            return;
        }
        match framing {
            Framing::None => {}
            Framing::Chunked if exchange.version != Version::Http2 => {
                self.write(slot, |out| http1::encode_chunk(out, data));
            }
            Framing::Length(_) | Framing::Close | Framing::Chunked => {
                self.write(slot, |out| out.extend_from_slice(data));
            }
        }
    }

    /// The end of a response's body.
    pub(super) fn respond_end(&mut self, slot: usize, trailers: &[u8]) {
        let Some((exchange, true)) = self.http(slot) else {
            return;
        };
        let Response::Body(framing) = exchange.response else {
            return;
        };
        exchange.response = Response::Complete;
        let is_head = exchange.method.head;
        if exchange.version == Version::Http2 {
            let trailers = if is_head { &[] } else { trailers };
            return self.end_stream(slot, trailers, CloseReason::Complete);
        }
        if framing == Framing::Chunked && !is_head {
            self.write(slot, |out| http1::encode_last_chunk(out, trailers));
        }
        match self
            .http(slot)
            .is_some_and(|(exchange, _)| exchange.next_behind())
        {
            true => self.take_more(slot),
            false => self.exchange_ends(slot),
        }
    }

    /// A response cannot be finished.
    pub(super) fn respond_abort(&mut self, slot: usize) {
        if let Some((exchange, true)) = self.http(slot)
            && exchange.awaits_worker()
        {
            let ends_with_connection = exchange.response == Response::Body(Framing::Close);
            // What has left is cut off short of its announced end: only a reset or an early end
            // of the connection tells the client.
            self.flush(slot);
            if ends_with_connection && let Some(conn) = self.conns.get(slot) {
                conn.reset_on_close();
            }
            self.leave(slot, Closed::of(CloseReason::HandlerFailed));
        }
    }

    /// The application wants the body that the client has not begun to send.
    pub(super) fn send_continue(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if let Speaks::Http(http) = &mut conn.speaks
            && http.exchange.state == State::Streaming
            && http.exchange.response == Response::None
            && std::mem::take(&mut http.exchange.expects_continue)
        {
            match (&http.source, &mut conn.stream) {
                (Source::Wire(decoder), _) if decoder.expects_continue() => {
                    self.write(slot, |out| out.extend_from_slice(http1::CONTINUE));
                }
                (Source::Stream, Some(stream)) => stream.send_continue(),
                _ => {}
            }
        }
    }

    /// Answers the current request with an error of the engine's own.
    pub(super) fn fail_request(&mut self, slot: usize, status: u16, why: &'static str) {
        let in_flight = self.conns.get(slot).map_or(0, |conn| conn.in_flight);
        let Some((exchange, true)) = self.http(slot) else {
            return;
        };
        if !exchange.awaits_worker() || !exchange.may_have_ended(in_flight) {
            return;
        }
        if exchange.response == Response::None {
            exchange.response = Response::Complete;
            self.refuse_request(slot, &RequestError::new(status, why));
        } else {
            self.leave(slot, Closed::of(CloseReason::WorkerDied));
        }
    }

    /// Answers with an error and closes.
    pub(super) fn refuse_request(&mut self, slot: usize, error: &RequestError) {
        let date = *self.clock.date();
        let answered = self
            .http(slot)
            .is_some_and(|(exchange, _)| matches!(exchange.response, Response::Body(_)));
        let is_stream = self.conns.get(slot).is_some_and(|it| it.stream.is_some());
        if !answered && !is_stream {
            self.write(slot, |out| http1::encode_error(out, error, Some(&date)));
        }
        let reason = match error.status() {
            408 => CloseReason::Timeout,
            413 | 414 | 431 => CloseReason::TooLarge,
            500 => CloseReason::HandlerFailed,
            502 => CloseReason::WorkerDied,
            _ => CloseReason::Protocol,
        };
        match (is_stream, answered) {
            (true, true) => self.leave(slot, Closed::of(reason)),
            (true, false) => self.answer_stream(slot, error, reason),
            (false, _) => self.begin_close(slot, Closed::of(reason), ""),
        }
    }

    /// Queues the head of a response, which gets its date here, and a body or the beginning of one; `ends`:
    /// that is all of it.
    #[inline]
    fn write_head(&mut self, slot: usize, head: ResponseHead<'_>, body: &[u8], ends: bool) {
        self.catch_up(slot);
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let date = Some(self.clock.date());
        let head = ResponseHead { date, ..head };
        if let Some(stream) = &mut conn.stream {
            stream.send_head(&head, ends);
            return self.write(slot, |out| out.extend_from_slice(body));
        }
        if conn.has_outlet() {
            let output = self.pool.queue(&mut conn.output);
            output.append(&mut self.pool, |out| {
                http1::encode_response_head(out, &head);
                out.extend_from_slice(body);
            });
            mark(conn, &mut self.dirty);
        }
    }

    /// Answers on a stream with an error of the engine's own.
    fn answer_stream(&mut self, slot: usize, error: &RequestError, reason: CloseReason) {
        let is_head = self
            .http(slot)
            .is_some_and(|(exchange, _)| exchange.method.head);
        let body = format!("{}\n", error.message());
        self.answer_plainly(slot, error.status(), b"", body.as_bytes(), is_head);
        self.end_stream(slot, &[], reason);
    }

    /// Sends a whole answer in plain text on a stream, but for its end.
    fn answer_plainly(&mut self, slot: usize, status: u16, lines: &[u8], body: &[u8], head: bool) {
        let lines = [lines, b"content-type: text/plain; charset=utf-8\r\n"].concat();
        let response = ResponseHead {
            status,
            headers: &lines,
            framing: Framing::Length(body.len() as u64),
            keep_alive: true,
            version: Version::Http2,
            date: None,
        };
        self.write_head(slot, response, if head { &[] } else { body }, head);
        if let Some((exchange, _)) = self.http(slot) {
            exchange.response = Response::Complete;
        }
    }

    pub(super) fn request_begins(
        &mut self,
        slot: usize,
        exchange: &mut Exchange,
        request: &http1::RequestHead<'_>,
    ) -> bool {
        self.note_client(slot, request);
        let Some(conn) = self.conns.get(slot) else {
            return false;
        };
        let client = conn.rare().forwarded;
        let listener = conn.listener;
        let protocol = self.settings.listeners[usize::from(listener)].protocol;
        exchange.response = Response::None;
        exchange.pieces = 0;
        exchange.version = request.version;
        exchange.keep_alive = request.keep_alive;
        exchange.expects_continue = request.expect_continue;
        exchange.method = Method::of(request.method);
        exchange.length = match request.body {
            BodyLength::None => 0,
            BodyLength::Length(length) => length,
            BodyLength::Chunked => u64::MAX,
        };
        if exchange.request.capacity() == 0 {
            exchange.request = self.pool.take();
        }
        exchange.request.clear();
        encode_head(&mut exchange.request, request, client);
        exchange.head_len = exchange.request.len();
        exchange.state = State::Collecting;
        if protocol == Protocol::Websocket && handshake::is_requested(request) {
            match handshake::check(request) {
                Ok(upgrade) => {
                    let listener = &self.settings.listeners[usize::from(listener)];
                    let policy = listener.deflate_policy();
                    exchange.upgrade = Some(Box::new(Upgrade {
                        accept_key: upgrade.accept_key,
                        early: Vec::new(),
                        deflate: policy.and_then(|policy| upgrade.extensions.deflate(policy)),
                    }));
                    exchange.state = State::Upgrading;
                    exchange.began = 0;
                    self.keep_client(slot);
                    self.offer_or_hold(slot, EventKind::Open, 0, 0, &[&exchange.request]);
                    self.give_buffer(exchange);
                    return true;
                }
                Err(error) => {
                    self.refuse_handshake(slot, &error);
                    return false;
                }
            }
        }
        if exchange.expects_continue
            || exchange.length > COLLECTED as u64 && exchange.length != u64::MAX
        {
            self.stream_request(slot, exchange);
        }
        true
    }

    pub(super) fn request_body(&mut self, slot: usize, exchange: &mut Exchange, data: &[u8]) {
        match exchange.state {
            State::Collecting
                if exchange.request.len() - exchange.head_len + data.len() > COLLECTED =>
            {
                // Longer than was to be expected: what is here goes with the head.
                exchange.request.extend_from_slice(data);
                self.stream_request(slot, exchange);
            }
            State::Collecting => exchange.request.extend_from_slice(data),
            State::Streaming => {
                exchange.pieces += 1;
                exchange.progress = exchange.progress.map(|it| it.and(data.len()));
                self.offer_or_hold(slot, EventKind::RequestBody, 0, 0, &[data]);
            }
            State::Idle | State::Answering | State::Upgrading => {}
        }
    }

    pub(super) fn request_ends(&mut self, slot: usize, exchange: &mut Exchange, trailers: &[u8]) {
        exchange.began = 0;
        exchange.progress = None;
        match exchange.state {
            State::Collecting => {
                exchange.state = State::Answering;
                let length = (exchange.request.len() - exchange.head_len) as u64;
                let flags = if trailers.is_empty() {
                    0
                } else {
                    BODY_TRAILERS
                };
                self.offer_or_hold(
                    slot,
                    EventKind::Request,
                    BODY_COMPLETE | flags,
                    length,
                    &[&exchange.request, trailers],
                );
                self.give_buffer(exchange);
            }
            State::Streaming => {
                exchange.state = State::Answering;
                exchange.pieces += 1;
                self.offer_or_hold(slot, EventKind::RequestBody, BODY_END, 0, &[trailers]);
            }
            State::Idle | State::Answering | State::Upgrading => {}
        }
    }

    /// Gives the head (and what has come of the body) to the worker; the rest follows.
    pub(super) fn stream_request(&mut self, slot: usize, exchange: &mut Exchange) {
        exchange.state = State::Streaming;
        exchange.progress = Some(Progress::begin(self.clock.now));
        let flags = if exchange.expects_continue {
            EXPECT_CONTINUE
        } else {
            0
        };
        self.offer_or_hold(
            slot,
            EventKind::Request,
            flags,
            exchange.length,
            &[&exchange.request],
        );
        self.give_buffer(exchange);
    }

    fn give_buffer(&mut self, exchange: &mut Exchange) {
        self.pool.give(std::mem::take(&mut exchange.request));
    }

    fn bad_request(&mut self, slot: usize, exchange: &mut Exchange, error: &RequestError) {
        if exchange.state == State::Streaming {
            self.offer_or_hold(slot, EventKind::RequestBody, BODY_ABORT, 0, &[]);
        }
        exchange.began = 0;
        if matches!(exchange.response, Response::Body(_)) {
            return self.leave(slot, Closed::of(CloseReason::Protocol));
        }
        exchange.response = Response::Complete;
        self.refuse_request(slot, error);
    }

    fn refuse_handshake(&mut self, slot: usize, error: &handshake::HandshakeError) {
        let body = format!("{error}\n");
        if self.conns.get(slot).is_some_and(|it| it.stream.is_some()) {
            // 426 and `Upgrade` are for HTTP/1.
            let version = b"sec-websocket-version: 13\r\n";
            self.answer_plainly(slot, 400, version, body.as_bytes(), false);
            return self.end_stream(slot, &[], CloseReason::Protocol);
        }
        let head = ResponseHead {
            status: error.status(),
            headers: error.headers(),
            framing: Framing::Length(body.len() as u64),
            keep_alive: false,
            version: Version::Http11,
            date: None,
        };
        self.write_head(slot, head, body.as_bytes(), true);
        self.begin_close(slot, Closed::of(CloseReason::Protocol), "");
    }

    /// The response is complete: the next request, or the end.
    fn exchange_ends(&mut self, slot: usize) {
        let stopping = self.stopping.is_some();
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Speaks::Http(http) = &mut conn.speaks else {
            return;
        };
        let Http { source, exchange } = &mut **http;
        let Source::Wire(decoder) = source else {
            let reason = match exchange.state {
                State::Upgrading => CloseReason::Refused,
                _ => CloseReason::Complete,
            };
            return self.end_stream(slot, &[], reason);
        };
        if exchange.state == State::Streaming
            && matches!(
                decoder.decode(&mut []),
                Ok(http1::Decoded {
                    event: Some(Event::End { .. }),
                    ..
                })
            )
        {
            // Only the end itself was not yet handed over.
            exchange.state = State::Answering;
        }
        let refused = exchange.state == State::Upgrading;
        let unread = exchange.state == State::Streaming;
        if !exchange.keep_alive || stopping || unread {
            if !unread {
                exchange.state = State::Idle;
            }
            let reason = match refused {
                true => CloseReason::Refused,
                false if stopping => CloseReason::Stopping,
                false => CloseReason::Complete,
            };
            return self.begin_close(slot, Closed::of(reason), "");
        }
        exchange.state = State::Idle;
        exchange.began = 0;
        exchange.progress = None;
        // Where nothing waits and nothing ends, the poll set says when the next request comes.
        let goes_on = conn.stall != Stall::No || conn.eof || conn.hup;
        self.watch(slot);
        if goes_on {
            self.wake(slot);
        }
    }

    fn http(&mut self, slot: usize) -> Option<(&mut Exchange, bool)> {
        let conn = self.conns.get_mut(slot)?;
        let open = conn.is_open();
        match &mut conn.speaks {
            Speaks::Http(http) => Some((&mut http.exchange, open)),
            _ => None,
        }
    }
}

/// Appends a head as it crosses the ring.
fn encode_head(out: &mut Vec<u8>, request: &http1::RequestHead<'_>, client: Option<SocketAddr>) {
    head::encode(
        out,
        request.version as u8,
        request.method,
        request.target,
        (request.headers.as_bytes(), request.headers.len()),
        client,
    );
}

/// A body up to this many bytes is given to the worker as a whole.
const COLLECTED: usize = 64 << 10;
