//! Frames, as a client may and may not send them. The names of the sections are those of
//! the Autobahn test suite.

mod support;

use gannet_proto::websocket::{
    Decoder, Event, Limits, MessageKind, Opcode, ProtocolError, client, encode_close,
    encode_message, encode_ping, encode_pong,
};
use support::websocket::{Seen, Transcript, read};

const KEY: [u8; 4] = [0xa1, 0x00, 0xff, 0x37];

/// What a client sends, frame after frame.
#[derive(Default)]
struct Client {
    sent: Vec<u8>,
}

impl Client {
    fn frame(mut self, opcode: Opcode, fin: bool, payload: &[u8]) -> Self {
        client::encode_frame(&mut self.sent, opcode, fin, payload, KEY);
        self
    }

    fn text(self, text: impl AsRef<[u8]>) -> Self {
        self.frame(Opcode::Text, true, text.as_ref())
    }

    fn begin_text(self, text: impl AsRef<[u8]>) -> Self {
        self.frame(Opcode::Text, false, text.as_ref())
    }

    fn next(self, part: impl AsRef<[u8]>) -> Self {
        self.frame(Opcode::Continuation, false, part.as_ref())
    }

    fn last(self, part: impl AsRef<[u8]>) -> Self {
        self.frame(Opcode::Continuation, true, part.as_ref())
    }

    fn binary(self, data: &[u8]) -> Self {
        self.frame(Opcode::Binary, true, data)
    }

    fn ping(self, data: &[u8]) -> Self {
        self.frame(Opcode::Ping, true, data)
    }

    fn pong(self, data: &[u8]) -> Self {
        self.frame(Opcode::Pong, true, data)
    }

    fn close(self, payload: &[u8]) -> Self {
        self.frame(Opcode::Close, true, payload)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.sent.extend_from_slice(bytes);
        self
    }

    /// Reads in one piece and in small ones, byte by byte if that is quick: always the same.
    fn transcript(&self) -> Transcript {
        let limits = Limits {
            max_message_size: 1 << 20,
            ..Limits::default()
        };
        let read = |cuts: &[usize]| read(Decoder::new(limits), limits, &self.sent, cuts);
        let whole = read(&[]);
        let small = if self.sent.len() < 1 << 17 { 1 } else { 1021 };
        for piece in [small, 7 * small] {
            assert_eq!(
                read(&vec![piece; self.sent.len() / piece]),
                whole,
                "pieces of {piece}"
            );
        }
        whole
    }

    #[track_caller]
    fn makes(self, events: &[Seen]) {
        let transcript = self.transcript();
        assert_eq!(transcript.error, None);
        assert_eq!(transcript.events, events);
        assert!(transcript.is_idle);
        assert_eq!(transcript.unused, 0);
    }

    #[track_caller]
    fn fails_with(self, error: ProtocolError, code: u16) {
        let transcript = self.transcript();
        assert_eq!(transcript.error, Some(error));
        assert_eq!(error.code().0, code);
    }
}

