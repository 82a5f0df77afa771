//! Large messages, small fragments, chopped writes, many messages, and the same compressed under
//! every kind of offer.

use gannet_tests::{
    server::{Server, Spec},
    websocket::{Frame, WebSocket, fragments, opcode},
};

use crate::{behave, heavy};

const MIB: usize = 1 << 20;

#[test]
fn messages_up_to_16_mib_are_echoed() {
    let _alone = heavy();
    let server = large().start();
    let mut client = server.websocket();
    for size in [64 << 10, 256 << 10, MIB, 4 * MIB, 8 * MIB, 16 * MIB] {
        let text = json(size);
        client.send(&text);
        assert!(client.text() == text, "{size} bytes of text");
        client.send_binary(&text);
        assert!(client.binary() == text.as_bytes(), "{size} bytes");
    }
    client.close(1000);
    server.stop();
}

#[test]
fn a_large_message_may_come_in_small_fragments() {
    let _alone = heavy();
    let server = large().start();
    let mut client = server.websocket();
    let text = json(4 * MIB);
    for size in [
        64,
        256,
        1 << 10,
        4 << 10,
        16 << 10,
        64 << 10,
        256 << 10,
        MIB,
        4 * MIB,
    ] {
        for code in [opcode::TEXT, opcode::BINARY] {
            client.raw(fragments(code, text.as_bytes(), size));
            assert!(echoed(&mut client, text.as_bytes()), "fragments of {size}");
        }
    }
    client.close(1000);
    server.stop();
}

#[test]
fn a_large_message_may_come_in_small_writes() {
    let server = large().start();
    let mut client = server.websocket();
    let text = json(MIB);
    for size in [64, 128, 256, 512, 1 << 10, 2 << 10] {
        for code in [opcode::TEXT, opcode::BINARY] {
            for piece in fragments(code, text.as_bytes(), usize::MAX).chunks(size) {
                client.raw(piece);
            }
            assert!(echoed(&mut client, text.as_bytes()), "writes of {size}");
        }
    }
    // Frames that end in the middle of a write.
    let text = json(64 << 10);
    for piece in fragments(opcode::TEXT, text.as_bytes(), 1300).chunks(997) {
        client.raw(piece);
    }
    assert!(echoed(&mut client, text.as_bytes()));
    client.close(1000);
    server.stop();
}

#[test]
fn a_thousand_messages_of_every_size_go_to_and_fro() {
    let server = large().start();
    let mut client = server.websocket();
    for size in [0, 16, 64, 256, 1024, 4096] {
        let text = json(size);
        for code in [opcode::TEXT, opcode::BINARY] {
            for _ in 0..1000 {
                client.frame(true, code, &text);
                assert!(echoed(&mut client, text.as_bytes()), "{size} bytes");
            }
        }
    }
    client.close(1000);
    server.stop();
}

/// Sizes with the number of times that they are sent, and the length of fragments.
const SIZES: &[(usize, usize, usize)] = &[
    (0, 20, usize::MAX),
    (16, 200, usize::MAX),
    (64, 200, usize::MAX),
    (256, 200, usize::MAX),
    (1024, 200, usize::MAX),
    (4096, 200, usize::MAX),
    (8192, 50, 256),
    (16 << 10, 50, 1024),
    (32 << 10, 50, 4096),
    (64 << 10, 20, 1300),
    (128 << 10, 20, 100),
];

#[test]
fn compressed_messages_are_echoed_without_windows() {
    let server = compressing().start();
    compressed(&server, "permessage-deflate; client_max_window_bits");
    compressed(
        &server,
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    );
    server.stop();
}

#[test]
fn compressed_messages_are_echoed_with_windows_kept() {
    let server = compressing()
        .with("compression_server_takeover", true)
        .with("compression_client_takeover", true)
        .start();
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_no_context_takeover; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ] {
        compressed(&server, offer);
    }
    server.stop();
}

#[test]
fn compressed_messages_are_echoed_with_windows_of_every_size() {
    let server = compressing()
        .with("compression_server_takeover", true)
        .with("compression_client_takeover", true)
        .start();
    for offer in [
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
        // The first cannot be had, the second can.
        "permessage-deflate; server_max_window_bits=8, \
         permessage-deflate; server_no_context_takeover; server_max_window_bits=10, \
         permessage-deflate",
    ] {
        compressed(&server, offer);
    }
    server.stop();
}

/// Sends messages of every size as text and binary, compressed, under this offer.
fn compressed(server: &Server, offer: &str) {
    let header = format!("Sec-WebSocket-Extensions: {offer}");
    let address = server.address_of("websocket");
    for code in [opcode::TEXT, opcode::BINARY] {
        let mut client = WebSocket::connect_with(address, "/", &[&header]);
        assert!(client.compression().is_some(), "{offer}");
        let mut sent = 0;
        for &(size, times, fragment) in SIZES {
            let data = json(size);
            for _ in 0..times {
                client.send_compressed(code, data.as_bytes(), fragment);
                assert!(
                    echoed(&mut client, data.as_bytes()),
                    "{offer}: {size} bytes"
                );
                sent += usize::from(size >= 256);
            }
        }
        assert_eq!(
            client.compressed(),
            sent,
            "{offer}: not all came compressed"
        );
        client.close(1000);
    }
}

/// Whether the next message is this one.
fn echoed(client: &mut WebSocket, data: &[u8]) -> bool {
    match client.message() {
        Frame::Text(text) => text.as_bytes() == data,
        Frame::Binary(bytes) => bytes == data,
        _ => false,
    }
}

/// So many bytes of what JSON looks like.
fn json(size: usize) -> String {
    let mut text = String::with_capacity(size + 100);
    let mut n = 0_u32;
    while text.len() < size {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let kind = ["tweet", "reply", "like"][(n >> 20) as usize % 3];
        text.push_str(&format!(
            "{{\"id\":{n},\"kind\":\"{kind}\",\"text\":\"gr\\u00fc\\u00dfe\"}},"
        ));
    }
    text.truncate(size);
    text
}

/// An echo server that takes messages of 16 MiB.
fn large() -> Spec {
    behave()
        .set("arena_size", 128 * MIB as i64)
        .websocket()
        .env("BEHAVE_WEBSOCKET", "echo")
        .with("max_message_size", 16 * MIB as i64)
        .with("max_queued", 64 * MIB as i64)
}

/// An echo server that compresses what is not tiny.
fn compressing() -> Spec {
    behave()
        .websocket()
        .env("BEHAVE_WEBSOCKET", "echo")
        .with("compression", true)
        .with("compression_threshold", 200)
}
