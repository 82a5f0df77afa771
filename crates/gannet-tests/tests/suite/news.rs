//! The poll set tells once of what has come: nothing of it may be left lying, however it came.
//!
//! The server stands still while the client acts, so that all is there when it looks.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::SocketAddr as UnixAddress},
};

use gannet_tests::{
    process::{self, Signal},
    server::Server,
    tcp::TcpClient,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::SockRef;

use crate::{
    behave,
    proxy::{LINE, required},
};

#[test]
fn what_is_more_than_a_read_takes_is_read_to_its_end() {
    // Behind a PROXY header little is read at first, less than the socket holds.
    let server = required(behave().env("BEHAVE_TCP", "raw").tcp()).start();
    for len in [READ - LINE.len(), READ, 2 * READ] {
        let sent: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let mut client = while_it_stands_still(&server, || {
            let mut client = server.tcp();
            client.send(LINE);
            client.send(&sent);
            client
        });
        assert!(client.bytes(len) == sent, "{len} bytes");
    }
    server.stop();
}

#[test]
fn the_end_behind_the_last_bytes_is_seen() {
    let server = raw("127.0.0.1:0");
    let mut client = server.tcp();
    while_it_stands_still(&server, || {
        client.send("the last");
        client.finish();
    });
    assert_eq!(client.rest(), b"the last");
    server.stop();
}

#[test]
fn what_is_behind_urgent_data_is_read() {
    let server = raw("127.0.0.1:0");
    let mut client = server.tcp();
    while_it_stands_still(&server, || {
        client.send("before ");
        let urgent = SockRef::from(client.socket()).send_out_of_band(b"!");
        assert_eq!(urgent.unwrap(), 1);
        client.send("behind");
    });
    // The urgent byte itself is not in the stream.
    assert_eq!(client.bytes(13), b"before behind");
    // And it does not keep the server from going on.
    client.send("more");
    assert_eq!(client.bytes(4), b"more");
    server.stop();
}

#[test]
fn what_is_behind_a_passed_descriptor_is_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("socket");
    let server = raw(&format!("unix:{}", path.display()));
    let mut client = TcpClient::unix(&UnixAddress::from_pathname(&path).unwrap());
    while_it_stands_still(&server, || {
        client.send("before ");
        let passed = [client.socket().as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&passed)));
        let with = [IoSlice::new(b"with ")];
        let sent = sendmsg(client.socket(), &with, &mut ancillary, SendFlags::empty());
        assert_eq!(sent.unwrap(), 5);
        client.send("behind");
    });
    assert_eq!(client.bytes(18), b"before with behind");
    server.stop();
}

#[test]
fn who_was_not_read_for_a_while_is_read_on() {
    // Each message takes its time, and only one may be under way: the others wait in the socket.
    let server = behave().tcp().set("max_in_flight", 1).start();
    let mut client = server.tcp();
    for round in 0..50 {
        client.send(format!("sleep-async 2\necho {round}\n"));
        while_it_stands_still(&server, || client.send("echo last\n"));
        while client.line() != "last" {}
    }
    server.stop();
}

/// A server that sends everything back.
fn raw(address: &str) -> Server {
    let server = behave().env("BEHAVE_TCP", "raw");
    server.listen("tcp", address).start()
}

/// Has the reactors look only when all of this has been done.
fn while_it_stands_still<T>(server: &Server, act: impl FnOnce() -> T) -> T {
    let master = server.master();
    assert!(process::signal(master, Signal::STOP));
    let outcome = act();
    assert!(process::signal(master, Signal::CONT));
    outcome
}

/// What is read at a time before it is known who the client is.
const READ: usize = 16 << 10;
