//! Messages out of a TCP stream.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use gannet_tests::{
    load::{Client, Load},
    process,
    server::{Server, Spec},
    tcp::TcpClient,
    tls::{self, Keys},
    wait::{DEADLINE, soak, wait_until},
};

use crate::{behave, heavy};

#[test]
fn a_handler_gets_whole_messages_however_they_come() {
    for (framing, input, messages) in [
        (
            "kind = 'marker'\nmarker = '\\r\\n\\r\\n'",
            &b"one\r\n\r\n\r\n\r\ntwo\r\n\r\r\n\r\n"[..],
            &["one", "", "two\\r\\n\\r"][..],
        ),
        (
            "kind = 'marker'\nmarker = '\\xff\\0'\nkeep = true",
            b"one\xff\0two\xff\0",
            &["one\\xff\\x00", "two\\xff\\x00"],
        ),
        ("kind = 'lines'", b"one\ntwo\r\n\r\n", &["one", "two", ""]),
        (
            "kind = 'lines'\nstrip_cr = false",
            b"one\ntwo\r\n",
            &["one", "two\\r"],
        ),
        (
            "kind = 'length'\nwidth = 1",
            b"\x03one\x00\x03two",
            &["one", "", "two"],
        ),
        (
            "kind = 'length'\nwidth = 2\nlittle_endian = true\nkeep_header = true",
            b"\x03\0one\x03\0two",
            &["\\x03\\x00one", "\\x03\\x00two"],
        ),
        (
            "kind = 'length'\nwidth = 4\noffset = 2\nheader_size = 8\ncounts_header = true",
            b"AA\0\0\0\x0bBBoneAA\0\0\0\x0bBBtwo",
            &["one", "two"],
        ),
        (
            "kind = 'length'\nwidth = 8",
            b"\0\0\0\0\0\0\0\x03one\0\0\0\0\0\0\0\x03two",
            &["one", "two"],
        ),
        (
            "kind = 'length'\nwidth = 'varint'\noffset = 1",
            b"T\x03oneT\x00T\x03two",
            &["one", "", "two"],
        ),
    ] {
        let server = framed("describe", framing).start();
        let expect = |client: &mut TcpClient, how: &str| {
            for message in messages {
                assert_eq!(client.line(), *message, "{framing} {how}");
            }
        };
        let mut client = server.tcp();
        client.send(input);
        expect(&mut client, "in one write");
        for byte in input {
            client.send([*byte]);
        }
        expect(&mut client, "byte by byte");
        client.send(input.repeat(100));
        for _ in 0..100 {
            expect(&mut client, "a hundred times over");
        }
        server.stop();
    }
}

#[test]
fn what_is_sent_framed_comes_back_framed() {
    for (framing, input) in [
        ("kind = 'marker'\nmarker = 'END'", &b"#oneEND#END"[..]),
        (
            "kind = 'marker'\nmarker = 'END'\nkeep = true",
            b"#oneEND#END",
        ),
        ("kind = 'lines'", b"#one\n#\n"),
        ("kind = 'length'\nwidth = 4", b"\0\0\0\x04#one\0\0\0\x01#"),
        (
            "kind = 'length'\nwidth = 'varint'\ncounts_header = true",
            b"\x05#one\x02#",
        ),
    ] {
        let server = framed("framed", framing).start();
        let mut client = server.tcp();
        client.send(input);
        assert_eq!(client.bytes(input.len()), input, "{framing}");
        server.stop();
    }
}

#[test]
fn a_large_message_comes_whole() {
    let server = framed("framed", "kind = 'length'").start();
    let mut client = server.tcp();
    let mut input = (1_500_000_u32).to_be_bytes().to_vec();
    input.resize(4 + 1_500_000, b'#');
    for _ in 0..3 {
        client.send(&input);
        assert!(client.bytes(input.len()) == input, "not what was sent");
    }
    server.stop();
}

