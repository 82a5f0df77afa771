//! From bytes to requests: the states of a connection.

use memchr::memchr;

use super::{
    body::BodyLength,
    chunked::{Chunked, Step},
    error::RequestError,
    head::{self, RequestHead, RequestLine},
    headers::{Headers, is_trailer},
    limits::{Limits, MAX_HEADERS},
    plain::{self, PlainHead},
    scan::Scan,
};

/// Reads the requests of one connection, one after another.
///
/// Each request gives [`Event::Head`], then [`Event::Body`] as often as data arrives,
/// then [`Event::End`]. After the end of a request that does not keep the connection
/// alive, whatever follows is ignored.
///
/// See the [crate] for an example.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    limits: Limits,
    /// Whether requests may follow the current one.
    keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    expects_continue: bool,
    /// Whether the rest of the body is dropped.
    discards: bool,
}

/// What [`Decoder::decode`] found at the front of its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input are done with. The rest comes again, with what
    /// arrives after it, in the next call.
    pub used: usize,
    /// What these bytes mean; `None` means that more bytes are needed.
    pub event: Option<Event<'a>>,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A request begins.
    Head(RequestHead<'a>),
    /// The next bytes of its body, never empty. How a body is cut into events means
    /// nothing.
    Body(&'a [u8]),
    /// The request is complete.
    End {
        /// The headers after a chunked body; they are few and never those that frame,
        /// route or authenticate a request.
        trailers: Headers<'a>,
    },
}

#[derive(Debug)]
enum State {
    /// Before a request line; says whether an empty line came already.
    Start { skipped: bool },
    /// Inside a head that the caller keeps.
    Head(Scan),
    /// Inside a body with a length.
    Body { left: u64 },
    /// Inside a chunked body.
    Chunked(Chunked),
    /// Inside a trailer section that the caller keeps.
    Trailers(Scan),
    /// The body is complete; `Event::End` is due.
    End,
    /// The last request was read.
    Done,
    /// Stays as it is.
    Failed(Box<RequestError>),
}

impl Decoder {
    /// A decoder before the first request of a connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Start { skipped: false },
            limits,
            keep_alive: true,
            expects_continue: false,
            discards: false,
        }
    }

    /// Takes one event from the front of `input`.
    ///
    /// Call it again with the rest of the input until [`Decoded::event`] is `None`; then
    /// keep the unused bytes. They are part of a head or trailer section and never more
    /// than [`Limits::max_head_size`] or [`Limits::max_trailer_size`]; bodies are always
    /// used up. A request without body gives `End` with no byte used.
    ///
    /// # Errors
    ///
    /// The request is malformed, ambiguous or beyond a limit: answer and close. The
    /// decoder returns the same error for ever.
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Decoded<'a>, RequestError> {
        self.advance(input)
            .inspect_err(|error| self.state = State::Failed(Box::new(error.clone())))
    }

    /// Looks at the request at the front of `input` without taking it, if that request is plain: here
    /// as a whole, well-formed, with a path as its target, without a body, in HTTP/1.1, and asking nothing of its
    /// connection.
    ///
    /// The decoder stays as it is. Who passes over [`PlainHead::len_on_wire`] bytes has taken the request, and the
    /// decoder is before the next one. `None` means that [`Decoder::decode`] has to judge, now or
    /// when more has come.
    #[inline]
    pub fn peek_plain<'a>(&self, input: &'a [u8]) -> Option<PlainHead<'a>> {
        match self.state {
            State::Start { skipped: false } => plain::peek(input, &self.limits),
            _ => None,
        }
    }

    /// Drops the rest of the current body as it arrives, up to the limit: the next event
    /// is `End`. For a response that was sent before the request was read.
    pub fn discard(&mut self) {
        self.discards = self.in_body();
    }

    /// Whether the decoder is between requests: nothing of a request has been read but,
    /// maybe, an empty line.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Start { .. })
    }

    /// Whether the head of a request has been read and its `End` has not.
    pub fn in_body(&self) -> bool {
        matches!(
            self.state,
            State::Body { .. } | State::Chunked(_) | State::Trailers(_) | State::End
        )
    }

    /// Whether the client waits for [`CONTINUE`](super::CONTINUE): it said so, and no byte
    /// of the body has come.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the last request of the connection has been read.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn advance<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, RequestError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            if rest.is_empty() && !matches!(self.state, State::End | State::Failed(_)) {
                return Ok(Decoded { used, event: None });
            }
            let event = match &mut self.state {
                State::Start { skipped } => match rest {
                    b"\r" => return Ok(Decoded { used, event: None }),
                    [b'\r', b'\n', ..] if !*skipped => {
                        *skipped = true;
                        used += 2;
                        continue;
                    }
                    _ => {
                        head::check_first_byte(rest[0])?;
                        self.state = State::Head(Scan::default());
                        continue;
                    }
                },
                State::Head(_) => match self.head(rest)? {
                    None => return Ok(Decoded { used, event: None }),
                    Some((len, head)) => {
                        used += len;
                        Event::Head(head)
                    }
                },
                State::Body { left } => {
                    let len = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= len as u64;
                    if *left == 0 {
                        self.state = State::End;
                    }
                    used += len;
                    self.expects_continue = false;
                    Event::Body(&rest[..len])
                }
                State::Chunked(chunked) => {
                    let (len, step) = chunked.advance(rest, &self.limits)?;
                    used += len;
                    self.expects_continue = false;
                    match step {
                        Step::NeedMore => return Ok(Decoded { used, event: None }),
                        Step::Data(range) => Event::Body(&rest[range]),
                        Step::Trailers => {
                            self.state = State::Trailers(Scan::default());
                            continue;
                        }
                    }
                }
                State::Trailers(scan) => match trailers(scan, rest, &self.limits)? {
                    None => return Ok(Decoded { used, event: None }),
                    Some((len, trailers)) => {
                        used += len;
                        self.end();
                        Event::End { trailers }
                    }
                },
                State::End => {
                    self.end();
                    Event::End {
                        trailers: Headers::default(),
                    }
                }
                State::Done => {
                    return Ok(Decoded {
                        used: input.len(),
                        event: None,
                    });
                }
                State::Failed(error) => return Err(RequestError::clone(error)),
            };
            if self.discards && matches!(event, Event::Body(_)) {
                continue;
            }
            return Ok(Decoded {
                used,
                event: Some(event),
            });
        }
    }

    /// Goes forward in a head. Gives the head and its length when it is complete.
    fn head<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<Option<(usize, RequestHead<'a>)>, RequestError> {
        let State::Head(scan) = &mut self.state else {
            return Ok(None);
        };
        let Some((len, head)) = read_head(scan, input, &self.limits)? else {
            return Ok(None);
        };
        self.keep_alive = head.keep_alive;
        self.expects_continue = head.expect_continue;
        self.state = match head.body {
            BodyLength::None => State::End,
            BodyLength::Length(left) => State::Body { left },
            BodyLength::Chunked => State::Chunked(Chunked::default()),
        };
        Ok(Some((len, head)))
    }

    fn end(&mut self) {
        self.expects_continue = false;
        self.discards = false;
        self.state = match self.keep_alive {
            true => State::Start { skipped: false },
            false => State::Done,
        };
    }
}

