//! What an operator does to connections and with settings, from the command line.

use std::fs;

use gannet_tests::{
    server::{Ended, Server, rows},
    wait::wait_until,
    websocket::{Frame, WebSocket},
};
use serde_json::Value;

use crate::behave;

fn good(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.out.trim_end()
}

fn listed(server: &Server, arguments: &[&str]) -> Vec<u64> {
    let arguments = [&["clients", "--json"], arguments].concat();
    let ended = server.control(&arguments);
    let ids = rows(good(&ended)).into_iter();
    ids.map(|row| row["id"].as_u64().unwrap()).collect()
}

#[test]
fn clients_are_those_to_which_all_filters_apply() {
    let server = behave()
        .set("reactors", 2)
        .tcp()
        .websocket()
        .listen("websocket", "[::1]:0")
        .start();
    let mut tcp = server.tcp();
    let mut ann = server.websocket();
    let mut bob = WebSocket::connect(server.address(2));
    let id = |text: String| -> u64 { text.parse().unwrap() };
    let (tcp, ann_id, bob_id) = (id(tcp.ask("id")), id(ann.ask("id")), id(bob.ask("id")));
    for (client, uid) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        assert_eq!(client.ask(format!("bind {uid}")), "ok");
        assert_eq!(client.ask("sub news"), "ok");
    }
    let mut all = vec![tcp, ann_id, bob_id];
    all.sort_unstable();
    let sorted = |arguments: &[&str]| {
        let mut ids = listed(&server, arguments);
        ids.sort_unstable();
        ids
    };
    wait_until("all to be listed", || sorted(&[]) == all);
    assert_eq!(listed(&server, &["--uid", "ann"]), [ann_id]);
    assert_eq!(listed(&server, &["--listener", "0"]), [tcp]);
    assert_eq!(listed(&server, &["--address", "::1"]), [bob_id]);
    assert_eq!(listed(&server, &["--address", "unix"]), [0; 0]);
    let mut both = vec![ann_id, bob_id];
    both.sort_unstable();
    assert_eq!(sorted(&["--topic", "news"]), both);
    assert_eq!(
        sorted(&["--topic", "news", "--address", "127.0.0.0/8"]),
        [ann_id]
    );
    assert_eq!(sorted(&["--topic", "nothing"]), [0; 0]);
    assert_eq!(listed(&server, &["--limit", "2"]).len(), 2);
    let wrong = server.control(&["clients", "--address", "here"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("10.0.0.0/8"), "{}", wrong.err);
    server.stop();
}

