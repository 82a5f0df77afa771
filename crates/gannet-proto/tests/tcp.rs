//! Framed TCP: what each framing gives, and what it refuses.

mod support;

use std::sync::Arc;

use gannet_proto::tcp::{
    Custom, Cut, Decoder, EncodeError, FrameError, Framing, FramingError, LengthPrefix, Marker,
    Width,
};
use support::{
    random::Random,
    tcp::{self, Spec},
};

/// What comes of the input in one read.
fn messages(framing: Framing, max: usize, input: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut decoder = Decoder::new(Arc::new(framing), max);
    let mut input = input.to_vec();
    let mut rest = &mut input[..];
    let mut messages = Vec::new();
    loop {
        let decoded = decoder.decode(rest)?;
        let used = decoded.used;
        let Some(message) = decoded.message else {
            return Ok(messages);
        };
        messages.push(message.to_vec());
        rest = &mut rest[used..];
    }
}

fn length(prefix: LengthPrefix) -> Framing {
    Framing::length(prefix).unwrap_or_else(|error| panic!("{error}"))
}

fn encoded(framing: &Framing, message: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut out = b"before ".to_vec();
    let result = framing.encode(&mut out, message);
    assert!(out.starts_with(b"before "));
    match result {
        Ok(()) => Ok(out.split_off(7)),
        Err(error) => {
            assert_eq!(out, b"before ", "nothing is appended");
            Err(error)
        }
    }
}

#[test]
fn a_marker_is_left_away_or_kept() {
    let marker = Marker::new(b"\r\n\r\n").unwrap();
    let input = b"one\r\n\r\n\r\n\r\ntwo\r\n\r\r\n\r\nthr";
    assert_eq!(
        messages(Framing::marker(marker.clone()), 100, input).unwrap(),
        [&b"one"[..], b"", b"two\r\n\r"]
    );
    assert_eq!(
        messages(Framing::marker(marker.keep(true)), 100, input).unwrap(),
        [&b"one\r\n\r\n"[..], b"\r\n\r\n", b"two\r\n\r\r\n\r\n"]
    );
}

#[test]
fn a_line_ends_with_lf_and_maybe_cr() {
    let input = b"one\r\ntwo\n\nthr\ree\r\r\n";
    assert_eq!(
        messages(Framing::marker(Marker::lines(true)), 100, input).unwrap(),
        [&b"one"[..], b"two", b"", b"thr\ree\r"]
    );
    assert_eq!(
        messages(Framing::marker(Marker::lines(false)), 100, input).unwrap(),
        [&b"one\r"[..], b"two", b"", b"thr\ree\r\r"]
    );
}

#[test]
fn a_length_stands_where_the_header_says() {
    let four = LengthPrefix::new(Width::Four);
    for (prefix, input, expected) in [
        (four, &b"\0\0\0\x02hi"[..], &b"hi"[..]),
        (four.little_endian(), b"\x02\0\0\0hi", b"hi"),
        (four.counts_header(), b"\0\0\0\x06hi", b"hi"),
        (four.keep_header(), b"\0\0\0\x02hi", b"\0\0\0\x02hi"),
        (four.offset(1).header_size(7), b"T\0\0\0\x02FFhi", b"hi"),
        (LengthPrefix::new(Width::One), b"\x02hi", b"hi"),
        (LengthPrefix::new(Width::Two), b"\0\x02hi", b"hi"),
        (
            LengthPrefix::new(Width::Eight),
            b"\0\0\0\0\0\0\0\x02hi",
            b"hi",
        ),
        // A length of its own form behind a type byte, as MQTT has it.
        (
            LengthPrefix::new(Width::Varint).offset(1).keep_header(),
            b"\x30\x02hi",
            b"\x30\x02hi",
        ),
    ] {
        assert_eq!(
            messages(length(prefix), 100, input).unwrap(),
            [expected],
            "{prefix:?}"
        );
        let mut empty = input[..input.len() - 2].to_vec();
        let at = empty
            .iter()
            .position(|&byte| matches!(byte, 2 | 6))
            .unwrap();
        empty[at] -= 2;
        assert_eq!(messages(length(prefix), 100, &empty).unwrap().len(), 1);
    }
}

