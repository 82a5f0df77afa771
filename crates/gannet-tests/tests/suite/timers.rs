//! Timers: they run beside the handlers, and keep nobody.

use std::{collections::BTreeMap, fs};

use gannet_tests::{server::Spec, wait::wait_until};
use tempfile::NamedTempFile;

use crate::behave;

#[test]
fn timers_send_beside_handlers_and_go_on_after_a_failure_of_others() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("timer every 10 tick"), "set");
    let mut other = server.websocket();
    other.ask("timer panic-after 1");
    other.ask("timer fail-after 1");
    assert_eq!(other.ask("timer after 20 late"), "set");
    assert_eq!(other.text(), "late");
    wait_until("the failures to be counted", || {
        let worker = &server.status()["workers"][0];
        (worker["panics"].as_u64(), worker["errors"].as_u64()) == (Some(1), Some(1))
    });
    for says in ["timer panicked", "timer failed", "as asked", "timers.rs:"] {
        server.expect_log(says);
    }
    for _ in 0..5 {
        assert_eq!(client.text(), "tick");
    }
    server.stop();
}

#[test]
fn armed_timers_do_not_delay_a_stop_or_a_reload() {
    let server = behave().set("task_workers", 1).websocket().start();
    let mut client = server.websocket();
    client.ask("timer after 86400000 never");
    client.ask("timer every 86400000 never");
    let old = server.workers();
    server.reload();
    wait_until("the old workers' end", || {
        !server.workers().iter().any(|worker| old.contains(worker))
    });
    client.ask("timer after 86400000 never");
    server.stop();
}

#[test]
fn a_replaced_worker_makes_no_more_calls_while_it_finishes() {
    let (runs, declared) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
    fs::write(&declared, "counter go\n").unwrap();
    let declared = declared.path().display().to_string();
    let server = ticking(&runs, "10").env("BEHAVE_SHARED", declared).start();
    let mut client = server.websocket();
    let old: u32 = client.ask("pid").parse().unwrap();
    wait_until("ticks", || ticks(&runs).contains_key(&old));

    // Keeps the old worker for as long as the test looks.
    client.send("shared counter go wait 1");
    wait_until("the handler to run", || server.in_flight() > 0);
    server.reload();
    let new = server.ready_workers()[0];
    assert_ne!(new, old);
    wait_until("the successor's ticks", || {
        ticks(&runs).get(&new).is_some_and(|ticks| *ticks > 5)
    });
    // It may hear a moment later that it was replaced; from then on only the successor calls.
    wait_until("one of the two to call alone", || {
        let before = ticks(&runs);
        wait_until("more of the successor's ticks", || {
            ticks(&runs)[&new] > before[&new] + 20
        });
        ticks(&runs)[&old] == before[&old]
    });
    assert!(
        server.workers().iter().any(|(_, pid)| *pid == old),
        "the old worker has ended too soon"
    );
    server.websocket().ask("shared counter go add 1");
    assert_eq!(client.text(), "1");
    server.stop();
}

#[test]
fn timers_of_a_task_worker_wait_for_its_task_and_skip_what_they_missed() {
    let runs = NamedTempFile::new().unwrap();
    let server = ticking(&runs, "10").start();
    let tasks = server.task_workers()[0].1;
    wait_until("ticks", || ticks(&runs).contains_key(&tasks));
    let mut client = server.websocket();
    client.send("task sleep 3000 done");
    wait_until("the task to run", || server.tasks_running() == 1);
    let before = ticks(&runs)[&tasks];
    assert_eq!(client.text(), "done");
    // Three hundred were missed.
    let after = ticks(&runs)[&tasks];
    assert!(after - before < 150, "{before} ticks, then {after}");
    wait_until("ticks after the task", || ticks(&runs)[&tasks] > after);
    server.stop();
}

#[test]
fn a_user_process_has_timers_that_do_not_keep_it() {
    let server = behave()
        .set("workers", 1)
        .env("BEHAVE_PROCESSES", "agent always inherit")
        .websocket()
        .start();
    let mut client = server.websocket();
    let mut ticks = server.websocket();
    assert_eq!(ticks.ask("tell agent timer every 10 tick"), "set");
    assert_eq!(ticks.text(), "tick");
    assert_eq!(client.ask("tell agent timer panic-after 1"), "set");
    wait_until("the panic to be counted", || {
        let status = server.status();
        let rows = status["workers"].as_array().unwrap();
        let agent = rows.iter().find(|row| row["name"] == "agent").unwrap();
        agent["panics"] == 1
    });
    assert_eq!(ticks.text(), "tick");
    client.ask("tell agent timer every 86400000 never");
    let old = client.ask("tell agent pid");
    server.reload();
    wait_until("another agent", || client.ask("tell agent pid") != old);
    server.stop();
}

#[test]
fn timers_begin_again_with_the_successor_of_a_crashed_worker() {
    let runs = NamedTempFile::new().unwrap();
    let server = ticking(&runs, "10").start();
    let old = server.workers()[0].1;
    gannet_tests::process::kill(old);
    wait_until("the successor's ticks", || {
        let workers = server.workers();
        workers
            .iter()
            .any(|(_, pid)| *pid != old && ticks(&runs).contains_key(pid))
    });
    server.stop();
}

/// A server with one worker and one task worker, which note their ticks.
fn ticking(runs: &NamedTempFile, ms: &str) -> Spec {
    behave()
        .set("workers", 1)
        .set("task_workers", 1)
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .env("BEHAVE_TIMER", ms)
        .websocket()
}

/// Ticks by process.
fn ticks(runs: &NamedTempFile) -> BTreeMap<u32, usize> {
    let mut ticks = BTreeMap::new();
    for line in fs::read_to_string(runs.path()).unwrap().lines() {
        if let Some(pid) = line.strip_prefix("tick ") {
            *ticks.entry(pid.parse().unwrap()).or_default() += 1;
        }
    }
    ticks
}
