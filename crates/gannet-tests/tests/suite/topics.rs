//! Topics: subscribe, publish, count, members.

use gannet_tests::{process, wait::wait_until};

use crate::behave;

#[test]
fn a_publish_reaches_every_subscriber_and_nobody_else() {
    let server = behave().set("workers", 3).tcp().websocket().start();
    let mut clients: Vec<_> = (0..6).map(|_| server.websocket()).collect();
    let mut raw = server.tcp();
    let mut outsider = server.websocket();
    for client in &mut clients {
        assert_eq!(client.ask("sub news"), "ok");
    }
    assert_eq!(raw.ask("sub news"), "ok");
    outsider.send("pub news hello");
    for client in &mut clients {
        assert_eq!(client.text(), "hello");
    }
    assert_eq!(raw.bytes(5), b"hello");
    // The outsider's next message is the answer to its own.
    assert_eq!(outsider.ask("echo nothing else"), "nothing else");
    server.stop();
}

#[test]
fn who_unsubscribes_or_closes_gets_no_more() {
    let server = behave().websocket().start();
    let (mut one, mut two, mut three) =
        (server.websocket(), server.websocket(), server.websocket());
    for client in [&mut one, &mut two, &mut three] {
        assert_eq!(client.ask("sub news"), "ok");
    }
    let mut ids: Vec<u64> = [&mut one, &mut two, &mut three]
        .iter_mut()
        .map(|c| c.ask("id").parse().unwrap())
        .collect();
    ids.sort_unstable();
    let all: Vec<String> = ids.iter().map(u64::to_string).collect();
    assert_eq!(one.ask("members news"), all.join(" "));
    assert_eq!(one.ask("count news"), "3");
    assert_eq!(two.ask("unsub news"), "ok");
    assert_eq!(one.ask("count news"), "2");
    drop(three);
    wait_until("the closed one to be gone", || one.ask("count news") == "1");
    one.send("pub news still");
    assert_eq!(one.text(), "still");
    assert_eq!(two.ask("echo nothing else"), "nothing else");
    assert_eq!(one.ask("count nothing"), "0");
    assert_eq!(one.ask("members nothing"), "");
    server.stop();
}

#[test]
fn a_subscription_is_counted_once() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("sub news"), "ok");
    assert_eq!(client.ask("sub news"), "ok");
    assert_eq!(client.ask("count news"), "1");
    client.send("pub news once");
    assert_eq!(client.text(), "once");
    assert_eq!(client.ask("echo and no more"), "and no more");
    server.stop();
}

#[test]
fn the_publisher_can_leave_itself_out() {
    let server = behave().websocket().start();
    let (mut one, mut two) = (server.websocket(), server.websocket());
    assert_eq!(one.ask("sub room"), "ok");
    assert_eq!(two.ask("sub room"), "ok");
    one.send("pub-others room hello");
    assert_eq!(two.text(), "hello");
    assert_eq!(one.ask("echo silence"), "silence");
    server.stop();
}

#[test]
fn messages_of_one_publisher_arrive_in_order() {
    let server = behave().websocket().start();
    let (mut publisher, mut reader) = (server.websocket(), server.websocket());
    assert_eq!(reader.ask("sub news"), "ok");
    for round in 0..10 {
        publisher.send("pub-many news 50 10");
        for n in 0..50 {
            assert!(reader.text().starts_with(&format!("{n} ")), "round {round}");
        }
        assert_eq!(publisher.text(), "published");
    }
    server.stop();
}

#[test]
fn subscriptions_outlive_workers_and_reloads() {
    let server = behave().set("workers", 1).websocket().start();
    let (mut publisher, mut reader) = (server.websocket(), server.websocket());
    assert_eq!(reader.ask("sub news"), "ok");
    process::kill(reader.ask("pid").parse().unwrap());
    publisher.send("pub news after the crash");
    assert_eq!(reader.text(), "after the crash");
    server.reload();
    publisher.send("pub news after the reload");
    assert_eq!(reader.text(), "after the reload");
    server.stop();
}

#[test]
fn http_and_tasks_can_publish() {
    let server = behave().websocket().http().start();
    let mut reader = server.websocket();
    assert_eq!(reader.ask("sub news"), "ok");
    assert_eq!(
        server
            .http()
            .get("/publish?topic=news&message=hello")
            .text(),
        "published"
    );
    assert_eq!(reader.text(), "hello");
    server.stop();
}
