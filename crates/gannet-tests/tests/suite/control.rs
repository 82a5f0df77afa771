//! The command line that every server has, and its processes.

use std::fs;

use gannet_tests::{process, wait::wait_until};

use crate::behave;

#[test]
fn processes_have_titles_that_say_what_they_are() {
    let server = behave()
        .set("name", "shop")
        .set("task_workers", 1)
        .tcp()
        .start();
    let mut titles: Vec<String> = server
        .memory()
        .into_iter()
        .map(|(title, _)| title)
        .collect();
    titles.sort();
    let roles = ["manager", "master", "task worker 2", "worker 0", "worker 1"];
    assert_eq!(titles, roles.map(|role| format!("gannet: {role} (shop)")));
    server.stop();
}

#[test]
fn the_pid_file_names_the_manager_and_goes_with_it() {
    let server = behave().tcp().start();
    let pid = fs::read_to_string(server.pid_file()).unwrap();
    assert_eq!(pid.trim(), server.manager().to_string());
    let path = server.pid_file();
    server.stop();
    assert!(!path.exists());
}

#[test]
fn status_says_who_runs_and_what_was_done() {
    let server = behave().set("task_workers", 1).tcp().websocket().start();
    let (mut tcp, mut websocket) = (server.tcp(), server.websocket());
    assert_eq!(tcp.ask("echo 1"), "1");
    assert_eq!(websocket.ask("task echo 1"), "1");
    wait_until("both connections in the status", || {
        server.connections() == 2
    });
    let status = server.status();
    let text = status.to_string();
    assert!(text.contains(&server.master().to_string()), "{text}");
    for (_, pid) in server.workers().into_iter().chain(server.task_workers()) {
        assert!(text.contains(&pid.to_string()), "{pid}: {text}");
    }
    let human = server.control(&["status"]);
    assert_eq!(human.code, Some(0), "{human:?}");
    assert!(
        human.out.contains(&server.address(0).to_string()),
        "{}",
        human.out
    );
    server.stop();
}

#[test]
fn clients_lists_who_is_connected() {
    let server = behave().tcp().websocket().start();
    let (mut tcp, mut websocket) = (server.tcp(), server.websocket());
    let id: u64 = tcp.ask("id").parse().unwrap();
    assert_eq!(websocket.ask("bind ann"), "ok");
    let ended = server.control(&["clients", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let listed: Vec<serde_json::Value> = gannet_tests::server::rows(&ended.out);
    assert_eq!(listed.len(), 2, "{}", ended.out);
    assert!(listed.iter().any(|row| row["id"] == id), "{}", ended.out);
    assert!(
        listed.iter().any(|row| row["uid"] == "ann"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains(&tcp.local().to_string()),
        "{}",
        ended.out
    );
    let human = server.control(&["clients"]);
    assert_eq!(human.code, Some(0));
    assert!(human.out.contains("ann"), "{}", human.out);
    server.stop();
}

#[test]
fn help_and_version_are_there_for_free() {
    let spec = behave().tcp();
    let help = spec.run(&["--help"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    for command in ["start", "stop", "reload", "status", "clients"] {
        assert!(help.out.contains(command), "{command}: {}", help.out);
    }
}

#[test]
fn a_hang_up_signal_disturbs_nobody() {
    let server = behave().websocket().start();
    let (mut client, before) = (server.websocket(), server.processes());
    server.signal(process::Signal::HUP);
    // The manager takes its signals before its next request.
    wait_until("the connection in the status", || server.connections() == 1);
    assert_eq!(client.ask("echo still here"), "still here");
    assert_eq!(server.processes(), before);
    server.stop();
}

#[test]
fn a_worker_that_dies_is_replaced_and_reported() {
    let server = behave().set("workers", 1).tcp().start();
    let (_, old) = server.workers()[0];
    process::kill(old);
    wait_until("another worker", || {
        server.workers().iter().any(|&(_, pid)| pid != old)
    });
    server.expect_log(&format!("worker 0 (pid {old}) ended: signal 9 (SIGKILL)"));
    assert_eq!(server.tcp().ask("echo served"), "served");
    server.stop();
}

#[test]
fn no_descriptor_leaks_over_reloads_and_crashes() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    let count = || {
        let of = |pid| process::descriptors(pid).len();
        (of(server.manager()), of(server.master()))
    };
    let round = |client: &mut gannet_tests::websocket::WebSocket| {
        server.reload();
        assert_eq!(client.ask("abort-once x"), "survived x");
        wait_until("two workers", || server.workers().len() == 2);
    };
    round(&mut client);
    wait_until("quiet", || server.processes().len() == 4);
    let before = count();
    for _ in 0..5 {
        round(&mut client);
    }
    // Something of the first round may have been closed a moment too late to be left out.
    wait_until("no more descriptors than before", || {
        let now = count();
        now.0 <= before.0 && now.1 <= before.1
    });
    server.stop();
}

#[test]
fn a_killed_worker_leaves_no_shared_memory() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("abort-once x"), "survived x");
    let memfds = |pid| {
        process::descriptors(pid)
            .iter()
            .filter(|d| d.contains("memfd:"))
            .count()
    };
    wait_until("the dead worker's region to go", || {
        // The control region, the settings, and one region for each worker that lives.
        memfds(server.master()) <= 4
    });
    server.stop();
}
