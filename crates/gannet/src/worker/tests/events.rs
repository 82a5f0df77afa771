use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Script;
use crate::{
    CloseReason, Conn, ConnId, Handler, Result, Worker,
    channel::{FromWorker, ToWorker},
    layout::WorkerCounter,
    wire::{
        ARENA, TEXT,
        command::{CommandKind, HANDLER_FAILED, Query},
        event::{EventHeader, EventKind, REDELIVERED},
    },
    worker::{
        engine::Ended,
        pair::{Options, Pair},
    },
};

use EventKind::{Close, Pipe, Receive};

#[test]
fn the_last_output_of_a_handler_says_that_it_is_done() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    let seq = pair.event(Receive, conn, b"echo hello");
    let got = pair.expect();
    assert_eq!(
        (got.kind(), got.text(), got.header.conn),
        (CommandKind::Send, "hello", conn)
    );
    assert_eq!(got.header.done, seq, "one record, not two");
    assert_eq!(got.header.flags & TEXT, 0);

    let seq = pair.event(Receive, conn, b"silent");
    let got = pair.expect();
    assert_eq!(
        (got.kind(), got.header.done, got.header.flags),
        (CommandKind::Done, seq, 0)
    );
    assert_eq!(pair.counter(WorkerCounter::Handled), 2);
    assert_eq!(pair.current(0), 0);
}

#[test]
fn events_of_a_connection_wait_for_a_pending_handler_and_others_do_not() {
    let mut pair = Pair::new::<Script>();
    let (slow, quick) = (pair.connect(0, 1), pair.connect(0, 2));
    let wait = pair.event(Receive, slow, b"wait a");
    let echo = pair.event(Receive, slow, b"echo second");
    let third = pair.event(Receive, slow, b"wait b");
    let close = pair.event_with(
        EventHeader {
            aux: CloseReason::Client as u64,
            ..EventHeader::new(Close, slow)
        },
        b"",
    );
    let other = pair.event(Receive, quick, b"echo quick");
    let got = pair.expect();
    assert_eq!((got.text(), got.header.done), ("quick", other));

    pair.event(Receive, quick, b"release a");
    let order: Vec<_> = pair
        .until_done(0, echo)
        .into_iter()
        .filter(|got| got.header.conn == slow)
        .collect();
    assert_eq!(
        order.iter().map(|got| got.text()).collect::<Vec<_>>(),
        ["woke a", "second"]
    );
    assert_eq!(order[0].header.done, wait);

    pair.event(Receive, quick, b"release b");
    let order: Vec<_> = pair
        .until_done(0, close)
        .into_iter()
        .filter(|got| got.header.conn == slow)
        .collect();
    assert_eq!(
        order.iter().map(|got| got.text()).collect::<Vec<_>>(),
        ["woke b", "closed: client"]
    );
    assert_eq!(order[0].header.done, third);
}

#[test]
fn a_failed_handler_is_reported_and_counted_and_the_worker_lives() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    for word in [&b"fail"[..], b"panic"] {
        let seq = pair.event(Receive, conn, word);
        let got = pair.expect();
        assert_eq!((got.kind(), got.header.done), (CommandKind::Done, seq));
        assert_eq!(got.header.flags, HANDLER_FAILED);
    }
    let seq = pair.event(Receive, conn, b"echo alive");
    assert_eq!(pair.expect().header.done, seq);
    assert_eq!(pair.counter(WorkerCounter::Errors), 1);
    assert_eq!(pair.counter(WorkerCounter::Panics), 1);
}

#[test]
fn send_waits_while_the_ring_is_full_and_goes_on_when_it_is_read() {
    let mut pair = Pair::new::<Script>();
    let (conn, other) = (pair.connect(0, 1), pair.connect(0, 2));
    // 200 KB through a ring of 64 KiB, which nobody reads yet.
    let seq = pair.event(Receive, conn, b"many 200");
    while pair.counter(WorkerCounter::CommandsBlocked) == 0 {
        std::thread::yield_now();
    }
    // Its outcome finds no room, and must not be lost; it may be taken up only when there is some again.
    let silent = pair.event(Receive, other, b"silent");
    let mut all = pair.until_done(0, seq);
    if !all.iter().any(|got| got.header.done == silent) {
        all.extend(pair.until_done(0, silent));
    }
    let sent: Vec<_> = all
        .iter()
        .filter(|got| got.kind() == CommandKind::Send)
        .collect();
    assert_eq!(sent.len(), 200);
    assert!(
        sent.iter()
            .enumerate()
            .all(|(at, got)| got.text().parse() == Ok(at)),
        "in order"
    );
}

