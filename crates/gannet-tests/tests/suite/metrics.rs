//! `/metrics`: what it counts is what happened, and no counter ever goes back.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use gannet_tests::{
    metrics::{self, Page},
    process,
    server::{Server, Spec, mode},
    wait::wait_until,
};

use crate::behave;

/// Everything that a page can show.
fn server() -> Spec {
    behave()
        .set("admin_listen", "127.0.0.1:0")
        .set("task_workers", 1)
        .websocket()
        .tcp()
        .udp()
}

/// Waits until the page says this, and nothing else.
fn expect(server: &Server, expected: &[(&str, f64)]) -> Page {
    let mut page = Page::default();
    let mut wrong = String::new();
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("the metrics", || {
            page = Page::of(server);
            wrong.clear();
            for (sample, value) in expected {
                // Of a reason that never was there is no sample.
                let found = page.find(sample).unwrap_or_default();
                if found != *value {
                    wrong.push_str(&format!("{sample} is {found}, not {value}\n"));
                }
            }
            wrong.is_empty()
        });
    }));
    assert!(reached.is_ok(), "{wrong}");
    page
}

fn handlers(event: &str) -> String {
    format!("gannet_handler_duration_seconds_count{{event=\"{event}\"}}")
}

#[test]
fn metrics_agree_with_a_known_load() {
    let server = server().start();
    let mut clients: Vec<_> = (0..3).map(|_| server.websocket()).collect();
    for client in &mut clients {
        for n in 0..10 {
            assert_eq!(client.ask(format!("echo {n}")), n.to_string());
        }
    }
    for n in 0..4 {
        assert_eq!(clients[0].ask(format!("task echo {n}")), n.to_string());
    }
    assert!(clients[0].ask("task fail on purpose").starts_with("error"));
    for _ in 0..2 {
        // What comes back, and in which order, is not looked at.
        clients[1].send("task-detach echo x");
    }
    clients[2].ask("timer after 1 late");
    assert_eq!(clients[2].text(), "late");

    let mut http = gannet_tests::http::HttpClient::connect(server.address_of("websocket"));
    for _ in 0..5 {
        assert_eq!(http.get("/").status, 200);
    }
    for _ in 0..2 {
        let mut tcp = server.tcp();
        tcp.send("echo x\n");
        tcp.line();
    }
    let mut failing = server.websocket();
    failing.send("error once");
    let mut panicking = server.websocket();
    panicking.send("panic once");

    // 3 clients of the load, two that fail, one of HTTP, two of TCP; the last four are gone.
    expect(
        &server,
        &[
            ("gannet_connections_accepted_total", 8.0),
            ("gannet_connections", 4.0),
            ("gannet_connections_closed_total{reason=\"client\"}", 2.0),
            (&handlers("open"), 5.0),
            (&handlers("message"), 40.0),
            (&handlers("request"), 5.0),
            (&handlers("connect"), 2.0),
            (&handlers("receive"), 2.0),
            (&handlers("close"), 4.0),
            (&handlers("task"), 7.0),
            (&handlers("finish"), 2.0),
            (&handlers("timer"), 1.0),
            (&handlers("packet"), 0.0),
            ("gannet_http_requests_total", 10.0),
            ("gannet_tasks_submitted_total", 7.0),
            ("gannet_tasks_finished_total", 6.0),
            ("gannet_tasks_failed_total", 1.0),
            ("gannet_tasks_queued", 0.0),
            ("gannet_events_failed_total", 2.0),
            ("gannet_events_total", 58.0),
            ("gannet_events_redelivered_total", 0.0),
            ("gannet_ready", 1.0),
        ],
    );
    // A worker writes its numbers one after another, and a page may be made in between.
    let mut page = Page::default();
    wait_until("the sums to agree", || {
        page = Page::of(&server);
        let ended = page.sum("gannet_handler_duration_seconds_count");
        page.sum("gannet_handler_panics_total") == 1.0
            // The task that failed has a handler that did, too.
            && page.sum("gannet_handler_errors_total") == 2.0
            // All but the one that panicked ran to their end; a timer is no event.
            && page.sum("gannet_handled_total") == ended - 2.0
            && page.get("gannet_event_wait_seconds_count") == ended - 1.0
    });
    assert!(page.sum("gannet_received_bytes_total") > 100.0);
    // The memory of a process is counted once: in thread mode it is the manager's.
    let owner = match mode() {
        "thread" => "manager",
        _ => "master",
    };
    let memory = format!("gannet_process_resident_memory_bytes{{role=\"{owner}\"}}");
    assert!(page.get(&memory) > 1e6);
    assert_eq!(
        page.get("gannet_processes{role=\"worker\",id=\"1\",state=\"ready\"}"),
        1.0
    );
    server.stop();
}

