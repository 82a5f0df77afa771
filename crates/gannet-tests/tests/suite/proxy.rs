//! Who the client is behind a proxy: the PROXY protocol and forwarding headers, and what becomes of
//! those who only pretend.

use std::{collections::HashSet, fs, net::IpAddr, os::unix::net::SocketAddr as UnixAddress};

use gannet_tests::{
    http::HttpClient,
    process,
    server::{Server, Spec, rows},
    tcp::{TcpClient, connect_from},
    wait::wait_until,
    websocket::WebSocket,
};

use crate::behave;

#[test]
fn a_header_of_either_version_names_client_and_destination() {
    let server = required(behave().tcp()).start();
    for header in [LINE.as_bytes().to_vec(), binary(&[]), binary(&[4, 0, 1, 0])] {
        let mut client = server.tcp();
        // What the client has sent may come in the same read.
        let info = ask(&mut client, &header);
        let own = format!("proxy={}", client.local());
        assert!(info.contains(NAMED) && info.ends_with(&own), "{info}");
        assert_eq!(client.ask("echo x"), "x");
        let clients = rows(&server.control(&["clients", "--json"]).out);
        let proxy = client.local().to_string();
        let row = clients.iter().find(|row| row["proxy"] == proxy.as_str());
        assert_eq!(row.expect("its row")["peer"], "192.0.2.7:56324");
    }
    let mut six = server.tcp();
    let info = ask(&mut six, b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n");
    assert!(
        info.contains("peer=[2001:db8::7]:1 local=[2001:db8::1]:2 "),
        "{info}"
    );
    server.stop();
}

#[test]
fn a_header_may_be_cut_at_every_byte() {
    let server = required(behave().tcp()).start();
    for header in [LINE.as_bytes().to_vec(), binary(&[4, 0, 1, 0])] {
        let before = server.total("bytes_in");
        let mut clients: Vec<_> = (0..=header.len()).map(|_| server.tcp()).collect();
        let mut sent = 0;
        for (cut, client) in clients.iter_mut().enumerate() {
            client.send(&header[..cut]);
            sent += cut as u64;
        }
        // Every first part was read by itself.
        wait_until("the first parts", || {
            server.total("bytes_in") == before + sent
        });
        for (cut, client) in clients.iter_mut().enumerate() {
            let info = ask(client, &header[cut..]);
            assert!(info.contains(NAMED), "{cut}: {info}");
        }
    }
    server.stop();
}

#[test]
fn nobody_hears_of_a_connection_before_its_header() {
    let spec = behave().tcp().env("BEHAVE_CONNECT", "greet");
    let server = required(spec).start();
    let mut client = server.tcp();
    client.send(&LINE[..20]);
    wait_until("its bytes", || server.total("bytes_in") == 20);
    assert_eq!(server.events(), 0);
    client.send(&LINE[20..]);
    assert!(client.line().starts_with("hello "));

    // And if the header never comes, not of its end either.
    let events = server.events();
    let mut other = server.tcp();
    other.send(&LINE[..20]);
    other.finish();
    other.expect_closed();
    wait_until("its end", || closed(&server, "reset") == 1);
    wait_until("the counter proxy_failed", || {
        server.total("proxy_failed") == 1
    });
    assert_eq!(server.events(), events);
    server.stop();
}

#[test]
fn a_connection_that_begins_with_something_else_is_closed() {
    let server = required(behave().tcp()).start();
    let mut long = format!("PROXY UNKNOWN {}", "x".repeat(200)).into_bytes();
    long.extend(b"\r\n");
    let mut large = binary(&[]);
    large[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let wrong: [&[u8]; 7] = [
        b"echo x\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"PROXY TCP4 192.0.2.7 203.0.113.1 56324\r\necho x\n",
        b"PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\necho x\n",
        &long,
        &large,
        &binary(&[3, 0, 4, 1, 2, 3, 4]),
    ];
    for bytes in wrong {
        let mut client = server.tcp();
        client.send(bytes);
        client.expect_closed();
    }
    let count = wrong.len() as u64;
    wait_until("all counted", || {
        server.total("proxy_failed") == count && closed(&server, "protocol") == count
    });
    assert_eq!(server.events(), 0, "a handler heard of one");
    server.expect_log("no PROXY header");
    server.stop();
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection() {
    for protocol in ["tcp", "http"] {
        let spec = behave().listen(protocol, "127.0.0.1:0");
        let server = required(spec).with("request_timeout_ms", 200).start();
        let mut silent = TcpClient::connect(server.address(0));
        let mut slow = TcpClient::connect(server.address(0));
        slow.send(&LINE[..20]);
        silent.expect_closed();
        slow.expect_closed();
        wait_until("both counted", || {
            server.total("proxy_failed") == 2 && closed(&server, "timeout") == 2
        });
        assert_eq!(server.events(), 0);
        server.expect_log("did not come in time");
        server.stop();
    }
}

#[test]
fn a_look_whether_somebody_listens_is_no_failure() {
    let server = required(behave().tcp()).start();
    let mut client = server.tcp();
    client.finish();
    client.expect_closed();
    wait_until("its end", || closed(&server, "client") == 1);
    assert_eq!(server.total("proxy_failed"), 0);
    assert_eq!(server.events(), 0);
    server.stop();
}

#[test]
fn from_elsewhere_nobody_is_let_in() {
    let server = required(behave().tcp()).start();
    for _ in 0..50 {
        let mut stranger = TcpClient::over(from("127.0.0.2", &server));
        // It may be closed already.
        let _ = stranger.try_send(LINE);
        stranger.expect_closed();
    }
    wait_until("all counted", || server.total("proxy_untrusted") == 50);
    assert_eq!(server.total("accepted"), 0);
    server.expect_log("`trusted_proxies` does not have its address");
    let lines = server.log().matches("refusing a connection").count();
    assert!(lines < 50, "each is logged");
    let mut proxy = server.tcp();
    assert!(ask(&mut proxy, LINE.as_bytes()).contains(NAMED));
    server.stop();
}

#[test]
fn who_is_not_named_has_the_address_of_the_proxy() {
    let server = required(behave().tcp()).start();
    let mut local = binary(&[]);
    local[12] = 0x20;
    let mut unix = binary(&[0; 204]);
    unix[13] = 0x31;
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), local, unix] {
        let mut client = server.tcp();
        let info = ask(&mut client, &header);
        let own = format!("peer={} ", client.local());
        assert!(info.contains(&own) && info.ends_with("proxy=-"), "{info}");
    }
    server.stop();
}

#[test]
fn clients_of_one_address_go_to_one_worker_behind_a_proxy_too() {
    let spec = behave().http().with("forwarded", "x-forwarded-for");
    let spec = required(trusting(spec, &["127.0.0.1"]).tcp());
    let server = spec
        .set("workers", 4)
        .set("dispatch", "peer_address")
        .start();
    let mut seen = HashSet::new();
    let mut http = HttpClient::connect(server.address(0));
    for host in 1..=20 {
        let header = format!("PROXY TCP4 192.0.2.{host} 203.0.113.1 1 443\r\n");
        let worker = || {
            let mut client = server.tcp();
            client.send(&header);
            client.ask("worker")
        };
        let (one, other) = (worker(), worker());
        assert_eq!(one, other, "{host}");
        // The hash is of the address, however it is told; requests of one connection go apart.
        let line = format!("X-Forwarded-For: 192.0.2.{host}");
        assert_eq!(get(&mut http, "/worker", &[&line]), one, "{host}");
        seen.insert(one);
    }
    assert!(seen.len() > 1, "{seen:?}");
    server.stop();
}

#[test]
fn when_the_master_dies_nobody_hears_of_connections_without_a_header() {
    let server = required(behave().tcp()).start();
    let mut named = server.tcp();
    ask(&mut named, LINE.as_bytes());
    let mut unnamed = server.tcp();
    unnamed.send(&LINE[..20]);
    wait_until("its bytes", || {
        server.total("bytes_in") == LINE.len() as u64 + 25
    });
    let master = server.master();
    process::kill(master);
    named.expect_closed();
    unnamed.expect_closed();
    wait_until("another master", || {
        let status = server.status();
        status["master_pid"]
            .as_u64()
            .is_some_and(|pid| pid != u64::from(master))
    });
    ask(&mut server.tcp(), LINE.as_bytes());
    wait_until("it to be counted", || closed(&server, "master_died") > 0);
    assert_eq!(closed(&server, "master_died"), 1);
    server.stop();
}

#[test]
fn a_stop_does_not_wait_for_headers() {
    let mut server = required(behave().tcp()).start();
    let mut client = server.tcp();
    client.send(&LINE[..20]);
    wait_until("its bytes", || server.total("bytes_in") == 20);
    server.control(&["stop"]);
    client.expect_closed();
    server.expect_exit(0);
}

#[test]
fn a_proxy_on_a_unix_socket_is_trusted_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let spec = behave().listen("tcp", &format!("unix:{}", path.display()));
    let spec = trusting(spec, &["unix"]).with("proxy_protocol", "required");
    let server = spec.start();
    let mut client = TcpClient::unix(&UnixAddress::from_pathname(&path).unwrap());
    let info = ask(&mut client, LINE.as_bytes());
    let proxy = format!("proxy=unix:pid={},", std::process::id());
    assert!(info.contains(NAMED) && info.contains(&proxy), "{info}");
    server.stop();
    assert!(!fs::exists(path).unwrap());
}

