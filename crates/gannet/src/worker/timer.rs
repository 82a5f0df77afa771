//! Timers of a worker, task worker or user process.
//!
//! A timer is a future on the worker's thread that sleeps and calls. The clock is the monotonic one;
//! its resolution is 1 ms.
//!
//! # The phases of a process
//!
//! | phase    | timers                                            | left when |
//! |----------|---------------------------------------------------|-----------|
//! | starting | can be armed, and their time runs; nothing is called | the process serves |
//! | serving  | call                                              | it is replaced, told to exit, or retired |
//! | over     | call nothing any more; a call that runs goes on   | – |
//!
//! So the calls of a worker and of its successor do not mix, but for a call that still runs when the
//! successor's begin. What still runs when the process exits is dropped at its next await: a timer
//! never keeps a process.
//!
//! # A timer
//!
//! ```text
//!   armed ──due──▶ calling ──returns, fails, panics──▶ armed (`every`) or ended (`after`)
//!     │ cancelled, dropped, phase over
//!     ▼
//!   ended
//! ```
//!
//! There is one call of a timer at a time. A cancelled timer begins no call; one that runs is let
//! run.

use std::{
    fmt,
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{Shared, Worker, caught::caught};
use crate::{Result, histogram::Timed, layout::WorkerCounter};

/// A timer that was set by [`Worker::after`] or [`Worker::every`]; it is cancelled when this is
/// dropped.
#[must_use = "a timer is cancelled when its handle is dropped: keep it, or call `detach`"]
pub struct Timer {
    state: Arc<State>,
    detached: bool,
}

/// How a timer ticks: see [`Worker::every_with`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerOptions {
    /// Time until the first call. `None`: one period. Zero: at once.
    pub first: Option<Duration>,
    /// What becomes of calls whose time passed while they could not be made.
    pub missed: Missed,
}

/// What becomes of calls that were missed, because the call before took too long, the thread was
/// blocked, or the process was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// They are not made up for: the timer goes on at the next multiple of its period.
    #[default]
    Skip,
    /// They are made up for, one after the other without a pause, however many they are. A timer
    /// whose calls always take longer than its period calls without end.
    CatchUp,
}

/// The timers of a process.
#[derive(Debug)]
pub(crate) struct Timers {
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Over,
}

/// What a handle and its future share.
#[derive(Debug, Default)]
struct State {
    cancelled: AtomicBool,
    wake: Notify,
    ended: AtomicBool,
}

impl Worker {
    /// Calls an async closure once, after `delay`, on the worker's thread, beside the handlers.
    ///
    /// An error is logged and counted as one of a handler is (`errors` and `panics` in `status`), and
    /// so is a panic. The process does not wait for its timers when it exits: `docs/timers.md` says
    /// what happens at a reload.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(worker: &gannet::Worker, conn: gannet::Conn) {
    /// let reminder = worker.after(Duration::from_secs(30), async move || {
    ///     conn.send("are you still there?").await
    /// });
    /// // Dropping `reminder` cancels it; so it is kept, or:
    /// reminder.detach();
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// On another thread than the worker's.
    #[track_caller]
    pub fn after<F>(&self, delay: Duration, run: F) -> Timer
    where
        F: AsyncFnOnce() -> Result + 'static,
    {
        let caller = Caller::new(self.shared.clone());
        let due = due(delay);
        self.set(move |clock| async move {
            if clock.reaches(due).await {
                caller.call(async { run().await }).await;
            }
        })
    }

    /// Calls an async closure again and again, on the worker's thread, beside the handlers: first
    /// after one period, then at its multiples. Missed calls are skipped ([`Missed::Skip`]). For the
    /// rest see [`after`](Worker::after).
    ///
    /// Every worker has timers of its own: what is to be done once for the whole server belongs into
    /// one worker (`worker.id()`), or a user process.
    ///
    /// # Panics
    ///
    /// On another thread than the worker's.
    #[track_caller]
    pub fn every<F>(&self, period: Duration, run: F) -> Timer
    where
        F: AsyncFnMut() -> Result + 'static,
    {
        self.every_with(period, TimerOptions::default(), run)
    }

