//! Reads a head in one pass, if it is of the kind that nearly all are: here as a whole, in HTTP/1.1,
//! with a path as its target.
//!
//! This way judges nothing. What it does not see to be in order gives `None`, and the careful way
//! ([`decode`](super::decode)), which goes line by line, decides and explains. What this one accepts, that
//! one accepts with the same result. A head that comes in pieces always goes the careful way; so
//! whatever holds for heads however they are cut compares the two.

use super::{
    bytes::{self, PATH, QUERY, TOKEN},
    head::{HeadFacts, RequestHead, is_host_name},
    headers::Headers,
    limits::{Limits, MAX_HEADERS, MAX_METHOD},
    target,
};

/// A request that asks nothing but to be answered: see [`Decoder::peek_plain`](super::Decoder::peek_plain).
///
/// On the wire it is the method, a space, a target, [`PlainHead::BETWEEN`], header lines and an empty line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainHead<'a> {
    method: &'a str,
    rest: &'a [u8],
    target_len: usize,
    lines: usize,
}

impl<'a> PlainHead<'a> {
    /// What stands between the target and the header lines.
    pub const BETWEEN: &'static [u8; 11] = b" HTTP/1.1\r\n";

    /// The length of the request.
    #[inline]
    pub fn len_on_wire(&self) -> usize {
        self.method.len() + 1 + self.rest.len() + 2
    }

    /// A token of at most 32 bytes, known or not.
    #[inline]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// A path with its query, not decoded, in ASCII.
    #[inline]
    pub fn target(&self) -> &'a [u8] {
        &self.rest[..self.target_len]
    }

    /// How many bytes the target has.
    #[inline]
    pub fn target_len(&self) -> usize {
        self.target_len
    }

    /// How many header lines there are.
    #[inline]
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// From the target to the last header line, as it stands on the wire.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// All headers, those of the connection too.
    pub fn headers(&self) -> Headers<'a> {
        let lines = &self.rest[self.target_len + Self::BETWEEN.len()..];
        Headers::counted(lines, self.lines)
    }
}

/// The head at the front of `input`, and its length.
pub(super) fn read<'a>(input: &'a [u8], limits: &Limits) -> Option<(usize, RequestHead<'a>)> {
    let mut facts = None;
    let head = walk(input, limits, &mut facts)?;
    let target = std::str::from_utf8(head.target()).ok()?;
    let facts = facts.unwrap_or_default();
    let request = facts.decide_plain(head.method, target, head.headers(), limits)?;
    Some((head.len_on_wire(), request))
}

/// The head at the front of `input`, if there is nothing to it.
pub(super) fn peek<'a>(input: &'a [u8], limits: &Limits) -> Option<PlainHead<'a>> {
    let mut facts = None;
    let head = walk(input, limits, &mut facts)?;
    facts
        .is_none_or(|facts| facts.mean_nothing(limits))
        .then_some(head)
}

/// What a head is made of, if all is well so far. What its `facts` mean together is not known yet, but that its
/// host is in order; there are none, if no header is there that could be one.
#[inline(always)]
fn walk<'a>(
    input: &'a [u8],
    limits: &Limits,
    facts: &mut Option<HeadFacts<'a>>,
) -> Option<PlainHead<'a>> {
    let (method, rest) = method(input)?;
    let target_len = path(rest)?;
    let section = rest[target_len..].strip_prefix(PlainHead::BETWEEN)?;
    // It is to come first (RFC 9110 section 7.2).
    let (lines, end) = match target::behind_host(section) {
        Some(end) if end.first_chunk() == Some(b"\r\n") => (1, end),
        Some(end) => others(end, 1, facts)?,
        None => others(section, 0, facts)?,
    };
    if target_len > limits.max_target
        || input.len() - end.len() + 2 > limits.max_head_size
        || lines > limits.max_headers.min(MAX_HEADERS)
    {
        return None;
    }
    Some(PlainHead {
        method,
        rest: &rest[..rest.len() - end.len()],
        target_len,
        lines,
    })
}

/// Goes through the header lines behind the one of the host, if that stands in front (`hosts` is 1, else 0): how many
/// there are with it, and what is behind them, which begins with the empty line.
#[inline(never)]
fn others<'a>(
    mut rest: &'a [u8],
    mut hosts: usize,
    facts: &mut Option<HeadFacts<'a>>,
) -> Option<(usize, &'a [u8])> {
    let mut count = hosts;
    while rest.first_chunk() != Some(b"\r\n") {
        let (name, value) = rest.split_at(bytes::run::<TOKEN>(rest));
        let value = value.strip_prefix(b":")?;
        let (value, behind) = value.split_at(bytes::value_end(value)?);
        rest = behind.strip_prefix(b"\r\n")?;
        count += 1;
        if name.is_empty() {
            return None;
        }
        if is_host_name(name) {
            hosts += 1;
            if !target::is_host(value.trim_ascii()) {
                return None;
            }
        } else if HeadFacts::may_be_one(name) {
            facts.get_or_insert_default().add(name, value).ok()?;
        }
    }
    (hosts == 1).then_some((count, rest))
}

