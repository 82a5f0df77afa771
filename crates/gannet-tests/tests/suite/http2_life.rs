//! HTTP/2: crashes, reloads, the stop, limits, clients that misbehave.

use std::{fs, net::SocketAddr, thread};

use bytes::Bytes;
use gannet_tests::{
    frames::{RawHttp2, frame::headers, hpack::get},
    gate::Gate,
    http2::{Http2, reply, request, run, until},
    process::Signal,
    server::{Server, Spec},
    tcp::TcpClient,
    wait::wait_until,
};
use h2::Reason;
use http::{HeaderMap, Method, StatusCode};
use tempfile::NamedTempFile;

use crate::{behave, proxy::required};

fn closed(server: &Server, reason: &str) -> u64 {
    server.status()["totals"]["closed"][reason]
        .as_u64()
        .unwrap_or(0)
}

/// The server, and the file in which it notes what has run.
fn noting(spec: Spec) -> (Server, NamedTempFile) {
    let runs = NamedTempFile::new().unwrap();
    let spec = spec.env("BEHAVE_RUNS", runs.path().display().to_string());
    (spec.start(), runs)
}

/// A request whose handler waits there.
fn at_gate(gate: &Gate) -> http::Request<()> {
    request(Method::GET, &format!("/gate?file={}", gate.path()))
}

#[test]
fn streams_of_a_dead_worker_run_again_or_get_502() {
    let (server, runs) = noting(behave().set("workers", 1).http());
    run(async {
        let client = Http2::connect(server.address(0)).await;
        let again = client.get("/mark/get?then=abort-once").await;
        assert_eq!(
            (again.status, again.text()),
            (StatusCode::OK, "marked true")
        );
        let (lost, repeated) = tokio::join!(
            client.post("/mark/post?then=abort", "body"),
            client.get("/sleep?ms=100")
        );
        assert_eq!(lost.status, StatusCode::BAD_GATEWAY);
        assert_eq!(repeated.text(), "slept");
        assert_eq!(client.get("/").await.text(), "hello");
    });
    let runs = fs::read_to_string(runs.path()).unwrap();
    assert_eq!(runs, "get\nget\npost\n");
    assert_eq!(server.total("accepted"), 1, "it was one connection");
    server.stop();
}

#[test]
fn an_answer_that_had_begun_is_reset_when_its_worker_dies() {
    let server = behave().set("workers", 1).http().start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        let pid = client.get("/pid").await.text().parse().unwrap();
        let page = request(Method::GET, "/stream?n=1000&size=100&ms=50");
        let (response, _send) = client.open(page, true).await.unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(body.data().await.unwrap().is_ok());
        gannet_tests::process::kill(pid);
        let broken = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("a cut answer ends like a whole one"),
            }
        };
        assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(client.get("/").await.text(), "hello");
    });
    server.stop();
}

#[test]
fn a_reload_closes_nothing() {
    let server = behave().set("workers", 2).http().start();
    thread::scope(|scope| {
        let reload = scope.spawn(|| server.reload());
        run(async {
            let client = Http2::connect(server.address(0)).await;
            let mut rounds = 0;
            while !reload.is_finished() || rounds < 20 {
                let all = tokio::join!(
                    client.get("/"),
                    client.get("/sleep?ms=5"),
                    client.post("/echo", "x")
                );
                let texts = (all.0.text(), all.1.text(), all.2.text());
                assert_eq!(texts, ("hello", "slept", "x"));
                rounds += 1;
            }
        });
    });
    assert_eq!(server.total("accepted"), 1);
    server.stop();
}

#[test]
fn a_stop_says_goaway_and_finishes_what_runs() {
    let mut server = behave().http().start();
    run(async {
        let idle = Http2::connect(server.address(0)).await;
        assert_eq!(idle.get("/").await.text(), "hello");
        let client = Http2::connect(server.address(0)).await;
        let gate = Gate::shut();
        let slow = at_gate(&gate);
        let (slow, _send) = client.open(slow, true).await.unwrap();
        until(|| server.in_flight() == 1).await;
        server.signal(Signal::TERM);
        idle.driver.await.unwrap().expect("a goodbye in good order");
        gate.open();
        assert_eq!(reply(slow).await.unwrap().text(), "passed");
        client
            .driver
            .await
            .unwrap()
            .expect("a goodbye in good order");
    });
    server.expect_exit(0);
}

