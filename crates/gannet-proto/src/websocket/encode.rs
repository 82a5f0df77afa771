//! Frames of a server: unmasked, appended to an output buffer.

use std::ops::Deref;

use super::{
    close::CloseCode,
    frame::{MAX_CONTROL_PAYLOAD, Opcode, RSV1},
};

/// Whether a message is text or binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl From<MessageKind> for Opcode {
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Text => Self::Text,
            MessageKind::Binary => Self::Binary,
        }
    }
}

/// An encoded frame header: 2 to 14 bytes, on the stack. Dereferences to its bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    bytes: [u8; 14],
    len: u8,
}

impl FrameHeader {
    pub(super) fn new(opcode: Opcode, fin: bool, payload_len: usize) -> Self {
        let mut header = Self {
            bytes: [0; 14],
            len: 0,
        };
        header.push(&[opcode as u8 | if fin { FIN } else { 0 }]);
        match payload_len {
            0..=125 => header.push(&[payload_len as u8]),
            126..=0xffff => {
                header.push(&[126]);
                header.push(&(payload_len as u16).to_be_bytes());
            }
            _ => {
                header.push(&[127]);
                header.push(&(payload_len as u64).to_be_bytes());
            }
        }
        header
    }

    /// Says that the payload is compressed (RSV1).
    pub(super) fn compressed(mut self) -> Self {
        self.bytes[0] |= RSV1;
        self
    }

    pub(super) fn masked(mut self, key: [u8; 4]) -> Self {
        self.bytes[1] |= 0x80;
        self.push(&key);
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for FrameHeader {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The header of an unmasked frame whose payload follows it on the wire.
///
/// For payloads that are sent from where they are, without a copy behind the header.
/// The caller keeps the rules of the opcode: control frames are final and carry at
/// most [`MAX_CONTROL_PAYLOAD`] bytes, text is UTF-8.
///
/// ```
/// use gannet_proto::websocket::{Opcode, encode_frame_header};
///
/// assert_eq!(&*encode_frame_header(Opcode::Text, true, 5), [0x81, 5]);
/// assert_eq!(&*encode_frame_header(Opcode::Binary, false, 300), [0x02, 126, 1, 44]);
/// ```
pub fn encode_frame_header(opcode: Opcode, fin: bool, payload_len: usize) -> FrameHeader {
    FrameHeader::new(opcode, fin, payload_len)
}

/// Appends a whole message as one unmasked frame. Text must be UTF-8.
#[inline]
pub fn encode_message(out: &mut Vec<u8>, kind: MessageKind, payload: &[u8]) {
    debug_assert!(kind == MessageKind::Binary || std::str::from_utf8(payload).is_ok());
    encode_frame(out, kind.into(), payload);
}

/// Appends a ping with at most 125 bytes; what is beyond is cut off.
pub fn encode_ping(out: &mut Vec<u8>, payload: &[u8]) {
    encode_frame(out, Opcode::Ping, cut_control(payload));
}

/// Appends a pong with at most 125 bytes; what is beyond is cut off.
pub fn encode_pong(out: &mut Vec<u8>, payload: &[u8]) {
    encode_frame(out, Opcode::Pong, cut_control(payload));
}

/// Appends a close frame.
///
/// A code that must not be sent (see [`CloseCode::is_sendable`]) gives a close frame
/// without code and reason. The reason is cut at a character boundary to 123 bytes.
pub fn encode_close(out: &mut Vec<u8>, code: impl Into<CloseCode>, reason: &str) {
    let payload = ClosePayload::new(code.into(), reason);
    encode_frame(out, Opcode::Close, &payload);
}

#[inline]
fn encode_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let first = opcode as u8 | FIN;
    match u8::try_from(payload.len()) {
        Ok(len @ ..=SHORT) => {
            out.reserve(2 + payload.len());
            out.extend_from_slice(&[first, len]);
            out.extend_from_slice(payload);
        }
        _ => encode_long_frame(out, opcode, payload),
    }
}

fn encode_long_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let header = FrameHeader::new(opcode, true, payload.len());
    out.reserve(header.len() + payload.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
}

pub(super) fn cut_control(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)]
}

/// Code and reason as they stand in a close frame.
pub(super) struct ClosePayload {
    bytes: [u8; MAX_CONTROL_PAYLOAD],
    len: usize,
}

impl ClosePayload {
    pub(super) fn new(code: CloseCode, reason: &str) -> Self {
        let mut payload = Self {
            bytes: [0; MAX_CONTROL_PAYLOAD],
            len: 0,
        };
        if code.is_sendable() {
            let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL_PAYLOAD - 2)];
            payload.len = 2 + reason.len();
            payload.bytes[..2].copy_from_slice(&code.0.to_be_bytes());
            payload.bytes[2..payload.len].copy_from_slice(reason.as_bytes());
        }
        payload
    }
}

impl Deref for ClosePayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The bit that ends a message.
const FIN: u8 = 0x80;
/// The longest payload whose length stands in the second byte.
const SHORT: u8 = 125;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: usize) -> Vec<u8> {
        encode_frame_header(Opcode::Binary, true, len).to_vec()
    }

    #[test]
    fn a_length_takes_its_shortest_form() {
        assert_eq!(header(125), [0x82, 125]);
        assert_eq!(header(126), [0x82, 126, 0, 126]);
        assert_eq!(header(65535), [0x82, 126, 255, 255]);
        assert_eq!(header(65536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        encode_close(&mut out, CloseCode::NORMAL, &"ä".repeat(100));
        assert_eq!(out[..4], [0x88, 2 + 122, 0x03, 0xe8]);
        assert_eq!(std::str::from_utf8(&out[4..]).unwrap(), "ä".repeat(61));
    }

    #[test]
    fn an_unsendable_close_code_is_left_out() {
        let mut out = Vec::new();
        encode_close(&mut out, CloseCode::ABNORMAL, "lost");
        assert_eq!(out, [0x88, 0]);
    }

    #[test]
    fn a_long_ping_is_cut() {
        let mut out = Vec::new();
        encode_ping(&mut out, &[7; 200]);
        assert_eq!(out.len(), 2 + 125);
    }
}
