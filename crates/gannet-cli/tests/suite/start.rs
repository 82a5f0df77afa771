//! Starting, and what stands in the way.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::kit::{Server, data, program};

#[test]
fn the_first_start_shows_the_key_and_later_ones_do_not() {
    let server = Server::start();
    let key = server.key();
    assert!(server.greeting.contains(&key), "{}", server.greeting);
    assert!(
        server.greeting.contains("curl http://127.0.0.1:"),
        "{}",
        server.greeting
    );
    let file = data(server.dir.path()).join("api-key");
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let server = server.restart();
    assert!(!server.greeting.contains(&key), "{}", server.greeting);
    assert!(server.greeting.contains("api-key"), "{}", server.greeting);
    assert_eq!(server.key(), key);
}

#[test]
fn a_second_server_does_not_touch_the_first_ones_data() {
    let server = Server::start();
    let mut ann = server.client("ann");
    let output = program(&data(server.dir.path()))
        .args(["--listen", "127.0.0.1:0", "--pid-file"])
        .arg(server.dir.path().join("other.pid"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("another gannet uses the data directory"),
        "{error}"
    );
    server.reload();
    ann.sub("room");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |arguments: &[&str]| {
        let output = program(&data(dir.path())).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let server = Server::start();
    let error = fails(&["--listen", &server.address]);
    assert!(error.contains("Address already in use"), "{error}");
    fs::write(
        data(dir.path()).join("hub.db"),
        "no database at all, but a letter",
    )
    .unwrap();
    let error = fails(&["--listen", "127.0.0.1:0"]);
    assert!(error.contains("hub.db cannot be used"), "{error}");
    let error = fails(&["status"]);
    assert!(error.contains("error: "), "{error}");
    let error = fails(&["--lisen", "127.0.0.1:0"]);
    assert!(error.contains("--listen"), "{error}");

    fs::write(dir.path().join("file"), "").unwrap();
    let output = program(&dir.path().join("file/data")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("file/data cannot be used"), "{error}");
}

#[test]
fn the_command_line_steers_the_server() {
    let server = Server::start();
    let _ann = server.client("ann");
    assert_eq!(server.status()["workers"].as_array().unwrap().len(), 2);
    let clients = String::from_utf8(server.command(&["clients"]).stdout).unwrap();
    assert!(clients.contains("ann"), "{clients}");
    let clients = server.command(&["clients", "--json"]).stdout;
    let clients: serde_json::Value = serde_json::from_slice(&clients).unwrap();
    assert_eq!(clients[0]["uid"], "ann");
    let (dir, _) = server.stop();
    assert!(!data(dir.path()).join("gannet.pid").exists());
}
