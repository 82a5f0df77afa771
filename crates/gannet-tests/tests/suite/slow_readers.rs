//! Clients that do not read what they have asked for: they are measured by `min_send_rate` while
//! their socket is full, cut and counted, and hold up neither others nor a stop.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use gannet_tests::{
    http::HttpClient,
    process::Signal,
    server::{Server, Spec},
    tcp::{TcpClient, small_buffers},
    tls::{Client, Keys},
    wait::{DEADLINE, wait_until},
    websocket::WebSocket,
};

use crate::behave;

#[test]
fn who_reads_nothing_of_a_response_is_cut() {
    let server = hasty("http").start();
    let address = server.address_of("http");
    for (done, target) in ["/stream?n=1000&size=65536", "/big?n=9000000"]
        .iter()
        .enumerate()
    {
        let mut client = asks(address, target, "");
        assert_eq!(HttpClient::connect(address).get("/").text(), "hello");
        counted(&server, "slow_reader", done as u64 + 1);
        expect_reset(&mut client);
    }
    // Nothing is left of them: no handler waits.
    wait_until("no event in flight", || server.in_flight() == 0);
    server.stop();
}

#[test]
fn who_reads_nothing_over_tls_is_cut() {
    let keys = Keys::default();
    let server = keys.serve(hasty("http")).start();
    let stream = small_buffers(server.address_of("http")).unwrap();
    let mut client = Client::new(&keys.authority).over(stream).unwrap();
    client.send("GET /stream?n=1000&size=65536 HTTP/1.1\r\nHost: a\r\n\r\n");
    counted(&server, "slow_reader", 1);
    server.stop();
}

#[test]
fn who_reads_too_slowly_is_cut() {
    let server = hasty("http").with("min_send_rate", 1_000_000).start();
    let client = asks(server.address_of("http"), "/stream?n=1000&size=65536", "");
    let mut total = 0;
    read_slowly(client.socket(), Duration::from_millis(20), |read| {
        total += read;
        closed(&server, "slow_reader") == 0
    });
    assert!(total < 60 << 20, "it has read all");
    counted(&server, "slow_reader", 1);
    server.stop();
}

/// It takes three time-outs to read, and the rate is kept in each.
#[test]
fn who_reads_slowly_and_steadily_gets_all() {
    let server = behave()
        .http()
        .with("request_timeout_ms", 2_000)
        .with("min_send_rate", 1_000)
        .start();
    for close in ["", "Connection: close\r\n"] {
        let client = asks(server.address_of("http"), "/stream?n=400&size=8192", close);
        let (begin, mut total) = (Instant::now(), 0);
        read_slowly(client.socket(), Duration::from_millis(20), |read| {
            total += read;
            begin.elapsed() < Duration::from_secs(6)
        });
        assert!(total < 3 << 20, "it was not slow");
        let mut reader = client.socket();
        let mut buffer = [0; 64 << 10];
        while total < 400 * 8192 {
            let read = reader.read(&mut buffer).expect("the rest");
            assert!(read > 0, "the end after {total} bytes");
            total += read;
        }
    }
    assert_eq!(closed(&server, "slow_reader"), 0);
    server.stop();
}

/// The kernel holds megabytes for it, so that the server can write nothing for longer than a closing
/// connection may take: what the client has acknowledged is what counts.
#[test]
fn what_a_handler_has_sent_before_it_closes_reaches_a_slow_reader() {
    let server = behave().tcp().start();
    let stream = TcpStream::connect(server.address_of("tcp")).unwrap();
    let smallest = SockRef::from(&stream).set_recv_buffer_size(16 << 10);
    smallest.unwrap();
    let mut client = TcpClient::over(stream);
    client.send(format!("flood 60 {}\n", 64 << 10));
    // And `connect` before it.
    wait_until("it to be answered", || server.events() == 2);
    client.send("close\n");
    let (begin, mut total) = (Instant::now(), 0);
    read_slowly(client.socket(), Duration::from_millis(200), |read| {
        total += read;
        begin.elapsed() < Duration::from_secs(12)
    });
    let mut rest = Vec::new();
    let end = client.socket().read_to_end(&mut rest);
    assert!(end.is_ok(), "{end:?} after {total} bytes");
    assert_eq!(total + rest.len(), 60 << 16);
    server.stop();
}

#[test]
fn who_reads_nothing_of_its_messages_is_cut_below_max_queued() {
    let server = hasty("tcp")
        .websocket()
        .with("request_timeout_ms", 1_000)
        .start();
    let mut tcp = TcpClient::over(small_buffers(server.address_of("tcp")).unwrap());
    tcp.send("flood 16 65536\n");
    counted(&server, "slow_reader", 1);
    expect_reset(&mut tcp);
    let stream = small_buffers(server.address_of("websocket")).unwrap();
    let mut websocket = WebSocket::open(TcpClient::over(stream), "/", &[])
        .unwrap()
        .unwrap();
    websocket.send("flood 16 65536");
    counted(&server, "slow_reader", 2);
    expect_reset(websocket.tcp());
    server.stop();
}

