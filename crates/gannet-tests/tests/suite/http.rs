//! HTTP/1.1.

use std::thread;

use gannet_tests::{
    http::{HttpClient, chunk_of, post},
    server::Server,
    wait::wait_until,
};

use crate::behave;

#[test]
fn a_connection_serves_many_requests() {
    let server = server();
    let mut client = server.http();
    for n in 0..50 {
        assert_eq!(client.get("/").text(), "hello");
        let body = n.to_string();
        assert_eq!(client.post("/echo", &body).text(), body);
    }
    server.stop();
}

#[test]
fn responses_carry_length_and_date() {
    let server = server();
    let response = server.http().get("/");
    assert_eq!(response.header("content-length"), Some("5"));
    assert!(
        response
            .header("date")
            .is_some_and(|date| date.ends_with(" GMT")),
        "{response:?}"
    );
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let mut client = server.http();
    let mut all = Vec::new();
    for n in 0..30 {
        match n % 3 {
            0 => all.extend(post("/echo", n.to_string().as_bytes())),
            // The first is slower than those behind it.
            1 => all.extend(b"GET /sleep?ms=10 HTTP/1.1\r\nHost: test\r\n\r\n"),
            _ => all.extend(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
        }
    }
    client.send(all);
    for n in 0..30 {
        let response = client.response();
        match n % 3 {
            0 => assert_eq!(response.text(), n.to_string()),
            1 => assert_eq!(response.text(), "slept"),
            _ => assert_eq!(response.text(), "hello"),
        }
    }
    server.stop();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = server();
    let mut client = server.http();
    for byte in post("/echo", b"slowly") {
        client.send([byte]);
    }
    assert_eq!(client.response().text(), "slowly");
    server.stop();
}

#[test]
fn head_is_answered_without_a_body() {
    let server = server();
    let mut client = server.http();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = client.head();
    assert_eq!(
        (response.status, response.header("content-length")),
        (200, Some("5"))
    );
    // Were there a body, the next response would not parse.
    assert_eq!(client.get("/").text(), "hello");
    client.send("HEAD /stream?n=3&size=10 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.get("/").text(), "hello");
    server.stop();
}

#[test]
fn no_content_has_no_body() {
    let server = server();
    let mut client = server.http();
    assert_eq!(client.get("/empty").status, 204);
    assert_eq!(client.get("/").text(), "hello");
    server.stop();
}

#[test]
fn expect_continue_is_answered_when_the_body_is_read() {
    let server = server();
    let mut client = server.http();
    client.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.head().status, 100);
    client.send("hello");
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "hello"));
    assert_eq!(client.get("/").text(), "hello");
    server.stop();
}

