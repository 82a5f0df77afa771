//! What happens to the event that a worker dies with.

use std::fs;

use gannet_tests::{
    process,
    server::{Server, Spec},
    wait::wait_until,
};
use tempfile::NamedTempFile;

use crate::behave;

#[test]
fn a_message_is_handled_again_and_marked() {
    let server = behave().set("workers", 1).tcp().websocket().start();
    let mut websocket = server.websocket();
    assert_eq!(websocket.ask("redelivered"), "false");
    assert_eq!(websocket.ask("abort-once 1"), "survived 1");
    let mut tcp = server.tcp();
    assert_eq!(tcp.ask("abort-once 2"), "survived 2");
    assert_eq!(websocket.ask("redelivered"), "false");
    server.stop();
}

#[test]
fn messages_behind_a_crash_keep_their_order() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = server.websocket();
    client.send("#1");
    client.send("abort-once 2");
    for n in 3..20 {
        client.send(format!("#{n}"));
    }
    assert_eq!(client.text(), "#1");
    assert_eq!(client.text(), "survived 2");
    for n in 3..20 {
        assert_eq!(client.text(), format!("#{n}"));
    }
    server.stop();
}

#[test]
fn a_message_that_killed_three_workers_is_dropped_and_its_client_told() {
    let (server, runs) = counting(behave().set("workers", 1).websocket());
    let (mut poisonous, mut innocent) = (server.websocket(), server.websocket());
    let pid = server.worker_of_use(0).to_string();
    assert_eq!(innocent.ask("pid"), pid);
    poisonous.send("abort");
    poisonous.expect_close(1012);
    assert_eq!(
        fs::read_to_string(runs.path()).unwrap(),
        "abort\n".repeat(3)
    );
    assert_ne!(innocent.ask("pid"), pid);
    assert_eq!(innocent.ask("echo unharmed"), "unharmed");
    wait_until("each successor to be told of", || {
        let log = server.log();
        log.matches("its successor starts at once").count() == 3
    });
    server.stop();
}

#[test]
fn without_redelivery_the_client_is_told() {
    let spec = behave()
        .set("workers", 1)
        .websocket()
        .with("redeliver", false);
    let (server, runs) = counting(spec);
    let (mut client, mut idle) = (server.websocket(), server.websocket());
    assert_eq!(idle.ask("echo 1"), "1");
    client.send("abort");
    client.expect_close(1012);
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "abort\n");
    assert_eq!(idle.ask("echo unharmed"), "unharmed");
    server.stop();
}

#[test]
fn an_idempotent_request_runs_again() {
    let (server, runs) = counting(behave().set("workers", 1).http());
    let mut client = server.http();
    let response = client.get("/mark/get?then=abort-once");
    assert_eq!((response.status, response.text()), (200, "marked true"));
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "get\nget\n");
    assert_eq!(client.get("/").text(), "hello");
    server.stop();
}

#[test]
fn requests_pipelined_behind_a_crash_are_answered_in_order_and_a_post_runs_once() {
    let (server, runs) = counting(behave().set("workers", 1).http());
    let mut client = server.http();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes();
    let mut all = get("/mark/before");
    all.extend(get("/mark/fatal?then=abort-once"));
    all.extend(get("/big?n=3"));
    all.extend(get("/big?n=4"));
    all.extend(post("/mark/post"));
    all.extend(get("/big?n=5"));
    client.send(all);
    assert!(client.response().text().starts_with("marked"));
    assert_eq!(client.response().text(), "marked true");
    assert_eq!(client.response().text(), "bbb");
    assert_eq!(client.response().text(), "bbbb");
    assert_eq!(client.response().text(), "marked false");
    assert_eq!(client.response().text(), "bbbbb");
    let runs = fs::read_to_string(runs.path()).unwrap();
    let of = |name: &str| runs.lines().filter(|line| *line == name).count();
    assert_eq!((of("fatal"), of("post")), (2, 1), "{runs}");
    server.stop();
}

#[test]
fn a_request_that_killed_three_workers_is_answered_with_502() {
    let (server, runs) = counting(behave().set("workers", 1).http());
    let mut client = server.http();
    assert_eq!(client.get("/mark/poison?then=abort").status, 502);
    assert_eq!(
        fs::read_to_string(runs.path()).unwrap(),
        "poison\n".repeat(3)
    );
    assert_eq!(server.http().get("/").text(), "hello");
    server.stop();
}

#[test]
fn a_post_that_began_is_answered_with_502_and_never_run_twice() {
    let (server, runs) = counting(behave().set("workers", 1).http());
    let mut client = server.http();
    let response = client.post("/mark/post?then=abort", "body");
    assert_eq!(response.status, 502);
    if response.keeps_alive() {
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!(server.http().get("/").text(), "hello");
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "post\n");
    server.stop();
}

#[test]
fn a_post_that_had_not_begun_runs_on_the_successor() {
    let (server, runs) = counting(behave().set("workers", 1).http());
    let (mut first, mut second) = (server.http(), server.http());
    let pid: u32 = first.get("/pid").text().parse().unwrap();
    assert_eq!(second.get("/").text(), "hello");
    first.send(post("/mark/first?then=block&ms=60000"));
    wait_until("the first to begin", || {
        fs::read_to_string(runs.path()).unwrap() == "first\n"
    });
    // The only worker is busy: this one waits in its ring.
    let events = server.events();
    second.send(post("/mark/second"));
    wait_until("the second to be in the ring", || server.events() > events);
    process::kill(pid);
    assert_eq!(first.response().status, 502);
    let response = second.response();
    assert_eq!(response.status, 200);
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "first\nsecond\n");
    server.stop();
}

#[test]
fn a_response_that_had_begun_is_cut_when_its_worker_dies() {
    let server = behave().set("workers", 1).http().start();
    let mut client = server.http();
    let pid: u32 = client.get("/pid").text().parse().unwrap();
    client.send("GET /stream?n=1000&size=100&ms=100 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert!(client.chunk().is_some());
    process::kill(pid);
    // Whatever was on its way, the body has no end: nobody takes it for whole.
    let rest = client.rest();
    assert!(
        !rest.ends_with(b"0\r\n\r\n"),
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
    assert_eq!(server.http().get("/").text(), "hello");
    server.stop();
}

#[test]
fn an_upload_under_way_is_answered_when_its_worker_dies() {
    let (server, runs) = counting(behave().set("workers", 1).http());
    let mut client = server.http();
    let pid: u32 = client.get("/pid").text().parse().unwrap();
    // More than a reactor keeps back to hand over as a whole.
    client.send(
        "POST /mark/upload?then=read HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n",
    );
    client.send([b'x'; 100_000]);
    wait_until("the handler to run", || {
        fs::read_to_string(runs.path()).unwrap() == "upload\n"
    });
    process::kill(pid);
    assert_eq!(client.response().status, 502);
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "upload\n");
    assert_eq!(server.http().get("/").text(), "hello");
    server.stop();
}

/// Starts a server that notes what its handlers begin.
fn counting(spec: Spec) -> (Server, NamedTempFile) {
    let runs = NamedTempFile::new().unwrap();
    (
        spec.env("BEHAVE_RUNS", runs.path().display().to_string())
            .start(),
        runs,
    )
}

fn post(path: &str) -> Vec<u8> {
    gannet_tests::http::post(path, b"body")
}
