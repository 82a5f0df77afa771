//! The manager's decisions, played through with a clock that the test moves.

mod user;

use super::{Action::*, *};
use crate::control::ReloadOutcome::{Failed, Kept, Replaced};

/// Places with a clock; acts as the processes do.
struct Kit {
    now: Instant,
    places: Places,
    /// What those who wait for reloads were told.
    told: Vec<Progress>,
    /// What the program was told.
    troubles: Vec<WorkerError>,
}

impl Kit {
    /// Nothing was done yet.
    fn new(workers: usize, task_workers: usize) -> Self {
        Kit::with(workers, task_workers, Vec::new())
    }

    fn with(workers: usize, task_workers: usize, processes: Vec<ProcessSpec>) -> Self {
        let limits = Limits {
            workers,
            task_workers,
            processes,
            start_timeout: Duration::from_secs(10),
            max_wait_time: Duration::from_secs(30),
            threads: false,
        };
        let now = Instant::now();
        Kit {
            now,
            places: Places::new(now, limits),
            told: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// All started and ready: workers are incarnations 1, 2, ...
    fn running(workers: usize, task_workers: usize) -> Self {
        let mut kit = Kit::new(workers, task_workers);
        kit.handle(Input::Ready(Who::Master));
        for incarnation in 1..=(workers + task_workers) as u64 {
            kit.ready(incarnation);
        }
        assert_eq!(kit.actions().last(), Some(&Started));
        kit
    }

    /// The same in thread mode.
    fn running_threads(workers: usize, processes: Vec<ProcessSpec>) -> Self {
        let mut kit = Kit::with(workers, 0, processes);
        kit.places.limits.threads = true;
        kit.handle(Input::Ready(Who::Master));
        for incarnation in 1..=workers as u64 {
            kit.ready(incarnation);
        }
        kit.actions();
        kit
    }

    fn handle(&mut self, input: Input) {
        self.places.handle(self.now, input);
    }

    fn ready(&mut self, incarnation: u64) {
        self.handle(Input::Ready(Who::Worker(incarnation)));
        self.handle(Input::Attached(incarnation));
    }

    fn exits(&mut self, who: Who) {
        self.handle(Input::Exited(
            who,
            End {
                pid: None,
                clean: true,
                how: "exit code 0".to_owned(),
            },
        ));
    }

    fn dies(&mut self, who: Who) {
        let how = "signal 11 (SIGSEGV)".to_owned();
        self.handle(Input::Exited(
            who,
            End {
                pid: None,
                clean: false,
                how,
            },
        ));
    }

    fn reload(&mut self, request: u64) {
        self.handle(Input::Reload {
            tasks_only: false,
            cause: ReloadCause::Control,
            request: Some(RequestId(request)),
        });
    }

    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.places.poll_action() {
            match action {
                Action::Tell { progress, .. } => self.told.push(progress),
                Action::Trouble(error) => self.troubles.push(error),
                action => actions.push(action),
            }
        }
        actions
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while let Some(at) = self.places.poll_timeout().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.places.handle_timeout(self.now);
            assert_ne!(
                self.places.poll_timeout(),
                Some(at),
                "a time-out that stays"
            );
        }
        self.now = until;
        self.places.handle_timeout(until);
    }
}

fn spawn(worker: u16, incarnation: u64, generation: u64) -> Action {
    SpawnWorker {
        worker: WorkerId(worker),
        incarnation,
        generation,
    }
}

fn attach(worker: u16, incarnation: u64) -> Action {
    Attach {
        worker: WorkerId(worker),
        incarnation,
    }
}

fn dead(worker: u16, incarnation: u64, blame: bool) -> Action {
    Dead {
        worker: WorkerId(worker),
        incarnation,
        blame,
    }
}

fn kill(incarnation: u64) -> Action {
    Kill(Who::Worker(incarnation))
}

