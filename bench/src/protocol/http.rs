//! HTTP/1.1 on connections that are kept.

use std::sync::Arc;

use memchr::memmem;

use super::{Protocol, Step, Wrong};
use crate::payload::{Differs, MessageId, Payloads};

/// Requests and what must be answered.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    plan: Arc<Plan>,
    /// The last head and what it says: the next one is often the same.
    last: Option<(Vec<u8>, Head)>,
}

#[derive(Debug)]
struct Plan {
    /// Whole heads of requests, one for each size of a body.
    requests: Vec<Vec<u8>>,
    /// The request has a body, and the method is not HEAD.
    sends_body: bool,
    is_head: bool,
    status: u16,
    body: ExpectedBody,
}

/// What has to stand in the body of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedBody {
    /// The request's body.
    Echo,
    /// These bytes.
    Exactly(Vec<u8>),
    /// Whatever: only the status is looked at.
    Any,
}

/// What goes into a request, and what must come back.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    /// Whole lines.
    pub(crate) headers: &'a str,
    /// Sizes of the body, if there is one.
    pub(crate) sizes: Option<&'a [usize]>,
    pub(crate) status: u16,
    pub(crate) body: ExpectedBody,
}

/// Of a connection.
#[derive(Debug, Default)]
pub(crate) struct State {
    part: Part,
    status: u16,
    /// Where in the body the next byte stands.
    offset: usize,
    /// What has come of a head or a line.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// So much of a body with a length.
    Body(u64),
    ChunkSize,
    /// So much of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailers,
}

/// What a response's head says.
#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    length: Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(u64),
    Chunked,
}

impl Http {
    pub(crate) fn new(request: &Request<'_>) -> Self {
        let Request {
            method,
            path,
            host,
            headers,
            ..
        } = request;
        let start = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}");
        let requests = match request.sizes {
            None => vec![format!("{start}\r\n").into_bytes()],
            Some(sizes) => sizes
                .iter()
                .map(|size| format!("{start}Content-Length: {size}\r\n\r\n").into_bytes())
                .collect(),
        };
        Http {
            plan: Arc::new(Plan {
                requests,
                sends_body: request.sizes.is_some(),
                is_head: *method == "HEAD",
                status: request.status,
                body: request.body.clone(),
            }),
            last: None,
        }
    }

    /// Reads a head: how much of the input it takes, and what it says, if all of it is there.
    fn head(&mut self, state: &mut State, input: &[u8]) -> Result<(usize, Option<Head>), Wrong> {
        if let Some((last, head)) = &self.last
            && state.partial.is_empty()
            && input.starts_with(last)
        {
            return Ok((last.len(), Some(*head)));
        }
        let before = state.partial.len();
        state.partial.extend_from_slice(input);
        // The end may have begun in what came before.
        let from = before.saturating_sub(3);
        let Some(end) = memmem::find(&state.partial[from..], b"\r\n\r\n") else {
            if state.partial.len() > MAX_HEAD {
                return Err(Wrong::Protocol("the head of a response has no end".into()));
            }
            return Ok((input.len(), None));
        };
        let length = from + end + 4;
        state.partial.truncate(length);
        let head = self.plan.parse(&state.partial)?;
        self.last = Some((std::mem::take(&mut state.partial), head));
        Ok((length - before, Some(head)))
    }

    /// A piece of the body, at `state.offset`.
    fn check(
        &self,
        state: &mut State,
        piece: &[u8],
        id: MessageId,
        payloads: &Payloads,
    ) -> Result<(), Wrong> {
        let offset = state.offset;
        state.offset += piece.len();
        // Of an answer that says no, the body is of no interest.
        if state.status != self.plan.status {
            return Ok(());
        }
        match &self.plan.body {
            ExpectedBody::Any => {}
            ExpectedBody::Echo => payloads.check(id, offset, piece)?,
            ExpectedBody::Exactly(body) => {
                let expected = body.get(offset..).unwrap_or_default();
                if expected.get(..piece.len()) != Some(piece)
                    && let Some(differs) = Differs::between(0, expected, piece)
                {
                    return Err(differs.at(offset).into());
                }
            }
        }
        Ok(())
    }

    /// The response is whole.
    fn end(&self, state: &mut State, id: MessageId, payloads: &Payloads) -> Result<Step, Wrong> {
        let got = std::mem::take(&mut state.offset);
        state.part = Part::Head;
        if state.status != self.plan.status {
            return Ok(Step::Refused(state.status));
        }
        let expected = match &self.plan.body {
            _ if self.plan.is_head => 0,
            ExpectedBody::Any => got,
            ExpectedBody::Echo => payloads.size(id),
            ExpectedBody::Exactly(body) => body.len(),
        };
        match got == expected {
            true => Ok(Step::Answered),
            false => Err(Wrong::short(got, expected)),
        }
    }
}

