//! TLS: who is let in, what handlers are told, what hostile clients get.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use gannet_tests::{
    http::HttpClient,
    process::Signal,
    server::Server,
    tcp::{self, TcpClient},
    tls::{Authority, Client, Identity, Keys, Wish, write},
    wait::{DEADLINE, wait_until},
    websocket::WebSocket,
};

use crate::behave;

fn count(server: &Server, name: &str) -> u64 {
    server.status()["totals"][name].as_u64().unwrap()
}

/// What a client gets that the server refuses after its part of the handshake.
fn refusal(client: &Client, server: &Server) -> String {
    let refused = client
        .try_connect(server.address(0))
        .and_then(|mut client| {
            client.send("echo let me in\n");
            client.try_line()
        });
    refused.expect_err("it was let in").to_string()
}

#[test]
fn tcp_http_and_websocket_speak_over_tls() {
    let keys = Keys::default();
    let server = keys.serve(keys.serve(behave().tcp()).websocket());
    let server = server.start();
    let client = Client::new(&keys.authority);
    let mut tcp = client.connect(server.address_of("tcp"));
    assert_eq!(tcp.ask("echo hello"), "hello");
    assert_eq!(tcp.protocol(), None);

    let entry = client.tunnel(server.address_of("websocket"));
    assert_eq!(HttpClient::connect(entry).get("/").text(), "hello");
    let mut websocket = WebSocket::connect(entry);
    assert_eq!(websocket.ask("echo over wss"), "over wss");
    websocket.send("echo-binary x");
    drop((tcp, websocket));
    server.stop();
}

#[test]
fn http_listeners_agree_on_what_both_speak_and_refuse_what_they_do_not() {
    let keys = Keys::default();
    let server = keys.serve(behave().http()).start();
    let with = |protocols: &[&str]| {
        Client::with(&keys.authority, None, rustls::ALL_VERSIONS, protocols)
            .try_connect(server.address(0))
    };
    let agreed = |protocols| with(protocols).unwrap().protocol().unwrap();
    assert_eq!(agreed(&["http/1.1", "h2"]), "h2");
    assert_eq!(agreed(&["http/1.1"]), "http/1.1");
    assert_eq!(with(&[]).unwrap().protocol(), None);
    let error = with(&["http/1.0"]).unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    server.stop();
}

#[test]
fn handlers_are_told_what_was_agreed_on() {
    let keys = Keys::default();
    let server = keys.serve(behave().set("workers", 2).tcp()).start();
    let client = Client::new(&keys.authority);
    let mut conn = client.connect(server.address(0));
    let told = conn.ask("tls");
    assert!(told.starts_with("version=1.3 cipher=TLS13_AES_"), "{told}");
    assert!(
        told.ends_with("alpn=- name=localhost resumed=false peer=-"),
        "{told}"
    );
    // A worker that has nothing to do with the connection knows it too.
    let id = conn.ask("id");
    let mut others = (0..8).map(|_| client.connect(server.address(0)));
    let worker = conn.ask("worker");
    let mut other = others.find_map(|mut other| (other.ask("worker") != worker).then_some(other));
    assert_eq!(other.as_mut().unwrap().ask(&format!("tls-of {id}")), told);

    let old = Client::with(&keys.authority, None, &[&rustls::version::TLS12], &[]);
    let told = old.connect(server.address(0)).ask("tls");
    assert!(
        told.starts_with("version=1.2 cipher=TLS_ECDHE_ECDSA_"),
        "{told}"
    );
    server.stop();
}

