//! Compression of the socket, which has to be turned on.

use std::io::{Read, Write};

use crate::kit::Server;

#[test]
fn the_socket_is_compressed_only_where_that_was_asked_for() {
    assert!(!agreed(&Server::start()));
    assert!(agreed(&Server::start_with(&["--compression"])));
}

/// Whether the hub agrees to compress for a client that offers it, as browsers do.
fn agreed(server: &Server) -> bool {
    let mut stream = server.connect();
    let request = format!(
        "GET /v1/socket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        server.address
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    head.to_ascii_lowercase()
        .contains("sec-websocket-extensions: permessage-deflate")
}
