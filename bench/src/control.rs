//! What the thread that commands a run and those that make the load tell each other.
//!
//! A run goes through: connecting; ready, when every thread has all its connections; going, when the
//! load has begun; measured, from `begin` to `end`; over. The commanding thread sets `go`, `begin` and
//! `end` once each and in this order, as times of the run's clock. The others look at them once a turn.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Shared by all threads of a run.
#[derive(Debug)]
pub(crate) struct Control {
    clock: Instant,
    go: AtomicU64,
    begin: AtomicU64,
    end: AtomicU64,
    abort: AtomicBool,
    lanes: Vec<Lane>,
    stage: Mutex<Stage>,
    changed: Condvar,
}

/// How much a thread has done, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Lane {
    /// Answers, deliveries, or connections: what the run counts.
    pub(crate) done: AtomicU64,
    /// Connections that are there.
    pub(crate) connected: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// The longest latency since somebody looked, in nanoseconds.
    pub(crate) worst: AtomicU64,
}

#[derive(Debug, Default)]
struct Stage {
    ready: usize,
    ended: usize,
}

/// The sum over all threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) done: u64,
    pub(crate) connected: u64,
    pub(crate) errors: u64,
    pub(crate) worst: u64,
}

impl Control {
    pub(crate) fn new(threads: usize) -> Self {
        Control {
            clock: Instant::now(),
            go: AtomicU64::new(NEVER),
            begin: AtomicU64::new(NEVER),
            end: AtomicU64::new(NEVER),
            abort: AtomicBool::new(false),
            lanes: (0..threads).map(|_| Lane::default()).collect(),
            stage: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Nanoseconds since the run was made.
    pub(crate) fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    pub(crate) fn lane(&self, thread: usize) -> &Lane {
        &self.lanes[thread]
    }

    /// Begin and end of what is measured; [`NEVER`] if not yet known.
    pub(crate) fn window(&self) -> (u64, u64) {
        let load = |time: &AtomicU64| time.load(Ordering::Relaxed);
        (load(&self.begin), load(&self.end))
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// A thread has all its connections, and waits. When the load begins; `None` if it does not.
    pub(crate) fn ready(&self) -> Option<u64> {
        let mut stage = self.stage();
        stage.ready += 1;
        self.changed.notify_all();
        loop {
            if self.is_aborted() {
                return None;
            }
            match self.go.load(Ordering::Relaxed) {
                NEVER => {}
                go => return Some(go),
            }
            stage = self
                .changed
                .wait(stage)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread ends, for whatever reason.
    pub(crate) fn ended(&self) {
        self.stage().ended += 1;
        self.changed.notify_all();
    }

    /// Waits until all threads are ready; `false` if one has ended instead. `tell` is called now and then.
    pub(crate) fn wait_ready(&self, mut tell: impl FnMut(Totals)) -> bool {
        let mut stage = self.stage();
        loop {
            if stage.ended > 0 {
                return false;
            }
            if stage.ready == self.lanes.len() {
                return true;
            }
            let (woken, timeout) = self
                .changed
                .wait_timeout(stage, Duration::from_secs(1))
                .unwrap_or_else(PoisonError::into_inner);
            stage = woken;
            if timeout.timed_out() {
                tell(self.totals());
            }
        }
    }

    /// Waits for this long; `false` if all threads have ended before. `tell` is called every second.
    pub(crate) fn wait(&self, length: Duration, mut tell: impl FnMut(Totals)) -> bool {
        let until = Instant::now() + length;
        let mut next = Instant::now() + Duration::from_secs(1);
        let mut stage = self.stage();
        loop {
            if stage.ended == self.lanes.len() {
                return false;
            }
            let now = Instant::now();
            if now >= until {
                return true;
            }
            if now >= next {
                next += Duration::from_secs(1);
                tell(self.totals());
            }
            stage = self
                .changed
                .wait_timeout(stage, until.min(next).saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lets the load begin.
    pub(crate) fn go(&self) {
        let _stage = self.stage();
        self.go.store(self.now(), Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// From now on it is measured.
    pub(crate) fn begin(&self) {
        self.totals();
        self.begin.store(self.now(), Ordering::Relaxed);
    }

    /// Enough is measured. Answers that are due may still come.
    pub(crate) fn end(&self) {
        self.end.store(self.now(), Ordering::Relaxed);
    }

    /// Nothing is to be measured: all threads end as soon as they see it.
    pub(crate) fn abort(&self) {
        let _stage = self.stage();
        self.abort.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// What all have done. Forgets the worst latency up to now.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for lane in &self.lanes {
            totals.done += lane.done.load(Ordering::Relaxed);
            totals.connected += lane.connected.load(Ordering::Relaxed);
            totals.errors += lane.errors.load(Ordering::Relaxed);
            totals.worst = totals.worst.max(lane.worst.swap(0, Ordering::Relaxed));
        }
        totals
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time that has not come.
pub(crate) const NEVER: u64 = u64::MAX;