#[test]
fn a_burst_is_answered_in_order_when_little_may_be_in_flight() {
    let server = framed("framed", "kind = 'lines'")
        .set("max_in_flight", 2)
        .set("ring_size", 65_536)
        .start();
    let mut client = server.tcp();
    let mut sender = TcpClient::over(client.socket().try_clone().unwrap());
    let burst: String = (0..20_000).map(|n| format!("#{n}\n")).collect();
    let sender = thread::spawn(move || sender.send(burst));
    for n in 0..20_000 {
        assert_eq!(client.line(), format!("#{n}"));
    }
    sender.join().unwrap();
    server.stop();
}

#[test]
fn a_message_over_the_limit_closes_its_connection_and_no_other() {
    for (framing, too_long) in [
        ("kind = 'lines'", &[b'x'; 200][..]),
        ("kind = 'marker'\nmarker = 'END'", &[b'x'; 200]),
        ("kind = 'length'\nwidth = 2", b"\0\x65"),
        ("kind = 'length'\nwidth = 'varint'", b"\xff\xff\x7f"),
    ] {
        let server = framed("framed", framing)
            .with("max_message_size", 100)
            .start();
        let (mut other, mut client) = (server.tcp(), server.tcp());
        client.send(too_long);
        client.expect_closed();
        server.expect_log("message larger than 100 bytes");
        expect_closed(&server, "too_large");
        other.finish();
        other.expect_closed();
        expect_closed(&server, "client");
        server.stop();
    }
}

#[test]
fn input_that_is_no_frame_closes_its_connection() {
    for (framing, wrong) in [
        (
            "kind = 'length'\nwidth = 2\ncounts_header = true",
            &b"\0\x01"[..],
        ),
        ("kind = 'length'\nwidth = 'varint'", b"\x80\x00"),
        ("kind = 'length'\nwidth = 'varint'", &[0xff; 10]),
    ] {
        let server = framed("framed", framing).start();
        let mut client = server.tcp();
        client.send(wrong);
        client.expect_closed();
        expect_closed(&server, "protocol");
        server.stop();
    }
}

#[test]
fn what_came_before_input_that_is_no_frame_is_answered() {
    for (framing, input, answer, reason) in [
        (
            "kind = 'lines'",
            [
                &b"sleep-async 100 one\n#two\n"[..],
                &[b'x'; 200],
                b"\n#three\n",
            ]
            .concat(),
            &b"one\n#two\n"[..],
            "too_large",
        ),
        (
            "kind = 'length'\nwidth = 'varint'",
            b"\x04#one\x80\x00\x04#two".to_vec(),
            b"\x04#one",
            "protocol",
        ),
    ] {
        let server = framed("framed", framing)
            .with("max_message_size", 100)
            .start();
        let mut client = server.tcp();
        client.send(input);
        assert_eq!(client.bytes(answer.len()), answer, "{framing}");
        client.expect_closed();
        expect_closed(&server, reason);
        server.stop();
    }
}

#[test]
fn a_message_that_was_sent_in_part_is_no_message() {
    let server = framed("describe", "kind = 'lines'").start();
    let mut client = server.tcp();
    client.send("whole\npart");
    client.finish();
    assert_eq!(client.line(), "whole");
    client.expect_closed();
    expect_closed(&server, "reset");
    server.stop();
}

#[test]
fn an_idle_connection_in_the_middle_of_a_message_is_closed() {
    let server = framed("describe", "kind = 'lines'")
        .with("idle_timeout_ms", 300)
        .start();
    let mut client = server.tcp();
    client.send("part");
    client.expect_closed();
    expect_closed(&server, "idle");
    server.stop();
}

#[test]
fn a_message_that_drips_closes_its_connection() {
    let length = 1_000_000_u32.to_be_bytes();
    for (framing, begin) in [("kind = 'lines'", &b"a"[..]), ("kind = 'length'", &length)] {
        let server = hasty(framing).start();
        let mut client = server.tcp();
        client.send(begin);
        let mut writer = TcpClient::over(client.socket().try_clone().unwrap());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // Every byte is in time for `request_timeout_ms`: only the rate is too little.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) && writer.try_send("x").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            });
            client.expect_closed();
            done.store(true, Ordering::Relaxed);
        });
        drop((client, writer));
        expect_closed(&server, "timeout");
        server.stop();
    }
}

