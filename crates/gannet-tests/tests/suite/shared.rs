//! Counters, locks and tables: one of each name for all processes, and longer than any of them.

use std::fs;

use gannet_tests::{
    process::{self, Signal},
    server::{Server, Spec},
    wait::wait_until,
};
use tempfile::NamedTempFile;

use crate::behave;

#[test]
fn all_processes_share_what_the_manager_has_prepared() {
    let (server, _declared) = start(ALL, |spec| spec);
    let mut clients = two_workers(&server);
    for client in &mut clients {
        assert_eq!(client.ask("shared counter prepared load"), "42");
        assert_eq!(client.ask("shared table users get prepared"), "42");
    }
    // A worker, another worker and a task worker.
    assert_eq!(clients[0].ask("shared counter hits add 1"), "1");
    assert_eq!(clients[1].ask("shared counter hits add 1"), "2");
    assert_eq!(clients[0].ask("task shared counter hits add 1"), "3");
    assert_eq!(clients[0].ask("shared table users incr ann"), "1");
    assert_eq!(clients[1].ask("task shared table users incr ann"), "2");
    assert_eq!(clients[1].ask("shared table users get ann"), "2");

    let status = server.status();
    let shared = &status["shared"];
    assert_eq!(shared["counters"][1]["name"], "hits");
    assert_eq!(shared["counters"][1]["value"], 3);
    assert_eq!(shared["tables"][0]["schema"], "key text, hits i64");
    assert_eq!(shared["tables"][0]["rows"], 2);
    assert_eq!(shared["tables"][0]["max_rows"], 100);
    assert_eq!(shared["locks"][0]["held_by"], serde_json::Value::Null);
    let text = server.control(&["status"]).out;
    for title in ["COUNTER", "LOCK", "TABLE"] {
        assert!(text.contains(title), "{text}");
    }
    server.stop();
}

#[test]
fn user_processes_share_with_workers() {
    let agent = |spec: Spec| {
        spec.set("workers", 1)
            .env("BEHAVE_PROCESSES", "agent always inherit")
    };
    let (server, declared) = start(ALL, agent);
    let mut client = server.websocket();
    let mut agent = server.websocket();
    assert_eq!(agent.ask("tell agent shared counter prepared load"), "42");
    agent.send("tell agent shared counter hits wait 2");
    client.ask("shared counter hits add 1");
    client.ask("task shared counter hits add 1");
    assert_eq!(agent.text(), "2");
    assert_eq!(agent.ask("tell agent shared table users incr ann"), "1");
    assert_eq!(client.ask("shared table users get ann"), "1");

    client.send("shared lock till hold hits 3");
    wait_for_holder(&server);
    assert_eq!(agent.ask("tell agent shared lock till try"), "held");
    agent.ask("tell agent shared counter hits add 1");
    assert_eq!(client.text(), "taken");

    // Its successor, too, has to declare what there is.
    let old = agent.ask("tell agent pid");
    fs::write(&declared, "counter clicks\n").unwrap();
    assert_eq!(server.control(&["reload"]).code, Some(1));
    fs::write(&declared, ALL).unwrap();
    server.reload();
    wait_until("another agent", || agent.ask("tell agent pid") != old);
    assert_eq!(agent.ask("tell agent shared counter hits load"), "3");
    server.stop();
}

#[test]
fn they_outlive_workers_reloads_and_the_master() {
    let (server, _declared) = start(ALL, |spec| spec.set("workers", 1));
    let mut client = server.websocket();
    assert_eq!(client.ask("shared counter hits add 5"), "5");
    assert_eq!(client.ask("shared table users incr ann"), "1");

    server.replace_program(env!("CARGO_BIN_EXE_behave_v2"));
    server.reload();
    assert_eq!(client.ask("version"), "2");
    assert_eq!(client.ask("shared counter hits add 5"), "10");

    let pid: u32 = client.ask("pid").parse().unwrap();
    process::kill(pid);
    assert_eq!(client.ask("shared counter hits add 5"), "15");

    let master = server.master();
    process::kill(master);
    wait_until("another master", || server.master() != master);
    let mut client = server.websocket();
    assert_eq!(client.ask("shared counter hits load"), "15");
    assert_eq!(client.ask("shared table users incr ann"), "2");
    assert_eq!(
        client.ask("shared counter prepared load"),
        "42",
        "prepared more than once"
    );
    server.stop();
}

#[test]
fn a_handler_that_waits_for_a_counter_or_a_lock_does_not_stop_its_worker() {
    let (server, _declared) = start(ALL, |spec| spec.set("workers", 1));
    let (mut waits, mut holds, mut queues) =
        (server.websocket(), server.websocket(), server.websocket());
    let mut other = server.websocket();
    waits.send("shared counter hits wait 3");
    holds.send("shared lock till hold hits 3");
    wait_for_holder(&server);
    queues.send("shared lock till hold hits 0");
    // All three are handlers of the one thread that answers this.
    assert_eq!(other.ask("echo here"), "here");
    assert_eq!(other.ask("shared lock till try"), "held");
    for _ in 0..3 {
        other.ask("task shared counter hits add 1");
    }
    assert_eq!(waits.text(), "3");
    assert_eq!(holds.text(), "taken");
    assert_eq!(queues.text(), "taken");
    server.stop();
}

