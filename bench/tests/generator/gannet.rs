//! Every command against a server of the engine.

use std::{env, path::PathBuf};

use gannet_tests::{
    process::Signal,
    server::{Server, Spec},
    tls::Keys,
    wait::wait_until,
};

use crate::kit::{Outcome, bench, run};

/// The example, which cargo has built with these tests.
fn topics() -> Spec {
    let own = env::current_exe().expect("this program");
    let directory = own.ancestors().nth(2).expect("what cargo has built");
    let program: PathBuf = directory.join("examples/topics");
    assert!(program.exists(), "{} is not built", program.display());
    Spec::new(program).set("reactors", 1)
}

fn pid(server: &Server) -> String {
    server.manager().to_string()
}

#[test]
fn bytes_come_back_over_tcp() {
    let server = topics().tcp().start();
    let (target, pid) = (server.address(0).to_string(), pid(&server));
    let outcome = bench(&["tcp", &target, "--server-pid", &pid]);
    outcome.expect_clean();
    assert!(outcome.number("messages") > 100.0);
    assert!(
        outcome.number("server.cpu_us_per_message") > 0.1,
        "{outcome:?}"
    );
    assert!(
        outcome.number("server.memory.user") > 100_000.0,
        "{outcome:?}"
    );
    assert!(
        outcome.number("client.cpu_us_per_message") > 0.1,
        "{outcome:?}"
    );
    for flags in [
        &["--depth", "16"][..],
        &["--size", "1,70000,300", "--depth", "3"],
        &["--threads", "3", "-c", "7"],
        &["--rate", "500"],
        &["--source", "127.0.0.5,127.0.0.6"],
    ] {
        bench(&[&["tcp", &target][..], flags].concat()).expect_clean();
    }
    server.stop();
}

#[test]
fn messages_come_back_over_websocket() {
    let server = topics().websocket().start();
    let url = format!("ws://{}/", server.address(0));
    let outcome = bench(&["ws", &url, "--text", "--header", "X-A: b"]);
    outcome.expect_clean();
    assert!(outcome.number("messages") > 100.0);
    for flags in [
        &["--size", "0,1,126,65536", "--depth", "4"][..],
        &["--rate", "500"],
    ] {
        bench(&[&["ws", &url, "--text"][..], flags].concat()).expect_clean();
    }
    server.stop();
}

#[test]
fn bodies_come_back_over_http() {
    let server = topics().http().start();
    let url = format!("http://{}/", server.address(0));
    bench(&["http", &url, "--expect-body", ""]).expect_clean();
    let outcome = bench(&["http", &url, "--size", "64", "--depth", "16"]);
    outcome.expect_clean();
    assert!(outcome.number("messages") > 100.0);
    bench(&["http", &url, "--size", "1,5000,100000", "--method", "put"]).expect_clean();
    bench(&["connect", &url, "--exchange"]).expect_clean();
    server.stop();
}

#[test]
fn all_of_it_goes_over_tls() {
    let keys = Keys::default();
    let ca = keys.ca();
    let ca = ca.to_str().expect("text");
    let server = keys.serve(keys.serve(topics().tcp()).websocket()).start();
    let [tcp, ws] = [0, 1].map(|listener| server.address(listener));
    bench(&["tcp", &format!("tls://{tcp}"), "--ca", ca]).expect_clean();
    bench(&[
        "tcp",
        &format!("tls://{tcp}"),
        "--insecure",
        "--size",
        "100000",
    ])
    .expect_clean();
    bench(&[
        "ws",
        &format!("wss://{ws}/"),
        "--text",
        "--ca",
        ca,
        "--depth",
        "8",
    ])
    .expect_clean();
    bench(&["http", &format!("https://{ws}/"), "--ca", ca]).expect_clean();
    let stranger = bench(&["tcp", &format!("tls://{tcp}")]);
    assert_eq!(stranger.code, Some(3), "{stranger:?}");
    assert!(stranger.errors.contains("TLS:"), "{stranger:?}");
    server.stop();
}

#[test]
fn handshakes_are_in_full_or_resumed() {
    let keys = Keys::default();
    let secure = keys.serve(topics().tcp());
    let server = secure.with_tls("max_handshakes_per_s", 1_000_000).start();
    let (target, ca) = (server.address(0).to_string(), keys.ca());
    // They take long on a busy machine.
    let ca = ca.to_str().expect("text");
    let arguments = ["handshakes", &target, "--ca", ca, "--duration", "2s"];
    let full = bench(&arguments);
    full.expect_clean();
    assert!(full.number("handshakes") > 10.0, "{full:?}");
    assert_eq!(full.number("resumed"), 0.0);
    let resumed = bench(&[&arguments[..], &["--exchange", "--resume"]].concat());
    resumed.expect_clean();
    assert!(
        resumed.number("resumed") > resumed.number("handshakes"),
        "{resumed:?}"
    );
    server.stop();
}

