//! Programs that push over HTTP.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;

use crate::kit::{PATIENCE, Server};

const MESSAGES: &str = "/v1/messages";

#[test]
fn a_program_pushes_to_a_channel_and_to_a_user() {
    let server = Server::start();
    let key = server.key();
    let mut ann = server.client("ann");
    ann.sub("room");
    let post = |body| server.http(MESSAGES, Some(&key), Some(&body));

    let (status, accepted) = post(json!({"to": "channel:room", "data": {"text": "news"}}));
    assert_eq!((status, &accepted["offset"]), (202, &json!(1)));
    let heard = ann.push("msg");
    assert_eq!(
        (&heard["id"], &heard["data"]["text"]),
        (&accepted["id"], &json!("news"))
    );

    let (status, accepted) = post(json!({"to": "user:ann", "event": "bill", "data": 7}));
    assert_eq!((status, &accepted["reached"]), (202, &json!(1)));
    let heard = ann.push("msg");
    assert_eq!(
        (&heard["user"], &heard["event"], &heard["data"]),
        (&json!("ann"), &json!("bill"), &json!(7))
    );

    let (status, history) = server.http("/v1/channels/room/history", Some(&key), None);
    assert_eq!(
        (status, history["messages"].as_array().unwrap().len()),
        (200, 1)
    );
    let (status, presence) = server.http("/v1/channels/room/presence", Some(&key), None);
    assert_eq!(
        (status, presence),
        (
            200,
            json!({"channel": "room", "users": ["ann"], "count": 1})
        )
    );
}

#[test]
fn what_is_pushed_is_counted() {
    let server = Server::start();
    let key = server.key();
    let _ann = server.client("ann");
    for _ in 0..2 {
        let body = json!({"to": "channel:room", "key": "once", "data": 1});
        assert!(server.http(MESSAGES, Some(&key), Some(&body)).0 < 300);
    }
    let admin = server.status()["admin"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    for line in [
        "hub_hellos_total 1",
        "hub_messages_total 2",
        "hub_repeats_total 1",
    ] {
        assert!(page.lines().any(|one| one == line), "no {line}: {page}");
    }
}

#[test]
fn nobody_pushes_without_the_key() {
    let server = Server::start();
    let body = json!({"to": "user:ann", "data": 1});
    for key in [None, Some("wrong")] {
        let (status, error) = server.http(MESSAGES, key, Some(&body));
        assert_eq!(
            (status, &error["error"]["code"]),
            (401, &json!("unauthorized"))
        );
    }
    let (status, error) = server.http(MESSAGES, Some(&server.key()), Some(&json!({"data": 1})));
    assert_eq!(
        (status, &error["error"]["code"]),
        (422, &json!("bad_request"))
    );
}

#[test]
fn large_pushes_are_taken_up_to_the_limit() {
    let server = Server::start();
    let key = server.key();
    let post = |bytes: usize| {
        let body = json!({"to": "channel:room", "data": "x".repeat(bytes)});
        server.http(MESSAGES, Some(&key), Some(&body)).0
    };
    assert_eq!(post(65_000), 202);
    assert_eq!(post(66_000), 413);
    assert_eq!(post(600_000), 413);
}

#[test]
fn the_page_is_served_to_everyone() {
    let server = Server::start();
    let (status, page) = server.http_text("/", None, None);
    assert_eq!(status, 200);
    assert!(page.contains("<title>Gannet</title>"));
    assert_eq!(
        server.http_text("/healthz", None, None),
        (200, String::from("ok\n"))
    );
    assert_eq!(server.http("/nothing", None, None).0, 404);
}
