//! Reload onto another build of the program.

use gannet_tests::{
    process,
    server::{Ended, Server},
    wait::{wait_for, wait_until},
};

use crate::behave;

#[test]
fn reload_serves_old_and_new_connections_with_the_new_code() {
    let server = behave()
        .set("task_workers", 1)
        .tcp()
        .websocket()
        .http()
        .start();
    let (mut tcp, mut websocket, mut http) = (server.tcp(), server.websocket(), server.http());
    assert_eq!(tcp.ask("version"), "1");
    assert_eq!(websocket.ask("version"), "1");
    assert_eq!(http.get("/version").text(), "1");

    server.replace_program(env!("CARGO_BIN_EXE_behave_v2"));
    assert_eq!(
        tcp.ask("version"),
        "1",
        "a replaced file alone changes nothing"
    );
    server.reload();

    assert_eq!(tcp.ask("version"), "2");
    assert_eq!(websocket.ask("version"), "2");
    assert_eq!(websocket.ask("task version"), "2");
    assert_eq!(http.get("/version").text(), "2");
    assert_eq!(server.websocket().ask("version"), "2");
    server.stop();
}

#[test]
fn a_worker_that_crashes_after_a_replacement_keeps_serving() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = server.websocket();
    server.replace_program(env!("CARGO_BIN_EXE_behave_v2"));
    let pid: u32 = client.ask("pid").parse().unwrap();
    process::kill(pid);
    let version = client.ask("version");
    assert!(version == "1" || version == "2", "{version}");
    server.stop();
}

#[test]
fn reload_onto_a_missing_program_keeps_the_old_code() {
    let server = behave().websocket().start();
    server.remove_program();
    let ended = refused(&server);
    assert!(ended.err.contains("No such file"), "{}", ended.err);
}

#[test]
fn reload_onto_a_file_that_is_no_program_keeps_the_old_code() {
    let server = behave().websocket().start();
    let text = server.home().join("text");
    std::fs::write(&text, "this is no program\n").unwrap();
    server.replace_program(&text);
    std::fs::remove_file(text).unwrap();
    refused(&server);
}

#[test]
fn reload_onto_code_that_panics_in_start_keeps_the_old_code() {
    let server = behave().websocket().start();
    server.replace_program(env!("CARGO_BIN_EXE_panics_in_start"));
    let ended = refused(&server);
    assert!(
        ended.err.contains("this build cannot start"),
        "{}",
        ended.err
    );
}

#[test]
fn reload_onto_code_that_fails_in_start_keeps_the_old_code() {
    let server = behave().websocket().start();
    server.replace_program(env!("CARGO_BIN_EXE_fails_in_start"));
    let ended = refused(&server);
    assert!(
        ended.err.contains("this build will not start"),
        "{}",
        ended.err
    );
}

#[test]
fn reload_onto_code_that_is_not_ready_in_time_keeps_the_old_code() {
    let server = behave().set("start_timeout_ms", 4_000).websocket().start();
    server.replace_program(env!("CARGO_BIN_EXE_never_ready"));
    let ended = refused(&server);
    assert!(ended.err.contains("ready"), "{}", ended.err);
}

/// Reloads, which must fail and say why in a line, and checks that the old code serves on and that
/// a good program is taken again.
fn refused(server: &Server) -> Ended {
    let (mut old, workers) = (server.websocket(), server.workers());
    let pid = old.ask("pid");
    let ended = server.control(&["reload"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.err.trim_end().lines().count(), 1, "{}", ended.err);
    assert_eq!(old.ask("pid"), pid, "another worker serves");
    assert_eq!(server.websocket().ask("version"), "1");
    wait_until("the failed workers' end", || server.workers() == workers);
    // Why must be in the log as well, for those who reload by signal.
    server.expect_log("reload");

    server.replace_program(env!("CARGO_BIN_EXE_behave_v2"));
    wait_for("a good reload", || {
        (server.control(&["reload"]).code == Some(0)).then_some(())
    });
    assert_eq!(old.ask("version"), "2");
    ended
}
