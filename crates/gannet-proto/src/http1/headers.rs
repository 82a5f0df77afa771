//! A header or trailer section, checked once and then iterated in place.

use std::{fmt, ops::Range};

use memchr::{memchr, memchr_iter};

use super::{
    bytes::{TOKEN, find_colon, run, text_end, value_end},
    error::RequestError,
    limits::MAX_HEADERS,
};

/// The lines of a header or trailer section, in the order of the wire.
///
/// Nothing is copied: iterating splits the lines again, which is cheap, as they are known
/// to be well formed. Names keep the case that the peer chose.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a> {
    /// Whole lines, each with its line end, without the empty line.
    lines: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// Checks a section that ends with its empty line and has `count` lines before it.
    pub(super) fn parse(section: &'a [u8], count: usize) -> Result<Self, RequestError> {
        // Most requests have few headers: room for all that are allowed costs more.
        let result = match count {
            0..=6 => httparse::parse_headers(section, &mut [httparse::EMPTY_HEADER; 6]).err(),
            7..=24 => httparse::parse_headers(section, &mut [httparse::EMPTY_HEADER; 24]).err(),
            _ => httparse::parse_headers(section, &mut [httparse::EMPTY_HEADER; MAX_HEADERS]).err(),
        };
        match result {
            Some(_) => Err(explain(section)),
            None => Ok(Self {
                lines: &section[..section.len() - 2],
                count,
            }),
        }
    }

    /// Lines that another parser has checked.
    pub(crate) fn from_validated(lines: &'a [u8]) -> Self {
        Self::counted(lines, memchr_iter(b'\n', lines).count())
    }

    /// The same, if it has counted them too.
    pub(super) fn counted(lines: &'a [u8], count: usize) -> Self {
        Self { lines, count }
    }

    /// Names and values; values without white space around them.
    pub fn iter(self) -> HeadersIter<'a> {
        HeadersIter { rest: self.lines }
    }

    /// As [`Headers::iter`], with names as bytes.
    pub fn fields(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.lines;
        std::iter::from_fn(move || next_field(&mut rest))
    }

    /// All values of a name, without regard to case.
    pub fn all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The first value of a name, without regard to case.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The value of a name that is there exactly once, without regard to case.
    pub fn only(self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// Whether there is no line.
    pub fn is_empty(self) -> bool {
        self.lines.is_empty()
    }

    /// How many lines there are.
    pub fn len(self) -> usize {
        self.count
    }

    /// The lines as they stand on the wire, each with its CRLF.
    pub fn as_bytes(self) -> &'a [u8] {
        self.lines
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, value)| (name, value.escape_ascii().to_string())),
            )
            .finish()
    }
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers<'_> {}

/// Iterates over [`Headers`].
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = next_field(&mut self.rest)?;
        // The name was checked to be ASCII.
        Some((std::str::from_utf8(name).unwrap_or_default(), value))
    }
}

/// Splits the next line off.
#[inline]
fn next_field<'a>(lines: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (name, rest) = lines.split_at(run::<TOKEN>(lines));
    let rest = rest.strip_prefix(b":")?;
    let end = match value_end(rest)? {
        end if rest[end..].starts_with(b"\r\n") => end + 2,
        // Other parsers, of responses, let a line end with LF alone.
        _ => memchr(b'\n', rest)? + 1,
    };
    let (value, rest) = rest.split_at(end);
    *lines = rest;
    Some((name, value.trim_ascii()))
}

/// Where the parts of a header line are: see [`split_line`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The length of the name, which comes first.
    pub name: usize,
    /// The value without white space around it, and without control characters but tabs.
    pub value: Range<usize>,
    /// Every byte of the value is ASCII.
    pub is_ascii: bool,
    /// The length of the line, with its CRLF.
    pub len: usize,
}

/// Cuts up the first of the lines that [`Headers::as_bytes`] gave, maybe in another process. What the
/// value may hold is looked at again, as that costs nothing: its end is where it holds something else.
///
/// `None`: there is no line, or it is not as the parser would have left it.
///
/// ```
/// use gannet_proto::http1::split_line;
///
/// let lines = b"Host: a.example\r\nAccept: */*\r\n";
/// let line = split_line(lines).unwrap();
/// assert_eq!((&lines[..line.name], &lines[line.value]), (&b"Host"[..], &b"a.example"[..]));
/// ```
#[inline]
pub fn split_line(lines: &[u8]) -> Option<Line> {
    let name = find_colon(lines)?;
    let mut start = name + 1;
    while matches!(lines.get(start), Some(b' ' | b'\t')) {
        start += 1;
    }
    let mut end = start + text_end(&lines[start..])?;
    let is_ascii = lines[end].is_ascii();
    if !is_ascii {
        end += value_end(&lines[end..])?;
    }
    if lines[end..].first_chunk() != Some(b"\r\n") {
        return None;
    }
    let len = end + 2;
    while end > start && matches!(lines[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    Some(Line {
        name,
        value: start..end,
        is_ascii,
        len,
    })
}

/// Whether a comma-separated list, the value of one header line, holds a token. Tokens
/// are compared without regard to case.
///
/// ```
/// use gannet_proto::http1::has_token;
///
/// assert!(has_token(b"keep-alive, Upgrade", "upgrade"));
/// assert!(!has_token(b"upgraded", "upgrade"));
/// ```
pub fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',')
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether the bytes are a token (RFC 9110 section 5.6.2): the form of methods and names.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && run::<TOKEN>(bytes) == bytes.len()
}

