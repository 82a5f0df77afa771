//! PROXY headers in front of TLS: the header comes first, in the clear.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
};

use gannet_tests::{
    http::HttpClient,
    process,
    server::Server,
    tcp::TcpClient,
    tls::{Client, Keys},
    wait::wait_until,
    websocket::WebSocket,
};

use crate::{
    behave,
    proxy::{LINE, NAMED, binary, closed, required},
};

#[test]
fn a_header_in_front_of_tls_names_the_client() {
    let keys = Keys::default();
    let server = required(keys.serve(behave().tcp())).start();
    for header in [LINE.as_bytes().to_vec(), binary(&[4, 0, 1, 0])] {
        let client = Client::new(&keys.authority).behind(header);
        let mut conn = client.connect(server.address(0));
        let info = conn.ask("info");
        let own = format!("proxy={}", conn.socket().local_addr().unwrap());
        assert!(info.contains(NAMED) && info.ends_with(&own), "{info}");
        assert!(conn.ask("tls").starts_with("version=1.3 "));
        assert_eq!(conn.ask("echo x"), "x");
    }
    wait_until("the counter tls_handshakes", || {
        server.total("tls_handshakes") == 2
    });
    server.stop();
}

#[test]
fn header_and_handshake_may_be_cut_anywhere() {
    let keys = Keys::default();
    let server = required(keys.serve(behave().tcp())).start();
    let header = binary(&[4, 0, 1, 0]);
    let len = header.len();
    let client = Client::new(&keys.authority).behind(header);
    for cut in [1, 15, 16, len - 1, len, len + 1, len + 5, len + 100] {
        let stream = TcpStream::connect(server.address(0)).unwrap();
        let send = |stream: &mut TcpStream, first: &[u8]| {
            let before = server.total("bytes_in");
            stream.write_all(&first[..cut])?;
            wait_until("the first part", || {
                server.total("bytes_in") == before + cut as u64
            });
            stream.write_all(&first[cut..])
        };
        let mut conn = client.over_with(stream, send).unwrap();
        let info = conn.ask("info");
        assert!(info.contains(NAMED), "{cut}: {info}");
        // All that it still sends is counted before the next one is looked at.
        conn.finish();
        assert!(conn.rest().unwrap().is_empty());
    }
    assert_eq!(server.total("proxy_failed"), 0);
    server.stop();
}

#[test]
fn framed_messages_and_websockets_and_requests_are_the_clients_under_tls() {
    let keys = Keys::default();
    let client = Client::new(&keys.authority).behind(binary(&[]));
    let framed = behave()
        .env("BEHAVE_TCP", "framed")
        .env("BEHAVE_CONNECT", "greet")
        .tcp()
        .with("framing", "lines");
    let server = required(keys.serve(framed)).start();
    let mut conn = client.connect(server.address(0));
    assert!(conn.line().starts_with("hello "), "`connect` comes first");
    assert!(conn.ask("info").contains(NAMED));
    assert_eq!(conn.ask("#one"), "#one");
    server.stop();

    let server = required(keys.serve(behave().websocket())).start();
    let entry = client.tunnel(server.address(0));
    let mut http = HttpClient::connect(entry);
    let seen = http.get("/client").text().to_owned();
    assert!(seen.starts_with("192.0.2.7:56324 via 127.0.0.1:"), "{seen}");
    let mut websocket = WebSocket::connect(entry);
    let info = websocket.ask("info");
    assert!(info.contains(NAMED), "{info}");
    assert_eq!(websocket.ask("echo over wss"), "over wss");
    server.stop();
}

#[test]
fn tls_without_the_header_is_refused() {
    let keys = Keys::default();
    let server = required(keys.serve(behave().tcp())).start();
    let error = Client::new(&keys.authority)
        .try_connect(server.address(0))
        .expect_err("it was let in");
    let kind = error.kind();
    assert!(
        [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&kind),
        "{error}"
    );
    wait_until("it counted", || {
        server.total("proxy_failed") == 1 && closed(&server, "protocol") == 1
    });
    assert_eq!(server.events(), 0);
    server.expect_log("no PROXY header");

    // Encrypted, it is too late: nobody reads it as a header.
    let client = Client::new(&keys.authority).behind(LINE);
    let mut conn = client.connect(server.address(0));
    assert_eq!(conn.ask("echo PROXY UNKNOWN"), "PROXY UNKNOWN");
    server.stop();
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection_before_tls() {
    let keys = Keys::default();
    let spec = required(keys.serve(behave().tcp())).with("request_timeout_ms", 200);
    let server = spec.start();
    let mut silent = TcpClient::connect(server.address(0));
    let mut slow = TcpClient::connect(server.address(0));
    slow.send(&LINE[..20]);
    silent.expect_closed();
    slow.expect_closed();
    wait_until("both counted", || {
        server.total("proxy_failed") == 2 && closed(&server, "timeout") == 2
    });
    assert_eq!(server.total("tls_timeouts"), 0);
    assert_eq!(server.events(), 0);
    server.stop();
}

#[test]
fn the_time_for_the_handshake_begins_behind_the_header() {
    let keys = Keys::default();
    let server = required(keys.serve(behave().tcp()))
        .with_tls("handshake_timeout_ms", 1000)
        .start();
    let mut early = TcpStream::connect(server.address(0)).unwrap();
    early.write_all(&LINE.as_bytes()[..20]).unwrap();
    wait_until("its bytes", || server.total("bytes_in") == 20);
    let mut silent = TcpClient::connect(server.address(0));
    silent.send(LINE);
    silent.expect_closed();
    wait_until("it counted", || server.total("tls_timeouts") == 1);
    assert_eq!(server.events(), 0);
    // The one that was here before has all its time yet.
    let client = Client::new(&keys.authority).behind(&LINE[20..]);
    let mut conn = client.over(early).unwrap();
    assert!(conn.ask("info").contains(NAMED));
    wait_until("the counter tls_timeouts", || {
        server.total("tls_timeouts") == 1
    });
    server.stop();
}

#[test]
fn when_the_master_dies_nobody_hears_of_connections_between_header_and_handshake() {
    let keys = Keys::default();
    let server = required(keys.serve(behave().tcp())).start();
    let client = Client::new(&keys.authority).behind(LINE);
    let mut open = client.connect(server.address(0));
    assert!(open.ask("info").contains(NAMED));
    let before = server.total("bytes_in");
    let mut between = TcpClient::connect(server.address(0));
    between.send(LINE);
    wait_until("its header", || {
        server.total("bytes_in") == before + LINE.len() as u64
    });
    let master = server.master();
    process::kill(master);
    assert!(open.rest().is_err(), "an end that nobody has said");
    between.expect_closed();
    wait_until("another master", || another_master(&server, master));
    assert!(
        client
            .connect(server.address(0))
            .ask("info")
            .contains(NAMED)
    );
    wait_until("it to be counted", || closed(&server, "master_died") > 0);
    assert_eq!(closed(&server, "master_died"), 1);
    server.stop();
}

fn another_master(server: &Server, before: u32) -> bool {
    server.status()["master_pid"]
        .as_u64()
        .is_some_and(|pid| pid != u64::from(before))
}
