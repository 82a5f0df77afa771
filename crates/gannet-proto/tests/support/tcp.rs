//! Drives the decoder of framed TCP, and says naively what it has to find.

use std::sync::Arc;

use gannet_proto::tcp::{
    Custom, Cut, Decoder, FrameError, Framing, LengthPrefix, MAX_HEADER, Marker, Width,
};

use super::random::Random;

/// A framing as a test describes it, so that the model need not ask the code under test.
#[derive(Clone, Debug)]
pub enum Spec {
    Marker {
        marker: Vec<u8>,
        keep: bool,
    },
    Lines {
        strip_cr: bool,
    },
    Length(LengthPrefix),
    /// The first byte is the length, 255 is refused.
    Custom,
}

/// All that a connection made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub messages: Vec<Vec<u8>>,
    pub error: Option<FrameError>,
    pub is_idle: bool,
}

impl Spec {
    pub fn framing(&self) -> Framing {
        match self {
            Spec::Marker { marker, keep } => {
                Framing::marker(Marker::new(marker).expect("a marker").keep(*keep))
            }
            Spec::Lines { strip_cr } => Framing::marker(Marker::lines(*strip_cr)),
            Spec::Length(prefix) => Framing::length(*prefix).expect("a header"),
            Spec::Custom => Framing::custom(Custom::new(cut).encoder(|message, out| {
                let len = u8::try_from(message.len()).ok().filter(|&len| len < 255);
                out.push(len.ok_or("too long")?);
                out.extend_from_slice(message);
                Ok(())
            })),
        }
    }
}

fn cut(input: &[u8]) -> Cut {
    match usize::from(input[0]) {
        255 => Cut::Invalid("255 is no length"),
        len if input.len() > len => Cut::Message {
            used: 1 + len,
            message: 1..1 + len,
        },
        len => Cut::Incomplete { until: 1 + len },
    }
}

/// What the decoder makes of the input, read in pieces of these lengths; the last piece takes
/// what is left.
pub fn read(spec: &Spec, max: usize, input: &[u8], cuts: &[usize]) -> Transcript {
    let mut decoder = Decoder::new(Arc::new(spec.framing()), max);
    let mut messages = Vec::new();
    let mut rest = input;
    for cut in cuts.iter().chain(&[usize::MAX]) {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        rest = after;
        let mut piece = piece.to_vec();
        let mut read = &mut piece[..];
        loop {
            match decoder.decode(read) {
                Ok(decoded) => {
                    let is_last = decoded.message.is_none();
                    messages.extend(decoded.message.map(<[u8]>::to_vec));
                    let used = decoded.used;
                    read = &mut read[used..];
                    if is_last {
                        assert!(read.is_empty(), "all is used");
                        break;
                    }
                }
                Err(error) => {
                    assert_eq!(decoder.decode(read), Err(error), "an error is final");
                    assert_eq!(decoder.buffered(), 0);
                    return Transcript {
                        messages,
                        error: Some(error),
                        is_idle: decoder.is_idle(),
                    };
                }
            }
        }
        let bound = 2 * (max + MAX_HEADER) + input.len().min(64);
        assert!(decoder.buffered() <= bound, "{} B", decoder.buffered());
        assert!(
            !decoder.is_idle() || decoder.buffered() == 0,
            "idle and holds memory"
        );
    }
    Transcript {
        messages,
        error: None,
        is_idle: decoder.is_idle(),
    }
}

/// The same, byte for byte as the words of the documentation say it, with all bytes at hand.
pub fn model(spec: &Spec, max: usize, input: &[u8]) -> Transcript {
    let mut messages = Vec::new();
    let mut at = 0;
    let limit = u32::try_from(max).expect("small");
    let ends = |messages, error, is_idle| Transcript {
        messages,
        error,
        is_idle,
    };
    while at < input.len() {
        let rest = &input[at..];
        let step = match spec {
            Spec::Marker { marker, keep } => by_marker(rest, marker, *keep, false, max),
            Spec::Lines { strip_cr } => by_marker(rest, b"\n", false, *strip_cr, max),
            Spec::Length(prefix) => by_length(rest, prefix, max),
            Spec::Custom if rest[0] == 255 => Step::Wrong(FrameError::Refused("255 is no length")),
            Spec::Custom => match rest.get(1..1 + usize::from(rest[0])) {
                Some(message) if message.len() > max => Step::TooLarge,
                Some(message) => Step::Message(1 + message.len(), message.to_vec()),
                None => Step::More,
            },
        };
        match step {
            Step::Message(used, message) => {
                messages.push(message);
                at += used;
            }
            Step::More => return ends(messages, None, false),
            Step::TooLarge => return ends(messages, Some(FrameError::TooLarge { limit }), true),
            Step::Wrong(error) => return ends(messages, Some(error), true),
        }
    }
    ends(messages, None, true)
}

enum Step {
    Message(usize, Vec<u8>),
    More,
    TooLarge,
    Wrong(FrameError),
}