#[test]
fn cancelled_requests_leave_nothing_and_too_many_of_them_are_a_flood() {
    let server = behave().http().with("http2_max_reset_rate", 50).start();
    run(async {
        let other = Http2::connect(server.address(0)).await;
        let client = Http2::connect(server.address(0)).await;
        let gate = Gate::shut();
        let (response, mut send) = client.open(at_gate(&gate), true).await.unwrap();
        until(|| server.in_flight() == 1).await;
        send.send_reset(Reason::CANCEL);
        drop(response);
        gate.open();
        until(|| server.total("http2_open") == 0).await;
        let mut error = None;
        for _ in 0..200 {
            let slow = request(Method::GET, "/sleep?ms=500");
            match client.open(slow, true).await {
                Ok((_, mut send)) => send.send_reset(Reason::CANCEL),
                Err(end) => error = Some(end),
            }
            tokio::task::yield_now().await;
        }
        let end = client.driver.await.unwrap().expect_err("it went on");
        assert_eq!(end.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error:?}");
        assert_eq!(other.get("/").await.text(), "hello");
    });
    wait_until("it to be counted", || closed(&server, "flood") == 1);
    server.stop();
}

#[test]
fn a_stream_that_is_not_read_harms_no_other() {
    let server = behave().http().start();
    run(async {
        let mut settings = h2::client::Builder::new();
        settings.initial_connection_window_size(1 << 20);
        let client = Http2::with(server.address(0), &settings).await;
        let page = request(Method::GET, "/stream?n=1000&size=10000");
        let (response, send) = client.open(page, true).await.unwrap();
        let unread = response.await.unwrap();
        for _ in 0..50 {
            assert_eq!(client.get("/").await.text(), "hello");
        }
        // What nobody reads waits with the worker.
        let queued: u64 = gannet_tests::server::rows(&server.control(&["clients", "--json"]).out)
            .iter()
            .filter_map(|row| row["queued"].as_u64())
            .sum();
        assert!(queued < 1 << 20, "{queued} bytes are queued");
        drop((unread, send));
        until(|| server.total("http2_open") == 0).await;
    });
    server.stop();
}

#[test]
fn streams_beyond_the_limit_of_the_server_are_refused() {
    let server = behave().set("max_streams", 1).http().start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        let gate = Gate::shut();
        let (slow, _send) = client.open(at_gate(&gate), true).await.unwrap();
        until(|| server.in_flight() == 1).await;
        let refused = client.ask(request(Method::GET, "/"), None).await;
        assert_eq!(refused.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
        gate.open();
        assert_eq!(reply(slow).await.unwrap().text(), "passed");
        assert_eq!(client.get("/").await.text(), "hello");
    });
    wait_until("it to be counted", || server.total("http2_refused") == 1);
    server.stop();
}

#[test]
fn trailers_go_both_ways() {
    let server = behave().http().start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        let page = request(Method::POST, "/trailers");
        let (response, mut send) = client.open(page, false).await.unwrap();
        send.send_data(Bytes::from_static(b"body"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        send.send_trailers(trailers.clone()).unwrap();
        let reply = reply(response).await.unwrap();
        assert_eq!(reply.text(), "body");
        assert_eq!(reply.trailers, Some(trailers));
    });
    server.stop();
}

#[test]
fn requests_are_what_they_would_be_over_http_1() {
    let server = behave()
        .http()
        .with("forwarded", "x-forwarded-for")
        .with("trusted_proxies", vec!["127.0.0.0/8"])
        .start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        assert_eq!(client.get("/host").await.text(), "test");
        let with = |path: &str, headers: &[(&'static str, &str)]| {
            let mut request = request(Method::GET, path);
            for (name, value) in headers {
                request.headers_mut().append(*name, value.parse().unwrap());
            }
            client.ask(request, None)
        };
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2")];
        let headers = with("/headers", &crumbs).await.unwrap();
        assert_eq!(headers.text(), "host: test\ncookie: a=1; b=2\n");
        let proxied = with("/client", &[("x-forwarded-for", "192.0.2.7")]).await;
        let proxied = proxied.unwrap();
        assert!(proxied.text().starts_with("192.0.2.7:0 via 127.0.0.1:"));
        let big = "x".repeat(20_000);
        let refused = with("/", &[("x-big", &big)]).await.unwrap();
        assert_eq!(refused.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let malformed = with("/", &[("host", "other")]).await;
        assert_eq!(
            malformed.unwrap_err().reason(),
            Some(Reason::PROTOCOL_ERROR)
        );
        assert_eq!(client.get("/").await.text(), "hello");
    });
    server.stop();
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let server = behave().http().with("max_body_size", 100_000).start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        let mut announced = request(Method::POST, "/echo");
        let length = "100001".parse().unwrap();
        announced.headers_mut().insert("content-length", length);
        let reply = client.ask(announced, Some(vec![0; 100_001].into())).await;
        assert_eq!(reply.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
        let unannounced = client.post("/echo", vec![0; 300_000]).await;
        assert_eq!(unannounced.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            client.post("/echo", vec![b'x'; 100_000]).await.body.len(),
            100_000
        );
    });
    server.stop();
}

