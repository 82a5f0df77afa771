//! Datagrams.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use gannet_tests::{
    process,
    udp::{UdpClient, unix_client},
    wait::{DEADLINE, soak, wait_until},
};
use rustix::process::geteuid;
use tempfile::NamedTempFile;

use crate::{behave, heavy};

#[test]
fn datagrams_are_answered_on_ipv4_and_ipv6() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = behave().listen("udp", address).start();
        let client = server.udp();
        assert_eq!(client.ask("echo hello"), "hello");
        let told = client.ask("from");
        let expected = format!("{} local=- listener=0 redelivered=false", client.local());
        assert_eq!(told, expected);
        client.send("#");
        assert_eq!(client.receive().0, b"#");
        wait_until("them to be counted", || {
            (server.total("packets_in"), server.total("packets_out")) == (3, 3)
        });
        server.stop();
    }
}

#[test]
fn an_empty_datagram_is_one() {
    let server = behave().udp().start();
    let client = server.udp();
    client.send("");
    assert_eq!(client.text(), "unknown command: ");
    server.stop();
}

#[test]
fn the_largest_datagrams_go_both_ways() {
    let server = behave().udp().start();
    let client = server.udp();
    let mut large = vec![b'#'; 65_507];
    for n in 0..20_u8 {
        large[65_506] = n;
        client.send(&large);
        assert!(client.receive().0 == large, "not what was sent: {n}");
    }
    client.send("big 65508");
    wait_until("the failure", || server.total("handler_failed") == 1);
    assert_eq!(client.ask("echo still there"), "still there");
    server.stop();
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let four = |last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
    for (listener, own, asked) in [
        ("0.0.0.0:0", "0.0.0.0:0", four(1)),
        ("0.0.0.0:0", "0.0.0.0:0", four(7)),
        ("[::]:0", "0.0.0.0:0", four(7)),
        ("[::]:0", "[::]:0", Ipv6Addr::LOCALHOST.into()),
    ] {
        let server = behave().listen("udp", listener).start();
        let to = SocketAddr::new(asked, server.address(0).port());
        let client = UdpClient::bind(own, to);
        client.send("from");
        let (text, from) = client.receive();
        assert_eq!(from, to, "on {listener}");
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(&format!("local={asked} ")), "{text}");
        // One that is large goes the same way.
        client.send("big 60000");
        let (data, from) = client.receive();
        assert_eq!((data.len(), from), (60_000, to));
        server.stop();
    }
}

#[test]
fn an_ipv6_only_listener_of_datagrams_takes_no_ipv4() {
    // The port is free for another, if nobody on the machine has just that one: then it is another's turn.
    let free = (0..5).find_map(|_| {
        let server = behave()
            .listen("udp", "[::]:0")
            .with("v6only", true)
            .start();
        let port = server.address(0).port();
        let other = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
        Some((server, port, other))
    });
    let (server, port, other) = free.expect("the port is not free");
    let client = UdpClient::connect((Ipv6Addr::LOCALHOST, port).into());
    assert_eq!(client.ask("echo hello"), "hello");
    drop(other);
    server.stop();
}

#[test]
fn unix_datagrams_are_answered_and_say_who_sent_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let server = behave()
        .tcp()
        .listen("udp", &format!("unixgram:{}", path.display()))
        .start();
    let own = directory.path().join("client.sock");
    let client = unix_client(&own, &path);
    let ask = |text: &str| {
        client.send(text.as_bytes()).unwrap();
        receive(&client)
    };
    assert_eq!(ask("echo hello"), "hello");
    let expected = format!(
        "unix:pid={},uid={} local=- listener=1 redelivered=false",
        std::process::id(),
        geteuid()
    );
    assert_eq!(ask("from"), expected);

    // Later, and from another handler.
    let mut tcp = server.tcp();
    let to = format!("packet 1 unixgram:{} later", own.display());
    assert_eq!(tcp.ask(&to), "sent");
    assert_eq!(receive(&client), "later");
    assert_eq!(tcp.ask("packet 1 unixgram:/no/such.sock x"), "sent");
    wait_until("that nobody is there", || {
        server.total("packets_unsent") == 1
    });

    let unnamed = UnixDatagram::unbound().unwrap();
    unnamed.connect(&path).unwrap();
    unnamed.send(b"echo nobody can hear it").unwrap();
    server.expect_log("must bind theirs");
    assert_eq!(ask("echo still there"), "still there");
    server.stop();
    assert!(!path.exists(), "the file is removed at the stop");
}

