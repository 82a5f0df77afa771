//! WebSocket connections in the reactor.

use gannet_proto::websocket::{self, Decoder, Event, MessageKind};

use super::{
    conn::{Closed, Conn, Speaks, Stall},
    output::Pool,
    reactor::Reactor,
};
use crate::{
    close::CloseReason,
    wire::{TEXT, event::EventKind},
};

impl Reactor {
    /// Takes frames from `input`; returns how many bytes are done with.
    pub(super) fn take_websocket(
        &mut self,
        slot: usize,
        decoder: &mut Decoder,
        input: &mut [u8],
    ) -> usize {
        let mut used = 0;
        loop {
            let Some(conn) = self.conns.get(slot) else {
                return used;
            };
            if conn.client_closed.is_some() {
                // Nothing counts behind a close frame (RFC 6455, 1.4): it is read and not kept.
                return input.len();
            }
            if conn.stall != Stall::No || !conn.is_open() {
                return used;
            }
            let decoded = match decoder.decode(&mut input[used..]) {
                Ok(decoded) => decoded,
                Err(error) => {
                    let code = error.code().0;
                    let reason = match code {
                        1009 => CloseReason::TooLarge,
                        _ => CloseReason::Protocol,
                    };
                    self.begin_close(slot, Closed { reason, code }, &error.to_string());
                    return used;
                }
            };
            used += decoded.used;
            match decoded.event {
                None => return used,
                Some(Event::Text(text)) => {
                    self.message_in(slot);
                    self.offer_or_hold(slot, EventKind::Message, TEXT, 0, &[text.as_bytes()]);
                }
                Some(Event::Binary(data)) => {
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
                    let code = close.map_or(0, |(code, _)| code);
                    // The answer to a close frame is a close frame with the same code (5.5.1).
                    self.client_closes(slot, code);
                    return input.len();
                }
            }
        }
    }

    /// The handshake is accepted: from now on frames are spoken.
    pub(super) fn accept_handshake(&mut self, slot: usize, header_lines: &[u8]) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if !conn.is_open() {
            return;
        }
        let Speaks::Http(http) = &mut conn.speaks else {
            return;
        };
        let Some((key, early)) = http.exchange.take_handshake() else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let limits = websocket::Limits {
            max_message_size: listener.max_message_size,
        };
        conn.websocket = true;
        conn.speaks = Speaks::WebSocket(Box::new(Decoder::new(limits)));
        let id = conn.id;
        self.write(slot, |out| {
            websocket::handshake::write_response(out, &key, None, header_lines);
            out.extend_from_slice(&early);
        });
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

    fn client_closes(&mut self, slot: usize, code: u16) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        // The messages before it were taken in full; their answers leave before our close frame.
        conn.client_closed = Some(code);
        self.settle(slot);
    }
}

/// Queues one message the way the connection speaks. `false`: it speaks nothing that has messages.
pub(super) fn queue_message(conn: &mut Conn, pool: &mut Pool, text: bool, data: &[u8]) -> bool {
    let kind = if text {
        MessageKind::Text
    } else {
        MessageKind::Binary
    };
    match &mut conn.speaks {
        Speaks::Http(http) => match http.exchange.before_accept() {
            Some(early) => websocket::encode_message(early, kind, data),
            None => return false,
        },
        Speaks::Taken => return false,
        Speaks::Tcp | Speaks::Framed(_) => conn
            .output
            .get_or_insert_default()
            .append(pool, |out| out.extend_from_slice(data)),
        Speaks::WebSocket(_) => conn
            .output
            .get_or_insert_default()
            .append(pool, |out| websocket::encode_message(out, kind, data)),
    }
    true
}
