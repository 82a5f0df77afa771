//! TLS under load, while certificates change, code is replaced, and processes die.

use std::{
    thread,
    time::{Duration, Instant},
};

use gannet_tests::{
    load::{self, Load},
    process::{self, Signal},
    server::Server,
    tls::{Authority, Client, write},
    wait::{soak, wait_until},
};
use tempfile::TempDir;

use crate::{behave, heavy};

/// A server with TLS on all three protocols, and its keys.
struct Place {
    directory: TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Self {
        Place {
            directory: tempfile::tempdir().unwrap(),
            authority: Authority::new("Test CA"),
        }
    }

    fn start(&self) -> Server {
        let pair = self.renew();
        behave()
            .env("BEHAVE_TCP", "raw")
            .set("reactors", 2)
            .tcp()
            .tls(&pair)
            .websocket()
            .tls(&pair)
            .start()
    }

    /// Another certificate and key in the place of those before.
    fn renew(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        self.authority
            .server()
            .write(self.directory.path(), "server")
    }

    fn client(&self) -> Client {
        Client::new(&self.authority)
    }

    fn load(&self, server: &Server, with_http: bool) -> Load {
        let tcp = self.client().tunnel(server.address_of("tcp"));
        let websocket = self.client().tunnel(server.address_of("websocket"));
        let mut kinds = vec![load::Client::Tcp(tcp), load::Client::WebSocket(websocket)];
        if with_http {
            kinds.push(load::Client::Http(websocket));
        }
        let load = Load::start(&kinds, 12);
        wait_until("the load to run", || load.answered() > 500);
        load
    }
}

#[test]
fn certificates_change_under_load_and_nobody_notices() {
    let _machine = heavy();
    let place = Place::new();
    let server = place.start();
    let load = place.load(&server, true);
    let client = place.client().forgetful();
    let seen = || client.connect(server.address_of("tcp")).certificate();
    let (begin, mut last, mut changes) = (Instant::now(), seen(), 0);
    while begin.elapsed() < soak(Duration::from_secs(3)) {
        place.renew();
        if changes % 2 == 0 {
            server.signal(Signal::HUP);
            wait_until("the new certificate", || seen() != last);
        } else {
            server.reload();
            assert_ne!(seen(), last, "the certificate after a reload");
        }
        last = seen();
        changes += 1;
    }
    let report = load.stop();
    println!(
        "{changes} changes, {} messages, slowest {:?}",
        report.answered, report.slowest
    );
    report.expect_complete();
    report.expect_once();
    server.stop();
}

#[test]
fn workers_killed_under_tls_load_lose_nothing() {
    let _machine = heavy();
    let place = Place::new();
    let server = place.start();
    let load = place.load(&server, false);
    let (begin, mut killed) = (Instant::now(), 0);
    while begin.elapsed() < soak(Duration::from_secs(3)) {
        if let Some(&worker) = server.ready_workers().first() {
            process::signal(worker, Signal::KILL);
            killed += 1;
        }
        thread::sleep(Duration::from_millis(300));
    }
    let report = load.stop();
    println!(
        "{killed} killed, {} messages, slowest {:?}",
        report.answered, report.slowest
    );
    report.expect_complete();
    server.stop();
}

#[test]
fn a_bad_certificate_leaves_the_old_one_in_use_and_says_why() {
    let place = Place::new();
    let server = place.start();
    let client = place.client();
    let mut conn = client.connect(server.address_of("tcp"));
    let before = conn.certificate();
    let workers = server.ready_workers();

    let stranger = Authority::new("Another").server();
    write(place.directory.path(), "server.key", &stranger.key);
    let ended = server.control(&["reload"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("server.key: this key is not that of"),
        "{ended:?}"
    );
    assert!(
        ended.err.contains("the certificates stay as they are"),
        "{ended:?}"
    );
    // The code is replaced all the same.
    assert!(
        workers
            .iter()
            .all(|old| !server.ready_workers().contains(old))
    );
    assert_eq!(
        client.connect(server.address_of("tcp")).certificate(),
        before
    );
    conn.send("still open");
    assert_eq!(conn.bytes(10), b"still open");

    write(place.directory.path(), "server.pem", "nothing");
    server.signal(Signal::HUP);
    server.expect_log("server.pem: there is no certificate in it");
    assert_eq!(
        client.connect(server.address_of("tcp")).certificate(),
        before
    );

    // Even a new master has the old one.
    let master = server.master();
    process::signal(master, Signal::KILL);
    wait_until("a new master", || {
        client
            .try_connect(server.address_of("tcp"))
            .is_ok_and(|conn| conn.certificate() == before)
    });
    place.renew();
    server.reload();
    assert_ne!(
        client.connect(server.address_of("tcp")).certificate(),
        before
    );
    server.stop();
}

#[test]
fn only_connections_that_were_established_are_told_of_the_masters_death() {
    let place = Place::new();
    let server = place.start();
    let mut known = place.client().connect(server.address_of("tcp"));
    known.send("known");
    assert_eq!(known.bytes(5), b"known");
    let mut unknown = server.tcp();
    unknown.send([0x16, 3, 1]);
    wait_until("both", || server.connections() == 2);
    process::signal(server.master(), Signal::KILL);
    wait_until("the end of both", || server.connections() == 0);
    unknown.expect_closed();
    wait_until("a new master", || {
        place.client().try_connect(server.address_of("tcp")).is_ok()
    });
    wait_until("it to be counted", || {
        server.status()["totals"]["closed"]["master_died"] == 1
    });
    server.stop();
}

#[test]
fn a_stop_tells_tls_clients_the_end() {
    let place = Place::new();
    let server = place.start();
    let mut conn = place.client().connect(server.address_of("tcp"));
    conn.send("last");
    assert_eq!(conn.bytes(4), b"last");
    let stop = thread::spawn(move || server.stop());
    // `close_notify`, not just an end of file.
    assert_eq!(conn.rest().unwrap(), b"");
    drop(conn);
    stop.join().unwrap();
}
