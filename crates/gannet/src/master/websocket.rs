//! WebSocket connections in the reactor.

use std::borrow::Cow;

use gannet_proto::{
    http1::{Framing, ResponseHead, Version},
    websocket::{self, Decoder, Event, MessageKind},
};

use super::{
    compress::{Compressors, Sending},
    conn::{Closed, Conn, Speaks, Stall},
    output::Pool,
    pace::{ControlRate, Progress},
    rare::Held,
    reactor::Reactor,
    routes::{give, straight},
};
use crate::{
    close::CloseReason,
    conn_table::Cell,
    layout::ReactorCounter,
    settings::Listener,
    wire::{TEXT, event::EventKind},
};

/// What a connection has that speaks frames.
pub(super) struct WebSocket {
    decoder: Decoder,
    pub(super) sending: Sending,
    /// How the unfinished message comes on; `None` between messages.
    pub(super) progress: Option<Progress>,
    control_rate: ControlRate,
}

impl Reactor {
    /// Hands over the messages at the front of the buffer, of which `len` bytes came from this connection, as long as
    /// they are whole, and their worker can have them at once; gives how many bytes that were. Nearly always that is
    /// all; the rest is for [`Reactor::take_websocket`], which knows what else there is.
    pub(super) fn take_messages(&mut self, slot: usize, len: usize) -> usize {
        let Some(conn) = self.conns.get_mut(slot) else {
            return 0;
        };
        let (mut used, mut messages, mut is_full) = (0, 0, false);
        while used < len && !is_full && conn.is_calm() {
            let Some(link) = straight(conn, &self.places, &mut self.links, &self.settings) else {
                break;
            };
            let Speaks::WebSocket(websocket) = &mut conn.speaks else {
                break;
            };
            let input = &mut self.buffer[used..len];
            let Some((kind, message)) = websocket.decoder.take_whole(input) else {
                break;
            };
            websocket.progress = None;
            used += message.end;
            messages += 1;
            let flags = match kind {
                MessageKind::Text => TEXT,
                MessageKind::Binary => 0,
            };
            let data = &input[message];
            is_full = !give(conn, link, EventKind::Message, flags, 0, &[data]);
            if is_full {
                conn.rare_mut().held = Some(Held {
                    kind: EventKind::Message,
                    flags,
                    aux: 0,
                    payload: data.to_vec(),
                });
            }
        }
        let is_all = used == len;
        if is_all {
            conn.input.release();
        }
        let is_watched = conn.timer_mut().is_set();
        if is_full {
            self.stall(slot, Stall::Place);
        }
        if is_all && !is_watched {
            self.watch(slot);
        }
        self.table.add(self.row(slot), Cell::MessagesIn, messages);
        self.add(ReactorCounter::Events, messages - usize::from(is_full));
        used
    }

