//! CONNECT (8.5), and with a protocol (RFC 8441).

use gannet_tests::frames::{
    frame::headers,
    hpack::{Block, fields, get},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    let wrong = |section, rule, block: Block| {
        let frame = headers(1, block);
        row(section, rule).send(frame).malformed(1)
    };
    let method = (":method", "CONNECT");
    let protocol = (":protocol", "websocket");
    let scheme = (":scheme", "http");
    let path = (":path", "/");
    let authority = (":authority", "test");
    let version = ("sec-websocket-version", "13");
    vec![
        wrong(
            "8.5",
            "CONNECT with a scheme is malformed",
            fields(&[method, scheme, authority]),
        ),
        wrong(
            "8.5",
            "CONNECT with a path is malformed",
            fields(&[method, path, authority]),
        ),
        wrong(
            "8.5",
            "CONNECT with scheme and path is malformed",
            fields(&[method, scheme, path, authority]),
        ),
        wrong(
            "8.5",
            "CONNECT without an authority is malformed",
            fields(&[method]),
        ),
        wrong(
            "8.5",
            "CONNECT with an authority is refused: this is no proxy",
            fields(&[method, (":authority", "test:80")]),
        ),
        wrong(
            "RFC 8441 4",
            "a protocol without CONNECT is malformed",
            get("/").field(":protocol", "websocket"),
        ),
        wrong(
            "RFC 8441 4",
            "CONNECT with a protocol and no path is malformed",
            fields(&[method, protocol, scheme, authority, version]),
        ),
        wrong(
            "RFC 8441 4",
            "CONNECT with a protocol and no scheme is malformed",
            fields(&[method, protocol, path, authority, version]),
        ),
        wrong(
            "RFC 8441 4",
            "CONNECT with a protocol twice is malformed",
            fields(&[method, protocol, protocol, scheme, path, authority, version]),
        ),
        wrong(
            "RFC 8441 4",
            "CONNECT with an empty protocol is malformed",
            fields(&[method, (":protocol", ""), scheme, path, authority, version]),
        ),
        wrong(
            "RFC 8441 4",
            "a protocol behind a field is malformed",
            fields(&[method, scheme, path, authority, version, protocol]),
        ),
    ]
}