#[test]
fn expect_continue_is_not_answered_when_nobody_reads_the_body() {
    let server = server();
    let mut client = server.http();
    client.send(
        "POST /ignore-body HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\
         Expect: 100-continue\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "ignored"));
    server.stop();
}

#[test]
fn a_body_that_nobody_reads_does_not_disturb_the_next_request() {
    let server = server();
    let mut client = server.http();
    let mut requests = post("/ignore-body", &vec![b'x'; 200_000]);
    requests.extend(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send(requests);
    let response = client.response();
    assert_eq!(response.text(), "ignored");
    if response.keeps_alive() {
        assert_eq!(client.response().text(), "hello");
    } else {
        client.expect_closed();
    }
    server.stop();
}

#[test]
fn chunked_uploads_arrive_whole() {
    let server = server();
    let mut client = server.http();
    let response = client.post_chunked("/echo", &[b"one ", b"two ", &[b'3'; 100_000]]);
    assert_eq!(response.body.len(), 100_008);
    assert!(response.body.starts_with(b"one two 333"));
    assert_eq!(client.post_chunked("/echo", &[]).text(), "");
    server.stop();
}

#[test]
fn an_upload_streams_into_the_response() {
    let server = server();
    let mut client = server.http();
    client.send("POST /pipe HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let response = client.head();
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    for n in 0..10 {
        let piece = format!("piece {n}");
        client.send(chunk_of(piece.as_bytes()));
        // It comes back before the next one is sent.
        assert_eq!(client.chunk().unwrap(), piece.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk(), None);
    assert_eq!(client.get("/").text(), "hello");
    server.stop();
}

#[test]
fn large_bodies_go_both_ways() {
    let server = server();
    let mut client = server.http();
    let body: Vec<u8> = (0..20 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut upload = HttpClient::over(gannet_tests::tcp::TcpClient::over(
        client.tcp().socket().try_clone().unwrap(),
    ));
    thread::scope(|scope| {
        scope.spawn(|| upload.send(post("/pipe", &body)));
        assert!(client.response().body == body, "other bytes came back");
    });
    assert_eq!(client.get("/big?n=15000000").body.len(), 15_000_000);
    server.stop();
}

#[test]
fn a_large_upload_needs_no_more_than_one_event_in_flight() {
    let server = behave().set("max_in_flight", 1).http().start();
    let body = vec![b'u'; 4 << 20];
    let response = server.http().post("/echo", &body);
    assert!(response.body == body, "another body came back");
    server.stop();
}

#[test]
fn a_stream_arrives_as_it_is_made() {
    let server = server();
    let mut client = server.http();
    client.send("GET /stream?n=5&size=20&ms=30 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head().header("transfer-encoding"), Some("chunked"));
    for n in 0..5 {
        assert!(
            client
                .chunk()
                .unwrap()
                .starts_with(format!("{n} ").as_bytes())
        );
    }
    assert_eq!(client.chunk(), None);
    server.stop();
}

#[test]
fn a_stream_that_breaks_off_is_seen_to_break_off() {
    let server = server();
    let mut client = server.http();
    client.send("GET /truncate HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().unwrap(), b"beginning");
    client.expect_closed();
    server.stop();
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let server = server();
    let mut client = server.http();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.text(), response.keeps_alive()), ("hello", false));
    client.expect_closed();

    let mut client = server.http();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "hello");
    assert_eq!(
        response
            .header("connection")
            .map(str::to_ascii_lowercase)
            .unwrap(),
        "keep-alive"
    );
    client.send("GET /stream?n=3&size=4 HTTP/1.0\r\n\r\n");
    let response = client.response();
    // No chunks for 1.0: the end of the connection is the end of the body.
    assert_eq!(response.text(), "0 ss1 ss2 ss");
    server.stop();
}

#[test]
fn connection_close_is_honoured() {
    let server = server();
    let mut client = server.http();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let response = client.response();
    assert_eq!((response.text(), response.keeps_alive()), ("hello", false));
    client.expect_closed();
    server.stop();
}

#[test]
fn a_client_that_vanishes_in_a_request_is_no_close_event() {
    let server = behave().set("workers", 1).http().websocket().start();
    let mut watcher = server.websocket();
    assert_eq!(watcher.ask("sub closed"), "ok");
    let mut client = server.http();
    client.send("GET /stream?n=1000&size=10&ms=5 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.tcp().socket().peek(&mut [0]).unwrap();
    // With bytes that it has not read, it is a reset.
    drop(client);
    wait_until("the reset", || {
        server.status()["totals"]["closed"]["reset"] == 1
    });
    wait_until("the request's end", || server.in_flight() == 0);
    assert_eq!(watcher.ask("echo nothing else"), "nothing else");
    server.stop();
}

#[test]
fn what_a_handler_does_not_know_is_its_own_404() {
    let server = server();
    let mut client = server.http();
    let response = client.get("/nothing");
    assert_eq!((response.status, response.text()), (404, "no such page"));
    assert_eq!(client.get("/").status, 200);
    server.stop();
}

#[test]
fn headers_arrive_as_sent() {
    let server = server();
    let mut client = server.http();
    client.send(
        "GET /headers HTTP/1.1\r\nHost: test\r\nX-One: 1\r\nX-Two:  two \r\nX-One: 2\r\n\r\n",
    );
    let response = client.response();
    for line in ["host: test\n", "x-one: 1\n", "x-two: two\n", "x-one: 2\n"] {
        assert!(response.text().contains(line), "{}", response.text());
    }
    client.send("OPTIONS /method HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().text(), "OPTIONS");
    server.stop();
}

#[test]
fn what_is_ambiguous_is_refused_with_400_and_a_close() {
    let server = server();
    let refused = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "\u{16}\u{3}\u{1}\u{2}\r\n\r\n",
    ];
    for request in refused {
        let mut client = server.http();
        client.send(request);
        let response = client.response();
        let status = response.status;
        assert!(matches!(status, 400 | 501), "{status} for {request:?}");
        assert!(!response.keeps_alive(), "{request:?}");
        client.expect_closed();
    }
    server.stop();
}

#[test]
fn an_unknown_version_is_refused() {
    let server = server();
    let mut client = server.http();
    client.send("GET / HTTP/3.0\r\nHost: a\r\n\r\n");
    assert!(matches!(client.response().status, 400 | 505));
    client.expect_closed();
    server.stop();
}

fn server() -> Server {
    behave().http().start()
}