/// What a reload reports.
fn outcomes(action: &Action) -> (Vec<u64>, Vec<crate::control::ReloadOutcome>, Option<&str>) {
    let Action::Reloaded { requests, reloaded } = action else {
        panic!("{action:?}")
    };
    (
        requests.iter().map(|request| request.0).collect(),
        reloaded
            .workers
            .iter()
            .map(|worker| worker.outcome)
            .collect(),
        reloaded.error.as_deref(),
    )
}

#[test]
fn start_everything_at_once_and_announce_when_all_are_ready() {
    let mut kit = Kit::new(1, 1);
    assert_eq!(
        kit.actions(),
        [
            SpawnMaster { generation: 0 },
            spawn(0, 1, 0),
            spawn(1, 2, 0)
        ]
    );
    kit.ready(2);
    kit.ready(1);
    assert_eq!(kit.actions(), [attach(1, 2), attach(0, 1)]);
    kit.handle(Input::Ready(Who::Master));
    assert_eq!(kit.actions(), [Started]);
}

#[test]
fn a_failure_at_start_ends_the_server_with_the_reason() {
    let mut kit = Kit::new(2, 0);
    kit.ready(1);
    kit.actions();
    kit.handle(Input::Failed(Who::Worker(2), "no database".to_owned()));
    kit.dies(Who::Worker(2));
    assert_eq!(kit.actions(), [kill(1), Kill(Who::Master)]);
    kit.dies(Who::Worker(1));
    kit.dies(Who::Master);
    let result = Err("worker 1 did not start: no database".to_owned());
    assert_eq!(kit.actions().last(), Some(&Finished(result)));
}

#[test]
fn a_master_that_cannot_start_ends_the_server() {
    let mut kit = Kit::new(1, 0);
    kit.actions();
    kit.dies(Who::Master);
    assert_eq!(kit.actions(), [kill(1)]);
    kit.dies(Who::Worker(1));
    let result = Err("the master did not start: signal 11 (SIGSEGV)".to_owned());
    assert_eq!(kit.actions(), [Finished(result)]);
}

#[test]
fn a_worker_that_is_not_ready_in_time_ends_the_start() {
    let mut kit = Kit::new(1, 0);
    kit.handle(Input::Ready(Who::Master));
    kit.actions();
    kit.wait(10_000);
    assert_eq!(kit.actions(), [kill(1)]);
    kit.dies(Who::Worker(1));
    kit.dies(Who::Master);
    let Some(Finished(Err(error))) = kit.actions().pop() else {
        panic!()
    };
    assert_eq!(
        error,
        "worker 0 did not start: it was not ready within start_timeout_ms and was killed"
    );
}

#[test]
fn a_crash_is_blamed_and_the_successor_starts_at_once() {
    let mut kit = Kit::running(2, 0);
    kit.dies(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, true), spawn(0, 3, 0)]);
    kit.ready(3);
    assert_eq!(kit.actions(), [attach(0, 3)]);
    assert_eq!(kit.places.places()[0].restarts, 1);
}

#[test]
fn an_exit_that_nobody_asked_for_is_a_crash() {
    let mut kit = Kit::running(1, 0);
    kit.exits(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, true), spawn(0, 2, 0)]);
}

#[test]
fn a_worker_that_keeps_dying_is_started_after_growing_delays() {
    let mut kit = Kit::running(1, 0);
    kit.dies(Who::Worker(1));
    kit.actions();
    for (incarnation, delay) in [(2, 100), (3, 200), (4, 400)] {
        kit.handle(Input::Failed(Who::Worker(incarnation), "cannot".to_owned()));
        kit.dies(Who::Worker(incarnation));
        kit.wait(delay - 1);
        assert_eq!(kit.actions(), []);
        kit.wait(1);
        assert_eq!(kit.actions(), [spawn(0, incarnation + 1, 0)]);
    }
    kit.ready(5);
    kit.wait(10_000);
    kit.dies(Who::Worker(5));
    assert_eq!(
        kit.actions(),
        [attach(0, 5), dead(0, 5, true), spawn(0, 6, 0)]
    );
}