#[test]
fn a_unix_client_that_does_not_read_costs_others_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let server = behave()
        .set("workers", 1)
        .listen("udp", &format!("unixgram:{}", path.display()))
        .start();
    // Not connected: the kernel bounds what waits for it.
    let deaf = UnixDatagram::bind(directory.path().join("deaf.sock")).unwrap();
    let client = unix_client(&directory.path().join("client.sock"), &path);
    // All answers are given in one turn, those that nobody takes in front.
    client.send(b"sleep-block 200 slept").unwrap();
    let most: usize = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    for _ in 0..most + 20 {
        deaf.send_to(b"#", &path).unwrap();
    }
    client.send(b"#heard").unwrap();
    assert_eq!(receive(&client), "slept");
    assert_eq!(receive(&client), "#heard");
    wait_until("the others to be counted", || {
        server.total("packets_unsent") > 0
    });
    server.stop();
}

#[test]
fn datagrams_can_be_sent_by_every_handler() {
    let server = behave().tcp().udp().set("reactors", 2).start();
    let client = server.udp();
    let mut tcp = server.tcp();
    let to = client.local();
    assert_eq!(tcp.ask(&format!("packet 1 {to} unasked")), "sent");
    assert_eq!(client.text(), "unasked");
    let refused = tcp.ask(&format!("packet 0 {to} x"));
    assert!(refused.contains("is no UDP listener"), "{refused}");
    let refused = tcp.ask("packet 1 unixgram:/a x");
    assert!(refused.contains("is on a network"), "{refused}");
    server.stop();
}

#[test]
fn a_sender_has_one_worker_and_all_workers_have_senders() {
    let server = behave().set("workers", 4).udp().start();
    let to = server.address_of("udp");
    let mut seen = std::collections::HashSet::new();
    for host in 1..=200 {
        let own = format!("127.0.0.{host}:0");
        let worker = UdpClient::bind(&own, to).ask("worker");
        let again = UdpClient::bind(&own, to).ask("worker");
        assert_eq!(worker, again, "of {own}");
        seen.insert(worker);
    }
    assert_eq!(seen.len(), 4);
    server.stop();
}

#[test]
fn datagrams_go_round_where_events_do() {
    let server = behave()
        .set("workers", 3)
        .set("dispatch", "round_robin")
        .udp()
        .start();
    let client = server.udp();
    let seen: Vec<_> = (0..6).map(|_| client.ask("worker")).collect();
    assert_eq!(seen[..3], seen[3..]);
    assert_eq!(std::collections::HashSet::<_>::from_iter(&seen).len(), 3);
    server.stop();
}

#[test]
fn a_datagram_that_its_worker_died_with_is_handled_again() {
    let server = behave().set("workers", 1).udp().start();
    let client = server.udp();
    assert_eq!(client.ask("abort-once 1"), "survived 1");
    assert!(client.ask("from").ends_with("redelivered=false"));
    server.stop();
}

#[test]
fn datagrams_behind_a_crash_are_not_lost() {
    let runs = NamedTempFile::new().unwrap();
    let server = behave()
        .set("workers", 1)
        .udp()
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .start();
    let client = server.udp();
    // One that blocks kills its worker and two successors, then it is given up.
    client.send("sleep-block 60000 never");
    let kill_the_blocked = |times: usize| {
        wait_until("the handler to run", || {
            let runs = fs::read_to_string(runs.path()).unwrap();
            runs.matches("sleep-block").count() == times
        });
        let pids = server.ready_workers();
        assert!(pids.first().is_some_and(|&pid| process::kill(pid)));
    };
    wait_until("it to be taken", || server.total("packets_in") == 1);
    for n in 0..100 {
        client.send(format!("#{n}"));
    }
    wait_until("all to be there", || server.total("packets_in") == 101);
    kill_the_blocked(1);
    // While there is no worker, more come.
    for n in 100..120 {
        client.send(format!("#{n}"));
    }
    kill_the_blocked(2);
    kill_the_blocked(3);
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 120 {
        seen.insert(client.text());
    }
    assert!((0..120).all(|n| seen.contains(&format!("#{n}"))));
    server.stop();
}

