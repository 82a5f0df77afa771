//! What a server takes of the machine: processors, a directory, permissions.

use std::{fs, process::Command};

use gannet_tests::{
    process::{self, Signal},
    wait::{wait_for, wait_until},
};

use crate::behave;

#[test]
fn reactors_and_workers_run_on_their_processors_only() {
    let server = behave()
        .set("reactors", 2)
        .set("reactor_cpus", "0")
        .set("worker_cpus", "0")
        .set("worker_oom_score_adj", 321)
        .tcp()
        .start();
    let master = server.master();
    let threads = fs::read_dir(format!("/proc/{master}/task")).unwrap();
    let mut reactors = 0;
    for thread in threads.flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap();
        if name.starts_with("reactor") {
            reactors += 1;
            let thread = format!("{master}/task/{}", thread.file_name().display());
            assert_eq!(process::status(thread, "Cpus_allowed_list"), "0");
        }
    }
    assert_eq!(reactors, 2);
    let adjust = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    for (_, pid) in server.workers() {
        assert_eq!(process::status(pid, "Cpus_allowed_list"), "0");
        assert_eq!(adjust(pid).trim(), "321");
    }
    assert_eq!(adjust(master), adjust(server.manager()));
    server.stop();
}

#[test]
fn processors_that_are_not_there_are_refused() {
    let ended = behave().tcp().set("worker_cpus", "0,1000").run(&["start"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .err
            .contains("`worker_cpus` = \"0,1000\": names processor 1000"),
        "{ended:?}"
    );
}

#[test]
fn a_server_works_elsewhere_with_paths_from_where_it_was_started() {
    let (home, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = format!(
        "workers = 1\numask = 0o027\nworking_directory = {:?}\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\n",
        work.path()
    );
    fs::write(home.path().join("settings.toml"), settings).unwrap();
    let command = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_behave"));
        command
            .args(words)
            .args(["--pid-file", "server.pid"])
            .env_remove("GANNET_SOAK")
            .current_dir(home.path());
        command
    };
    let log = fs::File::create(home.path().join("log")).unwrap();
    let mut manager = command(&["start", "--config", "settings.toml"])
        .stderr(log)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = || {
        let output = command(&["status", "--json"]).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()
    };
    let worker = |status: &serde_json::Value| {
        let mut rows = status["workers"].as_array()?.iter();
        rows.find(|row| row["state"] == "ready")?["pid"].as_u64()
    };
    let first = wait_for("a worker", || worker(&status()?));
    for pid in [u64::from(manager.id()), first] {
        wait_until("the working directory", || {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == work.path())
        });
        assert_eq!(process::status(pid, "Umask"), "0027");
    }
    // `main` of the next worker reads the same arguments, and the manager the same file.
    assert!(process::signal(manager.id(), Signal::HUP));
    wait_until("the settings to be read again", || {
        let log = fs::read_to_string(home.path().join("log")).unwrap();
        assert!(!log.contains("not read again"), "{log}");
        log.contains("settings read again")
    });
    let reload = command(&["reload"]).output().unwrap();
    assert!(reload.status.success(), "{reload:?}");
    let second = wait_for("a worker", || worker(&status()?));
    assert_ne!(first, second);
    let stop = command(&["stop"]).output().unwrap();
    assert!(stop.status.success(), "{stop:?}");
    assert!(manager.wait().unwrap().success());
}
