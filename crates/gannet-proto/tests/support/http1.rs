//! Drives the HTTP/1 decoder.

use gannet_proto::http1::{BodyLength, Decoder, Event, Headers, Limits, RequestHead, Version};

use super::random::Random;

pub type Pairs = Vec<(String, Vec<u8>)>;

/// An event that borrows nothing. Body events next to each other are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Head(Box<Head>),
    Body(Vec<u8>),
    End(Pairs),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub version: Version,
    pub headers: Pairs,
    pub body: BodyLength,
    pub keep_alive: bool,
    pub expect_continue: bool,
    pub upgrade: bool,
}

/// All that a connection made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub events: Vec<Seen>,
    /// Status and message of the refusal.
    pub error: Option<(u16, String)>,
    /// Bytes that wait for more.
    pub unused: usize,
    pub is_idle: bool,
    pub in_body: bool,
    pub is_done: bool,
}

impl Transcript {
    pub fn status(&self) -> Option<u16> {
        self.error.as_ref().map(|(status, _)| *status)
    }

    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        self.events.iter().filter_map(|event| match event {
            Seen::Head(head) => Some(&**head),
            _ => None,
        })
    }
}

/// What a fresh decoder makes of the input, read in pieces of these lengths; the last
/// piece takes what is left.
pub fn read(limits: Limits, input: &[u8], cuts: &[usize]) -> Transcript {
    let mut decoder = Decoder::new(limits);
    let mut events = Vec::new();
    let mut error = None;
    let mut waiting = Vec::new();
    let mut rest = input;
    let last = [usize::MAX];
    'reads: for cut in cuts.iter().chain(&last) {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        rest = after;
        waiting.extend_from_slice(piece);
        loop {
            let available = waiting.len();
            match decoder.decode(&mut waiting) {
                Ok(decoded) => {
                    assert!(decoded.used <= available);
                    let is_more = decoded.event.is_some();
                    record(&mut events, decoded.event);
                    let used = decoded.used;
                    waiting.drain(..used);
                    if !is_more {
                        break;
                    }
                }
                Err(refused) => {
                    let again = decoder.decode(&mut waiting);
                    assert_eq!(again, Err(refused.clone()), "an error is final");
                    error = Some((refused.status(), refused.message().to_owned()));
                    waiting.clear();
                    break 'reads;
                }
            }
        }
        let room = limits.max_head_size.max(limits.max_trailer_size);
        assert!(waiting.len() <= room, "{} bytes wait", waiting.len());
    }
    Transcript {
        events,
        error,
        unused: waiting.len(),
        is_idle: decoder.is_idle(),
        in_body: decoder.in_body(),
        is_done: decoder.is_done(),
    }
}

/// The property: how the input is cut into reads means nothing.
pub fn assert_cuts_mean_nothing(limits: Limits, input: &[u8], random: &mut Random) -> Transcript {
    let whole = read(limits, input, &[]);
    let cuts = random.cuts(input.len());
    let pieces = read(limits, input, &cuts);
    assert_eq!(
        whole,
        pieces,
        "input {:?} cut into {cuts:?}",
        input.escape_ascii().to_string()
    );
    whole
}

pub fn pairs(headers: Headers<'_>) -> Pairs {
    headers
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn record(events: &mut Vec<Seen>, event: Option<Event<'_>>) {
    match (event, events.last_mut()) {
        (None, _) => {}
        (Some(Event::Body(data)), Some(Seen::Body(body))) => {
            assert!(!data.is_empty());
            body.extend_from_slice(data);
        }
        (Some(Event::Body(data)), _) => events.push(Seen::Body(data.to_owned())),
        (Some(Event::Head(head)), _) => events.push(Seen::Head(Box::new(head.into()))),
        (Some(Event::End { trailers }), _) => events.push(Seen::End(pairs(trailers))),
    }
}

impl From<RequestHead<'_>> for Head {
    fn from(head: RequestHead<'_>) -> Self {
        Self {
            method: head.method.to_owned(),
            target: head.target.to_owned(),
            version: head.version,
            headers: pairs(head.headers),
            body: head.body,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            upgrade: head.upgrade,
        }
    }
}

/// One to three requests, mostly well formed, with some bytes changed half of the time.
pub fn random_input(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..=random.below(3) {
        random_request(random, &mut input);
    }
    if random.chance(2) {
        random.mutate(&mut input, INTERESTING);
    }
    input
}

fn random_request(random: &mut Random, out: &mut Vec<u8>) {
    let line = random.pick(&[
        "GET / HTTP/1.1",
        "POST /a?b=c HTTP/1.1",
        "PUT http://a/b HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /0 HTTP/1.0",
        "CONNECT a:80 HTTP/1.1",
        "PATCH /%41 HTTP/1.3",
        "GET / HTTP/2.0",
    ]);
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\nHost: a\r\n");
    for _ in 0..random.below(4) {
        out.extend_from_slice(random.pick(&[
            &b"X: y"[..],
            b"Accept:*/*",
            b"Empty:",
            b"Cookie: a=b; c=d",
            b"Connection: keep-alive",
            b"Connection: close",
            b"X-Bytes: \xe4\t\xff",
            b"Expect: 100-continue",
            b"Upgrade: h2c",
            b"Content-Length: 3",
            b"Transfer-Encoding: gzip",
        ]));
        out.extend_from_slice(b"\r\n");
    }
    match random.below(3) {
        0 => out.extend_from_slice(b"\r\n"),
        1 => {
            let len = random.below(40);
            out.extend_from_slice(format!("Content-Length: {len}\r\n\r\n").as_bytes());
            out.extend(random.bytes(len));
        }
        _ => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for _ in 0..random.below(4) {
                let len = 1 + random.below(20);
                let extension = random.pick(&["", "", ";a", ";a=\"b c\""]);
                out.extend_from_slice(format!("{len:X}{extension}\r\n").as_bytes());
                out.extend(random.bytes(len));
                out.extend_from_slice(b"\r\n");
            }
            let trailers =
                random.pick(&["", "", "X: y\r\n", "Etag: \"a\"\r\nX:\r\n", "Host: b\r\n"]);
            out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        }
    }
    if random.chance(8) {
        out.extend_from_slice(b"\r\n");
    }
}

/// Bytes that mean something to a parser of HTTP.
const INTERESTING: &[u8] = b"\r\n\r\n :;,0159aAfFxX\t\0\x7f\x80\xff/?#*@[]%\"+-";

/// Limits that random requests reach now and then.
pub fn small_limits() -> Limits {
    Limits {
        max_head_size: 160,
        max_headers: 6,
        max_target: 24,
        max_body_size: 50,
        max_chunk_extensions: 12,
        max_trailer_size: 32,
    }
}
