//! Drives the WebSocket decoder.

use gannet_proto::websocket::{
    Compressor, Decoder, Event, Limits, MessageKind, Opcode, ProtocolError, client,
};

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
pub fn read(decoder: Decoder, limits: Limits, input: &[u8], cuts: &[usize]) -> Transcript {
    read_by(decoder, limits, input, cuts, false)
}

/// The same; `takes`: what [`Decoder::take_whole`] takes is left to it.
fn read_by(
    mut decoder: Decoder,
    limits: Limits,
    input: &[u8],
    cuts: &[usize],
    takes: bool,
) -> Transcript {
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
            if takes && let Some((kind, message)) = decoder.take_whole(&mut waiting) {
                let used = message.end;
                let data = waiting[message].to_vec();
                events.push(match kind {
                    MessageKind::Binary => Seen::Binary(data),
                    MessageKind::Text => Seen::Text(String::from_utf8_lossy(&data).into_owned()),
                });
                waiting.drain(..used);
                continue;
            }
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

/// The property: how the input is cut into reads means nothing, nor who takes whole messages.
pub fn assert_cuts_mean_nothing(limits: Limits, input: &[u8], random: &mut Random) -> Transcript {
    let cuts = random.cuts(input.len());
    let decoders: [fn(Limits) -> Decoder; 4] = [
        Decoder::client,
        Decoder::new,
        |limits| Decoder::new(limits).with_deflate(false),
        |limits| Decoder::new(limits).with_deflate(true),
    ];
    for decoder in decoders {
        let whole = read(decoder(limits), limits, input, &[]);
        let pieces = read(decoder(limits), limits, input, &cuts);
        assert_eq!(
            whole,
            pieces,
            "input {} cut into {cuts:?}",
            input.escape_ascii()
        );
        let taken = read_by(decoder(limits), limits, input, &cuts, true);
        assert_eq!(whole, taken, "input {} taken", input.escape_ascii());
    }
    read(Decoder::new(limits).with_deflate(true), limits, input, &[])
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

/// Frames of a client in random order, mostly lawful, with some bytes changed half of the
/// time.
pub fn random_input(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    let mut in_message = false;
    for _ in 0..=random.below(8) {
        random_frame(random, &mut in_message, &mut input);
    }
    if random.chance(2) {
        random.mutate(&mut input, INTERESTING);
    }
    input
}

/// As [`random_input`], with compressed messages among the frames.
pub fn random_compressed_input(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    let mut in_message = false;
    let takeover = random.chance(2);
    let mut compressor = Compressor::new(6, 15, takeover);
    for _ in 0..=random.below(8) {
        if in_message || random.chance(3) {
            random_frame(random, &mut in_message, &mut input);
        } else {
            random_compressed(random, &mut compressor, &mut input);
        }
    }
    if random.chance(3) {
        random.mutate(&mut input, INTERESTING);
    }
    input
}

/// A compressed message in some frames, the last of which may be missing.
fn random_compressed(random: &mut Random, compressor: &mut Compressor, out: &mut Vec<u8>) {
    let repeats = random.pick(&[1, 9, 200]);
    let text = random.pick(TEXTS).repeat(repeats);
    let Some(mut payload) = compressor.compress(&text) else {
        return;
    };
    let opcode = random.pick(&[Opcode::Text, Opcode::Binary]);
    let key = [random.next() as u8; 4];
    let cut = random.below(payload.len() + 1);
    if random.chance(2) {
        client::encode_compressed_frame(out, opcode, true, payload, key);
        return;
    }
    client::encode_compressed_frame(out, opcode, false, &payload[..cut], key);
    payload = &payload[cut..];
    client::encode_frame(out, Opcode::Continuation, !random.chance(9), payload, key);
}

fn random_frame(random: &mut Random, in_message: &mut bool, out: &mut Vec<u8>) {
    let lawful = !random.chance(20);
    let fin = !random.chance(3);
    let opcode = match random.below(8) {
        0 => Opcode::Ping,
        1 => Opcode::Pong,
        2 if random.chance(4) => Opcode::Close,
        _ if *in_message == lawful => Opcode::Continuation,
        3..=5 => Opcode::Text,
        _ => Opcode::Binary,
    };
    let fin = fin || (opcode.is_control() && lawful);
    if !opcode.is_control() {
        *in_message = !fin;
    }
    let payload = match (opcode, random.below(8)) {
        (Opcode::Close, 0) => Vec::new(),
        (Opcode::Close, _) => {
            let code = random.pick(&[1000u16, 1001, 1002, 1005, 1016, 3000, 4999, 5000]);
            [&code.to_be_bytes()[..], random.pick(TEXTS)].concat()
        }
        (Opcode::Binary, _) => {
            let len = random.pick(&[0, 1, 7, 8, 9, 125, 126, 300]);
            random.bytes(len)
        }
        (Opcode::Ping | Opcode::Pong, _) => {
            let len = random.pick(&[0, 1, 9, 125, 125, 126]);
            random.bytes(len)
        }
        (_, 0) => random.pick(TEXTS).repeat(30),
        // A character cut in two, to be joined by the next fragment.
        (_, 1) => b"\xf0\x9f".to_vec(),
        (_, 2) => b"\xa6\x91".to_vec(),
        (_, 3) if random.chance(4) => b"\xed\xa0".to_vec(),
        _ => random.pick(TEXTS).to_vec(),
    };
    let key = [
        random.next() as u8,
        random.next() as u8,
        0,
        random.next() as u8,
    ];
    client::encode_frame(out, opcode, fin, &payload, key);
}

const TEXTS: &[&[u8]] = &[
    b"",
    b"hello",
    "gr\u{fc}\u{df}e".as_bytes(),
    "\u{20ac}".as_bytes(),
    "\u{1f991} gannets dive".as_bytes(),
];

/// Bytes that mean something in a frame header.
const INTERESTING: &[u8] = b"\x00\x01\x02\x03\x80\x81\x82\x88\x89\x8a\xc1\xfe\xff\x7e\x7f\xfd";