#[test]
fn clients_with_a_good_certificate_are_let_in_and_known() {
    let keys = Keys::default();
    let server = keys.serve_mutual(behave().tcp()).start();
    let till = keys
        .authority
        .sign(&Wish::new("till-1", &["till-1.example", "192.0.2.7"]).serial(0x1234));
    let mut conn = Client::known(&keys.authority, &till).connect(server.address(0));
    let told = conn.ask("tls");
    let (_, peer) = told.split_once("peer=").unwrap();
    let expected = "[O=Example, CN=till-1] cn=till-1 serial=1234 \
                    names=DNS:till-1.example,IP:192.0.2.7 fingerprint=";
    assert!(peer.starts_with(expected), "{peer}");
    // The same fingerprint that openssl prints.
    let file = write(keys.directory.path(), "till.pem", &till.certificate);
    let openssl = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(file)
        .output()
        .unwrap();
    let printed = String::from_utf8(openssl.stdout).unwrap().to_lowercase();
    let printed = printed.trim().rsplit('=').next().unwrap().replace(':', "");
    assert_eq!(peer.strip_prefix(expected).unwrap(), printed);
    server.stop();
}

#[test]
fn clients_without_a_good_certificate_are_refused_with_the_reason() {
    let keys = Keys::default();
    let server = keys.serve_mutual(behave().tcp()).start();
    let address = server.address(0);
    let other = Authority::new("Test CA");
    let expired = Wish::new("till-1", &[]).valid(-7200, -3600);
    let early = Wish::new("till-1", &[]).valid(3600, 7200);
    let cases = [
        (keys.authority.sign(&expired), "CertificateExpired"),
        (keys.authority.sign(&early), "CertificateExpired"),
        (other.sign(&Wish::new("till-1", &[])), "UnknownCA"),
        (
            Identity::self_signed(&Wish::new("till-1", &[])),
            "UnknownCA",
        ),
    ];
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        for (identity, alert) in &cases {
            let client = Client::with(&keys.authority, Some(identity), versions, &[]);
            let error = refusal(&client, &server);
            assert!(
                error.contains(alert) || *alert == "UnknownCA" && error.contains("DecryptError"),
                "{alert}: {error}"
            );
        }
    }
    let none = |version| Client::with(&keys.authority, None, &[version], &[]);
    let error = refusal(&none(&rustls::version::TLS13), &server);
    assert!(error.contains("CertificateRequired"), "{error}");
    let error = refusal(&none(&rustls::version::TLS12), &server);
    assert!(
        error.contains("HandshakeFailure") || error.contains("CertificateRequired"),
        "{error}"
    );

    // No handler ever heard of any of them, and others are served.
    assert_eq!(server.events(), 0);
    wait_until("all of them to be counted", || {
        count(&server, "tls_failed") == 10
    });
    server.expect_log("TLS failed");
    let good = keys.authority.sign(&Wish::new("till-1", &[]));
    let mut conn = Client::known(&keys.authority, &good).connect(address);
    assert_eq!(conn.ask("echo in"), "in");
    server.stop();
}

#[test]
fn where_certificates_are_optional_bad_ones_are_refused_all_the_same() {
    let keys = Keys::default();
    let server = keys
        .serve_mutual(behave().tcp())
        .with_tls("client_auth", "optional")
        .start();
    let mut conn = Client::new(&keys.authority).connect(server.address(0));
    assert!(conn.ask("tls").ends_with("peer=-"));
    let till = keys.authority.sign(&Wish::new("till-1", &[]));
    let mut conn = Client::known(&keys.authority, &till).connect(server.address(0));
    assert!(conn.ask("tls").contains("CN=till-1"));
    let stranger = Authority::new("Another").sign(&Wish::new("till-1", &[]));
    refusal(&Client::known(&keys.authority, &stranger), &server);
    server.stop();
}

#[test]
fn chains_are_followed_up_to_the_depth() {
    let keys = Keys::default();
    let (one, two) = {
        let one = keys.authority.intermediate("Shop CA");
        let two = one.intermediate("Till CA");
        (one, two)
    };
    let server = keys
        .serve_mutual(behave().tcp())
        .with_tls("client_depth", 1)
        .start();
    let near = one.sign(&Wish::new("near", &[])).chain(&[&one]);
    let mut conn = Client::known(&keys.authority, &near).connect(server.address(0));
    assert!(conn.ask("tls").contains("CN=near"));
    let far = two.sign(&Wish::new("far", &[])).chain(&[&two, &one]);
    refusal(&Client::known(&keys.authority, &far), &server);
    server.stop();

    let server = keys.serve_mutual(behave().tcp()).start();
    let mut conn = Client::known(&keys.authority, &far).connect(server.address(0));
    assert!(conn.ask("tls").contains("CN=far"));
    server.stop();
}

