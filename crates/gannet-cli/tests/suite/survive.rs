//! Workers are killed and reloaded while people talk: no connection breaks, nothing is lost, nothing
//! comes twice.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::kit::{Client, Server, places, say};

/// What a client has of a channel when it keeps it by docs/protocol.md: by offset, each once.
#[derive(Default)]
struct Heard(BTreeMap<u64, Value>);

impl Heard {
    fn take(&mut self, message: Value) {
        let offset = message["offset"].as_u64().unwrap();
        if let Some(before) = self.0.insert(offset, message.clone()) {
            assert_eq!(before["id"], message["id"], "two messages with one offset");
        }
    }

    /// Reads pushes until everything up to this offset is there.
    fn hear(&mut self, client: &mut Client, last: u64) {
        while self.0.len() < last as usize {
            let push = client.push("msg");
            self.take(push);
        }
        assert!(self.0.keys().copied().eq(1..=last));
    }
}

#[test]
fn nobody_notices_that_workers_are_killed_and_reloaded() {
    let server = Server::start();
    let mut listener = server.client("eve");
    listener.sub("room");
    let storm = AtomicBool::new(true);
    let stored = thread::scope(|scope| {
        let speak = |name: String| {
            let mut client = server.client(&name);
            client.sub("room");
            let storm = &storm;
            move || {
                let mut stored = Vec::new();
                while storm.load(Ordering::Relaxed) {
                    let text = format!("{name} {}", stored.len());
                    let reply = client.say("room", &text);
                    stored.push((reply["offset"].as_u64().unwrap(), text));
                }
                stored
            }
        };
        let speakers: Vec<_> = (0..4)
            .map(|name| scope.spawn(speak(format!("user{name}"))))
            .collect();
        let end = OnDrop(&storm);
        // Not more often: an event that meets three deaths is given up as their cause.
        for _ in 0..2 {
            server.kill_workers();
            server.wait_for_workers();
            server.reload();
        }
        drop(end);
        let stored = speakers
            .into_iter()
            .flat_map(|speaker| speaker.join().unwrap());
        stored.collect::<Vec<_>>()
    });

    let last = stored.len() as u64;
    let mut heard = Heard::default();
    heard.hear(&mut listener, last);
    for (offset, text) in stored {
        assert_eq!(heard.0[&offset]["data"], json!(text));
    }
    let newest = listener.ok(json!({"op": "history", "channel": "room", "limit": 100}));
    assert_eq!(newest["last"], last);
    for (offset, text) in places(&newest["messages"]) {
        assert_eq!(heard.0[&offset]["data"], json!(text));
    }
}

#[test]
fn a_session_survives_its_worker() {
    let server = Server::start();
    let mut ann = server.client("ann");
    let mut bob = server.client("bob");
    ann.sub("room");
    bob.sub("room");
    server.kill_workers();
    // No hello, no sub: the successor knows.
    assert_eq!(ann.say("room", "still here")["offset"], 1);
    assert_eq!(bob.push("msg")["data"], "still here");
    server.reload();
    assert_eq!(bob.say("room", "me too")["offset"], 2);
    // Also who leaves after it.
    bob.vanish();
    assert_eq!(ann.push("leave")["user"], "bob");
    let presence = ann.ok(json!({"op": "presence", "channel": "room"}));
    assert_eq!(presence["users"], json!(["ann"]));
}

#[test]
fn a_resume_meets_the_live_messages_without_a_gap() {
    let server = Server::start();
    let mut writer = server.client("ann");
    let epoch = writer.sub("room")["epoch"].clone();
    let reading = AtomicBool::new(true);
    let last = thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut last = 0;
            while reading.load(Ordering::Relaxed) {
                last = writer.say("room", &format!("text {last}"))["offset"]
                    .as_u64()
                    .unwrap();
            }
            last
        });
        let end = OnDrop(&reading);
        // Comes and goes while somebody talks; has everything each time.
        let mut heard = Heard::default();
        for round in 0..10 {
            let mut reader = server.client("bob");
            let since = json!({"epoch": epoch, "offset": heard.0.len()});
            let mut page = reader.ok(json!({"op": "sub", "channel": "room", "since": since}));
            assert_eq!(page["gap"], false);
            while page["more"] == true {
                take_all(&mut heard, &mut page);
                let since = json!({"epoch": epoch, "offset": heard.0.len()});
                page = reader.ok(json!({"op": "history", "channel": "room", "since": since}));
            }
            take_all(&mut heard, &mut page);
            let until = heard.0.len() as u64 + 5;
            heard.hear(&mut reader, until);
            if round == 5 {
                server.kill_workers();
            }
        }
        drop(end);
        talk.join().unwrap()
    });
    assert!(last > 0);
}

#[test]
fn a_message_that_was_stored_but_not_answered_is_not_stored_again() {
    let server = Server::start();
    let mut ann = server.client("ann");
    ann.sub("room");
    // Many in flight while the workers die.
    let ids: Vec<u64> = (0..200)
        .map(|count| ann.send(say("room", &format!("text {count}"))))
        .collect();
    server.kill_workers();
    let mut offsets: Vec<u64> = ids
        .iter()
        .map(|id| {
            let reply = ann.line(|line| line["re"] == *id);
            reply["ok"]["offset"]
                .as_u64()
                .unwrap_or_else(|| panic!("{reply}"))
        })
        .collect();
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(1..=200));
    server.wait_for_workers();
    assert_eq!(
        ann.ok(json!({"op": "history", "channel": "room"}))["last"],
        200
    );
}

/// Ends what others do as long as this is, also when a test fails: they are waited for.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn take_all(heard: &mut Heard, page: &mut Value) {
    for message in page["messages"].as_array_mut().unwrap() {
        heard.take(message.take());
    }
}
