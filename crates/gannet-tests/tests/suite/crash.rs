//! Workers die under load: no connection closes, no message is lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use gannet_tests::{
    load::{Client, Load},
    process::{self, Signal},
    server::{Server, Spec},
    wait::{DEADLINE, soak, wait_until},
    websocket::WebSocket,
};

use crate::{behave, heavy};

#[test]
fn killed_workers_cost_no_connection_and_no_message() {
    let harm = |server: &Server, round: usize| {
        let workers = server.workers();
        let victim = workers.get(scramble(round) % workers.len().max(1));
        let killed = victim.is_some_and(|&(_, pid)| process::kill(pid));
        thread::sleep(Duration::from_millis(300));
        killed
    };
    under_load(spec().start(), harm);
}

#[test]
fn aborting_handlers_cost_no_connection_and_no_message() {
    let server = spec().set("reactors", 2).start();
    let mut saboteur = WebSocket::connect(server.address_of("websocket"));
    let harm = move |_: &Server, round: usize| {
        let answer = saboteur.ask(format!("abort-once {round}"));
        assert_eq!(answer, format!("survived {round}"));
        thread::sleep(Duration::from_millis(300));
        true
    };
    under_load(server, harm);
}

#[test]
fn stalled_workers_are_replaced_and_cost_no_connection_and_no_message() {
    let spec = spec().set("stall_timeout_ms", 500);
    let harm = |server: &Server, round: usize| {
        // One that is not ready would be waited for as long as a start may take.
        let workers = server.ready_workers();
        let Some(&pid) = workers.get(scramble(round) % workers.len().max(1)) else {
            return false;
        };
        process::signal(pid, Signal::STOP);
        wait_until("the stalled worker's end", || !process::alive(pid));
        true
    };
    under_load(spec.start(), harm);
}

#[test]
fn a_worker_that_was_of_use_is_followed_at_once() {
    let server = spec().set("workers", 1).start();
    let mut killed = 0;
    for _ in 0..6 {
        killed = server.worker_of_use(killed);
        process::kill(killed);
        let said =
            format!("(pid {killed}) ended: signal 9 (SIGKILL); its successor starts at once");
        server.expect_log(&said);
    }
    server.stop();
}

#[test]
fn workers_that_are_of_use_and_die_all_the_time_are_followed_more_and_more_slowly() {
    let server = spec().set("workers", 1).start();
    let mut killed = 0;
    let early_deaths = || server.status()["workers"][0]["early_deaths"].as_u64();
    for _ in 0..40 {
        killed = server.worker_of_use(killed);
        process::kill(killed);
        wait_until("its end", || !process::alive(killed));
        if early_deaths() > Some(1) {
            break;
        }
    }
    assert!(early_deaths() > Some(1));
    // The first of them may be due to wait for less.
    server.expect_log("ended: signal 9 (SIGKILL); its successor starts in ");
    server.worker_of_use(killed);
    server.stop();
}

/// Lets 200 connections send numbered messages while `harm` is done again and again; it says
/// whether a worker was there to be harmed.
fn under_load(server: Server, mut harm: impl FnMut(&Server, usize) -> bool) {
    let _machine = heavy();
    let (tcp, websocket) = (server.address_of("tcp"), server.address_of("websocket"));
    let load = Load::start(&[Client::Tcp(tcp), Client::WebSocket(websocket)], 100);
    wait_until("the load to run", || load.answered() > 1000);

    let (begin, mut round, mut deaths) = (Instant::now(), 0, Vec::new());
    while deaths.len() < 4 || begin.elapsed() < soak(Duration::from_secs(4)) {
        let patience = DEADLINE + soak(Duration::from_secs(4));
        assert!(
            begin.elapsed() < patience,
            "{} workers harmed",
            deaths.len()
        );
        let before = Instant::now();
        if harm(&server, round) {
            deaths.push((before, Instant::now()));
        }
        round += 1;
    }

    let report = load.stop();
    println!(
        "{} connections, {} messages, {} workers harmed, {} repeats, slowest answer {:?}",
        report.connections,
        report.answered,
        deaths.len(),
        report.repeats.len(),
        report.slowest
    );
    report.expect_complete();
    report.expect_repeats_only_at(&deaths);
    server.stop();
}

fn spec() -> Spec {
    behave().env("BEHAVE_TCP", "raw").tcp().websocket()
}

/// Numbers without a pattern, the same in every run.
fn scramble(n: usize) -> usize {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}
