//! RFC 6455 frame by frame: framing, control frames, reserved bits and opcodes, fragments, UTF-8,
//! the close handshake. Each row has one allowed outcome.

use gannet_tests::{
    script::{Case, case},
    server::Server,
    websocket::{Frame, frame, opcode},
};

use crate::behave;

#[test]
fn messages_of_every_length_are_echoed() {
    let server = echo();
    for len in [0, 125, 126, 127, 128, 65_535, 65_536] {
        let payload = vec![b'*'; len];
        let text = String::from_utf8(payload.clone()).unwrap();
        case("text").text(&text).gets_text(text).play(&server);
        case("binary")
            .frame(true, opcode::BINARY, &payload)
            .gets(Frame::Binary(payload))
            .play(&server);
    }
    server.stop();
}

#[test]
fn every_ping_has_its_pong_and_a_pong_has_no_answer() {
    let long = [0xfe; 125];
    let ten = |mut case: Case| {
        for n in 0..10_u8 {
            case = case.ping([b'p', n]).gets_pong([b'p', n]);
        }
        case
    };
    play([
        case("empty").ping("").gets_pong(""),
        case("text")
            .ping("Hello, world!")
            .gets_pong("Hello, world!"),
        case("binary")
            .ping([0, 0xff, 0xfe, 0xfd])
            .gets_pong([0, 0xff, 0xfe, 0xfd]),
        case("125 bytes").ping(long).gets_pong(long),
        case("126 bytes").ping([0xfe; 126]).fails(1002),
        case("unasked pong").pong(""),
        case("unasked pong with payload").pong("nobody asked"),
        case("unasked pong, then a ping")
            .pong("nobody asked")
            .ping("yes")
            .gets_pong("yes"),
        case("pong of 126 bytes").pong([0; 126]).fails(1002),
        ten(case("ten pings")),
        ten(case("pings between fragments").begin("a"))
            .last("b")
            .gets_text("ab"),
    ]);
}

#[test]
fn reserved_bits_fail_what_comes_with_them_and_nothing_before() {
    let mut rows = Vec::new();
    for bits in 1..=7 {
        for code in [
            opcode::CONTINUATION,
            opcode::TEXT,
            opcode::BINARY,
            opcode::PING,
            opcode::PONG,
            opcode::CLOSE,
        ] {
            let payload = match code {
                opcode::CLOSE => vec![3, 232],
                _ => b"hi".to_vec(),
            };
            rows.push(case("alone").reserved(bits, code, &payload).fails(1002));
            rows.push(
                case("after a message")
                    .text("before")
                    .gets_text("before")
                    .reserved(bits, code, &payload)
                    .ping("not answered")
                    .fails(1002),
            );
        }
    }
    play(rows);
}

#[test]
fn reserved_opcodes_fail() {
    let mut rows = Vec::new();
    for code in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in ["", "payload"] {
            rows.push(case("alone").frame(true, code, payload).fails(1002));
            rows.push(
                case("after a message, before a ping")
                    .text("before")
                    .gets_text("before")
                    .frame(true, code, payload)
                    .ping("not answered")
                    .fails(1002),
            );
        }
    }
    play(rows);
}

