//! Tells of workers that make no progress.
//!
//! In process mode their reactor sees that. Here the reactor is on the thread that hangs, so a thread
//! of its own looks at the workers' count of turns, which moves at least every 50 ms while the thread
//! is not inside a handler. It is 0 before the worker serves, and again when it has stopped.
//!
//! Such a worker cannot be killed. It is logged, once for each time, and counted (`hangs`).

use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use gannet_shm::Region;

use crate::{
    WorkerId,
    layout::{Dimensions, WorkerCounter},
};

/// Ends its thread when it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    workers: Option<mpsc::Sender<Watched>>,
}

#[derive(Debug)]
struct Watched {
    id: WorkerId,
    region: Arc<Region>,
    turns: u64,
    since: Instant,
    told: bool,
}

impl Watchdog {
    /// `limit`: how long a worker may make no progress; zero: for ever.
    pub(super) fn start(dimensions: Dimensions, limit: Duration) -> io::Result<Self> {
        if limit.is_zero() {
            return Ok(Watchdog { workers: None });
        }
        let (workers, added) = mpsc::channel();
        let watch = move || {
            let period = (limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
            let mut watched: Vec<Watched> = Vec::new();
            loop {
                match added.recv_timeout(period) {
                    Ok(worker) => watched.push(worker),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                let now = Instant::now();
                for worker in &mut watched {
                    worker.look(dimensions, now, limit.max(SHORTEST));
                }
            }
        };
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(watch)?;
        Ok(Watchdog {
            workers: Some(workers),
        })
    }

    /// Watches one more worker.
    pub(super) fn add(&self, id: WorkerId, region: Arc<Region>) {
        if let Some(workers) = &self.workers {
            // Without the thread nothing is watched.
            let _ = workers.send(Watched {
                id,
                region,
                turns: 0,
                since: Instant::now(),
                told: false,
            });
        }
    }
}

impl Watched {
    fn look(&mut self, dimensions: Dimensions, now: Instant, limit: Duration) {
        let word = |counter: WorkerCounter| {
            let at = dimensions.worker_counters() + 8 * counter as usize;
            self.region.word(at)
        };
        let turns = word(WorkerCounter::Turns).load(Relaxed);
        if turns != self.turns || turns == 0 {
            if self.told {
                tracing::warn!("worker {} goes on", self.id);
            }
            (self.turns, self.since, self.told) = (turns, now, false);
            return;
        }
        if self.told || now.saturating_duration_since(self.since) < limit {
            return;
        }
        self.told = true;
        word(WorkerCounter::Hangs).fetch_add(1, Relaxed);
        tracing::error!(
            "worker {} has made no progress for {} ms: a handler blocks its thread, and all \
             connections of this thread wait for it (long or blocking work belongs into a task)",
            self.id,
            limit.as_millis()
        );
    }
}

/// Shorter limits would take a thread that sleeps for one that hangs.
const SHORTEST: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::WORKER_KIND;

    #[test]
    fn a_worker_that_makes_no_turn_is_counted_once_each_time() {
        let dimensions = Dimensions {
            reactors: 1,
            slots: 8,
            ring: 1 << 16,
            arena: 1 << 22,
            tls_words: 0,
        };
        let region = Region::create("watchdog", WORKER_KIND, dimensions.worker_len()).unwrap();
        let word = |counter: WorkerCounter| {
            region.word(dimensions.worker_counters() + 8 * counter as usize)
        };
        let begin = Instant::now();
        let mut worker = Watched {
            id: WorkerId(0),
            region: region.clone(),
            turns: 0,
            since: begin,
            told: false,
        };
        let mut look = |s: u64| {
            let now = begin + Duration::from_secs(s);
            worker.look(dimensions, now, Duration::from_secs(10));
            word(WorkerCounter::Hangs).load(Relaxed)
        };
        assert_eq!(look(20), 0, "it does not serve yet");
        word(WorkerCounter::Turns).store(1, Relaxed);
        assert_eq!([look(30), look(39), look(40), look(80)], [0, 0, 1, 1]);
        word(WorkerCounter::Turns).store(2, Relaxed);
        assert_eq!([look(81), look(91)], [1, 2]);
    }
}
