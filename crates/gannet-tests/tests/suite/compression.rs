//! permessage-deflate (RFC 7692) over real sockets: what is agreed, what is compressed, what it
//! may cost.

use gannet_tests::{
    process::Memory,
    server::{Server, Spec},
    wait::wait_until,
    websocket::{WebSocket, compressed_frame, fragments, frame, opcode},
};

use crate::behave;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";

#[test]
fn compression_is_off_unless_it_is_turned_on() {
    let server = behave().websocket().start();
    let mut client = offering(&server, OFFER);
    assert!(client.compression().is_none());
    assert_eq!(client.ask("echo plain"), "plain");
    let bytes = compressed_frame(true, opcode::TEXT, b"#x");
    client.raw(bytes);
    client.expect_close(1002);
    server.stop();
}

#[test]
fn a_client_that_does_not_ask_gets_none() {
    let server = compressing().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("big 5000").len(), 5000);
    assert_eq!(client.compressed(), 0);
    let bytes = compressed_frame(true, opcode::TEXT, b"#x");
    client.raw(bytes);
    client.expect_close(1002);
    server.stop();
}

#[test]
fn no_window_is_kept_by_default() {
    let server = compressing().start();
    let client = offering(&server, OFFER);
    let agreed = client.compression().unwrap();
    assert!(!agreed.server_takeover() && !agreed.client_takeover());
    server.stop();
}

#[test]
fn what_is_below_the_threshold_is_not_compressed() {
    let server = compressing().with("compression_threshold", 100).start();
    let mut client = offering(&server, OFFER);
    assert_eq!(client.ask("big 99").len(), 99);
    assert_eq!(client.compressed(), 0);
    assert_eq!(client.ask("big 100").len(), 100);
    assert_eq!(client.compressed(), 1);
    wait_until("it to be counted", || {
        total(&server, "compressed") == 1 && total(&server, "compression_saved") > 50
    });
    server.stop();
}

#[test]
fn an_offer_that_cannot_be_had_is_declined_and_one_that_is_no_offer_refused() {
    let server = compressing().start();
    let header = |value: &str| format!("Sec-WebSocket-Extensions: {value}");
    for declined in [
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; unknown",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits",
        "x-webkit-deflate-frame",
    ] {
        let mut client = offering(&server, &header(declined));
        assert!(client.compression().is_none(), "{declined}");
        assert_eq!(client.ask("big 5000").len(), 5000);
    }
    let fallback = "permessage-deflate; server_max_window_bits=8, permessage-deflate";
    assert!(offering(&server, &header(fallback)).compression().is_some());
    for malformed in ["permessage-deflate;", "permessage-deflate; a=\"", "=", ""] {
        let headers = [&*header(malformed)];
        let refused = WebSocket::try_connect(server.address_of("websocket"), "/", &headers);
        assert_eq!(refused.unwrap().unwrap_err().status, 400, "{malformed}");
    }
    server.stop();
}

#[test]
fn the_window_that_a_client_asks_for_is_kept_to() {
    let server = compressing().start();
    for bits in 9..=15 {
        let offer =
            format!("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}");
        let mut client = offering(&server, &offer);
        assert_eq!(client.compression().unwrap().server_bits(), bits);
        // Repeats that are further apart than the window: the kit's client inflates with no more.
        let text = format!("#{}", far_repeats());
        assert_eq!(client.ask(&text), text);
        assert_eq!(client.compressed(), 1);
    }
    server.stop();
}

