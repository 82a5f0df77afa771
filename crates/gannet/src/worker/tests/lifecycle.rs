use std::{
    cell::{Cell, RefCell},
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Conn, Error, Handler, Result, Worker,
    channel::{FromWorker, Implements, ToWorker},
    wire::{
        command::{CommandKind, DETACHED, EARLY},
        event::EventKind::Receive,
    },
    worker::{
        engine::Ended,
        pair::{Options, Pair},
    },
};

struct Fails;

impl Handler for Fails {
    async fn start(_worker: &Worker) -> Result<Self> {
        Err(Error::new("no database"))
    }
}

struct Panics;

impl Handler for Panics {
    async fn start(_worker: &Worker) -> Result<Self> {
        panic!("no config")
    }
}

#[test]
fn a_handler_that_cannot_start_says_why() {
    let mut pair = Pair::launch::<Fails>(Options::default());
    let FromWorker::Failed { error } = pair.hear() else {
        panic!("it failed")
    };
    assert_eq!(error, "`Handler::start` failed: no database");
    assert!(pair.join().is_err());

    let mut pair = Pair::launch::<Panics>(Options::default());
    let FromWorker::Failed { error } = pair.hear() else {
        panic!("it failed")
    };
    assert_eq!(error, "`Handler::start` failed: panic: no config");
    assert!(pair.join().is_err());
}

/// Answers from a task that another thread spawns here when the handler has long ended.
struct Elsewhere;

impl Handler for Elsewhere {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Elsewhere)
    }

    async fn receive(&self, conn: Conn, _data: Bytes) -> Result {
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(2));
            runtime.spawn(async move { conn.send("late").await })
        });
        Ok(())
    }
}

#[test]
fn a_task_that_another_thread_spawns_is_run_though_nothing_else_comes() {
    let mut pair = Pair::new::<Elsewhere>();
    let conn = pair.connect(0, 1);
    for _ in 0..5 {
        let seq = pair.event(Receive, conn, b"?");
        pair.until_done(0, seq);
        assert_eq!(pair.expect().text(), "late");
    }
}

/// Has other threads send without a pause, as long as it lives.
#[derive(Default)]
struct Chatty {
    ends: Arc<AtomicBool>,
}

impl Handler for Chatty {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Chatty::default())
    }

    async fn receive(&self, conn: Conn, _data: Bytes) -> Result {
        for _ in 0..3 {
            let (ends, conn) = (self.ends.clone(), conn.clone());
            std::thread::spawn(move || {
                let runtime = { tokio::runtime::Builder::new_current_thread() }.build();
                let runtime = runtime.unwrap();
                while !ends.load(Relaxed) && runtime.block_on(conn.send("on")).is_ok() {}
            });
        }
        Ok(())
    }
}

impl Drop for Chatty {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
    }
}

#[test]
fn the_manager_is_heard_though_other_threads_never_stop_sending() {
    for _ in 0..20 {
        let mut pair = Pair::new::<Chatty>();
        let conn = pair.connect(0, 1);
        pair.event(Receive, conn, b"go");
        for _ in 0..2_000 {
            pair.expect();
        }
        pair.order(&ToWorker::Exit);
        pair.take_all_until_it_ends();
        assert_eq!(pair.join().unwrap(), Ended::Over);
    }
}

/// Publishes at its start and at its end; "hang" makes the end hang.
struct Parting {
    worker: Worker,
    hang: Cell<bool>,
}

impl Handler for Parting {
    async fn start(worker: &Worker) -> Result<Self> {
        worker.publish("life", "hello").await?;
        Ok(Parting {
            worker: worker.clone(),
            hang: Cell::new(false),
        })
    }

    async fn receive(&self, _conn: Conn, data: Bytes) -> Result {
        self.hang.set(data == "hang");
        Ok(())
    }

    async fn stop(&self) -> Result {
        self.worker.publish("life", "bye").await?;
        if self.hang.get() {
            pending::<()>().await;
        }
        Ok(())
    }
}

/// Starts with whatever would wait for a master.
struct Early {
    said: RefCell<Vec<String>>,
}