#[test]
fn a_large_message_goes_through_the_arena_and_its_memory_comes_back() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    for _ in 0..40 {
        let seq = pair.event(Receive, conn, b"big 900000");
        let got = pair.expect();
        assert!(got.header.has(ARENA));
        assert_eq!((got.payload.len(), got.header.done), (900_000, seq));
        assert!(got.payload.iter().all(|byte| *byte == b'b'));
    }
    pair.event(Receive, conn, b"try 2000000");
    assert!(
        pair.expect()
            .text()
            .contains("larger than the 1048576 bytes that fit")
    );

    let mut big = b"echo ".to_vec();
    big.resize(500_000, b'x');
    pair.event(Receive, conn, &big);
    assert_eq!(pair.expect().payload, &big[5..]);
}

#[test]
fn redelivered_events_say_so() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    for (flags, text) in [(0, "false"), (REDELIVERED, "true")] {
        let header = EventHeader {
            flags,
            ..EventHeader::new(Receive, conn)
        };
        pair.event_with(header, b"redelivered");
        assert_eq!(pair.expect().text(), text);
    }
}

#[test]
fn output_to_another_reactor_is_visible_before_the_event_is_done() {
    let mut pair = Pair::with::<Script>(Options {
        reactors: 2,
        ..Options::default()
    });
    let (here, there) = (pair.connect(0, 1), pair.connect(1, 1));
    for _ in 0..100 {
        let seq = pair.event(Receive, here, format!("to {there}").as_bytes());
        assert_eq!(pair.until_done(0, seq).len(), 1);
        let got = pair.try_next(1).expect("published before");
        assert_eq!(
            (got.text(), got.header.conn, got.header.done),
            ("from afar", there, 0)
        );
    }
}

#[test]
fn tasks_and_threads_of_the_handler_can_send() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    let seq = pair.event(Receive, conn, b"later x");
    pair.until_done(0, seq);
    let seq = pair.event(Receive, conn, b"release x");
    let all = [pair.expect(), pair.expect()];
    assert!(
        all.iter()
            .any(|got| got.kind() == CommandKind::Send && got.text() == "later")
    );
    assert!(all.iter().any(|got| got.header.done == seq));

    // More than the inbox holds.
    let seq = pair.event(Receive, conn, b"thread 5000");
    let all = pair.until_done(0, seq);
    let sent = all.iter().filter(|got| got.kind() == CommandKind::Send);
    assert!(
        sent.enumerate()
            .all(|(at, got)| got.text().parse() == Ok(at)),
        "in order"
    );
    assert!(all.len() >= 5000, "all of it before the event is done");
}

#[test]
fn a_batch_is_published_at_once() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    let events = [
        (Receive, &b"echo a"[..]),
        (Receive, b"echo b"),
        (Receive, b"echo c"),
    ];
    let numbers = pair.batch(conn, &events);
    let all = pair.until_done(0, numbers[2]);
    assert_eq!(
        all.iter().map(|got| got.header.done).collect::<Vec<_>>(),
        numbers
    );
    assert!(
        all.windows(2)
            .all(|pair| pair[0].position < pair[1].position)
    );
}

/// Computes for as many milliseconds as it is told; "spawn" has a task answer, and computes too.
struct Computes;

impl Handler for Computes {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Computes)
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        if data == "spawn" {
            let to = conn.clone();
            conn.worker()
                .spawn_local(async move { to.send("task").await.unwrap() });
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        conn.send("computed").await
    }
}

#[test]
fn handlers_that_compute_do_not_hold_up_tasks_for_all_that_is_in_the_ring() {
    let mut pair = Pair::new::<Computes>();
    let conn = pair.connect(0, 1);
    let mut events = vec![(Receive, &b"compute"[..]); 200];
    events[0].1 = b"spawn";
    let last = pair.batch(conn, &events)[199];
    let answers = pair.until_done(0, last);
    let before = answers.iter().position(|got| got.text() == "task");
    assert!(before.is_some_and(|before| before < 100), "{before:?}");
}

