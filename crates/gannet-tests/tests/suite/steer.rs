//! Reload from the command line: what it prints, how long it waits, what else works meanwhile.

use std::thread;

use gannet_tests::wait::wait_until;
use serde_json::Value;

use crate::behave;

#[test]
fn reload_tells_of_each_worker() {
    let server = behave().set("task_workers", 1).tcp().start();
    let ended = server.control(&["reload"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!(lines.first(), Some(&"reload of 3 workers begins"));
    for worker in ["worker 0", "worker 1", "task worker 2"] {
        for what in ["its successor starts (pid ", "replaced after "] {
            let told = lines
                .iter()
                .filter(|line| line.starts_with(&format!("{worker}: {what}")));
            assert_eq!(told.count(), 1, "{worker} {what}: {}", ended.out);
        }
    }
    assert!(
        lines
            .last()
            .is_some_and(|last| last.starts_with("reloaded 3 workers in ")),
        "{}",
        ended.out
    );
    let last = &server.status()["last_reload"];
    assert_eq!(last["cause"], "control");
    assert_eq!(last["replaced"], 3);
    server.stop();
}

#[test]
fn reload_in_json_is_one_object_a_line_and_the_last_is_the_outcome() {
    let server = behave().tcp().start();
    let json = |out: &str| -> Vec<Value> {
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let ended = server.control(&["reload", "--json"]);
    let lines = json(&ended.out);
    assert_eq!(lines[0]["reload"], "begins");
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["reload"], &last["error"]),
        (&"done".into(), &Value::Null)
    );
    assert_eq!(last["workers"].as_array().unwrap().len(), 2);

    server.replace_program(env!("CARGO_BIN_EXE_fails_in_start"));
    let ended = server.control(&["reload", "--json"]);
    assert_eq!(ended.code, Some(1));
    let lines = json(&ended.out);
    let failed = lines
        .iter()
        .find(|line| line["outcome"] == "failed")
        .unwrap();
    let why = failed["error"].as_str().unwrap();
    assert!(why.contains("this build will not start"), "{why}");
    assert!(lines.last().unwrap()["error"].is_string());
    server.stop();
}

#[test]
fn a_reload_that_takes_too_long_names_who_has_not_changed_and_others_go_on_meanwhile() {
    let server = behave().set("start_timeout_ms", 600_000).tcp().start();
    server.replace_program(env!("CARGO_BIN_EXE_never_ready"));
    thread::scope(|scope| {
        let reload = scope.spawn(|| server.control(&["reload", "--timeout", "4"]));
        wait_until("the reload to run", || server.status()["reloads"] == 1);
        // It would be the next one.
        let second = server.control(&["reload", "--timeout", "1.5"]);
        assert_eq!(second.code, Some(3), "{second:?}");
        assert!(second.out.contains("another reload runs"), "{second:?}");
        assert_eq!(server.tcp().ask("version"), "1");
        let ended = reload.join().unwrap();
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(
            ended.err.contains("not yet changed: worker 0, worker 1;"),
            "{}",
            ended.err
        );
    });
    // Stop does not wait for it either.
    server.stop();
}

#[test]
fn who_waits_for_a_reload_hears_that_the_server_stops() {
    let mut server = behave().set("start_timeout_ms", 600_000).tcp().start();
    server.replace_program(env!("CARGO_BIN_EXE_never_ready"));
    thread::scope(|scope| {
        let reload = scope.spawn(|| server.control(&["reload"]));
        wait_until("the reload to run", || server.status()["reloads"] == 1);
        assert_eq!(server.control(&["stop"]).code, Some(0));
        let ended = reload.join().unwrap();
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains("the server is stopping"), "{ended:?}");
    });
    server.expect_exit(0);
}
