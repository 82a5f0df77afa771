//! WebSockets over HTTP/2 (RFC 8441): as over HTTP/1, each in a stream.

use std::net::{SocketAddr, TcpStream};

use gannet_tests::{
    gate::Gate,
    http2::bridge,
    process::Signal,
    server::Server,
    wait::wait_until,
    websocket::{Frame, WebSocket, frame, opcode},
};

use crate::behave;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";

fn bridged(server: &Server) -> SocketAddr {
    bridge::websockets(server.address_of("websocket"))
}

#[test]
fn messages_go_both_ways() {
    let server = behave().set("workers", 2).websocket().start();
    let entry = bridged(&server);
    let mut first = WebSocket::connect(entry);
    let mut second = WebSocket::connect(entry);
    for n in 0..100 {
        assert_eq!(first.ask(format!("echo {n}")), n.to_string());
        assert_eq!(second.ask(format!("echo -{n}")), format!("-{n}"));
    }
    assert_eq!(first.ask("big 1000000").len(), 1_000_000);
    let long = "l".repeat(1_000_000);
    assert_eq!(first.ask(format!("echo {long}")), long);
    first.frame(true, opcode::PING, b"p");
    assert_eq!(first.receive(), Frame::Pong(b"p".to_vec()));
    assert!(second.ask("info").contains("true"), "it is a WebSocket");
    wait_until("one connection, two streams", || {
        server.connections() == 1 && server.total("http2_open") == 2
    });
    first.close(1000);
    wait_until("one stream", || server.total("http2_open") == 1);
    assert_eq!(second.ask("echo on"), "on");
    second.raw(frame(true, 3, b""));
    second.expect_close(1002);
    wait_until("no stream", || server.total("http2_open") == 0);
    server.stop();
}

#[test]
fn published_messages_reach_streams_and_connections_compressed_once() {
    let server = behave()
        .set("workers", 2)
        .websocket()
        .with("compression", true)
        .start();
    let entry = bridged(&server);
    let mut clients: Vec<_> = (0..3)
        .map(|_| WebSocket::connect_with(entry, "/", &[OFFER]))
        .collect();
    let address = server.address_of("websocket");
    clients.push(WebSocket::connect_with(address, "/", &[OFFER]));
    for client in &mut clients {
        assert!(client.compression().is_some(), "nothing was agreed on");
        assert_eq!(client.ask("sub news"), "ok");
    }
    let before = server.total("compressed");
    let long = "n".repeat(5_000);
    let mut publisher = server.websocket();
    publisher.send(format!("pub news {long}"));
    for client in &mut clients {
        assert_eq!(client.text(), long);
        assert_eq!(client.compressed(), 1);
    }
    wait_until("it to be counted", || {
        server.total("compressed") == before + 1
    });
    clients[0].send_compressed(opcode::TEXT, format!("echo {long}").as_bytes(), 1_000);
    assert_eq!(clients[0].text(), long);
    server.stop();
}

#[test]
fn a_message_is_handled_again_when_its_worker_dies() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = WebSocket::connect(bridged(&server));
    assert_eq!(client.ask("abort-once 1"), "survived 1");
    client.send("abort");
    client.expect_close(1012);
    server.stop();
}

#[test]
fn a_reload_and_a_stop_are_as_over_http_1() {
    let mut server = behave().set("workers", 1).websocket().start();
    let mut client = WebSocket::connect(bridged(&server));
    let generation = client.ask("generation");
    server.reload();
    assert_ne!(client.ask("generation"), generation);
    let gate = Gate::shut();
    client.send(format!("gate {} done", gate.path()));
    wait_until("it to run", || server.in_flight() == 1);
    server.signal(Signal::TERM);
    wait_until("the listener's end", || {
        TcpStream::connect(server.address_of("websocket")).is_err()
    });
    gate.open();
    assert_eq!(client.text(), "done");
    client.expect_close(1001);
    server.expect_exit(0);
}

#[test]
fn a_slow_reader_is_cut_and_no_other() {
    let server = behave().websocket().with("max_queued", 100_000).start();
    let entry = bridged(&server);
    let mut good = WebSocket::connect(entry);
    let mut slow = WebSocket::connect(entry);
    assert_eq!(slow.ask("sub news"), "ok");
    wait_until("it to be cut", || {
        assert_eq!(good.ask("pub-many news 1 50000"), "published");
        server.status()["totals"]["closed"]["slow_reader"] == 1
    });
    assert_eq!(good.ask("echo on"), "on");
    server.stop();
}
