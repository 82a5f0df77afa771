//! Compressed messages (RFC 7692), as a client may and may not send them, and what a server makes.

mod support;

use gannet_proto::websocket::{
    Compressor, Decoder, Event, Limits, MessageKind, Opcode, ProtocolError, client,
};
use support::websocket::{Seen, Transcript, read};

const KEY: [u8; 4] = [0xa1, 0x00, 0xff, 0x37];

/// "Hello", compressed.
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

#[derive(Default)]
struct Client {
    sent: Vec<u8>,
}

impl Client {
    fn frame(mut self, opcode: Opcode, fin: bool, payload: &[u8]) -> Self {
        client::encode_frame(&mut self.sent, opcode, fin, payload, KEY);
        self
    }

    /// With RSV1.
    fn compressed(mut self, opcode: Opcode, fin: bool, payload: &[u8]) -> Self {
        client::encode_compressed_frame(&mut self.sent, opcode, fin, payload, KEY);
        self
    }

    fn read_with(&self, takeover: bool, limits: Limits) -> Transcript {
        let decoder = || Decoder::new(limits).with_deflate(takeover);
        let whole = read(decoder(), limits, &self.sent, &[]);
        for piece in [1, 2, 7, 100] {
            let cuts = vec![piece; self.sent.len() / piece];
            assert_eq!(read(decoder(), limits, &self.sent, &cuts), whole);
        }
        whole
    }

    #[track_caller]
    fn makes(self, texts: &[&str]) {
        let transcript = self.read_with(false, Limits::default());
        let texts: Vec<_> = texts.iter().map(|&text| Seen::Text(text.into())).collect();
        assert_eq!((transcript.events, transcript.error), (texts, None));
        assert!(transcript.is_idle);
    }

    #[track_caller]
    fn fails_with(self, error: ProtocolError, code: u16) {
        let transcript = self.read_with(false, Limits::default());
        assert_eq!(transcript.error, Some(error));
        assert_eq!(error.code().0, code);
    }
}

fn send() -> Client {
    Client::default()
}

/// Compressed by another library, flushed, without the flush's end.
fn compress(data: &[u8]) -> Vec<u8> {
    use miniz_oxide::{
        DataFormat, MZFlush,
        deflate::{core::CompressorOxide, stream::deflate},
    };
    let mut state = CompressorOxide::default();
    state.set_format_and_level(DataFormat::Raw, 6);
    let mut out = vec![0; data.len() + 1000];
    let result = deflate(&mut state, data, &mut out, MZFlush::Sync);
    assert_eq!(result.bytes_consumed, data.len());
    out.truncate(result.bytes_written - 4);
    out
}

/// So many bytes of numbers.
fn text_of(len: usize) -> String {
    let mut text = String::new();
    for n in 0.. {
        if text.len() >= len {
            break;
        }
        text.push_str(&format!("number {n}; "));
    }
    text.truncate(len);
    text
}

#[test]
fn compressed_and_plain_messages_may_alternate() {
    send()
        .compressed(Opcode::Text, true, &HELLO)
        .frame(Opcode::Text, true, b"plain")
        .compressed(Opcode::Text, true, &HELLO)
        .makes(&["Hello", "plain", "Hello"]);
}

#[test]
fn only_the_first_fragment_says_that_the_message_is_compressed() {
    send()
        .compressed(Opcode::Text, false, &HELLO[..3])
        .frame(Opcode::Continuation, false, &HELLO[3..4])
        .frame(Opcode::Continuation, false, b"")
        .frame(Opcode::Continuation, true, &HELLO[4..])
        .makes(&["Hello"]);
    send()
        .compressed(Opcode::Text, false, b"")
        .frame(Opcode::Continuation, true, &HELLO)
        .makes(&["Hello"]);
    send()
        .compressed(Opcode::Text, false, &HELLO[..3])
        .compressed(Opcode::Continuation, true, &HELLO[3..])
        .fails_with(ProtocolError::ReservedBits, 1002);
    send()
        .frame(Opcode::Text, false, b"Hel")
        .compressed(Opcode::Continuation, true, b"lo")
        .fails_with(ProtocolError::ReservedBits, 1002);
}

#[test]
fn a_control_frame_is_never_compressed() {
    for opcode in [Opcode::Ping, Opcode::Pong, Opcode::Close] {
        send()
            .compressed(opcode, true, b"")
            .fails_with(ProtocolError::ReservedBits, 1002);
    }
}

#[test]
fn a_control_frame_may_stand_inside_a_compressed_message() {
    let transcript = send()
        .compressed(Opcode::Text, false, &HELLO[..3])
        .frame(Opcode::Ping, true, b"there?")
        .frame(Opcode::Continuation, true, &HELLO[3..])
        .read_with(false, Limits::default());
    let expected = [Seen::Ping(b"there?".to_vec()), Seen::Text("Hello".into())];
    assert_eq!(transcript.events, expected);
}

