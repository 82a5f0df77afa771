//! TCP: connect, receive, close; and the connection table.

use std::{collections::HashMap, time::Duration};

use gannet_tests::{gate::Gate, server::Server, wait::wait_until};

use crate::behave;

#[test]
fn a_client_is_greeted_by_connect() {
    let server = behave().env("BEHAVE_CONNECT", "greet").tcp().start();
    let mut client = server.tcp();
    let greeting = client.line();
    assert_eq!(greeting, format!("hello {}", client.ask("id")));
    server.stop();
}

#[test]
fn bytes_come_back_as_they_were_sent() {
    let server = behave().env("BEHAVE_TCP", "raw").tcp().start();
    let mut client = server.tcp();
    let sent: Vec<u8> = (0..4 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut writer = gannet_tests::tcp::TcpClient::over(client.socket().try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.send(&sent);
            writer.finish();
        });
        assert!(client.bytes(sent.len()) == sent, "other bytes came back");
    });
    client.expect_closed();
    server.stop();
}

#[test]
fn a_message_larger_than_a_ring_comes_back() {
    let server = behave().set("ring_size", 64 << 10).websocket().start();
    let mut client = server.websocket();
    let sent: Vec<u8> = (0..1_500_000_u32).map(|n| (n % 253) as u8).collect();
    for _ in 0..5 {
        client.send_binary(&sent);
        assert!(client.binary() == sent, "other bytes came back");
    }
    server.stop();
}

#[test]
fn closes_are_told_with_their_reason() {
    let server = behave().tcp().websocket().start();
    let mut watcher = server.websocket();
    assert_eq!(watcher.ask("sub closed"), "ok");
    let mut expect = |id: String, reason: &str| {
        let text = watcher.text();
        assert!(
            text.starts_with(&format!("closed {id} {reason} ")),
            "{reason}: {text}"
        );
    };

    let mut client = server.tcp();
    let id = client.ask("id");
    drop(client);
    expect(id, "client");

    let mut client = server.websocket();
    let id = client.ask("id");
    client.close(1000);
    expect(id, "client");

    let mut client = server.tcp();
    let id = client.ask("id");
    client.send("close\n");
    client.expect_closed();
    expect(id, "handler");

    let mut client = server.websocket();
    let id = client.ask("id");
    client.send("error");
    client.expect_close(1011);
    expect(id, "handler_failed");

    let mut client = server.websocket();
    let id = client.ask("id");
    // A frame with a reserved bit.
    client.raw([0xf1, 0x80, 0, 0, 0, 0]);
    client.expect_close(1002);
    expect(id, "protocol");

    let mut client = server.websocket();
    let id = client.ask("id");
    // An end of file without a close frame.
    drop(client);
    expect(id, "reset");
    server.stop();
}

#[test]
fn a_connection_that_is_reset_while_much_waits_ends() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    // More than may be in flight, so that reading stops.
    let gate = Gate::shut();
    client.send(format!("gate {} late", gate.path()));
    (0..80).for_each(|_| client.send("eat 0"));
    wait_until("the limit", || server.in_flight() == 64);
    // More than one read, but in each of them fewer messages than may be in flight.
    let message = format!("eat 0 {}", "x".repeat(4096));
    (0..40).for_each(|_| client.send(&message));
    let socket = socket2::SockRef::from(client.tcp().socket());
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    gate.open();
    wait_until("its end", || server.connections() == 0);
    server.stop();
}

#[test]
fn the_end_of_a_client_in_the_middle_of_a_request_is_told_to_no_handler() {
    let server = behave().tcp().http().websocket().start();
    let mut watcher = server.websocket();
    assert_eq!(watcher.ask("sub closed"), "ok");
    let mut client = server.http();
    let gate = Gate::shut();
    let path = gate.path();
    client.send(format!(
        "GET /gate?file={path} HTTP/1.1\r\nHost: test\r\n\r\n"
    ));
    wait_until("the handler to run", || server.in_flight() == 1);
    let socket = socket2::SockRef::from(client.tcp().socket());
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    // Nobody tells of its end before the handler has ended, but by then it has been seen.
    std::thread::sleep(Duration::from_secs(1));
    gate.open();
    wait_until("the handler to end", || server.in_flight() == 0);

    let mut client = server.tcp();
    let id = client.ask("id");
    drop(client);
    let told = watcher.text();
    assert!(told.starts_with(&format!("closed {id} client")), "{told}");
    server.stop();
}

#[test]
fn what_was_sent_before_close_arrives() {
    let server = behave().tcp().websocket().start();
    let mut client = server.tcp();
    client.send("close-after bye\n");
    assert_eq!(client.rest(), b"bye");
    let mut client = server.websocket();
    assert_eq!(client.ask("close-after bye"), "bye");
    client.expect_close(1000);
    server.stop();
}

#[test]
fn abort_drops_the_connection_at_once() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    client.send("abort-conn");
    assert!(client.try_message().is_err());
    server.stop();
}

