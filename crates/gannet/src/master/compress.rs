//! Compressing what goes to WebSockets (permessage-deflate, RFC 7692).
//!
//! A compressor takes 250 KiB to 370 KiB. Connections that agreed that the server keeps no window
//! share one for each pair of level and window that their listener and their offers come to: it
//! is made when the first message is compressed, and stays. The others have one of their own,
//! from their first compressed message on.
//!
//! A published message is compressed once for each such pair and shared. Who has a compressor of
//! its own gets the shared bytes too (they refer to nothing), and its compressor forgets what was
//! before, since the client's window has moved on without it.

use std::rc::Rc;

use gannet_proto::websocket::{self, Compressor, Deflate, MessageKind};

use crate::settings::Listener;

/// How the messages of a WebSocket leave.
pub(super) struct Sending {
    /// What was agreed; `None`: uncompressed.
    window: Option<Window>,
}

struct Window {
    bits: u8,
    /// The server keeps its window from message to message, in the compressor.
    takeover: bool,
    own: Option<Box<Compressor>>,
}

/// The compressors that connections share, and what all compressing came to.
#[derive(Default)]
pub(super) struct Compressors {
    shared: Vec<(Variant, Compressor)>,
    /// Messages compressed, and the bytes saved by it, that are not in the counters yet.
    runs: usize,
    saved: usize,
    /// Bytes that went in since the start.
    taken: usize,
}

/// Level and window bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Variant(u8, u8);

/// A message to many, compressed once for each variant.
#[derive(Default)]
pub(super) struct Shared(Vec<(Variant, Rc<[u8]>)>);

impl Sending {
    pub(super) fn new(agreed: Option<Deflate>) -> Self {
        Sending {
            window: agreed.map(|agreed| Window {
                bits: agreed.server_window_bits,
                takeover: agreed.server_takeover,
                own: None,
            }),
        }
    }

    /// Of what leaves compressed; `None`: nothing does.
    pub(super) fn window_bits(&self) -> Option<u8> {
        self.window.as_ref().map(|window| window.bits)
    }

    /// The client's window has moved on without the own compressor.
    pub(super) fn forget(&mut self) {
        if let Some(own) = self.window.as_mut().and_then(|window| window.own.as_mut()) {
            own.forget();
        }
    }
}

impl Compressors {
    /// Appends a message to one connection as a frame.
    #[inline]
    pub(super) fn encode(
        &mut self,
        sending: &mut Sending,
        listener: &Listener,
        out: &mut Vec<u8>,
        kind: MessageKind,
        data: &[u8],
    ) {
        match &mut sending.window {
            Some(window) if is_due(listener, data) => {
                self.compress(window, listener, out, kind, data);
            }
            _ => websocket::encode_message(out, kind, data),
        }
    }

    fn compress(
        &mut self,
        window: &mut Window,
        listener: &Listener,
        out: &mut Vec<u8>,
        kind: MessageKind,
        data: &[u8],
    ) {
        let variant = Variant(listener.compression_level as u8, window.bits);
        let before = out.len();
        let compressor = match window.takeover {
            true => window
                .own
                .get_or_insert_with(|| Box::new(variant.compressor(true))),
            false => self.shared(variant),
        };
        compressor.encode_message(out, kind, data);
        let len = out.len() - before;
        self.count(data.len(), len);
    }

    /// The compressed frame of a message to many; `None`: this connection gets the plain one.
    pub(super) fn encode_shared(
        &mut self,
        sending: &mut Sending,
        listener: &Listener,
        shared: &mut Shared,
        kind: MessageKind,
        data: &[u8],
    ) -> Option<Rc<[u8]>> {
        let window = sending.window.as_mut().filter(|_| is_due(listener, data))?;
        if let Some(own) = &mut window.own {
            own.forget();
        }
        let variant = Variant(listener.compression_level as u8, window.bits);
        if let Some((_, frame)) = shared.0.iter().find(|(other, _)| *other == variant) {
            return Some(frame.clone());
        }
        let mut frame = Vec::new();
        self.shared(variant).encode_message(&mut frame, kind, data);
        self.count(data.len(), frame.len());
        let frame: Rc<[u8]> = frame.into();
        shared.0.push((variant, frame.clone()));
        Some(frame)
    }

