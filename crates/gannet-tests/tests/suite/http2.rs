//! HTTP/2: streams are connections like others.

use std::process::Command;

use bytes::Bytes;
use gannet_tests::{
    http2::{Http2, reply, request, run, until},
    server::Server,
    tls::{Client, Keys},
    wait::wait_until,
};
use http::{Method, StatusCode};

use crate::behave;

fn count(server: &Server, name: &str) -> u64 {
    server.status()["totals"][name].as_u64().unwrap()
}

#[test]
fn requests_of_a_connection_are_answered_at_the_same_time() {
    let server = behave().set("workers", 2).http().start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        // The first is not complete before those behind it are answered.
        let first = request(Method::POST, "/echo");
        let (response, mut upload) = client.open(first, false).await.unwrap();
        for n in 0..50 {
            let body = n.to_string();
            assert_eq!(client.post("/echo", body.clone()).await.text(), body);
        }
        upload.send_data(Bytes::from_static(b"last"), true).unwrap();
        assert_eq!(reply(response).await.unwrap().text(), "last");
        assert_eq!(client.get("/http-version").await.text(), "HTTP/2.0");
        let page = client.get("/").await;
        assert_eq!(page.header("content-length"), Some("5"));
        assert!(page.header("date").is_some_and(|it| it.ends_with(" GMT")));
    });
    server.stop();
}

#[test]
fn streams_go_to_several_workers() {
    let server = behave().set("workers", 2).http().start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        // While one is open, the next goes to the emptier worker.
        let open = request(Method::POST, "/echo");
        let (response, mut upload) = client.open(open, false).await.unwrap();
        until(|| count(&server, "http2_open") == 1).await;
        let first = client.get("/worker").await.text().to_owned();
        upload.send_data(Bytes::new(), true).unwrap();
        assert_eq!(reply(response).await.unwrap().text(), "");
        until(|| count(&server, "http2_open") == 0).await;
        let second = client.get("/worker").await.text().to_owned();
        assert_ne!(first, second);
    });
    server.stop();
}

#[test]
fn ten_thousand_requests_of_one_connection_leave_nothing() {
    let server = behave().set("workers", 2).http().start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        for _ in 0..100 {
            let mut all = Vec::new();
            for _ in 0..100 {
                let (response, _) = client.open(request(Method::GET, "/"), true).await.unwrap();
                all.push(response);
            }
            for response in all {
                assert_eq!(reply(response).await.unwrap().status, StatusCode::OK);
            }
        }
        until(|| count(&server, "http2_open") == 0).await;
        until(|| count(&server, "http2_streams") == 10_000).await;
        assert_eq!(count(&server, "connections"), 1);
    });
    wait_until("nothing is open", || count(&server, "connections") == 0);
    server.stop();
}

#[test]
fn bodies_stream_both_ways() {
    let server = behave().set("workers", 2).http().start();
    let body: Vec<u8> = (0..5_000_000u32).map(|n| (n * 7) as u8).collect();
    run(async {
        let mut settings = h2::client::Builder::new();
        settings.initial_window_size(1_000);
        for client in [
            Http2::connect(server.address(0)).await,
            Http2::with(server.address(0), &settings).await,
        ] {
            let reply = client.post("/pipe", body.clone()).await;
            assert!(reply.body == body);
        }
    });
    server.stop();
}

#[test]
fn the_head_alone_is_asked_for_and_no_content_has_none() {
    let server = behave().http().start();
    run(async {
        let client = Http2::connect(server.address(0)).await;
        let head = client.ask(request(Method::HEAD, "/"), None).await.unwrap();
        assert_eq!(head.header("content-length"), Some("5"));
        assert!(head.body.is_empty());
        let empty = client.get("/empty").await;
        assert_eq!(empty.status, StatusCode::NO_CONTENT);
        assert_eq!(empty.header("content-length"), None);
        let ignored = client.post("/ignore-body", Bytes::from_static(b"x")).await;
        assert_eq!(ignored.text(), "ignored");
    });
    server.stop();
}

#[test]
fn it_is_chosen_by_alpn() {
    let keys = Keys::default();
    let server = keys.serve(behave().http()).start();
    let client = Client::with(&keys.authority, None, rustls::ALL_VERSIONS, &["h2"]);
    let entry = client.tunnel(server.address(0));
    run(async {
        let client = Http2::connect(entry).await;
        assert_eq!(client.get("/http-version").await.text(), "HTTP/2.0");
        let body = vec![b'x'; 1 << 20];
        assert!(client.post("/echo", body.clone()).await.body == body);
    });
    server.stop();
}

#[test]
fn curl_speaks_it() {
    let server = behave().http().start();
    let url = format!("http://{}/http-version", server.address(0));
    for (how, version) in [("--http2-prior-knowledge", "HTTP/2.0"), ("-4", "HTTP/1.1")] {
        let out = Command::new("curl").args(["-sS", how, &url]).output();
        assert_eq!(String::from_utf8_lossy(&out.unwrap().stdout), version);
    }
    server.stop();
}
