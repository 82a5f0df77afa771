//! Which worker gets an event.

use std::collections::{HashMap, HashSet};

use gannet_tests::{
    gate::Gate,
    server::Server,
    tcp::{TcpClient, connect_from},
    websocket::WebSocket,
};

use crate::behave;

#[test]
fn by_connection_each_has_one_worker_and_all_have_a_share() {
    let server = server("connection", 3);
    let mut clients: Vec<_> = (0..9).map(|_| server.websocket()).collect();
    let mut shares: HashMap<String, u32> = HashMap::new();
    for client in &mut clients {
        let worker = client.ask("worker");
        *shares.entry(worker.clone()).or_default() += 1;
        assert!((0..10).all(|_| client.ask("worker") == worker));
    }
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert!(shares.values().all(|&share| share == 3), "{shares:?}");
    server.stop();
}

#[test]
fn by_connection_the_emptiest_worker_gets_the_next() {
    let server = server("connection", 2);
    let mut clients: Vec<_> = (0..4).map(|_| server.websocket()).collect();
    let workers: Vec<String> = clients
        .iter_mut()
        .map(|client| client.ask("worker"))
        .collect();
    // Everyone of worker 0 leaves.
    let mut stay = Vec::new();
    for (client, worker) in clients.into_iter().zip(workers) {
        if worker == "0" {
            client.close(1000)
        } else {
            stay.push(client)
        }
    }
    gannet_tests::wait::wait_until("their end", || server.connections() == stay.len() as u64);
    assert_eq!(server.websocket().ask("worker"), "0");
    server.stop();
}

#[test]
fn round_robin_gives_each_event_to_the_next_worker() {
    let server = server("round_robin", 3);
    let mut client = server.websocket();
    let workers: Vec<String> = (0..9).map(|_| client.ask("worker")).collect();
    assert_eq!(
        workers[..3].iter().collect::<HashSet<_>>().len(),
        3,
        "{workers:?}"
    );
    assert_eq!(workers[..3], workers[3..6], "{workers:?}");
    server.stop();
}

#[test]
fn round_robin_survives_the_end_of_a_connection() {
    let server = server("round_robin", 2);
    let master = server.master();
    for _ in 0..4 {
        let mut client = server.websocket();
        assert_eq!(client.ask("echo here"), "here");
        // With nothing in flight its last event could go to anybody.
        client.close(1000);
        gannet_tests::wait::wait_until("its end", || server.connections() == 0);
    }
    assert_eq!(server.websocket().ask("echo still here"), "still here");
    assert_eq!(server.master(), master, "the master has died");
    server.stop();
}

#[test]
fn round_robin_keeps_the_order_of_a_connection() {
    let server = server("round_robin", 3);
    let mut client = server.websocket();
    for n in 0..30 {
        client.send(format!("sleep-async {} {n}", 30 - n));
    }
    for n in 0..30 {
        assert_eq!(client.text(), n.to_string());
    }
    server.stop();
}

#[test]
fn least_busy_avoids_the_worker_with_events_under_way() {
    let server = server("least_busy", 2);
    let mut busy = server.websocket();
    let mut client = server.websocket();
    let gate = Gate::shut();
    busy.send(format!("gate {} awake", gate.path()));
    gannet_tests::wait::wait_until("the handler to run", || server.in_flight() == 1);
    let workers: HashSet<String> = (0..10).map(|_| client.ask("worker")).collect();
    assert_eq!(workers.len(), 1, "{workers:?}");
    gate.open();
    assert_eq!(busy.text(), "awake");
    server.stop();
}

#[test]
fn by_peer_address_one_address_has_one_worker() {
    let server = server("peer_address", 4);
    let from = |address: [u8; 4]| {
        let stream = connect_from(address.into(), server.address_of("websocket")).unwrap();
        WebSocket::open(TcpClient::over(stream), "/", &[])
            .unwrap()
            .unwrap()
            .ask("worker")
    };
    let mut all = HashSet::new();
    for host in 1..=16 {
        let worker = from([127, 0, 0, host]);
        assert!((0..3).all(|_| from([127, 0, 0, host]) == worker));
        all.insert(worker);
    }
    assert!(all.len() > 1, "every address goes to worker {all:?}");
    server.stop();
}

#[test]
fn by_uid_the_connections_of_a_user_share_a_worker() {
    let server = server("uid", 4);
    let mut all = HashSet::new();
    for uid in 0..12 {
        let mut workers = HashSet::new();
        for _ in 0..3 {
            let path = format!("/bind?uid=user-{uid}");
            let address = server.address_of("websocket");
            workers.insert(WebSocket::connect_with(address, &path, &[]).ask("worker"));
        }
        assert_eq!(workers.len(), 1, "user-{uid} is on {workers:?}");
        all.extend(workers);
    }
    assert!(all.len() > 1, "every user goes to worker {all:?}");
    server.stop();
}

#[test]
fn a_function_may_choose_the_worker() {
    // The test server chooses by the peer's port.
    let server = server("custom", 4);
    for _ in 0..8 {
        let mut client = server.websocket();
        let expected = client.tcp().local().port() % 4;
        assert_eq!(client.ask("worker"), expected.to_string());
    }
    server.stop();
}

#[test]
fn a_function_sees_the_target_of_a_request() {
    // The test server chooses by the digit: "0" is 48, and 48 modulo 4 is 0.
    let server = behave()
        .set("dispatch", "custom")
        .set("workers", 4)
        .http()
        .start();
    let mut client = server.http();
    for worker in ["2", "0", "3", "1", "1", "2"] {
        let target = format!("/worker?at={worker}");
        assert_eq!(client.get(&target).text(), worker);
    }
    server.stop();
}

fn server(dispatch: &str, workers: i64) -> Server {
    behave()
        .set("dispatch", dispatch)
        .set("workers", workers)
        .websocket()
        .start()
}