#[test]
fn any_worker_can_send_to_and_close_any_connection() {
    let server = behave()
        .set("workers", 3)
        .set("task_workers", 1)
        .websocket()
        .start();
    let mut clients: Vec<_> = (0..3).map(|_| server.websocket()).collect();
    let mut target = server.websocket();
    let id = target.ask("id");
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(format!("send {id} from {n}")), "sent");
        assert_eq!(target.text(), format!("from {n}"));
    }
    assert_eq!(
        clients[0].ask(format!("task send {id} from a task")),
        "sent"
    );
    assert_eq!(target.text(), "from a task");
    assert_eq!(clients[1].ask(format!("close-of {id}")), "closed");
    target.expect_close(1000);
    // Sending to a connection that is gone is no error.
    assert_eq!(clients[2].ask(format!("send {id} to nobody")), "sent");
    server.stop();
}

#[test]
fn every_worker_sees_every_connection_in_the_table() {
    let server = behave()
        .set("workers", 3)
        .set("reactors", 2)
        .tcp()
        .websocket()
        .start();
    let mut tcp = server.tcp();
    let mut websockets: Vec<_> = (0..5).map(|_| server.websocket()).collect();
    let mut ids: Vec<u64> = websockets.iter_mut().map(|c| id_of(&c.ask("id"))).collect();
    ids.push(id_of(&tcp.ask("id")));
    ids.sort_unstable();
    let all: Vec<String> = ids.iter().map(u64::to_string).collect();
    for client in &mut websockets {
        assert_eq!(client.ask("connections"), all.join(" "));
    }

    let id = tcp.ask("id");
    let info = info(&websockets[0].ask(format!("info-of {id}")));
    assert_eq!(info["id"], id);
    assert_eq!(info["peer"], tcp.local().to_string());
    assert_eq!(info["local"], server.address_of("tcp").to_string());
    assert_eq!((&*info["listener"], &*info["websocket"]), ("0", "false"));
    assert!(info["messages_in"].parse::<u64>().unwrap() >= 2, "{info:?}");
    assert!(info["bytes_in"].parse::<u64>().unwrap() >= 6, "{info:?}");

    drop(tcp);
    let gone =
        |client: &mut gannet_tests::websocket::WebSocket| client.ask(format!("info-of {id}"));
    wait_until("the row to go", || gone(&mut websockets[0]) == "gone");
    assert_eq!(websockets[1].ask(format!("open {id}")), "false");
    server.stop();
}

#[test]
fn a_connection_keeps_its_row_when_its_worker_dies() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("bind ann"), "ok");
    let before = info(&client.ask("info"));
    gannet_tests::process::kill(client.ask("pid").parse().unwrap());
    let after = info(&client.ask("info"));
    assert_eq!(
        (&before["id"], &before["uid"]),
        (&after["id"], &after["uid"])
    );
    server.stop();
}

#[test]
fn a_connection_can_be_bound_and_found_by_its_user() {
    let server = behave().set("workers", 2).websocket().start();
    let (mut till, mut phone) = (server.websocket(), server.websocket());
    let mut other = server.websocket();
    assert_eq!(other.ask("bound ann"), "");
    assert_eq!(till.ask("bind ann"), "ok");
    assert_eq!(phone.ask("bind ann"), "ok");
    assert_eq!(other.ask("bind bob"), "ok");
    let mut both = [id_of(&till.ask("id")), id_of(&phone.ask("id"))];
    both.sort_unstable();
    assert_eq!(other.ask("bound ann"), format!("{} {}", both[0], both[1]));
    assert_eq!(info(&phone.ask("info"))["uid"], "ann");

    assert_eq!(phone.ask("bind bob"), "ok");
    assert_eq!(other.ask("bound ann"), till.ask("id"));
    let id = till.ask("id");
    drop(till);
    wait_until("the binding to go", || other.ask("bound ann").is_empty());
    assert_eq!(phone.ask(format!("info-of {id}")), "gone");
    server.stop();
}

#[test]
fn connection_ids_are_never_used_again() {
    let server = behave().tcp().start();
    let ids: std::collections::HashSet<String> = (0..50).map(|_| server.tcp().ask("id")).collect();
    assert_eq!(ids.len(), 50);
    assert!(ids.iter().all(|id| id_of(id) < 1 << 53));
    server.stop();
}

#[test]
fn a_handler_answers_after_it_has_returned() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("later 50 now"), "soon");
    assert_eq!(client.text(), "now");
    server.stop();
}

#[test]
fn messages_of_one_connection_are_handled_in_order_and_one_at_a_time() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    // The first take longest: were they handled at once, the answers would come the other way.
    for n in 0..20 {
        client.send(format!("sleep-async {} {n}", 40 - 2 * n));
    }
    for n in 0..20 {
        assert_eq!(client.text(), n.to_string());
    }
    server.stop();
}

fn info(text: &str) -> HashMap<String, String> {
    let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn id_of(text: &str) -> u64 {
    text.parse().expect("a connection id")
}

#[test]
fn a_server_with_several_reactors_serves_all_alike() {
    let server: Server = behave().set("reactors", 3).websocket().start();
    let mut clients: Vec<_> = (0..12).map(|_| server.websocket()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("sub all"), "ok");
    }
    assert_eq!(clients[0].ask("count all"), "12");
    clients[0].send("pub all hello");
    for client in &mut clients {
        assert_eq!(client.text(), "hello");
    }
    server.stop();
}