    /// Bytes compressed since the start, modulo a large number.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Messages compressed since the last call, and the bytes saved by it.
    pub(super) fn take_counts(&mut self) -> (usize, usize) {
        (
            std::mem::take(&mut self.runs),
            std::mem::take(&mut self.saved),
        )
    }

    fn shared(&mut self, variant: Variant) -> &mut Compressor {
        let index = self.shared.iter().position(|(other, _)| *other == variant);
        let index = index.unwrap_or_else(|| {
            self.shared.push((variant, variant.compressor(false)));
            self.shared.len() - 1
        });
        &mut self.shared[index].1
    }

    fn count(&mut self, before: usize, after: usize) {
        self.runs += 1;
        self.taken = self.taken.wrapping_add(before);
        self.saved += before.saturating_sub(after);
    }
}

impl Variant {
    fn compressor(self, takeover: bool) -> Compressor {
        Compressor::new(self.0, self.1, takeover)
    }
}

fn is_due(listener: &Listener, data: &[u8]) -> bool {
    data.len() >= listener.compression_threshold
}

#[cfg(test)]
mod tests {
    use gannet_proto::websocket::{Decoder, Event, Limits};

    use super::*;

    fn sending(bits: u8, takeover: bool) -> Sending {
        Sending {
            window: Some(Window {
                bits,
                takeover,
                own: None,
            }),
        }
    }

    #[test]
    fn a_shared_message_is_compressed_once_for_each_window() {
        let (listener, mut compressors) = (Listener::default(), Compressors::default());
        let data = "all the same ".repeat(200);
        let mut shared = Shared::default();
        for n in 0..30 {
            let mut sending = sending(13 + n % 3, n % 2 == 0);
            let kind = MessageKind::Text;
            let frame = compressors.encode_shared(
                &mut sending,
                &listener,
                &mut shared,
                kind,
                data.as_bytes(),
            );
            assert!(frame.is_some_and(|frame| frame.len() < 100));
        }
        assert_eq!((compressors.runs, compressors.shared.len()), (3, 3));
    }

    #[test]
    fn shared_and_own_messages_of_a_connection_that_keeps_its_window_may_alternate() {
        let (listener, mut compressors) = (Listener::default(), Compressors::default());
        let mut sending = sending(15, true);
        let mut client = Decoder::client(Limits::default()).with_deflate(true);
        for n in 0..20 {
            let text = format!("message {} ", n % 3).repeat(200);
            let mut frame = Vec::new();
            if n % 4 == 3 {
                let mut shared = Shared::default();
                let kind = MessageKind::Text;
                let bytes = compressors.encode_shared(
                    &mut sending,
                    &listener,
                    &mut shared,
                    kind,
                    text.as_bytes(),
                );
                frame.extend_from_slice(&bytes.unwrap());
            } else {
                let kind = MessageKind::Text;
                compressors.encode(&mut sending, &listener, &mut frame, kind, text.as_bytes());
            }
            assert_eq!(frame[0], 0xc1);
            let decoded = client.decode(&mut frame).unwrap();
            assert_eq!(decoded.event, Some(Event::Text(&text)));
        }
    }

    #[test]
    fn what_is_shorter_than_the_threshold_is_not_compressed() {
        let (listener, mut compressors) = (Listener::default(), Compressors::default());
        let mut out = Vec::new();
        let short = vec![b'x'; listener.compression_threshold - 1];
        let kind = MessageKind::Binary;
        compressors.encode(&mut sending(15, false), &listener, &mut out, kind, &short);
        assert_eq!((out[0], compressors.runs), (0x82, 0));
        assert!(compressors.shared.is_empty(), "memory for nothing");
    }
}