#[test]
fn revoked_certificates_are_refused_and_so_are_outdated_lists() {
    let keys = Keys::default();
    let list = |until| {
        let list = keys.authority.revoke(&[666], until);
        write(keys.directory.path(), "revoked.pem", &list)
    };
    let path = list(3600);
    let server = keys
        .serve_mutual(behave().tcp())
        .with_tls("client_crl", path.to_str().unwrap())
        .start();
    let bad = keys.authority.sign(&Wish::new("stolen", &[]).serial(666));
    let error = refusal(&Client::known(&keys.authority, &bad), &server);
    assert!(error.contains("CertificateRevoked"), "{error}");
    let good = keys.authority.sign(&Wish::new("mine", &[]).serial(7));
    let good = Client::known(&keys.authority, &good).forgetful();
    assert_eq!(good.connect(server.address(0)).ask("echo in"), "in");

    list(-60);
    server.signal(Signal::HUP);
    wait_until("the outdated list to count", || {
        good.try_connect(server.address(0))
            .and_then(|mut conn| {
                conn.send("echo in\n");
                conn.try_line()
            })
            .is_err()
    });
    server.stop();
}

#[test]
fn a_session_is_not_resumed_past_a_change_in_whom_the_listener_lets_in() {
    let keys = Keys::default();
    let list = |serials: &[u64]| {
        let list = keys.authority.revoke(serials, 3600);
        write(keys.directory.path(), "revoked.pem", &list)
    };
    let path = list(&[]);
    let server = keys
        .serve_mutual(behave().tcp())
        .with_tls("client_crl", path.to_str().unwrap())
        .start();
    let lost = keys.authority.sign(&Wish::new("lost", &[]).serial(666));
    let client = Client::known(&keys.authority, &lost);
    assert!(
        !client
            .connect(server.address(0))
            .ask("tls")
            .contains("resumed=true")
    );
    let resumed = client.connect(server.address(0)).ask("tls");
    assert!(
        resumed.contains("resumed=true") && resumed.contains("CN=lost"),
        "{resumed}"
    );
    list(&[666]);
    server.reload();
    let error = refusal(&client, &server);
    assert!(error.contains("CertificateRevoked"), "{error}");
    server.stop();
}

#[test]
fn a_session_of_one_listener_does_not_open_another() {
    let keys = Keys::default();
    let server = keys.serve_mutual(keys.serve(behave().tcp()).tcp()).start();
    let client = Client::new(&keys.authority);
    let mut conn = client.connect(server.address(0));
    conn.ask("echo tickets have come");
    assert!(client.connect(server.address(0)).is_resumed());
    let refused = client.try_connect(server.address(1)).and_then(|mut conn| {
        conn.send("echo let me in\n");
        conn.try_line()
    });
    assert!(refused.is_err(), "{refused:?}");
    server.stop();
}

#[test]
fn sessions_are_resumed_at_every_reactor() {
    let keys = Keys::default();
    let server = keys.serve(behave().set("reactors", 3).tcp()).start();
    let client = Client::new(&keys.authority);
    let mut resumed = 0;
    client
        .connect(server.address(0))
        .ask("echo tickets have come");
    for _ in 0..30 {
        let mut conn = client.connect(server.address(0));
        resumed += u32::from(conn.is_resumed());
        conn.ask("echo tickets have come");
    }
    assert_eq!(resumed, 30);
    wait_until("all of them to be counted", || {
        count(&server, "tls_resumed") == 30
    });
    server.stop();
}

