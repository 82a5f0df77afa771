//! Reload when the program, or a file that is watched, has changed.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
};

use gannet_tests::{
    server::{Server, Spec},
    wait::wait_until,
};
use tempfile::TempDir;

use crate::behave;

/// A server that watches an empty directory.
fn watching() -> (Spec, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let spec = behave()
        .set("watch", vec![path])
        .set("watch_debounce_ms", 50)
        .tcp();
    (spec, directory)
}

fn last_error(server: &Server) -> Option<String> {
    let status = server.status();
    Some(status["last_reload"]["error"].as_str()?.to_owned())
}

#[test]
fn a_rebuilt_program_serves_the_connections_of_the_one_before() {
    let (spec, _directory) = watching();
    let server = spec.websocket().start();
    let (mut tcp, mut websocket) = (server.tcp(), server.websocket());
    assert_eq!(tcp.ask("version"), "1");
    server.replace_program(env!("CARGO_BIN_EXE_behave_v2"));
    wait_until("the new code", || {
        tcp.ask("version") == "2" && websocket.ask("version") == "2"
    });
    wait_until("the end of the reload", || {
        server.status()["last_reload"]["cause"] == "watch"
    });
    assert_eq!(last_error(&server), None);
    server.expect_log("watched files: ");
    server.stop();
}

#[test]
fn a_change_in_a_watched_directory_reloads_once_for_all_that_changed_together() {
    let (spec, directory) = watching();
    let server = spec.set("watch_debounce_ms", 500).start();
    fs::create_dir_all(directory.path().join("deep/down")).unwrap();
    for name in ["one", "two", "deep/down/three"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    server.expect_log("one");
    wait_until("a reload", || server.status()["last_reload"].is_object());
    assert_eq!(server.status()["reloads"], 1);
    let text = server.control(&["status"]).out;
    assert!(
        text.contains("by a watched file: replaced 2 of 2"),
        "{text}"
    );
    server.stop();
}

#[test]
fn a_program_that_is_still_being_written_is_tried_again_when_it_is_whole() {
    let (spec, _directory) = watching();
    let server = spec.start();
    let mut client = server.tcp();
    let new = fs::read(env!("CARGO_BIN_EXE_behave_v2")).unwrap();
    let path = server.home().join("program.part");
    let mut file = File::create(&path).unwrap();
    file.set_permissions(Permissions::from_mode(0o755)).unwrap();
    file.write_all(&new[..new.len() / 2]).unwrap();
    fs::rename(&path, server.home().join("program")).unwrap();
    wait_until("a reload that fails", || last_error(&server).is_some());
    assert_eq!(client.ask("version"), "1");
    file.write_all(&new[new.len() / 2..]).unwrap();
    drop(file);
    wait_until("the new code", || client.ask("version") == "2");
    server.stop();
}

#[test]
fn a_path_to_watch_that_is_not_there_is_refused_with_its_name() {
    let ended = behave()
        .tcp()
        .set("watch", vec!["/nonexistent/file"])
        .run(&["start"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let says = "`watch`: cannot watch /nonexistent/file";
    assert!(ended.err.contains(says), "{}", ended.err);

    let arguments = [
        "start",
        "--listen",
        "127.0.0.1:0",
        "--watch",
        "/nonexistent/flag",
    ];
    let ended = behave().run(&arguments);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("/nonexistent/flag"), "{}", ended.err);
}
