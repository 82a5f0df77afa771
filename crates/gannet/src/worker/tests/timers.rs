//! Timers with a clock that the test moves.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use gannet_shm::Region;
use tokio::time::{Instant, advance, sleep};

use crate::{
    Error, Missed, Settings, Timer, TimerOptions, Worker, WorkerId,
    control::Role,
    layout::{CONTROL_KIND, Dimensions, WORKER_KIND, WorkerCounter},
    worker::{Shared, pair::INCARNATION},
};

#[test]
fn after_calls_once_at_its_time() {
    serving(async |worker| {
        let log = Log::default();
        let timer = worker.after(ms(50), log.noting());
        sleep(ms(49)).await;
        assert!(log.taken().is_empty());
        sleep(ms(1000)).await;
        assert_eq!(log.taken(), [50]);
        assert!(timer.is_ended());
    });
}

#[test]
fn every_calls_at_the_multiples_of_its_period() {
    serving(async |worker| {
        let log = Log::default();
        let _timer = worker.every(ms(10), log.noting());
        sleep(ms(35)).await;
        assert_eq!(log.taken(), [10, 20, 30]);

        let log = Log::default();
        let first = TimerOptions {
            first: Some(Duration::ZERO),
            ..TimerOptions::default()
        };
        let _timer = worker.every_with(ms(10), first, log.noting());
        sleep(ms(25)).await;
        assert_eq!(log.taken(), [0, 10, 20]);
    });
}

#[test]
fn a_slow_call_is_never_joined_by_the_next_and_what_it_missed_is_skipped() {
    serving(async |worker| {
        let log = Log::default();
        let (note, running) = (log.clone(), Cell::new(false));
        let _timer = worker.every(ms(10), async move || {
            assert!(!running.replace(true), "two calls at a time");
            note.note();
            sleep(ms(25)).await;
            running.set(false);
            Ok(())
        });
        sleep(ms(95)).await;
        assert_eq!(log.taken(), [10, 40, 70]);
        assert_eq!(counted(&worker), (0, 0));
    });
}

#[test]
fn what_was_missed_can_be_caught_up_with() {
    serving(async |worker| {
        let log = Log::default();
        let (note, first) = (log.clone(), Cell::new(true));
        let options = TimerOptions {
            missed: Missed::CatchUp,
            ..TimerOptions::default()
        };
        let _timer = worker.every_with(ms(10), options, async move || {
            note.note();
            if first.replace(false) {
                sleep(ms(35)).await;
            }
            Ok(())
        });
        sleep(ms(66)).await;
        assert_eq!(log.taken(), [10, 45, 45, 45, 50, 60]);
    });
}

#[test]
fn a_thread_that_was_blocked_makes_one_late_call() {
    serving(async |worker| {
        let log = Log::default();
        let _timer = worker.every(ms(10), log.noting());
        sleep(ms(1)).await;
        advance(ms(54)).await;
        sleep(ms(10)).await;
        assert_eq!(log.taken(), [55, 60]);
    });
}

#[test]
fn a_dropped_handle_cancels_and_a_detached_one_does_not() {
    serving(async |worker| {
        let (dropped, detached) = (Log::default(), Log::default());
        let timer = worker.every(ms(10), dropped.noting());
        worker.every(ms(10), detached.noting()).detach();
        sleep(ms(15)).await;
        drop(timer);
        sleep(ms(20)).await;
        assert_eq!(dropped.taken(), [10]);
        assert_eq!(detached.taken(), [10, 20, 30]);
    });
}

#[test]
fn a_call_that_runs_is_let_run_by_a_cancel() {
    serving(async |worker| {
        let log = Log::default();
        let note = log.clone();
        let timer = worker.every(ms(10), async move || {
            sleep(ms(5)).await;
            note.note();
            Ok(())
        });
        sleep(ms(12)).await;
        timer.cancel();
        assert!(!timer.is_ended());
        sleep(ms(50)).await;
        assert_eq!(log.taken(), [15]);
        assert!(timer.is_ended());
    });
}

#[test]
fn a_timer_can_cancel_itself() {
    serving(async |worker| {
        let log = Log::default();
        let timer: Rc<OnceCell<Timer>> = Rc::default();
        let (note, own) = (log.clone(), timer.clone());
        let set = timer.set(worker.every(ms(10), async move || {
            note.note();
            if note.0.borrow().len() == 3 {
                own.get().unwrap().cancel();
            }
            Ok(())
        }));
        assert!(set.is_ok());
        sleep(ms(100)).await;
        assert_eq!(log.taken(), [10, 20, 30]);
    });
}