#[test]
fn a_datagram_that_killed_three_workers_is_given_up() {
    let runs = NamedTempFile::new().unwrap();
    let server = behave()
        .set("workers", 1)
        .udp()
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .start();
    let client = server.udp();
    client.send("abort");
    wait_until("the end of it", || server.total("dropped") == 1);
    assert_eq!(client.ask("echo unharmed"), "unharmed");
    assert_eq!(
        fs::read_to_string(runs.path()).unwrap(),
        "abort\n".repeat(3)
    );
    server.stop();
}

#[test]
fn without_redelivery_a_datagram_is_handled_once_at_most() {
    let runs = NamedTempFile::new().unwrap();
    let server = behave()
        .set("workers", 1)
        .udp()
        .with("redeliver", false)
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .start();
    let client = server.udp();
    client.send("abort");
    wait_until("the end of it", || server.total("dropped") == 1);
    assert_eq!(client.ask("echo unharmed"), "unharmed");
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "abort\n");
    server.stop();
}

#[test]
fn more_datagrams_than_may_be_unfinished_are_dropped_and_counted() {
    let server = behave()
        .set("workers", 1)
        .set("max_packets", 2)
        .udp()
        .start();
    let client = server.udp();
    // What comes before the place has its worker waits for it, in other bounds.
    assert_eq!(client.ask("echo there"), "there");
    for n in 0..5 {
        client.send(format!("sleep-async 3000 {n}"));
    }
    // The counters are shown one after another: the status may be asked for between them.
    wait_until("all but two to be dropped", || {
        server.total("packets_in") == 6 && server.total("packets_dropped") == 3
    });
    let mut answers = [client.text(), client.text()];
    answers.sort();
    assert_eq!(answers, ["0", "1"]);
    assert_eq!(client.ask("echo room again"), "room again");
    server.stop();
}

#[test]
fn a_flood_fills_the_ring_and_nothing_else() {
    let server = behave()
        .set("workers", 1)
        .set("ring_size", 65_536)
        .set("max_parked", 65_536)
        .tcp()
        .udp()
        .start();
    let mut tcp = server.tcp();
    assert_eq!(tcp.ask("echo before"), "before");
    let client = server.udp();
    client.send("sleep-block 3000 slept");
    wait_until("the handler to run", || server.total("packets_in") == 1);
    // The worker is at it: what comes now fills its ring.
    tcp.send("echo from tcp\n");
    let begin = Instant::now();
    while server.total("packets_dropped") < 1000 {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "nothing is dropped"
        );
        for _ in 0..500 {
            client.send([b'#'; 1000]);
        }
    }
    assert_eq!(client.text(), "slept");
    assert_eq!(tcp.line(), "from tcp");
    wait_until("every datagram to have its outcome", || {
        let status = server.status();
        let of = |name: &str| status["totals"][name].as_u64().unwrap();
        of("packets_in") == of("packets_out") + of("packets_dropped")
    });
    let next = server.udp();
    assert_eq!(next.ask("echo after"), "after");
    server.stop();
}

#[test]
fn a_datagram_over_the_limit_is_dropped_and_counted() {
    let server = behave().udp().with("max_message_size", 100).start();
    let client = server.udp();
    client.send([b'#'; 101]);
    client.send([b'#'; 100]);
    assert_eq!(client.receive().0, [b'#'; 100]);
    wait_until("the counter packets_too_large", || {
        server.total("packets_too_large") == 1
    });
    server.stop();
}

