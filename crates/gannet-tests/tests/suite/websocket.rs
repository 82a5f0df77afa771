//! WebSocket.

use gannet_tests::{
    http::HttpClient,
    server::Server,
    websocket::{Frame, WebSocket, frame, opcode},
};

use crate::behave;

#[test]
fn text_and_binary_come_back_as_they_were_sent() {
    let server = server();
    let mut client = server.websocket();
    client.send("#hello, wörld");
    assert_eq!(client.receive(), Frame::Text("#hello, wörld".to_owned()));
    client.send_binary([0, 159, 255]);
    assert_eq!(client.receive(), Frame::Binary(vec![0, 159, 255]));
    // Every form of the length.
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000] {
        client.send_binary(vec![7; length]);
        assert_eq!(client.binary().len(), length);
    }
    client.close(1000);
    server.stop();
}

#[test]
fn another_implementation_agrees() {
    let server = server();
    let url = format!("ws://{}/", server.address_of("websocket"));
    let (mut socket, response) = tungstenite::connect(url).unwrap();
    assert_eq!(response.status(), 101);
    for n in 0..100 {
        let text = tungstenite::Message::text("#".repeat(n * 37 + 1));
        socket.send(text.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), text);
        let binary = tungstenite::Message::binary(vec![n as u8; n * 700]);
        socket.send(binary.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), binary);
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    server.stop();
}

#[test]
fn http_is_served_on_the_same_port_and_connection() {
    let server = server();
    let mut http = HttpClient::connect(server.address_of("websocket"));
    assert_eq!(http.get("/").text(), "hello");
    assert_eq!(http.post("/echo", "body").text(), "body");
    let upgraded = WebSocket::open(http.into_tcp(), "/", &[]).unwrap();
    assert_eq!(upgraded.unwrap().ask("echo upgraded"), "upgraded");
    server.stop();
}

#[test]
fn messages_sent_right_behind_the_handshake_are_not_lost() {
    let server = server();
    let early = frame(true, opcode::TEXT, b"echo early");
    let mut client = WebSocket::connect_and_send(server.address_of("websocket"), &early);
    assert_eq!(client.text(), "early");
    server.stop();
}

#[test]
fn open_sees_the_whole_handshake() {
    let server = server();
    let headers = ["Cookie: a=b; session=s3cret", "X-Test: yes"];
    let path = "/describe?uid=ann%20b&x=1";
    let address = server.address_of("websocket");
    let mut client = WebSocket::connect_with(address, path, &headers);
    assert_eq!(client.text(), "uid=ann b cookie=s3cret header=yes");
    server.stop();
}

#[test]
fn open_may_refuse() {
    let server = server();
    let address = server.address_of("websocket");
    let refused = WebSocket::try_connect(address, "/refuse", &[])
        .unwrap()
        .unwrap_err();
    assert_eq!((refused.status, refused.text()), (403, "not you"));
    server.stop();
}

#[test]
fn a_failing_open_is_answered_with_500() {
    let server = server();
    let address = server.address_of("websocket");
    let refused = WebSocket::try_connect(address, "/fail", &[])
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.status, 500);
    server.stop();
}

#[test]
fn open_chooses_the_subprotocol() {
    let server = server();
    let headers = ["Sec-WebSocket-Protocol: chat.v1, chat.v2"];
    let client = WebSocket::connect_with(server.address_of("websocket"), "/protocol", &headers);
    assert_eq!(
        client.accepted().header("sec-websocket-protocol"),
        Some("chat.v2")
    );
    assert_eq!(client.accepted().header("x-extra"), Some("yes"));
    server.stop();
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    let server = server();
    let address = server.address_of("websocket");
    let handshake = |version: &str, key: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
    };
    let mut client = HttpClient::connect(address);
    client.send(handshake("12", "dGhlIHNhbXBsZSBub25jZQ=="));
    let response = client.response();
    assert_eq!(response.status, 426);
    assert_eq!(response.header("sec-websocket-version"), Some("13"));

    let mut client = HttpClient::connect(address);
    client.send(handshake("13", "short"));
    assert_eq!(client.response().status, 400);
    server.stop();
}

#[test]
fn pings_are_answered_with_their_payload() {
    let server = server();
    let mut client = server.websocket();
    client.frame(true, opcode::PING, b"are you there");
    assert_eq!(client.receive(), Frame::Pong(b"are you there".to_vec()));
    // In the middle of a fragmented message as well.
    client.frame(false, opcode::TEXT, "#fra");
    client.frame(true, opcode::PING, "now");
    client.frame(true, opcode::CONTINUATION, "gment");
    assert_eq!(client.receive(), Frame::Pong(b"now".to_vec()));
    assert_eq!(client.receive(), Frame::Text("#fragment".to_owned()));
    server.stop();
}

