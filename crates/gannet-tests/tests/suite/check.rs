//! `check`: what it says of settings and machine, without changing anything.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
};

use gannet_tests::server::Ended;
use serde_json::Value;

use crate::behave;

/// The findings about a subject.
fn about<'a>(report: &'a Value, subject: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().expect("a list").iter();
    findings
        .filter(|finding| finding["subject"] == subject)
        .collect()
}

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn a_server_that_can_start_is_found_fit_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", home.path().join("echo.sock").display());
    let ended = behave().listen("tcp", &socket).run(&["check", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = report(&ended);
    assert_eq!(report["errors"], 0, "{report}");
    let bound = about(&report, "addresses");
    assert_eq!(
        (bound.len(), &bound[0]["found"]),
        (1, &"free".into()),
        "{report}"
    );
    assert_eq!(about(&report, "kernel")[0]["level"], "ok");
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        0,
        "something was left"
    );

    let human = behave().tcp().run(&["check"]);
    assert_eq!(human.code, Some(0), "{human:?}");
    for subject in ["settings", "addresses", "open files", "memory", "clock"] {
        assert!(human.out.contains(subject), "{subject}: {}", human.out);
    }
}

#[test]
fn settings_that_are_wrong_end_it_as_they_end_a_start() {
    for (setting, value) in [("workers", 0), ("ring_size", 100_000)] {
        let of = |command| behave().tcp().set(setting, value).run(&[command]);
        let (check, start) = (of("check"), of("start"));
        assert_eq!((check.code, start.code), (Some(2), Some(2)));
        // Each run has a settings file of its own.
        let why = |ended: &Ended| {
            let (_, why) = ended.err.split_once(setting).expect("the setting is named");
            why.to_owned()
        };
        assert_eq!(why(&check), why(&start));

        let json = behave().tcp().set(setting, value).run(&["check", "--json"]);
        assert_eq!(json.code, Some(2), "{json:?}");
        let report = report(&json);
        assert_eq!(report["errors"], 1, "{report}");
        let found = about(&report, "settings")[0]["found"].to_string();
        assert!(found.contains(setting), "{found}");
    }
}

#[test]
fn the_directory_and_the_admin_address_are_looked_at() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    let ended = behave()
        .tcp()
        .set("admin_listen", address.as_str())
        .set("working_directory", file.path().to_str().unwrap())
        .run(&["check", "--json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = report(&ended);
    assert_eq!(report["errors"], 2, "{report}");
    let found = |subject| about(&report, subject)[0]["found"].to_string();
    let addresses = found("addresses");
    assert!(
        addresses.contains("admin_listen") && addresses.contains(&address),
        "{addresses}"
    );
    assert!(found("directory").contains("not a directory"), "{report}");
}

#[test]
fn what_the_user_of_the_server_may_not_do_is_found_as_by_a_start() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test looks as another user: run it as root, or leave it out"
    );
    let directory = tempfile::tempdir().unwrap();
    let of_root = Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), of_root).unwrap();
    let log = directory.path().join("log");
    let spec = |rotated: u32| {
        behave()
            .tcp()
            .set("user", "nobody")
            .set("log_file", log.to_str().unwrap())
            .set("log_rotate_size", rotated)
    };
    // Root would make it for the user.
    let ended = spec(0).run(&["check", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!log.exists());
    // Nobody could rotate it; nor write one of root's.
    let rotated = (1 << 20, directory.path());
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, Permissions::from_mode(0o600)).unwrap();
    for (size, whose) in [(0, log.as_path()), rotated] {
        if size > 0 {
            fs::remove_file(&log).unwrap();
        }
        let (check, start) = (
            spec(size).run(&["check", "--json"]),
            spec(size).run(&["start"]),
        );
        assert_eq!((check.code, start.code), (Some(1), Some(2)), "{start:?}");
        let report = report(&check);
        let advice = about(&report, "log")[0]["advice"].to_string();
        assert!(advice.contains(whose.to_str().unwrap()), "{report}");
    }
    let unknown = behave()
        .tcp()
        .run(&["check", "--json", "--user", "no-such-user"]);
    let report = report(&unknown);
    assert_eq!(
        (unknown.code, &report["errors"]),
        (Some(1), &1.into()),
        "{report}"
    );
}

#[test]
fn an_address_in_use_is_in_the_way_unless_the_server_itself_has_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = behave().listen("tcp", &address).run(&["check", "--json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report_of_taken = report(&ended);
    let found = about(&report_of_taken, "addresses");
    assert_eq!(found[0]["level"], "error");
    assert!(
        found[0]["found"].to_string().contains(&address),
        "{found:?}"
    );

    let server = behave().tcp().start();
    let own = server.control(&["check", "--json"]);
    assert_eq!(own.code, Some(0), "{own:?}");
    let report = report(&own);
    let runs = about(&report, "pid file")[0]["found"].to_string();
    assert!(runs.contains(&server.manager().to_string()), "{runs}");
    server.stop();
}

#[test]
fn what_the_machine_lacks_comes_with_a_command() {
    // More than any kernel lets wait.
    let ended = behave()
        .tcp()
        .with("backlog", 1_000_000)
        .run(&["check", "--json"]);
    assert_eq!(ended.code, Some(0), "a warning is no obstacle: {ended:?}");
    let report = report(&ended);
    let backlog = about(&report, "backlog");
    assert_eq!(backlog[0]["level"], "warn", "{report}");
    let advice = backlog[0]["advice"].as_str().unwrap();
    assert!(
        advice.starts_with("sysctl -w net.core.somaxconn=1000000"),
        "{advice}"
    );
}
