//! What `status` tells, and that programs can rely on it.

use std::{collections::BTreeMap, io::Write, path::Path};

use gannet_tests::{process, wait::wait_until};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::behave;

#[test]
fn the_json_of_status_has_the_keys_and_types_that_are_promised() {
    let mut declared = NamedTempFile::new().unwrap();
    let objects = "counter hits\nlock till\ntable users 100 key text, hits i64\n";
    declared.write_all(objects.as_bytes()).unwrap();
    let server = behave()
        .env("BEHAVE_PROCESSES", "clock always inherit")
        .env("BEHAVE_SHARED", declared.path().to_str().unwrap())
        .set("task_workers", 1)
        .tcp()
        .websocket()
        .start();
    assert_eq!(server.tcp().ask("echo 1"), "1");
    let killed = server.workers()[0].1;
    process::kill(killed);
    wait_until("another worker", || {
        let ready = server.ready_workers();
        ready.len() == 2 && !ready.contains(&killed)
    });
    server.reload();
    wait_until("the old ones to go", || {
        let status = server.status();
        let rows = status["workers"].as_array().unwrap();
        rows.iter().all(|row| row["state"] == "ready")
    });
    let mut keys = BTreeMap::new();
    describe("", &server.status(), &mut keys);
    let found: String = keys
        .iter()
        .map(|(key, kinds)| format!("{key}: {}\n", kinds.join(" or ")))
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/status.schema");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let promised = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        found, promised,
        "keys may be added (UPDATE_SCHEMA=1 writes tests/status.schema), none may go or change"
    );
    server.stop();
}

/// Each key with the types of its values; elements of a list count together.
fn describe(path: &str, value: &Value, keys: &mut BTreeMap<String, Vec<&'static str>>) {
    let kind = match value {
        // What the kernel may refuse to tell.
        _ if path.ends_with(".pss") => "number or null",
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            for item in items {
                describe(&format!("{path}[]"), item, keys);
            }
            "list"
        }
        // Its keys are the reasons that there were.
        Value::Object(_) if path == ".totals.closed" => "object of numbers",
        Value::Object(fields) => {
            for (name, value) in fields {
                describe(&format!("{path}.{name}"), value, keys);
            }
            "object"
        }
    };
    let kinds = keys.entry(path.to_owned()).or_default();
    if !kinds.contains(&kind) {
        kinds.push(kind);
        kinds.sort_unstable();
    }
}

#[test]
fn status_says_what_each_process_uses_and_how_fast_things_go() {
    let server = behave().set("workers", 1).tcp().websocket().start();
    let (mut tcp, websocket) = (server.tcp(), server.websocket());
    wait_until("the rates", || {
        assert_eq!(tcp.ask("echo 1"), "1");
        let status = server.status();
        status["rates"]["handled"].as_f64() > Some(0.0)
            && status["workers"][0]["handled_per_s"].as_f64() > Some(0.0)
            && status["manager"]["cpu_percent"].as_f64() > Some(0.0)
    });
    wait_until("the connections", || {
        let listeners = &server.status()["listeners"];
        let of = |listener: usize, what| listeners[listener][what].as_u64();
        of(0, "connections") == Some(1)
            && of(0, "websockets") == Some(0)
            && of(1, "connections") == Some(1)
            && of(1, "websockets") == Some(1)
    });
    let status = server.status();
    for usage in [
        &status["manager"],
        &status["master"],
        &status["workers"][0]["usage"],
    ] {
        let (rss, pss) = (usage["rss"].as_u64().unwrap(), usage["pss"].as_u64());
        assert!(rss > 1 << 20 && pss.is_none_or(|pss| 0 < pss), "{status}");
    }
    let text = server.control(&["status"]).out;
    let row = |name: &str| text.lines().any(|line| line.starts_with(name));
    assert!(
        row("PROCESS") && row("manager") && row("master") && row("worker 0"),
        "{text}"
    );
    drop(websocket);
    server.stop();
}

#[test]
fn a_worker_that_cannot_start_again_shows_how_often_and_when_the_next_try_is() {
    let server = behave().set("workers", 1).tcp().start();
    server.replace_program(env!("CARGO_BIN_EXE_fails_in_start"));
    process::kill(server.workers()[0].1);
    wait_until("a back-off", || {
        let worker = &server.status()["workers"][0];
        worker["state"] == "waiting"
            && worker["early_deaths"].as_u64() > Some(2)
            && worker["retry_in_ms"].as_u64() > Some(0)
            && worker["last_exit"]
                .as_str()
                .is_some_and(|why| why.contains("will not start"))
    });
    wait_until("the same in words", || {
        let text = server.control(&["status"]).out;
        let row = text.lines().find(|line| line.starts_with("worker 0"));
        row.is_some_and(|row| row.contains("waiting ") && row.contains("early deaths in a row"))
    });
    server.replace_program(env!("CARGO_BIN_EXE_behave_v2"));
    wait_until("the new code", || server.ready_workers().len() == 1);
    assert_eq!(server.tcp().ask("version"), "2");
    server.stop();
}