#[test]
fn a_forwarding_header_names_the_client_of_each_request() {
    let server = forwarded("x-forwarded-for").start();
    let mut http = HttpClient::connect(server.address(0));
    let own = http.tcp().local();
    for (lines, client) in [
        (&["X-Forwarded-For: 192.0.2.7"][..], "192.0.2.7:0"),
        (
            &["x-forwarded-for: 1.1.1.1, 2001:db8::7, 10.0.0.1"],
            "[2001:db8::7]:0",
        ),
        (
            &["X-Forwarded-For: 192.0.2.8", "X-Forwarded-For: 10.0.0.1"],
            "192.0.2.8:0",
        ),
    ] {
        let seen = get(&mut http, "/client", lines);
        assert_eq!(seen, format!("{client} via {own}"), "{lines:?}");
    }
    // The connection is the proxy's all the time, and a request without the header its own.
    assert_eq!(get(&mut http, "/client", &[]), format!("{own} via nobody"));
    let line = "X-Forwarded-For: 192.0.2.7";
    assert_eq!(get(&mut http, "/info", &[line]), format!("{own} false"));
    // The other header is not the one that is believed.
    let line = "Forwarded: for=192.0.2.7";
    assert_eq!(
        get(&mut http, "/client", &[line]),
        format!("{own} via nobody")
    );
    server.stop();

    let server = forwarded("forwarded").start();
    let mut http = HttpClient::connect(server.address(0));
    let own = http.tcp().local();
    let line = "Forwarded: for=1.1.1.1, for=\"192.0.2.7:47\";proto=https, for=10.0.0.1";
    assert_eq!(
        get(&mut http, "/client", &[line]),
        format!("192.0.2.7:47 via {own}")
    );
    server.stop();
}