#[test]
fn nothing_is_compressed_unless_it_was_negotiated() {
    let limits = Limits::default();
    let sent = send().compressed(Opcode::Text, true, &HELLO).sent;
    let transcript = read(Decoder::new(limits), limits, &sent, &[]);
    assert_eq!(transcript.error, Some(ProtocolError::ReservedBits));
    for bit in [0x20, 0x10] {
        let mut sent = send().compressed(Opcode::Text, true, &HELLO).sent;
        sent[0] |= bit;
        let decoder = Decoder::new(limits).with_deflate(false);
        let error = read(decoder, limits, &sent, &[]).error;
        assert_eq!(error, Some(ProtocolError::ReservedBits));
    }
}

#[test]
fn empty_messages() {
    send()
        .compressed(Opcode::Text, true, &[0])
        .compressed(Opcode::Text, true, &[])
        .compressed(Opcode::Text, true, &[2, 0])
        .makes(&["", "", ""]);
}

#[test]
fn a_window_that_is_kept_lets_messages_refer_back() {
    let sent = send()
        .compressed(Opcode::Text, true, &HELLO)
        .frame(Opcode::Text, true, b"between")
        .compressed(Opcode::Text, true, &[0xf2, 0x00, 0x11, 0x00, 0x00]);
    let texts = ["Hello", "between", "Hello"].map(|text| Seen::Text(text.into()));
    let kept = sent.read_with(true, Limits::default());
    assert_eq!((kept.events, kept.error), (texts.to_vec(), None));
    let anew = sent.read_with(false, Limits::default());
    assert_eq!(anew.error, Some(ProtocolError::InvalidCompression));
    assert_eq!(ProtocolError::InvalidCompression.code().0, 1007);
}

#[test]
fn invalid_text_fails_at_its_first_invalid_byte_also_when_compressed() {
    let limits = Limits::default();
    let compressed = compress(b"good \xff and more that never comes");
    for piece in 1..compressed.len() {
        let mut decoder = Decoder::new(limits).with_deflate(false);
        let mut sent = send()
            .compressed(Opcode::Text, false, &compressed[..piece])
            .sent;
        if decoder.decode(&mut sent).is_err() {
            assert!(piece < compressed.len() - 4, "only at the end");
            return;
        }
    }
    panic!("it was accepted");
}

#[test]
fn a_character_may_be_cut_anywhere() {
    let text = "gr\u{fc}\u{df}e \u{1f991} ".repeat(20);
    let compressed = compress(text.as_bytes());
    for cut in 0..compressed.len() {
        send()
            .compressed(Opcode::Text, false, &compressed[..cut])
            .frame(Opcode::Continuation, true, &compressed[cut..])
            .makes(&[&text]);
    }
}

#[test]
fn the_limit_counts_what_comes_out() {
    let limits = Limits {
        max_message_size: 10_000,
        ..Limits::default()
    };
    let sent = |len| send().compressed(Opcode::Binary, true, &compress(&vec![b'x'; len]));
    assert_eq!(sent(10_000).read_with(false, limits).error, None);
    let error = ProtocolError::MessageTooBig { limit: 10_000 };
    assert_eq!(sent(10_001).read_with(false, limits).error, Some(error));
    // What cannot be compressed may take more room on the wire than in the end.
    let stored = |len: usize| {
        let mut payload = vec![0, len as u8, (len >> 8) as u8];
        payload.extend([!(len as u8), !((len >> 8) as u8)]);
        payload.extend(vec![b'x'; len]);
        payload.push(0);
        send().compressed(Opcode::Binary, true, &payload)
    };
    assert_eq!(stored(10_000).read_with(false, limits).error, None);
    assert_eq!(stored(10_001).read_with(false, limits).error, Some(error));
    // And a frame that cannot end well is refused when it is announced.
    let announced = [0xc2, 0xfe, 0x40, 0, 1, 2, 3, 4];
    let decoder = Decoder::new(limits).with_deflate(false);
    assert_eq!(read(decoder, limits, &announced, &[]).error, Some(error));
}