#[test]
fn fragments_become_messages_and_anything_else_fails() {
    play([
        case("ping in two")
            .frame(false, opcode::PING, "a")
            .last("b")
            .fails(1002),
        case("pong in two")
            .frame(false, opcode::PONG, "a")
            .last("b")
            .fails(1002),
        case("close in two")
            .frame(false, opcode::CLOSE, [3, 232])
            .last("")
            .fails(1002),
        case("two")
            .begin("frag1")
            .last("frag2")
            .gets_text("frag1frag2"),
        case("empty ones").begin("").next("").last("").gets_text(""),
        case("empty first and last")
            .begin("")
            .next("middle")
            .last("")
            .gets_text("middle"),
        case("ping between")
            .begin("1")
            .ping("p")
            .last("2")
            .gets_pong("p")
            .gets_text("12"),
        case("pong between")
            .begin("1")
            .pong("p")
            .last("2")
            .gets_text("12"),
        case("five with pings")
            .begin("1")
            .next("2")
            .ping("a")
            .gets_pong("a")
            .next("3")
            .next("4")
            .ping("b")
            .gets_pong("b")
            .last("5")
            .gets_text("12345"),
        case("continuation of nothing")
            .last("x")
            .text("y")
            .fails(1002),
        case("continuation of nothing, not last")
            .next("x")
            .text("y")
            .fails(1002),
        case("continuation after a whole message")
            .text("whole")
            .gets_text("whole")
            .last("x")
            .fails(1002),
        case("continuation after a fragmented message")
            .begin("a")
            .last("b")
            .gets_text("ab")
            .next("x")
            .text("y")
            .fails(1002),
        case("text inside text").begin("a").text("b").fails(1002),
        case("binary inside text")
            .begin("a")
            .frame(true, opcode::BINARY, "b")
            .fails(1002),
        case("beginning inside a beginning")
            .begin("a")
            .begin("b")
            .fails(1002),
        case("again and again")
            .next("x")
            .begin("a")
            .last("b")
            .fails(1002),
        case("the kind is that of the first frame")
            .frame(false, opcode::BINARY, [0xff])
            .last([0xfe])
            .gets(Frame::Binary(vec![0xff, 0xfe])),
        case("not masked").bytes([0x81, 2, b'h', b'i']).fails(1002),
        case("a length in four bytes that fits in one")
            .bytes([
                0x81,
                0x80 | 126,
                0,
                5,
                0,
                0,
                0,
                0,
                b'h',
                b'e',
                b'l',
                b'l',
                b'o',
            ])
            .fails(1002),
        case("a length with its highest bit")
            .bytes([0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0])
            .fails(1002),
    ]);
}

#[test]
fn text_that_is_utf8_is_echoed_whole_and_cut_anywhere() {
    let valid: &[&[u8]] = &[
        b"",
        "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".as_bytes(),
        "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes(),
        b"\0",
        // First and last of each length.
        b"\x7f",
        b"\xc2\x80",
        b"\xdf\xbf",
        b"\xe0\xa0\x80",
        b"\xef\xbf\xbf",
        b"\xf0\x90\x80\x80",
        b"\xf4\x8f\xbf\xbf",
        // Around the surrogates, and what is no character but may be sent.
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        b"\xef\xbf\xbe",
        b"\xf0\x9f\xbf\xbe",
        b"\xf3\xbf\xbf\xbf",
        b"\xf4\x8f\xbf\xbe",
    ];
    let server = echo();
    for &bytes in valid {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        case("whole").text(bytes).gets_text(&text).play(&server);
        for cut in 0..=bytes.len() {
            let (one, two) = bytes.split_at(cut);
            let cut = case("cut").begin(one).last(two).gets_text(&text);
            cut.play(&server);
        }
        let mut each = case("a frame for each byte").begin("");
        for byte in bytes {
            each = each.next([*byte]);
        }
        each.last("").gets_text(&text).play(&server);
    }
    server.stop();
}

#[test]
fn text_that_is_not_utf8_fails_whole_and_cut_anywhere() {
    let server = echo();
    for &bytes in NOT_UTF8 {
        case("whole").text(bytes).fails(1007).play(&server);
        case("inside")
            .text([b"good ", bytes, b" more"].concat())
            .fails(1007)
            .play(&server);
        let mut each = case("a frame for each byte").begin("");
        for byte in bytes {
            each = each.next([*byte]);
        }
        each.last("").fails(1007).play(&server);
        case("binary may be anything")
            .frame(true, opcode::BINARY, bytes)
            .gets(Frame::Binary(bytes.to_vec()))
            .play(&server);
    }
    server.stop();
}

/// The message never ends: what has come of it is enough.
#[test]
fn text_that_is_not_utf8_fails_at_the_first_byte_that_cannot_be() {
    let good = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes();
    let bad = b"\xf4\x90\x80\x80";
    let edited = b"edited";
    // As one frame whose rest never comes.
    let mut begun = frame(true, opcode::TEXT, &[good, bad, edited].concat());
    begun.truncate(6 + good.len() + 2);
    play([
        case("in a fragment, which is whole")
            .begin(good)
            .next(bad)
            .fails_at_once(1007),
        case("in the middle of a fragment")
            .begin([good, bad, edited].concat())
            .fails_at_once(1007),
        case("two bytes that no third can save")
            .begin(good)
            .next([0xf4])
            .next([0x90])
            .fails_at_once(1007),
        case("in a frame that is not whole")
            .bytes(begun)
            .fails_at_once(1007),
        case("a surrogate, cut")
            .begin([0xed])
            .next([0xa0])
            .fails_at_once(1007),
        case("too long a form, cut")
            .begin([0xe0])
            .next([0x80])
            .fails_at_once(1007),
    ]);
}

