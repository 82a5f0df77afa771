//! The opening handshake (RFC 6455 section 4.2): each form of the request with its one answer.

use gannet_tests::{http::HttpClient, server::Server};

use crate::behave;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[test]
fn what_follows_the_rules_is_accepted() {
    let server = server();
    let key = format!("Sec-WebSocket-Key: {KEY}");
    for lines in [
        vec!["Upgrade: websocket", "Connection: Upgrade", &key, VERSION],
        vec![
            "upgrade: WebSocket",
            "connection: keep-alive, UPGRADE",
            &key,
            VERSION,
        ],
        vec![
            "Upgrade: h2c, websocket",
            "Connection: x",
            "Connection: upgrade",
            &key,
            VERSION,
        ],
        vec![
            "UPGRADE: websocket",
            "CONNECTION: upgrade",
            &key,
            VERSION,
            "Content-Length: 0",
        ],
        vec![
            "Upgrade: websocket",
            "Connection: Upgrade",
            &key,
            VERSION,
            PROTOCOLS,
        ],
        vec![
            "Upgrade: websocket",
            "Connection: Upgrade",
            &key,
            VERSION,
            EXTENSIONS,
        ],
        vec![
            "Upgrade: websocket",
            "Connection: Upgrade",
            &key,
            VERSION,
            "Origin: null",
        ],
    ] {
        let mut client = open(&server, "GET / HTTP/1.1", &lines);
        let response = client.head();
        assert_eq!(response.status, 101, "{lines:?}");
        // What was not asked for, or is not known, is not agreed to.
        assert_eq!(response.header("sec-websocket-protocol"), None);
        assert_eq!(response.header("sec-websocket-extensions"), None);
    }
    server.stop();
}

#[test]
fn what_breaks_a_rule_is_refused_and_no_handler_sees_it() {
    let server = server();
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let [upgrade, connection] = ["Upgrade: websocket", "Connection: Upgrade"];
    let keys: Vec<String> = [
        "",
        "short",
        // 15 and 17 bytes, no base64, base64 that is not the one form of its bytes.
        "dGhlIHNhbXBsZSBub24=",
        "dGhlIHNhbXBsZSBub25jZTE=",
        "dGhlIHNhbXBsZSBub25jZQ=!",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25j ZQ==",
    ]
    .map(|key| format!("Sec-WebSocket-Key: {key}"))
    .to_vec();
    let get = "GET / HTTP/1.1";
    let mut rows = vec![
        (
            400,
            "POST / HTTP/1.1",
            vec![upgrade, connection, &key, VERSION],
        ),
        (
            400,
            "HEAD / HTTP/1.1",
            vec![upgrade, connection, &key, VERSION],
        ),
        (
            400,
            "GET / HTTP/1.0",
            vec![upgrade, connection, &key, VERSION],
        ),
        (400, get, vec![upgrade, &key, VERSION]),
        (
            400,
            get,
            vec![upgrade, "Connection: keep-alive", &key, VERSION],
        ),
        (
            400,
            get,
            vec![upgrade, "Connection: upgraded", &key, VERSION],
        ),
        (400, get, vec![upgrade, connection, VERSION]),
        (400, get, vec![upgrade, connection, &key, &key, VERSION]),
        (426, get, vec![upgrade, connection, &key]),
        (
            426,
            get,
            vec![upgrade, connection, &key, "Sec-WebSocket-Version: 12"],
        ),
        (
            426,
            get,
            vec![upgrade, connection, &key, "Sec-WebSocket-Version: 8, 13"],
        ),
        (
            426,
            get,
            vec![upgrade, connection, &key, "Sec-WebSocket-Version: 013"],
        ),
        (426, get, vec![upgrade, connection, &key, VERSION, VERSION]),
        (
            400,
            get,
            vec![upgrade, connection, &key, VERSION, "Content-Length: 5"],
        ),
        (
            400,
            get,
            vec![
                upgrade,
                connection,
                &key,
                VERSION,
                "Transfer-Encoding: chunked",
            ],
        ),
        (
            400,
            get,
            vec![
                upgrade,
                connection,
                &key,
                VERSION,
                "Sec-WebSocket-Protocol: a, a",
            ],
        ),
        (
            400,
            get,
            vec![
                upgrade,
                connection,
                &key,
                VERSION,
                "Sec-WebSocket-Protocol: a b",
            ],
        ),
        (
            400,
            get,
            vec![
                upgrade,
                connection,
                &key,
                VERSION,
                "Sec-WebSocket-Protocol:",
            ],
        ),
        (
            400,
            get,
            vec![
                upgrade,
                connection,
                &key,
                VERSION,
                "Sec-WebSocket-Extensions: a;",
            ],
        ),
        (
            400,
            get,
            vec![
                upgrade,
                connection,
                &key,
                VERSION,
                "Sec-WebSocket-Extensions: ;",
            ],
        ),
    ];
    for key in &keys {
        rows.push((400, get, vec![upgrade, connection, key, VERSION]));
    }
    for (status, line, lines) in rows {
        let mut client = open(&server, line, &lines);
        let response = client.head();
        assert_eq!(response.status, status, "{line} {lines:?}");
        assert!(!response.keeps_alive());
        if status == 426 {
            assert_eq!(response.header("sec-websocket-version"), Some("13"));
            assert_eq!(response.header("upgrade"), Some("websocket"));
        }
    }
    assert_eq!(server.events(), 0, "a handler has seen something");
    server.stop();
}

#[test]
fn what_asks_for_another_protocol_is_a_request() {
    let server = server();
    for lines in [
        vec!["Upgrade: h2c", "Connection: Upgrade"],
        vec!["Upgrade: websockets", "Connection: Upgrade"],
        vec!["Connection: Upgrade", VERSION],
        vec![VERSION],
    ] {
        let mut client = open(&server, "GET / HTTP/1.1", &lines);
        assert_eq!(client.response().text(), "hello", "{lines:?}");
    }
    server.stop();
}

fn open(server: &Server, line: &str, headers: &[&str]) -> HttpClient {
    let mut client = HttpClient::connect(server.address_of("websocket"));
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{line}\r\nHost: test\r\n{headers}\r\n"));
    client
}

fn server() -> Server {
    behave().websocket().start()
}

const VERSION: &str = "Sec-WebSocket-Version: 13";
const PROTOCOLS: &str = "Sec-WebSocket-Protocol: chat.v1, chat.v2";
const EXTENSIONS: &str = "Sec-WebSocket-Extensions: permessage-deflate, x-other; a=\"b\"";
