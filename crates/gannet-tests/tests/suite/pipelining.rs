//! Requests that a client sends without waiting for the answers to those before.

use gannet_tests::{
    gate::Gate,
    http::{HttpClient, post},
    process::Signal,
    server::Server,
    wait::wait_until,
};

use crate::behave;

#[test]
fn requests_that_change_nothing_are_handed_over_behind_one_another() {
    let server = behave().set("workers", 1).http().start();
    let before = server.events();
    let mut client = endless(&server);
    client.send(get("/").repeat(40));
    // None of them can have an answer before the first, which never ends.
    wait_until("sixteen events", || server.events() == before + 16);
    assert_eq!(server.http().get("/").text(), "hello");
    wait_until("the other's event", || server.events() == before + 17);
    drop(client);
    wait_until("its end", || server.connections() == 0);
    assert_eq!(server.http().get("/").text(), "hello");
    server.stop();
}

#[test]
fn max_in_flight_bounds_how_many_are_handed_over() {
    let server = behave()
        .set("workers", 1)
        .set("max_in_flight", 3)
        .http()
        .start();
    let before = server.events();
    let mut client = endless(&server);
    client.send(get("/").repeat(9));
    wait_until("three events", || server.events() == before + 3);
    assert_eq!(server.http().get("/").text(), "hello");
    wait_until("the other's event", || server.events() == before + 4);
    server.stop();
}

#[test]
fn what_changes_something_waits_for_all_in_front_of_it() {
    for second in [
        post("/echo", b"body"),
        get("/").replace("GET", "DELETE").into_bytes(),
        // These change nothing, but something about the connection.
        get("/").replace("HTTP/1.1", "HTTP/1.0").into_bytes(),
        get("/")
            .replace("Host", "Connection: close\r\nHost")
            .into_bytes(),
    ] {
        let server = behave().set("workers", 1).http().start();
        let before = server.events();
        let mut client = endless(&server);
        let stalls = server.total("stalls");
        client.send(&second);
        client.send(get("/"));
        wait_until("it to wait", || server.total("stalls") > stalls);
        assert_eq!(server.http().get("/").text(), "hello");
        wait_until("the other's event", || server.events() == before + 2);
        server.stop();
    }
}

#[test]
fn each_has_the_answer_that_its_method_asks_for() {
    let server = behave().http().start();
    let mut client = server.http();
    let head = get("/big?n=5").replace("GET", "HEAD");
    client.send(
        [
            get("/sleep?ms=20"),
            head,
            get("/"),
            get("/empty"),
            get("/no"),
        ]
        .concat(),
    );
    assert_eq!(client.response().text(), "slept");
    let head = client.head();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("5"))
    );
    assert_eq!(client.response().text(), "hello");
    assert_eq!(client.response().status, 204);
    assert_eq!(client.response().status, 404);
    server.stop();
}

#[test]
fn streams_are_answered_in_order_too() {
    let server = behave().http().start();
    let mut client = server.http();
    let stream = get("/stream?n=3&size=4&ms=5");
    client.send(
        [
            get("/sleep?ms=20"),
            stream.clone(),
            get("/"),
            stream,
            get("/"),
        ]
        .concat(),
    );
    let answers: Vec<_> = (0..5)
        .map(|_| client.response().text().to_owned())
        .collect();
    let streamed = "0 ss1 ss2 ss";
    assert_eq!(answers, ["slept", streamed, "hello", streamed, "hello"]);
    server.stop();
}

#[test]
fn a_handler_that_fails_ends_the_connection_behind_its_own_answer() {
    for fails in ["/error", "/panic"] {
        let server = behave().http().start();
        let mut client = server.http();
        client.send([get("/sleep?ms=20"), get(fails), get("/"), get("/")].concat());
        assert_eq!(client.response().text(), "slept");
        assert_eq!(client.response().status, 500);
        client.expect_closed();
        assert_eq!(server.http().get("/").text(), "hello");
        server.stop();
    }
}

#[test]
fn a_client_that_sends_no_more_gets_all_its_answers() {
    let server = behave().http().start();
    let mut client = server.http();
    client.send(get("/sleep?ms=20"));
    client.send(get("/").repeat(50));
    client.tcp().finish();
    assert_eq!(client.response().text(), "slept");
    for _ in 0..50 {
        assert_eq!(client.response().text(), "hello");
    }
    client.expect_closed();
    server.stop();
}

#[test]
fn a_stop_answers_what_was_handed_over_and_says_close_on_the_last() {
    let mut server = behave().set("workers", 1).http().start();
    let before = server.events();
    let mut client = server.http();
    let mut idle = server.http();
    let gate = Gate::shut();
    let first = get(&format!("/gate?file={}", gate.path()));
    client.send([first, get("/"), get("/")].concat());
    wait_until("three events", || server.events() == before + 3);
    server.signal(Signal::TERM);
    // The stop has begun.
    idle.expect_closed();
    gate.open();
    let (first, second, third) = (client.response(), client.response(), client.response());
    assert_eq!(
        [first.text(), second.text(), third.text()],
        ["passed", "hello", "hello"]
    );
    assert!(third.header("connection").is_some_and(|it| it == "close"));
    client.expect_closed();
    server.expect_exit(0);
}

/// A client whose first request has an answer without end.
fn endless(server: &Server) -> HttpClient {
    let mut client = server.http();
    client.send(get("/stream?n=1000000&size=1&ms=100"));
    assert_eq!(client.head().status, 200);
    client
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}
