//! WebSocket, RFC 6455: the opening handshake and the frames after it.
//!
//! - [`Decoder`] turns bytes into whole messages and control frames;
//! - [`encode_message`] and its neighbours append frames to an output buffer;
//! - [`handshake`] answers the HTTP request that opens a WebSocket;
//! - [`client`] is the other end, for load generators and tests;
//! - [`CloseCode`] lists every close code with its meaning.
//!
//! - [`Extensions`] and [`Compressor`] are `permessage-deflate` (RFC 7692).
//!
//! Layout: a file per idea. `frame` (headers), `mask`, `close` (codes) and `error` stand
//! for themselves; `encode`, `deflate` (compressed payloads) and `decode` use them; `extension`
//! (what is negotiated), `handshake` and `client` are on top.

pub mod client;
mod close;
mod decode;
mod deflate;
mod encode;
mod error;
mod extension;
mod frame;
pub mod handshake;
mod mask;

pub use self::{
    close::CloseCode,
    decode::{Decoded, Decoder, Event, Limits},
    deflate::{Compressor, MAX_WINDOW_BITS, MIN_WINDOW_BITS},
    encode::{
        FrameHeader, MessageKind, encode_close, encode_frame_header, encode_message, encode_ping,
        encode_pong,
    },
    error::ProtocolError,
    extension::{Deflate, DeflatePolicy, Extensions},
    frame::{MAX_CONTROL_PAYLOAD, Opcode},
    mask::Mask,
};
