//! Thread mode: what is true of it alone. That the rest is as in process mode is what the suite in
//! thread mode is for (`./test suite-thread`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
};

use gannet_tests::{
    gate::Gate,
    process::Signal,
    server::{Spec, rows},
    tcp::TcpClient,
    wait::wait_until,
    websocket::WebSocket,
};

use crate::behave;

fn threads() -> Spec {
    behave().set("mode", "thread")
}

#[test]
fn everything_is_one_process() {
    let server = threads()
        .set("task_workers", 1)
        .env("BEHAVE_PROCESSES", "agent always inherit")
        .websocket()
        .start();
    let mut client = server.websocket();
    let pid = server.manager().to_string();
    assert_eq!(client.ask("pid"), pid);
    assert_eq!(client.ask("task pid"), pid);
    assert_eq!(client.ask("tell agent pid"), pid);
    assert_eq!(server.processes(), [server.manager()]);
    let status = server.status();
    assert_eq!(status["mode"], "thread");
    let numbers: BTreeSet<u64> = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["pid"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len(), 4, "each thread has its number: {status}");
    server.stop();
}

#[test]
fn connections_are_shared_out_evenly() {
    let server = threads().set("workers", 4).tcp().start();
    let mut clients: Vec<TcpClient> = (0..32).map(|_| server.tcp()).collect();
    let mut by_worker = BTreeMap::new();
    for client in &mut clients {
        *by_worker.entry(client.ask("worker")).or_insert(0) += 1;
    }
    assert!(
        by_worker.len() == 4 && by_worker.values().all(|&count| (6..=10).contains(&count)),
        "{by_worker:?}"
    );
    let shown = server.control(&["clients", "--json"]);
    assert_eq!(rows(&shown.out).len(), 32);
    server.stop();
}

#[test]
fn by_address_all_connections_of_a_client_are_on_one_thread() {
    let server = threads()
        .set("workers", 4)
        .set("dispatch", "peer_address")
        .tcp()
        .start();
    let mut clients: Vec<TcpClient> = (0..12).map(|_| server.tcp()).collect();
    let workers: BTreeSet<String> = clients.iter_mut().map(|it| it.ask("worker")).collect();
    assert_eq!(workers.len(), 1, "{workers:?}");
    server.stop();
}

#[test]
fn events_and_answers_cross_threads() {
    let server = threads()
        .set("workers", 3)
        .set("dispatch", "round_robin")
        .websocket()
        .start();
    let mut clients: Vec<WebSocket> = (0..6).map(|_| server.websocket()).collect();
    let workers: BTreeSet<String> = (0..9).map(|_| clients[0].ask("worker")).collect();
    assert_eq!(workers.len(), 3, "{workers:?}");
    let ids: Vec<String> = clients.iter_mut().map(|client| client.ask("id")).collect();
    for (id, to) in ids.iter().zip(1..) {
        let (from, to) = (to - 1, to % 6);
        clients[to].send(format!("send {id} hello"));
        assert_eq!(clients[from].text(), "hello");
        assert_eq!(clients[to].text(), "sent");
    }
    server.stop();
}

#[test]
fn reload_says_that_it_needs_process_mode_and_changes_nothing() {
    let server = threads().websocket().start();
    let mut client = server.websocket();
    for arguments in [&["reload"][..], &["reload", "--tasks"]] {
        let ended = server.control(arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("needs process mode"), "{ended:?}");
    }
    server.signal(Signal::USR1);
    wait_until("the log to say so", || {
        server.log().contains("needs process mode")
    });
    assert_eq!(server.status()["reloads"], 0);
    assert_eq!(client.ask("echo still"), "still");
    server.stop();
}

