//! Request line and headers (RFC 9112 sections 3 and 5).

use memchr::memchr;

use super::{
    body::{BodyFacts, BodyLength},
    error::RequestError,
    headers::{Headers, is_token},
    limits::{Limits, MAX_METHOD},
    target,
};

/// The version of HTTP that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunks, one request per connection unless both sides agree.
    Http10,
    /// HTTP/1.1. Later minor versions count as this one (RFC 9110 section 2.5).
    Http11,
    /// HTTP/2. Nothing here reads it: see [`http2`](crate::http2).
    Http2,
}

/// A request without its body. Borrows from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// A token of at most 32 bytes, known or not. Methods differ by case.
    pub method: &'a str,
    /// The target in the form that the method wants, not decoded: a path with its query,
    /// an http URL, `*` (OPTIONS) or `host:port` (CONNECT).
    pub target: &'a str,
    /// The version that the client speaks.
    pub version: Version,
    /// All headers, those of the connection too.
    pub headers: Headers<'a>,
    /// How the body that follows is framed.
    pub body: BodyLength,
    /// Whether the client lets the connection live after this request.
    pub keep_alive: bool,
    /// Whether the client waits for [`CONTINUE`](super::CONTINUE) before it sends the
    /// body. Never set without a body.
    pub expect_continue: bool,
    /// Whether the client asks for another protocol: HTTP/1.1 with an `Upgrade` header
    /// and `Connection: upgrade`. For WebSocket see
    /// [`handshake::check`](crate::websocket::handshake::check). If the answer is 101, the
    /// bytes after the `End` of this request belong to the other protocol: they must not be
    /// presented to this decoder.
    pub upgrade: bool,
}

/// A request line, judged as soon as it has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
    version: Version,
    /// The authority that the target names.
    authority: Option<&'a str>,
}

impl<'a> RequestLine<'a> {
    /// Parses a line without its CRLF.
    pub(super) fn parse(line: &'a [u8], limits: &Limits) -> Result<Self, RequestError> {
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let (Some(method), Some(target), Some(version)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(RequestError::bad(
                "the request line is not `method target version` with one space between them",
            ));
        };
        if !is_token(method) {
            return Err(RequestError::bad("the method is not a token"));
        }
        if method.len() > MAX_METHOD {
            return Err(long_method());
        }
        let version = parse_version(version)?;
        if target.len() > limits.max_target {
            return Err(long_target(limits));
        }

        let text = std::str::from_utf8(target).map_err(|_| {
            RequestError::bad("the request target holds a character that has to be percent-encoded")
        })?;
        // The method was checked to be ASCII.
        let method = std::str::from_utf8(method).unwrap_or_default();
        let authority = target::check(method, text)
            .map_err(|fault| RequestError::bad(format!("the request target {fault}")))?;
        Ok(Self {
            method,
            target: text,
            version,
            authority,
        })
    }

    /// Adds the headers, which were found by their line ends only.
    pub(super) fn with_headers(
        self,
        section: &'a [u8],
        count: usize,
        limits: &Limits,
    ) -> Result<RequestHead<'a>, RequestError> {
        let headers = Headers::parse(section, count)?;
        let mut facts = HeadFacts::default();
        for (name, value) in headers.fields() {
            facts.add(name, value)?;
        }
        facts.decide(self, headers, limits)
    }
}

/// What the headers say of the connection and of the body: collected line by line, then judged.
#[derive(Debug, Default)]
pub(super) struct HeadFacts<'a> {
    body: BodyFacts<'a>,
    hosts: usize,
    host: &'a [u8],
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    expect_continue: bool,
}

impl<'a> HeadFacts<'a> {
    /// Takes a header, whose name is a token.
    #[inline]
    pub(super) fn add(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), RequestError> {
        // The length tells most names apart without a look at their letters.
        match name.len() {
            4 if is_host_name(name) => {
                self.hosts += 1;
                self.host = value.trim_ascii();
                Ok(())
            }
            6 | 7 | 10 | 14 | 17 => self.add_rare(name, value.trim_ascii()),
            _ => Ok(()),
        }
    }

