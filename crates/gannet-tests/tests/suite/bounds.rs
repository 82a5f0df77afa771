//! Memory is bounded, and who is slow is slow alone.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use gannet_tests::{
    gate::Gate,
    server::Server,
    tcp::{TcpClient, small_buffers},
    wait::{soak, wait_until},
    websocket::{Frame, WebSocket, frame, opcode},
};

use crate::{behave, heavy};

#[test]
fn a_blocking_handler_delays_the_clients_of_its_own_worker_only() {
    let server = behave().websocket().start();
    let mut blocked = server.websocket();
    let own = blocked.ask("worker");
    let mut other = connected_to_another(&server, &own);
    let gate = Gate::shut();
    blocked.send(format!("gate-block {} awake", gate.path()));
    for n in 0..20 {
        assert_eq!(other.ask(format!("echo {n}")), n.to_string());
    }
    assert!(!has_input(&mut blocked), "the handler did not block");
    gate.open();
    assert_eq!(blocked.text(), "awake");
    server.stop();
}

#[test]
fn an_awaiting_handler_delays_nobody_else() {
    let server = behave().set("workers", 1).websocket().start();
    let (mut waiting, mut other) = (server.websocket(), server.websocket());
    let gate = Gate::shut();
    waiting.send(format!("gate {} awake", gate.path()));
    for n in 0..20 {
        assert_eq!(other.ask(format!("echo {n}")), n.to_string());
    }
    assert!(!has_input(&mut waiting), "the handler did not wait");
    gate.open();
    assert_eq!(waiting.text(), "awake");
    server.stop();
}

#[test]
fn a_thousand_senders_that_never_wait_leave_memory_bounded() {
    let _machine = heavy();
    let server = behave()
        .set("arena_size", 8 << 20)
        .set("max_parked", 4 << 20)
        .websocket()
        .with("max_message_size", 1 << 20)
        .start();
    let before = server.memory();
    let mut senders: Vec<Sender> = (0..1000)
        .map(|_| Sender::new(server.address_of("websocket"), b"eat 10 ", 4096))
        .collect();
    let mut asker = server.websocket();

    let (begin, mut most, mut looked) = (Instant::now(), 0, Instant::now());
    while begin.elapsed() < soak(Duration::from_secs(4)) {
        for sender in &mut senders {
            sender.push();
        }
        if looked.elapsed() > Duration::from_millis(200) {
            most = most.max(largest(&server));
            looked = Instant::now();
        }
    }
    assert_eq!(asker.ask("echo still served"), "still served");
    let after = server.memory();
    let sent: u64 = senders.iter().map(|sender| sender.sent).sum();
    most = most.max(largest(&server));
    println!(
        "1000 senders pushed {} MiB; the largest process had {} MiB",
        sent >> 20,
        most >> 20
    );
    for (moment, memory) in [("before", &before), ("under load", &after)] {
        for (title, memory) in memory {
            println!("{moment}: {title}: {} MiB", memory.resident >> 20);
        }
    }
    assert!(sent > 16 << 20, "hardly anything was sent");
    // One read of 64 KiB for each connection whose messages wait, what may be parked, the arenas.
    assert!(most < 128 << 20, "a process has {} MiB", most >> 20);
    assert!(senders.iter_mut().all(Sender::lives), "a sender was cut");
}

#[test]
fn slow_readers_are_cut_and_harm_nobody() {
    let _machine = heavy();
    let server = behave().websocket().with("max_queued", 64 << 10).start();
    let slow: Vec<WebSocket> = (0..1000).map(|_| slow_subscriber(&server)).collect();
    let mut readers: Vec<WebSocket> = (0..10).map(|_| subscriber(&server)).collect();
    let mut publisher = server.websocket();
    assert_eq!(publisher.ask("count news"), "1010");

    let (mut most, rounds) = (0, 30);
    for round in 0..rounds {
        publisher.send(format!("pub-many news 4 {}", 8 << 10));
        for reader in &mut readers {
            for n in 0..4 {
                assert!(
                    reader.text().starts_with(&format!("{n} ppp")),
                    "round {round}"
                );
            }
        }
        assert_eq!(publisher.text(), "published");
        most = most.max(largest(&server));
    }
    wait_until("the slow readers to be cut", || {
        publisher.ask("count news") == "10"
    });
    println!(
        "1000 slow readers, {} KiB published to each; the largest process had {} MiB",
        rounds * 4 * 8,
        most >> 20
    );
    // A thousand queues of 64 KiB, and what every process has anyway.
    assert!(most < 128 << 20, "a process has {} MiB", most >> 20);
    drop(slow);
    server.stop();
}

#[test]
fn slow_readers_of_a_droppable_topic_lose_messages_and_stay() {
    let server = behave().websocket().with("max_queued", 64 << 10).start();
    let mut slow = slow_subscriber(&server);
    let mut reader = subscriber(&server);
    let mut publisher = server.websocket();
    for _ in 0..50 {
        publisher.send(format!("pub-many-droppable news 4 {}", 8 << 10));
        for n in 0..4 {
            assert!(reader.text().starts_with(&format!("{n} ppp")));
        }
        assert_eq!(publisher.text(), "published");
    }
    assert_eq!(publisher.ask("count news"), "2");
    slow.send("echo the end");
    let mut got = 0;
    while slow.text() != "the end" {
        got += 1;
    }
    assert!((1..200).contains(&got), "{got} of 200 messages arrived");
    server.stop();
}