#[test]
fn errors_and_panics_are_counted_and_end_nothing() {
    serving(async |worker| {
        let log = Log::default();
        let _fails = worker.every(ms(10), async || Err(Error::new("as asked")));
        let _panics = worker.every(ms(10), async || panic!("as asked"));
        let _panics_early = worker.every(ms(10), || -> std::future::Ready<crate::Result> {
            panic!("before there is a future")
        });
        let _goes_on = worker.every(ms(10), log.noting());
        sleep(ms(35)).await;
        assert_eq!(log.taken(), [10, 20, 30]);
        assert_eq!(counted(&worker), (3, 6));
    });
}

#[test]
fn nothing_is_called_before_the_process_serves_or_when_it_was_replaced() {
    paused(async |worker| {
        let (early, late) = (Log::default(), Log::default());
        let _early = worker.after(ms(10), early.noting());
        let _late = worker.every(ms(20), late.noting());
        sleep(ms(30)).await;
        assert!(early.taken().is_empty());

        worker.shared().timers.begin();
        sleep(ms(1)).await;
        assert_eq!((early.taken(), late.taken()), (vec![30], vec![30]));
        sleep(ms(19)).await;
        assert_eq!(late.taken(), [40]);

        worker.shared().timers.end();
        let after = worker.after(ms(1), early.noting());
        sleep(ms(100)).await;
        assert_eq!((early.taken(), late.taken()), (vec![], vec![]));
        assert!(after.is_ended());
        // It does not begin again.
        worker.shared().timers.begin();
        sleep(ms(100)).await;
        assert!(late.taken().is_empty());
    });
}

#[test]
fn extreme_times_do_no_harm() {
    serving(async |worker| {
        let log = Log::default();
        let never = worker.after(Duration::MAX, log.noting());
        let _rarely = worker.every(Duration::MAX, log.noting());
        let often = worker.every(Duration::ZERO, log.noting());
        sleep(ms(3)).await;
        assert!(log.taken().starts_with(&[1, 2]));
        drop(often);
        sleep(ms(1000)).await;
        assert!(log.taken().is_empty());
        assert!(!never.is_ended());
    });
}

/// When calls were made, in milliseconds since this was made.
#[derive(Clone)]
struct Log(Rc<RefCell<Vec<u64>>>, Instant);

impl Default for Log {
    fn default() -> Self {
        Log(Rc::default(), Instant::now())
    }
}

impl Log {
    fn note(&self) {
        self.0
            .borrow_mut()
            .push(self.1.elapsed().as_millis() as u64);
    }

    fn noting(&self) -> impl AsyncFnMut() -> crate::Result + use<> {
        let log = self.clone();
        async move || {
            log.note();
            Ok(())
        }
    }

    fn taken(&self) -> Vec<u64> {
        self.0.take()
    }
}

/// Errors and panics.
fn counted(worker: &Worker) -> (u64, u64) {
    let count = |counter| {
        let word = worker.shared().counter(counter);
        word.load(std::sync::atomic::Ordering::Relaxed)
    };
    (count(WorkerCounter::Errors), count(WorkerCounter::Panics))
}

fn serving(test: impl AsyncFnOnce(Worker)) {
    paused(async |worker| {
        worker.shared().timers.begin();
        test(worker).await;
    });
}

fn paused(test: impl AsyncFnOnce(Worker)) {
    let dimensions = Dimensions {
        tls_words: 0,
        reactors: 1,
        slots: 1,
        ring: 64 << 10,
        arena: 1 << 20,
    };
    let control = Region::create("control", CONTROL_KIND, dimensions.control_len()).unwrap();
    let region = Region::create("worker", WORKER_KIND, dimensions.worker_len()).unwrap();
    let shared: Arc<Shared> = Shared::new(
        WorkerId(0),
        Role::Worker,
        INCARNATION,
        0,
        Settings::default(),
        crate::Shared::default(),
        dimensions,
        region,
        control,
    );
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let builder = builder.enable_time().start_paused(true);
    let runtime = builder.build_local(Default::default()).unwrap();
    runtime.block_on(test(Worker::new(shared)));
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