#[test]
fn a_stalled_worker_is_killed_and_blamed() {
    let mut kit = Kit::running(1, 0);
    kit.handle(Input::Stalled(1));
    kit.handle(Input::Stalled(1));
    assert_eq!(kit.actions(), [kill(1)]);
    kit.dies(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, true), spawn(0, 2, 0)]);
    let last_exit = kit.places.places()[0].last_exit.as_deref();
    assert_eq!(
        last_exit,
        Some("it made no progress for stall_timeout_ms and was killed")
    );
}

#[test]
fn max_requests_replaces_one_worker_without_a_gap() {
    let mut kit = Kit::running(2, 0);
    kit.handle(Input::Retire(2));
    assert_eq!(kit.actions(), [spawn(1, 3, 0)]);
    kit.ready(3);
    assert_eq!(kit.actions(), [attach(1, 3)]);
    kit.exits(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, false)]);
    assert_eq!(kit.places.places()[1].restarts, 0);
}

#[test]
fn a_reload_replaces_two_at_a_time_and_tells_when_all_took_over() {
    let mut kit = Kit::running(3, 0);
    kit.reload(7);
    assert_eq!(kit.actions(), [spawn(0, 4, 1), spawn(1, 5, 1)]);
    kit.ready(5);
    assert_eq!(kit.actions(), [attach(1, 5), spawn(2, 6, 1)]);
    kit.ready(4);
    kit.ready(6);
    let actions = kit.actions();
    assert_eq!(actions[..2], [attach(0, 4), attach(2, 6)]);
    assert_eq!(outcomes(&actions[2]), (vec![7], vec![Replaced; 3], None));
    for incarnation in 1..=3 {
        kit.exits(Who::Worker(incarnation));
    }
    assert_eq!(
        kit.actions(),
        [dead(0, 1, false), dead(1, 2, false), dead(2, 3, false)]
    );
    assert!(
        kit.places
            .places()
            .iter()
            .all(|place| place.generation == 1)
    );
}

#[test]
fn a_reload_of_tasks_leaves_workers_alone() {
    let mut kit = Kit::running(1, 1);
    kit.handle(Input::Reload {
        tasks_only: true,
        cause: ReloadCause::Control,
        request: None,
    });
    assert_eq!(kit.actions(), [spawn(1, 3, 1)]);
}

#[test]
fn a_retired_worker_that_does_not_finish_is_killed_without_blame() {
    let mut kit = Kit::running(1, 0);
    kit.reload(1);
    kit.ready(2);
    kit.actions();
    kit.wait(29_999);
    assert_eq!(kit.actions(), []);
    kit.wait(1);
    assert_eq!(kit.actions(), [kill(1)]);
    kit.dies(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, false)]);
}

#[test]
fn a_retired_worker_that_crashes_is_blamed() {
    let mut kit = Kit::running(1, 0);
    kit.reload(1);
    kit.ready(2);
    kit.actions();
    kit.dies(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, true)]);
}

#[test]
fn a_successor_that_cannot_start_aborts_the_reload() {
    let mut kit = Kit::running(4, 0);
    kit.reload(1);
    kit.ready(5);
    assert_eq!(
        kit.actions(),
        [spawn(0, 5, 1), spawn(1, 6, 1), attach(0, 5), spawn(2, 7, 1)]
    );
    kit.handle(Input::Failed(Who::Worker(6), "panicked".to_owned()));
    kit.dies(Who::Worker(6));
    assert_eq!(kit.actions(), [], "one is still on its way");
    kit.ready(7);
    let actions = kit.actions();
    assert_eq!(actions[0], attach(2, 7));
    assert_eq!(
        outcomes(&actions[1]),
        (
            vec![1],
            vec![Replaced, Failed, Replaced, Kept],
            Some("worker 1 did not start: panicked")
        )
    );
    kit.wait(20_000);
    assert_eq!(kit.actions(), [], "the old ones go on");
}