#[test]
fn a_gibibyte_of_zeros_costs_what_the_limit_allows() {
    let limits = Limits::default();
    // Two mebibytes at a time, as a bomb's author would do it: about 1 KiB each.
    let mut piece = compress(&vec![0; 2 << 20]);
    piece.extend([0, 0, 0xff, 0xff]);
    let mut decoder = Decoder::new(limits).with_deflate(false);
    let mut sent = send().compressed(Opcode::Binary, false, &piece).sent;
    assert!(sent.len() < 4096, "{}", sent.len());
    assert_eq!(decoder.decode(&mut sent).unwrap().event, None);
    assert_eq!(decoder.buffered(), 2 << 20);
    let mut sent = send().frame(Opcode::Continuation, false, &piece).sent;
    let error = decoder.decode(&mut sent).unwrap_err();
    assert_eq!(error.code().0, 1009);
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn a_message_has_at_most_so_many_frames() {
    let limits = Limits {
        max_fragments: 3,
        ..Limits::default()
    };
    let begun = || send().frame(Opcode::Text, false, b"a");
    let two = || begun().frame(Opcode::Continuation, false, b"");
    let three = two().frame(Opcode::Continuation, true, b"c");
    let twice = Client {
        sent: three.sent.repeat(2),
    };
    let texts = vec![Seen::Text("ac".into()), Seen::Text("ac".into())];
    assert_eq!(twice.read_with(false, limits).events, texts);
    let four = two()
        .frame(Opcode::Continuation, false, b"")
        .frame(Opcode::Continuation, true, b"");
    let error = ProtocolError::TooManyFragments { limit: 3 };
    assert_eq!(four.read_with(false, limits).error, Some(error));
    assert_eq!(error.code().0, 1008);
}

#[test]
fn what_the_compressor_makes_is_what_went_in_at_every_level_and_window() {
    for (level, bits) in [(1, 9), (2, 10), (5, 12), (6, 15), (9, 9), (9, 15)] {
        for takeover in [false, true] {
            let mut compressor = Compressor::new(level, bits, takeover);
            let mut decoder = Decoder::client(Limits::default()).with_deflate(takeover);
            for len in [0, 1, 10, 1000, 70_000, 500_000] {
                let text = text_of(len);
                let mut wire = Vec::new();
                let shrunk =
                    compressor.encode_message(&mut wire, MessageKind::Text, text.as_bytes());
                assert_eq!(shrunk, wire[0] & 0x40 != 0);
                assert_eq!(shrunk, len >= 1000, "{len} bytes at level {level}");
                let decoded = decoder.decode(&mut wire).unwrap();
                assert_eq!(decoded.event, Some(Event::Text(&text)));
            }
        }
    }
}

#[test]
fn another_library_inflates_what_the_compressor_makes() {
    let mut compressor = Compressor::new(5, 15, false);
    for len in [100, 5000, 300_000] {
        let text = text_of(len);
        let mut stream = compressor.compress(text.as_bytes()).unwrap().to_vec();
        // The flush's end, and a last block.
        stream.extend([0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
        let inflated = miniz_oxide::inflate::decompress_to_vec(&stream).unwrap();
        assert_eq!(inflated, text.as_bytes());
    }
}

#[test]
fn a_compressor_that_forgets_refers_to_nothing() {
    let text = text_of(1000);
    let mut compressor = Compressor::new(6, 15, true);
    let first = compressor.compress(text.as_bytes()).unwrap().to_vec();
    let second = compressor.compress(text.as_bytes()).unwrap().to_vec();
    assert!(second.len() < first.len() / 4, "it does not refer back");
    compressor.forget();
    assert_eq!(compressor.compress(text.as_bytes()).unwrap(), first);
}

#[test]
fn a_message_that_was_lent_can_be_given_back_at_once() {
    let mut decoder = Decoder::new(Limits::default()).with_deflate(false);
    let mut sent = send().compressed(Opcode::Text, true, &HELLO).sent;
    let decoded = decoder.decode(&mut sent).unwrap();
    assert_eq!(decoded.event, Some(Event::Text("Hello")));
    assert!(decoder.buffered() > 0);
    decoder.release();
    assert_eq!(decoder.buffered(), 0);
    let mut sent = send().compressed(Opcode::Text, true, &HELLO).sent;
    let again = decoder.decode(&mut sent).unwrap();
    assert_eq!(again.event, Some(Event::Text("Hello")));
}

/// What comes in one read is looked at in so many calls as the budget makes of it.
#[test]
fn a_budget_changes_when_things_come_out_and_not_what() {
    let texts = [text_of(300_000), "x".repeat(1 << 20), text_of(70_000)];
    let mut client = send();
    for text in &texts {
        let bytes = compress(text.as_bytes());
        let (begin, end) = bytes.split_at(bytes.len() / 3);
        client = client
            .compressed(Opcode::Text, false, begin)
            .frame(Opcode::Ping, true, b"between")
            .frame(Opcode::Continuation, true, end)
            .frame(Opcode::Text, true, b"plain");
    }
    let total: usize = texts.iter().map(String::len).sum();
    for (takeover, allowed) in [(false, 1), (false, 100_000), (true, 1), (true, 1 << 20)] {
        let mut decoder = Decoder::new(Limits::default()).with_deflate(takeover);
        let (mut input, mut used) = (client.sent.clone(), 0);
        let (mut seen, mut calls) = (Vec::new(), 0);
        while used < input.len() {
            let mut budget = allowed;
            while budget > 0 && used < input.len() {
                let decoded = decoder
                    .decode_within(&mut input[used..], &mut budget)
                    .unwrap();
                used += decoded.used;
                match decoded.event {
                    Some(Event::Text(text)) => seen.push(text.to_owned()),
                    Some(Event::Ping(_)) | None => {}
                    other => panic!("{other:?}"),
                }
            }
            calls += 1;
        }
        let expected: Vec<&str> = texts.iter().flat_map(|text| [text, "plain"]).collect();
        assert!(seen == expected, "{} messages", seen.len());
        let least = total / (allowed + (64 << 10));
        assert!(calls >= least, "{calls} calls, {allowed} bytes each");
    }
}
