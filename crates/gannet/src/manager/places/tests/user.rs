//! User processes: every transition of their places.

use super::*;
use crate::process::{ProcessOptions, Restart};

impl Kit {
    /// One worker (incarnation 1) and one user process (2), which runs.
    fn with_process(restart: Restart) -> Self {
        let mut kit = Kit::before_start(restart);
        kit.handle(Input::Ready(Who::Master));
        kit.ready(1);
        kit.handle(Input::Ready(Who::Worker(2)));
        assert_eq!(
            kit.actions()[4..],
            [Started, attach(1, 2), Begin { incarnation: 2 }]
        );
        kit.handle(Input::Attached(2));
        kit
    }

    fn before_start(restart: Restart) -> Self {
        let options = ProcessOptions::new().restart(restart);
        let spec = ProcessSpec::new("feed".to_owned(), options);
        Kit::with(1, 0, vec![spec])
    }

    /// It says that it could begin.
    fn stands_by(&mut self, incarnation: u64) {
        self.handle(Input::Ready(Who::Worker(incarnation)));
    }

    /// A reload whose step of the worker is done; the process's successor is incarnation 4.
    fn reload_up_to_process(&mut self) {
        self.reload(1);
        assert_eq!(self.actions(), [spawn(0, 3, 1), spawn(1, 4, 1)]);
        self.ready(3);
        self.exits(Who::Worker(1));
        assert_eq!(self.actions(), [attach(0, 3), dead(0, 1, false)]);
    }
}

fn begin(incarnation: u64) -> Action {
    Begin { incarnation }
}

fn ask(incarnation: u64) -> Action {
    AskToStop { incarnation }
}

#[test]
fn a_process_begins_when_the_server_runs_not_before() {
    let mut kit = Kit::before_start(Restart::Always);
    kit.stands_by(2);
    kit.handle(Input::Ready(Who::Master));
    assert_eq!(
        kit.actions(),
        [
            SpawnMaster { generation: 0 },
            spawn(0, 1, 0),
            spawn(1, 2, 0)
        ]
    );
    kit.wait(60_000);
    assert_eq!(kit.actions(), [kill(1)], "to stand by has no deadline");
}

#[test]
fn a_process_that_does_not_come_to_stand_by_fails_the_start() {
    let mut kit = Kit::before_start(Restart::Never);
    kit.handle(Input::Failed(Who::Worker(2), "no such process".to_owned()));
    kit.exits(Who::Worker(2));
    kit.exits(Who::Worker(1));
    kit.exits(Who::Master);
    let why = "process feed did not start: no such process".to_owned();
    assert_eq!(kit.actions().last(), Some(&Finished(Err(why))));
}

#[test]
fn a_process_that_dies_standing_by_fails_the_start() {
    let mut kit = Kit::before_start(Restart::Never);
    kit.stands_by(2);
    kit.dies(Who::Worker(2));
    kit.exits(Who::Worker(1));
    kit.exits(Who::Master);
    assert!(matches!(kit.actions().last(), Some(Finished(Err(why))) if why.contains("SIGSEGV")));
}

#[test]
fn a_failed_process_is_restarted_and_gets_what_it_left() {
    for restart in [Restart::Always, Restart::OnFailure] {
        let mut kit = Kit::with_process(restart);
        kit.wait(20_000);
        kit.dies(Who::Worker(2));
        assert_eq!(kit.actions(), [dead(1, 2, true), spawn(1, 3, 0)]);
        kit.stands_by(3);
        assert_eq!(kit.actions(), [attach(1, 3), begin(3)]);
        assert_eq!(kit.places.places()[1].restarts, 1);
    }
}

#[test]
fn a_process_that_returns_is_restarted_only_if_always() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.exits(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, true), spawn(1, 3, 0)]);

    for restart in [Restart::OnFailure, Restart::Never] {
        let mut kit = Kit::with_process(restart);
        kit.exits(Who::Worker(2));
        assert_eq!(kit.actions(), [dead(1, 2, true)]);
        kit.wait(60_000);
        assert_eq!(kit.actions(), []);
        assert!(kit.places.places()[1].has_ended());
        assert_eq!(kit.places.places()[1].restarts, 0);
    }
}

#[test]
fn a_process_that_runs_once_is_not_restarted_after_a_crash() {
    let mut kit = Kit::with_process(Restart::Never);
    kit.dies(Who::Worker(2));
    kit.wait(60_000);
    assert_eq!(kit.actions(), [dead(1, 2, true)]);
    let place = &kit.places.places()[1];
    assert!(place.has_ended());
    assert_eq!(place.last_exit.as_deref(), Some("signal 11 (SIGSEGV)"));
}

#[test]
fn a_crash_loop_backs_off_to_ten_seconds() {
    let mut kit = Kit::with_process(Restart::Always);
    for delay in [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        let holder = kit.places.next_incarnation - 1;
        kit.dies(Who::Worker(holder));
        if delay > 0 {
            kit.wait(delay - 1);
            assert_eq!(kit.actions(), [dead(1, holder, true)], "{delay}");
            kit.wait(1);
            assert_eq!(kit.actions(), [spawn(1, holder + 1, 0)]);
        } else {
            kit.actions();
        }
        kit.stands_by(holder + 1);
        assert_eq!(kit.actions(), [attach(1, holder + 1), begin(holder + 1)]);
    }
}

#[test]
fn at_a_reload_the_old_one_is_gone_before_the_new_one_begins() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.reload_up_to_process();
    kit.stands_by(4);
    assert_eq!(kit.actions(), [ask(2)]);
    kit.wait(29_999);
    assert_eq!(kit.actions(), []);
    kit.exits(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, false), attach(1, 4), begin(4)]);
    kit.handle(Input::Attached(4));
    let actions = kit.actions();
    assert_eq!(
        outcomes(&actions[0]),
        (vec![1], vec![Replaced, Replaced], None)
    );
    assert_eq!(kit.places.places()[1].restarts, 0);
    assert_eq!(kit.places.places()[1].generation(), 1);
}