/// The method, and what follows the space behind it. It is not the one whose target is no path.
#[inline]
fn method(input: &[u8]) -> Option<(&str, &[u8])> {
    match input.strip_prefix(b"GET ") {
        Some(rest) => Some(("GET", rest)),
        None => other_method(input),
    }
}

#[inline(never)]
fn other_method(input: &[u8]) -> Option<(&str, &[u8])> {
    let (method, rest) = input.split_at(bytes::run::<TOKEN>(input));
    if method.is_empty() || method.len() > MAX_METHOD || method == b"CONNECT" {
        return None;
    }
    Some((std::str::from_utf8(method).ok()?, rest.strip_prefix(b" ")?))
}

/// The length of the path, with its query, at the front.
#[inline(always)]
fn path(input: &[u8]) -> Option<usize> {
    match input {
        [b'/', b' ', ..] => Some(1),
        [b'/', ..] => Some(path_len(input)),
        _ => None,
    }
}

#[inline(never)]
fn path_len(input: &[u8]) -> usize {
    let len = bytes::run::<PATH>(input);
    match input.get(len) {
        Some(b'?') => len + bytes::run::<QUERY>(&input[len..]),
        _ => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{
        body::BodyLength,
        decode::{Decoder, Event},
    };

    /// What is read byte by byte, which is the careful way.
    fn carefully(input: &[u8], limits: &Limits) -> Option<(usize, String)> {
        let mut decoder = Decoder::new(*limits);
        for len in 1..=input.len() {
            let mut input = input[..len].to_vec();
            let decoded = decoder.decode(&mut input).ok()?;
            if let Some(Event::Head(head)) = decoded.event {
                return Some((decoded.used, format!("{head:?}")));
            }
            if decoded.used > 0 {
                return None;
            }
        }
        None
    }

    /// What [`peek`] has to find where [`read`] has found this.
    fn peeked<'a>(
        found: &Option<(usize, RequestHead<'a>)>,
        input: &'a [u8],
    ) -> Option<PlainHead<'a>> {
        let (len, head) = found.as_ref()?;
        let is_plain = head.body == BodyLength::None && head.keep_alive;
        let upgrades = head.headers.first("upgrade").is_some();
        if !is_plain || upgrades {
            return None;
        }
        let rest = &input[head.method.len() + 1..len - 2];
        let plain = PlainHead {
            method: head.method,
            rest,
            target_len: head.target.len(),
            lines: head.headers.len(),
        };
        assert_eq!(plain.target(), head.target.as_bytes());
        assert_eq!(plain.headers(), head.headers);
        assert_eq!(plain.len_on_wire(), *len);
        Some(plain)
    }

    #[test]
    fn what_is_accepted_is_what_the_careful_way_accepts() {
        let heads: [&[u8]; _] = [
            b"GET /a?b=`c HTTP/1.1\r\nHost: a.example:80\r\nAccept:\t*/* \r\nEmpty:\r\n\
              Content-Length: 5\r\nConnection: keep-alive, Upgrade\r\nExpect: 100-continue\r\n\r\nbody.",
            b"GET / HTTP/1.1\r\nHost: www.a-b.example:65535\r\n\r\n",
            b"HEAD /a HTTP/1.1\r\nX: y\r\nhost:127.0.0.1\t\r\nupgrade: h2c\r\n\r\n",
            b"GET /? HTTP/1.1\r\nhOsT: a_name~of.more.than.sixteen\r\n\
              Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nmore",
        ];
        let limits = Limits {
            max_headers: 6,
            ..Limits::default()
        };
        let mut accepted = 0;
        for head in heads {
            assert!(read(head, &limits).is_some());
            // Each byte replaced by each that could mean something, left out, or doubled.
            for at in 0..head.len() {
                let others = b"\0\t\n\r !\"#,-/09:?@AZ[`a~\x7f\x80\xff";
                let replaced = others.iter().map(|byte| vec![*byte]);
                for piece in replaced.chain([vec![], vec![head[at]; 2], b"\r\n".to_vec()]) {
                    let changed = [&head[..at], &piece, &head[at + 1..]].concat();
                    accepted += compare(&changed, &limits);
                    let other_limits = Limits {
                        max_headers: 7,
                        max_target: 6,
                        max_head_size: head.len() - 5,
                        ..limits
                    };
                    accepted += compare(&changed, &other_limits);
                }
            }
        }
        assert!(accepted > 3000, "{accepted}");
    }

    /// Compares the ways; 1 if the quick one accepts the head.
    fn compare(input: &[u8], limits: &Limits) -> usize {
        let quick = read(input, limits);
        assert_eq!(peek(input, limits), peeked(&quick, input));
        let Some((len, head)) = quick else {
            return 0;
        };
        let quick = Some((len, format!("{head:?}")));
        assert_eq!(quick, carefully(input, limits), "{}", input.escape_ascii());
        1
    }

    #[test]
    fn a_head_that_is_not_all_here_and_other_forms_are_left_to_the_careful_way() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for len in 0..head.len() {
            assert_eq!(read(&head[..len], &Limits::default()), None);
        }
        assert!(read(head, &Limits::default()).is_some());
        for other in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(read(other.as_bytes(), &Limits::default()), None, "{other}");
        }
    }
}
