//! Limits and time-outs.

use std::{collections::HashSet, thread, time::Duration, time::Instant};

use gannet_tests::{
    gate::Gate,
    http::post,
    server::Server,
    wait::{DEADLINE, wait_until},
    websocket::{Frame, WebSocket},
};

use crate::behave;

#[test]
fn a_silent_websocket_is_pinged_and_then_closed() {
    let server = behave().websocket().with("idle_timeout_ms", 400).start();
    let mut silent = server.websocket();
    assert!(matches!(silent.receive(), Frame::Ping(_)));
    match silent.try_receive() {
        Ok(Frame::Close(_)) | Err(_) => {}
        other => panic!("{other:?}"),
    }
    server.stop();
}

#[test]
fn a_websocket_that_answers_pings_stays() {
    let server = behave().websocket().with("idle_timeout_ms", 800).start();
    let mut client = server.websocket();
    // Reading answers the pings; the reply comes after several time-outs.
    assert_eq!(client.ask("later 3000 still here"), "soon");
    assert_eq!(client.text(), "still here");
    server.stop();
}

#[test]
fn a_silent_tcp_connection_is_closed() {
    let server = behave().tcp().with("idle_timeout_ms", 300).start();
    let mut client = server.tcp();
    assert_eq!(client.ask("echo 1"), "1");
    client.expect_closed();
    server.stop();
}

#[test]
fn a_connection_that_is_not_read_is_not_idle() {
    let server = behave()
        .set("max_in_flight", 1)
        .tcp()
        .with("idle_timeout_ms", 400)
        .start();
    let mut client = server.tcp();
    let gate = Gate::shut();
    client.send(format!("gate {} first\n", gate.path()));
    wait_until("the handler to run", || server.in_flight() == 1);
    client.send("echo second\n");
    // Longer than the time-out.
    thread::sleep(Duration::from_millis(1_500));
    gate.open();
    assert_eq!(client.line(), "first");
    assert_eq!(client.line(), "second");
    client.expect_closed();
    server.stop();
}

#[test]
fn a_request_head_that_takes_too_long_is_answered_with_408() {
    let server = behave().http().with("request_timeout_ms", 300).start();
    let mut client = server.http();
    client.send("GET / HTTP/1.1\r\nHo");
    let response = client.response();
    assert_eq!((response.status, response.keeps_alive()), (408, false));
    client.expect_closed();
    server.stop();
}

#[test]
fn an_idle_keep_alive_connection_is_closed_in_silence() {
    let server = behave().http().with("request_timeout_ms", 300).start();
    let mut client = server.http();
    assert_eq!(client.get("/").status, 200);
    client.expect_closed();
    // A handler may take longer than that.
    assert_eq!(server.http().get("/sleep?ms=900").text(), "slept");
    server.stop();
}

#[test]
fn a_head_over_the_limit_is_answered_with_431() {
    let server = behave().http().with("max_head_size", 1024).start();
    let mut client = server.http();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n",
        "x".repeat(2000)
    ));
    assert_eq!(client.response().status, 431);
    client.expect_closed();
    assert_eq!(server.http().get("/").status, 200);
    server.stop();
}

#[test]
fn a_body_over_the_limit_is_answered_with_413() {
    let server = behave().http().with("max_body_size", 1000).start();
    let mut client = server.http();
    assert_eq!(client.post("/echo", [b'x'; 1000]).status, 200);
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(client.response().status, 413);
    client.expect_closed();

    let mut client = server.http();
    assert_eq!(
        client
            .post_chunked("/echo", &[&[b'x'; 600], &[b'x'; 600]])
            .status,
        413
    );
    server.stop();
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let server = behave().http().with("max_body_size", 1000).start();
    let mut client = server.http();
    client.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.response().status, 413);
    server.stop();
}

#[test]
fn beyond_max_connections_clients_wait_their_turn() {
    let server = behave().set("max_connections", 5).websocket().start();
    let mut clients: Vec<_> = (0..5).map(|_| server.websocket()).collect();
    let address = server.address_of("websocket");
    std::thread::scope(|scope| {
        let sixth = scope.spawn(|| WebSocket::connect(address).ask("echo at last"));
        for _ in 0..20 {
            for client in &mut clients {
                assert_eq!(client.ask("echo 1"), "1");
            }
        }
        assert!(!sixth.is_finished(), "a sixth connection was accepted");
        clients.pop().unwrap().close(1000);
        assert_eq!(sixth.join().unwrap(), "at last");
    });
    server.stop();
}

#[test]
fn a_worker_that_has_done_its_share_is_replaced_unnoticed() {
    let server = behave().set("max_requests", 50).websocket().http().start();
    let mut clients: Vec<_> = (0..10).map(|_| server.websocket()).collect();
    let mut http = server.http();
    let mut pids = HashSet::new();
    let begin = Instant::now();
    for n in 0.. {
        if n >= 100 && pids.len() > 2 {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "who serves: {pids:?}");
        for client in &mut clients {
            assert_eq!(client.ask(format!("#{n}")), format!("#{n}"));
        }
        pids.insert(http.get("/pid").text().to_owned());
    }
    wait_until("two workers", || server.workers().len() == 2);
    server.stop();
}

#[test]
fn pipelining_is_bounded_and_complete() {
    let server: Server = behave().http().set("max_in_flight", 4).start();
    let mut client = server.http();
    let requests: Vec<u8> = (0..200)
        .flat_map(|n| post("/echo", n.to_string().as_bytes()))
        .collect();
    client.send(requests);
    for n in 0..200 {
        assert_eq!(client.response().text(), n.to_string());
    }
    server.stop();
}