#[test]
fn a_process_that_does_not_stop_in_time_is_killed_without_blame() {
    let mut kit = Kit::with_process(Restart::Never);
    kit.reload_up_to_process();
    kit.stands_by(4);
    kit.actions();
    kit.wait(30_000);
    assert_eq!(kit.actions(), [kill(2)]);
    kit.dies(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, false), attach(1, 4), begin(4)]);
}

#[test]
fn a_new_program_that_does_not_start_leaves_the_old_process_running() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.reload_up_to_process();
    kit.dies(Who::Worker(4));
    let actions = kit.actions();
    let (_, all, error) = outcomes(&actions[0]);
    assert_eq!(all, [Replaced, Failed]);
    assert!(error.is_some());
    assert_eq!(kit.places.places()[1].holder, Some(2));
    kit.wait(60_000);
    assert_eq!(kit.actions(), []);
}

#[test]
fn a_successor_that_dies_while_the_old_one_stops_is_replaced() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.reload_up_to_process();
    kit.stands_by(4);
    kit.dies(Who::Worker(4));
    let actions = kit.actions();
    // Another stands by, and still waits for the old one.
    assert_eq!(actions[..2], [ask(2), spawn(1, 5, 0)]);
    assert_eq!(outcomes(&actions[2]).1, [Replaced, Failed]);
    kit.stands_by(5);
    assert_eq!(kit.actions(), []);
    kit.exits(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, false), attach(1, 5), begin(5)]);
}

#[test]
fn a_crash_during_a_reload_lets_the_new_one_begin_at_once() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.reload_up_to_process();
    kit.dies(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, true)], "one starts already");
    kit.stands_by(4);
    assert_eq!(kit.actions(), [attach(1, 4), begin(4)]);
}

#[test]
fn a_process_that_ends_for_good_during_a_reload_is_not_followed() {
    let mut kit = Kit::with_process(Restart::OnFailure);
    kit.reload_up_to_process();
    kit.exits(Who::Worker(2));
    let actions = kit.actions();
    assert_eq!(actions[..2], [dead(1, 2, true), kill(4)]);
    assert_eq!(outcomes(&actions[2]).1, [Replaced, Kept]);
    kit.dies(Who::Worker(4));
    kit.wait(60_000);
    assert_eq!(kit.actions(), []);
}

#[test]
fn a_process_that_has_ended_is_left_out_of_reloads() {
    let mut kit = Kit::with_process(Restart::Never);
    kit.exits(Who::Worker(2));
    kit.actions();
    kit.reload(1);
    assert_eq!(kit.actions(), [spawn(0, 3, 1)]);
    kit.ready(3);
    assert_eq!(outcomes(&kit.actions()[1]).1, [Replaced]);
}

#[test]
fn a_reload_of_tasks_leaves_processes_alone() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.handle(Input::Reload {
        tasks_only: true,
        cause: ReloadCause::Control,
        request: None,
    });
    assert_eq!(kit.actions().len(), 1, "the end of the reload");
}

#[test]
fn a_stop_tells_processes_at_once_and_does_not_restart_them() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.handle(Input::Stop);
    let deadline = Duration::from_secs(30);
    assert_eq!(kit.actions(), [ask(2), Stop { deadline }]);
    kit.exits(Who::Worker(2));
    assert_eq!(kit.actions(), [dead(1, 2, false)]);
    kit.handle(Input::Stopped);
    kit.exits(Who::Worker(1));
    kit.exits(Who::Master);
    assert_eq!(kit.actions().last(), Some(&Finished(Ok(()))));
}

#[test]
fn a_process_that_crashes_while_the_server_stops_is_not_followed() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.handle(Input::Stop);
    kit.actions();
    kit.dies(Who::Worker(2));
    kit.wait(1_000);
    assert_eq!(kit.actions(), [dead(1, 2, true)]);
}

#[test]
fn a_process_that_does_not_hear_the_stop_is_killed() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.handle(Input::Stop);
    kit.actions();
    kit.handle(Input::Stopped);
    kit.exits(Who::Worker(1));
    kit.exits(Who::Master);
    kit.actions();
    kit.wait(30_000);
    assert_eq!(kit.actions()[..1], [kill(2)]);
    kit.dies(Who::Worker(2));
    assert_eq!(kit.actions().last(), Some(&Finished(Ok(()))));
}

#[test]
fn a_successor_that_stands_by_is_not_wanted_at_a_stop() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.reload_up_to_process();
    kit.stands_by(4);
    kit.actions();
    kit.handle(Input::Stop);
    let actions = kit.actions();
    assert!(actions.contains(&kill(4)), "{actions:?}");
    assert!(!actions.contains(&ask(2)), "it was asked before");
    kit.dies(Who::Worker(4));
    kit.exits(Who::Worker(2));
    kit.wait(1_000);
    assert!(
        !kit.actions()
            .iter()
            .any(|action| matches!(action, SpawnWorker { .. } | Begin { .. }))
    );
}

#[test]
fn a_new_master_is_told_of_the_process_that_runs_only() {
    let mut kit = Kit::with_process(Restart::Always);
    kit.reload_up_to_process();
    kit.dies(Who::Master);
    assert_eq!(
        kit.actions(),
        [SpawnMaster { generation: 1 }, attach(0, 3), attach(1, 2)]
    );
    kit.stands_by(4);
    kit.exits(Who::Worker(2));
    assert_eq!(
        kit.actions(),
        [ask(2), dead(1, 2, false), attach(1, 4), begin(4)]
    );
}