#[test]
fn windows_are_kept_where_the_settings_say_so() {
    let server = compressing()
        .with("compression_server_takeover", true)
        .with("compression_client_takeover", true)
        .start();
    let mut client = offering(&server, OFFER);
    let agreed = client.compression().unwrap();
    assert!(agreed.server_takeover() && agreed.client_takeover());
    let text = format!("#{}", far_repeats());
    for fragment in [usize::MAX, 100, 1] {
        client.send_compressed(opcode::TEXT, text.as_bytes(), fragment);
        assert_eq!(client.text(), text);
    }
    // Published messages come from a compressor that others share.
    assert_eq!(client.ask("sub news"), "ok");
    for n in 0..5 {
        let word = format!("{n}").repeat(3000);
        client.send(format!("pub news {word}"));
        assert_eq!(client.text(), word);
        client.send_compressed(opcode::TEXT, text.as_bytes(), usize::MAX);
        assert_eq!(client.text(), text);
    }
    assert_eq!(client.compressed(), 3 + 10);

    let offer = format!("{OFFER}; server_no_context_takeover; client_no_context_takeover");
    let client = offering(&server, &offer);
    let agreed = client.compression().unwrap();
    assert!(!agreed.server_takeover() && !agreed.client_takeover());
    server.stop();
}

#[test]
fn a_published_message_is_compressed_once_for_each_window_and_not_for_each_subscriber() {
    let server = compressing().set("workers", 1).start();
    let narrow = format!("{OFFER}; server_max_window_bits=10");
    let mut clients: Vec<_> = (0..40)
        .map(|n| match n % 4 {
            0 => server.websocket(),
            1 => offering(&server, &narrow),
            _ => offering(&server, OFFER),
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.ask("sub news"), "ok");
    }
    assert_eq!(total(&server, "compressed"), 0, "the answers are short");
    let text = "all the same ".repeat(1000);
    server.websocket().send(format!("pub news {text}"));
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text(), text);
        assert_eq!(client.compressed(), usize::from(n % 4 != 0));
    }
    wait_until("both to be counted", || total(&server, "compressed") == 2);
    server.stop();
}

#[test]
fn text_is_checked_after_inflating() {
    let server = compressing().start();
    let mut client = offering(&server, OFFER);
    client.send_compressed(opcode::TEXT, b"#not \xff text", usize::MAX);
    client.expect_close(1007);
    // At once, not at the end of the message.
    let mut client = offering(&server, OFFER);
    let text = [b"#\xff".to_vec(), far_repeats().into_bytes()].concat();
    let mut probe = offering(&server, OFFER);
    probe.send_compressed(opcode::BINARY, &text, usize::MAX);
    assert_eq!(probe.binary(), text);
    let payload = stored(&text);
    let first = compressed_frame(false, opcode::TEXT, &payload[..payload.len() / 2]);
    client.raw(first);
    client.expect_close(1007);
    server.stop();
}

#[test]
fn what_cannot_be_inflated_is_closed_with_1007() {
    let server = compressing().start();
    let mut client = offering(&server, OFFER);
    client.raw(compressed_frame(true, opcode::BINARY, &[0xff; 20]));
    client.expect_close(1007);
    server.stop();
}

#[test]
fn a_bomb_is_closed_with_1009_and_costs_what_the_limit_allows() {
    let server = compressing().start();
    let before = Memory::of(server.master()).resident;
    let mut neighbour = server.websocket();
    // A gibibyte of zeros in some KiB: 512 pieces that inflate to 2 MiB each, were they taken.
    let mut client = offering(&server, OFFER);
    let mut zeros = zeros_of_two_mebibytes();
    zeros.extend([0, 0, 0xff, 0xff]);
    let first = compressed_frame(false, opcode::BINARY, &zeros);
    assert!(first.len() < 4 << 10);
    client.raw(first);
    for _ in 1..512 {
        // It is closed in the middle of this.
        let _ = client.try_raw(frame(false, opcode::CONTINUATION, &zeros));
    }
    assert_eq!(neighbour.ask("echo served"), "served");
    client.expect_close(1009);
    let grown = Memory::of(server.master()).resident.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    wait_until("it to be counted", || {
        server.status()["totals"]["closed"]["too_large"] == 1
    });
    server.stop();
}