#[test]
fn a_storm_makes_connections_again_and_again() {
    let server = topics().tcp().websocket().start();
    let target = server.address(0).to_string();
    let outcome = bench(&["connect", &target, "--exchange"]);
    outcome.expect_clean();
    assert!(outcome.number("connects") > 50.0, "{outcome:?}");
    let url = format!("ws://{}/", server.address(1));
    let outcome = bench(&["connect", &url, "--rate", "100", "--duration", "1s"]);
    outcome.expect_clean();
    assert!(
        (50.0..150.0).contains(&outcome.number("connects")),
        "{outcome:?}"
    );
    server.stop();
}

#[test]
fn idle_connections_are_counted_by_the_server_too() {
    let server = topics().websocket().start();
    let url = format!("ws://{}/", server.address(0));
    let pid = pid(&server);
    let flags = "--connections 500 --warm 200 --settle 200ms --server-pid";
    let mut arguments = vec!["idle", &url];
    arguments.extend(flags.split(' '));
    arguments.push(&pid);
    let outcome = bench(&arguments);
    outcome.expect_clean();
    assert!(outcome.number("bytes_per_connection") > 10.0, "{outcome:?}");
    wait_until("all to be gone", || server.connections() == 0);
    assert!(server.total("accepted") >= 700, "{:?}", server.status());
    server.stop();
}

#[test]
fn a_broadcast_arrives_everywhere() {
    let server = topics().websocket().start();
    let url = format!("ws://{}/", server.address(0));
    let flags = ["--subscribers", "20", "--publishers", "3", "--depth", "4"];
    let outcome = bench(&[&["broadcast", &url][..], &flags].concat());
    outcome.expect_clean();
    assert!(outcome.number("deliveries") > 23.0, "{outcome:?}");
    assert!(outcome.number("published") > 1.0, "{outcome:?}");
    // This server sends to the publisher too: one more than was to come.
    let outcome = bench(&[&["broadcast", &url, "--exclude-publisher"][..], &flags].concat());
    outcome.expect_error("more than 22 connections");
    server.stop();
}

#[test]
fn a_reload_under_load_loses_nothing() {
    let server = topics().tcp().start();
    let target = server.address(0).to_string();
    let running = std::thread::spawn(move || {
        bench(&["tcp", &target, "-c", "8", "--duration", "3s", "--reconnect"])
    });
    wait_until("the load", || server.connections() == 8);
    if gannet_tests::server::mode() == "process" {
        server.signal(Signal::USR1);
    }
    let outcome = running.join().expect("the generator");
    outcome.expect_clean();
    assert_eq!(outcome.number("reconnects"), 0.0);
    server.stop();
}

/// The names in the JSON: programs read them.
#[test]
fn the_json_keeps_its_names() {
    fn names(value: &serde_json::Value, path: &str, out: &mut Vec<String>) {
        match value.as_object() {
            Some(object) => {
                for (name, value) in object {
                    names(value, &format!("{path}.{name}"), out);
                }
            }
            None => out.push(path.trim_start_matches('.').to_owned()),
        }
    }
    let server = topics().tcp().start();
    let (target, pid) = (server.address(0).to_string(), pid(&server));
    let outcome = bench(&[
        "tcp",
        &target,
        "--server-pid",
        &pid,
        "--rate",
        "100",
        "--reconnect",
    ]);
    let mut found = Vec::new();
    names(&outcome.json, "", &mut found);
    found.sort();
    let expected = "client.busy client.cpu_us client.cpu_us_per_message connections depth \
        error_kinds.failed_connects error_kinds.lost_connections error_kinds.lost_messages \
        error_kinds.status error_kinds.timeout error_kinds.wrong errors latency_us.max \
        latency_us.mean latency_us.min latency_us.p50 latency_us.p90 latency_us.p99 \
        latency_us.p999 messages messages_per_s open_loop.late_max_us open_loop.late_p99_us \
        open_loop.unsent rate reconnects seconds server.cpu_us server.cpu_us_per_message \
        server.memory.pss server.memory.rss server.memory.user server.switches_per_message \
        server.system_us server.user_us server.user_us_per_message size target threads what worst.at_s worst.connection \
        worst.us";
    assert_eq!(found.join(" "), expected);
    server.stop();
}

#[test]
fn people_get_a_table() {
    let server = topics().tcp().start();
    let target = server.address(0).to_string();
    let outcome: Outcome = run(&["tcp", &target, "--duration", "300ms"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for text in [
        "messages",
        "latency     p50",
        "closed loop",
        "errors      none",
    ] {
        assert!(outcome.output.contains(text), "{text}: {}", outcome.output);
    }
    server.stop();
}
