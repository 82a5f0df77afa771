//! Drives the WebSocket decoder.

use gannet_proto::websocket::{Decoder, Event, Limits, ProtocolError};

use super::random::Random;

/// An event that borrows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// All that a connection made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub events: Vec<Seen>,
    pub error: Option<ProtocolError>,
    /// Bytes that wait for more.
    pub unused: usize,
    pub is_idle: bool,
}

/// What the decoder makes of the input, read in pieces of these lengths; the last piece
/// takes what is left.
pub fn read(mut decoder: Decoder, limits: Limits, input: &[u8], cuts: &[usize]) -> Transcript {
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
            match decoder.decode(&mut waiting) {
                Ok(decoded) => {
                    let is_more = decoded.event.is_some();
                    events.extend(decoded.event.map(Seen::from));
                    let used = decoded.used;
                    waiting.drain(..used);
                    if !is_more {
                        break;
                    }
                }
                Err(refused) => {
                    assert_eq!(
                        decoder.decode(&mut waiting),
                        Err(refused),
                        "an error is final"
                    );
                    assert_eq!(decoder.buffered(), 0);
                    error = Some(refused);
                    waiting.clear();
                    break 'reads;
                }
            }
        }
        assert!(waiting.len() <= 130, "{} bytes wait", waiting.len());
        assert!(decoder.buffered() <= limits.max_message_size);
        assert!(
            !decoder.is_idle() || decoder.buffered() == 0,
            "idle and holds memory"
        );
    }
    Transcript {
        events,
        error,
        unused: waiting.len(),
        is_idle: decoder.is_idle(),
    }
}

/// The property: how the input is cut into reads means nothing.
pub fn assert_cuts_mean_nothing(limits: Limits, input: &[u8], random: &mut Random) -> Transcript {
    let cuts = random.cuts(input.len());
    for decoder in [Decoder::client, Decoder::new] {
        let whole = read(decoder(limits), limits, input, &[]);
        let pieces = read(decoder(limits), limits, input, &cuts);
        assert_eq!(
            whole,
            pieces,
            "input {} cut into {cuts:?}",
            input.escape_ascii()
        );
    }
    read(Decoder::new(limits), limits, input, &[])
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(data) => Self::Binary(data.to_owned()),
            Event::Ping(data) => Self::Ping(data.to_owned()),
            Event::Pong(data) => Self::Pong(data.to_owned()),
            Event::Close(reason) => Self::Close(reason.map(|(code, text)| (code, text.to_owned()))),
        }
    }
}