impl Handler for Early {
    async fn start(worker: &Worker) -> Result<Self> {
        let mut said = vec![
            format!("{:?}", worker.detach_task("early").await),
            format!("{:?}", worker.task("awaited").await),
            format!("{:?}", worker.topic_members("topic").await.is_err()),
        ];
        let aside = worker.clone();
        worker.spawn_local(async move {
            let _ = aside.task("aside").await;
        });
        tokio::task::yield_now().await;
        let mut error = None;
        for _ in 0..1_000 {
            error = worker.publish("topic", vec![b'x'; 1_000]).await.err();
            if error.is_some() {
                break;
            }
        }
        said.push(error.map_or_else(String::new, |error| error.to_string()));
        let more = worker.detach_task(vec![b'x'; 1_000]).await;
        said.push(format!("{more:?}"));
        let said = RefCell::new(said);
        Ok(Early { said })
    }

    async fn receive(&self, conn: Conn, _data: Bytes) -> Result {
        let said = self.said.borrow_mut().remove(0);
        conn.send(said).await
    }
}

#[test]
fn start_waits_for_nothing_that_comes_when_it_has_returned() {
    let mut pair = Pair::launch::<Early>(options());
    assert!(matches!(pair.hear(), FromWorker::Ready { .. }));
    let first = pair.expect();
    assert_eq!(
        (first.kind(), first.header.flags, first.header.aux),
        (CommandKind::TaskSubmit, DETACHED | EARLY, 1)
    );
    assert_eq!(&first.payload, b"\0\0\0\0early");
    // What was spawned waits for its answer, and nobody for it.
    let second = pair.expect();
    assert_eq!(&second.payload, b"\0\0\0\0aside");
    let conn = pair.connect(0, 1);
    let mut said = || {
        pair.event(Receive, conn, b"?");
        let mut all = std::iter::repeat_with(|| pair.expect());
        let said = all.find(|got| got.kind() == CommandKind::Send).unwrap();
        said.text().to_owned()
    };
    assert_eq!(said(), "Ok(TaskId(1))");
    assert_eq!(said(), "Err(NotReady)");
    assert_eq!(said(), "true");
    assert!(said().contains("more than `ring_size`"));
    assert_eq!(said(), "Err(NotReady)");
}

fn options() -> Options {
    let mut options = Options::default();
    options.settings.max_wait_time_ms = 30;
    options
}

#[test]
fn start_and_stop_can_send() {
    let mut pair = Pair::launch::<Parting>(options());
    let implements = Implements {
        receive: true,
        ..Implements::default()
    };
    assert_eq!(pair.hear(), FromWorker::Ready { implements });
    assert!(pair.expect().text().ends_with("hello"));
    pair.retire();
    assert!(pair.expect().text().ends_with("bye"));
    assert_eq!(pair.join().unwrap(), Ended::Over);
}

#[test]
fn a_stop_that_hangs_is_given_up() {
    let mut pair = Pair::launch::<Parting>(options());
    let conn = pair.connect(0, 1);
    let seq = pair.event(Receive, conn, b"hang");
    pair.until_done(0, seq);
    pair.order(&ToWorker::Exit);
    assert_eq!(pair.expect().kind(), CommandKind::Publish);
    assert_eq!(pair.join().unwrap(), Ended::TimedOut);
}

/// Waits for ever.
struct Stuck;

impl Handler for Stuck {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Stuck)
    }

    async fn receive(&self, _conn: Conn, _data: Bytes) -> Result {
        pending().await
    }
}

#[test]
fn a_handler_that_hangs_does_not_keep_a_worker_that_was_told_to_exit() {
    let mut pair = Pair::with::<Stuck>(options());
    let conn = pair.connect(0, 1);
    pair.event(Receive, conn, b"x");
    while pair.counter(crate::layout::WorkerCounter::InFlight) == 0 {
        std::thread::yield_now();
    }
    pair.order(&ToWorker::Exit);
    assert_eq!(pair.join().unwrap(), Ended::Over, "`stop` was called");
}
