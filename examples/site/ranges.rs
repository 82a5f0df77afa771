//! Several ranges of a file in one request, which `ServeDir` does not answer: `multipart/byteranges`
//! (RFC 9110 sections 14 and 15.3.7). A layer: `axum::middleware::from_fn(several_ranges)`.
//!
//! The files are asked with HEAD what there is, then for one range after the other, each when its
//! turn to be sent comes: one file is open at a time, and no part waits in memory. Each part is
//! wanted of the same file (`If-Match`, or the date); if it changes meanwhile, the response breaks off.
//!
//! | what is asked for | what comes out |
//! |---|---|
//! | one range, or what is no range | whatever the files say |
//! | something with another method than GET, or in another unit than bytes | as if no range were asked for |
//! | ranges that overlap or touch | they are one, at the place of the first of them |
//! | one range after that | 206 with this one, no multipart |
//! | some that lie behind the end | the others |
//! | nothing that is there | 416 |
//! | more than [`MOST`] ranges | 200 and the whole file: nobody needs so many, and they cost more than it |
//! | a file that is sent compressed | 200 and the whole file: ranges would be those of the compressed bytes |

use std::{
    fmt::Write,
    hash::{BuildHasher, Hasher, RandomState},
    io,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};

/// Answers requests for several ranges; all others go on as they are.
///
/// Goes right around the files, within `if_range` and what compresses.
pub(crate) async fn several_ranges(mut request: Request, next: Next) -> Response {
    let means_nothing = request
        .headers()
        .get(header::RANGE)
        .is_some_and(|range| request.method() != Method::GET || !is_of_bytes(range));
    if means_nothing {
        request.headers_mut().remove(header::RANGE);
    }
    let asked = request
        .headers()
        .get(header::RANGE)
        .and_then(|range| parse(range.to_str().ok()?));
    let Some(asked) = asked.filter(|asked| asked.len() > 1 && request.method() == Method::GET)
    else {
        return next.run(request).await;
    };
    let mut whole = request.into_parts().0;
    whole.headers.remove(header::RANGE);
    if asked.len() > MOST {
        return next.run(of(whole)).await;
    }
    let mut question = whole.clone();
    question.method = Method::HEAD;
    let there = next.clone().run(of(question)).await;
    let Some(length) = length_of(&there) else {
        return next.run(of(whole)).await;
    };
    match resolve(&asked, length)[..] {
        [] => nothing_there(length),
        [(first, last)] => next.run(of(part_of(&whole, first, last))).await,
        ref ranges => multipart(there.headers(), whole, next, ranges, length),
    }
}

/// Whether a `Range` header is about bytes: the files would refuse one that counts in anything else,
/// which has to be ignored.
fn is_of_bytes(range: &HeaderValue) -> bool {
    let unit = range.as_bytes().split(|&byte| byte == b'=').next();
    unit.is_some_and(|unit| unit.trim_ascii().eq_ignore_ascii_case(b"bytes"))
}

/// One range as it is asked for: from, to; from; the last so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    From(u64, Option<u64>),
    Last(u64),
}

/// The ranges of a `Range` header; `None` if it is no list of ranges of bytes.
fn parse(range: &str) -> Option<Vec<Asked>> {
    let (unit, list) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // One that is too large lies behind every end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let ranges = list.split(',').map(str::trim).filter(|it| !it.is_empty());
    ranges
        .map(|range| match range.split_once('-')? {
            ("", last) => Some(Asked::Last(number(last)?)),
            (first, "") => Some(Asked::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Asked::From(first, Some(last)))
            }
        })
        .collect()
}

/// First and last byte of what is there of the ranges, in the order in which they were asked for;
/// those that overlap or touch are one.
fn resolve(asked: &[Asked], length: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64, usize)> = asked
        .iter()
        .enumerate()
        .filter_map(|(place, &asked)| match asked {
            Asked::From(first, last) if first < length => {
                Some((first, last.unwrap_or(u64::MAX).min(length - 1), place))
            }
            Asked::Last(count) if count > 0 && length > 0 => {
                Some((length.saturating_sub(count), length - 1, place))
            }
            _ => None,
        })
        .collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let touches = next.0 <= before.1 + 1;
        if touches {
            before.1 = before.1.max(next.1);
            before.2 = before.2.min(next.2);
        }
        touches
    });
    ranges.sort_unstable_by_key(|&(_, _, place)| place);
    let ranges = ranges.into_iter();
    ranges.map(|(first, last, _)| (first, last)).collect()
}

/// The length of a file that is there, and is sent as it is.
fn length_of(there: &Response) -> Option<u64> {
    let headers = there.headers();
    if there.status() != StatusCode::OK || headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn nothing_there(length: u64) -> Response {
    let range = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
    (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response()
}

/// The request for one range.
fn part_of(whole: &Parts, first: u64, last: u64) -> Parts {
    let mut part = whole.clone();
    if let Ok(range) = HeaderValue::try_from(format!("bytes={first}-{last}")) {
        part.headers.insert(header::RANGE, range);
    }
    part
}

fn of(parts: Parts) -> Request {
    Request::from_parts(parts, Body::empty())
}

fn multipart(
    there: &HeaderMap,
    whole: Parts,
    next: Next,
    ranges: &[(u64, u64)],
    length: u64,
) -> Response {
    let boundary = boundary();
    let kind = there
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let mut parts = Vec::new();
    for (n, &(first, last)) in ranges.iter().enumerate() {
        let before = if n == 0 { "" } else { "\r\n" };
        let mut head = format!("{before}--{boundary}\r\n");
        if let Some(kind) = kind {
            let _ = write!(head, "Content-Type: {kind}\r\n");
        }
        let _ = write!(head, "Content-Range: bytes {first}-{last}/{length}\r\n\r\n");
        parts.push((head, same_file(part_of(&whole, first, last), there)));
    }
    let end = format!("\r\n--{boundary}--\r\n");
    let data: u64 = ranges.iter().map(|(first, last)| last - first + 1).sum();
    let heads: usize = parts.iter().map(|(head, _)| head.len()).sum();
    let total = data + (heads + end.len()) as u64;

    let sent = stream::iter(parts)
        .then(move |(head, part)| {
            let next = next.clone();
            async move {
                let response = next.run(of(part)).await;
                let content: Body = match response.status() {
                    StatusCode::PARTIAL_CONTENT => response.into_body(),
                    _ => return Err(io::Error::other("the file has changed meanwhile")),
                };
                let head = stream::once(async { Ok(Bytes::from(head)) });
                Ok(head.chain(content.into_data_stream().map_err(io::Error::other)))
            }
        })
        .try_flatten()
        .chain(stream::once(async { Ok(Bytes::from(end)) }));
    let mut response = Response::new(Body::from_stream(sent));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    *headers = there.clone();
    headers.insert(header::CONTENT_LENGTH, total.into());
    if let Ok(kind) = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// The part is to be one of the file that the head speaks of.
fn same_file(mut part: Parts, there: &HeaderMap) -> Parts {
    for (of_file, condition) in [
        (header::ETAG, header::IF_MATCH),
        (header::LAST_MODIFIED, header::IF_UNMODIFIED_SINCE),
    ] {
        part.headers.remove(&condition);
        if let Some(value) = there.get(of_file) {
            part.headers.insert(condition, value.clone());
        }
    }
    // Whether it is new to the client has been answered.
    part.headers.remove(header::IF_NONE_MATCH);
    part.headers.remove(header::IF_MODIFIED_SINCE);
    part
}

/// What no file has in it but by a chance of one in 2 to the 128th.
fn boundary() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// Most ranges of one request.
pub(crate) const MOST: usize = 16;
