//! HTTP/2 frame by frame: what RFC 9113 (sections 3 to 8), RFC 7541 and RFC 8441 demand of a server, as
//! a table. Every row is played over cleartext, with prior knowledge, and over TLS.
//!
//! Where the standard leaves a choice, a row allows what it allows. It says that an end of the connection
//! without GOAWAY is no error either; this server always says why.

mod bodies;
mod connect;
mod fields;
mod flow;
mod frames;
mod hpack;
mod preface;
mod pseudo;
mod settings;
mod streams;

use std::panic::{AssertUnwindSafe, catch_unwind};

use gannet_tests::{
    frames::{RawHttp2, row::Row},
    http::HttpClient,
    server::Spec,
    tcp::TcpClient,
    tls::{Client, Keys},
};

use crate::behave;

#[test]
fn connections_begin_as_they_must() {
    play(&preface::rows());
}

/// Over cleartext it is a request of HTTP/1, of a version that nobody knows.
#[test]
fn a_wrong_preface_is_refused() {
    let keys = Keys::default();
    let server = keys.serve(behave().websocket().websocket()).start();
    let tls = Client::with(&keys.authority, None, rustls::ALL_VERSIONS, &["h2"]);
    for wrong in [
        b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX\0\0\0\x04\0\0\0\0\0",
        b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let mut client = HttpClient::connect(server.address(0));
        client.send(wrong);
        let status = client.response().status;
        assert!([400, 505].contains(&status), "{status}");
        client.tcp().expect_end();
        let mut client = RawHttp2::silent(TcpClient::connect(tls.tunnel(server.address(1))));
        client.send_preface(wrong);
        let farewell = client.farewell();
        assert!(farewell.is_none_or(|(code, _)| code == 1), "another code");
    }
    server.stop();
}

#[test]
fn frames_have_their_form() {
    play(&frames::rows());
}

#[test]
fn streams_have_states_and_numbers() {
    play(&streams::rows());
}

#[test]
fn settings_hold() {
    play(&settings::rows());
}

#[test]
fn windows_are_kept() {
    play(&flow::rows());
}

#[test]
fn field_blocks_are_decoded_or_refused() {
    play(&hpack::rows());
}

#[test]
fn fields_are_judged() {
    play(&fields::rows());
}

#[test]
fn pseudo_headers_are_judged() {
    play(&pseudo::rows());
}

#[test]
fn bodies_and_trailers_are_framed() {
    play(&bodies::rows());
}

#[test]
fn connect_is_for_websockets_alone() {
    play(&connect::rows());
}

/// Plays all rows, and tells of all that fail.
fn play(rows: &[Row]) {
    let keys = Keys::default();
    let wide = |spec: Spec| spec.websocket().with("max_head_size", 64 << 10);
    let server = keys.serve(wide(wide(behave()))).start();
    let tls = Client::with(&keys.authority, None, rustls::ALL_VERSIONS, &["h2"]);
    for address in [server.address(0), tls.tunnel(server.address(1))] {
        let holds = |row: &&Row| catch_unwind(AssertUnwindSafe(|| row.play(address))).is_ok();
        let (held, failed): (Vec<_>, Vec<_>) = rows.iter().partition(holds);
        let failed: Vec<_> = failed.iter().map(|row| &row.name).collect();
        assert!(
            failed.is_empty(),
            "{} rows hold; these do not: {failed:#?}",
            held.len()
        );
    }
    server.stop();
}
