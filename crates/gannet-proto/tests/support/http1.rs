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
                    let again = decoder.decode(&mut waiting).unwrap_err();
                    assert_eq!(again, refused, "an error is final");
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