impl Plan {
    fn parse(&self, head: &[u8]) -> Result<Head, Wrong> {
        let wrong = |what: &str| Err(Wrong::Protocol(what.into()));
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return wrong("a head in the middle of another"),
            Err(error) => {
                return Err(Wrong::Protocol(format!(
                    "no HTTP response ({error}): \"{}\"",
                    head[..head.len().min(32)].escape_ascii()
                )));
            }
        }
        let status = response.code.unwrap_or_default();
        let mut length = None;
        let mut chunked = false;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let digits = str::from_utf8(header.value).ok();
                let parsed = digits.and_then(|digits| digits.trim().parse::<u64>().ok());
                match (parsed, length) {
                    (Some(parsed), None) => length = Some(parsed),
                    (Some(parsed), Some(before)) if parsed == before => {}
                    _ => return wrong("a Content-Length that is none, or two of them"),
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if !header.value.eq_ignore_ascii_case(b"chunked") {
                    return wrong("a Transfer-Encoding that is not chunked");
                }
                chunked = true;
            }
        }
        let length = match (length, chunked) {
            _ if self.is_head || matches!(status, 100..200 | 204 | 304) => Length::Known(0),
            (Some(_), true) => return wrong("a Content-Length, and chunks as well"),
            (Some(length), false) => Length::Known(length),
            (None, true) => Length::Chunked,
            (None, false) => {
                return wrong("a body that ends when the connection does: it cannot be kept");
            }
        };
        Ok(Head { status, length })
    }
}

impl Protocol for Http {
    type State = State;

    fn encode(&mut self, out: &mut Vec<u8>, payloads: &Payloads, id: MessageId) {
        let requests = &self.plan.requests;
        if !self.plan.sends_body {
            out.extend_from_slice(&requests[0]);
            return;
        }
        out.extend_from_slice(&requests[payloads.turn(id.number)]);
        payloads.append(out, id);
    }

    fn decode(
        &mut self,
        state: &mut State,
        input: &[u8],
        expected: Option<MessageId>,
        payloads: &Payloads,
        _reply: &mut Vec<u8>,
    ) -> Result<(usize, Step), Wrong> {
        let Some(id) = expected else {
            return Err(Wrong::unasked(input));
        };
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match state.part {
                Part::Head => {
                    let (count, head) = self.head(state, rest)?;
                    used += count;
                    match head {
                        None => return Ok((used, Step::More)),
                        // More will come to this request.
                        Some(head) if (100..200).contains(&head.status) => continue,
                        Some(head) => {
                            state.status = head.status;
                            state.part = match head.length {
                                Length::Known(length) => Part::Body(length),
                                Length::Chunked => Part::ChunkSize,
                            };
                        }
                    }
                }
                Part::Body(left) | Part::Chunk(left) => {
                    let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.check(state, &rest[..count], id, payloads)?;
                    used += count;
                    let left = left - count as u64;
                    state.part = match state.part {
                        Part::Chunk(_) if left == 0 => Part::ChunkEnd,
                        Part::Chunk(_) => Part::Chunk(left),
                        _ => Part::Body(left),
                    };
                }
                Part::ChunkSize | Part::ChunkEnd | Part::Trailers => {
                    let (count, line) = take_line(&mut state.partial, rest)?;
                    used += count;
                    let Some(line) = line else { continue };
                    match state.part {
                        Part::ChunkSize => {
                            state.part = match chunk_size(&line)? {
                                0 => Part::Trailers,
                                size => Part::Chunk(size),
                            }
                        }
                        Part::ChunkEnd if line.is_empty() => state.part = Part::ChunkSize,
                        Part::ChunkEnd => {
                            return Err(Wrong::Protocol("a chunk is longer than it says".into()));
                        }
                        _ if line.is_empty() => return Ok((used, self.end(state, id, payloads)?)),
                        _ => {}
                    }
                }
            }
            if state.part == Part::Body(0) {
                return Ok((used, self.end(state, id, payloads)?));
            }
        }
        Ok((used, Step::More))
    }
}

