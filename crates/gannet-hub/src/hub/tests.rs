//! The operations, with an engine in memory ([`crate::net::fake`]) and a real store.

use serde_json::{Value, json};

use super::*;
use crate::{
    net::fake::FakeNet,
    store::{Limits, sqlite::SqliteStore},
};

/// A server: one engine and one data directory, used by any number of workers.
struct Server {
    net: FakeNet,
    dir: tempfile::TempDir,
    settings: Settings,
}

/// One of a server's workers.
struct TestWorker {
    hub: Hub<FakeNet>,
}

impl Server {
    fn new() -> Self {
        Server {
            net: FakeNet::default(),
            dir: tempfile::tempdir().unwrap(),
            settings: Settings {
                history: 10,
                max_data: 100,
                ..Settings::default()
            },
        }
    }

    async fn worker(&self) -> TestWorker {
        let limits = Limits {
            history: self.settings.history,
            key_ms: 60_000,
        };
        let store = SqliteStore::open(&self.dir.path().join("hub.db"), limits)
            .await
            .unwrap();
        TestWorker {
            hub: Hub {
                net: self.net.clone(),
                store: Arc::new(store),
                sessions: Sessions::open(&self.dir.path().join("sessions.db"))
                    .await
                    .unwrap(),
                settings: Arc::new(self.settings.clone()),
            },
        }
    }
}

impl TestWorker {
    /// A connection of this user.
    async fn hello(&self, conn: u64, user: &str) -> Value {
        self.hub.net.connect(id(conn));
        self.ok(conn, json!({"op": "hello", "user": user, "device": "d"}))
            .await
    }

    async fn sub(&self, conn: u64, channel: &str) -> Value {
        self.ok(conn, json!({"op": "sub", "channel": channel}))
            .await
    }

    async fn publish(&self, conn: u64, channel: &str, text: &str) -> Value {
        let publish = json!({"op": "pub", "channel": channel, "data": text, "key": text});
        self.ok(conn, publish).await
    }

    async fn close(&self, conn: u64) {
        self.hub.net.disconnect(id(conn));
        self.hub.closed(id(conn)).await.unwrap();
    }

    async fn ok(&self, conn: u64, request: Value) -> Value {
        let reply = self.ask(conn, request).await;
        assert!(reply.get("err").is_none(), "{reply}");
        reply["ok"].clone()
    }