/// Streams that open no window are cut one by one; those that wait for a connection that is read,
/// slowly, are not, though none of them alone gets what the rate asks for.
#[test]
fn streams_are_measured_by_their_window_or_with_their_connection() {
    const STREAMS: u32 = 20;
    let server = hasty("http").with("min_send_rate", 20_000).start();
    let address = server.address_of("http");
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let len = (payload.len() as u32).to_be_bytes();
        let head = [len[1], len[2], len[3], kind, flags];
        [&head[..], &stream.to_be_bytes(), payload].concat()
    };
    let begin = |window: u32| {
        let path = "/stream?n=1000&size=65536";
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &settings));
        bytes.extend(frame(4, 1, 0, &[]));
        bytes.extend(frame(8, 0, 0, &(1_u32 << 30).to_be_bytes()));
        // GET, http, the path, the authority; END_HEADERS and END_STREAM.
        let mut head = vec![0x82, 0x86, 0x04, path.len() as u8];
        head.extend(path.bytes());
        head.extend([0x01, 1, b'a']);
        for n in 0..STREAMS {
            bytes.extend(frame(1, 5, 2 * n + 1, &head));
        }
        let mut client = TcpClient::over(small_buffers(address).unwrap());
        client.send(bytes);
        client
    };
    let shut = begin(0);
    counted(&server, "slow_reader", STREAMS.into());
    drop(shut);
    wait_until("no stream", || server.in_flight() == 0);

    let client = begin((1 << 31) - 1);
    let (start, mut total) = (Instant::now(), 0);
    read_slowly(client.socket(), Duration::from_millis(20), |read| {
        total += read;
        start.elapsed() < Duration::from_secs(5)
    });
    assert!(total < 5 * 20_000 * STREAMS as usize, "it was not slow");
    assert_eq!(closed(&server, "slow_reader"), u64::from(STREAMS));
    // Who then reads nothing is cut with all of them.
    wait_until("it to be cut", || {
        closed(&server, "slow_reader") > u64::from(STREAMS)
    });
    drop(client);
    server.stop();
}

#[test]
fn with_no_rate_nobody_is_cut_for_not_reading() {
    let server = hasty("tcp").with("min_send_rate", 0).start();
    let mut client = TcpClient::over(small_buffers(server.address_of("tcp")).unwrap());
    client.send("flood 16 65536\n");
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(client.bytes(16 << 16).len(), 16 << 16);
    assert_eq!(client.ask("echo on"), "on");
    server.stop();
}

#[test]
fn a_stop_does_not_wait_for_who_does_not_read() {
    // Were it to wait for the rate or for the handler, it would take minutes.
    let mut server = behave().set("max_wait_time_ms", 600_000).http().start();
    let address = server.address_of("http");
    let clients =
        ["/stream?n=1000&size=65536", "/big?n=9000000"].map(|target| asks(address, target, ""));
    wait_until("both to be answered", || server.events() == 2);
    server.signal(Signal::TERM);
    server.expect_exit(0);
    drop(clients);
}

/// An answer without a length ends with its connection: a proper end would make a part of it whole.
#[test]
fn an_answer_of_http_1_0_that_breaks_off_ends_with_a_reset() {
    let server = behave().http().start();
    let mut client = TcpClient::connect(server.address_of("http"));
    client.send("GET /truncate HTTP/1.0\r\nHost: a\r\n\r\n");
    expect_reset(&mut client);
    server.stop();
}

/// Asks, and reads nothing.
fn asks(address: SocketAddr, target: &str, lines: &str) -> TcpClient {
    let mut client = TcpClient::over(small_buffers(address).unwrap());
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    client
}

/// Reads a little, again and again, as long as `goes_on`.
fn read_slowly(mut socket: &TcpStream, pause: Duration, mut goes_on: impl FnMut(usize) -> bool) {
    let mut buffer = [0; 2 << 10];
    let begin = Instant::now();
    while let Ok(read) = socket.read(&mut buffer)
        && read > 0
        && goes_on(read)
    {
        assert!(begin.elapsed() < DEADLINE, "it goes on for ever");
        thread::sleep(pause);
    }
}

fn expect_reset(client: &mut TcpClient) {
    let end = client.socket().read_to_end(&mut Vec::new());
    assert_eq!(
        end.map_err(|e| e.kind()).unwrap_err(),
        ErrorKind::ConnectionReset
    );
}

fn closed(server: &Server, reason: &str) -> u64 {
    server.status()["totals"]["closed"][reason]
        .as_u64()
        .unwrap_or(0)
}

fn counted(server: &Server, reason: &str, count: u64) {
    wait_until(reason, || closed(server, reason) == count);
}

/// A server with little patience.
fn hasty(protocol: &str) -> Spec {
    behave()
        .listen(protocol, "127.0.0.1:0")
        .with("request_timeout_ms", 1_000)
}