#[test]
fn fragments_become_one_message() {
    let server = server();
    let mut client = server.websocket();
    client.frame(false, opcode::BINARY, [1, 2]);
    client.frame(false, opcode::CONTINUATION, []);
    client.frame(false, opcode::CONTINUATION, [3]);
    client.frame(true, opcode::CONTINUATION, [4, 5]);
    assert_eq!(client.binary(), [1, 2, 3, 4, 5]);
    // A character may be cut in two.
    client.frame(false, opcode::TEXT, [b'#', 0xc3]);
    client.frame(true, opcode::CONTINUATION, [0xb6]);
    assert_eq!(client.text(), "#ö");
    server.stop();
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let server = server();
    let mut client = server.websocket();
    for byte in frame(true, opcode::TEXT, b"echo slowly") {
        client.raw([byte]);
    }
    assert_eq!(client.text(), "slowly");
    server.stop();
}

#[test]
fn close_codes_are_echoed() {
    let server = server();
    for code in [1000, 1001, 3000, 4999] {
        server.websocket().close(code);
    }
    let mut client = server.websocket();
    client.frame(true, opcode::CLOSE, []);
    assert!(matches!(
        client.message(),
        Frame::Close(None | Some((1000, _)))
    ));
    client.tcp().expect_closed();
    server.stop();
}

#[test]
fn a_handler_closes_with_its_code_and_reason() {
    let server = server();
    let mut client = server.websocket();
    client.send("close-with 4001 go away");
    assert_eq!(
        client.message(),
        Frame::Close(Some((4001, "go away".to_owned())))
    );
    client.frame(true, opcode::CLOSE, 4001_u16.to_be_bytes());
    client.tcp().expect_closed();
    server.stop();
}

#[test]
fn what_breaks_the_protocol_is_closed_with_1002() {
    let server = server();
    let text = |first: u8| {
        let mut bytes = frame(true, opcode::TEXT, b"#x");
        bytes[0] = first;
        bytes
    };
    let wrong: Vec<Vec<u8>> = vec![
        // Reserved bits and opcodes.
        text(0xc1),
        text(0x83),
        text(0x8b),
        // Not masked.
        vec![0x81, 1, b'x'],
        // A continuation of nothing, a beginning in the middle.
        frame(true, opcode::CONTINUATION, b"x"),
        [
            frame(false, opcode::TEXT, b"#a"),
            frame(true, opcode::TEXT, b"#b"),
        ]
        .concat(),
        // Control frames: fragmented, too long.
        frame(false, opcode::PING, b""),
        frame(true, opcode::PING, &[0; 126]),
        // Close frames: one byte, codes that must not be sent.
        frame(true, opcode::CLOSE, &[3]),
        frame(true, opcode::CLOSE, &1005_u16.to_be_bytes()),
        frame(true, opcode::CLOSE, &999_u16.to_be_bytes()),
        // A length in a longer form than it needs.
        vec![0x82, 0x80 | 126, 0, 1, 0, 0, 0, 0, 1],
    ];
    for bytes in wrong {
        let mut client = server.websocket();
        client.raw(&bytes);
        client.expect_close(1002);
    }
    server.stop();
}

#[test]
fn answers_leave_before_the_close_frame_of_a_client_that_has_shut_its_side() {
    let server = server();
    let mut client = server.websocket();
    client.send("sleep-async 200 late");
    client.frame(true, opcode::CLOSE, 1000_u16.to_be_bytes());
    client.tcp().finish();
    assert_eq!(client.text(), "late");
    client.expect_close(1000);
    server.stop();
}

#[test]
fn text_that_is_not_utf8_is_closed_with_1007() {
    let server = server();
    let mut client = server.websocket();
    client.frame(true, opcode::TEXT, [b'#', 0xff]);
    client.expect_close(1007);
    server.stop();
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009() {
    let server = behave().websocket().with("max_message_size", 1000).start();
    let mut client = server.websocket();
    client.send_binary([1; 1000]);
    assert_eq!(client.binary().len(), 1000);
    client.send_binary([1; 1001]);
    client.expect_close(1009);
    // Fragments count together.
    let mut client = server.websocket();
    client.frame(false, opcode::BINARY, [1; 600]);
    client.frame(true, opcode::CONTINUATION, [1; 600]);
    client.expect_close(1009);
    server.stop();
}

fn server() -> Server {
    behave().websocket().start()
}
