//! A message to many, encoded at most once for each way that connections speak.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use gannet_proto::{
    tcp::{EncodeError, Framing},
    websocket::{self, MessageKind},
};

use super::{
    compress::{Compressors, Shared},
    conn::{Conn, Speaks},
    output::Pool,
    websocket::queue_message,
};
use crate::settings::Listener;

/// The message, and what it has been encoded to so far.
pub(super) struct Broadcast {
    text: bool,
    data: Rc<[u8]>,
    frame: Option<Rc<[u8]>>,
    /// By listener; `None`: its framing cannot carry it.
    framed: Vec<(u16, Option<Rc<[u8]>>)>,
    compressed: Shared,
}

/// How a connection speaks, as far as that decides what a message to many is encoded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Raw,
    /// By listener.
    Framed(u16),
    Frame,
    /// By listener and window bits.
    Compressed(u16, u8),
}

impl Way {
    /// `None`: the connection has a way of its own.
    pub(super) fn of(conn: &Conn) -> Option<Self> {
        match &conn.speaks {
            Speaks::Tcp => Some(Way::Raw),
            Speaks::Framed(_) => Some(Way::Framed(conn.listener)),
            Speaks::WebSocket(websocket) => Some(match websocket.sending.window_bits() {
                Some(bits) => Way::Compressed(conn.listener, bits),
                None => Way::Frame,
            }),
            Speaks::Http(_) | Speaks::Http2(_) | Speaks::Taken => None,
        }
    }
}

impl Broadcast {
    pub(super) fn new(text: bool, data: &[u8]) -> Self {
        Broadcast {
            text,
            data: data.into(),
            frame: None,
            framed: Vec::new(),
            compressed: Shared::default(),
        }
    }

    /// Bytes of the message as it is.
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// `false`: the framing of the connection cannot carry it.
    pub(super) fn queue(
        &mut self,
        conn: &mut Conn,
        pool: &mut Pool,
        compressors: &mut Compressors,
        listener: &Listener,
    ) -> bool {
        if matches!(conn.speaks, Speaks::Http(_)) {
            queue_message(conn, pool, compressors, listener, self.text, &self.data);
            return true;
        }
        let Some(bytes) = self.encoded(conn, compressors, listener) else {
            return false;
        };
        let output = pool.queue(&mut conn.output);
        if bytes.len() <= COPY {
            output.append(pool, |out| out.extend_from_slice(&bytes));
        } else {
            output.share(pool, bytes);
        }
        true
    }

    /// Appends the message as this connection speaks. `false`: it is too large to be copied for each
    /// subscriber, or cannot be framed.
    pub(super) fn append_to(
        &mut self,
        out: &mut Vec<u8>,
        conn: &mut Conn,
        compressors: &mut Compressors,
        listener: &Listener,
    ) -> bool {
        if self.data.len() > COPY {
            return false;
        }
        match Way::of(conn) {
            None => return false,
            Some(Way::Raw) => out.extend_from_slice(&self.data),
            Some(Way::Frame) => websocket::encode_message(out, self.kind(), &self.data),
            Some(Way::Framed(_) | Way::Compressed(..)) => {
                match self.encoded(conn, compressors, listener) {
                    Some(bytes) if bytes.len() <= COPY => out.extend_from_slice(&bytes),
                    _ => return false,
                }
            }
        }
        true
    }

    /// The message as this connection speaks. `None`: its framing cannot carry it.
    fn encoded(
        &mut self,
        conn: &mut Conn,
        compressors: &mut Compressors,
        listener: &Listener,
    ) -> Option<Rc<[u8]>> {
        let kind = self.kind();
        match &mut conn.speaks {
            Speaks::Framed(framed) => self.framed(conn.listener, framed.decoder.framing()),
            Speaks::WebSocket(websocket) => {
                let (sending, shared) = (&mut websocket.sending, &mut self.compressed);
                let packed = compressors.encode_shared(sending, listener, shared, kind, &self.data);
                Some(packed.unwrap_or_else(|| self.frame(kind).clone()))
            }
            _ => Some(self.data.clone()),
        }
    }

    fn frame(&mut self, kind: MessageKind) -> &Rc<[u8]> {
        self.frame.get_or_insert_with(|| {
            let mut frame = Vec::with_capacity(self.data.len() + HEAD);
            websocket::encode_message(&mut frame, kind, &self.data);
            frame.into()
        })
    }

    /// As one message of this listener; as it is, if only a decoder was given to a custom framing.
    fn framed(&mut self, listener: u16, framing: &Framing) -> Option<Rc<[u8]>> {
        if let Some((_, bytes)) = self.framed.iter().find(|(of, _)| *of == listener) {
            return bytes.clone();
        }
        let mut out = Vec::with_capacity(self.data.len() + FRAME);
        // The encoder of a custom framing is the user's.
        let encode = AssertUnwindSafe(|| framing.encode(&mut out, &self.data));
        let bytes = match catch_unwind(encode) {
            Ok(Ok(())) => Some(out.into()),
            Ok(Err(EncodeError::NoEncoder)) => Some(self.data.clone()),
            Ok(Err(error)) => {
                tracing::warn!(listener, "a published message cannot be framed: {error}");
                None
            }
            Err(_) => {
                tracing::error!(listener, "the encoder of a custom framing panicked");
                None
            }
        };
        self.framed.push((listener, bytes.clone()));
        bytes
    }

    fn kind(&self) -> MessageKind {
        match self.text {
            true => MessageKind::Text,
            false => MessageKind::Binary,
        }
    }
}

/// A published message up to this size is copied for each subscriber, a larger one is shared.
const COPY: usize = 2 << 10;
/// The longest head of a frame.
const HEAD: usize = 10;
/// Room for what a framing adds to a message, as a rule.
const FRAME: usize = 64;
