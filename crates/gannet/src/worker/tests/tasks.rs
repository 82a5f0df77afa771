use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;

use super::{LET_GO, Script};
use crate::{
    ConnId, Error, Handler, Result, Settings, Task, Worker, WorkerId,
    control::Role as Kind,
    wire::{
        ARENA, HEADER,
        command::{self, ADMITTED, CommandKind, DETACHED},
        event::{self, EventHeader, EventKind, EventKind::Receive},
    },
    worker::pair::{Got, INCARNATION, Options, Pair},
};

struct Doubles;

impl Handler for Doubles {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Doubles)
    }

    async fn task(&self, task: Task) -> Result<Bytes> {
        match &task.data[..] {
            b"fail" => Err(Error::new("as told")),
            b"panic" => panic!("as told"),
            b"big" => Ok(vec![0; 2 << 20].into()),
            b"submit" => {
                // The master takes the first two before the third is submitted, all in one turn.
                let worker = WORKER.with_borrow(|worker| worker.clone()).unwrap();
                worker.detach_task("x").await?;
                worker.detach_task("x").await?;
                super::hold();
                worker.detach_task("x").await?;
                Ok(Bytes::new())
            }
            b"block" => {
                // Whatever it sends leaves before it ends, though it holds the thread.
                let worker = WORKER.with_borrow(|worker| worker.clone()).unwrap();
                worker.publish("progress", "half").await?;
                std::thread::sleep(Duration::from_millis(50));
                Ok(Bytes::new())
            }
            data => Ok(data.repeat(2).into()),
        }
    }
}

thread_local! {
    static WORKER: std::cell::RefCell<Option<Worker>> = const { std::cell::RefCell::new(None) };
}

/// As `Doubles`, and keeps the worker's handle.
struct Keeps(Doubles);

impl Handler for Keeps {
    async fn start(worker: &Worker) -> Result<Self> {
        WORKER.set(Some(worker.clone()));
        Ok(Keeps(Doubles))
    }

    async fn task(&self, task: Task) -> Result<Bytes> {
        self.0.task(task).await
    }
}

fn none() -> ConnId {
    ConnId::from_u64(0)
}

fn task(pair: &mut Pair, id: u64, data: &[u8]) -> u64 {
    let header = EventHeader {
        aux: id,
        origin: 3,
        ..EventHeader::new(EventKind::Task, none())
    };
    pair.event_with(header, data)
}

#[test]
fn a_task_ends_in_one_record_whatever_its_outcome() {
    let mut pair = Pair::with::<Doubles>(Options {
        kind: Kind::TaskWorker,
        ..Options::default()
    });
    let cases = [
        ("ab", false, "abab"),
        ("fail", true, "as told"),
        ("panic", true, "panic: as told"),
        ("big", true, "larger than the 1048576 bytes"),
    ];
    for (id, (data, failed, outcome)) in cases.into_iter().enumerate() {
        let seq = task(&mut pair, id as u64, data.as_bytes());
        let got = pair.expect();
        assert_eq!(
            (got.kind(), got.header.aux),
            (CommandKind::TaskDone, id as u64)
        );
        assert_eq!(
            (got.header.done, got.header.has(command::FAILED)),
            (seq, failed)
        );
        assert!(got.text().contains(outcome), "{}", got.text());
    }
    let seq = task(&mut pair, 9, b"x");
    assert_eq!(pair.expect().header.done, seq, "nothing was left behind");
}

#[test]
fn a_task_that_blocks_is_heard_meanwhile() {
    let mut pair = Pair::with::<Keeps>(Options {
        kind: Kind::TaskWorker,
        ..Options::default()
    });
    task(&mut pair, 1, b"block");
    assert_eq!(pair.expect().kind(), CommandKind::Publish);
    assert!(pair.try_next(0).is_none(), "it runs still");
    assert_eq!(
        pair.current(0),
        1,
        "the master can see which event holds the thread"
    );
    assert_eq!(pair.expect().kind(), CommandKind::TaskDone);
}

