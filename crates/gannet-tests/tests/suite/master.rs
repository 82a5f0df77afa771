//! What happens when the master or the manager dies.

use std::time::{Duration, Instant};

use gannet_tests::{process, server::Server, wait::wait_for, websocket::WebSocket};

use crate::{behave, heavy};

#[test]
fn the_master_comes_back_within_a_second_and_the_workers_live() {
    let _machine = heavy();
    let server = behave().tcp().websocket().start();
    let workers = server.workers();
    // The machine may be busy with something else in one of them.
    let mut tries = (0..10).map(|_| kill_master(&server));
    let back = tries.find(|back| *back < Duration::from_secs(1));
    let back = back.expect("it was never back within a second");
    println!("the port was back {back:?} after the master's death");
    assert_eq!(server.workers(), workers);
    server.stop();
}

/// Kills the master; how long it took until a new connection was served.
fn kill_master(server: &Server) -> Duration {
    let (mut old, master) = (server.websocket(), server.master());
    assert_eq!(old.ask("echo 1"), "1");
    let begin = Instant::now();
    process::kill(master);
    let mut new = wait_for("a new connection", || {
        let client = WebSocket::try_connect(server.address_of("websocket"), "/", &[]);
        // A reset while the socket changes hands is no answer.
        client.ok().and_then(Result::ok)
    });
    assert_eq!(new.ask("echo 2"), "2");
    let took = begin.elapsed();
    assert!(
        old.try_message().is_err(),
        "a connection of the dead master lives"
    );
    assert_eq!(server.tcp().ask("echo 3"), "3");
    took
}

#[test]
fn workers_forget_the_connections_of_a_dead_master() {
    let server = behave().set("workers", 1).websocket().start();
    let mut old = server.websocket();
    let id = old.ask("id");
    assert_eq!(old.ask("sub topic"), "ok");
    process::kill(server.master());
    let mut new = wait_for("a new connection", || {
        WebSocket::try_connect(server.address_of("websocket"), "/", &[])
            .ok()?
            .ok()
    });
    assert_eq!(new.ask(format!("open {id}")), "false");
    assert_eq!(new.ask("count topic"), "0");
    let own = new.ask("id");
    assert_ne!(own, id, "a connection id was used again");
    assert_eq!(new.ask("connections"), own);
    server.stop();
}

#[test]
fn nothing_outlives_a_killed_manager() {
    let mut server = behave().set("task_workers", 1).tcp().websocket().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("task echo 1"), "1");
    process::kill(server.manager());
    server.wait_exit();
    assert!(client.try_message().is_err());
    wait_for("the end of every process", || {
        server.processes().is_empty().then_some(())
    });
}

#[test]
fn a_server_starts_again_over_what_a_killed_one_left() {
    let mut server = behave().websocket().start();
    process::kill(server.manager());
    server.wait_exit();
    wait_for("the end of every process", || {
        server.processes().is_empty().then_some(())
    });
    assert!(server.pid_file().exists());
    let server = server.start_again();
    assert_eq!(server.websocket().ask("echo again"), "again");
    server.stop();
}
