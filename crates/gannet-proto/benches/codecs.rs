//! What one message or request costs: `cargo bench -p gannet-proto`.
#![allow(missing_docs)]

use divan::{Bencher, black_box, counter::BytesCount};
use gannet_proto::{
    http1::{self, Framing, ResponseHead, Version, encode_response_head},
    websocket::{self, MessageKind, Opcode, client, encode_message},
};

fn main() {
    divan::main();
}

const LENGTHS: [usize; 4] = [16, 125, 1024, 65_536];

/// A whole text message, unmasked and checked in place. The copy of the masked input is
/// part of the cost.
#[divan::bench(args = LENGTHS)]
fn websocket_decode(bencher: Bencher<'_, '_>, len: usize) {
    let mut masked = Vec::new();
    client::encode_message(
        &mut masked,
        MessageKind::Text,
        &vec![b'x'; len],
        [1, 2, 3, 4],
    );
    let mut decoder = websocket::Decoder::new(websocket::Limits::default());
    let mut input = masked.clone();
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        input.copy_from_slice(&masked);
        black_box(decoder.decode(black_box(&mut input)).is_ok())
    });
}

#[divan::bench(args = LENGTHS)]
fn websocket_encode(bencher: Bencher<'_, '_>, len: usize) {
    let payload = vec![b'x'; len];
    let mut out = Vec::with_capacity(len + 16);
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        out.clear();
        encode_message(&mut out, MessageKind::Binary, black_box(&payload));
        black_box(out.len())
    });
}

/// Messages of a chat, as JSON.
fn json(len: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut n = 0_u64;
    while text.len() < len {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let user = n % 1000;
        text.push_str(&format!(
            "{{\"op\":\"msg\",\"id\":\"{n:016x}\",\"channel\":\"room-{}\",\"event\":\"chat\",\"data\":\
             {{\"from\":\"user-{user}\",\"text\":\"hello there, how are you doing today\"}}}}\n",
            n % 10
        ));
    }
    text.truncate(len);
    text.into_bytes()
}

/// A whole message at level and length.
#[divan::bench(args = [(1, 1024), (5, 1024), (9, 1024), (1, 4096), (5, 4096), (9, 4096)])]
fn websocket_compress(bencher: Bencher<'_, '_>, (level, len): (u8, usize)) {
    let payload = json(len);
    let mut compressor = websocket::Compressor::new(level, 15, false);
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        out.clear();
        black_box(compressor.encode_message(&mut out, MessageKind::Text, black_box(&payload)))
    });
}

/// A whole compressed message. The copy of the masked input is part of the cost.
#[divan::bench(args = [1024, 4096, 65_536])]
fn websocket_inflate(bencher: Bencher<'_, '_>, len: usize) {
    let mut compressor = websocket::Compressor::new(5, 15, false);
    let payload = json(len);
    let payload = compressor.compress(&payload).unwrap_or_default();
    let mut masked = Vec::new();
    client::encode_compressed_frame(&mut masked, Opcode::Text, true, payload, [1, 2, 3, 4]);
    let mut decoder = websocket::Decoder::new(websocket::Limits::default()).with_deflate(false);
    let mut input = masked.clone();
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        input.copy_from_slice(&masked);
        black_box(decoder.decode(black_box(&mut input)).is_ok())
    });
}

const SHORT: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";
const BROWSER: &[u8] = b"GET /assets/app.js?v=12 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Sec-Fetch-Dest: script\r\n\
    Sec-Fetch-Mode: no-cors\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    If-None-Match: \"5f3c-62a1b2c3d4e5f\"\r\n\r\n";

/// A request without body: its head and its end.
#[divan::bench(args = ["short", "browser"])]
fn http1_decode(bencher: Bencher<'_, '_>, name: &str) {
    let request = if name == "short" { SHORT } else { BROWSER };
    let mut decoder = http1::Decoder::new(http1::Limits::default());
    let mut input = request.to_vec();
    bencher
        .counter(BytesCount::new(request.len()))
        .bench_local(|| {
            let used = decoder
                .decode(black_box(&mut input))
                .map_or(0, |decoded| decoded.used);
            black_box(decoder.decode(&mut input[used..]).is_ok())
        });
}

#[divan::bench]
fn http1_encode_head(bencher: Bencher<'_, '_>) {
    let date = http1::Date::at(784_111_777);
    let head = ResponseHead {
        status: 200,
        headers: b"Content-Type: text/plain\r\n",
        framing: Framing::Length(13),
        keep_alive: true,
        version: Version::Http11,
        date: Some(&date),
    };
    let mut out = Vec::with_capacity(512);
    bencher.bench_local(|| {
        out.clear();
        encode_response_head(&mut out, black_box(&head));
        black_box(out.len())
    });
}
