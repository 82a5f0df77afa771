//! Measures every server under every load, round after round.
//!
//! Rounds are interleaved: a round measures each server of a scenario once, one after the other, each started
//! anew, and begins with another server than the round before. So what disturbs the machine for a while
//! disturbs all of them, and ratios are taken within a round.

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
    results::{Measurement, Outcome, Results},
    scenario::Scenario,
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
        let mut peers: Vec<_> = plan
            .peers
            .iter()
            .filter(|peer| peer.can(scenario))
            .collect();
        for round in 1..=plan.rounds {
            for peer in &peers {
                if results.has(scenario, peer.name(), round) {
                    continue;
                }
                if plan.is_late(scenario) {
                    return Ok(Progress::Part);
                }
                let before = Stolen::now();
                let outcome = measure(**peer, scenario, plan.amount, tools);
                let stolen_percent = Stolen::now().percent_since(before);
                tell(scenario, round, **peer, &outcome);
                results.measurements.push(Measurement {
                    scenario,
                    peer: peer.name().to_owned(),
                    round,
                    stolen_percent: (stolen_percent * 10.0).round() / 10.0,
                    outcome: match outcome {
                        Ok(report) => Outcome::Report(report),
                        Err(error) => Outcome::Failure(format!("{error:#}")),
                    },
                });
                results.write(path)?;
            }
            if !peers.is_empty() {
                peers.rotate_left(1);
            }
        }
    }
    Ok(Progress::Whole)
}

/// Starts the server, sees that it answers as it should, and measures it.
fn measure(peer: &dyn Peer, scenario: Scenario, amount: Amount, tools: &Tools) -> Result<Value> {
    let server = Server::start(peer, scenario, tools)?;
    let load = |amount| load::run(&server, peer.path(scenario), scenario, amount, tools);
    if scenario.disturbance().is_none() {
        load(Amount::to_verify())?;
    }
    load(amount)
}

fn tell(scenario: Scenario, round: usize, peer: &dyn Peer, outcome: &Result<Value>) {
    let metric = scenario.metric();
    let figure = match outcome {
        Ok(report) => match metric.of(report) {
            Some(figure) => format!("{figure:.2} {}", metric.unit),
            None => "the report lacks the figure".to_owned(),
        },
        Err(error) => format!("{error:#}"),
    };
    eprintln!(
        "{:14} {round}  {:20} {figure}",
        scenario.name(),
        peer.title()
    );
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
