//! The opening handshake of a server (RFC 6455 section 4.2).

use base64::prelude::{BASE64_STANDARD, Engine};
use sha1::{Digest, Sha1};

use super::extension::Extensions;
use crate::http1::{BodyLength, Headers, RequestHead, Version, has_token, is_token};

/// What to know about a request that may become a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// The value for `Sec-WebSocket-Accept`; zeroes in HTTP/2, which has none.
    pub accept_key: [u8; 28],
    /// The subprotocols that the client speaks.
    pub subprotocols: Subprotocols<'a>,
    /// The extensions that it speaks.
    pub extensions: Extensions<'a>,
}

/// The subprotocols that a client offers, its favourite first. They are tokens, and
/// none occurs twice.
#[derive(Clone, Copy, Debug)]
pub struct Subprotocols<'a> {
    headers: Headers<'a>,
}

impl<'a> Subprotocols<'a> {
    /// The names in the order of the request.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.headers
            .all(PROTOCOL)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(|name| std::str::from_utf8(name.trim_ascii()).unwrap_or_default())
    }

    /// Whether the client offers `name`. Names differ by case.
    pub fn contains(self, name: &str) -> bool {
        self.iter().any(|offered| offered == name)
    }
}

/// Why a request cannot become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The method is not GET.
    #[error("a WebSocket is opened with GET")]
    Method,
    /// The version is not HTTP/1.1.
    #[error("a WebSocket needs HTTP/1.1")]
    HttpVersion,
    /// The request announces a body, which would stand where frames belong.
    #[error("a request that opens a WebSocket has no body")]
    Body,
    /// `Connection` lacks the option `upgrade`.
    #[error("a WebSocket needs `Connection: Upgrade`; a proxy may have removed it")]
    Connection,
    /// `Upgrade` does not name `websocket`.
    #[error("a WebSocket needs `Upgrade: websocket`; a proxy may have removed it")]
    Upgrade,
    /// `Sec-WebSocket-Version` is not 13.
    #[error("only WebSocket version 13 is spoken here: send `Sec-WebSocket-Version: 13`")]
    Version,
    /// `Sec-WebSocket-Key` is not there once, or is not the base64 form of 16 bytes.
    #[error("`Sec-WebSocket-Key` must be there once and be 16 random bytes in base64")]
    Key,
    /// `Sec-WebSocket-Protocol` is not a list of different tokens.
    #[error("`Sec-WebSocket-Protocol` must be a list of different names")]
    Subprotocols,
    /// `Sec-WebSocket-Extensions` does not follow the grammar of RFC 6455 section 9.1.
    #[error("`Sec-WebSocket-Extensions` must be a list of extensions with their parameters")]
    Extensions,
}

impl HandshakeError {
    /// The HTTP status to answer with: 400, or 426 for another version.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Version => 426,
            _ => 400,
        }
    }

    /// Header lines that belong into the answer, ready for
    /// [`http1::ResponseHead::headers`](crate::http1::ResponseHead).
    pub const fn headers(&self) -> &'static [u8] {
        match self {
            Self::Version => b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => b"",
        }
    }
}

/// Whether a request asks for a WebSocket, well formed or not: its `Upgrade` header names
/// `websocket`. Other requests are for the HTTP handler.
///
/// In HTTP/2 an extended CONNECT says it (RFC 8441).
pub fn is_requested(head: &RequestHead<'_>) -> bool {
    if head.version == Version::Http2 {
        return head.upgrade;
    }
    head.headers
        .all("upgrade")
        .any(|value| has_token(value, "websocket"))
}

/// Judges a request that asks for a WebSocket.
///
/// That `Host` is there once was checked when the head was parsed. `Origin`, cookies and
/// the target are for the caller to judge.
///
/// # Errors
///
/// The first rule of RFC 6455 section 4.2.1 that the request breaks.
pub fn check<'a>(head: &RequestHead<'a>) -> Result<Upgrade<'a>, HandshakeError> {
    if head.version == Version::Http2 {
        return check_extended(head);
    }
    if head.method != "GET" {
        return Err(HandshakeError::Method);
    }
    if head.version != Version::Http11 {
        return Err(HandshakeError::HttpVersion);
    }
    if head.body != BodyLength::None {
        return Err(HandshakeError::Body);
    }
    if !is_requested(head) {
        return Err(HandshakeError::Upgrade);
    }
    if !head
        .headers
        .all("connection")
        .any(|value| has_token(value, "upgrade"))
    {
        return Err(HandshakeError::Connection);
    }
    if head.headers.only("sec-websocket-version") != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = head
        .headers
        .only("sec-websocket-key")
        .filter(|key| is_key(key));
    let accept_key = accept_key(key.ok_or(HandshakeError::Key)?);
    offers(head, accept_key)
}

/// The same for HTTP/2, where stream and pseudo-headers say what keys and `Upgrade` said
/// (RFC 8441 section 5).
fn check_extended<'a>(head: &RequestHead<'a>) -> Result<Upgrade<'a>, HandshakeError> {
    if head.headers.only("sec-websocket-version") != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    offers(head, [0; 28])
}

fn offers<'a>(head: &RequestHead<'a>, accept_key: [u8; 28]) -> Result<Upgrade<'a>, HandshakeError> {
    let subprotocols = Subprotocols {
        headers: head.headers,
    };
    check_subprotocols(subprotocols)?;
    let extensions = Extensions::parse(head.headers).ok_or(HandshakeError::Extensions)?;
    Ok(Upgrade {
        accept_key,
        subprotocols,
        extensions,
    })
}

/// The answer to a key: proof that the server speaks WebSocket (section 4.2.2).
///
/// ```
/// use gannet_proto::websocket::handshake::accept_key;
///
/// assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    // 20 bytes are 28 characters of base64: the slice cannot be too short.
    let written = BASE64_STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(28));
    accept
}

/// Appends the `101 Switching Protocols` response; frames may follow at once.
///
/// `subprotocol` must be one that the client offered. `extra_header_lines` are whole
/// `name: value\r\n` lines made from validated names and values.
pub fn write_response(
    out: &mut Vec<u8>,
    accept_key: &[u8; 28],
    subprotocol: Option<&str>,
    extra_header_lines: &[u8],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Connection: Upgrade\r\n\
          Upgrade: websocket\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept_key);
    out.extend_from_slice(b"\r\n");
    if let Some(name) = subprotocol {
        out.extend_from_slice(b"Sec-WebSocket-Protocol: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(extra_header_lines);
    out.extend_from_slice(b"\r\n");
}

/// Whether this is the one base64 form of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    // The decoder wants room for what 24 characters could be without padding.
    let mut bytes = [0; 18];
    BASE64_STANDARD.decode_slice(key, &mut bytes) == Ok(16)
}

fn check_subprotocols(subprotocols: Subprotocols<'_>) -> Result<(), HandshakeError> {
    for (index, name) in subprotocols.iter().enumerate() {
        // A bound on the names makes the quadratic search for repeated ones cheap.
        let is_repeated = || subprotocols.iter().take(index).any(|other| other == name);
        if index == MAX_SUBPROTOCOLS || !is_token(name.as_bytes()) || is_repeated() {
            return Err(HandshakeError::Subprotocols);
        }
    }
    Ok(())
}

const PROTOCOL: &str = "sec-websocket-protocol";
const MAX_SUBPROTOCOLS: usize = 64;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