#[test]
fn the_result_of_a_task_comes_back_to_who_awaits_it() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    let outcomes: [(u8, &[u8], &str); 4] = [
        (0, b"done", "done"),
        (event::FAILED, b"\x04why", "the task failed: why"),
        (
            event::FAILED,
            b"\x03",
            "the task took longer than its time-out",
        ),
        (event::FAILED, b"\x05\x03", "killed its task worker 3 times"),
    ];
    for (flags, payload, text) in outcomes {
        let seq = pair.event(Receive, conn, b"task input");
        let got = pair.expect();
        assert_eq!(
            (got.kind(), got.header.code),
            (CommandKind::TaskSubmit, u16::MAX)
        );
        assert_eq!(&got.payload, b"\0\0\0\0input");
        let token = got.header.aux;
        assert_eq!(token >> 32, INCARNATION, "a successor cannot be meant");

        pair.tell(0, EventKind::TaskAccepted, token, &7u64.to_le_bytes());
        let header = EventHeader {
            flags,
            aux: token,
            ..EventHeader::new(EventKind::TaskResult, none())
        };
        pair.write(0, header, payload);
        let got = pair.expect();
        assert!(got.text().contains(text), "{}", got.text());
        assert_eq!(got.header.done, seq);
    }
}

#[test]
fn a_detached_task_is_numbered_by_its_submitter_and_then_finished() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    for (number, text) in [(1, "accepted 1"), (2, "accepted 2")] {
        let seq = pair.event(Receive, conn, b"detach x");
        let got = pair.expect();
        assert_eq!(
            (got.kind(), got.header.flags, got.header.aux),
            (CommandKind::TaskSubmit, DETACHED | ADMITTED, number)
        );
        let got = pair.expect();
        assert_eq!((got.text(), got.header.done), (text, seq));
    }
    finished(&mut pair, conn, 2);
}

#[test]
fn a_detached_task_is_asked_for_where_it_might_be_refused() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    let admission = pair.admission();
    let large = format!("detach {}", "x".repeat(admission.largest() + 1));
    admission.set_crowded(true);
    asked(&mut pair, conn, "detach x", 7);
    admission.set_crowded(false);
    asked(&mut pair, conn, &large, 8);
    finished(&mut pair, conn, 8);
}

#[test]
fn so_many_tasks_may_be_under_way_and_for_more_the_master_is_asked() {
    let mut pair = Pair::with::<Script>(two_ahead(Kind::Worker));
    let conn = pair.connect(0, 1);
    assert_eq!(pair.admission().ahead(), 2);
    let seq = pair.event(Receive, conn, b"detach-many 5");
    let mut flags = || {
        let got = pair.expect();
        assert_eq!(got.kind(), CommandKind::TaskSubmit);
        (got.header.flags, got.header.aux)
    };
    assert_eq!(flags(), (DETACHED | ADMITTED, 1));
    assert_eq!(flags(), (DETACHED | ADMITTED, 2));
    let (asked, token) = flags();
    assert_eq!(asked, DETACHED);
    pair.tell(0, EventKind::TaskAccepted, token, &3u64.to_le_bytes());
    // What was under way is taken by now. Numbers that the master gives are drawn by it.
    let all = pair.until_done(0, seq);
    let flags: Vec<u8> = all.iter().map(|got| got.header.flags).collect();
    assert_eq!(flags[..2], [DETACHED | ADMITTED; 2]);
    assert_eq!(all.last().map(Got::text), Some("5 accepted"));
}

#[test]
fn who_submits_without_end_asks_in_each_turn_so_that_the_outcomes_are_read() {
    let mut pair = Pair::with::<Keeps>(two_ahead(Kind::TaskWorker));
    assert_eq!(pair.admission().ahead(), 2);
    let seq = task(&mut pair, 9, b"submit");
    for _ in 0..2 {
        assert_eq!(pair.expect().header.flags, DETACHED | ADMITTED);
    }
    LET_GO.store(true, Relaxed);
    let third = pair.expect();
    assert_eq!(
        third.header.flags, DETACHED,
        "nothing is under way, and still"
    );
    pair.tell(
        0,
        EventKind::TaskAccepted,
        third.header.aux,
        &3u64.to_le_bytes(),
    );
    pair.until_done(0, seq);
}

#[test]
fn a_task_that_belongs_to_no_event_is_visible_at_once() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    // A future beside the handlers submits one, and then holds the thread.
    pair.event(Receive, conn, b"detach-aside x");
    loop {
        let got = pair.expect();
        if got.kind() == CommandKind::TaskSubmit {
            assert!(got.header.has(ADMITTED));
            break;
        }
    }
    assert!(pair.try_next(0).is_none(), "it holds the thread still");
    LET_GO.store(true, Relaxed);
    assert_eq!(pair.expect().text(), "released");
}