#[test]
fn datagrams_and_pipe_messages_are_counted() {
    let server = server()
        .env("BEHAVE_PROCESSES", "agent always inherit")
        .start();
    let udp = server.udp();
    for n in 0..3 {
        assert_eq!(udp.ask(&format!("echo {n}")), n.to_string());
    }
    let mut client = server.websocket();
    assert!(!client.ask("tell agent pid").is_empty());
    expect(
        &server,
        &[
            (&handlers("packet"), 3.0),
            (&handlers("pipe_message"), 1.0),
            ("gannet_packets_received_total", 3.0),
            ("gannet_packets_sent_total", 3.0),
            (
                "gannet_handled_total{role=\"process\",id=\"3\",name=\"agent\"}",
                1.0,
            ),
        ],
    );
    server.stop();
}

#[test]
fn a_slow_handler_and_what_waits_behind_it_are_seen() {
    let server = server().set("workers", 1).start();
    let mut client = server.websocket();
    // However late the second is sent, it waits for longer than 250 ms.
    client.send("sleep-async 1500 a");
    client.send("echo b");
    assert_eq!(
        (client.text(), client.text()),
        ("a".to_owned(), "b".to_owned())
    );
    let page = expect(&server, &[(&handlers("message"), 2.0)]);
    let slow = "gannet_handler_duration_seconds_bucket{event=\"message\",le=\"0.25\"}";
    assert_eq!(page.get(slow), 1.0, "one took longer than 250 ms");
    // The second waited for the first.
    assert_eq!(
        page.get("gannet_event_wait_seconds_count")
            - page.get("gannet_event_wait_seconds_bucket{le=\"0.25\"}"),
        1.0
    );
    let sum = page.get("gannet_handler_duration_seconds_sum{event=\"message\"}");
    assert!((1.5..30.0).contains(&sum), "{sum}");
    server.stop();
}

#[test]
fn no_counter_goes_back_when_processes_die_or_are_replaced() {
    let server = server()
        .env("BEHAVE_PROCESSES", "agent always inherit")
        .start();
    let load = |times: usize| {
        let mut client = server.websocket();
        for n in 0..times {
            assert_eq!(client.ask(format!("task echo {n}")), n.to_string());
        }
        assert!(!client.ask("tell agent pid").is_empty());
    };
    let mut last = Page::default();
    let mut check = |what: &str| {
        let page = Page::of(&server);
        for (sample, before) in last.counters() {
            let now = page.get(sample);
            assert!(
                now >= before,
                "{what}: {sample} went from {before} to {now}"
            );
        }
        last = page;
    };
    load(20);
    expect(
        &server,
        &[(&handlers("message"), 21.0), (&handlers("close"), 1.0)],
    );
    check("load");

    for (_, pid) in [server.workers(), server.task_workers()].concat() {
        process::kill(pid);
        check("a worker was killed");
    }
    let agent = server.process("agent").unwrap();
    process::kill(agent);
    check("the user process was killed");
    wait_until("all to be there again", || {
        metrics::get(&server, "/readyz").status == 200
    });
    wait_until("another agent", || {
        server.process("agent").is_some_and(|pid| pid != agent)
    });
    check("they are there again");
    load(5);
    check("more load");

    server.reload();
    check("a reload");
    load(5);
    let page = expect(
        &server,
        &[
            (&handlers("message"), 33.0),
            (&handlers("task"), 30.0),
            (&handlers("close"), 3.0),
            (&handlers("pipe_message"), 3.0),
            ("gannet_reloads_total", 1.0),
            ("gannet_reloads_failed_total", 0.0),
            ("gannet_reload_duration_seconds_count", 1.0),
            ("gannet_restarts_total{role=\"worker\",id=\"0\"}", 1.0),
            ("gannet_restarts_total{role=\"worker\",id=\"1\"}", 1.0),
            ("gannet_restarts_total{role=\"task_worker\",id=\"2\"}", 1.0),
            ("gannet_restarts_total{role=\"master\"}", 0.0),
        ],
    );
    assert!(
        page.get("gannet_last_reload_success_timestamp_seconds")
            >= page.get("gannet_start_time_seconds")
    );
    check("load after the reload");

    let master = server.master();
    process::kill(master);
    wait_until("another master", || server.master() != master);
    wait_until("it to be ready", || {
        metrics::get(&server, "/readyz").status == 200
    });
    check("the master was killed");
    load(1);
    expect(
        &server,
        &[
            (&handlers("message"), 35.0),
            ("gannet_restarts_total{role=\"master\"}", 1.0),
        ],
    );
    check("load on another master");
    server.stop();
}

