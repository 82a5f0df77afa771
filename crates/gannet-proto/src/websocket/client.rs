//! The client's end, for load generators and tests.
//!
//! A client reads with [`Decoder::client`](super::Decoder::client) and writes with the
//! functions here. Every frame takes a masking key, which RFC 6455 section 5.3 wants to
//! be unpredictable: this crate has no source of randomness.

use super::{
    close::CloseCode,
    encode::{ClosePayload, FrameHeader, MessageKind, cut_control},
    frame::{Opcode, RSV1},
    handshake,
    mask::Mask,
};
use crate::http1::{Headers, has_token};

/// Appends a frame as it is told, lawful or not: tests need both.
pub fn encode_frame(out: &mut Vec<u8>, opcode: Opcode, fin: bool, payload: &[u8], key: [u8; 4]) {
    let header = FrameHeader::new(opcode, fin, payload.len()).masked(key);
    out.reserve(header.len() + payload.len());
    out.extend_from_slice(&header);
    let start = out.len();
    out.extend_from_slice(payload);
    Mask::new(key).apply(&mut out[start..]);
}

/// As [`encode_frame`], with the bit that says that a compressed message begins.
pub fn encode_compressed_frame(
    out: &mut Vec<u8>,
    opcode: Opcode,
    fin: bool,
    payload: &[u8],
    key: [u8; 4],
) {
    let start = out.len();
    encode_frame(out, opcode, fin, payload, key);
    out[start] |= RSV1;
}

/// Appends a whole message as one masked frame.
pub fn encode_message(out: &mut Vec<u8>, kind: MessageKind, payload: &[u8], key: [u8; 4]) {
    encode_frame(out, kind.into(), true, payload, key);
}

/// Appends a ping with at most 125 bytes; what is beyond is cut off.
pub fn encode_ping(out: &mut Vec<u8>, payload: &[u8], key: [u8; 4]) {
    encode_frame(out, Opcode::Ping, true, cut_control(payload), key);
}

/// Appends a pong with at most 125 bytes; what is beyond is cut off.
pub fn encode_pong(out: &mut Vec<u8>, payload: &[u8], key: [u8; 4]) {
    encode_frame(out, Opcode::Pong, true, cut_control(payload), key);
}

/// Appends a close frame; code and reason as in [`encode_close`](super::encode_close).
pub fn encode_close(out: &mut Vec<u8>, code: impl Into<CloseCode>, reason: &str, key: [u8; 4]) {
    let payload = ClosePayload::new(code.into(), reason);
    encode_frame(out, Opcode::Close, true, &payload, key);
}

/// Appends the request that opens a WebSocket.
///
/// `key` is the base64 form of 16 random bytes; `extra_header_lines` are whole
/// `name: value\r\n` lines.
pub fn write_request(
    out: &mut Vec<u8>,
    host: &str,
    target: &str,
    key: &str,
    extra_header_lines: &[u8],
) {
    for part in [
        "GET ",
        target,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: ",
        key,
        "\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(extra_header_lines);
    out.extend_from_slice(b"\r\n");
}

/// The server agreed to a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// The size of the response in bytes; frames follow it.
    pub used: usize,
    /// The headers of the response.
    pub headers: Headers<'a>,
}

/// The server did not agree to a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The response is not HTTP/1.1.
    #[error("the response to the handshake is not HTTP/1.1")]
    Malformed,
    /// The response has another status than 101.
    #[error("the server refused the handshake with status {0}")]
    Refused(u16),
    /// `Connection`, `Upgrade` or `Sec-WebSocket-Accept` is missing or wrong.
    #[error("the server answered 101, but not to this handshake")]
    NotAnAnswer,
}

/// Reads the response to [`write_request`] from the front of `input`; `None` when more
/// bytes are needed.
///
/// # Errors
///
/// The server refused, or what came is no answer to `key` (RFC 6455 section 4.1).
pub fn read_response<'a>(input: &'a [u8], key: &str) -> Result<Option<Opened<'a>>, OpenError> {
    let mut parsed = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut parsed);
    let used = match response.parse(input) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(OpenError::Malformed),
    };
    match response.code {
        Some(101) => {}
        code => return Err(OpenError::Refused(code.unwrap_or_default())),
    }
    if !input[..used].ends_with(b"\r\n\r\n") {
        return Err(OpenError::Malformed);
    }
    let status_line = memchr::memchr(b'\n', input).map_or(0, |at| at + 1);
    let headers = Headers::from_validated(&input[status_line..used - 2]);
    let is_answer = headers
        .all("connection")
        .any(|value| has_token(value, "upgrade"))
        && headers
            .all("upgrade")
            .any(|value| has_token(value, "websocket"))
        && headers.only("sec-websocket-accept")
            == Some(handshake::accept_key(key.as_bytes()).as_slice());
    if !is_answer {
        return Err(OpenError::NotAnAnswer);
    }
    Ok(Some(Opened { used, headers }))
}
