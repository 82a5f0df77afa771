//! That the program runs, from building the servers to the page with its graph: Gannet and the floor, a tenth
//! of a second each. What it measures is not looked at.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

#[test]
fn gannet_and_the_floor_are_built_measured_and_written_down() {
    let home = tempfile::tempdir().unwrap();
    let (results, page) = (home.path().join("r.json"), home.path().join("page.md"));
    let sections = ["machine", "servers", "targets", "tcp", "http"];
    let text: String = sections
        .map(|name| format!("<!-- compare: {name} -->\n<!-- /compare -->\n"))
        .concat();
    fs::write(&page, text).unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_gannet-compare"))
        .args(["--only", "gannet,epoll", "--scenario", "tcp", "--targets"])
        .args(["--rounds", "1", "--seconds", "0.1", "--no-install"])
        .arg("--results")
        .arg(&results)
        .arg("--docs")
        .arg(&page)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");

    let json: Value = serde_json::from_str(&fs::read_to_string(&results).unwrap()).unwrap();
    for (peer, measurement) in ["gannet", "epoll"].iter().zip(0..) {
        let one = &json["measurements"][measurement];
        assert_eq!(one["peer"], *peer, "{json}");
        let report = &one["outcome"]["report"];
        assert_eq!(report["errors"], 0, "{json}");
        assert!(report["messages"].as_u64() > Some(0), "{json}");
        assert!(
            report["server"]["cpu_us_per_message"].as_f64() > Some(0.0),
            "{json}"
        );
    }
    assert!(out.contains("TCP echo"), "{out}");
    assert!(
        out.contains("not measured"),
        "most targets cannot be: {out}"
    );

    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("| epoll alone (the floor) |"), "{page}");
    assert!(page.contains("![TCP echo](page/tcp.svg)"), "{page}");
    let svg = fs::read_to_string(home.path().join("page/tcp.svg")).unwrap();
    assert!(svg.contains(">Gannet</text>"), "{svg}");
}

#[test]
fn a_server_that_there_is_not_is_named_with_those_that_there_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_gannet-compare"))
        .args(["--only", "nobody"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        err.contains("no server \"nobody\"") && err.contains("swoole-base"),
        "{err}"
    );
}

#[test]
fn results_are_not_overwritten_and_kept_ones_can_be_shown() {
    let home = tempfile::tempdir().unwrap();
    let results = home.path().join("r.json");
    let compare = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_gannet-compare"))
            .args(arguments)
            .arg("--results")
            .arg(&results)
            .output()
            .unwrap()
    };
    let kept = r#"{"date": "2026-01-02", "machine": {"processor": "p", "processors": 2,
        "memory_gib": 4, "kernel": "6", "rustc": "r", "profile": []}, "seconds": 1.0,
        "peers": [{"name": "gannet", "title": "Gannet", "found": {"version": "1"}},
                  {"name": "ntex", "title": "ntex", "found": {"missing": "it is not there"}}],
        "measurements": [{"scenario": "http", "peer": "gannet", "round": 1, "stolen_percent": 0.0,
            "outcome": {"report": {"server": {"cpu_us_per_message": 4.25}}}}]}"#;
    fs::write(&results, kept).unwrap();

    let refused = compare(&["--scenario", "tcp", "--only", "epoll"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is there already"));
    assert_eq!(fs::read_to_string(&results).unwrap(), kept);

    let shown = compare(&["--report"]);
    let out = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success(), "{out}");
    assert!(
        out.contains("4.25") && out.contains("not measured: ntex: it is not there"),
        "{out}"
    );
}

/// Who was the limit, and what the machine did by itself, stands beside the figures.
#[test]
fn a_busy_generator_and_undisturbed_servers_are_told() {
    let home = tempfile::tempdir().unwrap();
    let (results, page) = (home.path().join("r.json"), home.path().join("page.md"));
    let measured = |scenario: &str, undisturbed: &str, worst: f64, busy: f64| {
        format!(
            r#"{{"scenario": "{scenario}", "peer": "gannet", {undisturbed} "round": 1, "stolen_percent": 0.0,
            "outcome": {{"report": {{"seconds": 2.0, "deliveries_per_s": 5.0, "latency_us": {{"max": {worst}}},
            "server": {{"cpu_us": 1500000, "cpu_us_per_message": 0.25}}, "client": {{"busy": {busy}}}}}}}}}"#
        )
    };
    let measurements = [
        measured("broadcast", "", 1000.0, 0.97),
        measured("reload", "", 8000.0, 0.5),
        measured("reload", r#""undisturbed": true,"#, 4000.0, 0.5),
    ];
    let kept = format!(
        r#"{{"date": "2026-01-02", "machine": {{"processor": "p", "processors": 2, "memory_gib": 4,
        "kernel": "6", "rustc": "r", "profile": []}}, "seconds": 1.0,
        "peers": [{{"name": "gannet", "title": "Gannet", "found": {{"version": "1"}}}}],
        "measurements": [{}]}}"#,
        measurements.join(",")
    );
    fs::write(&results, kept).unwrap();
    let sections = ["broadcast", "reload"];
    let text = sections.map(|name| format!("<!-- compare: {name} -->\n<!-- /compare -->\n"));
    fs::write(&page, text.concat()).unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_gannet-compare"))
        .args(["--report", "--results"])
        .arg(&results)
        .arg("--docs")
        .arg(&page)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}");
    let page = fs::read_to_string(&page).unwrap();
    for text in [&*out, &page] {
        let limit = "Gannet 0.97 (the server 0.75).";
        assert_eq!(
            text.matches(limit).count(),
            1,
            "once, for the broadcast: {text}"
        );
    }
    let (_, reload) = page.split_once("compare: reload").unwrap();
    let row = |title: &str| {
        let mut rows = reload.lines().filter_map(|line| line.strip_prefix(title));
        rows.next()
            .unwrap_or_else(|| panic!("no {title}: {reload}"))
            .to_owned()
    };
    assert!(row("| Gannet |").starts_with(" 8.00 |"), "{reload}");
    let undisturbed = row("| Gannet, undisturbed |");
    assert!(undisturbed.starts_with(" 4.00 |"), "{reload}");
    assert!(undisturbed.ends_with(" 2.00 |"), "the ratio: {reload}");
}

/// Also one that does not want to end, and what it has started.
#[test]
fn a_server_ends_when_whoever_started_it_does() {
    for script in ["exec sleep 1000", "trap '' TERM; sleep 1000; sleep 1000"] {
        let mut guard = Command::new(env!("CARGO_BIN_EXE_gannet-compare"))
            .args(["guard", "--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(guard.stdout.take().unwrap())
            .read_line(&mut pid)
            .unwrap();
        let server = Path::new("/proc").join(pid.trim());
        assert!(server.exists(), "it runs");
        drop(guard.stdin.take());
        assert!(guard.wait().unwrap().success());
        assert!(!server.exists(), "it has ended");
    }
}
