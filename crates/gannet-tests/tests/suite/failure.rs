//! Handlers that fail: the client is told, and nobody else notices.

use gannet_tests::websocket::Frame;

use crate::behave;

#[test]
fn a_panic_ends_the_connection_and_spares_the_worker() {
    let server = behave().set("workers", 1).tcp().websocket().http().start();
    let mut other = server.websocket();
    let pid = other.ask("pid");

    let mut websocket = server.websocket();
    websocket.send("panic on purpose");
    websocket.expect_close(1011);
    let mut tcp = server.tcp();
    tcp.send("panic on purpose\n");
    tcp.expect_closed();
    let mut http = server.http();
    assert_eq!(http.get("/panic").status, 500);

    assert_eq!(other.ask("pid"), pid, "the worker was lost");
    server.expect_log("on purpose");
    server.stop();
}

#[test]
fn an_error_ends_the_connection_and_is_logged() {
    let server = behave().tcp().websocket().http().start();
    let mut websocket = server.websocket();
    websocket.send("error out of cheese");
    match websocket.message() {
        // What went wrong is for the log, not for the client.
        Frame::Close(Some((1011, reason))) => assert!(!reason.contains("cheese"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let mut tcp = server.tcp();
    tcp.send("error\n");
    tcp.expect_closed();
    let mut http = server.http();
    let response = http.get("/error");
    assert_eq!(response.status, 500);
    assert!(!response.text().contains("as asked"), "{}", response.text());
    if response.keeps_alive() {
        assert_eq!(http.get("/").text(), "hello");
    }
    server.expect_log("out of cheese");
    server.stop();
}

#[test]
fn a_worker_that_exits_is_replaced() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = server.websocket();
    let pid = client.ask("pid");
    let mut other = server.websocket();
    assert_eq!(other.ask("abort-once x"), "survived x");
    assert_ne!(client.ask("pid"), pid);
    server.stop();
}