/// 40 MiB in one read: were they inflated in one turn, all others would wait for it.
#[test]
fn bombs_within_the_limit_take_many_turns_in_which_others_are_served() {
    let server = compressing().set("workers", 1).start();
    let mut bomber = offering(&server, OFFER);
    let mut neighbour = server.websocket();
    let command = format!("eat 0 {}", "z".repeat(1 << 20));
    let payload = bomber.compression_mut().compress(command.as_bytes());
    let bomb = fragments(opcode::TEXT, &payload, usize::MAX);
    let bomb = [&[bomb[0] | 0x40][..], &bomb[1..]].concat();
    let before = total(&server, "yields");
    bomber.raw(bomb.repeat(40));
    assert!(bomb.len() * 40 < 60 << 10, "more than one read");
    assert_eq!(neighbour.ask("echo served"), "served");
    assert_eq!(bomber.ask("echo after all of them"), "after all of them");
    // A turn inflates 256 KiB of one connection, and 64 KiB at most beyond it. The bytes may have
    // come in two or three reads.
    let least = (40 << 20) / (320 << 10) - 3;
    wait_until("the turns to be counted", || {
        total(&server, "yields") >= before + least
    });
    server.stop();
}

/// One worker has much compressed: the reactor takes its commands in many turns.
#[test]
fn a_flood_to_be_compressed_is_taken_in_many_turns() {
    let server = compressing().set("workers", 1).start();
    let mut client = offering(&server, OFFER);
    let mut neighbour = server.websocket();
    client.send(format!("flood 30 {}", 1 << 20));
    assert_eq!(neighbour.ask("echo served"), "served");
    for _ in 0..30 {
        assert_eq!(client.binary().len(), 1 << 20);
    }
    wait_until("the turns to be counted", || total(&server, "yields") > 0);
    server.stop();
}

#[test]
fn idle_connections_that_have_compressed_hold_no_compressor() {
    let server = compressing().start();
    let mut clients: Vec<_> = (0..400).map(|_| offering(&server, OFFER)).collect();
    let exchange = |clients: &mut Vec<WebSocket>| {
        for client in clients {
            let text = format!("#{}", "x".repeat(2000));
            client.send_compressed(opcode::TEXT, text.as_bytes(), usize::MAX);
            assert_eq!(client.text(), text);
        }
    };
    let before = Memory::of(server.master()).resident;
    exchange(&mut clients);
    let grown = Memory::of(server.master()).resident.saturating_sub(before);
    // One compressor, and what inflates one message at a time: 400 of either would be 18 MiB.
    assert!(grown < 6 << 20, "{grown} bytes");
    server.stop();
}

fn compressing() -> Spec {
    behave().websocket().with("compression", true)
}

fn offering(server: &Server, offer: &str) -> WebSocket {
    WebSocket::connect_with(server.address_of("websocket"), "/", &[offer])
}

fn total(server: &Server, name: &str) -> u64 {
    server.status()["totals"][name].as_u64().expect("a number")
}

/// Text whose repeats are 300 to 20,000 bytes apart.
fn far_repeats() -> String {
    let mut text = String::new();
    let mut noise = 7_u32;
    for distance in [300, 700, 1500, 3000, 6000, 12_000, 20_000] {
        let start = text.len();
        while text.len() < start + distance {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push(char::from(b' ' + (noise >> 24) as u8 % 64));
        }
        let copy = text[start..start + 200].to_owned();
        text.push_str(&copy);
    }
    text
}

/// As stored blocks, which come out as they go in.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in data.chunks(1000) {
        let length = block.len() as u16;
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.push(0);
    out
}

fn zeros_of_two_mebibytes() -> Vec<u8> {
    use zlib_rs::{Deflate, DeflateFlush};
    let mut deflate = Deflate::new(9, false, 15);
    let mut out = vec![0; 1 << 16];
    let zeros = vec![0; 2 << 20];
    deflate
        .compress(&zeros, &mut out, DeflateFlush::SyncFlush)
        .unwrap();
    out.truncate(deflate.total_out() as usize - 4);
    out
}
