//! Reads a head in one pass, if it is of the kind that nearly all are: here as a whole, in HTTP/1.1,
//! with a path as its target.
//!
//! This way judges nothing. What it does not see to be in order gives `None`, and the careful way
//! ([`decode`](super::decode)), which goes line by line, decides and explains. What this one accepts, that
//! one accepts with the same result. A head that comes in pieces always goes the careful way; so
//! whatever holds for heads however they are cut compares the two.

use super::{
    bytes::{self, PATH, QUERY, TOKEN},
    head::{HeadFacts, RequestHead, RequestLine},
    headers::Headers,
    limits::{Limits, MAX_HEADERS, MAX_METHOD},
};

/// The head at the front of `input`, and its length.
pub(super) fn read<'a>(input: &'a [u8], limits: &Limits) -> Option<(usize, RequestHead<'a>)> {
    let (method, target) = method(input)?;
    if target.first() != Some(&b'/') {
        return None;
    }
    let mut target_len = 1 + bytes::run(&target[1..], PATH);
    if target.get(target_len) == Some(&b'?') {
        target_len += bytes::run(&target[target_len..], QUERY);
    }
    if target_len > limits.max_target {
        return None;
    }
    let (target, rest) = target.split_at(target_len);
    let section = rest.strip_prefix(b" HTTP/1.1\r\n")?;
    let line = RequestLine::with_path(method, std::str::from_utf8(target).ok()?)?;

    let mut facts = HeadFacts::default();
    let (mut at, mut count) = (0, 0);
    loop {
        let rest = &section[at..];
        if rest.first_chunk() == Some(b"\r\n") {
            break;
        }
        let name_len = bytes::run(rest, TOKEN);
        let value = rest[name_len..].strip_prefix(b":")?;
        if name_len == 0 {
            return None;
        }
        let value_len = bytes::value_end(value)?;
        if value[value_len..].first_chunk() != Some(b"\r\n") {
            return None;
        }
        facts.add(&rest[..name_len], &value[..value_len]).ok()?;
        at += name_len + 1 + value_len + 2;
        count += 1;
    }
    let len = input.len() - section.len() + at + 2;
    if len > limits.max_head_size || count > limits.max_headers.min(MAX_HEADERS) {
        return None;
    }
    let headers = Headers::counted(&section[..at], count);
    Some((len, facts.decide_plain(line, headers, limits)?))
}

/// The method, and what follows the space behind it.
#[inline]
fn method(input: &[u8]) -> Option<(&str, &[u8])> {
    if let Some(rest) = input.strip_prefix(b"GET ") {
        return Some(("GET", rest));
    }
    let (method, rest) = input.split_at(bytes::run(input, TOKEN));
    if method.is_empty() || method.len() > MAX_METHOD {
        return None;
    }
    Some((std::str::from_utf8(method).ok()?, rest.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::decode::{Decoder, Event};

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

    #[test]
    fn what_is_accepted_is_what_the_careful_way_accepts() {
        let head = b"GET /a?b=`c HTTP/1.1\r\nHost: a.example:80\r\nAccept:\t*/* \r\nEmpty:\r\n\
                     Content-Length: 5\r\nConnection: keep-alive, Upgrade\r\nExpect: 100-continue\r\n\r\nbody.";
        let limits = Limits {
            max_headers: 6,
            ..Limits::default()
        };
        assert!(read(head, &limits).is_some());
        // Each byte replaced by each that could mean something, left out, or doubled.
        let mut accepted = 0;
        for at in 0..head.len() {
            let others = b"\0\t\n\r !\"#,-/09:?@AZ[`a~\x7f\x80\xff";
            let replaced = others.iter().map(|byte| vec![*byte]);
            for piece in replaced.chain([vec![], vec![head[at]; 2], b"\r\n".to_vec()]) {
                let changed = [&head[..at], &piece, &head[at + 1..]].concat();
                for limits in [
                    limits,
                    Limits {
                        max_headers: 7,
                        max_target: 6,
                        max_head_size: head.len() - 5,
                        ..limits
                    },
                ] {
                    let quick = read(&changed, &limits);
                    let quick = quick.map(|(len, head)| (len, format!("{head:?}")));
                    if quick.is_some() {
                        accepted += 1;
                        let careful = carefully(&changed, &limits);
                        assert_eq!(quick, careful, "{}", changed.escape_ascii());
                    }
                }
            }
        }
        assert!(accepted > 1000, "{accepted}");
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