#[test]
fn a_long_varint_has_one_form() {
    let varint = length(LengthPrefix::new(Width::Varint));
    let long = encoded(&varint, &[7; 300]).unwrap();
    assert_eq!(long[..2], [0xac, 0x02]);
    assert_eq!(messages(varint.clone(), 300, &long).unwrap(), [[7; 300]]);
    assert_eq!(
        messages(varint.clone(), 300, b"\x80\x00"),
        Err(FrameError::LongVarint)
    );
    assert_eq!(
        messages(varint.clone(), 300, &[0xff; 10]),
        Err(FrameError::LargeVarint)
    );
    let most = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(
        messages(varint, 300, most),
        Err(FrameError::TooLarge { limit: 300 })
    );
}

#[test]
fn a_message_may_be_as_large_as_the_limit_and_no_larger() {
    let lines = Spec::Lines { strip_cr: true };
    let kept = Spec::Marker {
        marker: b"END".to_vec(),
        keep: true,
    };
    let prefix = LengthPrefix::new(Width::Two);
    for (spec, fits, is_over) in [
        (lines.clone(), &b"12345678\n"[..], &b"123456789\n"[..]),
        (lines, b"12345678\r\n", b"12345678\r\r\n"),
        (kept, b"12345END", b"123456END"),
        (Spec::Length(prefix), b"\0\x0812345678", b"\0\x09123456789"),
        (
            Spec::Length(prefix.keep_header()),
            b"\0\x06123456",
            b"\0\x071234567",
        ),
        (Spec::Custom, b"\x0812345678", b"\x09123456789"),
    ] {
        let mut random = Random::new(1);
        let transcript = tcp::assert_cuts_mean_nothing(&spec, 8, fits, &mut random);
        assert_eq!((transcript.error, transcript.messages.len()), (None, 1));
        let transcript = tcp::assert_cuts_mean_nothing(&spec, 8, is_over, &mut random);
        assert_eq!(
            transcript.error,
            Some(FrameError::TooLarge { limit: 8 }),
            "{spec:?}"
        );
    }
}

#[test]
fn an_announced_length_costs_no_memory_before_its_bytes_come() {
    let framing = Arc::new(length(LengthPrefix::new(Width::Four)));
    let mut decoder = Decoder::new(framing, 1 << 30);
    let mut input = *b"\x3f\xff\xff\xffabc";
    assert_eq!(decoder.decode(&mut input).unwrap().message, None);
    assert!(decoder.buffered() < 64, "{}", decoder.buffered());
}

#[test]
fn a_length_that_counts_the_header_is_not_less_than_it() {
    let prefix = LengthPrefix::new(Width::One).header_size(4).counts_header();
    assert_eq!(
        messages(length(prefix), 100, b"\x03..."),
        Err(FrameError::ShortLength {
            length: 3,
            header: 4
        })
    );
}

#[test]
fn a_function_may_refuse_and_may_not_panic_or_cut_nonsense() {
    let framing = |cut: fn(&[u8]) -> Cut| Framing::custom(Custom::new(cut));
    for (cut, error) in [
        (
            (|_| Cut::Invalid("not my protocol")) as fn(&[u8]) -> Cut,
            FrameError::Refused("not my protocol"),
        ),
        (|_| panic!("on purpose"), FrameError::Panicked),
        (
            |_| Cut::Message {
                used: 0,
                message: 0..0,
            },
            FrameError::BadCut,
        ),
        (
            |input| Cut::Message {
                used: input.len() + 1,
                message: 0..1,
            },
            FrameError::BadCut,
        ),
        (
            |_| Cut::Message {
                used: 1,
                message: 0..2,
            },
            FrameError::BadCut,
        ),
    ] {
        assert_eq!(messages(framing(cut), 100, b"some"), Err(error));
    }
}

