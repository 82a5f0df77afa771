//! Offers of extensions are judged without a panic, and what is agreed on works: messages cross
//! both ways, whatever the offer was.
#![no_main]

use gannet_proto::{
    http1,
    websocket::{
        Compressor, Decoder, DeflatePolicy, Event, Limits, MAX_WINDOW_BITS, MIN_WINDOW_BITS,
        MessageKind, handshake,
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [choice, offer @ ..] = data else { return };
    let policy = DeflatePolicy {
        window_bits: MIN_WINDOW_BITS + choice % 7,
        server_takeover: choice & 0x10 != 0,
        client_takeover: choice & 0x20 != 0,
    };
    let mut request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: "
        .to_vec();
    request.extend_from_slice(offer);
    request.extend_from_slice(b"\r\n\r\n");
    let mut decoder = http1::Decoder::new(http1::Limits::default());
    let Ok(decoded) = decoder.decode(&mut request) else {
        return;
    };
    let Some(http1::Event::Head(head)) = decoded.event else {
        return;
    };
    let Ok(upgrade) = handshake::check(&head) else {
        return;
    };
    let Some(agreed) = upgrade.extensions.deflate(policy) else {
        return;
    };
    assert!((MIN_WINDOW_BITS..=policy.window_bits).contains(&agreed.server_window_bits));
    assert!((8..=MAX_WINDOW_BITS).contains(&agreed.client_window_bits));
    assert!(policy.server_takeover || !agreed.server_takeover);
    assert!(policy.client_takeover || !agreed.client_takeover);

    let mut line = Vec::new();
    agreed.write_header(&mut line);
    assert!(line.ends_with(b"\r\n") && !line[..line.len() - 2].contains(&b'\n'));

    let takeover = agreed.server_takeover;
    let mut server = Compressor::new(1, agreed.server_window_bits, takeover);
    let mut client = Decoder::client(Limits::default()).with_deflate(takeover);
    for message in [offer, &offer.repeat(20), offer] {
        let mut wire = Vec::new();
        server.encode_message(&mut wire, MessageKind::Binary, message);
        let decoded = client.decode(&mut wire).expect("what a server sends");
        assert_eq!(decoded.event, Some(Event::Binary(message)));
    }
});