#[test]
fn the_name_that_is_asked_for_picks_the_certificate() {
    let keys = Keys::default();
    let sign = |name: &str| {
        let identity = keys.authority.sign(&Wish::new(name, &[name]));
        let stem = name.replace('*', "any");
        let (certificate, key) = identity.write(keys.directory.path(), &stem);
        let mut table = toml::Table::new();
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        table.insert("certificate".to_owned(), text(certificate).into());
        table.insert("key".to_owned(), text(key).into());
        toml::Value::Table(table)
    };
    let sni = vec![sign("shop.example"), sign("*.shop.example")];
    let server = keys
        .serve(behave().tcp())
        .with_tls("sni", toml::Value::Array(sni))
        .start();
    let client = |name: &str| Client::new(&keys.authority).asking_for(name);
    let address = server.address(0);
    let default = client("localhost").connect(address).certificate();
    let shop = client("shop.example").connect(address).certificate();
    let till = client("till.shop.example").connect(address).certificate();
    assert!(shop != default && till != default && till != shop);
    let mut conn = client("TILL.shop.example").connect(address);
    assert_eq!(conn.certificate(), till);
    assert!(conn.ask("tls").contains("name=till.shop.example "));
    // No certificate has that name: the client gets the default one, and refuses it.
    let error = client("a.b.shop.example").try_connect(address).unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    // No name at all.
    assert_eq!(client("127.0.0.1").connect(address).certificate(), default);
    server.stop();
}

#[test]
fn versions_below_the_least_are_refused() {
    let keys = Keys::default();
    let server = keys
        .serve(behave().tcp())
        .with_tls("min_version", "1.3")
        .start();
    let old = Client::with(&keys.authority, None, &[&rustls::version::TLS12], &[]);
    let error = old.try_connect(server.address(0)).unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    assert_eq!(
        Client::new(&keys.authority)
            .connect(server.address(0))
            .ask("echo in"),
        "in"
    );
    server.stop();
}

#[test]
fn plain_http_on_a_tls_port_is_told_what_to_do() {
    let keys = Keys::default();
    let server = keys.serve(behave().websocket()).start();
    let mut client = server.websocket_listener();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("Content-Type: text/plain"), "{answer}");
    assert!(
        answer.ends_with("use https:// in place of http://, wss:// in place of ws://\n"),
        "{answer}"
    );
    // What is neither gets no text.
    let mut client = server.websocket_listener();
    client.send([0, 1, 2, 3]);
    client.expect_closed();
    wait_until("both to be counted", || {
        server.status()["totals"]["closed"]["tls_failed"] == 2
    });
    server.stop();
}

#[test]
fn tls_on_a_plain_http_port_is_recognised_in_the_log() {
    let keys = Keys::default();
    let server = behave().http().start();
    let error = Client::new(&keys.authority).try_connect(server.address(0));
    assert!(error.is_err());
    server.expect_log("speaks TLS to a listener without it");
    server.stop();
}

#[test]
fn slow_handshakes_are_cut_while_others_are_served() {
    let keys = Keys::default();
    let server = keys
        .serve(behave().tcp())
        .with_tls("handshake_timeout_ms", 1500)
        .start();
    let begin = Instant::now();
    // Nothing at all, and a byte of a hello now and then.
    let mut silent: Vec<_> = (0..100).map(|_| server.tcp()).collect();
    let mut slow: Vec<_> = (0..100).map(|_| server.tcp()).collect();
    let client = Client::new(&keys.authority);
    let mut conn = client.connect(server.address(0));
    let hello = [0x16, 3, 1, 0, 200, 1];
    let mut sent = 0;
    while count(&server, "tls_timeouts") < 200 {
        for slow in &mut slow {
            // It may be cut already.
            let _ = slow.try_send([*hello.get(sent).unwrap_or(&0)]);
        }
        sent += 1;
        assert_eq!(conn.ask("echo still served"), "still served");
        assert_eq!(
            client.connect(server.address(0)).ask("echo me too"),
            "me too"
        );
        assert!(begin.elapsed() < DEADLINE, "they are not cut");
        thread::sleep(Duration::from_millis(20));
    }
    for client in silent.iter_mut().chain(&mut slow) {
        client.expect_closed();
    }
    wait_until("it to be counted", || {
        server.status()["totals"]["closed"]["timeout"] == 200
    });
    server.stop();
}