#[test]
fn kick_closes_those_that_are_meant_and_says_how_many() {
    let server = behave().websocket().tcp().start();
    let (mut ann, mut bob, mut cat) = (server.websocket(), server.websocket(), server.websocket());
    for (client, uid) in [(&mut ann, "ann"), (&mut bob, "bob"), (&mut cat, "cat")] {
        assert_eq!(client.ask(format!("bind {uid}")), "ok");
    }
    let kick = |arguments: &[&str]| server.control(&[&["kick"], arguments].concat());
    let with_reason = ["--uid", "ann", "--code", "4001", "--reason", "elsewhere"];
    assert_eq!(good(&kick(&with_reason)), "kicked 1 connections");
    let close = Frame::Close(Some((4001, "elsewhere".to_owned())));
    assert_eq!(ann.message(), close);

    let bob_id = bob.ask("id");
    assert_eq!(good(&kick(&[&bob_id])), "kicked 1 connections");
    bob.expect_close(1008);
    let gone = kick(&[&bob_id]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("there is no connection"), "{}", gone.err);

    assert_eq!(good(&kick(&["--uid", "nobody"])), "kicked 0 connections");
    assert_eq!(kick(&[]).code, Some(2), "nobody was named");
    let wrong = kick(&["--uid", "cat", "--code", "1005"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("4000 to 4999"), "{}", wrong.err);
    assert_eq!(cat.ask("echo still here"), "still here");
    assert_eq!(good(&kick(&["--all"])), "kicked 1 connections");
    cat.expect_close(1008);
    wait_until("the count of it", || {
        server.status()["totals"]["closed"]["kicked"] == 3
    });
    server.stop();
}

#[test]
fn send_and_publish_reach_those_that_are_meant_and_say_how_many() {
    let server = behave().set("reactors", 2).websocket().tcp().start();
    let (mut ann, mut bob, mut tcp) = (server.websocket(), server.websocket(), server.tcp());
    assert_eq!(ann.ask("bind ann"), "ok");
    assert_eq!(ann.ask("sub news"), "ok");
    assert_eq!(bob.ask("sub news"), "ok");
    assert_eq!(tcp.ask("echo 1"), "1");
    let id = bob.ask("id");

    let one = "sent to 1 connections";
    assert_eq!(good(&server.control(&["send", &id, "hello bob"])), one);
    assert_eq!(bob.text(), "hello bob");
    assert_eq!(
        good(&server.control(&["send", "--uid", "ann", "hello ann"])),
        one
    );
    assert_eq!(ann.text(), "hello ann");
    let file = server.home().join("text");
    fs::write(&file, "from a file\n").unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(
        good(&server.control(&["send", "--listener", "1", "--file", path])),
        one
    );
    assert_eq!(tcp.line(), "from a file");
    fs::remove_file(&file).unwrap();
    assert_eq!(good(&server.control(&["send", &id, "--hex", "00ff"])), one);
    assert_eq!(bob.binary(), [0, 255]);

    let published = server.control(&["publish", "news", "extra"]);
    assert_eq!(good(&published), "sent to 2 connections");
    assert_eq!(
        (ann.text(), bob.text()),
        ("extra".to_owned(), "extra".to_owned())
    );
    let published = server.control(&["publish", "nothing", "extra"]);
    assert_eq!(good(&published), "sent to 0 connections");

    for wrong in [
        &["send", "text without anybody"][..],
        &["send", &id],
        &["send", &id, "a", "b"],
    ] {
        let ended = server.control(wrong);
        assert_eq!(ended.code, Some(2), "{wrong:?}: {ended:?}");
    }
    server.stop();
}

#[test]
fn settings_say_where_each_comes_from() {
    let server = behave()
        .set("max_in_flight", 65)
        .env("GANNET_TASK_WORKERS", "1")
        .tcp()
        .start();
    let ended = server.control(&["settings", "--json"]);
    let running: Vec<Value> = serde_json::from_str(good(&ended)).unwrap();
    let of = |name: &str| {
        let setting = running.iter().find(|setting| setting["name"] == name);
        setting
            .unwrap_or_else(|| panic!("{name}: {}", ended.out))
            .clone()
    };
    assert_eq!(of("max_in_flight")["value"], 65);
    assert_eq!(of("max_in_flight")["source"], "file");
    let at = of("max_in_flight")["at"].as_str().unwrap().to_owned();
    let (file, line) = at.rsplit_once(':').unwrap();
    let text = fs::read_to_string(file).unwrap();
    let line: usize = line.parse().unwrap();
    assert_eq!(text.lines().nth(line - 1), Some("max_in_flight = 65"));
    assert_eq!(of("task_workers")["at"], "GANNET_TASK_WORKERS");
    assert_eq!(of("pid_file")["at"], "--pid-file");
    assert_eq!(of("max_parked")["source"], "default");
    let address = of("listeners.0.address");
    assert_eq!(
        (&address["source"], &address["adjusted"]),
        (&"file".into(), &true.into())
    );
    assert_eq!(address["value"], server.address_text(0));

    let text = server.control(&["settings", "--changed"]).out;
    assert!(
        text.starts_with("Settings of the running server:"),
        "{text}"
    );
    assert!(
        text.contains("max_in_flight") && !text.contains("max_parked"),
        "{text}"
    );
    let planned = server.control(&["settings", "--planned", "--workers", "7", "--listen", "a:1"]);
    assert_eq!(planned.code, Some(2), "{planned:?}");
    let listen = ["--listen", "ws://127.0.0.1:7"];
    let planned = server.control(&[&["settings", "--planned"], &listen[..]].concat());
    assert!(good(&planned).starts_with("Settings as a start would use them:"));
    let row = planned
        .out
        .lines()
        .find(|line| line.starts_with("listeners.0.protocol"));
    assert!(row.is_some_and(|row| row.contains("websocket") && row.ends_with("--listen")));
    server.stop();
}
