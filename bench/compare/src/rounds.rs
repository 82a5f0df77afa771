//! Measures every server under every load, round after round.
//!
//! Rounds are interleaved: a round measures each server of a scenario once, one after the other, each started
//! anew, and begins with another server than the round before. So what disturbs the machine for a while
//! disturbs all of them, and ratios are taken within a round. Where something happens to the servers, a few are
//! measured a second time in the same round without it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

use crate::{
    load::{self, Amount},
    peers::Peer,
    processors::Stolen,
    results::{Measurement, Outcome, Results, Row},
    scenario::{Disturbance, Scenario},
    server::Server,
    tools::Tools,
};

/// What is to be measured.
pub(crate) struct Plan<'a> {
    pub(crate) scenarios: &'a [Scenario],
    pub(crate) peers: &'a [&'a dyn Peer],
    pub(crate) rounds: usize,
    pub(crate) amount: Amount,
    /// When no further measurement is begun.
    pub(crate) deadline: Option<Instant>,
}

/// Whether all is measured that was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Whole,
    /// The deadline came first.
    Part,
}

/// Measures what `results` do not have yet, and writes them to `path` after each measurement.
pub(crate) fn run(
    plan: &Plan<'_>,
    tools: &Tools,
    results: &mut Results,
    path: &Path,
) -> Result<Progress> {
    for &scenario in plan.scenarios {
        let usual = plan.peers.iter().filter(|peer| peer.can(scenario));
        let undisturbed = plan.peers.iter().filter(|peer| peer.is_control(scenario));
        let mut all: Vec<(&dyn Peer, bool)> = usual.map(|peer| (*peer, false)).collect();
        all.extend(undisturbed.map(|peer| (*peer, true)));
        for round in 1..=plan.rounds {
            for &(peer, undisturbed) in &all {
                let row = Row {
                    peer: peer.name(),
                    undisturbed,
                };
                if results.has(scenario, row, round) {
                    continue;
                }
                if plan.is_late(scenario) {
                    return Ok(Progress::Part);
                }
                let disturbance = scenario.disturbance().filter(|_| !undisturbed);
                let before = Stolen::now();
                let outcome = measure(peer, scenario, disturbance, plan.amount, tools);
                let stolen_percent = Stolen::now().percent_since(before);
                tell(scenario, round, &results.title(row), &outcome);
                results.measurements.push(Measurement {
                    scenario,
                    peer: peer.name().to_owned(),
                    undisturbed,
                    round,
                    stolen_percent: (stolen_percent * 10.0).round() / 10.0,
                    outcome: match outcome {
                        Ok(report) => Outcome::Report(report),
                        Err(error) => Outcome::Failure(format!("{error:#}")),
                    },
                });
                results.write(path)?;
            }
            if !all.is_empty() {
                all.rotate_left(1);
            }
        }
    }
    Ok(Progress::Whole)
}

/// Starts the server, sees that it answers as it should, and measures it.
fn measure(
    peer: &dyn Peer,
    scenario: Scenario,
    disturbance: Option<Disturbance>,
    amount: Amount,
    tools: &Tools,
) -> Result<Value> {
    let server = Server::start(peer, scenario, tools)?;
    let load = |amount| {
        let path = peer.path(scenario);
        load::run(&server, path, scenario, disturbance, amount, tools)
    };
    if scenario.disturbance().is_none() {
        load(Amount::to_verify())?;
    }
    load(amount)
}

fn tell(scenario: Scenario, round: usize, title: &str, outcome: &Result<Value>) {
    let metric = scenario.metric();
    let figure = match outcome {
        Ok(report) => match metric.of(report) {
            Some(figure) => format!("{figure:.2} {}", metric.unit),
            None => "the report lacks the figure".to_owned(),
        },
        Err(error) => format!("{error:#}"),
    };
    eprintln!("{:14} {round}  {:20} {figure}", scenario.name(), title);
}

impl Plan<'_> {
    /// Whether a measurement that begins now would end after the deadline.
    fn is_late(&self, scenario: Scenario) -> bool {
        let once = match scenario {
            Scenario::Idle => Duration::from_secs(25),
            _ => self.amount.warm_up + self.amount.length + Duration::from_secs(3),
        };
        self.deadline
            .is_some_and(|deadline| Instant::now() + once > deadline)
    }
}