fn send() -> Client {
    Client::default()
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

fn ping(data: &[u8]) -> Seen {
    Seen::Ping(data.to_owned())
}

// 1: framing

#[test]
fn messages_of_every_length_form() {
    for len in [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20] {
        let data = vec![b'*'; len];
        let expected = String::from_utf8(data.clone()).unwrap();
        send().text(&data).makes(&[Seen::Text(expected)]);
        send().binary(&data).makes(&[Seen::Binary(data)]);
    }
}

#[test]
fn frames_that_arrive_together_are_taken_one_by_one() {
    send().text("a").ping(b"b").binary(b"c").pong(b"d").makes(&[
        text("a"),
        ping(b"b"),
        Seen::Binary(b"c".to_vec()),
        Seen::Pong(b"d".to_vec()),
    ]);
}

#[test]
fn a_whole_message_is_taken_and_all_else_is_left_as_it_came() {
    let take = |sent: &[u8]| {
        let mut input = sent.to_vec();
        let taken = Decoder::new(Limits::default()).take_whole(&mut input);
        if taken.is_none() {
            assert_eq!(input, sent);
        }
        taken.map(|(kind, message)| (kind, input[message.clone()].to_vec(), message.end))
    };
    let both = Client::default().text("aé").ping(b"").sent;
    assert_eq!(take(&both), Some((MessageKind::Text, "aé".into(), 9)));
    let long = [7; 300];
    let taken = Some((MessageKind::Binary, long.to_vec(), 308));
    assert_eq!(take(&Client::default().binary(&long).sent), taken);
    let others = [
        Client::default().ping(b"ping"),
        Client::default().begin_text("a"),
        Client::default().last("a"),
        Client::default().text(b"a\xff"),
        Client::default().raw(&both[..8]),
        Client::default().raw(&[0xc1, 0x81, 1, 2, 3, 4, 5]),
        Client::default().raw(&[0x82, 1, 2]),
        Client::default().binary(&vec![0; (2 << 20) + 1]),
    ];
    for other in others {
        assert_eq!(take(&other.sent), None, "{:?}", &other.sent[..4]);
    }
    let mut decoder = Decoder::new(Limits::default());
    let mut begun = Client::default().begin_text("a").text("b").sent;
    assert_eq!(decoder.decode(&mut begun[..7]).unwrap().event, None);
    assert_eq!(
        decoder.take_whole(&mut begun[7..]),
        None,
        "within a message"
    );
}

#[test]
fn a_whole_message_is_borrowed_from_the_input() {
    let mut input = send().text("hello").sent;
    let range = input.as_ptr_range();
    let mut decoder = Decoder::new(Limits::default());
    let decoded = decoder.decode(&mut input).unwrap();
    let Some(Event::Text(text)) = decoded.event else {
        panic!("{decoded:?}")
    };
    assert!(range.contains(&text.as_ptr()));
    assert_eq!(decoder.buffered(), 0);
}

// 2: pings and pongs

#[test]
fn pings_with_and_without_data() {
    send()
        .ping(b"")
        .ping(&[0; 125])
        .makes(&[ping(b""), ping(&[0; 125])]);
}

#[test]
fn unasked_pongs_are_welcome() {
    send()
        .pong(b"x")
        .text("a")
        .makes(&[Seen::Pong(b"x".to_vec()), text("a")]);
}

#[test]
fn a_ping_of_126_bytes_fails_with() {
    send()
        .ping(&[0; 126])
        .fails_with(ProtocolError::LargeControl, 1002);
}

// 3: reserved bits

#[test]
fn reserved_bits_are_refused() {
    for bits in 1..8u8 {
        let byte = 0x81 | bits << 4;
        send()
            .raw(&[byte])
            .fails_with(ProtocolError::ReservedBits, 1002);
        send()
            .text("a")
            .raw(&[byte, 0x80, 0, 0, 0, 0])
            .fails_with(ProtocolError::ReservedBits, 1002);
    }
}

// 4: opcodes

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        let error = ProtocolError::ReservedOpcode(opcode);
        send().raw(&[0x80 | opcode]).fails_with(error, 1002);
        send()
            .begin_text("a")
            .raw(&[0x80 | opcode])
            .fails_with(error, 1002);
    }
}

// 5: fragments

#[test]
fn fragments_are_joined() {
    send()
        .begin_text("a")
        .next("")
        .next("b")
        .last("c")
        .makes(&[text("abc")]);
    send().begin_text("").last("").makes(&[text("")]);
    let binary = send().frame(Opcode::Binary, false, b"\xff").last(b"\xfe");
    binary.makes(&[Seen::Binary(b"\xff\xfe".to_vec())]);
}

#[test]
fn control_frames_come_between_fragments() {
    send()
        .begin_text("a")
        .ping(b"1")
        .next("b")
        .ping(b"2")
        .last("c")
        .text("d")
        .makes(&[ping(b"1"), ping(b"2"), text("abc"), text("d")]);
}

#[test]
fn control_frames_are_never_fragmented() {
    for opcode in [Opcode::Ping, Opcode::Pong, Opcode::Close] {
        send()
            .frame(opcode, false, b"")
            .fails_with(ProtocolError::FragmentedControl, 1002);
    }
}

#[test]
fn a_continuation_needs_a_message() {
    for fin in [false, true] {
        let lonely = || send().frame(Opcode::Continuation, fin, b"a");
        lonely().fails_with(ProtocolError::UnexpectedContinuation, 1002);
        let after = send()
            .begin_text("a")
            .last("b")
            .frame(Opcode::Continuation, fin, b"a");
        after.fails_with(ProtocolError::UnexpectedContinuation, 1002);
    }
}

#[test]
fn a_message_ends_before_the_next_begins() {
    send()
        .begin_text("a")
        .text("b")
        .fails_with(ProtocolError::UnfinishedMessage, 1002);
    send()
        .begin_text("a")
        .binary(b"b")
        .fails_with(ProtocolError::UnfinishedMessage, 1002);
}

// 6: UTF-8

const VALID_TEXTS: &[&str] = &[
    "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!",
    "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}",
    "\0\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
    "\u{d7ff}\u{e000}\u{fffd}\u{fffe}\u{1fffe}",
];

