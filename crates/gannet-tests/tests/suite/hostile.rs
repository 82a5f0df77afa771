//! Clients that are slow on purpose, or send too much of what costs them little: each meets a
//! limit with a name, is told, closed and counted, and the others are served meanwhile.

use std::{
    io::Write,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use gannet_tests::{
    http::HttpClient,
    server::{Server, Spec},
    tcp::TcpClient,
    wait::wait_until,
    websocket::{Frame, WebSocket, frame, opcode},
};

use crate::{behave, heavy};

#[test]
fn a_head_that_drips_is_answered_with_408() {
    let server = hasty().start();
    let client = http(&server);
    let head = [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(),
        &[b'x'; 10_000],
    ]
    .concat();
    drip_until_408(&server, client, head);
    counted(&server, "timeout", 1);
    server.stop();
}

#[test]
fn a_small_body_that_drips_is_answered_with_408() {
    let server = hasty().start();
    let mut client = http(&server);
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n");
    drip_until_408(&server, client, vec![b'x'; 10_000]);
    counted(&server, "timeout", 1);
    // That of the client that was served.
    assert_eq!(server.events(), 1, "a handler waited for it");
    server.stop();
}

/// Every byte is in time for `request_timeout_ms`: only the rate is too little.
#[test]
fn a_streamed_body_that_drips_is_answered_with_408() {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let server = hasty().with("min_receive_rate", 10_000).start();
        let mut client = http(&server);
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        client.send(head);
        // The first part makes it a stream.
        client.send("1000\r\n");
        drip_until_408(&server, client, vec![b'x'; 4000]);
        counted(&server, "timeout", 1);
        server.stop();
    }
}

#[test]
fn a_websocket_message_that_drips_is_closed_with_1008() {
    let whole = frame(true, opcode::BINARY, &[7; 4000]);
    let pieces: Vec<u8> = (0..4000)
        .flat_map(|n| frame(false, u8::from(n == 0), b"x"))
        .collect();
    let header = vec![0x82, 0x80 | 127, 0, 0, 0];
    for bytes in [whole, pieces, header] {
        let server = hasty().with("min_receive_rate", 10_000).start();
        let mut client = server.websocket();
        dripping(&server, client.tcp().socket(), bytes);
        client.expect_close(1008);
        counted(&server, "timeout", 1);
        server.stop();
    }
}