#[test]
fn a_client_may_be_silent_between_messages_and_while_it_is_not_read() {
    let server = hasty("kind = 'lines'")
        .with("request_timeout_ms", 2_000)
        .set("max_in_flight", 1)
        .start();
    let mut client = server.tcp();
    client.send("#in ");
    wait_until("the first piece", || server.total("bytes_in") == 4);
    client.send("pieces\n");
    assert_eq!(client.line(), "#in pieces");
    thread::sleep(Duration::from_millis(2_500));
    // What is behind the second one is not read before the first has slept.
    let long = "x".repeat(300_000);
    client.send(format!("sleep-async 2500 slept\n#next\n#{long}\n"));
    assert_eq!(client.line(), "slept");
    assert_eq!(client.line(), "#next");
    assert_eq!(client.line().len(), 300_001);
    server.stop();
}

#[test]
fn a_function_of_the_program_finds_messages() {
    let spec = behave()
        .env("BEHAVE_FRAMING", "custom")
        .env("BEHAVE_TCP", "framed")
        .tcp();
    let server = spec.start();
    let mut client = server.tcp();
    client.send(b"\x04#one\x01#");
    assert_eq!(client.bytes(7), b"\x04#one\x01#");
    for byte in b"\x05#slow" {
        client.send([*byte]);
    }
    assert_eq!(client.bytes(6), b"\x05#slow");

    let mut refused = server.tcp();
    refused.send([254]);
    refused.expect_closed();
    server.expect_log("a length of 254");
    expect_closed(&server, "protocol");

    let failed = server.status()["totals"]["handler_failed"]
        .as_u64()
        .unwrap();
    let mut panics = server.tcp();
    panics.send([255]);
    panics.expect_closed();
    server.expect_log("as asked: a length of 255");
    expect_closed(&server, "handler_failed");
    wait_until("it to be counted", || {
        server.status()["totals"]["handler_failed"] == failed + 1
    });

    // The functions are there in successors of both kinds.
    server.reload();
    client.send(b"\x04#two");
    assert_eq!(client.bytes(5), b"\x04#two");
    process::kill(server.master());
    let mut again = reconnected(&server);
    again.send(b"\x04#new");
    assert_eq!(again.bytes(5), b"\x04#new");
    server.stop();
}

#[test]
fn what_is_published_reaches_each_the_way_it_speaks() {
    let server = framed("framed", "kind = 'length'\nwidth = 2")
        .websocket()
        .start();
    let (mut framed, mut websocket) = (server.tcp(), server.websocket());
    framed.send(b"\0\x08sub news");
    assert_eq!(framed.bytes(4), b"\0\x02ok");
    assert_eq!(websocket.ask("sub news"), "ok");
    websocket.send("pub news hello");
    assert_eq!(websocket.text(), "hello");
    assert_eq!(framed.bytes(7), b"\0\x05hello");

    // One that cannot be framed is dropped for those who would need it framed, and counted.
    let long = "x".repeat(70_000);
    websocket.send(format!("pub news {long}"));
    assert_eq!(websocket.text(), long);
    websocket.send("pub news next");
    assert_eq!(framed.bytes(6), b"\0\x04next");
    wait_until("it to be counted", || {
        server.status()["totals"]["publish_dropped"] == 1
    });
    server.stop();
}