#[test]
fn a_forwarding_header_that_cannot_be_read_is_counted_and_passed_over() {
    let server = forwarded("x-forwarded-for").start();
    let mut http = HttpClient::connect(server.address(0));
    let own = http.tcp().local();
    for value in ["192.0.2.7, rubbish", "192.0.2.7:99999", "\"", "[::1"] {
        let line = format!("X-Forwarded-For: {value}");
        assert_eq!(
            get(&mut http, "/client", &[&line]),
            format!("{own} via nobody")
        );
    }
    assert_eq!(
        get(&mut http, "/client", &["X-Forwarded-For: unknown"]),
        format!("{own} via nobody")
    );
    wait_until("all counted", || server.total("forwarded_malformed") == 4);
    server.stop();
}

#[test]
fn a_forwarding_header_of_a_stranger_means_nothing() {
    let server = forwarded("x-forwarded-for").start();
    let line = "X-Forwarded-For: 192.0.2.7";
    let mut http = HttpClient::over(TcpClient::over(from("127.0.0.2", &server)));
    let own = http.tcp().local();
    assert_eq!(
        get(&mut http, "/client", &[line]),
        format!("{own} via nobody")
    );
    let stranger = TcpClient::over(from("127.0.0.2", &server));
    let own = stranger.local();
    let mut socket = WebSocket::open(stranger, "/", &[line]).unwrap().unwrap();
    let info = socket.ask("info");
    assert!(
        info.contains(&format!("peer={own} ")) && info.ends_with("proxy=-"),
        "{info}"
    );
    server.stop();
}