#[test]
fn a_body_that_does_not_come_is_answered_with_408() {
    let server = behave().http().with("request_timeout_ms", 400).start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        let page = request(Method::POST, "/echo");
        let (response, mut send) = client.open(page, false).await.unwrap();
        send.send_data(Bytes::from_static(b"some"), false).unwrap();
        let reply = reply(response).await.unwrap();
        assert_eq!(reply.status, StatusCode::REQUEST_TIMEOUT);
    });
    server.stop();
}

#[test]
fn an_idle_connection_is_told_that_it_ends() {
    let server = behave().http().with("request_timeout_ms", 300).start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        // Longer than the time-out of an idle one.
        assert_eq!(client.get("/sleep?ms=700").await.text(), "slept");
        client
            .driver
            .await
            .unwrap()
            .expect("a goodbye in good order");
    });
    wait_until("it to be counted", || closed(&server, "idle") == 1);
    server.stop();
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn raw(address: SocketAddr, bytes: &[&[u8]]) -> TcpClient {
    let mut client = TcpClient::connect(address);
    client.send(bytes.concat());
    client
}

#[test]
fn settings_have_to_come_in_time() {
    let server = behave().http().with("request_timeout_ms", 300).start();
    let mut silent = raw(server.address(0), &[PREFACE]);
    let mut deaf = raw(server.address(0), &[PREFACE, SETTINGS]);
    for client in [&mut silent, &mut deaf] {
        let goaway = client.rest();
        assert!(goaway.windows(4).any(|it| it == [0, 0, 0, 4]), "{goaway:?}");
    }
    wait_until("they are counted", || closed(&server, "timeout") == 2);
    server.stop();
}

#[test]
fn frames_that_only_cost_work_are_a_flood() {
    let server = behave().http().with("max_control_rate", 100).start();
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
    let update = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let unknown = [0, 0, 0, 0x77, 0, 0, 0, 0, 0];
    for (n, frame) in [&ping[..], SETTINGS, &update, &unknown].iter().enumerate() {
        let flood = frame.repeat(300);
        let mut client = raw(server.address(0), &[PREFACE, SETTINGS, &flood]);
        let end = client.rest();
        let calm = end.windows(4).any(|it| it == [0, 0, 0, 0xb]);
        assert!(calm, "no ENHANCE_YOUR_CALM after flood {n}: {end:?}");
    }
    wait_until("they are counted", || closed(&server, "flood") == 4);
    assert_eq!(server.http().get("/").text(), "hello");
    server.stop();
}

#[test]
fn the_preface_may_come_byte_by_byte() {
    let server = behave().http().start();
    let mut client = TcpClient::connect(server.address(0));
    for byte in [PREFACE, SETTINGS].concat() {
        client.send([byte]);
    }
    wait_until("it to speak HTTP/2", || {
        server.total("http2_connections") == 1
    });
    // What only begins like it is HTTP/1.
    let all = server.total("bytes_in");
    let mut other = server.http();
    other.send("P");
    wait_until("its first byte to be there", || {
        server.total("bytes_in") == all + 1
    });
    other.send("UT /method HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(other.response().text(), "PUT");
    server.stop();
}

#[test]
fn the_preface_may_stand_behind_a_proxy_header_however_they_are_cut() {
    let server = required(behave().websocket()).start();
    let header: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";
    let page = headers(1, get("/client")).end_stream().bytes();
    let wire = [header, PREFACE, SETTINGS, &page].concat();
    let behind = header.len();
    for cut in [5, behind, behind + 1, behind + 23, behind + 24, behind + 30] {
        let before = server.total("bytes_in");
        let mut client = RawHttp2::silent(TcpClient::connect(server.address(0))).hold_windows();
        client.trust();
        client.send_preface(&wire[..cut]);
        wait_until("the first part", || {
            server.total("bytes_in") == before + cut as u64
        });
        client.send_preface(&wire[cut..]);
        let text = client.response(1).text().to_owned();
        assert!(text.contains("192.0.2.7"), "{cut}: {text}");
    }
    server.stop();
}

#[test]
fn it_can_be_switched_off() {
    let server = behave().http().with("http2", false).start();
    let mut client = raw(server.address(0), &[PREFACE, SETTINGS]);
    let answer = client.rest();
    assert!(answer.starts_with(b"HTTP/1.1 505 "), "{answer:?}");
    server.stop();
}