#[test]
fn no_event_is_seen_to_be_done_before_its_tasks_are_seen() {
    let mut pair = Pair::with::<Script>(Options {
        reactors: 2,
        ..Options::default()
    });
    // The connection belongs to reactor 1, the desk to reactor 0.
    let conn = pair.connect(1, 1);
    // What the second sends is so much that it is published at once, and what is done with it. The
    // third holds the thread, so that nothing else is.
    let events: [(EventKind, &[u8]); 3] = [
        (Receive, b"detach-only x"),
        (Receive, b"many 50"),
        (Receive, b"hold"),
    ];
    let numbers = pair.batch(conn, &events);
    pair.until_done(1, numbers[0]);
    // As a master would that finds the worker dead now.
    let task = pair.try_next(0).expect("the task is visible");
    assert_eq!((task.kind(), task.header.aux), (CommandKind::TaskSubmit, 1));
    LET_GO.store(true, Relaxed);
    pair.until_done(1, numbers[2]);
}

#[test]
fn other_threads_ask_for_their_tasks() {
    let mut pair = Pair::new::<Script>();
    let conn = pair.connect(0, 1);
    asked(&mut pair, conn, "detach-thread x", 7);
}

/// A worker that may have two tasks under way.
fn two_ahead(kind: Kind) -> Options {
    let settings = Settings {
        workers: 2,
        task_workers: 2,
        task_queue: 64,
        ..Settings::default()
    };
    Options {
        settings,
        kind,
        ..Options::default()
    }
}

/// Has a task submitted that is asked for, and accepts it.
fn asked(pair: &mut Pair, conn: ConnId, what: &str, id: u64) {
    pair.event(Receive, conn, what.as_bytes());
    let got = pair.expect();
    assert_eq!(
        (got.kind(), got.header.flags & !ARENA),
        (CommandKind::TaskSubmit, DETACHED)
    );
    assert_eq!(got.header.aux >> 32, INCARNATION);
    pair.tell(
        0,
        EventKind::TaskAccepted,
        got.header.aux,
        &id.to_le_bytes(),
    );
    assert_eq!(pair.expect().text(), format!("accepted {id}"));
}

/// Ends a detached task, and sees it told to the handler.
fn finished(pair: &mut Pair, conn: ConnId, id: u64) {
    let waits = format!("wait finished {id} Ok(b\"y\")");
    let waiting = pair.event(Receive, conn, waits.as_bytes());
    let header = EventHeader {
        aux: id,
        ..EventHeader::new(EventKind::Finish, none())
    };
    let finish = pair.event_with(header, b"y");
    let all = [pair.expect(), pair.expect()];
    assert!(all.iter().any(|got| got.header.done == waiting));
    assert!(all.iter().any(|got| got.header.done == finish));
}

#[test]
fn who_gives_up_on_a_task_takes_it_back() {
    let mut pair = Pair::new::<Script>();
    let (conn, other) = (pair.connect(0, 1), pair.connect(0, 2));
    let seq = pair.event(Receive, conn, b"impatient x");
    let submitted = pair.expect();
    pair.event(Receive, other, b"release enough");
    let all = pair.until_done(0, seq);
    let cancel = all
        .iter()
        .find(|got| got.kind() == CommandKind::TaskCancel)
        .unwrap();
    assert_eq!(cancel.header.aux, submitted.header.aux);

    // A result that comes late meets nobody.
    pair.tell(0, EventKind::TaskResult, submitted.header.aux, b"late");
    let seq = pair.event(Receive, conn, b"echo on");
    assert_eq!(pair.until_done(0, seq).pop().unwrap().text(), "on");
}

#[test]
fn messages_for_other_workers_go_through_reactor_0() {
    let mut pair = Pair::with::<Script>(Options {
        reactors: 2,
        ..Options::default()
    });
    let conn = pair.connect(1, 1);
    let seq = pair.event(Receive, conn, b"pipe hello");
    let got = pair.expect_on(0);
    assert_eq!(
        (got.kind(), got.header.code, got.text()),
        (CommandKind::Pipe, 0, "hello")
    );
    assert_eq!(pair.expect_on(1).header.done, seq);
    assert_eq!(WorkerId(got.header.code), WorkerId(0));
    const { assert!(HEADER == 32) };
}
