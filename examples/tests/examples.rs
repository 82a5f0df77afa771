//! Every example does what its first lines say.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use gannet_tests::{
    http::HttpClient,
    tcp::TcpClient,
    tls::{Authority, Client, Wish, write},
    wait::wait_for,
    websocket::{Frame, WebSocket},
};

use crate::program::{example, path};

mod program;

#[test]
fn echo_sends_every_byte_back() {
    let server = example("echo").tcp().start();
    let mut client = server.tcp();
    client.send([0, 1, 2, 255]);
    assert_eq!(client.bytes(4), [0, 1, 2, 255]);
    server.stop();
}

#[test]
fn greet_says_hello_to_who_connects() {
    let server = example("greet").tcp().start();
    let mut client = server.tcp();
    let greeting = client.line();
    assert!(
        greeting.starts_with("Hello fd:") && greeting.ends_with("! from_id:0"),
        "{greeting}"
    );
    assert_eq!(client.ask("good morning"), "You said: good morning");
    server.stop();
}

#[test]
fn the_clients_of_greet_talk_to_it() {
    let server = example("greet").tcp().start();
    for mode in [&[][..], &["events"]] {
        let mut client = Command::new(path("greet_client"))
            .args(mode)
            .env("GREET", server.address_of("tcp").to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut screen = BufReader::new(client.stdout.take().unwrap()).lines();
        let mut keyboard = client.stdin.take().unwrap();
        let greeting = screen.next().unwrap().unwrap();
        assert!(greeting.starts_with("Hello fd:"), "{mode:?}: {greeting}");
        keyboard.write_all(b"good morning\n").unwrap();
        let answer = screen.next().unwrap().unwrap();
        assert!(
            answer.ends_with("You said: good morning"),
            "{mode:?}: {answer}"
        );
        drop(keyboard);
        assert!(client.wait().unwrap().success(), "{mode:?}");
    }
    server.stop();
}

#[test]
fn tls_greets_clients_by_the_name_in_their_certificate() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new("Test CA");
    let ca = write(home.path(), "ca.pem", authority.certificate());
    let server = example("tls")
        .websocket()
        .tls(&authority.server().write(home.path(), "server"))
        .with_tls("client_ca", ca.to_str().unwrap())
        .http()
        .start();
    let address = server.address_of("websocket");
    let ann = authority.sign(&Wish::new("ann", &[]));
    let known = Client::known(&authority, &ann).tunnel(address);
    let response = HttpClient::connect(known).get("/");
    let hello = response.text();
    assert!(hello.starts_with("Hello O=Example, CN=ann ("), "{hello}");
    let mut websocket = WebSocket::connect(known);
    let answer = websocket.ask("good morning");
    assert!(answer.ends_with(") says: good morning"), "{answer}");

    let unknown = Client::new(&authority).tunnel(address);
    let response = HttpClient::connect(unknown).get("/");
    assert_eq!(response.text(), "Hello whoever you are, over TLS 1.3\n");
    let response = server.http().get("/");
    assert_eq!(response.text(), "Hello whoever you are, in the clear\n");
    server.stop();
}

#[test]
fn tasks_goes_on_while_its_tasks_run() {
    let server = example("tasks").set("task_workers", 2).tcp().start();
    let mut client = server.tcp();
    assert!(client.ask("one").starts_with("Continue Handle Worker"));
    assert!(client.ask("two").starts_with("Continue Handle Worker"));
    let mut lines: Vec<String> = (0..6).map(|_| client.line()).collect();
    lines.sort();
    for (line, (task, step)) in lines
        .iter()
        .zip((1..=2).flat_map(|t| (1..=3).map(move |s| (t, s))))
    {
        assert!(
            line.starts_with(&format!("Data in Task {task} (step {step})")),
            "{lines:?}"
        );
    }
    server.stop();
}

#[test]
fn timers_tick_for_all_and_remind_the_silent() {
    let server = example("timers").tcp().start();
    let mut clients = [server.tcp(), server.tcp()];
    for client in &mut clients {
        let lines: Vec<String> = std::iter::repeat_with(|| client.line())
            .take_while(|line| line != "are you still there?")
            .collect();
        assert!(lines.len() >= 2, "{lines:?}");
        assert!(
            lines.iter().all(|line| line.starts_with("tick ")),
            "{lines:?}"
        );
    }
    server.stop();
}

#[test]
fn frames_answers_message_by_message() {
    let server = example("frames").tcp().tcp().start();
    let mut lines = TcpClient::connect(server.address(0));
    lines.send("hello\nwor");
    assert_eq!(lines.line(), "HELLO");
    lines.send("ld\r\n");
    assert_eq!(lines.line(), "WORLD");
    let mut lengths = TcpClient::connect(server.address(1));
    lengths.send(b"\0\x05hello\0\x05wor");
    assert_eq!(lengths.bytes(7), b"\0\x05HELLO");
    lengths.send("ld");
    assert_eq!(lengths.bytes(7), b"\0\x05WORLD");
    server.stop();
}

#[test]
fn udp_answers_each_datagram() {
    let server = example("udp").udp().start();
    let client = server.udp();
    let own = client.local();
    assert_eq!(client.ask("hello\n"), format!("{own} said: hello\n"));
    server.stop();
}

