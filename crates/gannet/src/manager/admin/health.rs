//! Whether the server lives, and whether it can serve.
//!
//! *Healthy*: the manager answers, and the master does. A reactor turns at least every 50 ms; one
//! that was seen at the same turn for [`STUCK`] does not answer. Turns are looked at when somebody asks.
//!
//! *Ready*: the master and a process for each worker and task worker are ready, and the server does
//! not stop. At a reload the old processes are ready until the new ones are. User processes do
//! not count: clients are served without them, and at their reload there is none for a moment.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use crate::{
    control::{Role, WorkerState},
    layout::ReactorCounter,
    manager::{
        places::{State, Who},
        report::Report,
    },
};

/// By reactor: the turn that it was seen at, and when first.
#[derive(Debug, Default)]
pub(super) struct Health {
    turns: Vec<(u64, Instant)>,
}

impl Health {
    /// Why the server is not healthy; empty if it is.
    pub(super) fn problems(&mut self, report: &Report<'_>) -> Vec<String> {
        if !has_master(report) {
            // The next begins anew.
            self.turns.clear();
            return vec!["the master is not there: it starts, or is being restarted".to_owned()];
        }
        let turns = reactors(report);
        self.turns_problems(&turns, report.now)
    }

    fn turns_problems(&mut self, turns: &[u64], now: Instant) -> Vec<String> {
        self.turns.resize(turns.len(), (u64::MAX, now));
        let seen = self.turns.iter_mut().zip(turns).enumerate();
        seen.filter_map(|(reactor, (seen, &turn))| {
            if seen.0 != turn {
                *seen = (turn, now);
            }
            let stuck = now.saturating_duration_since(seen.1);
            (stuck >= STUCK)
                .then(|| format!("reactor {reactor} has not turned for {} s", stuck.as_secs()))
        })
        .collect()
    }
}

/// Why the server is not ready; empty if it is.
pub(super) fn unready(report: &Report<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if report.places.is_stopping() {
        problems.push("the server is stopping".to_owned());
    }
    if !has_master(report) {
        problems.push("the master is not ready".to_owned());
    }
    let rows = report.workers(&report.sample(), false);
    for place in report.places.places() {
        let is_ready = rows
            .iter()
            .any(|row| row.id == place.id && row.state == WorkerState::Ready);
        if place.kind != Role::Process && !is_ready {
            problems.push(format!("{} is not ready", place.title()));
        }
    }
    problems
}

fn has_master(report: &Report<'_>) -> bool {
    report.places.master().state() == Some(State::Ready)
        && report.children.pid(Who::Master).is_some()
}

/// The turns of each reactor.
fn reactors(report: &Report<'_>) -> Vec<u64> {
    let spawner = report.spawner;
    let at = |reactor| spawner.dimensions.reactor_counters(reactor) + 8 * TURNS;
    (0..spawner.dimensions.reactors)
        .map(|reactor| spawner.control.word(at(reactor)).load(Relaxed))
        .collect()
}

const TURNS: usize = ReactorCounter::Turns as usize;
/// How long a reactor may be at one turn.
const STUCK: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reactor_that_does_not_turn_is_noticed() {
        let mut health = Health::default();
        let start = Instant::now();
        let mut look = |seconds, turns: &[u64]| {
            health.turns_problems(turns, start + Duration::from_secs(seconds))
        };
        assert!(look(0, &[5, 9]).is_empty());
        assert!(look(9, &[5, 10]).is_empty());
        assert_eq!(look(12, &[5, 11]), ["reactor 0 has not turned for 12 s"]);
        assert!(look(13, &[6, 12]).is_empty());
        assert!(look(22, &[6, 13]).is_empty());
        assert_eq!(look(60, &[6, 13]).len(), 2);
    }
}