    /// Takes a header that is not in every request.
    fn add_rare(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), RequestError> {
        match name.len() {
            6 if is_word(name, b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(RequestError::new(417, "Expect knows `100-continue` only"));
                }
                self.expect_continue = true;
            }
            7 if is_word(name, b"upgrade") => self.upgrade = true,
            10 if is_word(name, b"connection") => {
                for option in value.split(|&byte| byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= is_word(option, b"close");
                    self.keep_alive |= is_word(option, b"keep-alive");
                    self.connection_upgrade |= is_word(option, b"upgrade");
                }
            }
            14 if is_word(name, b"content-length") => self.body.add_content_length(value),
            17 if is_word(name, b"transfer-encoding") => self.body.add_transfer_encoding(value),
            _ => {}
        }
        Ok(())
    }

    /// The head that they make with their line.
    pub(super) fn decide(
        &self,
        line: RequestLine<'a>,
        headers: Headers<'a>,
        limits: &Limits,
    ) -> Result<RequestHead<'a>, RequestError> {
        match self.hosts {
            0 if line.version == Version::Http11 => {
                return Err(RequestError::bad("Host is missing: HTTP/1.1 needs it"));
            }
            0 => {}
            1 if !target::is_host(self.host) => {
                return Err(RequestError::bad(
                    "Host is not a host name or address, maybe with port",
                ));
            }
            1 => {}
            _ => return Err(RequestError::bad("Host is there twice: send it once")),
        }
        if let Some(authority) = line.authority
            && self.hosts == 1
            && !target::same_authority(self.host, authority)
        {
            return Err(RequestError::bad(
                "Host and the request target name different hosts",
            ));
        }
        let body = self.body.decide(line.version, limits.max_body_size)?;
        Ok(self.head(line, headers, body))
    }

    /// Whether a header with this name may have to be added: told by its length and its first letter, as those
    /// that need it are few. `Host` is not among them.
    #[inline]
    pub(super) fn may_be_one(name: &[u8]) -> bool {
        let first = name.first().map_or(0, |first| first | 0x20);
        matches!(
            (name.len(), first),
            (6, b'e') | (7, b'u') | (10 | 14, b'c') | (17, b't')
        )
    }

    /// The head that they make with a path, in HTTP/1.1, if the host is known to be in order. `None`:
    /// [`HeadFacts::decide`] says what is wrong.
    pub(super) fn decide_plain(
        &self,
        method: &'a str,
        target: &'a str,
        headers: Headers<'a>,
        limits: &Limits,
    ) -> Option<RequestHead<'a>> {
        let line = RequestLine {
            method,
            target,
            version: Version::Http11,
            authority: None,
        };
        let body = self.body.decide(line.version, limits.max_body_size).ok()?;
        Some(self.head(line, headers, body))
    }

    /// Whether they say, in HTTP/1.1, that there is no body, and ask nothing of the connection. An `Upgrade` that the
    /// connection does not name means nothing, but is rare: it is taken for one that does.
    pub(super) fn mean_nothing(&self, limits: &Limits) -> bool {
        let body = self.body.decide(Version::Http11, limits.max_body_size);
        !self.close && !self.upgrade && matches!(body, Ok(BodyLength::None))
    }

    #[inline]
    fn head(
        &self,
        line: RequestLine<'a>,
        headers: Headers<'a>,
        body: BodyLength,
    ) -> RequestHead<'a> {
        let is_11 = line.version == Version::Http11;
        RequestHead {
            method: line.method,
            target: line.target,
            version: line.version,
            headers,
            body,
            keep_alive: !self.close && (is_11 || self.keep_alive),
            expect_continue: self.expect_continue && is_11 && body != BodyLength::None,
            upgrade: self.upgrade && self.connection_upgrade && is_11,
        }
    }
}

/// Whether these are the letters and hyphens of a word in small letters, in any case. In names and values, no other
/// characters become those by this bit.
#[inline]
fn is_word<const N: usize>(bytes: &[u8], word: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(bytes).is_ok_and(|bytes| bytes.map(|byte| byte | 0x20) == *word)
}

/// Whether a token is `host`, in any case.
#[inline]
pub(super) fn is_host_name(token: &[u8]) -> bool {
    <&[u8; 4]>::try_from(token).is_ok_and(|token| reads_host(*token))
}

/// Whether these are the letters of `host`, in any case.
#[inline]
pub(super) fn reads_host(letters: [u8; 4]) -> bool {
    // No other characters become these by this bit.
    u32::from_le_bytes(letters) | 0x2020_2020 == u32::from_le_bytes(*b"host")
}

/// The most bytes that a request line can have without breaking a limit, with its CRLF.
pub(super) fn longest_request_line(limits: &Limits) -> usize {
    let around = MAX_METHOD + "  HTTP/1.1\r\n".len();
    limits
        .max_target
        .saturating_add(around)
        .min(limits.max_head_size)
}

/// Why a request line that reached [`longest_request_line`] without an end is too long.
pub(super) fn long_request_line(line: &[u8], limits: &Limits) -> RequestError {
    match memchr(b' ', line) {
        Some(0..=MAX_METHOD) => long_target(limits),
        _ => long_method(),
    }
}

/// Refuses a first byte that begins no request, so that a client which speaks another
/// protocol learns it at once and does not wait.
pub(super) fn check_first_byte(byte: u8) -> Result<(), RequestError> {
    match byte {
        TLS_HANDSHAKE => Err(RequestError::bad(
            "this looks like TLS, but the port speaks plain HTTP: use http:// instead of https://",
        )),
        b'\n' => Err(RequestError::bad(
            "line 1 ends with LF alone: end lines with CR LF",
        )),
        byte if is_token(&[byte]) => Ok(()),
        _ => Err(RequestError::bad(
            "this is not HTTP: a request begins with a method",
        )),
    }
}

fn parse_version(version: &[u8]) -> Result<Version, RequestError> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            match (major, minor) {
                (b'1', b'0') => Ok(Version::Http10),
                (b'1', _) => Ok(Version::Http11),
                _ => Err(RequestError::new(
                    505,
                    "only HTTP/1.1 and HTTP/1.0 are spoken here",
                )),
            }
        }
        _ => Err(RequestError::bad(
            "the request line does not end with `HTTP/1.1` after one space and the target",
        )),
    }
}

fn long_target(limits: &Limits) -> RequestError {
    let limit = limits.max_target.min(limits.max_head_size);
    RequestError::new(
        414,
        format!("the request target is longer than {limit} bytes: shorten it"),
    )
}

fn long_method() -> RequestError {
    RequestError::new(
        501,
        format!("no method with more than {MAX_METHOD} bytes is known here"),
    )
}

/// The first byte of a TLS record that opens a connection.
const TLS_HANDSHAKE: u8 = 0x16;
