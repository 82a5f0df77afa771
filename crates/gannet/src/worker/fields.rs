//! From header lines to a `HeaderMap`.
//!
//! The lines are those that the parser has accepted, names in any case. Values share the payload that they came in.
//!
//! That a value holds what it may is seen while its end is looked for ([`split_line`]): the crate `http` would look at
//! each byte once more. And most names are told by their length and one comparison; `http` would copy each in lower
//! case, and look that up.

use std::ops::Range;

use bytes::{Buf, Bytes};
use gannet_proto::http1::split_line;
use http::{HeaderMap, HeaderName, HeaderValue, header as known};

/// Appends the headers of the lines that stand here in a payload. `None`: there is one that the crate `http` does not
/// accept.
#[inline]
pub(crate) fn append(
    headers: &mut HeaderMap,
    mut payload: Bytes,
    lines: Range<usize>,
) -> Option<()> {
    let Range { start: mut at, end } = lines;
    while at < end {
        let rest = payload.get(at..end)?;
        let line = split_line(rest)?;
        let name = name(&rest[..line.name])?;
        let (first, last) = (at + line.value.start, at + line.value.end);
        at += line.len;
        if at == end {
            // Nobody needs the payload any more: this value has its share of it.
            payload.truncate(last);
            payload.advance(first);
            headers.append(name, value(payload, line.is_ascii)?);
            break;
        }
        headers.append(name, value(payload.slice(first..last), line.is_ascii)?);
    }
    Some(())
}

/// The value that is these bytes.
#[inline]
fn value(bytes: Bytes, is_ascii: bool) -> Option<HeaderValue> {
    match is_ascii {
        true => Some(value_of_text(bytes)),
        false => value_of_bytes(bytes),
    }
}

/// The value of any line: each byte is looked at once more.
#[cold]
fn value_of_bytes(bytes: Bytes) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes).ok()
}

/// The value of a line that is ASCII.
#[inline]
#[allow(
    unsafe_code,
    reason = "the bytes were looked at a moment ago; once more would cost more than all else here"
)]
fn value_of_text(value: Bytes) -> HeaderValue {
    // SAFETY: `split_line` ends a value at its first control character other than the tab, and says that one is ASCII
    // only if no byte of it is beyond. So there are only the tab and `b' '..=b'~'`, which is valid UTF-8, and all of
    // them are among what `HeaderValue` accepts. (With debug assertions, `http` checks that.)
    unsafe { HeaderValue::from_maybe_shared_unchecked(value) }
}

/// The name that these bytes are, in any case.
#[inline]
fn name(name: &[u8]) -> Option<HeaderName> {
    let found = match name.len() {
        4 if is(name, b"host") => known::HOST,
        6 if is(name, b"accept") => known::ACCEPT,
        6 if is(name, b"cookie") => known::COOKIE,
        6 if is(name, b"origin") => known::ORIGIN,
        7 if is(name, b"referer") => known::REFERER,
        10 if is(name, b"user-agent") => known::USER_AGENT,
        10 if is(name, b"connection") => known::CONNECTION,
        12 if is(name, b"content-type") => known::CONTENT_TYPE,
        13 if is(name, b"authorization") => known::AUTHORIZATION,
        13 if is(name, b"cache-control") => known::CACHE_CONTROL,
        13 if is(name, b"if-none-match") => known::IF_NONE_MATCH,
        14 if is(name, b"content-length") => known::CONTENT_LENGTH,
        15 if is(name, b"accept-encoding") => known::ACCEPT_ENCODING,
        15 if is(name, b"accept-language") => known::ACCEPT_LANGUAGE,
        17 if is(name, b"if-modified-since") => known::IF_MODIFIED_SINCE,
        25 if is(name, b"upgrade-insecure-requests") => known::UPGRADE_INSECURE_REQUESTS,
        _ => return other_name(name),
    };
    Some(found)
}

/// Any other. A call, or all names would pay for what few need.
#[inline(never)]
fn other_name(name: &[u8]) -> Option<HeaderName> {
    HeaderName::from_bytes(name).ok()
}

/// Whether a name, which is a token, is this one, which is in lower case.
#[inline]
fn is<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    // In a token, only letters become another byte of `known` by this bit.
    let differs = |name: &[u8; N]| {
        let pairs = name.iter().zip(known);
        pairs.fold(0, |differs, (byte, known)| differs | (byte | 0x20) ^ known)
    };
    name.first_chunk().is_some_and(|name| differs(name) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let payload = Bytes::from(format!("in front{lines}behind"));
        let lines = 8..8 + lines.len();
        append(&mut headers, payload, lines).map(|()| headers)
    }

    #[test]
    fn names_and_values_are_what_the_crate_http_makes_of_them() {
        let names = "host accept cookie origin referer user-agent connection content-type \
                     authorization cache-control if-none-match content-length accept-encoding \
                     accept-language if-modified-since upgrade-insecure-requests expect te range \
                     x-own sec-fetch-mode x hose accepts connectiom content_type";
        for lower in names.split(' ') {
            for name in [lower.to_owned(), lower.to_uppercase()] {
                for value in ["", "a", "a\tb  c", "\u{e4}", "x\u{e4}y and some more of it"] {
                    let lines = format!("{name}: {value}\r\nx-last:\t1 \r\n");
                    let mut expected = HeaderMap::new();
                    expected.append(
                        HeaderName::from_bytes(name.as_bytes()).unwrap(),
                        HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                    );
                    expected.append("x-last", HeaderValue::from_static("1"));
                    assert_eq!(read(&lines), Some(expected), "{lines:?}");
                }
            }
        }
    }

    #[test]
    fn values_of_one_name_keep_their_order() {
        let headers = read("a: 1\r\nb: 2\r\nA: 3\r\n").unwrap();
        assert_eq!(headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(
            (headers.len(), &headers["b"]),
            (3, &HeaderValue::from_static("2"))
        );
    }

    #[test]
    fn what_no_parser_leaves_is_refused() {
        assert_eq!(read(""), Some(HeaderMap::new()));
        for lines in [
            "a",
            "a: b",
            "a: b\n",
            "a: \0\r\n",
            "a\0: b\r\n",
            ": b\r\n",
            "a: b\r\n\r\n",
        ] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
    }
}