#[test]
fn the_program_is_told_of_every_bad_end_with_its_place_and_the_next_try() {
    let mut kit = Kit::running(1, 0);
    kit.dies(Who::Worker(1));
    kit.actions();
    kit.handle(Input::Failed(Who::Worker(2), "panicked".to_owned()));
    kit.dies(Who::Worker(2));
    kit.actions();
    let told: Vec<_> = std::mem::take(&mut kit.troubles)
        .into_iter()
        .map(|error| (error.trouble, error.reason, error.restarts, error.retry_in))
        .collect();
    assert_eq!(
        told,
        [
            (
                WorkerTrouble::Ended,
                "signal 11 (SIGSEGV)".to_owned(),
                1,
                Some(Duration::ZERO)
            ),
            (
                WorkerTrouble::NotStarted,
                "panicked".to_owned(),
                1,
                Some(Duration::from_millis(100))
            ),
        ]
    );
    kit.wait(100);
    kit.ready(3);
    kit.reload(1);
    kit.ready(4);
    kit.exits(Who::Worker(3));
    kit.actions();
    assert_eq!(kit.troubles, [], "as asked is no trouble");
}

#[test]
fn who_waits_for_a_reload_hears_of_each_worker() {
    let mut kit = Kit::running(3, 0);
    kit.reload(1);
    kit.reload(2);
    kit.now += Duration::from_millis(7);
    kit.ready(4);
    kit.handle(Input::Failed(Who::Worker(5), "panicked".to_owned()));
    kit.dies(Who::Worker(5));
    kit.actions();
    let starts = |worker, incarnation| Progress::Starts {
        worker: WorkerId(worker),
        incarnation,
    };
    let ended = |worker, outcome, error: Option<&str>| Progress::Ended {
        worker: WorkerId(worker),
        outcome,
        error: error.map(str::to_owned),
        after: Duration::from_millis(7),
    };
    let told = std::mem::take(&mut kit.told);
    assert_eq!(
        told,
        [
            Progress::Begins((0..3).map(WorkerId).collect()),
            starts(0, 4),
            starts(1, 5),
            Progress::Waits,
            ended(0, Replaced, None),
            starts(2, 6),
            ended(1, Failed, Some("panicked")),
        ]
    );
    kit.ready(6);
    kit.actions();
    assert_eq!(kit.told[0], ended(2, Replaced, None));
    let past = kit.places.last_reload().unwrap();
    assert_eq!(
        (past.cause, past.reloaded.took_ms),
        (ReloadCause::Control, 7)
    );
}

#[test]
fn reloads_during_a_reload_become_one_more() {
    let mut kit = Kit::running(1, 1);
    kit.reload(1);
    kit.handle(Input::Reload {
        tasks_only: true,
        cause: ReloadCause::Control,
        request: Some(RequestId(2)),
    });
    kit.reload(3);
    kit.actions();
    kit.ready(3);
    kit.ready(4);
    let actions = kit.actions();
    assert_eq!(outcomes(&actions[2]).0, [1]);
    assert_eq!(
        actions.len(),
        3,
        "the next waits until the old ones are gone: {actions:?}"
    );
    kit.exits(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, false), spawn(0, 5, 2)]);
    kit.exits(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, false), spawn(1, 6, 2)]);
    kit.ready(5);
    kit.ready(6);
    let last = kit.actions().pop().unwrap();
    assert_eq!(outcomes(&last), (vec![2, 3], vec![Replaced; 2], None));
    assert_eq!(kit.places.reloads(), 2);
}

#[test]
fn a_reload_during_the_start_follows_it() {
    let mut kit = Kit::new(1, 0);
    kit.reload(1);
    kit.actions();
    kit.handle(Input::Ready(Who::Master));
    kit.ready(1);
    assert_eq!(kit.actions(), [attach(0, 1), Started, spawn(0, 2, 1)]);
}

#[test]
fn a_crash_during_a_reload_counts_as_the_reload_of_that_place() {
    let mut kit = Kit::running(3, 0);
    kit.reload(1);
    kit.dies(Who::Worker(3));
    assert_eq!(
        kit.actions(),
        [
            spawn(0, 4, 1),
            spawn(1, 5, 1),
            dead(2, 3, true),
            spawn(2, 6, 1)
        ]
    );
    kit.ready(6);
    kit.ready(4);
    kit.ready(5);
    let last = kit.actions().pop().unwrap();
    assert_eq!(outcomes(&last), (vec![1], vec![Replaced; 3], None));
}

