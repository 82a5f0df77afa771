//! What a server listens on: Unix sockets, IPv6, shared ports, sockets that were passed to it.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::{
        fs::PermissionsExt,
        net::{SocketAddr as UnixAddress, UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
};

use gannet_tests::{
    process::{self, Signal},
    server::{Ended, Spec, rows},
    tcp::TcpClient,
    wait::{wait_for, wait_until},
};
use rustix::process::{getegid, geteuid};

use crate::behave;

#[test]
fn a_unix_socket_serves_and_says_who_is_there() {
    let (directory, address) = socket_in("who");
    let server = behave().listen("tcp", &address).start();
    assert_eq!(server.address_text(0), address);
    let mut client = unix(&address);
    assert_eq!(client.ask("echo hello"), "hello");
    let own = format!("peer=unix:pid={},uid={} ", std::process::id(), geteuid());
    let info = client.ask("info");
    assert!(info.contains(&own) && info.contains("local=- "), "{info}");
    let of = format!("{} {} {}", std::process::id(), geteuid(), getegid());
    assert_eq!(client.ask("credentials"), of);

    let listed = rows(&server.control(&["clients", "--json"]).out);
    let peer = listed[0]["peer"].as_str().unwrap();
    assert!(peer.starts_with("unix:pid="), "{peer}");
    server.stop();
    assert!(!path(&address).exists(), "the file is removed at the stop");
    drop(directory);
}

#[test]
fn unix_connections_survive_a_kill_and_a_reload() {
    let (_directory, address) = socket_in("kill");
    let server = behave().set("workers", 1).listen("tcp", &address).start();
    let mut client = unix(&address);
    assert_eq!(client.ask("abort-once 1"), "survived 1");
    server.reload();
    assert_eq!(client.ask("echo 2"), "2");
    server.stop();
}