/// Takes bytes up to a line end: how many, and the line, if it has come to its end.
fn take_line(partial: &mut Vec<u8>, input: &[u8]) -> Result<(usize, Option<Vec<u8>>), Wrong> {
    let end = memchr::memchr(b'\n', input);
    let used = end.map_or(input.len(), |end| end + 1);
    partial.extend_from_slice(&input[..used]);
    if partial.len() > MAX_HEAD {
        return Err(Wrong::Protocol("a line between chunks has no end".into()));
    }
    if end.is_none() {
        return Ok((used, None));
    }
    let mut line = std::mem::take(partial);
    line.pop();
    match line.pop() {
        Some(b'\r') => Ok((used, Some(line))),
        _ => Err(Wrong::Protocol(
            "a line between chunks ends without CR".into(),
        )),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Wrong> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    str::from_utf8(digits)
        .ok()
        .filter(|digits| !digits.starts_with('+'))
        .and_then(|digits| u64::from_str_radix(digits.trim_end(), 16).ok())
        .ok_or_else(|| {
            Wrong::Protocol(format!("\"{}\" is no size of a chunk", line.escape_ascii()))
        })
}

/// Largest head of a response.
const MAX_HEAD: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Alphabet;

    const ID: MessageId = MessageId {
        connection: 0,
        number: 0,
    };

    fn http(body: ExpectedBody) -> Http {
        Http::new(&Request {
            method: "GET",
            path: "/",
            host: "here",
            headers: "",
            sizes: None,
            status: 200,
            body,
        })
    }

    /// The steps that these bytes are, cut into pieces.
    fn steps(http: &mut Http, bytes: &str, size: usize) -> Result<Vec<Step>, Wrong> {
        let payloads = Payloads::new(&[0], Alphabet::Bytes);
        let (mut state, mut steps) = (State::default(), Vec::new());
        for mut part in bytes.as_bytes().chunks(size) {
            while !part.is_empty() {
                let (used, step) =
                    http.decode(&mut state, part, Some(ID), &payloads, &mut Vec::new())?;
                part = &part[used..];
                if step != Step::More {
                    steps.push(step);
                }
            }
        }
        Ok(steps)
    }

    #[test]
    fn responses_are_read_in_any_pieces() {
        let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
                     HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
                     HTTP/1.1 100 Continue\r\n\r\n\
                     HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: t\r\n\r\n\
                     HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nno!";
        for size in [1, 2, 3, 7, 50, 1000] {
            let found = steps(
                &mut http(ExpectedBody::Exactly(b"hello".to_vec())),
                bytes,
                size,
            );
            let expected = [
                Step::Answered,
                Step::Answered,
                Step::Answered,
                Step::Refused(503),
            ];
            assert_eq!(found.unwrap(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn other_bodies_and_other_protocols_are_told() {
        let mut hello = http(ExpectedBody::Exactly(b"hello".to_vec()));
        for (bytes, what) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO",
                "byte 4",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
                "4 bytes, and 5",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!",
                "its end",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "cannot be kept"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                "two of them",
            ),
            ("SSH-2.0-OpenSSH\r\n\r\n", "no HTTP response"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                "size of a chunk",
            ),
        ] {
            match steps(&mut hello, bytes, 1000).unwrap_err() {
                Wrong::Differs(differs) => assert!(differs.to_string().contains(what), "{differs}"),
                Wrong::Protocol(text) => assert!(text.contains(what), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn without_a_body_the_head_is_all() {
        let bytes = "HTTP/1.1 204 No Content\r\n\r\n";
        let found = steps(&mut http(ExpectedBody::Any), bytes, 1000).unwrap();
        assert_eq!(found, [Step::Refused(204)]);
    }
}