#[test]
fn what_needs_processes_is_refused_at_the_start() {
    let refused = |spec: Spec, why: &str| {
        let ended = spec.tcp().run(&["start"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(why), "{ended:?}");
    };
    refused(threads().set("max_requests", 10), "`max_requests` = 10");
    refused(threads().set("workers", 65), "at most 64");
    refused(
        threads().env("BEHAVE_PROCESSES", "agent always log"),
        "process `agent`",
    );
    refused(threads().set("watch", vec!["."]), "`watch`");
}

#[test]
fn the_flag_sets_the_mode_and_wrong_ones_are_refused() {
    let ended = behave().tcp().run(&["start", "--mode", "fibre"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("--mode"), "{ended:?}");
}

#[test]
fn a_thread_that_makes_no_progress_is_told_of_and_others_go_on() {
    let server = threads().set("stall_timeout_ms", 2_000).websocket().start();
    let mut stuck = server.websocket();
    let mut other = server.websocket();
    assert_ne!(stuck.ask("worker"), other.ask("worker"));
    let gate = Gate::shut();
    stuck.send(format!("gate-block {} late", gate.path()));
    wait_until("the watchdog", || server.total("hangs") == 1);
    assert_eq!(other.ask("echo meanwhile"), "meanwhile");
    server.expect_log("has made no progress");
    gate.open();
    assert_eq!(stuck.text(), "late");
    wait_until("the log to say that it goes on", || {
        server.log().contains("goes on")
    });
    assert_eq!(server.total("hangs"), 1);
    server.stop();
}

#[test]
fn panics_of_handlers_are_caught_and_the_thread_goes_on() {
    let server = threads().set("workers", 1).http().websocket().start();
    let mut other = server.websocket();
    for _ in 0..3 {
        let mut client = server.websocket();
        client.send("panic now");
        assert!(
            client
                .try_message()
                .is_ok_and(|end| format!("{end:?}").contains("Close"))
        );
    }
    assert_eq!(other.ask("echo here"), "here");
    wait_until("the count", || server.status()["workers"][0]["panics"] == 3);
    assert_eq!(server.status()["workers"][0]["restarts"], 0);
    server.stop();
}

/// A log that nobody reads takes nothing more: a panic, which many clients can cause, must not have its
/// thread wait for it, with all connections there. What it does take is time for its backtrace.
#[test]
fn panics_wait_for_no_log() {
    let server = threads()
        .set("workers", 1)
        .set("stall_timeout_ms", 3_000)
        .set("log_wait_ms", 6_000)
        .set("log_queue", 256 << 10)
        .set("log_repeat_limit", 0)
        .unread_log()
        .websocket()
        .start();
    let mut client = server.websocket();
    let text = "x".repeat(1000);
    assert_eq!(client.ask(format!("log-many 2000 {text}")), "done");
    wait_until("the log to be full", || server.total("log_lost") > 0);
    let hangs = server.total("hangs");
    for _ in 0..3 {
        let mut panics = server.websocket();
        panics.send("panic now");
        assert!(panics.try_message().is_ok());
    }
    assert_eq!(client.ask("echo here"), "here");
    assert_eq!(server.total("hangs"), hangs);
    server.stop();
}

#[test]
fn a_panic_of_the_programs_functions_in_the_reactor_costs_one_connection() {
    let server = threads()
        .set("workers", 1)
        .env("BEHAVE_FRAMING", "custom")
        .tcp()
        .start();
    let mut client = TcpStream::connect(server.address(0)).unwrap();
    // The function that finds messages panics at this.
    client.write_all(&[255]).unwrap();
    let mut end = Vec::new();
    assert_eq!(client.read_to_end(&mut end).unwrap_or(0), 0);
    let mut other = TcpStream::connect(server.address(0)).unwrap();
    other.write_all(b"\x05echo\n").unwrap();
    wait_until("it to be served", || server.connections() == 1);
    server.expect_log("framing function panicked");
    drop(other);
    server.stop();
}

#[test]
fn a_user_process_follows_its_policy() {
    let server = threads()
        .env("BEHAVE_PROCESSES", "a always inherit;n never inherit")
        .websocket()
        .start();
    let mut client = server.websocket();
    client.send("tell a return");
    wait_until("its successor", || {
        server.process_status("a")["restarts"] == 1
    });
    client.send("tell n error done");
    wait_until("it to stay ended", || {
        server.process_status("n")["state"] == "ended"
    });
    let last = server.process_status("n")["last_exit"].to_string();
    assert!(last.contains("as asked: done"), "{last}");
    server.stop();
}

#[test]
fn a_stop_waits_for_no_thread_for_ever() {
    let mut server = threads().set("max_wait_time_ms", 200).websocket().start();
    let mut client = server.websocket();
    let events = server.events();
    client.send("sleep-block 60000 never");
    wait_until("the handler to run", || server.events() > events);
    server.signal(Signal::TERM);
    server.expect_exit(0);
    assert!(server.log().contains("did not end in time"));
}

/// What stands in `process-only.txt` is left out in thread mode: so each line is to name a test.
#[test]
fn what_is_left_out_in_thread_mode_exists_and_has_a_reason() {
    let home = env!("CARGO_MANIFEST_DIR");
    let list = std::fs::read_to_string(format!("{home}/process-only.txt")).unwrap();
    let lines = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let (test, reason) = line.split_once("  ").expect(line);
        assert!(!reason.trim().is_empty(), "{line}");
        let (module, function) = test.split_once("::").expect(line);
        let source = format!("{home}/tests/suite/{module}.rs");
        let source = std::fs::read_to_string(source).expect(line);
        let named = format!("\nfn {function}() ");
        assert!(function == "*" || source.contains(&named), "{line}");
    }
}