fn by_marker(rest: &[u8], marker: &[u8], keep: bool, strip_cr: bool, max: usize) -> Step {
    for at in 0..rest.len() {
        if rest[at..].starts_with(marker) {
            let used = at + marker.len();
            let mut message = rest[..if keep { used } else { at }].to_vec();
            if strip_cr && message.last() == Some(&b'\r') {
                message.pop();
            }
            return match message.len() > max {
                true => Step::TooLarge,
                false => Step::Message(used, message),
            };
        }
    }
    // Could a message of `max` bytes still come of it?
    let longest = match keep {
        true => max,
        false => max + usize::from(strip_cr) + marker.len(),
    };
    match rest.len() >= longest {
        true => Step::TooLarge,
        false => Step::More,
    }
}

fn by_length(rest: &[u8], prefix: &LengthPrefix, max: usize) -> Step {
    let Some(field) = rest.get(prefix.offset..) else {
        return Step::More;
    };
    let mut length: u128 = 0;
    let width = match prefix.width {
        Width::One => 1,
        Width::Two => 2,
        Width::Four => 4,
        Width::Eight => 8,
        Width::Varint => {
            let Some(end) = field.iter().position(|byte| byte & 0x80 == 0) else {
                return match field.len() >= 10 {
                    true => Step::Wrong(FrameError::LargeVarint),
                    false => Step::More,
                };
            };
            for byte in field[..=end].iter().rev() {
                length = (length << 7 | u128::from(byte & 0x7f)) & ((1 << 100) - 1);
            }
            if end >= 10 || length > u128::from(u64::MAX) {
                return Step::Wrong(FrameError::LargeVarint);
            }
            if end > 0 && field[end] == 0 {
                return Step::Wrong(FrameError::LongVarint);
            }
            end + 1
        }
    };
    let header = prefix.header_size.max(prefix.offset + width);
    if rest.len() < header {
        return Step::More;
    }
    if prefix.width != Width::Varint {
        for index in 0..width {
            let byte = match prefix.little_endian {
                true => field[width - 1 - index],
                false => field[index],
            };
            length = length << 8 | u128::from(byte);
        }
    }
    let frame = match prefix.counts_header {
        true if length < header as u128 => {
            return Step::Wrong(FrameError::ShortLength {
                length: length as u64,
                header,
            });
        }
        true => length,
        false => length + header as u128,
    };
    let start = if prefix.keep_header { 0 } else { header };
    if frame - start as u128 > max as u128 {
        return Step::TooLarge;
    }
    match rest.get(start..frame as usize) {
        Some(message) => Step::Message(frame as usize, message.to_vec()),
        None => Step::More,
    }
}

/// The property: however the input is cut into reads, the decoder finds what the model finds.
pub fn assert_cuts_mean_nothing(
    spec: &Spec,
    max: usize,
    input: &[u8],
    random: &mut Random,
) -> Transcript {
    let expected = model(spec, max, input);
    for cuts in [
        vec![],
        vec![1; input.len()],
        random.cuts(input.len()),
        vec![random.below(input.len() + 1)],
    ] {
        assert_eq!(
            read(spec, max, input, &cuts),
            expected,
            "{spec:?}, at most {max}: {} cut into {cuts:?}",
            input.escape_ascii()
        );
    }
    expected
}

pub fn random_spec(random: &mut Random) -> Spec {
    match random.below(8) {
        0 => Spec::Custom,
        1 => Spec::Lines {
            strip_cr: random.chance(2),
        },
        2 | 3 => Spec::Marker {
            marker: match random.below(5) {
                // Overlaps itself.
                0 => b"aab".repeat(1 + random.below(3)),
                1 => b"\r\n\r\n".to_vec(),
                2 => b"aaaa".to_vec(),
                3 => random.bytes(64),
                _ => random.bytes(1),
            },
            keep: random.chance(2),
        },
        _ => Spec::Length(random_prefix(random)),
    }
}

fn random_prefix(random: &mut Random) -> LengthPrefix {
    let width = random.pick(&[
        Width::One,
        Width::Two,
        Width::Four,
        Width::Eight,
        Width::Varint,
    ]);
    let mut prefix = LengthPrefix::new(width).offset(random.pick(&[0, 0, 1, 3, 17]));
    if width != Width::Varint {
        prefix.little_endian = random.chance(2);
        if random.chance(2) {
            prefix = prefix.header_size(prefix.offset + 8 + random.below(20));
        }
    }
    prefix.counts_header = random.chance(2);
    prefix.keep_header = random.chance(2);
    prefix
}

/// Messages as the framing wants them, with some bytes changed half of the time.
pub fn random_input(spec: &Spec, random: &mut Random) -> Vec<u8> {
    let framing = spec.framing();
    let mut input = Vec::new();
    for _ in 0..random.below(8) {
        let len = random.pick(&[0, 1, 2, 5, 30, 31, 32, 33, 130]);
        let message = match random.chance(2) {
            true => (0..len).map(|_| random.pick(b"aab\r\n")).collect(),
            false => random.bytes(len),
        };
        let mut message: Vec<u8> = message;
        if let Spec::Length(LengthPrefix {
            keep_header: true,
            offset,
            ..
        }) = spec
        {
            let mut header = vec![0; *offset + 48];
            header.append(&mut message);
            message = header;
        }
        // What cannot be encoded is not sent.
        let _ = framing.encode(&mut input, &message);
    }
    if random.chance(2) {
        random.mutate(&mut input, b"\x00\x01\x7f\x80\xffab\r\n");
    }
    input
}