#[test]
fn a_function_is_not_asked_again_before_what_it_waits_for_is_there() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let framing = Framing::custom(Custom::new(|input| {
        CALLS.fetch_add(1, Relaxed);
        match input.len() >= 100 {
            true => Cut::Message {
                used: 100,
                message: 0..100,
            },
            false => Cut::Incomplete { until: 100 },
        }
    }));
    let mut decoder = Decoder::new(Arc::new(framing), 100);
    for n in 1..=100 {
        let mut byte = [b'x'];
        let decoded = decoder.decode(&mut byte).unwrap();
        assert_eq!(decoded.message.is_some(), n == 100);
    }
    assert_eq!(CALLS.load(Relaxed), 2);
}

#[test]
fn framings_that_cannot_work_are_refused() {
    let two = LengthPrefix::new(Width::Two);
    let varint = LengthPrefix::new(Width::Varint);
    for (prefix, error) in [
        (
            two.offset(3).header_size(4),
            FramingError::FieldOutsideHeader {
                header_size: 4,
                offset: 3,
                width: 2,
            },
        ),
        (two.header_size(1025), FramingError::LargeHeader(1025)),
        (two.offset(1023), FramingError::LargeHeader(1025)),
        (
            two.offset(usize::MAX),
            FramingError::LargeHeader(usize::MAX),
        ),
        (varint.header_size(4), FramingError::VarintHeaderSize),
        (varint.little_endian(), FramingError::VarintByteOrder),
        (varint.offset(1020), FramingError::LargeHeader(1030)),
    ] {
        assert_eq!(Framing::length(prefix), Err(error), "{prefix:?}");
    }
    for len in [0, 65] {
        let marker = Marker::new(&vec![b'x'; len]);
        assert_eq!(marker, Err(FramingError::MarkerLength(len)));
    }
}

#[test]
fn what_a_receiver_would_read_otherwise_is_not_encoded() {
    let marker = |marker: &[u8]| Framing::marker(Marker::new(marker).unwrap());
    let lines = Framing::marker(Marker::lines(true));
    for (framing, message) in [
        (marker(b"END"), &b"an END inside"[..]),
        (marker(b"aa"), b"xa"),
        (lines.clone(), b"two\nlines"),
        (lines.clone(), b"line\r"),
    ] {
        assert_eq!(encoded(&framing, message), Err(EncodeError::ContainsMarker));
    }
    assert_eq!(encoded(&lines, b"one").unwrap(), b"one\n");
    let kept = Framing::marker(Marker::new(b"END").unwrap().keep(true));
    for message in [&b"one"[..], b"oneEND"] {
        assert_eq!(encoded(&kept, message).unwrap(), b"oneEND");
    }

    let one = LengthPrefix::new(Width::One);
    assert_eq!(
        encoded(&length(one), &[0; 256]),
        Err(EncodeError::TooLong { len: 256 })
    );
    let kept = length(one.offset(1).header_size(3).keep_header());
    assert_eq!(encoded(&kept, b"T?"), Err(EncodeError::NoHeader));
    assert_eq!(encoded(&kept, b"T?Fhello").unwrap(), b"T\x05Fhello");
    assert_eq!(
        encoded(&length(one.offset(1).header_size(3)), b"hello").unwrap(),
        b"\0\x05\0hello"
    );

    let custom = Framing::custom(Custom::new(|_| Cut::Incomplete { until: 0 }));
    assert_eq!(encoded(&custom, b"x"), Err(EncodeError::NoEncoder));
}

#[test]
fn a_varint_that_counts_itself_is_as_long_as_it_makes_itself() {
    let framing = length(LengthPrefix::new(Width::Varint).counts_header());
    for len in [125, 126, 127, 16_380, 16_381, 16_382] {
        let message = vec![b'x'; len];
        let bytes = encoded(&framing, &message).unwrap();
        assert_eq!(
            messages(framing.clone(), 20_000, &bytes).unwrap(),
            [message]
        );
    }
}