#[test]
fn http_and_websocket_are_served_on_unix_sockets_too() {
    let (_directory, address) = socket_in("http");
    let server = behave().listen("websocket", &address).start();
    let mut client = unix(&address);
    client.send("GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let response = String::from_utf8(client.rest()).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    server.stop();
}

#[test]
fn an_abstract_socket_has_no_file() {
    let name = format!("gannet-test-{}", std::process::id());
    let server = behave().listen("tcp", &format!("unix:@{name}")).start();
    let mut client = TcpClient::unix(&abstract_address(&name));
    assert_eq!(client.ask("echo hello"), "hello");
    server.stop();
}

#[test]
fn a_socket_file_has_the_mode_that_was_set() {
    for (mode, expected) in [(None, 0o600), (Some(0o666), 0o666), (Some(0o660), 0o660)] {
        let (_directory, address) = socket_in("mode");
        let mut spec = behave().listen("tcp", &address);
        if let Some(mode) = mode {
            spec = spec.with("unix_mode", mode);
        }
        let server = spec.start();
        let found = path(&address).metadata().unwrap().permissions().mode();
        assert_eq!(found & 0o777, expected);
        server.stop();
    }
}

#[test]
fn a_socket_file_that_a_dead_server_left_is_replaced() {
    let (_directory, address) = socket_in("stale");
    let mut server = behave().listen("tcp", &address).start();
    process::kill(server.manager());
    server.wait_exit();
    assert!(path(&address).exists(), "nobody could remove it");
    let server = server.start_again();
    assert_eq!(unix(&address).ask("echo hello"), "hello");
    server.stop();
}

#[test]
fn a_socket_file_of_somebody_else_is_left_alone() {
    let (_directory, address) = socket_in("taken");
    let other = UnixListener::bind(path(&address)).unwrap();
    let spec = behave().listen("tcp", &address);
    expect_refused(
        &spec.run(&["start"]),
        1,
        "stop the program that listens there",
    );
    assert!(path(&address).exists());
    drop(other);

    std::fs::remove_file(path(&address)).unwrap();
    std::fs::write(path(&address), "precious").unwrap();
    expect_refused(&spec.run(&["start"]), 1, "no socket stands there");
    assert_eq!(std::fs::read(path(&address)).unwrap(), b"precious");

    let nowhere = behave().listen("tcp", "unix:/no/such/directory/a.sock");
    expect_refused(&nowhere.run(&["start"]), 1, "the directory must exist");
}

#[test]
fn an_ipv6_listener_takes_ipv4_as_well() {
    let server = behave().listen("tcp", "[::]:0").start();
    let port = server.address(0).port();
    let mut four = TcpClient::connect((Ipv4Addr::LOCALHOST, port).into());
    let info = four.ask("info");
    let own = format!("peer={} local=127.0.0.1:{port} ", four.local());
    assert!(info.contains(&own), "{info}");
    let mut six = TcpClient::connect((Ipv6Addr::LOCALHOST, port).into());
    let own = format!("peer={} local=[::1]:{port} ", six.local());
    let info = six.ask("info");
    assert!(info.contains(&own), "{info}");
    server.stop();
}

#[test]
fn an_ipv6_listener_takes_ipv6_only_where_it_is_told_so() {
    // Another's listener may have the number of the port: then the next one is tried.
    let alone = (0..5).find_map(|_| {
        let server = behave()
            .listen("tcp", "[::]:0")
            .with("v6only", true)
            .start();
        let port = server.address(0).port();
        let refused = TcpClient::try_connect((Ipv4Addr::LOCALHOST, port).into()).is_err();
        refused.then_some((server, port))
    });
    let (server, port) = alone.expect("it takes IPv4");
    let mut six = TcpClient::connect((Ipv6Addr::LOCALHOST, port).into());
    assert_eq!(six.ask("echo hello"), "hello");
    server.stop();
}

#[test]
fn two_servers_share_a_port_if_both_say_so() {
    let first = behave().tcp().with("reuse_port", true).start();
    let address = first.address(0).to_string();
    let sharing = behave().listen("tcp", &address).with("reuse_port", true);
    let second = sharing.start();
    expect_refused(
        &behave().listen("tcp", &address).run(&["start"]),
        1,
        "Address already in use",
    );
    // The kernel chooses by the client's port: both get some.
    let managers = |client: &mut TcpClient| -> u32 {
        let pid: u32 = client.ask("pid").parse().unwrap();
        let is_first =
            pid == first.manager() || first.workers().iter().any(|&(_, worker)| worker == pid);
        if is_first {
            first.manager()
        } else {
            second.manager()
        }
    };
    let mut seen = std::collections::HashSet::new();
    wait_until("clients at both", || {
        seen.insert(managers(&mut first.tcp()));
        seen.len() == 2
    });
    second.stop();
    assert_eq!(first.tcp().ask("echo alone"), "alone");
    first.stop();
}

#[test]
fn listeners_of_every_kind_are_served_by_one_server() {
    let (_directory, address) = socket_in("all");
    let server = behave()
        .tcp()
        .http()
        .websocket()
        .listen("tcp", &address)
        .start();
    let mut websocket = server.websocket();
    assert_eq!(websocket.ask("sub news"), "ok");
    assert!(server.tcp().ask("info").contains("listener=0"));
    assert_eq!(server.http().get("/").text(), "hello");
    let mut client = unix(&address);
    assert!(client.ask("info").contains("listener=3"));
    client.send("pub news from a unix socket\n");
    assert_eq!(websocket.text(), "from a unix socket");
    server.stop();
}

#[test]
fn passed_sockets_are_served_and_not_bound() {
    let (_directory, address) = socket_in("passed");
    let server = launched(
        behave()
            .listen("tcp", "127.0.0.1:0")
            .with("fd_name", "echo")
            .listen("tcp", &address)
            .listen("http", "127.0.0.1:0"),
        &format!("{address} echo=127.0.0.1:0"),
    )
    .start();
    assert_eq!(server.tcp().ask("echo by name"), "by name");
    assert_eq!(unix(&address).ask("echo by address"), "by address");
    assert_eq!(
        server.http().get("/").text(),
        "hello",
        "bound by the server"
    );

    // They live on with a new master, and nobody below has the variables.
    process::kill(server.master());
    wait_until("a new master", || {
        let client = TcpClient::try_connect(server.address(0));
        client.is_ok_and(|mut client| {
            client.try_send("echo again\n").is_ok() && client.try_bytes(6).is_ok()
        })
    });
    for pid in server.processes() {
        if pid != server.manager() {
            let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let variables = String::from_utf8_lossy(&variables).into_owned();
            assert!(!variables.contains("LISTEN_"), "{pid}: {variables}");
        }
    }
    server.stop();
    assert!(path(&address).exists(), "the file is the service manager's");
}

#[test]
fn passed_sockets_that_fit_no_listener_are_refused() {
    let refused = |spec: Spec, sockets: &str, why: &str| {
        expect_refused(&launched(spec, sockets).run(&["start"]), 2, why);
    };
    let named = || behave().tcp().with("fd_name", "echo");
    refused(
        behave().tcp(),
        "x=127.0.0.1:0",
        "that no listener wants: descriptor 3",
    );
    refused(
        named(),
        "other=127.0.0.1:0",
        "no socket of the name \"echo\"",
    );
    refused(named(), "!echo=", "is no socket");
    let (_directory, address) = socket_in("unfit");
    refused(
        named(),
        &format!("echo={address}"),
        "the same kind of address",
    );
    refused(named(), "echo=udp:127.0.0.1:0", "wants a stream socket");
    let packets = behave().udp().with("fd_name", "echo");
    refused(packets, "echo=127.0.0.1:0", "wants datagrams");
}

#[test]
fn sockets_passed_to_another_process_are_not_taken() {
    // As after a shell was started with the variables.
    let server = behave()
        .tcp()
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "3")
        .start();
    assert_eq!(server.tcp().ask("echo hello"), "hello");
    server.signal(Signal::TERM);
    let mut server = server;
    server.expect_exit(0);
}

