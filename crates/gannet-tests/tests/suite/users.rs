//! Servers that root starts for another user.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use gannet_tests::{process, server::Server, tcp::TcpClient, tls::Keys, wait::wait_until};

use crate::behave;

/// Debian's and everybody's `nobody`.
const NOBODY: u32 = 65534;

/// These tests change users, which only root may.
#[track_caller]
fn as_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test starts servers for other users: run it as root, or leave `users::` out"
    );
}

#[test]
fn no_process_keeps_a_right_of_root_and_low_ports_work() {
    as_root();
    let port = free_low_port();
    let server = behave()
        .set("user", "nobody")
        .set("task_workers", 1)
        .listen("tcp", &format!("127.0.0.1:{port}"))
        .home_of(NOBODY)
        .start();
    let expect_all = |server: &Server| {
        for pid in server.processes() {
            for name in ["Uid", "Gid"] {
                let ids = process::status(pid, name);
                let all = ids.split_whitespace().all(|id| id == NOBODY.to_string());
                assert!(all, "{pid}: {name}: {ids}");
            }
            let groups = process::status(pid, "Groups");
            if groups.is_empty() && !server.processes().contains(&pid) {
                // A worker that was replaced: it has ended meanwhile.
                continue;
            }
            assert_eq!(groups, NOBODY.to_string(), "groups of {pid}");
            for set in ["CapPrm", "CapEff"] {
                assert_eq!(process::status(pid, set).trim_matches('0'), "", "{set}");
            }
        }
    };
    expect_all(&server);
    let home = process::with_environment("HOME", "/nonexistent");
    assert!(server.workers().iter().all(|(_, pid)| home.contains(pid)));
    assert_eq!(server.tcp().ask("echo low"), "low");

    // The port was bound by root, and is there for the next master.
    let master = server.master();
    process::kill(master);
    wait_until("another master", || server.master() != master);
    wait_until("an answer", || {
        TcpClient::try_connect(server.address(0)).is_ok_and(|mut c| c.ask("echo again") == "again")
    });
    server.reload();
    expect_all(&server);

    // The user may steer it as well as root.
    let status = Command::new(server.program())
        .args(["status", "--pid-file"])
        .arg(server.pid_file())
        .env_remove("GANNET_SOAK")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    // The pid file and the socket are gone with it.
    server.stop();
}

#[test]
fn a_pid_file_where_only_root_may_write_is_left_empty_and_taken_over() {
    as_root();
    let mut server = behave().set("user", "nobody").tcp().home_of(0).start();
    let pid = fs::read_to_string(server.pid_file()).unwrap();
    assert_eq!(pid.trim(), server.manager().to_string());
    assert_eq!(server.tcp().ask("echo 1"), "1");
    gannet_tests::tcp::close_all();
    let stopped = server.control(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(fs::read_to_string(server.pid_file()).unwrap(), "");
    let none = server.control(&["status"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.err.contains("no server is running"), "{none:?}");

    let server = server.start_again();
    assert_eq!(server.tcp().ask("echo 2"), "2");
    gannet_tests::tcp::close_all();
    assert_eq!(server.control(&["stop"]).code, Some(0));
}

#[test]
fn a_pid_file_of_a_stranger_is_refused_and_kept() {
    as_root();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    fs::write(&path, "1\n").unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
    let ended = behave().tcp().pid_file(&path).run(&["start"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("belongs to user nobody"), "{ended:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn keys_that_only_root_may_read_serve_until_they_are_to_be_read_again() {
    as_root();
    let keys = Keys::default();
    let server = keys
        .serve(behave().set("user", "nobody").tcp())
        .home_of(NOBODY)
        .start();
    server.expect_log("user nobody cannot read the certificates");
    let reload = server.control(&["reload"]);
    assert_eq!(reload.code, Some(1), "{reload:?}");
    assert!(reload.err.contains("Permission denied"), "{reload:?}");
    server.stop();
}

#[test]
fn mistakes_are_refused_before_anything_is_started() {
    as_root();
    let spec = || behave().tcp();
    for (user, group, says) in [
        ("no-such-user", "", "there is no such user"),
        ("nobody", "no-such-group", "there is no such group"),
        ("", "nogroup", "without `user`"),
    ] {
        let ended = spec().set("user", user).set("group", group).run(&["start"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(says), "{ended:?}");
    }
    // A program that only root can reach.
    let hidden = tempfile::tempdir().unwrap();
    let only_root = fs::Permissions::from_mode(0o700);
    fs::set_permissions(hidden.path(), only_root).unwrap();
    let program = hidden.path().join("behave");
    fs::copy(env!("CARGO_BIN_EXE_behave"), &program).unwrap();
    let ended = gannet_tests::server::Spec::new(&program)
        .tcp()
        .set("user", "nobody")
        .run(&["start"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("cannot run the program"), "{ended:?}");
}

#[test]
fn only_root_starts_servers_for_others() {
    as_root();
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("program");
    fs::copy(env!("CARGO_BIN_EXE_behave"), &program).unwrap();
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(home.path(), all).unwrap();
    let output = Command::new(&program)
        .args(["start", "--listen", "127.0.0.1:0", "--user", "daemon"])
        .env_remove("GANNET_SOAK")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        err.contains("only root can start the server as user daemon"),
        "{err}"
    );
    assert!(err.contains("this is nobody"), "{err}");
}

#[test]
fn new_privileges_can_be_ruled_out() {
    let server = behave().set("no_new_privs", true).tcp().start();
    for pid in server.processes() {
        assert_eq!(process::status(pid, "NoNewPrivs"), "1");
    }
    server.stop();
}

/// A port that needs root, as far as one can know.
fn free_low_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (600..1024)
        .rev()
        .find(is_free)
        .expect("a free port below 1024")
}

#[test]
fn a_log_file_that_the_user_cannot_open_again_ends_the_start() {
    as_root();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = directory.path().join("log");
    let spec = behave()
        .set("user", "nobody")
        .set("log_file", file.to_str().unwrap())
        .tcp()
        .home_of(NOBODY);
    // One that root has made for himself.
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let ended = spec.run(&["start"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.err.contains("`log_file`") && ended.err.contains("at HUP"),
        "{}",
        ended.err
    );
    // One that is made now is the user's, though the directory is not.
    fs::remove_file(&file).unwrap();
    let server = spec.start();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&file).unwrap());
    assert_eq!(owner, NOBODY);
    server.stop();
}
