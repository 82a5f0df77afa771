//! Responses, appended to an output buffer.

use super::{date, error::RequestError, head::Version, status::reason_phrase};

/// The interim response that a client with `Expect: 100-continue` waits for.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response without its body.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// 100 to 999.
    pub status: u16,
    /// Whole `name: value\r\n` lines, made from validated names and values, without those
    /// that the engine writes (see [`is_engine_header`]).
    pub headers: &'a [u8],
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the connection lives after this response.
    pub keep_alive: bool,
    /// The version that the client speaks. The response itself is always HTTP/1.1.
    pub version: Version,
    /// The time, if the server has a clock.
    pub date: Option<&'a Date>,
}

/// What a method means for the framing of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// HEAD: the head of what GET would have.
    Head,
    /// CONNECT: a tunnel.
    Connect,
    /// Any other method.
    #[default]
    Other,
}

impl Asked {
    /// By this method.
    pub fn by(method: &str) -> Self {
        match method {
            "HEAD" => Asked::Head,
            "CONNECT" => Asked::Connect,
            _ => Asked::Other,
        }
    }
}

/// How the client finds the end of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes: `Content-Length`. In the answer to HEAD, the length that GET
    /// would have had, and no body.
    Length(u64),
    /// After the last chunk: `Transfer-Encoding: chunked`. Never to HTTP/1.0; in HTTP/2 at the end
    /// of the stream.
    Chunked,
    /// There is no body and no word about it: 1xx, 204, 304, and HEAD without a length.
    None,
    /// At the end of the connection: HTTP/1.0 without a length.
    Close,
}

impl Framing {
    /// The framing that a response must have.
    ///
    /// `length` is the length of the body if it is known before the body is sent.
    ///
    /// ```
    /// use gannet_proto::http1::{Asked, Framing, Version};
    ///
    /// let choose = |version, status, length| Framing::choose(version, Asked::Other, status, length);
    /// assert_eq!(choose(Version::Http11, 200, None), Framing::Chunked);
    /// assert_eq!(choose(Version::Http10, 200, None), Framing::Close);
    /// assert_eq!(choose(Version::Http11, 204, Some(0)), Framing::None);
    /// ```
    #[inline]
    pub fn choose(version: Version, method: Asked, status: u16, length: Option<u64>) -> Self {
        let is_bodiless = matches!(status, 100..=199 | 204 | 304);
        // In HTTP/2 a tunnel is made of DATA frames, as bodies are.
        let is_tunnel =
            method == Asked::Connect && matches!(status, 200..=299) && version != Version::Http2;
        match length {
            _ if is_bodiless || is_tunnel => Self::None,
            Some(length) => Self::Length(length),
            None if method == Asked::Head => Self::None,
            None if version == Version::Http10 => Self::Close,
            None => Self::Chunked,
        }
    }
}

