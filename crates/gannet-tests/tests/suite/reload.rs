//! Reload under load: every message is answered exactly once, and nobody notices.

use std::{
    thread,
    time::{Duration, Instant},
};

use gannet_tests::{
    load::{Client, Load},
    process::{self, Signal},
    wait::{soak, wait_until},
};

use crate::{behave, heavy};

#[test]
fn reloads_under_load_lose_nothing_and_repeat_nothing() {
    let _machine = heavy();
    let server = behave()
        .env("BEHAVE_TCP", "raw")
        .tcp()
        .websocket()
        .http()
        .start();
    let (tcp, http) = (server.address_of("tcp"), server.address_of("http"));
    let websocket = server.address_of("websocket");
    let messages = Load::start(&[Client::Tcp(tcp), Client::WebSocket(websocket)], 100);
    let requests = Load::start(&[Client::Http(http), Client::Http(websocket)], 10);
    wait_until("the load to run", || {
        messages.answered() > 1000 && requests.answered() > 100
    });

    let (begin, mut reloads) = (Instant::now(), 0);
    while begin.elapsed() < soak(Duration::from_secs(4)) {
        let due = Instant::now() + Duration::from_millis(500);
        server.reload();
        reloads += 1;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }

    for (kind, report) in [("messages", messages.stop()), ("requests", requests.stop())] {
        println!(
            "{} connections, {} {kind}, {reloads} reloads, {} repeats, slowest answer {:?}",
            report.connections,
            report.answered,
            report.repeats.len(),
            report.slowest
        );
        report.expect_complete();
        report.expect_once();
    }
    server.stop();
}

#[test]
fn uploads_under_way_arrive_whole_over_a_reload() {
    let server = behave().http().start();
    let mut clients: Vec<_> = (0..4).map(|_| server.http()).collect();
    for client in &mut clients {
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
        client.send(vec![b'1'; 400_000]);
    }
    wait_until("the handlers to run", || server.in_flight() >= 4);
    thread::scope(|scope| {
        let reload = scope.spawn(|| server.reload());
        // New connections are served by the new code while the uploads wait.
        wait_until("the new workers", || server.workers().len() > 2);
        assert_eq!(server.http().get("/").text(), "hello");
        for client in &mut clients {
            client.send(vec![b'2'; 600_000]);
            let body = client.response().body;
            assert_eq!(body.len(), 1_000_000);
            assert!(body[..400_000].iter().all(|&b| b == b'1'));
            assert!(body[400_000..].iter().all(|&b| b == b'2'));
            assert_eq!(client.get("/").text(), "hello");
        }
        reload.join().unwrap();
    });
    server.stop();
}

#[test]
fn reload_replaces_every_worker_and_keeps_the_connection() {
    let server = behave().set("task_workers", 1).websocket().start();
    let (workers, tasks) = (server.workers(), server.task_workers());
    let mut client = server.websocket();
    let before = client.ask("pid");
    server.reload();
    assert_ne!(client.ask("pid"), before);
    wait_until("the old workers' end", || server.workers().len() == 2);
    assert!(
        workers.iter().all(|old| !server.workers().contains(old)),
        "an old worker serves"
    );
    assert!(
        tasks.iter().all(|old| !server.task_workers().contains(old)),
        "an old task worker"
    );
    server.stop();
}

#[test]
fn usr1_reloads_workers_and_usr2_only_task_workers() {
    let server = behave().set("task_workers", 1).websocket().start();
    let (workers, tasks) = (server.workers(), server.task_workers());
    server.signal(Signal::USR2);
    wait_until("another task worker", || {
        server.task_workers().len() == 1 && server.task_workers() != tasks
    });
    assert_eq!(server.workers(), workers);

    server.signal(Signal::USR1);
    wait_until("other workers", || {
        let now = server.workers();
        now.len() == 2 && now.iter().all(|new| !workers.contains(new))
    });
    server.stop();
}

#[test]
fn usr1_sent_to_the_master_reloads() {
    let server = behave().websocket().start();
    let (workers, master) = (server.workers(), server.master());
    process::signal(master, Signal::USR1);
    wait_until("other workers", || {
        let now = server.workers();
        now.len() == 2 && now.iter().all(|new| !workers.contains(new))
    });
    assert_eq!(server.master(), master);
    server.stop();
}

#[test]
fn reload_of_task_workers_leaves_the_workers_alone() {
    let server = behave().set("task_workers", 1).websocket().start();
    let (workers, tasks) = (server.workers(), server.task_workers());
    assert_eq!(server.control(&["reload", "--tasks"]).code, Some(0));
    assert_eq!(server.workers(), workers);
    wait_until("another task worker", || {
        server.task_workers().len() == 1 && server.task_workers() != tasks
    });
    server.stop();
}

#[test]
fn a_handler_under_way_ends_before_its_worker_goes() {
    let server = behave().set("workers", 1).websocket().start();
    let (mut slow, mut quick) = (server.websocket(), server.websocket());
    let before = quick.ask("pid");
    slow.send("sleep-async 1500 done");
    server.reload();
    // The connection with nothing under way is served by the new worker at once.
    assert_ne!(quick.ask("pid"), before);
    // What comes behind it waits for it, and is served by the new worker.
    slow.send("pid");
    assert_eq!(slow.text(), "done");
    assert_ne!(slow.text(), before);
    server.stop();
}

#[test]
fn reloads_asked_for_at_once_all_end_well() {
    let server = behave().websocket().start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| server.reload());
        }
    });
    let mut client = server.websocket();
    assert_eq!(client.ask("echo still here"), "still here");
    wait_until("two workers", || server.workers().len() == 2);
    server.stop();
}

#[test]
fn a_handler_is_told_to_stop_before_its_worker_exits() {
    let runs = tempfile::NamedTempFile::new().unwrap();
    let path = runs.path().display().to_string();
    let server = behave().env("BEHAVE_RUNS", path).websocket().start();
    server.reload();
    let stops = || {
        std::fs::read_to_string(runs.path())
            .unwrap()
            .matches("stop ")
            .count()
    };
    wait_until("two workers' stop", || stops() == 2);
    server.stop();
    assert_eq!(stops(), 4);
}