#[test]
fn a_task_may_block_for_a_counter_and_for_a_lock() {
    let (server, _declared) = start(ALL, |spec| spec);
    let mut client = server.websocket();
    let mut blocked = server.websocket();
    blocked.send("task shared counter hits block 1");
    wait_until("the task to run", || server.tasks_running() == 1);
    client.ask("shared counter hits add 1");
    assert_eq!(blocked.text(), "1");

    client.send("shared lock till hold hits 2");
    wait_for_holder(&server);
    assert_eq!(blocked.ask("task shared lock till block 1"), "held");
    blocked.send("task shared lock till block 20000");
    wait_until("the task to run", || server.tasks_running() == 1);
    server.websocket().ask("shared counter hits add 1");
    assert_eq!(blocked.text(), "taken");
    assert_eq!(client.text(), "taken");
    server.stop();
}

#[test]
fn the_lock_of_a_dead_or_panicking_handler_goes_on_and_says_so() {
    let (server, _declared) = start(ALL, |spec| spec);
    let mut clients = two_workers(&server);
    let mut dies = server.websocket();
    dies.send("shared lock till panic");
    dies.expect_close(1011);
    assert_eq!(clients[0].ask("shared lock till try"), "taken, owner died");
    assert_eq!(clients[1].ask("shared lock till try"), "taken");

    // The master gives the event to the successor, too: three deaths, then it is dropped.
    server.websocket().send("shared lock till die");
    wait_until("three deaths", || {
        let mut client = server.websocket();
        client.ask("task shared lock till block 20000");
        server.status()["shared"]["locks"][0]["deaths"] == 4
    });
    server.stop();
}

#[test]
fn a_stopped_holder_keeps_its_lock() {
    let (server, _declared) = start(ALL, |spec| spec);
    let [mut holder, mut other] = two_workers(&server);
    let pid: u32 = holder.ask("pid").parse().unwrap();
    holder.send("shared lock till hold hits 1");
    wait_for_holder(&server);
    process::signal(pid, Signal::STOP);
    assert_eq!(other.ask("shared lock till try"), "held");
    assert_eq!(other.ask("task shared lock till block 300"), "held");
    // What it is to let go at; it is stopped.
    other.ask("shared counter hits add 1");
    assert_eq!(other.ask("task shared lock till block 300"), "held");
    assert_eq!(
        server.status()["shared"]["locks"][0]["held_by"],
        pid,
        "another holds it"
    );
    process::signal(pid, Signal::CONT);
    assert_eq!(holder.text(), "taken");
    assert_eq!(other.ask("task shared lock till block 20000"), "taken");
    assert_eq!(server.status()["shared"]["locks"][0]["deaths"], 0);
    server.stop();
}

#[test]
fn reload_onto_code_that_declares_something_else_keeps_the_old_code() {
    let (server, declared) = start(ALL, |spec| spec);
    let mut client = server.websocket();
    let pid = client.ask("pid");
    client.ask("shared counter hits add 1");
    let refused = |declares: &str| {
        fs::write(&declared, declares).unwrap();
        let ended = server.control(&["reload"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        ended.err
    };
    let error = refused("table users 100 key text, hits i64, name text(32)\n");
    for schema in ["key text, hits i64.", "key text, hits i64, name text(32)"] {
        assert!(error.contains(schema), "{error}");
    }
    let error = refused("counter clicks\n");
    assert!(
        error.contains("`clicks`") && error.contains("counter hits") && error.contains("lock till"),
        "{error}"
    );
    let error = refused("lock hits\n");
    assert!(error.contains("it is a counter"), "{error}");
    assert_eq!(client.ask("pid"), pid, "another worker serves");
    assert_eq!(client.ask("shared counter hits add 1"), "2");

    fs::write(&declared, "counter hits\n").unwrap();
    server.reload();
    assert_eq!(client.ask("shared counter hits add 1"), "3");
    server.stop();
}

#[test]
fn what_was_not_declared_is_not_found_and_the_error_says_what_is() {
    let (server, _declared) = start(ALL, |spec| spec);
    let mut client = server.websocket();
    let error = client.ask("shared counter clicks load");
    assert!(
        error.contains("no counter `clicks`") && error.contains("prepared, hits"),
        "{error}"
    );
    let error = client.ask("shared lock users try");
    assert_eq!(error, "error: `users` is a table, not a lock");
    server.stop();
}

#[test]
fn a_declaration_that_cannot_be_is_refused_at_the_start() {
    for (declares, says) in [
        ("counter two words\n", "cannot be the name of a counter"),
        ("counter a\nlock a\n", "`a` is declared twice"),
        (
            "table a 0 key text, hits i64\n",
            "cannot be made for 0 rows",
        ),
    ] {
        let declared = NamedTempFile::new().unwrap();
        fs::write(&declared, declares).unwrap();
        let path = declared.path().display().to_string();
        let ended = behave()
            .websocket()
            .env("BEHAVE_SHARED", path)
            .run(&["start"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(says), "{}", ended.err);
    }
}

/// A server with these declarations and one task worker, and the file where they are.
fn start(declares: &str, change: impl FnOnce(Spec) -> Spec) -> (Server, NamedTempFile) {
    let declared = NamedTempFile::new().unwrap();
    fs::write(&declared, declares).unwrap();
    let path = declared.path().display().to_string();
    let spec = behave().set("task_workers", 1).websocket();
    (change(spec.env("BEHAVE_SHARED", path)).start(), declared)
}

/// Waits until somebody has the lock.
fn wait_for_holder(server: &Server) {
    wait_until("the lock to be held", || {
        server.status()["shared"]["locks"][0]["held_by"].is_u64()
    });
}

/// Clients of two different workers.
fn two_workers(server: &Server) -> [gannet_tests::websocket::WebSocket; 2] {
    let mut first = server.websocket();
    let worker = first.ask("worker");
    let mut second = server.websocket();
    while second.ask("worker") == worker {
        second = server.websocket();
    }
    [first, second]
}

const ALL: &str = "counter prepared\ncounter hits\nlock till\ntable users 100 key text, hits i64\n";
