//! Messages and WebSocket handshakes as handlers see them.

use std::{borrow::Cow, ops::Deref, str::Utf8Error};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{Response, Text};

/// A message to or from a connection.
///
/// On a WebSocket the two kinds are told apart; on a TCP connection both are just bytes.
/// Strings become text, bytes become binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(Text),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// Text from bytes, if they are UTF-8.
    pub fn text_from(bytes: impl Into<Bytes>) -> Result<Self, Utf8Error> {
        Ok(Message::Text(Text::try_from(bytes.into())?))
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Message::Text(text) => Some(text),
            Message::Binary(_) => None,
        }
    }

    /// The bytes of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Message::Text(text) => text.as_ref(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// The bytes of either kind.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Message::Text(text) => text.into_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// Whether it is text.
    pub fn is_text(&self) -> bool {
        matches!(self, Message::Text(_))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Message::Text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Message::Text(text.into())
    }
}

/// Copies the text.
impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Message::Text(text.into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Message::Binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Message::Binary(bytes.into())
    }
}

/// Copies the bytes.
impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Message::Binary(Bytes::copy_from_slice(bytes))
    }
}

/// Copies the bytes.
impl<const N: usize> From<&[u8; N]> for Message {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

/// Copies the bytes.
impl<const N: usize> From<[u8; N]> for Message {
    fn from(bytes: [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

/// The request of a WebSocket handshake. Derefs to `http::Request<()>`; its extensions carry the
/// [`Peer`](crate::Peer) and, on a network, its `SocketAddr`; behind a trusted proxy also
/// [`ViaProxy`](crate::ViaProxy).
#[derive(Debug)]
pub struct Handshake {
    request: http::Request<()>,
}

impl Handshake {
    pub(crate) fn new(request: http::Request<()>) -> Self {
        Handshake { request }
    }

    /// The path, as sent: `/chat`.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// The first parameter of this name in the query, decoded (`%20` and `+` are spaces).
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.request.uri().query()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value).into_owned())
        })
    }

    /// The first header of this name, if it is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }

    /// The first cookie of this name, as sent.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.request.headers().get_all(header::COOKIE);
        cookies
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                (key.trim() == name).then(|| value.trim().trim_matches('"'))
            })
    }

    /// The subprotocols that the client offers, the one it likes best first.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        let offers = self
            .request
            .headers()
            .get_all(header::SEC_WEBSOCKET_PROTOCOL);
        offers
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|protocol| !protocol.is_empty())
    }

    /// The request itself.
    pub fn into_request(self) -> http::Request<()> {
        self.request
    }
}

impl Deref for Handshake {
    type Target = http::Request<()>;

    fn deref(&self) -> &http::Request<()> {
        &self.request
    }
}

/// What [`Handler::open`](crate::Handler::open) answers.
///
/// ```
/// use gannet::{Accept, http::StatusCode};
///
/// let welcome = Accept::new().protocol("chat.v1").header("x-server", "a");
/// let refusal = Accept::refuse_with(StatusCode::UNAUTHORIZED, "a token is needed");
/// # drop((welcome, refusal));
/// ```
#[derive(Debug)]
#[must_use = "it has to be returned from `open`"]
pub struct Accept {
    pub(crate) answer: Answer,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Accept(HeaderMap),
    Refuse(Box<Response>),
    /// A header that cannot be sent; the handshake fails with it.
    Invalid(String),
}

impl Accept {
    /// Opens the WebSocket.
    pub fn new() -> Self {
        Accept {
            answer: Answer::Accept(HeaderMap::new()),
        }
    }

    /// Chooses a subprotocol; it must be one that the client [offers](Handshake::protocols).
    pub fn protocol(self, protocol: impl AsRef<str>) -> Self {
        self.header("sec-websocket-protocol", protocol)
    }

    /// Adds a header to the answer. One that cannot stand in HTTP fails the handshake with 500, and so
    /// does one that the engine writes itself, such as `Sec-WebSocket-Extensions`.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        if let Answer::Accept(headers) = &mut self.answer {
            match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                (Ok(name), Ok(_)) if ENGINES.contains(&name) => {
                    self.answer = Answer::Invalid(format!(
                        "`{name}` of a handshake is written by the engine: leave it out"
                    ));
                }
                (Ok(name), Ok(value)) => {
                    headers.append(name, value);
                }
                _ => {
                    self.answer =
                        Answer::Invalid(format!("`{name}: {value}` cannot be an HTTP header"))
                }
            }
        }
        self
    }

    /// Refuses the handshake with this response. The connection may be used for HTTP after it.
    pub fn refuse(response: Response) -> Self {
        Accept {
            answer: Answer::Refuse(Box::new(response)),
        }
    }

    /// Refuses the handshake with a status and a line of text.
    pub fn refuse_with(status: StatusCode, text: impl Into<String>) -> Self {
        let mut response = Response::new(text.into().into());
        *response.status_mut() = status;
        Accept::refuse(response)
    }

    /// Refuses with 403 (Forbidden).
    pub fn forbid() -> Self {
        Accept::refuse_with(StatusCode::FORBIDDEN, "forbidden\n")
    }
}

impl Default for Accept {
    fn default() -> Self {
        Accept::new()
    }
}

/// The headers of an accepted handshake that are not the handler's.
const ENGINES: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// Decodes `%XX` and `+`. What is no UTF-8 becomes replacement characters.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |index: usize| {
            bytes
                .get(index)
                .and_then(|byte| (*byte as char).to_digit(16))
        };
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(target: &str, headers: &[(&str, &str)]) -> Handshake {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Handshake::new(request.body(()).unwrap())
    }

    #[test]
    fn query_parameters_are_decoded() {
        let handshake = handshake("/ws?uid=ann%20b&empty&x=%e2%82%ac+1&x=2&bad=%4", &[]);
        assert_eq!(handshake.path(), "/ws");
        assert_eq!(handshake.query("uid").as_deref(), Some("ann b"));
        assert_eq!(handshake.query("empty").as_deref(), Some(""));
        assert_eq!(handshake.query("x").as_deref(), Some("\u{20ac} 1"));
        assert_eq!(handshake.query("bad").as_deref(), Some("%4"));
        assert_eq!(handshake.query("none"), None);
    }

    #[test]
    fn headers_that_the_engine_writes_are_refused() {
        for name in ["Connection", "Sec-WebSocket-Extensions", "content-length"] {
            let accept = Accept::new().header(name, "x");
            assert!(matches!(accept.answer, Answer::Invalid(_)), "{name}");
        }
        let accept = Accept::new().header("x-a", "b");
        assert!(matches!(accept.answer, Answer::Accept(_)));
    }

    #[test]
    fn cookies_and_protocols_are_split() {
        let headers = [
            ("cookie", "a=1; token=\"x=y\""),
            ("sec-websocket-protocol", "chat.v2, chat.v1"),
            ("sec-websocket-protocol", "plain"),
        ];
        let handshake = handshake("/", &headers);
        assert_eq!(handshake.cookie("token"), Some("x=y"));
        assert_eq!(handshake.cookie("b"), None);
        assert_eq!(
            handshake.protocols().collect::<Vec<_>>(),
            ["chat.v2", "chat.v1", "plain"]
        );
    }

    #[test]
    fn a_header_that_would_split_the_response_is_not_sent() {
        let accept = Accept::new().header("x-a", "1\r\nx-b: 2");
        assert!(matches!(accept.answer, Answer::Invalid(_)));
    }
}