#[test]
fn a_websocket_is_its_clients_from_the_handshake_on() {
    let server = forwarded("x-forwarded-for").start();
    let line = "X-Forwarded-For: 192.0.2.7";
    let mut socket = WebSocket::connect_with(server.address(0), "/", &[line]);
    let own = socket.tcp().local();
    let info = socket.ask("info");
    assert!(
        info.contains("peer=192.0.2.7:0 ") && info.ends_with(&format!("proxy={own}")),
        "{info}"
    );
    let clients = rows(&server.control(&["clients", "--json"]).out);
    assert_eq!(clients[0]["peer"], "192.0.2.7:0");
    assert_eq!(clients[0]["proxy"], own.to_string().as_str());
    server.stop();
}

/// A load balancer speaks the PROXY protocol, and the proxy behind it names the client.
#[test]
fn a_forwarding_header_counts_if_the_client_of_the_proxy_header_is_trusted() {
    let spec = trusting(behave().websocket(), &["127.0.0.1", "10.0.0.0/8"]);
    let server = spec
        .with("proxy_protocol", "required")
        .with("forwarded", "x-forwarded-for")
        .start();
    let line = "X-Forwarded-For: 192.0.2.9";
    for (source, client) in [("10.0.0.1", "192.0.2.9:0"), ("192.0.2.7", "192.0.2.7:5")] {
        let header = format!("PROXY TCP4 {source} 203.0.113.1 5 443\r\n");
        let mut tcp = TcpClient::connect(server.address(0));
        let own = tcp.local();
        tcp.send(&header);
        let mut http = HttpClient::over(tcp);
        assert_eq!(
            get(&mut http, "/client", &[line]),
            format!("{client} via {own}")
        );

        let mut tcp = TcpClient::connect(server.address(0));
        let own = tcp.local();
        tcp.send(&header);
        let mut socket = WebSocket::open(tcp, "/", &[line]).unwrap().unwrap();
        let info = socket.ask("info");
        let ends = format!("proxy={own}");
        assert!(
            info.contains(&format!("peer={client} ")) && info.ends_with(&ends),
            "{info}"
        );
    }
    server.stop();
}

/// TCP that asks for a PROXY header from this machine's first address.
pub(crate) fn required(spec: Spec) -> Spec {
    trusting(spec, &["127.0.0.1"]).with("proxy_protocol", "required")
}

fn forwarded(header: &str) -> Spec {
    trusting(behave().websocket(), &["127.0.0.1", "10.0.0.0/8"]).with("forwarded", header)
}

fn trusting(spec: Spec, trusted: &[&str]) -> Spec {
    let list: Vec<toml::Value> = trusted.iter().map(|&text| text.into()).collect();
    spec.with("trusted_proxies", list)
}

/// Sends the header and a question in one write.
fn ask(client: &mut TcpClient, header: &[u8]) -> String {
    client.send([header, b"info\n"].concat());
    client.line()
}

fn get(http: &mut HttpClient, path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    http.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    http.response().text().to_owned()
}

fn from(source: &str, server: &Server) -> std::net::TcpStream {
    let source: IpAddr = source.parse().unwrap();
    connect_from(source, server.address(0)).unwrap()
}

pub(crate) fn closed(server: &Server, reason: &str) -> u64 {
    server.status()["totals"]["closed"][reason]
        .as_u64()
        .unwrap_or(0)
}

/// A header of version 2 that says what `LINE` says, with these extensions.
pub(crate) fn binary(extensions: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend((12 + extensions.len() as u16).to_be_bytes());
    header.extend([192, 0, 2, 7, 203, 0, 113, 1, 0xdc, 4, 1, 0xbb]);
    header.extend(extensions);
    header
}

pub(crate) const LINE: &str = "PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n";
/// How `info` shows whom it names.
pub(crate) const NAMED: &str = "peer=192.0.2.7:56324 local=203.0.113.1:443 ";