#[test]
fn handshakes_over_the_limit_wait_for_their_turn() {
    let keys = Keys::default();
    let server = keys
        .serve(behave().tcp())
        .with_tls("max_handshakes_per_s", 10)
        .start();
    let client = Client::new(&keys.authority).forgetful();
    thread::scope(|scope| {
        for _ in 0..30 {
            let (client, address) = (client.clone(), server.address(0));
            scope.spawn(move || assert_eq!(client.connect(address).ask("echo in"), "in"));
        }
    });
    wait_until("all of them to be counted", || {
        count(&server, "tls_handshakes") == 30
    });
    assert!(count(&server, "tls_delayed") > 0);
    server.stop();
}

#[test]
fn handshakes_that_would_wait_too_long_are_refused() {
    let keys = Keys::default();
    let server = keys
        .serve(behave().tcp())
        .with_tls("max_handshakes_per_s", 1)
        .with_tls("handshake_timeout_ms", 1000)
        .start();
    let hello = Client::new(&keys.authority).hello();
    let mut clients: Vec<_> = (0..10).map(|_| server.tcp()).collect();
    for client in &mut clients {
        client.send(&hello);
    }
    wait_until("most to be refused", || count(&server, "tls_refused") >= 7);
    server.stop();
}

#[test]
fn a_hello_takes_no_turn_before_it_is_whole_and_good() {
    let keys = Keys::default();
    let server = keys
        .serve(behave().tcp())
        .with_tls("max_handshakes_per_s", 1)
        .start();
    let client = Client::new(&keys.authority);
    let hello = client.hello();
    let mut bad = hello.clone();
    // The length of what is in it.
    bad[43] ^= 0xff;
    let begun: Vec<_> = (0..60)
        .map(|n| {
            let mut begun = server.tcp();
            begun.send(match n % 3 {
                0 => &hello[..1],
                1 => &hello[..hello.len() - 1],
                _ => &bad[..],
            });
            begun
        })
        .collect();
    wait_until("the bad ones to be told", || {
        count(&server, "tls_failed") == 20
    });
    let mut conn = client.connect(server.address(0));
    assert_eq!(conn.ask("echo in"), "in");
    assert_eq!(count(&server, "tls_delayed"), 0);
    assert_eq!(count(&server, "tls_refused"), 0);
    drop(begun);
    server.stop();
}

#[test]
fn whoever_leaves_before_its_turn_gives_it_back() {
    let keys = Keys::default();
    let server = keys
        .serve(behave().tcp())
        .with_tls("max_handshakes_per_s", 1)
        .with_tls("handshake_timeout_ms", 60_000)
        .start();
    let client = Client::new(&keys.authority);
    let hello = client.hello();
    let mut conn = client.connect(server.address(0));
    let mut waiting: Vec<_> = (0..100).map(|_| server.tcp()).collect();
    for waiting in &mut waiting {
        waiting.send(&hello);
    }
    wait_until("the turns to be taken", || {
        count(&server, "tls_refused") > 30
    });
    for (number, mut waiting) in waiting.into_iter().enumerate() {
        if number % 2 == 0 {
            // The server has bytes to read before it comes to the reset. Some were refused.
            let _ = waiting.try_send("more");
        }
        waiting.reset();
    }
    wait_until("them to have left", || server.connections() == 1);
    // The first turn is its own, and at most a few that were used meanwhile lie before it.
    client.connect(server.address(0));
    assert_eq!(conn.ask("echo still in"), "still in");
    server.stop();
}