#[test]
fn what_comes_fast_enough_may_take_longer_than_the_timeout() {
    let server = hasty().with("min_receive_rate", 1_000).start();
    let mut client = server.websocket();
    let message = frame(true, opcode::BINARY, &[7; 60_000]);
    let mut upload = http(&server);
    upload.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    // Twice the time-out, in all.
    for (piece, body) in message.chunks(3_001).zip([b'x'; 100_000].chunks(5_000)) {
        client.raw(piece);
        upload.send(body);
        thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(client.binary().len(), 60_000);
    assert_eq!(upload.response().body.len(), 100_000);
    server.stop();
}

#[test]
fn a_slow_handler_makes_no_client_late() {
    let server = hasty()
        .set("max_in_flight", 1)
        .with("min_receive_rate", 1_000_000)
        .start();
    let mut client = server.websocket();
    client.send("sleep-async 1200 first");
    let message = frame(
        true,
        opcode::TEXT,
        &[b"echo ".as_slice(), &[b'x'; 300_000]].concat(),
    );
    client.raw(message);
    assert_eq!(client.text(), "first");
    assert_eq!(client.text().len(), 300_000);
    server.stop();
}

#[test]
fn connections_that_say_nothing_are_closed_and_others_find_a_place() {
    let server = hasty()
        .with("request_timeout_ms", 2_000)
        .set("max_connections", 100)
        .start();
    let address = server.address_of("websocket");
    let mut silent: Vec<TcpClient> = (0..100).map(|_| TcpClient::connect(address)).collect();
    // It waits in the backlog until one of them is closed.
    assert_eq!(http(&server).get("/").text(), "hello");
    for client in &mut silent {
        client.expect_end();
    }
    counted(&server, "idle", 100);
    assert!(server.total("accept_paused") > 0);
    server.stop();
}

#[test]
fn a_head_of_64_kib_is_answered_with_431() {
    let server = behave().websocket().start();
    for lines in [
        "X: y\r\n".repeat(11_000),
        format!("X: {}\r\n", "y".repeat(65_536)),
    ] {
        let mut client = http(&server);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let _ = client.try_send(head);
        assert_eq!(client.response().status, 431);
        client.tcp().expect_end();
        assert_eq!(http(&server).get("/").text(), "hello");
    }
    counted(&server, "too_large", 2);
    server.stop();
}

#[test]
fn a_million_empty_fragments_are_closed_with_1008() {
    let _machine = heavy();
    let server = behave().websocket().start();
    let empty = frame(false, opcode::CONTINUATION, b"");
    let begin = frame(false, opcode::BINARY, b"");
    flood(&server, &[begin, empty.repeat(1_000)], 1_000, |client| {
        client.expect_close(1008);
    });
    counted(&server, "flood", 1);
    server.stop();
}

#[test]
fn a_million_pings_are_closed_with_1008_and_answered_up_to_the_limit() {
    let _machine = heavy();
    let server = behave().websocket().start();
    for kind in [opcode::PING, opcode::PONG] {
        let control = frame(true, kind, b"");
        flood(&server, &[vec![], control.repeat(1_000)], 1_000, |client| {
            let mut pongs = 0;
            loop {
                match client.receive() {
                    Frame::Pong(_) => pongs += 1,
                    Frame::Close(Some((1008, _))) => break,
                    other => panic!("{other:?}"),
                }
            }
            assert!(pongs <= 1_000, "{pongs} pongs");
            client.tcp().expect_end();
        });
    }
    counted(&server, "flood", 2);
    server.stop();
}

#[test]
fn pings_within_the_limit_go_on_for_ever() {
    let server = behave().websocket().with("max_control_rate", 50).start();
    let mut client = server.websocket();
    for _ in 0..6 {
        for n in 0..25 {
            client.frame(true, opcode::PING, [n]);
            assert_eq!(client.receive(), Frame::Pong(vec![n]));
        }
        thread::sleep(Duration::from_millis(510));
    }
    assert_eq!(client.ask("echo fine"), "fine");
    server.stop();
}

#[test]
fn a_hundred_thousand_empty_messages_are_all_answered_and_delay_nobody() {
    let _machine = heavy();
    let server = behave().websocket().env("BEHAVE_WEBSOCKET", "echo").start();
    let empty = frame(true, opcode::BINARY, b"");
    flood(&server, &[vec![], empty.repeat(1_000)], 100, |client| {
        for _ in 0..100_000 {
            assert_eq!(client.receive(), Frame::Binary(Vec::new()));
        }
    });
    server.stop();
}

/// Sends the first bytes once and the others again and again, while `meanwhile` reads and
/// another client is served.
fn flood(
    server: &Server,
    [first, again]: &[Vec<u8>; 2],
    times: usize,
    meanwhile: impl FnOnce(&mut WebSocket),
) {
    let mut client = server.websocket();
    let mut neighbour = server.websocket();
    let mut writer = client.tcp().socket().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            // It ends early when the server has closed.
            let _ = writer.write_all(first);
            let _ = (0..times).try_for_each(|_| writer.write_all(again));
        });
        scope.spawn(|| {
            for n in 0..50 {
                let text = format!("#{n}");
                assert_eq!(neighbour.ask(&text), text);
            }
        });
        meanwhile(&mut client);
        // Whatever is left is of no interest any more.
        let _ = client.tcp().socket().shutdown(std::net::Shutdown::Both);
    });
}

/// Sends a byte every 20 ms until the server says something, while another client is served.
fn dripping(server: &Server, socket: &TcpStream, bytes: Vec<u8>) {
    let done = AtomicBool::new(false);
    let writer = socket.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| drip(writer, &bytes, &done));
        assert_eq!(http(server).get("/").text(), "hello");
        // Until the server has something to say.
        socket.peek(&mut [0]).expect("an answer");
        done.store(true, Ordering::Relaxed);
    });
}

fn drip(mut writer: TcpStream, bytes: &[u8], done: &AtomicBool) {
    for byte in bytes.chunks(1) {
        if done.load(Ordering::Relaxed) || writer.write_all(byte).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn drip_until_408(server: &Server, mut client: HttpClient, bytes: Vec<u8>) {
    dripping(server, client.tcp().socket(), bytes);
    let response = client.response();
    assert_eq!(response.status, 408, "{}", response.text());
    client.tcp().expect_end();
}

fn counted(server: &Server, reason: &str, count: u64) {
    wait_until(reason, || {
        server.status()["totals"]["closed"][reason].as_u64() == Some(count)
    });
}

fn http(server: &Server) -> HttpClient {
    HttpClient::connect(server.address_of("websocket"))
}

/// A server with little patience.
fn hasty() -> Spec {
    behave().websocket().with("request_timeout_ms", 400)
}