/// Goes forward in a head. Gives its length and the head when it is complete.
fn read_head<'a>(
    scan: &mut Scan,
    input: &'a [u8],
    limits: &Limits,
) -> Result<Option<(usize, RequestHead<'a>)>, RequestError> {
    if scan.is_fresh()
        && let Some(found) = plain::read(input, limits)
    {
        return Ok(Some(found));
    }
    // The line is judged when it has arrived, before anything after it: so the error
    // does not depend on how the input was cut.
    let mut line = None;
    if scan.lines() == 0 {
        let longest = head::longest_request_line(limits);
        let window = &input[..input.len().min(longest)];
        let Some(range) = scan.next_line(window)? else {
            return match window.len() < longest {
                true => Ok(None),
                false => Err(head::long_request_line(window, limits)),
            };
        };
        line = Some(RequestLine::parse(&input[range], limits)?);
    }
    let Some(len) = section_end(scan, input, 1, limits.max_head_size, limits)? else {
        return Ok(None);
    };
    let line_len = memchr(b'\r', input).unwrap_or_default();
    let line = match line {
        Some(line) => line,
        None => RequestLine::parse(&input[..line_len], limits)?,
    };
    let head = line.with_headers(&input[line_len + 2..len], scan.lines() - 2, limits)?;
    Ok(Some((len, head)))
}

/// Goes forward in a trailer section. Gives the trailers and their length when they are
/// complete.
fn trailers<'a>(
    scan: &mut Scan,
    input: &'a [u8],
    limits: &Limits,
) -> Result<Option<(usize, Headers<'a>)>, RequestError> {
    let Some(len) = section_end(scan, input, 0, limits.max_trailer_size, limits)? else {
        return Ok(None);
    };
    let trailers = Headers::parse(&input[..len], scan.lines() - 1)?;
    match trailers.iter().find(|(name, _)| !is_trailer(name)) {
        Some((name, _)) => Err(RequestError::bad(format!("{name} must not be a trailer"))),
        None => Ok(Some((len, trailers))),
    }
}

/// Where the section ends, after its empty line; `None` when that has not come.
fn section_end(
    scan: &mut Scan,
    input: &[u8],
    lines_before: usize,
    max_size: usize,
    limits: &Limits,
) -> Result<Option<usize>, RequestError> {
    let window = &input[..input.len().min(max_size)];
    let max_headers = limits.max_headers.min(MAX_HEADERS);
    while let Some(line) = scan.next_line(window)? {
        if line.is_empty() {
            return Ok(Some(scan.len()));
        }
        if scan.lines() - lines_before > max_headers {
            let message = format!("more than {max_headers} header lines: send fewer");
            return Err(RequestError::new(431, message));
        }
    }
    if window.len() == max_size {
        let message = format!("the headers are larger than {max_size} bytes: send less");
        return Err(RequestError::new(431, message));
    }
    Ok(None)
}