    /// The same with options. A period of less than 1 ms is 1 ms.
    ///
    /// # Panics
    ///
    /// On another thread than the worker's.
    #[track_caller]
    pub fn every_with<F>(&self, period: Duration, options: TimerOptions, mut run: F) -> Timer
    where
        F: AsyncFnMut() -> Result + 'static,
    {
        let caller = Caller::new(self.shared.clone());
        let period = period.clamp(SHORTEST, LONGEST);
        let first = due(options.first.unwrap_or(period));
        self.set(move |clock| async move {
            let mut next = first;
            while clock.reaches(next).await {
                caller.call(async { run().await }).await;
                next = options.missed.next(next, period, Instant::now());
            }
        })
    }

    /// Starts the future of a timer.
    fn set<F: Future<Output = ()> + 'static>(&self, timer: impl FnOnce(Clock) -> F) -> Timer {
        let state = Arc::<State>::default();
        let clock = Clock {
            state: state.clone(),
            phase: self.shared.timers.phase.subscribe(),
        };
        let (ended, timer) = (state.clone(), timer(clock));
        tokio::task::spawn_local(async move {
            timer.await;
            ended.ended.store(true, Relaxed);
        });
        Timer {
            state,
            detached: false,
        }
    }
}

impl Timer {
    /// Makes no more calls. One that runs goes on to its end.
    pub fn cancel(&self) {
        self.state.cancelled.store(true, Relaxed);
        self.state.wake.notify_one();
    }

    /// Lets the timer go on without its handle, as long as the process serves.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// Whether it makes no more calls, and none runs.
    pub fn is_ended(&self) -> bool {
        self.state.ended.load(Relaxed)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if !self.detached {
            self.cancel();
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer")
            .field("is_ended", &self.is_ended())
            .finish_non_exhaustive()
    }
}

impl Missed {
    /// When to call after the call that was due at `due`, with at least 1 ms in `period`.
    fn next(self, due: Instant, period: Duration, now: Instant) -> Instant {
        let late = now.saturating_duration_since(due);
        if self == Missed::CatchUp || late < period {
            return due + period;
        }
        // Less than the period, which is less than `LONGEST`.
        let past = late.as_nanos() % period.as_nanos();
        now + (period - Duration::from_nanos(past as u64))
    }
}

impl Timers {
    /// The process serves: what is due is called.
    pub(crate) fn begin(&self) {
        self.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Starting;
            if begins {
                *phase = Phase::Serving;
            }
            begins
        });
    }

    /// Nothing is called any more.
    pub(crate) fn end(&self) {
        self.phase.send_replace(Phase::Over);
    }
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            phase: watch::Sender::new(Phase::Starting),
        }
    }
}

/// What the future of a timer waits by.
struct Clock {
    state: Arc<State>,
    phase: watch::Receiver<Phase>,
}

impl Clock {
    /// Waits until then. `false`: the timer is not to call any more.
    async fn reaches(&self, at: Instant) -> bool {
        let (mut serving, mut over) = (self.phase.clone(), self.phase.clone());
        tokio::select! {
            biased;
            () = self.state.cancelled() => false,
            // An error says that the process is gone.
            _ = over.wait_for(|phase| *phase == Phase::Over) => false,
            () = async {
                let _ = serving.wait_for(|phase| *phase != Phase::Starting).await;
                sleep_until(at).await;
            } => true,
        }
    }
}

impl State {
    async fn cancelled(&self) {
        while !self.cancelled.load(Relaxed) {
            self.wake.notified().await;
        }
    }
}

/// Whoever set a timer, in whose name it calls.
struct Caller {
    shared: Arc<Shared>,
    set_at: &'static Location<'static>,
}

impl Caller {
    #[track_caller]
    fn new(shared: Arc<Shared>) -> Self {
        Caller {
            shared,
            set_at: Location::caller(),
        }
    }

    async fn call(&self, run: impl Future<Output = Result>) {
        let set_at = self.set_at;
        let began = self.shared.clock();
        let called = caught(run).await;
        if let Some(began) = began {
            let now = self.shared.clock().unwrap_or(began);
            self.shared.time(Timed::Timer, now.saturating_sub(began));
        }
        match called {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.shared.count(WorkerCounter::Errors);
                tracing::error!(%set_at, %error, "timer failed");
            }
            Err(message) => {
                self.shared.count(WorkerCounter::Panics);
                tracing::error!(%set_at, message, "timer panicked");
            }
        }
    }
}

fn due(delay: Duration) -> Instant {
    Instant::now() + delay.min(LONGEST)
}

/// Shortest period.
const SHORTEST: Duration = Duration::from_millis(1);
/// Longest delay and period, some thirty years: longer ones are as long as that.
const LONGEST: Duration = Duration::from_secs(1 << 30);
