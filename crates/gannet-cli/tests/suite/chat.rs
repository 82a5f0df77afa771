//! People talking.

use serde_json::json;

use crate::kit::{Server, places, say};

#[test]
fn two_users_chat() {
    let server = Server::start();
    let mut ann = server.client("ann");
    let mut bob = server.client("bob");
    ann.sub("room");
    assert_eq!(bob.sub("room")["users"], json!(["ann", "bob"]));
    let said = ann.say("room", "hi bob");
    let heard = bob.push("msg");
    assert_eq!(
        (&heard["id"], &heard["offset"], &heard["from"]),
        (&said["id"], &json!(1), &json!("ann"))
    );
    bob.say("room", "hi ann");
    assert_eq!(
        ann.line(|line| line["op"] == "msg" && line["from"] == "bob")["data"],
        "hi ann"
    );
    let history = ann.ok(json!({"op": "history", "channel": "room"}));
    assert_eq!(
        places(&history["messages"]),
        [(1, "hi bob".into()), (2, "hi ann".into())]
    );
}

#[test]
fn history_survives_a_restart() {
    let server = Server::start();
    let mut ann = server.client("ann");
    let epoch = ann.sub("room")["epoch"].clone();
    for text in ["1", "2", "3"] {
        ann.say("room", text);
    }
    let server = server.restart();
    assert!(ann.is_closed() || ann.is_closed());
    let mut ann = server.client("ann");
    let since = json!({"epoch": epoch, "offset": 1});
    let sub = ann.ok(json!({"op": "sub", "channel": "room", "since": since}));
    assert_eq!(places(&sub["messages"]), [(2, "2".into()), (3, "3".into())]);
    assert_eq!(
        (&sub["gap"], &sub["users"]),
        (&json!(false), &json!(["ann"]))
    );
    assert_eq!(
        ann.say("room", "2")["offset"],
        2,
        "a repeat after the restart"
    );
}

#[test]
fn a_message_said_twice_is_stored_once() {
    let server = Server::start();
    let mut ann = server.client("ann");
    let first = ann.say("room", "x");
    assert_eq!(ann.say("room", "x"), first);
    let mut same_device = server.client("ann");
    assert_eq!(same_device.say("room", "x"), first);
    let history = ann.ok(json!({"op": "history", "channel": "room"}));
    assert_eq!(places(&history["messages"]), [(1, "x".into())]);
}

#[test]
fn who_vanishes_is_not_there_any_more() {
    let server = Server::start();
    let mut ann = server.client("ann");
    ann.sub("room");
    ann.push("join");
    let mut tab = server.client("bob");
    let mut other_tab = server.client("bob");
    tab.sub("room");
    other_tab.sub("room");
    assert_eq!(ann.push("join")["user"], "bob");
    tab.vanish();
    other_tab.vanish();
    assert_eq!(ann.push("leave")["user"], "bob");
    let presence = ann.ok(json!({"op": "presence", "channel": "room"}));
    assert_eq!(presence["users"], json!(["ann"]));
}

#[test]
fn mistakes_are_told_and_forgiven() {
    let server = Server::start();
    let mut nobody = server.socket();
    assert_eq!(nobody.ask(say("room", "x"))["err"]["code"], "hello_first");
    let mut ann = server.client("ann");
    assert_eq!(ann.ask(json!({"op": "dance"}))["err"]["code"], "unknown_op");
    assert_eq!(ann.ask(json!({"op": "sub"}))["err"]["code"], "bad_request");
    let large = "x".repeat(70_000);
    assert_eq!(ann.ask(say("room", &large))["err"]["code"], "too_long");
    ann.sub("room");
}

#[test]
fn pages_of_other_sites_are_refused() {
    let server = Server::start();
    let handshake = |path: &str, origin: &str| {
        let request = tungstenite::http::Request::get(format!("ws://{}{path}", server.address))
            .header("Host", &server.address)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header(
                "Sec-WebSocket-Key",
                tungstenite::handshake::client::generate_key(),
            )
            .header("Origin", origin)
            .body(())
            .unwrap();
        let stream = std::net::TcpStream::connect(&server.address).unwrap();
        match tungstenite::client(request, stream) {
            Ok(_) => 101,
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                response.status().as_u16()
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(
        handshake("/v1/socket", &format!("http://{}", server.address)),
        101
    );
    assert_eq!(handshake("/v1/socket", "https://evil.example"), 403);
    assert_eq!(handshake("/", &format!("http://{}", server.address)), 404);
}