#[test]
fn framings_that_cannot_work_are_refused_at_the_start() {
    let refused = |spec: Spec, why: &str| {
        let ended = spec.run(&["start"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(why), "{ended:?}");
    };
    refused(
        behave().websocket().with("framing", "lines"),
        "`framing` is for TCP only",
    );
    refused(framed("raw", "kind = 'marker'"), "1 to 64 bytes");
    refused(
        framed("raw", "kind = 'length'\nwidth = 4\nheader_size = 2"),
        "ends before its length field does",
    );
    refused(framed("raw", "kind = 'custom'"), "unknown name `custom`");
}

#[test]
fn framed_messages_survive_reloads_and_kills_under_load() {
    let _machine = heavy();
    let server = framed("framed", "kind = 'length'").start();
    let load = Load::start(&[Client::Framed(server.address_of("tcp"))], 100);
    wait_until("the load to run", || load.answered() > 1000);

    let mut deaths = Vec::new();
    let begin = Instant::now();
    while deaths.len() < 2 || begin.elapsed() < soak(Duration::from_secs(3)) {
        let patience = DEADLINE + soak(Duration::from_secs(3));
        assert!(
            begin.elapsed() < patience,
            "{} workers killed",
            deaths.len()
        );
        let before = Instant::now();
        let workers = server.ready_workers();
        if workers.first().is_some_and(|&pid| process::kill(pid)) {
            deaths.push((before, Instant::now()));
        }
        thread::sleep(Duration::from_millis(300));
        server.reload();
    }

    let report = load.stop();
    report.expect_complete();
    report.expect_repeats_only_at(&deaths);
    server.stop();
}

#[test]
fn reloads_under_framed_load_repeat_nothing() {
    let _machine = heavy();
    let server = framed("framed", "kind = 'length'").start();
    let load = Load::start(&[Client::Framed(server.address_of("tcp"))], 100);
    wait_until("the load to run", || load.answered() > 1000);
    let (begin, mut reloads) = (Instant::now(), 0);
    while reloads < 3 || begin.elapsed() < soak(Duration::from_secs(2)) {
        server.reload();
        reloads += 1;
    }
    let report = load.stop();
    report.expect_complete();
    report.expect_once();
    server.stop();
}

#[test]
fn a_client_that_speaks_tls_to_a_framed_listener_is_named_in_the_log() {
    let spec = framed("framed", "kind = 'length'\nwidth = 2").with("max_message_size", 1_000);
    let server = spec.clone().start();
    let mut client = server.tcp();
    client.send(tls::Client::new(&Keys::default().authority).hello());
    expect_closed(&server, "too_large");
    server.expect_log("speaks TLS to a listener without it");

    server.stop();

    // Behind a message the same bytes are only a message too long.
    let server = spec.start();
    let mut client = server.tcp();
    client.send(b"\x00\x02#?");
    assert_eq!(client.bytes(4), b"\x00\x02#?");
    client.send(b"\x16\x03\x01\x02");
    expect_closed(&server, "too_large");
    assert!(!server.log().contains("speaks TLS"), "{}", server.log());
    server.stop();
}

/// A server with this framing on its TCP listener, and the mode in which that answers.
fn framed(mode: &str, framing: &str) -> Spec {
    let framing: toml::Table = framing.parse().expect("a table");
    behave()
        .env("BEHAVE_TCP", mode)
        .tcp()
        .with("framing", framing)
}

/// As `framed`, with little patience.
fn hasty(framing: &str) -> Spec {
    framed("framed", framing)
        .with("request_timeout_ms", 400)
        .with("min_receive_rate", 1_000_000)
}

/// Waits until one connection has ended for this reason.
fn expect_closed(server: &Server, reason: &str) {
    wait_until(&format!("an end for the reason {reason}"), || {
        server.status()["totals"]["closed"][reason] == 1
    });
}

/// A client of the master that takes the place of one that was killed.
fn reconnected(server: &Server) -> TcpClient {
    let address = server.address_of("tcp");
    wait_until("a master that serves", || {
        let mut client = TcpClient::over(std::net::TcpStream::connect(address).unwrap());
        client.try_send(b"\x02#?").is_ok() && client.try_bytes(3).is_ok()
    });
    server.tcp()
}
