//! TLS under what has a file of its own here: compression, framings, Unix sockets.

use std::{
    net::{Shutdown, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use gannet_tests::{
    tls::{Client, Keys},
    wait::wait_until,
    websocket::{WebSocket, opcode},
};

use crate::behave;

#[test]
fn compressed_messages_go_both_ways_under_tls() {
    let keys = Keys::default();
    let server = keys
        .serve(behave().websocket().with("compression", true))
        .start();
    let entry = Client::new(&keys.authority).tunnel(server.address(0));
    let offer = "Sec-WebSocket-Extensions: permessage-deflate";
    let mut client = WebSocket::connect_with(entry, "/", &[offer]);
    // Also compressed it is many records of TLS, and more than the reactor reads at once.
    let noise = (0..40_000_u32).map(|n| format!("{:x} ", n.wrapping_mul(2_654_435_761)));
    let text = format!("#{}", noise.collect::<String>());
    for fragment in [usize::MAX, 10_000] {
        client.send_compressed(opcode::TEXT, text.as_bytes(), fragment);
        assert!(client.text() == text, "not what was sent");
    }
    assert_eq!(client.compressed(), 2);
    wait_until("the counter tls_handshakes", || {
        server.total("tls_handshakes") == 1
    });
    wait_until("the counter compressed", || server.total("compressed") == 2);
    server.stop();
}

#[test]
fn framed_messages_come_whole_under_tls() {
    let keys = Keys::default();
    let spec = behave()
        .env("BEHAVE_TCP", "framed")
        .env("BEHAVE_CONNECT", "greet")
        .tcp()
        .with("framing", "lines");
    let server = keys.serve(spec).start();
    let client = Client::new(&keys.authority);
    let mut conn = client.connect(server.address(0));
    assert!(conn.line().starts_with("hello "), "`connect` comes first");
    assert!(conn.ask("tls").starts_with("version=1.3 "));
    // A record is not a message: one in many, and many in one.
    for byte in b"#slow\n" {
        conn.send([*byte]);
    }
    assert_eq!(conn.line(), "#slow");
    let long = format!("#{}", "x".repeat(100_000));
    conn.send(format!("#one\n#two\n{long}\n"));
    assert_eq!([conn.line(), conn.line()], ["#one", "#two"]);
    assert!(conn.line() == long, "not what was sent");

    // Only the client knows what was to come: an end that it does not say is none.
    let closed = |reason: &str| server.status()["totals"]["closed"][reason].clone();
    conn.finish();
    wait_until("the end", || closed("client") == 1);
    let mut cut = client.connect(server.address(0));
    cut.line();
    cut.socket().shutdown(Shutdown::Write).unwrap();
    wait_until("the reset", || closed("reset") == 1);
    wait_until("the counter tls_truncated", || {
        server.total("tls_truncated") == 1
    });
    server.stop();
}

#[test]
fn unix_sockets_speak_tls_too_and_datagrams_do_not() {
    let keys = Keys::default();
    let path = keys.directory.path().join("tls.sock");
    let address = format!("unix:{}", path.display());
    let server = keys.serve(behave().listen("tcp", &address)).start();
    let socket = UnixStream::connect(&path).unwrap();
    // What a client does with a stream, it may do with any.
    let socket = TcpStream::from(OwnedFd::from(socket));
    let mut conn = Client::new(&keys.authority).over(socket).unwrap();
    let own = format!("{} ", std::process::id());
    assert!(conn.ask("credentials").starts_with(&own));
    assert!(conn.ask("tls").starts_with("version=1.3 "));
    server.stop();

    let datagrams = format!("unixgram:{}", path.display());
    for address in ["127.0.0.1:0", &datagrams] {
        let ended = keys.serve(behave().listen("udp", address)).run(&["start"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains("no TLS for datagrams"), "{ended:?}");
    }
}