    /// Takes frames from `input`; returns how many bytes are done with.
    pub(super) fn take_websocket(
        &mut self,
        slot: usize,
        websocket: &mut WebSocket,
        input: &mut [u8],
    ) -> usize {
        let (mut used, mut budget) = (0, INFLATED);
        loop {
            let Some(conn) = self.conns.get(slot) else {
                return used;
            };
            let listener = usize::from(conn.listener);
            if conn.rare().ending.is_some() {
                // Nothing counts behind a close frame (RFC 6455, 1.4): it is read and not kept.
                return input.len();
            }
            if conn.stall != Stall::No || !conn.is_open() {
                websocket.decoder.release();
                return used;
            }
            if budget == 0 && used < input.len() {
                // A little that has come may stand for a lot: the others are next.
                websocket.decoder.release();
                self.go_on_next_turn(slot);
                return used;
            }
            let decoded = websocket
                .decoder
                .decode_within(&mut input[used..], &mut budget);
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    let code = error.code().0;
                    let reason = match code {
                        1009 => CloseReason::TooLarge,
                        1008 => CloseReason::Flood,
                        _ => CloseReason::Protocol,
                    };
                    self.end_websocket(slot, websocket, Closed { reason, code }, error.to_string());
                    return input.len();
                }
            };
            used += decoded.used;
            let is_control = matches!(decoded.event, Some(Event::Ping(_) | Event::Pong(_)));
            let most = self.settings.listeners[listener].max_control_rate;
            if is_control && !websocket.control_rate.admits(self.clock.now, most) {
                let why = format!("more than {most} pings and pongs in a second");
                self.end_websocket(slot, websocket, Closed::of(CloseReason::Flood), why);
                return input.len();
            }
            match decoded.event {
                None => {
                    let got = decoded.used;
                    let waits = used < input.len() || !websocket.decoder.is_idle();
                    websocket.note_progress(self.clock.now, got, waits);
                    if budget == 0 && used < input.len() {
                        continue;
                    }
                    return used;
                }
                Some(Event::Text(text)) => {
                    websocket.progress = None;
                    self.message_in(slot);
                    self.offer_or_hold(slot, EventKind::Message, TEXT, 0, &[text.as_bytes()]);
                }
                Some(Event::Binary(data)) => {
                    websocket.progress = None;
                    self.message_in(slot);
                    self.offer_or_hold(slot, EventKind::Message, 0, 0, &[data]);
                }
                Some(Event::Ping(data)) => {
                    if self.has_output_room(slot, data.len()) {
                        self.write(slot, |out| websocket::encode_pong(out, data));
                    }
                }
                Some(Event::Pong(_)) => {}
                Some(Event::Close(close)) => {
                    // The answer to a close frame is a close frame with the same code (5.5.1).
                    let closed = Closed {
                        reason: CloseReason::Client,
                        code: close.map_or(0, |(code, _)| code),
                    };
                    self.end_websocket(slot, websocket, closed, "");
                    return input.len();
                }
            }
            if used == input.len() && websocket.decoder.is_idle() {
                // All is taken: the decoder need not be asked.
                websocket.decoder.release();
                websocket.progress = None;
                return used;
            }
        }
    }

    /// The handshake is accepted: from now on frames are spoken.
    pub(super) fn accept_handshake(&mut self, slot: usize, header_lines: &[u8]) {
        // What was published until now goes with what was sent before the answer, behind it.
        self.catch_up(slot);
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if !conn.is_open() {
            return;
        }
        let Speaks::Http(http) = &mut conn.speaks else {
            return;
        };
        let Some(upgrade) = http.exchange.take_handshake() else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let limits = websocket::Limits {
            max_message_size: listener.max_message_size,
            max_fragments: listener.max_fragments,
        };
        let mut decoder = Decoder::new(limits);
        let mut lines = Vec::new();
        if let Some(agreed) = &upgrade.deflate {
            decoder = decoder.with_deflate(agreed.client_takeover);
            agreed.write_header(&mut lines);
        }
        lines.extend_from_slice(header_lines);
        conn.websocket = true;
        conn.speaks = Speaks::WebSocket(Box::new(WebSocket {
            decoder,
            sending: Sending::new(upgrade.deflate),
            progress: None,
            control_rate: ControlRate::default(),
        }));
        let id = conn.id;
        if let Some(stream) = &mut conn.stream {
            let date = *self.clock.date();
            let head = ResponseHead {
                status: 200,
                headers: &lines,
                framing: Framing::Chunked,
                keep_alive: true,
                version: Version::Http2,
                date: Some(&date),
            };
            stream.send_head(&head, false);
            self.write(slot, |out| out.extend_from_slice(&upgrade.early));
        } else {
            self.write(slot, |out| {
                websocket::handshake::write_response(out, &upgrade.accept_key, None, &lines);
                out.extend_from_slice(&upgrade.early);
            });
        }
        if let Some(row) = self.table.row_of(id) {
            self.table.set_websocket(row);
        }
        self.watch(slot);
        self.wake(slot);
    }

    /// A keep-alive ping, half-way to the idle time-out.
    pub(super) fn ping(&mut self, slot: usize) {
        self.write(slot, |out| websocket::encode_ping(out, b""));
    }

    /// Takes nothing more from the client. The messages before were taken in full: their answers
    /// leave before our close frame.
    fn end_websocket(
        &mut self,
        slot: usize,
        websocket: &mut WebSocket,
        closed: Closed,
        text: impl Into<Cow<'static, str>>,
    ) {
        websocket.progress = None;
        self.end_after_events(slot, closed, text);
    }
}

impl WebSocket {
    /// Whether more of an unfinished message should have come by now.
    pub(super) fn is_late(&self, now: u64, listener: &Listener) -> bool {
        self.progress.is_some_and(|it| it.is_late(now, listener))
    }

    /// Notes that `got` bytes of a message have come; `waits`: more of it has to.
    fn note_progress(&mut self, now: u64, got: usize, waits: bool) {
        self.progress = waits.then(|| Progress::go_on(self.progress, now, got));
    }
}

/// Queues one message the way the connection speaks. `false`: it speaks nothing that has messages.
#[inline]
pub(super) fn queue_message(
    conn: &mut Conn,
    pool: &mut Pool,
    compressors: &mut Compressors,
    listener: &Listener,
    text: bool,
    data: &[u8],
) -> bool {
    if conn.awaits_header() {
        // Whose it is nobody knows yet.
        return false;
    }
    let kind = match text {
        true => MessageKind::Text,
        false => MessageKind::Binary,
    };
    match &mut conn.speaks {
        Speaks::Tcp | Speaks::Framed(_) => {
            let output = pool.queue(&mut conn.output);
            output.append(pool, |out| out.extend_from_slice(data));
        }
        Speaks::WebSocket(websocket) => {
            let output = pool.queue(&mut conn.output);
            output.append(pool, |out| {
                compressors.encode(&mut websocket.sending, listener, out, kind, data);
            });
        }
        Speaks::Http(http) => match http.exchange.before_accept() {
            Some(early) => websocket::encode_message(early, kind, data),
            None => return false,
        },
        Speaks::Http2(_) | Speaks::Taken => return false,
    }
    true
}

/// Bytes that the messages of one connection may inflate to in one turn, give or take 64 KiB: some
/// 0.3 ms of work. What a read of 64 KiB stands for may be a thousand times as much.
const INFLATED: usize = 256 << 10;
