//! Graceful stop.

use std::{collections::HashMap, fs, thread};

use gannet_tests::{
    gate::Gate,
    http::post,
    load::{Client, Load},
    process::Signal,
    server::Server,
    wait::wait_until,
    websocket::{Frame, WebSocket},
};

use crate::{behave, heavy};

#[test]
fn stop_under_load_answers_everything_that_a_handler_began() {
    let _machine = heavy();
    let runs = tempfile::NamedTempFile::new().unwrap();
    let mut server = behave()
        .env("BEHAVE_TCP", "raw")
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .tcp()
        .websocket()
        .start();
    let (tcp, websocket) = (server.address_of("tcp"), server.address_of("websocket"));
    let load = Load::start(&[Client::Tcp(tcp), Client::WebSocket(websocket)], 50);
    wait_until("the load to run", || load.answered() > 1000);
    let ended = server.control(&["stop"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    server.expect_exit(0);

    // Every client was told, and none of them before its answers.
    let report = load.join();
    assert_eq!(
        report.errors.len(),
        report.connections,
        "{:?}",
        report.errors
    );
    report.expect_once();
    let mut begun: HashMap<String, u64> = HashMap::new();
    for line in fs::read_to_string(runs.path()).unwrap().lines() {
        if line.starts_with('#') {
            *begun.entry(line.to_owned()).or_default() += 1;
        }
    }
    assert!(
        begun.values().all(|&times| times == 1),
        "a message was handled twice"
    );
    println!(
        "{} sent, {} handled, {} answered",
        report.sent,
        begun.len(),
        report.answered
    );
    assert_eq!(
        begun.len() as u64,
        report.answered,
        "handled, but not answered"
    );
}

#[test]
fn stop_lets_handlers_finish_and_tells_every_client() {
    let mut server = behave().tcp().websocket().http().start();
    let (mut tcp, mut websocket, mut http) = (server.tcp(), server.websocket(), server.http());
    let mut idle = server.websocket();
    let mut idle_http = server.http();
    assert_eq!(idle_http.get("/").status, 200);
    let gate = Gate::shut();
    let path = gate.path();
    tcp.send(format!("gate {path} tcp\n"));
    websocket.send(format!("gate {path} websocket"));
    http.send(format!(
        "GET /gate?file={path} HTTP/1.1\r\nHost: test\r\n\r\n"
    ));
    // Once the server knows of them they count as accepted.
    wait_until("three handlers to run", || under_way(&server) == 3);

    server.signal(Signal::TERM);
    idle.expect_close(1001);
    idle_http.expect_closed();
    gate.open();
    assert_eq!(tcp.line(), "tcp");
    tcp.expect_closed();
    assert_eq!(websocket.text(), "websocket");
    websocket.expect_close(1001);
    let response = http.response();
    assert_eq!((response.status, response.text()), (200, "passed"));
    assert!(!response.keeps_alive(), "{response:?}");
    http.expect_closed();
    server.expect_exit(0);
}

#[test]
fn stop_lets_an_upload_arrive() {
    let mut server = behave().http().start();
    let (mut client, body) = (server.http(), vec![b'u'; 1 << 20]);
    let mut idle = server.http();
    assert_eq!(idle.get("/").status, 200);
    let request = post("/echo", &body);
    let (begin, rest) = request.split_at(request.len() / 2);
    client.send(begin);
    wait_until("the handler to run", || under_way(&server) > 0);
    server.signal(Signal::TERM);
    // The stop has begun.
    idle.expect_closed();
    client.send(rest);
    assert!(client.response().body == body, "another body came back");
    client.expect_closed();
    server.expect_exit(0);
}

#[test]
fn a_handler_that_outlasts_the_others_can_still_ask_every_reactor() {
    let mut server = behave().set("reactors", 2).websocket().start();
    let mut clients: Vec<_> = (1..=4).map(|_| server.websocket()).collect();
    let gates = [(); 4].map(|()| Gate::shut());
    for (client, gate) in clients.iter_mut().zip(&gates) {
        client.send(format!("gate {} passed", gate.path()));
        client.send("count topic");
    }
    wait_until("the handlers to run", || under_way(&server) == 8);
    server.signal(Signal::TERM);
    // Each handler ends when the others' reactor may have nothing left.
    for (client, gate) in clients.iter_mut().zip(&gates) {
        gate.open();
        assert_eq!(client.text(), "passed");
        assert_eq!(client.text(), "0");
        client.expect_close(1001);
    }
    server.expect_exit(0);
}

/// More than a reactor takes in a turn, in the last turn in which a handler runs, and what goes to a connection of
/// another worker.
#[test]
fn stop_takes_all_that_the_last_handlers_have_written() {
    const MANY: usize = 10_000;
    let mut server = behave().websocket().start();
    let mut first = server.websocket();
    let worker = first.ask("worker");
    let mut second = server.websocket();
    while second.ask("worker") == worker {
        second = server.websocket();
    }
    let target = second.ask("id");
    let gates = [(); 2].map(|()| Gate::shut());
    let commands = [
        format!("gate {} first", gates[0].path()),
        format!("send {target} from the other"),
        format!("flood {MANY} 20"),
    ];
    for command in commands {
        first.send(command);
    }
    second.send(format!("gate {} second", gates[1].path()));
    second.send(format!("flood {MANY} 20"));
    wait_until("the handlers to run", || under_way(&server) == 5);
    server.signal(Signal::TERM);
    wait_until("the listener's end", || {
        WebSocket::try_connect(server.address_of("websocket"), "/", &[]).is_err()
    });

    gates[0].open();
    assert_eq!(first.text(), "first");
    assert_eq!(first.text(), "sent");
    for _ in 0..MANY {
        assert_eq!(first.binary().len(), 20);
    }
    first.expect_close(1001);
    assert_eq!(second.text(), "from the other");
    gates[1].open();
    assert_eq!(second.text(), "second");
    for _ in 0..MANY {
        assert_eq!(second.binary().len(), 20);
    }
    second.expect_close(1001);
    server.expect_exit(0);
}

#[test]
fn stop_cuts_what_takes_longer_than_max_wait_time() {
    let mut server = behave().set("max_wait_time_ms", 300).websocket().start();
    let mut client = server.websocket();
    let events = server.events();
    client.send("sleep-block 20000 never");
    wait_until("the message to reach the worker", || {
        server.events() > events
    });
    server.signal(Signal::TERM);
    let end = client.try_message();
    assert!(matches!(end, Err(_) | Ok(Frame::Close(_))), "{end:?}");
    server.expect_exit(0);
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut server = behave().websocket().start();
    let mut client = server.websocket();
    client.send("sleep-async 60000 never");
    wait_until("the handler to run", || under_way(&server) == 1);
    server.signal(Signal::INT);
    // The first must be under way, or the two are one.
    wait_until("the listener's end", || {
        WebSocket::try_connect(server.address_of("websocket"), "/", &[]).is_err()
    });
    server.signal(Signal::INT);
    server.wait_exit();
    server.expect_nothing_left();
}

/// Such as those of a library for logs. The kernel gives a signal to any thread that takes it.
#[test]
fn signals_steer_whatever_threads_main_has_started() {
    let mut server = behave().env("BEHAVE_THREAD", "1").tcp().start();
    let before = server.ready_workers();
    server.signal(Signal::HUP);
    server.expect_log("settings read again");
    server.signal(Signal::USR1);
    wait_until("new workers", || {
        let now = server.ready_workers();
        now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))
    });
    server.signal(Signal::TERM);
    server.expect_exit(0);
}

#[test]
fn term_sent_to_the_master_stops_the_server() {
    let mut server = behave().websocket().start();
    gannet_tests::process::signal(server.master(), Signal::TERM);
    server.expect_exit(0);
}

#[test]
fn nobody_can_connect_once_a_stop_is_under_way() {
    let mut server = behave().websocket().start();
    let mut client = server.websocket();
    let gate = Gate::shut();
    client.send(format!("gate {} done", gate.path()));
    wait_until("the handler to run", || under_way(&server) == 1);
    let address = server.address_of("websocket");
    thread::scope(|scope| {
        let stop = scope.spawn(|| server.control(&["stop"]));
        wait_until("the listener's end", || {
            WebSocket::try_connect(address, "/", &[]).is_err()
        });
        gate.open();
        assert_eq!(client.text(), "done");
        client.expect_close(1001);
        assert_eq!(stop.join().unwrap().code, Some(0));
    });
    server.expect_exit(0);
}

/// Events that handlers have begun and not finished.
fn under_way(server: &Server) -> u64 {
    server.in_flight()
}