#[test]
fn the_service_manager_s_own_launcher_is_understood() {
    let launcher = "/usr/bin/systemd-socket-activate";
    if !Path::new(launcher).exists() {
        eprintln!("not here: {launcher}");
        return;
    }
    // It waits for a first client, then becomes the server.
    let (home, address) = socket_in("launched");
    let mut child = Command::new(launcher)
        .args(["-l", path(&address).to_str().unwrap(), "--fdname=echo"])
        .arg(env!("CARGO_BIN_EXE_behave"))
        .args(["--listen", &address, "--workers", "1", "--pid-file"])
        .arg(home.path().join("pid"))
        .env_remove("GANNET_SOAK")
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let stream = wait_for("the launcher to listen", || {
        UnixStream::connect(path(&address)).ok()
    });
    drop(stream);
    assert_eq!(unix(&address).ask("echo hello"), "hello");
    assert!(process::signal(child.id(), Signal::TERM));
    assert!(child.wait().unwrap().success());
}

/// A directory, and the address of a socket in it.
fn socket_in(name: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/{name}.sock", directory.path().display());
    (directory, address)
}

fn path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix:").unwrap())
}

fn unix(address: &str) -> TcpClient {
    TcpClient::unix(&UnixAddress::from_pathname(path(address)).unwrap())
}

fn abstract_address(name: &str) -> UnixAddress {
    <UnixAddress as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).unwrap()
}

fn launched(spec: Spec, sockets: &str) -> Spec {
    spec.launched_by(env!("CARGO_BIN_EXE_launch"), sockets)
}

fn expect_refused(ended: &Ended, code: i32, why: &str) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(ended.err.contains(why), "{ended:?}");
}