#[test]
fn wsecho_keeps_text_text_and_binary_binary() {
    let server = example("wsecho").websocket().start();
    let mut client = server.websocket();
    client.send("text");
    assert_eq!(client.message(), Frame::Text("text".to_owned()));
    client.send_binary([1, 2]);
    assert_eq!(client.message(), Frame::Binary(vec![1, 2]));
    server.stop();
}

#[test]
fn http_answers_and_streams() {
    serves_the_routes_of_http("http");
}

#[test]
fn axum_router_answers_as_http_does() {
    serves_the_routes_of_http("axum_router");
}

fn serves_the_routes_of_http(name: &str) {
    let server = example(name).http().start();
    let mut client = server.http();
    let hello = client.get("/");
    assert_eq!(hello.text(), "Hello from Gannet\n");
    assert_eq!(
        hello.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("18"))
    );
    assert_eq!(client.post("/echo", "body").text(), "body");
    assert_eq!(client.get("/none").status, 404);
    let pid: u32 = client.get("/pid").text().trim().parse().unwrap();
    assert!(server.workers().iter().any(|&(_, worker)| worker == pid));
    client.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().unwrap(), b"tick 0\n");
    assert_eq!(client.chunk().unwrap(), b"tick 1\n");
    server.stop();
}

#[test]
fn chat_shows_all_what_one_types() {
    let server = example("chat").websocket().start();
    let address = server.address_of("websocket");
    let page = HttpClient::connect(address).get("/");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text().contains("<title>Gannet chat</title>"));

    let mut ann = WebSocket::connect_with(address, "/chat", &[]);
    let id = ann.text().rsplit(' ').next().unwrap().to_owned();
    let mut bob = WebSocket::connect_with(address, "/chat", &[]);
    assert!(bob.text().starts_with("welcome"));
    assert!(ann.text().ends_with("has come in"));
    ann.send("hello");
    assert_eq!(ann.text(), format!("{id}: hello"));
    assert_eq!(bob.text(), format!("{id}: hello"));
    ann.close(1000);
    assert_eq!(bob.text(), format!("{id} has left"));
    let refused = WebSocket::try_connect(address, "/other", &[])
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.status, 404);
    server.stop();
}

#[test]
fn broadcast_gives_all_what_one_sends() {
    let server = example("broadcast").websocket().start();
    let mut clients = [server.websocket(), server.websocket()];
    clients[1].send("text");
    clients[0].send_binary([1, 2]);
    for client in &mut clients {
        let got = [client.message(), client.message()];
        assert!(got.contains(&Frame::Text("text".to_owned())), "{got:?}");
        assert!(got.contains(&Frame::Binary(vec![1, 2])), "{got:?}");
    }
    server.stop();
}

#[test]
fn taskecho_answers_by_way_of_task_workers() {
    let server = example("taskecho").set("task_workers", 2).tcp().start();
    let mut clients = [server.tcp(), server.tcp()];
    for n in 0..20 {
        for (c, client) in clients.iter_mut().enumerate() {
            client.send(format!("{n} of client {c}\n"));
        }
        for (c, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.line(), format!("{n} of client {c}"));
        }
    }
    server.stop();
}

#[test]
fn table_counts_in_one_table_whichever_worker_it_is() {
    let server = example("table")
        .set("reactors", 1)
        .set("workers", 2)
        .set("task_workers", 1)
        .tcp()
        .start();
    let mut clients = Vec::new();
    // Connections go to the workers in turn, but for the first ones if a worker is there only then.
    let counted = wait_for("both workers to have counted", || {
        let mut client = server.tcp();
        let times = clients.len() + 1;
        assert_eq!(client.ask("gannet"), format!("gannet: {times} times"));
        client.send("all\n");
        let all = format!("gannet: {times} times, last by worker ");
        assert!(client.line().starts_with(&all));
        let mut counted = Vec::new();
        let rows = loop {
            match client.line() {
                line if line.starts_with("worker ") => counted.push(line),
                line => break line,
            }
        };
        assert_eq!(rows, "1 rows");
        clients.push(client);
        (counted.len() == 2 && clients.len() >= 3).then_some(counted)
    });
    let words = |line: &String| {
        let words = line
            .split_once(": ")?
            .1
            .strip_suffix(" words of 6.0 letters")?;
        words.parse::<usize>().ok()
    };
    let words: Option<Vec<_>> = counted.iter().map(words).collect();
    assert_eq!(
        words.map(|words| words.iter().sum()),
        Some(clients.len()),
        "{counted:?}"
    );

    // More than there was room for at first, and gone again by way of a task worker.
    let grown = clients[0].ask("fill 3000");
    assert!(grown.starts_with("3001 rows of 1000000 at most"), "{grown}");
    assert_eq!(clients[1].ask("tidy"), "1 of 3001 words are left");
    let long = "x".repeat(65);
    assert_eq!(
        clients[2].ask(&long),
        "a key of 65 bytes is too long for table `words`: 64 are possible"
    );
    server.stop();
}

#[test]
fn processes_shows_children_output_and_events() {
    let output = Command::new(path("processes")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8(output.stdout).unwrap();
    let has = |text: &str| assert!(out.contains(text), "{text:?} in {out}");
    for child in 0..8 {
        has(&format!("child {child} (process "));
        has(&format!("child {child} has ended: exit code 0"));
    }
    has("counted 1229 primes below 10000");
    has("the speaker wrote: this line was printed by process ");
    has("the clock's socket says: ");
    has("the clock says: you said hello");
    has("the clock says: tick 3");
    assert!(out.ends_with("all children have ended\n"), "{out}");
}