#[test]
fn an_orderly_end_is_told_both_ways() {
    let keys = Keys::default();
    let server = keys.serve(behave().tcp()).start();
    let client = Client::new(&keys.authority);
    // The server closes: what it sent is whole, and said to be.
    let mut conn = client.connect(server.address(0));
    conn.send("close-after last words\n");
    assert_eq!(conn.rest().unwrap(), b"last words");
    // The client ends its half: answers still come, and then the end.
    let mut conn = client.connect(server.address(0));
    conn.send("sleep-async 300 late\n");
    conn.finish();
    assert_eq!(conn.rest().unwrap(), b"late\n");
    wait_until("both to be over", || server.connections() == 0);
    assert_eq!(count(&server, "tls_truncated"), 0);
    wait_until("it to be counted", || {
        server.status()["totals"]["closed"]["client"] == 1
    });
    server.stop();
}

#[test]
fn an_end_that_is_not_said_is_a_reset_on_tcp_and_an_end_on_http() {
    let keys = Keys::default();
    let server = keys.serve(keys.serve(behave().tcp()).http()).start();
    let client = Client::new(&keys.authority);
    let mut conn = client.connect(server.address_of("tcp"));
    conn.ask("echo in");
    conn.socket().shutdown(Shutdown::Write).unwrap();
    wait_until("the reset", || {
        server.status()["totals"]["closed"]["reset"] == 1
    });
    wait_until("it to be counted", || count(&server, "tls_truncated") == 1);

    let mut conn = client.connect(server.address_of("http"));
    conn.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    conn.bytes(12);
    conn.socket().shutdown(Shutdown::Write).unwrap();
    wait_until("the end", || server.connections() == 0);
    wait_until("it to be counted", || {
        server.status()["totals"]["closed"]["client"] == 1
    });
    server.stop();
}

#[test]
fn a_connection_that_is_aborted_looks_truncated_to_its_client() {
    let keys = Keys::default();
    let server = keys.serve(behave().tcp()).start();
    let mut conn = Client::new(&keys.authority).connect(server.address(0));
    conn.send("abort-conn\n");
    let error = conn.rest().unwrap_err();
    let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{error}");
    server.stop();
}

#[test]
fn records_that_were_changed_on_the_way_end_the_connection() {
    let keys = Keys::default();
    let server = keys.serve(behave().tcp()).start();
    let mut conn = Client::new(&keys.authority).connect(server.address(0));
    assert_eq!(conn.ask("echo in"), "in");
    // An encrypted record that nobody has encrypted.
    let mut forged = vec![0x17, 3, 3, 0, 32];
    forged.extend([0xaa; 32]);
    conn.socket().write_all(&forged).unwrap();
    let error = conn.rest().unwrap_err().to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
    wait_until("its end", || server.connections() == 0);
    wait_until("it to be counted", || {
        server.status()["totals"]["closed"]["tls_failed"] == 1
    });
    server.stop();
}

#[test]
fn large_messages_go_both_ways() {
    let keys = Keys::default();
    let server = keys.serve(behave().websocket()).start();
    let entry = Client::new(&keys.authority).tunnel(server.address(0));
    let mut client = HttpClient::connect(entry);
    let body: Vec<u8> = (0..5_000_000u32).map(|n| (n * 7) as u8).collect();
    for _ in 0..3 {
        assert!(client.post("/echo", &body).body == body);
        assert!(client.post("/pipe", &body[..1_000_000]).body == body[..1_000_000]);
    }
    let mut websocket = WebSocket::connect(entry);
    let text = format!("#{}", "x".repeat(1_900_000));
    assert_eq!(websocket.ask(&text), text);
    server.stop();
}