/// Whether a name may stand in a trailer section: nothing that frames, routes, modifies or
/// authenticates a request, or describes its content (RFC 9110 section 6.5.1).
pub(crate) fn is_trailer(name: &str) -> bool {
    !FORBIDDEN_TRAILERS
        .iter()
        .any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

/// Says what the parser did not like. Slow, but only once per connection.
fn explain(section: &[u8]) -> RequestError {
    let lines = section.split(|&byte| byte == b'\n').enumerate();
    for (index, line) in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let fault = match memchr(b':', line) {
            _ if line.starts_with(b" ") || line.starts_with(b"\t") => {
                "begins with white space: write each header on one line"
            }
            None => "has no colon: write `name: value`",
            Some(0) => "has no name: write `name: value`",
            Some(colon) if line[..colon].ends_with(b" ") || line[..colon].ends_with(b"\t") => {
                "has white space before its colon: write `name: value`"
            }
            Some(colon) if !is_token(&line[..colon]) => {
                "has a name with a character that no name may have"
            }
            Some(_)
                if line
                    .iter()
                    .any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f) =>
            {
                "has a control character in its value"
            }
            Some(_) => continue,
        };
        return RequestError::bad(format!("header line {} {fault}", index + 1));
    }
    RequestError::bad("the headers are malformed")
}

const FORBIDDEN_TRAILERS: [&str; 34] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iteration_gives_names_and_trimmed_values() {
        let headers = Headers::parse(b"A: 1\r\nb:\t two words \r\nC:\r\n\r\n", 3).unwrap();
        let pairs: Vec<_> = headers.iter().collect();
        assert_eq!(
            pairs,
            [("A", b"1".as_slice()), ("b", b"two words"), ("C", b"")]
        );
    }

    #[test]
    fn a_line_is_cut_as_the_parser_reads_it() {
        let values = [
            "1",
            "",
            " ",
            "two words",
            "\t a\tlong value of many bytes \t ",
            "x\u{e4}y and more",
        ];
        for name in ["a", "Sixteen-letters-", "x-a-name-that-is-long-for-a-name"] {
            for value in values {
                let section = format!("{name}:{value}\r\nb: c\r\n\r\n");
                let headers = Headers::parse(section.as_bytes(), 2).unwrap();
                let mut rest = headers.as_bytes();
                let mut cut = Vec::new();
                while !rest.is_empty() {
                    let line = split_line(rest).unwrap();
                    assert_eq!(line.is_ascii, rest[line.value.clone()].is_ascii());
                    cut.push((&rest[..line.name], &rest[line.value]));
                    rest = &rest[line.len..];
                }
                assert_eq!(cut, headers.fields().collect::<Vec<_>>());
                assert_eq!(cut.len(), headers.len());
            }
        }
    }

    #[test]
    fn a_line_that_no_parser_leaves_is_not_cut() {
        for line in [
            "",
            "a",
            "a: b",
            "a: b\n",
            "a: b\r",
            "a: \0\r\n",
            "a: b\x7f\r\n",
            "a: b\rc\r\n",
        ] {
            assert_eq!(split_line(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn only_wants_exactly_one() {
        let headers = Headers::parse(b"A: 1\r\nB: 2\r\na: 3\r\n\r\n", 3).unwrap();
        assert_eq!(headers.only("b"), Some(b"2".as_slice()));
        assert_eq!(headers.only("a"), None);
        assert_eq!(headers.first("a"), Some(b"1".as_slice()));
    }

    #[test]
    fn faults_are_explained_with_their_line() {
        let message = |section: &[u8]| Headers::parse(section, 3).unwrap_err().to_string();
        assert!(
            message(b"A: 1\r\n b\r\n\r\n").starts_with("header line 2 begins with white space")
        );
        assert!(message(b"A 1\r\n\r\n").starts_with("header line 1 has no colon"));
        assert!(message(b": 1\r\n\r\n").starts_with("header line 1 has no name"));
        assert!(message(b"A : 1\r\n\r\n").starts_with("header line 1 has white space before"));
        assert!(message(b"A\xff: 1\r\n\r\n").starts_with("header line 1 has a name with"));
        assert!(message(b"A: \x01\r\n\r\n").starts_with("header line 1 has a control character"));
    }
}