#[test]
fn a_crash_while_the_successor_starts_waits_for_it() {
    let mut kit = Kit::running(1, 0);
    kit.reload(1);
    kit.dies(Who::Worker(1));
    assert_eq!(kit.actions(), [spawn(0, 2, 1), dead(0, 1, true)]);
    kit.ready(2);
    let actions = kit.actions();
    assert_eq!(actions[0], attach(0, 2));
    assert_eq!(outcomes(&actions[1]).1, [Replaced]);
}

#[test]
fn a_place_that_lost_both_in_a_reload_is_tried_again() {
    let mut kit = Kit::running(1, 0);
    kit.reload(1);
    kit.dies(Who::Worker(1));
    kit.dies(Who::Worker(2));
    let actions = kit.actions();
    assert_eq!(outcomes(actions.last().unwrap()).1, [Failed]);
    kit.wait(10_000);
    assert_eq!(kit.actions()[0], spawn(0, 3, 0));
}

#[test]
fn the_masters_death_is_mended_and_the_workers_live() {
    let mut kit = Kit::running(2, 0);
    for generation in [1, 2] {
        kit.dies(Who::Master);
        assert_eq!(
            kit.actions(),
            [SpawnMaster { generation }, attach(0, 1), attach(1, 2)]
        );
        assert_eq!(kit.places.master().restarts, generation);
        kit.handle(Input::Ready(Who::Master));
        assert_eq!(kit.actions(), []);
    }

    kit.dies(Who::Master);
    assert_eq!(kit.actions(), [], "the third that died young: later");
    kit.dies(Who::Worker(1));
    kit.ready(3);
    assert_eq!(kit.actions(), [spawn(0, 3, 0)], "nobody to tell");
    kit.wait(100);
    assert_eq!(
        kit.actions(),
        [SpawnMaster { generation: 3 }, attach(0, 3), attach(1, 2)]
    );
}

#[test]
fn retired_workers_are_told_to_exit_when_the_master_dies() {
    let mut kit = Kit::running(1, 0);
    kit.reload(1);
    kit.ready(2);
    kit.actions();
    kit.dies(Who::Master);
    assert_eq!(
        kit.actions(),
        [
            Exit { incarnation: 1 },
            SpawnMaster { generation: 1 },
            attach(0, 2)
        ]
    );
}

#[test]
fn stop_waits_for_the_master_then_tells_the_workers() {
    let mut kit = Kit::running(2, 0);
    kit.handle(Input::Stop);
    assert_eq!(
        kit.actions(),
        [Stop {
            deadline: Duration::from_secs(30)
        }]
    );
    kit.exits(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, false)], "retired by the master");
    kit.handle(Input::Stopped);
    assert_eq!(kit.actions(), [Exit { incarnation: 2 }]);
    kit.exits(Who::Master);
    kit.exits(Who::Worker(2));
    assert_eq!(kit.actions(), [Finished(Ok(()))]);
    assert_eq!(kit.places.poll_timeout(), None);
}

#[test]
fn a_crash_while_the_server_stops_is_mended_because_events_wait() {
    let mut kit = Kit::running(1, 0);
    kit.handle(Input::Stop);
    kit.actions();
    kit.dies(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, true), spawn(0, 2, 0)]);
    kit.ready(2);
    assert_eq!(kit.actions(), [attach(0, 2)]);
    kit.exits(Who::Worker(2));
    kit.exits(Who::Master);
    assert_eq!(kit.actions(), [dead(0, 2, false), Finished(Ok(()))]);
}

#[test]
fn what_does_not_stop_in_time_is_killed() {
    let mut kit = Kit::running(1, 0);
    kit.handle(Input::Stop);
    kit.actions();
    kit.wait(32_000);
    assert_eq!(kit.actions(), [Kill(Who::Master)]);
    kit.dies(Who::Master);
    assert_eq!(kit.actions(), [Exit { incarnation: 1 }]);
    kit.wait(2_000);
    assert_eq!(kit.actions(), [kill(1)]);
    kit.dies(Who::Worker(1));
    assert_eq!(kit.actions(), [Finished(Ok(()))]);
}