#[test]
fn questions_are_asked_of_every_reactor() {
    let mut pair = Pair::with::<Script>(Options {
        reactors: 2,
        ..Options::default()
    });
    let conn = pair.connect(0, 1);
    let seq = pair.event(Receive, conn, b"count news");
    for (reactor, count) in [(0, 3u64), (1, 4)] {
        let got = pair.expect_on(reactor);
        assert_eq!((got.kind(), got.text()), (CommandKind::Query, "news"));
        assert_eq!(got.header.code, Query::TopicCount as u16);
        pair.tell(
            reactor,
            EventKind::Reply,
            got.header.aux,
            &count.to_le_bytes(),
        );
    }
    let got = pair.until_done(0, seq).pop().unwrap();
    assert_eq!(got.text(), "7");

    let seq = pair.event(Receive, conn, b"publish news hi");
    for reactor in [0, 1] {
        let got = pair.expect_on(reactor);
        assert_eq!(
            (got.kind(), &got.payload[..]),
            (CommandKind::Publish, &b"\x04\0newshi"[..])
        );
        assert_eq!((got.header.conn, got.header.flags), (conn, TEXT));
        assert_eq!(got.header.done, if reactor == 0 { seq } else { 0 });
    }
}

#[test]
fn the_connection_table_is_read() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    pair.connect(0, 2);
    pair.event(Receive, conn, b"info");
    assert_eq!(pair.expect().text(), "192.0.2.1:5000 true of 2");
}

#[test]
fn a_new_master_ends_what_the_old_one_was_asked() {
    let mut pair = Pair::new::<Script>();
    let (conn, next) = (pair.connect(0, 1), pair.connect(0, 2));
    pair.event(Receive, conn, b"drained 10");
    assert_eq!(pair.expect().kind(), CommandKind::Query);
    pair.event(Receive, conn, b"echo dropped");
    pair.tell(0, EventKind::Reset, 0, b"");
    let seq = pair.event(Receive, next, b"echo new");
    let got = pair.expect();
    assert_eq!((got.text(), got.header.done), ("new", seq));
    assert!(
        pair.try_next(0).is_none(),
        "no outcome, no output of before"
    );
    while pair.counter(WorkerCounter::InFlight) > 0 {
        std::thread::yield_now();
    }
    assert_eq!(
        pair.counter(WorkerCounter::Errors),
        1,
        "the question failed"
    );
}

#[test]
fn retires_when_all_reactors_say_so_and_everything_is_done() {
    let mut pair = Pair::with::<Script>(Options {
        reactors: 2,
        ..Options::default()
    });
    let conn = pair.connect(0, 1);
    let seq = pair.event(Receive, conn, b"wait end");
    pair.tell(0, EventKind::Retire, 0, b"");
    let pipe = EventHeader::new(Pipe, ConnId::new(0, 1, 0));
    let piped = pair.event_with(pipe, b"end");
    pair.tell(1, EventKind::Retire, 0, b"");
    assert_eq!(pair.until_done(0, seq).pop().unwrap().text(), "woke end");
    pair.until_done(1, piped);
    assert_eq!(pair.join().unwrap(), Ended::Over);
}

#[test]
fn exits_when_told_or_when_the_manager_is_gone() {
    let mut pair = Pair::new::<Script>();
    pair.order(&ToWorker::Exit);
    assert_eq!(pair.join().unwrap(), Ended::Over);

    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    pair.event(Receive, conn, b"wait for-ever");
    pair.hang_up();
    assert_eq!(pair.join().unwrap(), Ended::Orphaned);
}

#[test]
fn asks_once_for_a_successor_after_max_requests() {
    let mut options = Options::default();
    (
        options.settings.max_requests,
        options.settings.max_requests_spread,
    ) = (10, 5);
    let mut pair = Pair::with::<Script>(options);
    let conn = pair.connect(0, 1);
    for _ in 0..30 {
        let seq = pair.event(Receive, conn, b"silent");
        pair.until_done(0, seq);
    }
    assert_eq!(pair.hear(), FromWorker::Retire);
    pair.retire();
    assert_eq!(pair.join().unwrap(), Ended::Over);
}
