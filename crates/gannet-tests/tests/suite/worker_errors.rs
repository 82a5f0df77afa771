//! The program is told when a worker has ended badly.

use std::fs;

use gannet_tests::{process, wait::wait_until};

use crate::behave;

#[test]
fn the_program_hears_of_crashes_failed_starts_and_events_that_were_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let errors = directory.path().join("errors");
    let server = behave()
        .env("BEHAVE_ERRORS", errors.to_str().unwrap())
        .set("workers", 1)
        .websocket()
        .start();
    let said = |text: &str| fs::read_to_string(&errors).is_ok_and(|said| said.contains(text));
    let (_, pid) = server.workers()[0];
    process::kill(pid);
    let line = format!("worker 0 ended: signal 9 (SIGKILL) (pid Some({pid}), 1 restarts)");
    wait_until("a crash", || said(&line));

    let mut client = server.websocket();
    client.send("abort");
    client.expect_close(1012);
    wait_until("an event that was given up", || {
        said("worker 0 lost an event: an event (message) has killed its worker again and again")
    });

    wait_until("a worker", || server.ready_workers().len() == 1);
    server.replace_program(env!("CARGO_BIN_EXE_fails_in_start"));
    assert_eq!(server.control(&["reload"]).code, Some(1));
    wait_until("a failed start", || {
        said("worker 0 did not start: `Handler::start` failed: this build will not start")
    });
    server.stop();
}

#[test]
fn a_panic_of_the_function_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let errors = directory.path().join("errors");
    let server = behave()
        .env("BEHAVE_ERRORS", errors.to_str().unwrap())
        .set("workers", 1)
        .websocket()
        .start();
    let mut client = server.websocket();
    client.send("exit 77");
    client.expect_close(1012);
    server.expect_log("the function for worker errors panicked at: worker 0 ended: exit code 77");
    wait_until("the worker to be back", || {
        server.ready_workers().len() == 1
    });
    assert_eq!(server.websocket().ask("echo still here"), "still here");
    server.stop();
}