#[test]
fn a_second_stop_kills_at_once() {
    let mut kit = Kit::running(1, 1);
    kit.handle(Input::Stop);
    kit.handle(Input::Stop);
    kit.handle(Input::Stop);
    assert_eq!(kit.actions()[1..], [kill(1), kill(2), Kill(Who::Master)]);
    for who in [Who::Worker(1), Who::Worker(2), Who::Master] {
        kit.dies(who);
    }
    assert_eq!(kit.actions().last(), Some(&Finished(Ok(()))));
}

#[test]
fn stop_during_the_start_and_without_a_master_ends_well() {
    let mut kit = Kit::new(1, 0);
    kit.actions();
    kit.handle(Input::Stop);
    assert_eq!(kit.actions(), [kill(1), Kill(Who::Master)]);
    kit.dies(Who::Worker(1));
    kit.dies(Who::Master);
    assert_eq!(kit.actions(), [Finished(Ok(()))]);

    let mut kit = Kit::running(1, 0);
    kit.dies(Who::Master);
    kit.actions();
    kit.handle(Input::Stop);
    assert_eq!(kit.actions(), [Kill(Who::Master), Exit { incarnation: 1 }]);
}

#[test]
fn stop_ends_a_reload_and_tells_whoever_waits() {
    let mut kit = Kit::running(2, 0);
    kit.reload(1);
    kit.reload(2);
    kit.actions();
    kit.handle(Input::Stop);
    kit.reload(3);
    let actions = kit.actions();
    let refusals: Vec<_> = actions
        .iter()
        .filter(|action| matches!(action, Action::Reloaded { .. }))
        .map(|action| (outcomes(action).0, outcomes(action).2))
        .collect();
    let error = Some("the server is stopping");
    assert_eq!(
        refusals,
        [(vec![1], error), (vec![2], error), (vec![3], error)]
    );
    assert!(
        actions.contains(&kill(3)) && actions.contains(&kill(4)),
        "{actions:?}"
    );
}

#[test]
fn a_replacement_waits_until_the_one_before_is_gone() {
    let mut kit = Kit::running(1, 0);
    kit.handle(Input::Retire(1));
    kit.ready(2);
    kit.actions();
    kit.handle(Input::Retire(2));
    kit.wait(1_000);
    assert_eq!(kit.actions(), []);
    kit.exits(Who::Worker(1));
    assert_eq!(kit.actions(), [dead(0, 1, false), spawn(0, 3, 0)]);
}

#[test]
fn in_thread_mode_the_end_of_a_thread_is_that_of_the_server() {
    for who in [Who::Master, Who::Worker(1)] {
        let mut kit = Kit::running_threads(2, Vec::new());
        kit.dies(who);
        let all = [Who::Worker(1), Who::Worker(2), Who::Master];
        let kills: Vec<_> = all
            .into_iter()
            .filter(|other| *other != who)
            .map(Kill)
            .collect();
        let actions = kit.actions();
        assert!(
            kills.iter().all(|kill| actions.contains(kill)),
            "{actions:?}"
        );
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, SpawnMaster { .. } | SpawnWorker { .. }))
        );
        for other in all.into_iter().filter(|other| *other != who) {
            kit.dies(other);
        }
        let Some(Finished(Err(error))) = kit.actions().pop() else {
            panic!("the server goes on");
        };
        assert!(
            error.contains("thread") && error.contains("SIGSEGV"),
            "{error}"
        );
    }
}

#[test]
fn in_thread_mode_a_stop_that_is_out_of_time_leaves_all_behind() {
    let mut kit = Kit::running_threads(1, Vec::new());
    kit.handle(Input::Stop);
    kit.actions();
    kit.now += Duration::from_secs(30) + GRACE;
    kit.places.handle_timeout(kit.now);
    let actions = kit.actions();
    assert!(actions.contains(&Kill(Who::Worker(1))) && actions.contains(&Kill(Who::Master)));
}