    /// The code of the error that this request meets.
    async fn err(&self, conn: u64, request: Value) -> String {
        let reply = self.ask(conn, request).await;
        reply["err"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{reply}"))
            .to_owned()
    }

    /// Sends one request and returns the reply; pushes stay to be read.
    async fn ask(&self, conn: u64, mut request: Value) -> Value {
        request["id"] = json!(99);
        self.hub
            .frame(id(conn), &request.to_string())
            .await
            .unwrap();
        self.hub
            .net
            .take(id(conn), |line| line["re"] == 99)
            .pop()
            .unwrap()
    }

    /// The pushes that came, oldest first.
    fn pushes(&self, conn: u64) -> Vec<Value> {
        self.hub.net.take(id(conn), |line| line.get("op").is_some())
    }

    /// Offsets and contents of the messages that were pushed.
    fn messages(&self, conn: u64) -> Vec<(u64, String)> {
        let pushes = self.pushes(conn);
        pushes
            .iter()
            .filter(|push| push["op"] == "msg")
            .map(place_and_text)
            .collect()
    }
}

fn id(conn: u64) -> ConnId {
    ConnId::from_u64(conn)
}

fn place_and_text(message: &Value) -> (u64, String) {
    (
        message["offset"].as_u64().unwrap(),
        message["data"].as_str().unwrap().to_owned(),
    )
}

fn page(reply: &Value) -> Vec<u64> {
    let messages = reply["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|message| message["offset"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn nothing_works_before_hello() {
    let server = Server::new();
    let worker = server.worker().await;
    server.net.connect(id(1));
    assert_eq!(
        worker.err(1, json!({"op": "sub", "channel": "a"})).await,
        "hello_first"
    );
    worker.ok(1, json!({"op": "ping"})).await;
    let hello = worker.hello(1, "ann").await;
    assert_eq!(
        (&hello["user"], &hello["v"], &hello["conn"]),
        (&json!("ann"), &json!(1), &json!(1))
    );
    worker.hello(1, "ann").await;
    assert_eq!(
        worker
            .err(1, json!({"op": "hello", "user": "bob", "device": "d"}))
            .await,
        "other_user"
    );
}

#[tokio::test]
async fn two_people_chat() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    worker.hello(2, "bob").await;
    worker.sub(1, "room").await;
    let sub = worker.sub(2, "room").await;
    assert_eq!(
        (&sub["users"], &sub["count"]),
        (&json!(["ann", "bob"]), &json!(2))
    );
    let reply = worker.publish(1, "room", "hi bob").await;
    assert_eq!(
        (&reply["offset"], &reply["channel"]),
        (&json!(1), &json!("room"))
    );
    let push = worker.pushes(2).pop().unwrap();
    assert_eq!(push["id"], reply["id"]);
    assert_eq!(push["time"], reply["time"]);
    assert_eq!(
        (
            &push["op"],
            &push["channel"],
            &push["from"],
            &push["event"],
            &push["data"],
            &push["key"]
        ),
        (
            &json!("msg"),
            &json!("room"),
            &json!("ann"),
            &json!("message"),
            &json!("hi bob"),
            &json!("hi bob")
        )
    );
    worker.publish(2, "room", "hi ann").await;
    let both = [(1, String::from("hi bob")), (2, String::from("hi ann"))];
    assert_eq!(worker.messages(1), both);
    worker
        .ok(2, json!({"op": "unsub", "channel": "room"}))
        .await;
    worker.publish(1, "room", "gone?").await;
    assert_eq!(worker.messages(2), [both[1].clone()]);
}

#[tokio::test]
async fn a_client_that_was_away_gets_what_it_missed() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    let epoch = worker.sub(1, "room").await["epoch"].clone();
    for text in ["1", "2", "3", "4"] {
        worker.publish(1, "room", text).await;
    }
    let since = async |epoch: &Value, offset: u64, limit: u64| {
        let since = json!({"epoch": epoch, "offset": offset});
        worker
            .ok(
                1,
                json!({"op": "sub", "channel": "room", "since": since, "limit": limit}),
            )
            .await
    };
    let reply = since(&epoch, 2, 100).await;
    assert_eq!(page(&reply), [3, 4]);
    assert_eq!(
        (&reply["gap"], &reply["more"], &reply["last"]),
        (&json!(false), &json!(false), &json!(4))
    );
    let reply = since(&epoch, 1, 2).await;
    assert_eq!((page(&reply), &reply["more"]), (vec![2, 3], &json!(true)));
    let reply = since(&epoch, 4, 100).await;
    assert_eq!((page(&reply), &reply["gap"]), (vec![], &json!(false)));
    // Positions that this server cannot continue from.
    let reply = since(&json!(Ulid::generate()), 2, 100).await;
    assert_eq!(
        (page(&reply), &reply["gap"]),
        (vec![1, 2, 3, 4], &json!(true))
    );
    let reply = since(&epoch, 5, 2).await;
    assert_eq!((page(&reply), &reply["gap"]), (vec![3, 4], &json!(true)));
    for text in ["5", "6", "7", "8", "9", "10", "11", "12"] {
        worker.publish(1, "room", text).await;
    }
    let reply = since(&epoch, 1, 3).await;
    assert_eq!(
        (page(&reply), &reply["gap"]),
        (vec![10, 11, 12], &json!(true))
    );
    let reply = since(&epoch, 2, 3).await;
    assert_eq!(
        (page(&reply), &reply["gap"], &reply["more"]),
        (vec![3, 4, 5], &json!(false), &json!(true))
    );
}