#[test]
fn a_unix_datagram_that_is_cut_short_is_dropped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let address = format!("unixgram:{}", path.display());
    let server = behave().listen("udp", &address).start();
    let client = unix_client(&directory.path().join("client.sock"), &path);
    client.send(&[b'#'; 70_000]).unwrap();
    client.send(b"echo next").unwrap();
    assert_eq!(receive(&client), "next");
    wait_until("the counter packets_too_large", || {
        server.total("packets_too_large") == 1
    });
    server.stop();
}

#[test]
fn a_handler_that_panics_harms_no_other_datagram() {
    let server = behave().set("workers", 1).udp().start();
    let client = server.udp();
    let pid = client.ask("pid");
    client.send("panic on purpose");
    server.expect_log("on purpose");
    assert_eq!(client.ask("pid"), pid);
    server.stop();
}

#[test]
fn datagrams_that_have_come_are_answered_before_a_stop() {
    let server = behave().udp().start();
    let client = server.udp();
    client.send("sleep-async 500 answered");
    wait_until("the handler to run", || server.total("packets_in") == 1);
    server.stop();
    assert_eq!(client.text(), "answered");
}

#[test]
fn datagrams_survive_the_master() {
    let server = behave().udp().start();
    let client = server.udp();
    assert_eq!(client.ask("echo before"), "before");
    process::kill(server.master());
    // It waits in the socket, which is the manager's too.
    client.send("echo after");
    assert_eq!(client.text(), "after");
    server.stop();
}

#[test]
fn reloads_and_kills_under_load_cost_no_datagram() {
    let _machine = heavy();
    let server = behave()
        .set("reactors", 2)
        .udp()
        .listen("udp", "[::1]:0")
        .start();
    let addresses = [server.address(0), server.address(1)];
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..20 {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                let client = UdpClient::connect(addresses[number % 2]);
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let text = format!("#{number} {n}");
                    client.send(&text);
                    // Behind a kill an answer may come twice; a lost one never comes.
                    while client.text() != text {}
                    n += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let (begin, mut kills) = (Instant::now(), 0);
        let done = |kills| kills >= 3 && answered.load(Ordering::Relaxed) > 1000;
        let patience = DEADLINE + soak(Duration::from_secs(3));
        while !done(kills) || begin.elapsed() < soak(Duration::from_secs(3)) {
            if begin.elapsed() > patience {
                // The clients end first: what one of them has found is told.
                stop.store(true, Ordering::Relaxed);
                panic!("{kills} workers killed, {answered:?} datagrams answered");
            }
            if server
                .ready_workers()
                .first()
                .is_some_and(|&pid| process::kill(pid))
            {
                kills += 1;
            }
            thread::sleep(Duration::from_millis(200));
            server.reload();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(server.total("packets_dropped"), 0);
    server.stop();
}

#[test]
fn passed_sockets_of_datagrams_are_served() {
    let server = behave()
        .udp()
        .with("fd_name", "packets")
        .launched_by(env!("CARGO_BIN_EXE_launch"), "packets=udp:127.0.0.1:0")
        .start();
    assert_eq!(server.udp().ask("echo hello"), "hello");
    server.stop();
}

#[test]
fn one_port_can_have_tcp_and_udp() {
    // Another's socket for datagrams may have the number of the port: then the next one is tried.
    let free = (0..20).find_map(|_| {
        let server = behave().tcp().start();
        let address = server.address_of("tcp");
        let is_free = std::net::UdpSocket::bind(address).is_ok();
        is_free.then_some((server, address))
    });
    let (server, address) = free.expect("a port that nobody has");
    let other = behave().listen("udp", &address.to_string()).start();
    assert_eq!(other.udp().ask("echo hello"), "hello");
    assert_eq!(server.tcp().ask("echo hello"), "hello");
    let taken = behave().listen("udp", &address.to_string()).run(&["start"]);
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.err.contains("Address already in use"), "{taken:?}");
    other.stop();
    server.stop();
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).expect("a datagram");
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}