/// Appends status line, headers and the empty line.
///
/// The engine's own headers come first: `Date`, then `Connection` where the version does
/// not already say it, then what the framing needs. A connection whose end frames the
/// body is never kept alive.
pub fn encode_response_head(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    debug_assert!(head.framing != Framing::Chunked || head.version == Version::Http11);

    out.reserve(ENGINE_HEADERS_SIZE + head.headers.len());
    push_front(out, head);
    out.extend_from_slice(head.headers);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response as nearly all are: with status 200, a body of a known length, and in HTTP/1.1 on a connection that
/// goes on. `rest` is the headers as in [`ResponseHead::headers`], an empty line, and the body or its beginning.
pub fn encode_usual(out: &mut Vec<u8>, date: &Date, length: u64, rest: &[u8]) {
    out.reserve(ENGINE_HEADERS_SIZE + rest.len());
    out.extend_from_slice(&date.usual);
    push_digits(out, length);
    out.extend_from_slice(rest);
}

/// What is in front of the headers that come from the caller.
fn push_front(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    push_status_line(out, head.status);
    if let Some(date) = head.date {
        out.extend_from_slice(date.line());
    }
    let is_interim = matches!(head.status, 100..=199);
    let keep_alive = head.keep_alive && head.framing != Framing::Close;
    out.extend_from_slice(match (keep_alive, head.version) {
        _ if is_interim => b"",
        (true, Version::Http11 | Version::Http2) => b"",
        (true, Version::Http10) => b"Connection: keep-alive\r\n",
        (false, _) => b"Connection: close\r\n",
    });
    match head.framing {
        Framing::Length(length) => push_length(out, length),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
}

/// Appends a chunk. Empty data gives nothing: an empty chunk would end the body.
pub fn encode_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + 20);
    push_hexadecimal(out, data.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and the trailers: whole `name: value\r\n` lines, or nothing.
pub fn encode_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole error response: the message as plain text, and `Connection: close`.
pub fn encode_error(out: &mut Vec<u8>, error: &RequestError, date: Option<&Date>) {
    let body = error.message();
    let head = ResponseHead {
        status: error.status(),
        headers: b"Content-Type: text/plain; charset=utf-8\r\n",
        framing: Framing::Length(body.len() as u64 + 1),
        keep_alive: false,
        version: Version::Http11,
        date,
    };
    encode_response_head(out, &head);
    out.extend_from_slice(body.as_bytes());
    out.push(b'\n');
}

/// Whether a header is the engine's to write: `Content-Length`, `Transfer-Encoding`,
/// `Connection`, `Date`, and the names that HTTP/1 treats like `Connection`. The caller
/// leaves them out of [`ResponseHead::headers`].
///
/// ```
/// use gannet_proto::http1::is_engine_header;
///
/// assert!(is_engine_header("content-length"));
/// assert!(!is_engine_header("Content-Type"));
/// ```
pub fn is_engine_header(name: &str) -> bool {
    [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
    ]
    .iter()
    .any(|engine| name.eq_ignore_ascii_case(engine))
}

#[inline]
fn push_status_line(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        return out.extend_from_slice(STATUS);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    let mut digits = [0; 20];
    let start = write_digits::<10>(&mut digits, u64::from(status));
    out.extend_from_slice(&digits[start..]);
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(LENGTH);
    push_digits(out, length);
}

/// Appends a number and the end of its line.
#[inline]
fn push_digits(out: &mut Vec<u8>, number: u64) {
    if number < 100 {
        // Copied as a whole: two digits more than a call for two digits.
        let (tens, ones) = (b'0' + (number / 10) as u8, b'0' + (number % 10) as u8);
        let (line, len) = match number {
            0..10 => ([ones, b'\r', b'\n', 0], 3),
            _ => ([tens, ones, b'\r', b'\n'], 4),
        };
        let end = out.len() + len;
        out.extend_from_slice(&line);
        return out.truncate(end);
    }
    let mut line = [0; 22];
    line[20..].copy_from_slice(b"\r\n");
    let start = write_digits::<10>(&mut line[..20], number);
    out.extend_from_slice(&line[start..]);
}

fn push_hexadecimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let start = write_digits::<16>(&mut digits, number);
    out.extend_from_slice(&digits[start..]);
}

/// Writes a number to the end of `to`, which has room for it; says where it begins.
#[inline]
fn write_digits<const BASE: u64>(to: &mut [u8], mut number: u64) -> usize {
    let mut start = to.len();
    loop {
        start -= 1;
        to[start] = b"0123456789abcdef"[(number % BASE) as usize];
        number /= BASE;
        if number == 0 {
            return start;
        }
    }
}

/// A `Date`, and what stands around it in nearly all responses: made once a second.
#[derive(Clone, Copy, Debug)]
pub struct Date {
    usual: [u8; STATUS.len() + LINE + LENGTH.len()],
}

impl Date {
    /// The time in seconds since 1970-01-01 00:00:00 UTC.
    pub fn at(unix_seconds: u64) -> Self {
        let mut usual = [0; _];
        let (status, rest) = usual.split_at_mut(STATUS.len());
        let (line, length) = rest.split_at_mut(LINE);
        status.copy_from_slice(STATUS);
        line.copy_from_slice(b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        line[6..LINE - 2].copy_from_slice(&date::format(unix_seconds));
        length.copy_from_slice(LENGTH);
        Date { usual }
    }

    /// The value of the header.
    pub fn value(&self) -> &[u8] {
        &self.line()[6..LINE - 2]
    }

    fn line(&self) -> &[u8] {
        &self.usual[STATUS.len()..][..LINE]
    }
}

const STATUS: &[u8; 17] = b"HTTP/1.1 200 OK\r\n";
/// The length of the line that gives the date.
const LINE: usize = 37;
const LENGTH: &[u8; 16] = b"Content-Length: ";
/// Room for everything in a head that does not come from the caller.
const ENGINE_HEADERS_SIZE: usize = 192;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(framing: Framing, keep_alive: bool, version: Version) -> String {
        let mut out = Vec::new();
        let head = ResponseHead {
            status: 200,
            headers: b"A: b\r\n",
            framing,
            keep_alive,
            version,
            date: None,
        };
        encode_response_head(&mut out, &head);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_length_is_announced() {
        assert_eq!(
            encoded(Framing::Length(0), true, Version::Http11),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b\r\n\r\n"
        );
        assert!(
            encoded(Framing::Length(u64::MAX), true, Version::Http11)
                .contains("\r\nContent-Length: 18446744073709551615\r\n")
        );
    }

    #[test]
    fn what_is_usual_is_written_as_all_else() {
        let date = Date::at(784_111_777);
        assert_eq!(date.value(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        for length in [0, 1, 9, 10, 11, 99, 100, 101, 12_345, u64::MAX] {
            let head = ResponseHead {
                status: 200,
                headers: b"A: b\r\n",
                framing: Framing::Length(length),
                keep_alive: true,
                version: Version::Http11,
                date: Some(&date),
            };
            let (mut usual, mut other) = (Vec::new(), Vec::new());
            encode_usual(&mut usual, &date, length, b"A: b\r\n\r\nbody");
            encode_response_head(&mut other, &head);
            other.extend_from_slice(b"body");
            let expected = format!(
                "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 Content-Length: {length}\r\nA: b\r\n\r\nbody"
            );
            assert_eq!(String::from_utf8(usual).unwrap(), expected);
            assert_eq!(String::from_utf8(other).unwrap(), expected);
        }
    }

    #[test]
    fn http_1_0_is_told_that_the_connection_lives() {
        assert_eq!(
            encoded(Framing::Length(12), true, Version::Http10),
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 12\r\nA: b\r\n\r\n"
        );
    }

    #[test]
    fn a_body_that_ends_with_the_connection_closes_it() {
        assert_eq!(
            encoded(Framing::Close, true, Version::Http10),
            "HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\n\r\n"
        );
    }

    #[test]
    fn chunks_have_hexadecimal_sizes_and_an_end() {
        let mut out = Vec::new();
        encode_chunk(&mut out, &[b'x'; 26]);
        encode_chunk(&mut out, b"");
        encode_last_chunk(&mut out, b"A: b\r\n");
        assert_eq!(
            out,
            b"1a\r\nxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n0\r\nA: b\r\n\r\n"
        );
    }

    #[test]
    fn an_error_is_a_whole_response() {
        let mut out = Vec::new();
        encode_error(&mut out, &RequestError::new(400, "no"), Some(&Date::at(0)));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 400 Bad Request\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Connection: close\r\nContent-Length: 3\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\r\nno\n"
        );
    }

    #[test]
    fn framing_follows_method_status_and_version() {
        use Framing::{Close, Length, None as Nothing};
        use Version::{Http10, Http11};
        for (version, method, status, length, framing) in [
            (Http11, "GET", 200, Some(5), Length(5)),
            (Http11, "HEAD", 200, Some(5), Length(5)),
            (Http11, "HEAD", 200, None, Nothing),
            (Http11, "GET", 304, Some(5), Nothing),
            (Http11, "GET", 101, None, Nothing),
            (Http11, "CONNECT", 200, Some(0), Nothing),
            (Http11, "CONNECT", 404, Some(3), Length(3)),
            (Http11, "GET", 200, None, Framing::Chunked),
            (Http10, "GET", 200, None, Close),
        ] {
            assert_eq!(
                Framing::choose(version, Asked::by(method), status, length),
                framing,
                "{method} {status}"
            );
        }
    }
}
