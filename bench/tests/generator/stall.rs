//! A server that stands still for a while: an open loop shows it, a closed one hides it.

use std::{
    net::SocketAddr,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use crate::kit::{bench, echo, serve};

/// All connections wait when this long has gone by since the first one had its first message.
const AFTER: Duration = Duration::from_millis(700);
const STALL: Duration = Duration::from_millis(500);

fn stalling() -> SocketAddr {
    let begin = Mutex::new(None);
    serve(move |stream, _| {
        echo(stream, 64, |_, _| {
            // Held while it sleeps: nobody gets past.
            let mut begin = begin.lock().expect("the lock");
            let stalled = begin.get_or_insert_with(|| (Instant::now(), false));
            if stalled.0.elapsed() >= AFTER && !stalled.1 {
                stalled.1 = true;
                thread::sleep(STALL);
            }
            Some(())
        });
    })
}

#[test]
fn an_open_loop_shows_a_stall_that_a_closed_one_hides() {
    let arguments = |target: &str| {
        let flags = "--connections 4 --duration 2s --warmup 100ms";
        let mut all = vec!["tcp".to_owned(), target.to_owned()];
        all.extend(flags.split(' ').map(str::to_owned));
        all
    };
    let run = |extra: &[&str]| {
        let all = arguments(&stalling().to_string());
        let all: Vec<&str> = all
            .iter()
            .map(String::as_str)
            .chain(extra.iter().copied())
            .collect();
        bench(&all)
    };
    let half = STALL.as_micros() as f64 / 2.0;

    // A quarter of the time is a stall: of what was due then, half waited for half of it and more.
    let open = run(&["--rate", "1000"]);
    open.expect_clean();
    assert!(open.number("latency_us.p90") > half / 2.0, "{open:?}");
    assert!(open.number("latency_us.p99") > half, "{open:?}");
    assert!(open.number("messages") > 1500.0, "{open:?}");

    // Four messages of thousands saw it.
    let closed = run(&[]);
    closed.expect_clean();
    assert!(closed.number("latency_us.p99") < half, "{closed:?}");
    assert!(closed.number("latency_us.max") > half, "{closed:?}");

    // When that was, in the window: not at its beginning.
    let at = closed.number("worst.at_s");
    assert!((0.1..2.0).contains(&at), "{closed:?}");
}

#[test]
fn what_an_overloaded_server_leaves_undone_counts() {
    let address = serve(|stream, _| {
        echo(stream, 64, |_, _| {
            thread::sleep(Duration::from_millis(5));
            Some(())
        });
    });
    // At most 200 a second can be answered.
    let target = address.to_string();
    let outcome = bench(&[
        "tcp",
        &target,
        "-c",
        "1",
        "--rate",
        "2000",
        "--duration",
        "1s",
    ]);
    assert!(outcome.number("open_loop.unsent") > 1500.0, "{outcome:?}");
    assert!(outcome.number("latency_us.p50") > 200_000.0, "{outcome:?}");
    assert!(outcome.number("messages") <= 200.0, "{outcome:?}");
}
