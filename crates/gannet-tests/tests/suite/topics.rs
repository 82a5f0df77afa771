//! Topics: subscribe, publish, count, members.

use gannet_tests::{process, wait::wait_until, websocket};

use crate::{behave, heavy};

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
fn who_has_several_topics_gets_what_any_one_of_them_brings() {
    let server = behave().websocket().start();
    let (mut client, mut publisher) = (server.websocket(), server.websocket());
    for topic in ["news", "sport", "weather"] {
        assert_eq!(client.ask(format!("sub {topic}")), "ok");
    }
    for (topic, text) in [("sport", "one"), ("news", "two"), ("weather", "three")] {
        publisher.send(format!("pub {topic} {text}"));
        assert_eq!(client.text(), text);
    }
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

#[test]
fn what_is_published_and_what_is_sent_arrive_in_one_order() {
    let server = behave().set("workers", 1).websocket().start();
    let mut client = server.websocket();
    let mut watcher = server.websocket();
    assert_eq!(watcher.ask("sub b"), "ok");
    let said = [
        "sub a",
        "pub a one",
        "echo between",
        "sub b",
        "pub b two",
        "pub a three",
        "pub-others a not to itself",
        "pub-droppable b four",
        "unsub a",
        "pub a too late",
        "pub b five",
    ];
    let expected = [
        "ok", "one", "between", "ok", "two", "three", "four", "ok", "five",
    ];
    for round in 0..20 {
        // All of it comes in one turn of the reactor, mostly.
        let frames = said.map(|text| websocket::frame(true, 1, text.as_bytes()));
        client.raw(frames.concat());
        let got = expected.map(|_| client.text());
        assert_eq!(got, expected, "round {round}");
        assert_eq!(client.ask("unsub b"), "ok");
        let watched = [watcher.text(), watcher.text(), watcher.text()];
        assert_eq!(watched, ["two", "four", "five"], "round {round}");
    }
    // The last words are behind what was published before.
    let said = ["sub a", "pub a last", "close-with 4000 bye"];
    client.raw(
        said.map(|text| websocket::frame(true, 1, text.as_bytes()))
            .concat(),
    );
    assert_eq!([client.text(), client.text()], ["ok", "last"]);
    client.expect_close(4000);
    server.stop();
}

#[test]
fn a_topic_with_more_subscribers_than_one_turn_serves_reaches_all_of_them() {
    let _heavy = heavy();
    let server = behave().set("workers", 1).websocket().start();
    let mut publisher = server.websocket();
    let mut readers: Vec<_> = (0..1_500).map(|_| server.websocket()).collect();
    for reader in &mut readers {
        reader.send("sub news");
    }
    for reader in &mut readers {
        assert_eq!(reader.text(), "ok");
    }
    // Some leave and some come while the others are being served.
    for round in 0..5 {
        publisher.send("pub-many news 3 100");
        for n in 0..10 {
            let place = (round * 137 + n * 31) % readers.len();
            drop(readers.swap_remove(place));
        }
        for reader in &mut readers {
            for n in 0..3 {
                assert!(reader.text().starts_with(&format!("{n} ")), "round {round}");
            }
        }
        assert_eq!(publisher.text(), "published");
    }
    for reader in &mut readers {
        assert_eq!(reader.ask("echo no more"), "no more");
    }
    server.stop();
}