const INVALID_TEXTS: &[&[u8]] = &[
    b"\x80",
    b"\xbf\xbf",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xc3(",
    b"\xe2\x82(",
    b"\xf0\x9f\x98(",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
];

#[test]
fn valid_text_is_accepted_wherever_it_is_fragmented() {
    for valid in VALID_TEXTS {
        send().text(valid).makes(&[text(valid)]);
        for at in 0..=valid.len() {
            let (a, b) = valid.as_bytes().split_at(at);
            send()
                .begin_text(a)
                .next("")
                .ping(b"")
                .last(b)
                .makes(&[ping(b""), text(valid)]);
        }
        let bytes = valid
            .bytes()
            .fold(send().begin_text(""), |client, byte| client.next([byte]));
        bytes.last("").makes(&[text(valid)]);
    }
}

#[test]
fn invalid_text_fails_with_wherever_it_is_fragmented() {
    for invalid in INVALID_TEXTS {
        send()
            .text(invalid)
            .fails_with(ProtocolError::InvalidText, 1007);
        for at in 0..=invalid.len() {
            let (a, b) = invalid.split_at(at);
            send()
                .begin_text(a)
                .last(b)
                .fails_with(ProtocolError::InvalidText, 1007);
        }
    }
}

#[test]
fn text_that_ends_inside_a_character_fails_with() {
    for cut in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98", b"abc\xf0"] {
        send()
            .text(cut)
            .fails_with(ProtocolError::InvalidText, 1007);
        send()
            .begin_text(cut)
            .last("")
            .fails_with(ProtocolError::InvalidText, 1007);
    }
}

#[test]
fn invalid_text_fails_at_its_first_invalid_byte() {
    // A frame of 8 bytes whose fourth is invalid, and only four arrive.
    let input = send().text(b"abc\xffdefg").sent;
    assert_eq!(send().raw(&input[..6 + 3]).transcript().error, None);
    send()
        .raw(&input[..6 + 4])
        .fails_with(ProtocolError::InvalidText, 1007);

    // The second byte of a surrogate, in a fragment that is not the last.
    send()
        .begin_text(b"abc\xed")
        .next(b"\xa0")
        .fails_with(ProtocolError::InvalidText, 1007);
    // The same in an incomplete frame after a fragment.
    let next = send().next(b"\xa0abc").sent;
    send()
        .begin_text(b"\xed")
        .raw(&next[..7])
        .fails_with(ProtocolError::InvalidText, 1007);
}

#[test]
fn binary_is_not_checked() {
    for invalid in INVALID_TEXTS {
        send()
            .binary(invalid)
            .makes(&[Seen::Binary(invalid.to_vec())]);
    }
}

// 7: closing

#[test]
fn nothing_counts_after_a_close() {
    let close = Seen::Close(Some((1000, "bye".to_owned())));
    send()
        .close(b"\x03\xe8bye")
        .text("a")
        .ping(b"")
        .makes(std::slice::from_ref(&close));
    send()
        .close(b"\x03\xe8bye")
        .raw(b"\xff\xff\xff")
        .makes(std::slice::from_ref(&close));
    send()
        .begin_text("a")
        .close(b"\x03\xe8bye")
        .last("b")
        .makes(&[close]);
}

#[test]
fn a_close_has_no_payload_or_a_code() {
    send().close(b"").makes(&[Seen::Close(None)]);
    send()
        .close(&[3])
        .fails_with(ProtocolError::TruncatedCloseCode, 1002);
    send()
        .close(&[3, 0xe8])
        .makes(&[Seen::Close(Some((1000, String::new())))]);
}

#[test]
fn a_close_reason_has_at_most_123_bytes() {
    let payload = |len| [&[3, 0xe8], vec![b'*'; len].as_slice()].concat();
    let longest = Seen::Close(Some((1000, "*".repeat(123))));
    send().close(&payload(123)).makes(&[longest]);
    send()
        .close(&payload(124))
        .fails_with(ProtocolError::LargeControl, 1002);
}

#[test]
fn a_close_reason_is_text() {
    for invalid in INVALID_TEXTS {
        let payload = [&[3, 0xe8], *invalid].concat();
        send()
            .close(&payload)
            .fails_with(ProtocolError::InvalidCloseReason, 1007);
    }
}

#[test]
fn close_codes() {
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999u16,
    ] {
        let close = Seen::Close(Some((code, String::new())));
        send().close(&code.to_be_bytes()).makes(&[close]);
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535u16,
    ] {
        let error = ProtocolError::InvalidCloseCode(code);
        send().close(&code.to_be_bytes()).fails_with(error, 1002);
    }
}