#[test]
fn a_close_frame_is_answered_with_its_code_and_nothing_counts_behind_it() {
    let code = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    play([
        case("with a code"),
        case("a message, then close")
            .text("Hello")
            .gets_text("Hello"),
        case("without a code").close("").closes(1000),
        case("with a reason")
            .close(code(1000, b"Hello"))
            .closes(1000),
        case("with the longest reason")
            .close(code(1000, &[b'*'; 123]))
            .closes(1000),
        case("with a longer one")
            .close(code(1000, &[b'*'; 124]))
            .fails(1002),
        case("with one byte").close([3]).fails(1002),
        case("with a reason that is not UTF-8")
            .close(code(
                1000,
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80",
            ))
            .fails(1007),
        case("twice")
            .close(code(1000, b""))
            .close(code(1000, b""))
            .closes(1000),
        case("then a ping")
            .close(code(1000, b""))
            .ping("late")
            .closes(1000),
        case("then a message")
            .close(code(1000, b""))
            .text("late")
            .closes(1000),
        case("then what breaks the protocol")
            .close(code(1000, b""))
            .reserved(7, 15, "late")
            .closes(1000),
        case("inside a message")
            .begin("fragment")
            .close(code(1000, b""))
            .last("late")
            .closes(1000),
        case("behind 256 KiB, before a ping")
            .text(vec![b'*'; 256 << 10])
            .gets_text("*".repeat(256 << 10))
            .close(code(1000, b""))
            .ping("late")
            .closes(1000),
    ]);
}

#[test]
fn only_codes_that_may_be_sent_are_taken() {
    let server = echo();
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
        4999,
    ] {
        for reason in ["", "because"] {
            let payload = [&u16::to_be_bytes(code), reason.as_bytes()].concat();
            case("valid").close(payload).closes(code).play(&server);
        }
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        for reason in ["", "because"] {
            let payload = [&u16::to_be_bytes(code), reason.as_bytes()].concat();
            case("invalid").close(payload).fails(1002).play(&server);
        }
    }
    server.stop();
}

fn play(rows: impl IntoIterator<Item = Case>) {
    let server = echo();
    for row in rows {
        row.play(&server);
    }
    server.stop();
}

fn echo() -> Server {
    behave().websocket().env("BEHAVE_WEBSOCKET", "echo").start()
}

const NOT_UTF8: &[&[u8]] = &[
    // Continuation bytes that continue nothing.
    b"\x80",
    b"\xbf",
    b"\x80\xbf",
    b"\x80\xbf\x80\xbf\x80\xbf",
    // Beginnings without an end.
    b"\xc2",
    b"\xdf ",
    b"\xe0\xa0",
    b"\xef\xbf ",
    b"\xf0\x90\x80",
    b"\xf4\x8f\xbf ",
    b"\xc2\xe0\xa0\xf0\x90\x80",
    // Bytes that never occur.
    b"\xc0",
    b"\xc1",
    b"\xf5",
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    // Longer forms than needed: of "/", of the largest of each length, of NUL.
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf",
    b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x87\xbf\xbf\xbf",
    b"\xfc\x83\xbf\xbf\xbf\xbf",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    b"\xf8\x80\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80\x80",
    // Surrogates, alone and in pairs.
    b"\xed\xa0\x80",
    b"\xed\xad\xbf",
    b"\xed\xae\x80",
    b"\xed\xaf\xbf",
    b"\xed\xb0\x80",
    b"\xed\xbe\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xed\xad\xbf\xed\xbf\xbf",
    b"\xed\xaf\xbf\xed\xbf\xbf",
    // Beyond the last character.
    b"\xf4\x90\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfd\xbf\xbf\xbf\xbf\xbf",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
];
