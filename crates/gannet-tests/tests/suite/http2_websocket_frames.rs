//! WebSockets over HTTP/2 (RFC 8441), frame by frame.

use gannet_tests::{
    frames::{
        Event, RawHttp2,
        frame::{code::CANCEL, data, headers, rst_stream, setting},
        hpack::{Block, fields, get},
    },
    server::Server,
    wait::wait_until,
    websocket::{frame, opcode},
};

use crate::behave;

#[test]
fn only_a_listener_for_websockets_says_that_it_takes_them() {
    let server = behave().websocket().http().start();
    let websocket = RawHttp2::connect(server.address_of("websocket"));
    let announced = websocket.server_setting(setting::ENABLE_CONNECT_PROTOCOL);
    assert_eq!(announced, Some(1));
    let mut http = RawHttp2::connect(server.address_of("http"));
    let announced = http.server_setting(setting::ENABLE_CONNECT_PROTOCOL);
    assert!(matches!(announced, None | Some(0)), "{announced:?}");
    http.send(headers(1, connect("/")));
    if let Ok(response) = http.try_response(1) {
        assert!(response.status >= 400, "{response:?}");
    }
    assert_eq!(http.get(3, "/").text(), "hello");
    server.stop();
}

#[test]
fn a_stream_becomes_a_websocket_and_ends_with_it() {
    let server = behave().websocket().start();
    let mut client = open(&server, 1, "/");
    client.send(data(1, frame(true, opcode::TEXT, b"echo over a stream")));
    assert_eq!(message(&mut client, 1), (0x81, b"over a stream".to_vec()));
    // Cut into as many frames of HTTP/2 as it has bytes.
    for byte in frame(true, opcode::TEXT, b"echo in pieces") {
        client.send(data(1, [byte]));
    }
    assert_eq!(message(&mut client, 1), (0x81, b"in pieces".to_vec()));
    client.send(data(1, frame(true, opcode::PING, b"p")));
    assert_eq!(message(&mut client, 1), (0x8a, b"p".to_vec()));
    client.send(data(1, frame(true, opcode::CLOSE, &1000_u16.to_be_bytes())));
    assert_eq!(
        message(&mut client, 1),
        (0x88, 1000_u16.to_be_bytes().to_vec())
    );
    client.send(data(1, []).end_stream());
    // The server ends its side too, and the connection goes on.
    if !client.is_answered(1) {
        client.expect(|event| event.is_on(1) && !matches!(event, Event::WindowUpdate { .. }));
    }
    assert_eq!(client.get(3, "/").text(), "hello");
    server.stop();
}

#[test]
fn the_answer_to_the_handshake_is_200_without_fields_of_http_1() {
    let server = behave().websocket().start();
    let mut client = RawHttp2::connect(server.address_of("websocket"));
    client.send(headers(
        1,
        connect("/protocol").field("sec-websocket-protocol", "chat.v2"),
    ));
    let head = client.head(1);
    assert_eq!(head.status, 200);
    assert_eq!(head.header("sec-websocket-protocol"), Some("chat.v2"));
    assert_eq!(head.header("x-extra"), Some("yes"));
    assert_eq!(head.header("sec-websocket-accept"), None);
    server.stop();
}

#[test]
fn a_handshake_that_is_refused_is_answered_so() {
    let server = behave().websocket().start();
    let mut client = RawHttp2::connect(server.address_of("websocket"));
    client.send(headers(1, connect("/refuse")));
    let response = client.response(1);
    assert_eq!((response.status, response.text()), (403, "not you"));
    // A version that nobody knows.
    let block = fields(&pseudo("/")).field("sec-websocket-version", "12");
    client.send(headers(3, block));
    assert!((400..500).contains(&client.response(3).status));
    assert_eq!(client.get(5, "/").text(), "hello");
    server.stop();
}

#[test]
fn websockets_and_requests_share_a_connection() {
    let server = behave().websocket().start();
    let mut client = open(&server, 1, "/");
    client.send(headers(3, connect("/")));
    assert_eq!(client.head(3).status, 200);
    for n in 0..20_u8 {
        let text = format!("echo {n}");
        client.send(data(1, frame(true, opcode::TEXT, text.as_bytes())));
        client.send(data(3, frame(true, opcode::TEXT, text.as_bytes())));
        client.send(headers(5 + 2 * u32::from(n), get("/")).end_stream());
    }
    for n in 0..20_u8 {
        let expected = (0x81, n.to_string().into_bytes());
        assert_eq!(message(&mut client, 3), expected);
        assert_eq!(message(&mut client, 1), expected);
        assert_eq!(client.response(5 + 2 * u32::from(n)).text(), "hello");
    }
    server.stop();
}

#[test]
fn a_reset_closes_the_websocket_and_no_other() {
    let server = behave().websocket().start();
    let mut watcher = server.websocket();
    assert_eq!(watcher.ask("sub closed"), "ok");
    let mut client = open(&server, 1, "/");
    client.send(headers(3, connect("/")));
    assert_eq!(client.head(3).status, 200);
    client.send(rst_stream(1, CANCEL));
    let told = watcher.text();
    assert!(told.starts_with("closed "), "{told}");
    client.send(data(3, frame(true, opcode::TEXT, b"echo still here")));
    assert_eq!(message(&mut client, 3), (0x81, b"still here".to_vec()));
    wait_until("one stream to be left", || {
        server.status()["totals"]["http2_open"] == 1
    });
    server.stop();
}

#[test]
fn a_frame_that_breaks_the_rules_of_websockets_ends_its_stream_alone() {
    let server = behave().websocket().start();
    let mut client = open(&server, 1, "/");
    // A reserved bit.
    let mut wrong = frame(true, opcode::TEXT, b"x");
    wrong[0] |= 0x40;
    client.send(data(1, wrong));
    assert_eq!(message(&mut client, 1).0, 0x88);
    assert_eq!(client.get(3, "/").text(), "hello");
    server.stop();
}

/// A connection with a WebSocket on this stream.
fn open(server: &Server, stream: u32, path: &str) -> RawHttp2 {
    let mut client = RawHttp2::connect(server.address_of("websocket"));
    client.send(headers(stream, connect(path)));
    assert_eq!(client.head(stream).status, 200);
    client
}

fn connect(path: &str) -> Block {
    fields(&pseudo(path)).field("sec-websocket-version", "13")
}

fn pseudo(path: &str) -> [(&str, &str); 5] {
    [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
    ]
}

/// The first byte of the next frame of the server, which is a short one, and its payload.
fn message(client: &mut RawHttp2, stream: u32) -> (u8, Vec<u8>) {
    let [first, length] = client.body(stream, 2)[..] else {
        unreachable!("asked for two");
    };
    assert!(length < 126, "a frame that is masked, or long");
    (first, client.body(stream, usize::from(length)))
}