#[tokio::test]
async fn history_is_read_in_pages() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    for text in ["1", "2", "3", "4", "5"] {
        worker.publish(1, "room", text).await;
    }
    let before = async |before: u64| {
        worker
            .ok(
                1,
                json!({"op": "history", "channel": "room", "before": before, "limit": 2}),
            )
            .await
    };
    let reply = before(6).await;
    assert_eq!((page(&reply), &reply["more"]), (vec![4, 5], &json!(true)));
    let reply = before(2).await;
    assert_eq!((page(&reply), &reply["more"]), (vec![1], &json!(false)));
    let empty = worker
        .ok(1, json!({"op": "history", "channel": "other"}))
        .await;
    assert_eq!(
        (page(&empty), &empty["more"], &empty["last"]),
        (vec![], &json!(false), &json!(0))
    );
    let position = json!({"epoch": empty["epoch"], "offset": 3});
    let since = json!({"op": "history", "channel": "room", "since": position});
    assert_eq!(page(&worker.ok(1, since).await), [4, 5]);
    let both = json!({"op": "history", "channel": "room", "since": position, "before": 3});
    assert_eq!(worker.err(1, both).await, "bad_request");
}

#[tokio::test]
async fn a_repeat_is_stored_once_and_pushed_again() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    worker.sub(1, "room").await;
    let first = worker.publish(1, "room", "x").await;
    let second = worker.publish(1, "room", "x").await;
    assert_eq!(first, second);
    let pushes = worker.messages(1);
    assert_eq!(pushes, [(1, String::from("x")), (1, String::from("x"))]);
    let elsewhere = json!({"op": "pub", "channel": "other", "data": "x", "key": "x"});
    assert_eq!(worker.err(1, elsewhere).await, "key_used");
}

#[tokio::test]
async fn a_user_with_two_tabs_is_there_once() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    worker.sub(1, "room").await;
    worker.pushes(1);
    worker.hello(2, "bob").await;
    worker.hello(3, "bob").await;
    worker.sub(2, "room").await;
    worker.sub(3, "room").await;
    let presence = worker
        .ok(1, json!({"op": "presence", "channel": "room"}))
        .await;
    assert_eq!(presence["users"], json!(["ann", "bob"]));
    let join = json!({"op": "join", "channel": "room", "user": "bob"});
    assert_eq!(worker.pushes(1), [join.clone(), join.clone()]);

    worker.close(2).await;
    assert!(worker.pushes(1).is_empty(), "bob is still there");
    worker.close(3).await;
    let leave = json!({"op": "leave", "channel": "room", "user": "bob"});
    assert_eq!(worker.pushes(1), std::slice::from_ref(&leave));
    let presence = worker
        .ok(1, json!({"op": "presence", "channel": "room"}))
        .await;
    assert_eq!(presence["count"], json!(1));

    worker.hello(4, "bob").await;
    worker.sub(4, "room").await;
    worker
        .ok(4, json!({"op": "unsub", "channel": "room"}))
        .await;
    assert_eq!(worker.pushes(1), [join, leave]);
}

#[tokio::test]
async fn a_successor_goes_on_where_a_worker_died() {
    let server = Server::new();
    let first = server.worker().await;
    first.hello(1, "ann").await;
    first.sub(1, "room").await;
    first.hello(2, "bob").await;
    first.sub(2, "room").await;
    first.publish(1, "room", "x").await;
    first.pushes(2);

    let successor = server.worker().await;
    // The same event again, as the engine gives it: nobody knows whether it was finished.
    let repeat = successor.publish(1, "room", "x").await;
    assert_eq!(repeat["offset"], json!(1));
    successor.publish(1, "room", "y").await;
    assert_eq!(
        successor.messages(2),
        [(1, String::from("x")), (2, String::from("y"))]
    );
    // It also knows what a connection leaves that it never saw.
    successor.close(1).await;
    assert_eq!(
        successor.pushes(2),
        [json!({"op": "leave", "channel": "room", "user": "ann"})]
    );
    successor.close(1).await;
    assert!(successor.pushes(2).is_empty());
}