// 9: limits

#[test]
fn a_message_of_the_limit_is_accepted_and_one_byte_more_is_not() {
    let limit = 1 << 20;
    let error = ProtocolError::MessageTooBig { limit };
    let limit = limit as usize;
    send()
        .binary(&vec![0; limit])
        .makes(&[Seen::Binary(vec![0; limit])]);
    send().binary(&vec![0; limit + 1]).fails_with(error, 1009);
    let halves = send().frame(Opcode::Binary, false, &vec![0; limit / 2]);
    halves.last(vec![0; limit / 2 + 1]).fails_with(error, 1009);
}

#[test]
fn an_announced_length_is_judged_before_the_payload_comes() {
    let error = ProtocolError::MessageTooBig { limit: 1 << 20 };
    let header = [&[0x82, 0xff][..], &u64::to_be_bytes(1 << 40), &KEY].concat();
    send().raw(&header).fails_with(error, 1009);
}

#[test]
fn an_announced_length_allocates_nothing() {
    let mut decoder = Decoder::new(Limits {
        max_message_size: 1 << 30,
        ..Limits::default()
    });
    let mut input = [&[0x82, 0xff][..], &u64::to_be_bytes(1 << 30), &KEY, b"abc"].concat();
    let decoded = decoder.decode(&mut input).unwrap();
    assert_eq!((decoded.used, decoded.event), (17, None));
    assert!(
        decoder.buffered() < 64,
        "{} bytes for 3",
        decoder.buffered()
    );
    assert!(!decoder.is_idle());
}

#[test]
fn an_idle_connection_holds_no_memory() {
    let mut decoder = Decoder::new(Limits::default());
    let mut input = send().text("x".repeat(1000)).sent;
    let (first, second) = input.split_at_mut(500);
    assert_eq!(decoder.decode(first).unwrap().used, 500);
    assert!(decoder.buffered() >= 492);
    assert!(decoder.decode(second).unwrap().event.is_some());
    assert_eq!(decoder.decode(&mut []).unwrap().event, None);
    assert!(decoder.is_idle());
    assert_eq!(decoder.buffered(), 0);
    assert!(size_of::<Decoder>() <= 64);
}

// Headers

#[test]
fn unmasked_frames_are_refused() {
    send()
        .raw(&[0x81, 0x00])
        .fails_with(ProtocolError::Unmasked, 1002);
}

#[test]
fn a_client_refuses_masked_frames() {
    let mut decoder = Decoder::client(Limits::default());
    let mut input = send().text("a").sent;
    assert_eq!(decoder.decode(&mut input), Err(ProtocolError::Masked));
}

#[test]
fn lengths_take_their_shortest_form() {
    send()
        .raw(&[0x82, 0xfe, 0, 125])
        .fails_with(ProtocolError::LongLength, 1002);
    send()
        .raw(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 255, 255])
        .fails_with(ProtocolError::LongLength, 1002);
}

#[test]
fn a_length_with_its_high_bit_fails_with() {
    let header = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0];
    send()
        .raw(&header)
        .fails_with(ProtocolError::LengthHighBit, 1002);
}

// Encoding

#[test]
fn what_a_server_encodes_a_client_reads() {
    let mut out = Vec::new();
    encode_message(&mut out, MessageKind::Text, "gr\u{fc}n".as_bytes());
    encode_message(&mut out, MessageKind::Binary, &[9; 70_000]);
    encode_ping(&mut out, b"p");
    encode_pong(&mut out, b"q");
    encode_close(&mut out, 4001, "why");

    let limits = Limits::default();
    let transcript = read(Decoder::client(limits), limits, &out, &[]);
    assert_eq!(transcript.error, None);
    assert_eq!(
        transcript.events,
        [
            text("gr\u{fc}n"),
            Seen::Binary(vec![9; 70_000]),
            ping(b"p"),
            Seen::Pong(b"q".to_vec()),
            Seen::Close(Some((4001, "why".to_owned()))),
        ]
    );
}

#[test]
fn what_a_client_encodes_a_server_reads() {
    let mut sent = Vec::new();
    client::encode_message(&mut sent, MessageKind::Text, b"a", KEY);
    client::encode_ping(&mut sent, b"b", KEY);
    client::encode_pong(&mut sent, b"c", KEY);
    client::encode_close(&mut sent, 1001, "d", KEY);
    let events = [
        text("a"),
        ping(b"b"),
        Seen::Pong(b"c".to_vec()),
        Seen::Close(Some((1001, "d".to_owned()))),
    ];
    Client { sent }.makes(&events);
}