#[test]
fn an_aborted_reload_is_counted_as_one() {
    let server = server().start();
    server.replace_program(env!("CARGO_BIN_EXE_fails_in_start"));
    assert_eq!(server.control(&["reload"]).code, Some(1));
    expect(
        &server,
        &[
            ("gannet_reloads_total", 1.0),
            ("gannet_reloads_failed_total", 1.0),
            ("gannet_reload_duration_seconds_count", 1.0),
            ("gannet_last_reload_successful", 0.0),
            ("gannet_last_reload_success_timestamp_seconds", 0.0),
            ("gannet_ready", 1.0),
        ],
    );
    server.stop();
}

#[test]
fn without_histograms_everything_else_is_there() {
    let server = server().set("latency_histograms", false).start();
    let mut client = server.websocket();
    client.ask("echo x");
    let page = expect(&server, &[("gannet_events_total", 2.0)]);
    assert!(
        page.families
            .contains_key("gannet_handler_duration_seconds")
    );
    assert_eq!(page.find(&handlers("message")), None);
    assert_eq!(page.find("gannet_event_wait_seconds_count"), None);
    assert_eq!(page.sum("gannet_handled_total"), 2.0);
    server.stop();
}

#[test]
fn both_formats_are_valid_and_documented() {
    let declared = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&declared, OBJECTS).unwrap();
    let server = server()
        .env("BEHAVE_SHARED", declared.path().display().to_string())
        .env("BEHAVE_PROCESSES", "agent always inherit")
        .start();
    let mut client = server.websocket();
    client.ask("shared counter hits add 3");
    expect(&server, &[("gannet_user_value{name=\"hits\"}", 3.0)]);
    client.ask("shared counter test_orders_total add 2");
    client.ask("shared counter test_baskets add -1");
    let page = expect(
        &server,
        &[("test_orders_total", 2.0), ("test_baskets", -1.0)],
    );
    assert_eq!(page.families["test_orders_total"].0, "counter");
    assert_eq!(
        page.families["test_baskets"],
        ("gauge".to_owned(), "Baskets.".to_owned())
    );
    assert_eq!(page.get("gannet_lock_held{name=\"till\"}"), 0.0);
    assert_eq!(page.get("gannet_table_rows_max{name=\"users\"}"), 100.0);

    let documented = include_str!("../../../../docs/metrics.md");
    let ours = page
        .families
        .keys()
        .filter(|name| !name.starts_with("test_"));
    for family in ours {
        assert!(
            documented.contains(&format!("| `{family}` |")),
            "{family} is not documented"
        );
    }

    let mut admin = metrics::client(&server);
    admin.send(
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n",
    );
    let response = admin.response();
    let kind = response.header("content-type").unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let other = Page::parse(&metrics::text(&response), true);
    assert_eq!(other.families.len(), page.families.len());
    assert_eq!(
        other.samples.keys().collect::<Vec<_>>(),
        page.samples.keys().collect::<Vec<_>>()
    );

    promtool(
        &["check", "metrics"],
        &metrics::text(&metrics::get(&server, "/metrics")),
    );
    server.stop();
}

/// What the program declares.
const OBJECTS: &str = "counter hits
lock till
table users 100 key text, hits i64
metric test_orders_total Orders taken, with a \\ in \"quotes\".
gauge test_baskets Baskets.
";

/// The files for others name nothing that is not there.
#[test]
fn dashboard_and_alerts_use_documented_metrics_only() {
    let documented = include_str!("../../../../docs/metrics.md");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging");
    let dashboard = std::fs::read_to_string(format!("{root}/grafana/gannet.json")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 20);
    let alerts = format!("{root}/prometheus/alerts.yml");
    for text in [dashboard, std::fs::read_to_string(&alerts).unwrap()] {
        let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut seen = 0;
        for name in names.filter(|name| name.starts_with("gannet_")) {
            let family = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|part| {
                    name.strip_suffix(part)
                        .filter(|name| name.ends_with("_seconds"))
                })
                .unwrap_or(name);
            assert!(
                documented.contains(&format!("| `{family}` |")),
                "there is no {name}"
            );
            seen += 1;
        }
        assert!(seen > 5);
    }
    let checked = Command::new("promtool")
        .args(["check", "rules", &alerts])
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

/// Prometheus' own check, as installed by `./test`.
fn promtool(arguments: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, from the package prometheus");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