#[test]
fn a_client_that_does_not_read_is_cut_at_the_limit() {
    let keys = Keys::default();
    let server = keys.serve(behave().tcp()).with("max_queued", 2 << 20);
    let server = server.start();
    let slow = |size| {
        let stream = tcp::small_buffers(server.address(0)).unwrap();
        let mut conn = Client::new(&keys.authority).over(stream).unwrap();
        conn.send(format!("{size}\n"));
        conn
    };
    let unread = slow("flood 100 60000");
    let closed = || server.status()["totals"]["closed"]["slow_reader"].as_u64();
    wait_until("it to be cut", || closed() == Some(1));
    drop(unread);
    // One that is waited for gets everything, and what is encrypted never piles up.
    let mut late = slow("fill 300 60000");
    wait_until("its handler to wait", || server.in_flight() == 1);
    let clients = server.control(&["clients", "--json"]).out;
    assert!(clients.contains("\"tls\":true"), "{clients}");
    let most = server
        .memory()
        .into_iter()
        .map(|(_, memory)| memory.resident);
    assert!(most.max() < Some(64 << 20), "memory grows");
    assert!(late.bytes(300 * 60_000).iter().all(|&byte| byte == b'f'));
    assert_eq!(late.line(), "filled");
    server.stop();
}

#[test]
fn a_start_with_bad_files_says_which_and_why() {
    let keys = Keys::default();
    let directory = keys.directory.path();
    let (certificate, key) = keys.authority.server().write(directory, "server");
    let (_, other) = keys.authority.server().write(directory, "other");
    let garbage = write(directory, "garbage.pem", "nothing of use");
    let sealed = write(
        directory,
        "sealed.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let missing = directory.join("missing.pem");
    for (pair, says) in [
        ((missing.clone(), key.clone()), "missing.pem: No such file"),
        ((certificate.clone(), missing), "the key file "),
        (
            (garbage.clone(), key.clone()),
            "garbage.pem: there is no certificate",
        ),
        (
            (certificate.clone(), garbage),
            "garbage.pem: there is no private key",
        ),
        (
            (certificate.clone(), other),
            "other.key: this key is not that of the certificate",
        ),
        (
            (certificate.clone(), sealed),
            "sealed.key: the key is encrypted",
        ),
    ] {
        let ended = behave().tcp().tls(&pair).run(&["start"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(says), "{says}: {ended:?}");
        assert!(ended.err.contains("listener 0 (tls://"), "{ended:?}");
    }
    let nothing = behave()
        .tcp()
        .with("tls", toml::Table::new())
        .run(&["start"]);
    assert!(
        nothing.err.contains("`tls.certificate` and `tls.key`"),
        "{nothing:?}"
    );

    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, mode).unwrap();
    let server = behave().tcp().tls(&(certificate, key)).start();
    server.expect_log("is open to every user");
    server.stop();
}

#[test]
fn garbage_in_place_of_a_handshake_harms_nobody() {
    let keys = Keys::default();
    let server = keys.serve(behave().tcp()).start();
    let mut conn = Client::new(&keys.authority).connect(server.address(0));
    let mut seed = 1u32;
    for round in 0..200 {
        let mut client = TcpStream::connect(server.address(0)).unwrap();
        let mut bytes: Vec<u8> = (0..64 + round * 7)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        bytes[..5].copy_from_slice(&[0x16, 3, 1, (round % 3) as u8, 60]);
        // It may close before it has all.
        let _ = client.write_all(&bytes);
        let _ = client.shutdown(Shutdown::Write);
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut end = Vec::new();
        match client.read_to_end(&mut end) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    assert_eq!(conn.ask("echo unharmed"), "unharmed");
    wait_until("they are gone", || server.connections() == 1);
    wait_until("it to be counted", || {
        server.status()["totals"]["tls_failed"] == 200
    });
    server.stop();
}

/// The TLS listener as it is on the wire.
trait Wire {
    fn websocket_listener(&self) -> TcpClient;
}

impl Wire for Server {
    fn websocket_listener(&self) -> TcpClient {
        TcpClient::connect(self.address_of("websocket"))
    }
}
