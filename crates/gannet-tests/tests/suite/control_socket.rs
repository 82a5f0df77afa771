//! The control socket: who is let in, and what nobody can do to the server through it.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use gannet_tests::{
    process::{self, Signal},
    server::Server,
    wait::wait_until,
};
use serde_json::Value;

use crate::behave;

fn path(server: &Server) -> PathBuf {
    let mut path = server.pid_file().into_os_string();
    path.push(".sock");
    path.into()
}

struct Control(BufReader<UnixStream>);

impl Control {
    fn connect(server: &Server) -> Self {
        let stream = UnixStream::connect(path(server)).unwrap();
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        Control(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn reply(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn ask(&mut self, request: &str) -> Value {
        self.send(format!("{request}\n"));
        self.reply()
    }

    fn expect_end(&mut self) {
        // What the server has not read makes it a reset.
        assert!(!matches!(self.0.read(&mut [0]), Ok(1..)));
    }
}

const STATUS: &str = r#"{"cmd":"status"}"#;

#[test]
fn garbage_is_answered_with_an_error_and_the_connection_goes_on() {
    let server = behave().tcp().start();
    let mut control = Control::connect(&server);
    for garbage in [
        "",
        "dance",
        "{}",
        r#"{"cmd":"dance"}"#,
        r#"{"cmd":"stop","now":true}"#,
        r#"{"cmd":"kick"}"#,
        r#"{"cmd":"kick","to":{}}"#,
        r#"{"cmd":"send","to":{"all":true},"data":{"hex":"0g"}}"#,
        r#"{"cmd":"clients","only":{"address":"here"}}"#,
    ] {
        let reply = control.ask(garbage);
        assert_eq!(reply["version"], 1);
        assert_eq!(reply["error"]["code"], "bad_request", "{garbage}: {reply}");
    }
    control.send([0xff, 0xfe, b'\n']);
    assert_eq!(control.reply()["error"]["code"], "bad_request");
    assert_eq!(
        control.ask(STATUS)["ok"]["version"],
        env!("CARGO_PKG_VERSION")
    );
    server.stop();
}

#[test]
fn requests_in_pieces_and_many_at_once_are_answered_in_order() {
    let server = behave().tcp().start();
    let mut control = Control::connect(&server);
    for byte in STATUS.bytes() {
        control.send([byte]);
    }
    control.send("\n");
    assert!(control.reply()["ok"].is_object());
    control.send(format!(
        "{STATUS}\n{{\"cmd\":\"reload\",\"progress\":true}}\n{STATUS}\nnonsense\n"
    ));
    assert_eq!(control.reply()["ok"]["reloads"], 0);
    let events = std::iter::from_fn(|| Some(control.reply()));
    let events: Vec<Value> = events.take_while(|reply| reply["ok"].is_null()).collect();
    assert_eq!(events[0]["event"]["reload"], "begins");
    assert_eq!(control.reply()["ok"]["reloads"], 1);
    assert_eq!(control.reply()["error"]["code"], "bad_request");
    server.stop();
}

#[test]
fn a_line_that_is_too_long_closes_the_connection_and_only_that() {
    let server = behave().tcp().start();
    let (mut long, mut other) = (Control::connect(&server), Control::connect(&server));
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while long.0.get_mut().write_all(&piece).is_ok() {
        sent += piece.len();
        assert!(sent < 64 << 20, "it takes everything");
    }
    long.expect_end();
    assert!(other.ask(STATUS)["ok"].is_object());
    server.stop();
}

#[test]
fn a_client_that_does_not_read_is_not_served_further_and_keeps_nobody_waiting() {
    let server = behave().tcp().start();
    let mut slow = Control::connect(&server);
    let requests = format!("{STATUS}\n").repeat(1000);
    let socket = slow.0.get_mut();
    socket.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // As much as is taken: not all of it, since its replies are not read.
    wait_until("the server to take no more", || {
        let before = sent;
        while let Ok(written) = socket.write(requests.as_bytes()) {
            sent += written;
            assert!(sent < 64 << 20, "it takes everything");
        }
        sent == before
    });
    let memory = |title: &str| {
        let of = server.memory().into_iter().find(|(t, _)| t.contains(title));
        of.unwrap().1.resident
    };
    assert!(memory("manager") < 64 << 20);
    assert!(Control::connect(&server).ask(STATUS)["ok"].is_object());
    // It reads after all, and has an answer to each.
    socket.set_nonblocking(false).unwrap();
    for _ in 0..sent / (STATUS.len() + 1) {
        assert!(slow.reply()["ok"].is_object());
    }
    server.stop();
}

#[test]
fn of_too_many_connections_the_one_that_was_silent_longest_is_closed() {
    let server = behave().tcp().start();
    let mut first = Control::connect(&server);
    assert!(first.ask(STATUS)["ok"].is_object());
    let mut second = Control::connect(&server);
    assert!(second.ask(STATUS)["ok"].is_object());
    assert!(first.ask(STATUS)["ok"].is_object());
    let mut others: Vec<Control> = (0..63).map(|_| Control::connect(&server)).collect();
    assert!(others[62].ask(STATUS)["ok"].is_object());
    second.expect_end();
    assert!(first.ask(STATUS)["ok"].is_object());
    server.stop();
}

#[test]
fn what_a_master_was_asked_is_answered_though_it_dies() {
    let server = behave().websocket().start();
    let (mut asking, mut other) = (Control::connect(&server), Control::connect(&server));
    let publish = r#"{"cmd":"publish","topic":"news","data":{"text":"extra"}}"#;
    assert_eq!(asking.ask(publish)["ok"]["count"], 0);
    let master = server.master();
    assert!(process::signal(master, Signal::STOP));
    asking.send(format!("{publish}\n{STATUS}\n"));
    // The manager takes what has come in the order in which it came.
    assert!(other.ask(STATUS)["ok"].is_object());
    process::kill(master);
    assert_eq!(asking.reply()["error"]["code"], "unavailable");
    assert!(asking.reply()["ok"].is_object(), "and the next request");
    wait_until("an answer of the next master", || {
        asking.ask(publish)["ok"]["count"] == 0
    });
    server.stop();
}

#[test]
fn nobody_else_may_control_the_server() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test asks as another user: run it as root, or leave it out"
    );
    let server = behave().tcp().start();
    let socket = path(&server);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = refused_as_nobody(&server);
    assert!(error.contains("the server runs as user root"), "{error}");
    // Even with the socket open to all, its peer is looked at.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let error = refused_as_nobody(&server);
    assert!(error.contains("the server runs"), "{error}");
    server.expect_log("control connection refused: user 65534 is neither the server's nor root");
    assert_eq!(server.tcp().ask("echo served"), "served");
    server.stop();
}

#[test]
fn nothing_is_asked_of_a_socket_that_another_user_has_put_there() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test starts a server for another user: run it as root, or leave it out"
    );
    let server = behave().set("user", "daemon").tcp().home_of(1).start();
    fs::set_permissions(path(&server), Permissions::from_mode(0o666)).unwrap();
    let error = refused_as_nobody(&server);
    assert!(error.contains("the server runs as user daemon"), "{error}");
    server.stop();
}

/// What the program says to nobody who wants to stop the server.
fn refused_as_nobody(server: &Server) -> String {
    fs::set_permissions(server.home(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(server.home().join("program"));
    command.args(["stop", "--pid-file"]).arg(server.pid_file());
    let refused = command.uid(65_534).gid(65_534).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    String::from_utf8(refused.stderr).unwrap()
}
