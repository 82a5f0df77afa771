//! What cannot be is refused with one clear line and an exit code; nothing is left running.

use std::{fs, net::TcpListener};

use gannet_tests::server::{Ended, Spec};

use crate::behave;

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = behave().listen("tcp", &address).run(&["start"]);
    refused(&ended, 1, &[&address, "in use"]);
}

#[test]
fn two_listeners_on_one_port_are_refused() {
    let spec = behave()
        .listen("tcp", "127.0.0.1:4711")
        .listen("http", "127.0.0.1:4711");
    refused(&spec.run(&["start"]), 2, &["127.0.0.1:4711"]);
}

#[test]
fn a_bad_address_is_named() {
    let ended = behave().listen("tcp", "127.0.0.1:no").run(&["start"]);
    refused(&ended, 2, &["127.0.0.1:no"]);
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_known_name() {
    let ended = behave().tcp().set("task_wokers", 2).run(&["start"]);
    refused(&ended, 2, &["task_wokers", "task_workers"]);
}

#[test]
fn an_unknown_listener_setting_is_refused_with_the_nearest_known_name() {
    let ended = behave().tcp().with("max_mesage_size", 2).run(&["start"]);
    refused(&ended, 2, &["max_mesage_size", "max_message_size"]);
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_known_name() {
    let ended = behave().run(&["start", "--listen", "tcp://127.0.0.1:0", "--wokers", "2"]);
    refused(&ended, 2, &["--workers"]);
}

#[test]
fn an_unknown_setting_in_the_environment_is_refused_with_the_nearest_known_name() {
    let ended = behave().tcp().env("GANNET_WOKERS", "2").run(&["start"]);
    refused(&ended, 2, &["GANNET_WOKERS", "GANNET_WORKERS"]);
}

#[test]
fn a_listener_behind_proxies_that_trusts_nobody_is_refused() {
    let ended = behave()
        .tcp()
        .with("proxy_protocol", "required")
        .run(&["start"]);
    refused(
        &ended,
        2,
        &["listener 0", "proxy_protocol", "trusted_proxies"],
    );
}

#[test]
fn a_setting_of_the_wrong_type_is_named() {
    let ended = behave().tcp().set("workers", "many").run(&["start"]);
    refused(&ended, 2, &["workers"]);
}

#[test]
fn more_workers_than_sense_are_refused() {
    let ended = behave().tcp().set("workers", 5000).run(&["start"]);
    refused(&ended, 2, &["workers", "1024"]);
    let ended = behave().tcp().set("workers", 0).run(&["start"]);
    refused(&ended, 2, &["workers", "1"]);
}

#[test]
fn a_server_without_listeners_is_refused() {
    refused(&behave().run(&["start"]), 2, &["listen"]);
}

#[test]
fn a_handler_that_lacks_what_a_listener_needs_is_refused() {
    let lacking = Spec::new(env!("CARGO_BIN_EXE_lacks_everything"));
    refused(&lacking.clone().tcp().run(&["start"]), 2, &["receive"]);
    refused(&lacking.clone().udp().run(&["start"]), 2, &["packet"]);
    refused(&lacking.clone().http().run(&["start"]), 2, &["request"]);
    refused(
        &lacking.clone().websocket().run(&["start"]),
        2,
        &["message"],
    );
    refused(
        &lacking.set("task_workers", 1).tcp().run(&["start"]),
        2,
        &["receive"],
    );
}

#[test]
fn a_handler_that_panics_in_start_ends_the_start() {
    let spec = Spec::new(env!("CARGO_BIN_EXE_panics_in_start")).tcp();
    let ended = spec.run(&["start"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("this build cannot start"),
        "{}",
        ended.err
    );
}

#[test]
fn a_handler_that_fails_in_start_ends_the_start() {
    // It ends by itself, whatever its threads do: nobody waits for the time-out.
    let spec = Spec::new(env!("CARGO_BIN_EXE_fails_in_start"))
        .set("start_timeout_ms", 120_000)
        .tcp();
    let ended = spec.run(&["start"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("this build will not start"),
        "{}",
        ended.err
    );
}

#[test]
fn a_handler_that_is_not_ready_in_time_ends_the_start() {
    let spec = Spec::new(env!("CARGO_BIN_EXE_never_ready"))
        .tcp()
        .set("start_timeout_ms", 300);
    let ended = spec.run(&["start"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("start_timeout_ms"), "{}", ended.err);
}

#[test]
fn the_pid_file_of_a_live_server_is_respected() {
    let server = behave().tcp().start();
    let ended = server.control(&["start", "--config", &server.config_file()]);
    refused(&ended, 1, &[&server.manager().to_string()]);
    assert_eq!(server.tcp().ask("echo still here"), "still here");
    server.stop();
}

#[test]
fn the_pid_file_of_a_dead_server_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let pid_file = home.path().join("dead.pid");
    // No process can have this number: it is above the kernel's limit.
    fs::write(&pid_file, "4194305\n").unwrap();
    let server = behave().tcp().pid_file(&pid_file).start();
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap().trim(),
        server.manager().to_string()
    );
    server.stop();
    assert!(!pid_file.exists());
}

#[test]
fn the_pid_file_of_another_program_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let pid_file = home.path().join("reused.pid");
    // A process that lives, and is no server: this test.
    fs::write(&pid_file, format!("{}\n", std::process::id())).unwrap();
    let server = behave().tcp().pid_file(&pid_file).start();
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap().trim(),
        server.manager().to_string()
    );
    server.stop();
}

#[test]
fn a_pid_file_that_cannot_be_written_is_named() {
    let spec = behave().tcp().pid_file("/nonexistent/server.pid");
    refused(&spec.run(&["start"]), 2, &["/nonexistent/server.pid"]);
}

#[test]
fn subcommands_without_a_server_say_so() {
    for command in ["stop", "reload", "status", "clients"] {
        let ended = behave().tcp().run(&[command]);
        refused(&ended, 1, &["server.pid"]);
    }
}

/// Checks for the exit code and one line that says all of this.
fn refused(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let errors: Vec<&str> = ended
        .err
        .lines()
        .filter(|l| l.starts_with("error: "))
        .collect();
    let &[error] = errors.as_slice() else {
        panic!("not one line: {}", ended.err)
    };
    assert_eq!(
        ended.err.lines().next_back(),
        Some(error),
        "it is not the last"
    );
    for word in says {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    assert!(!ended.out.contains("listening"), "{}", ended.out);
}