#[tokio::test]
async fn what_a_dead_worker_stored_is_pushed_by_its_successor() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    worker.sub(1, "room").await;
    // Stored, and dead before it was pushed.
    worker
        .hub
        .store
        .append(crate::store::conformance::say("channel:room", "x", None))
        .await
        .unwrap();
    assert!(worker.messages(1).is_empty());
    server.worker().await.hub.push_recent().await.unwrap();
    assert_eq!(worker.messages(1), [(1, String::from("x"))]);
}

#[tokio::test]
async fn a_frame_has_several_requests_and_as_many_replies() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    let frame = r#"
        {"op":"sub","id":1,"channel":"a"}
        {"op":"pub","id":2,"channel":"a","data":"x","key":"1"}
        {"op":"pub","id":3,"channel":"a","data":"y","key":"2"}
        {"op":"nonsense","id":4}
        {"op":"history","id":5,"channel":"a"}
    "#;
    worker.hub.frame(id(1), frame).await.unwrap();
    let replies = server.net.take(id(1), |line| line.get("re").is_some());
    let ids: Vec<_> = replies
        .iter()
        .map(|reply| reply["re"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    assert_eq!(replies[1]["ok"]["offset"], json!(1));
    assert_eq!(replies[2]["ok"]["offset"], json!(2));
    assert_eq!(replies[3]["err"]["code"], json!("unknown_op"));
    assert_eq!(page(&replies[4]["ok"]), [1, 2]);
}

#[tokio::test]
async fn limits_are_told() {
    let mut server = Server::new();
    server.settings.max_subscriptions = 2;
    server.settings.max_lines = 3;
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    let publish = |event: &str, data: &str, key: &str| json!({"op": "pub", "channel": "a", "event": event, "data": data, "key": key});
    let long = "x".repeat(200);
    assert_eq!(worker.err(1, publish("e", &long, "k")).await, "too_long");
    assert_eq!(worker.err(1, publish(&long, "d", "k")).await, "too_long");
    assert_eq!(worker.err(1, publish("e", "d", &long)).await, "too_long");
    assert_eq!(worker.err(1, publish("", "d", "k")).await, "bad_request");
    assert_eq!(worker.err(1, publish("e", "d", "")).await, "bad_request");
    worker.sub(1, "a").await;
    worker.sub(1, "b").await;
    worker.sub(1, "a").await;
    assert_eq!(
        worker.err(1, json!({"op": "sub", "channel": "c"})).await,
        "too_many"
    );
    worker
        .hub
        .frame(id(1), &"{\"op\":\"ping\"}\n".repeat(4))
        .await
        .unwrap();
    let refused = server.net.take(id(1), |line| line["re"].is_null());
    assert_eq!(refused.last().unwrap()["err"]["code"], json!("too_many"));
    worker.hub.binary(id(1)).await.unwrap();
    let refused = server.net.take(id(1), |line| line["re"].is_null());
    assert_eq!(refused.last().unwrap()["err"]["code"], json!("not_text"));
}

#[tokio::test]
async fn a_push_is_one_line_whatever_the_data_looks_like() {
    let server = Server::new();
    let worker = server.worker().await;
    worker.hello(1, "ann").await;
    worker.sub(1, "a").await;
    let data = "{\r\n  \"text\": \"two\\nlines\"\n}";
    worker
        .hub
        .publish(Outgoing {
            to: "channel:a".parse().unwrap(),
            from: None,
            device: None,
            event: None,
            data: RawValue::from_string(data.to_owned()).unwrap(),
            key: None,
        })
        .await
        .unwrap();
    let push = worker.pushes(1).pop().unwrap();
    assert_eq!(push["data"], json!({"text": "two\nlines"}));
    assert!(push.get("from").is_none() && push.get("key").is_none());
}