#[test]
fn who_asks_and_does_not_read_the_answers_is_not_answered_further() {
    let server = behave()
        .http()
        .with("max_queued", 256 << 10)
        .with("request_timeout_ms", 2000)
        .start();
    let stream = small_buffers(server.address_of("http")).expect("connect");
    let mut silent = TcpClient::over(stream);
    silent.send("GET /big?n=200000 HTTP/1.1\r\nHost: test\r\n\r\n".repeat(500));
    let (begin, mut most) = (Instant::now(), 0);
    while begin.elapsed() < soak(Duration::from_secs(1)) {
        most = most.max(largest(&server));
    }
    assert!(most < 64 << 20, "a process has {} MiB", most >> 20);
    wait_until("its end", || server.connections() == 0);
    server.stop();
}

#[test]
fn pipelined_requests_go_on_when_the_client_reads() {
    let server = behave().http().with("max_queued", 64 << 10).start();
    let mut client = server.http();
    client.send("GET /big?n=200000 HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100));
    for _ in 0..100 {
        assert_eq!(client.response().text().len(), 200_000);
    }
    server.stop();
}

#[test]
fn what_follows_a_close_frame_is_not_kept() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    // While the handler runs the connection is still open.
    let gate = Gate::shut();
    client.send(format!("gate {} late", gate.path()));
    client.frame(true, opcode::CLOSE, 1000_u16.to_be_bytes());
    let junk = vec![0; 1 << 20];
    for _ in 0..64 {
        client.raw(&junk);
    }
    let most = largest(&server);
    assert!(most < 64 << 20, "a process has {} MiB", most >> 20);
    gate.open();
    assert_eq!(client.text(), "late");
    server.stop();
}

#[test]
fn a_websocket_that_does_not_read_is_closed_with_1008() {
    let server = behave().websocket().with("max_queued", 256 << 10).start();
    let mut client = server.websocket();
    client.send(format!("flood 400 {}", 64 << 10));
    let end = loop {
        match client.try_message() {
            Ok(Frame::Binary(_)) => {}
            other => break other,
        }
    };
    // Told if it still could be told; cut in any case.
    match end {
        Ok(Frame::Close(Some((code, _)))) => assert_eq!(code, 1008),
        Err(_) => {}
        other => panic!("{other:?}"),
    }
    server.stop();
}

#[test]
fn a_sender_that_waits_for_drained_never_overflows_the_queue() {
    let server = behave().websocket().start();
    let mut client = slow_client(&server);
    client.send(format!("fill 256 {}", 64 << 10));
    for _ in 0..256 {
        assert_eq!(client.binary().len(), 64 << 10);
    }
    assert_eq!(client.text(), "filled");
    server.stop();
}

#[test]
fn a_streamed_response_waits_for_its_reader() {
    let server = behave().http().with("max_queued", 256 << 10).start();
    let mut client = server.http();
    client.send(format!(
        "GET /stream?n=512&size={} HTTP/1.1\r\nHost: test\r\n\r\n",
        64 << 10
    ));
    let response = client.response();
    assert_eq!((response.status, response.body.len()), (200, 32 << 20));
    let most = largest(&server);
    assert!(most < 64 << 20, "a process has {} MiB", most >> 20);
    server.stop();
}

/// Memory of the largest process.
fn largest(server: &Server) -> u64 {
    server
        .memory()
        .iter()
        .map(|(_, memory)| memory.resident)
        .max()
        .unwrap_or(0)
}

/// A client that sends the same message again and again and never waits.
struct Sender {
    client: WebSocket,
    message: Vec<u8>,
    at: usize,
    sent: u64,
}

impl Sender {
    fn new(address: SocketAddr, command: &[u8], size: usize) -> Self {
        let mut client = WebSocket::connect(address);
        client.tcp().socket().set_nonblocking(true).unwrap();
        let mut payload = command.to_vec();
        payload.resize(size, b'.');
        Sender {
            client,
            message: frame(true, opcode::TEXT, &payload),
            at: 0,
            sent: 0,
        }
    }

    /// Sends what the socket takes, up to 64 KiB.
    fn push(&mut self) {
        for _ in 0..16 {
            match self.client.tcp().socket().write(&self.message[self.at..]) {
                Ok(sent) => {
                    self.at = (self.at + sent) % self.message.len();
                    self.sent += sent as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => panic!("the server cut a sender: {e}"),
            }
        }
    }

    fn lives(&mut self) -> bool {
        let mut byte = [0];
        let read = self.client.tcp().socket().read(&mut byte);
        matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

fn subscriber(server: &Server) -> WebSocket {
    let mut client = server.websocket();
    assert_eq!(client.ask("sub news"), "ok");
    client
}

/// A subscriber with the least room in its socket.
fn slow_subscriber(server: &Server) -> WebSocket {
    let mut client = slow_client(server);
    assert_eq!(client.ask("sub news"), "ok");
    client
}

fn slow_client(server: &Server) -> WebSocket {
    let stream = small_buffers(server.address_of("websocket")).expect("connect");
    WebSocket::open(TcpClient::over(stream), "/", &[])
        .expect("a connection")
        .expect("accepted")
}

fn connected_to_another(server: &Server, worker: &str) -> WebSocket {
    for _ in 0..16 {
        let mut client = server.websocket();
        if client.ask("worker") != worker {
            return client;
        }
    }
    panic!("every connection goes to worker {worker}");
}

fn has_input(client: &mut WebSocket) -> bool {
    let socket = client.tcp().socket();
    socket.set_nonblocking(true).unwrap();
    let waiting = socket.peek(&mut [0]).is_ok();
    socket.set_nonblocking(false).unwrap();
    waiting
}
