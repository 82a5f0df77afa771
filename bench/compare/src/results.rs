//! What was measured, as it is kept in a file: raw reports of the generator, and all that is needed to read
//! them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    scenario::Scenario,
    statistics::{Figures, figures},
};

/// All of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The day it began, UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    /// Length of one measurement.
    pub(crate) seconds: f64,
    /// In the order of the tables.
    pub(crate) peers: Vec<PeerInfo>,
    pub(crate) measurements: Vec<Measurement>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// What of cargo's profile the environment changed; usually nothing.
    pub(crate) profile: Vec<String>,
}

/// A server that was to be measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PeerInfo {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) found: Found,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
    Version(String),
    /// Why it was not measured.
    Missing(String),
}

/// One server under one load, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) scenario: Scenario,
    pub(crate) peer: String,
    /// Whether nothing happened to it in a scenario in which something happens to the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) undisturbed: bool,
    pub(crate) round: usize,
    /// Share of the machine's processors that other guests of the host took meanwhile.
    pub(crate) stolen_percent: f64,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// What the generator said.
    Report(Value),
    /// Why there is no report.
    Failure(String),
}

/// A server as a scenario measures it: a row of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) peer: &'a str,
    /// Nothing happens to it, for comparison with those to whom something does.
    pub(crate) undisturbed: bool,
}

/// Which figure of a report.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measured<'a> {
    /// The one that the scenario is about.
    Headline,
    /// The one at this JSON pointer.
    At(&'a str),
}

impl Results {
    pub(crate) fn new(seconds: f64) -> Self {
        Results {
            date: time::OffsetDateTime::now_utc().date().to_string(),
            machine: Machine::this(),
            seconds,
            peers: Vec::new(),
            measurements: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("read the results in {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a file of results", path.display()))
    }

    /// Writes them beside the file first, so that an interruption leaves the old ones.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let part = path.with_extension("json.part");
        let write = || {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(&part, text)?;
            fs::rename(&part, path)
        };
        write().with_context(|| format!("write the results to {}", path.display()))
    }

    /// Puts what is known of a server in place of what was known before.
    pub(crate) fn know(&mut self, info: PeerInfo) {
        match self.peers.iter_mut().find(|peer| peer.name == info.name) {
            // What it could be measured with once stays.
            Some(PeerInfo {
                found: Found::Version(_),
                ..
            }) if matches!(info.found, Found::Missing(_)) => {}
            Some(known) => *known = info,
            None => self.peers.push(info),
        }
    }

    /// The servers of which a scenario has a figure, in the order of the tables: those that it is about, then
    /// those to whom nothing happened.
    pub(crate) fn rows(&self, scenario: Scenario) -> impl Iterator<Item = Row<'_>> {
        let rows = |undisturbed| {
            self.peers.iter().map(move |peer| Row {
                peer: &peer.name,
                undisturbed,
            })
        };
        let all = rows(false).chain(rows(true));
        all.filter(move |&row| self.headline(scenario, row).is_some())
    }

    /// What a row is called.
    pub(crate) fn title(&self, row: Row<'_>) -> String {
        let info = self.peers.iter().find(|peer| peer.name == row.peer);
        let title = info.map_or(row.peer, |info| info.title.as_str());
        match row.undisturbed {
            true => format!("{title}, undisturbed"),
            false => title.to_owned(),
        }
    }

    pub(crate) fn has(&self, scenario: Scenario, row: Row<'_>, round: usize) -> bool {
        self.of(scenario, row).any(|one| one.round == round)
    }

    pub(crate) fn rounds(&self, scenario: Scenario) -> usize {
        let rounds = self
            .measurements
            .iter()
            .filter(|one| one.scenario == scenario);
        rounds.map(|one| one.round).max().unwrap_or(0)
    }

    fn of(&self, scenario: Scenario, row: Row<'_>) -> impl Iterator<Item = &Measurement> {
        self.measurements.iter().filter(move |one| {
            one.scenario == scenario && one.peer == row.peer && one.undisturbed == row.undisturbed
        })
    }

    /// Reports that count: those of measurements that came to their end.
    fn reports(&self, scenario: Scenario, row: Row<'_>) -> impl Iterator<Item = (usize, &Value)> {
        self.of(scenario, row).filter_map(|one| match &one.outcome {
            Outcome::Report(report) => Some((one.round, report)),
            Outcome::Failure(_) => None,
        })
    }

    /// Why there is no figure of this server.
    pub(crate) fn failure(&self, scenario: Scenario, row: Row<'_>) -> Option<&str> {
        self.of(scenario, row).find_map(|one| match &one.outcome {
            Outcome::Failure(why) => Some(why.as_str()),
            Outcome::Report(_) => None,
        })
    }

    /// What the rounds gave.
    pub(crate) fn figures(
        &self,
        scenario: Scenario,
        row: Row<'_>,
        what: Measured<'_>,
    ) -> Option<Figures> {
        let reports = self.reports(scenario, row);
        figures(reports.filter_map(|(_, report)| what.of(scenario, report)))
    }

    /// The same of the scenario's own figure.
    pub(crate) fn headline(&self, scenario: Scenario, row: Row<'_>) -> Option<Figures> {
        self.figures(scenario, row, Measured::Headline)
    }

    /// How many times the figure of `of` that of `row` is, by rounds in which there are both.
    pub(crate) fn ratio(
        &self,
        scenario: Scenario,
        row: Row<'_>,
        of: Row<'_>,
        what: Measured<'_>,
    ) -> Option<Figures> {
        let ratios = self.reports(scenario, row).filter_map(|(round, report)| {
            let (_, other) = self
                .reports(scenario, of)
                .find(|(other, _)| *other == round)?;
            Some(what.of(scenario, report)? / what.of(scenario, other)?)
        });
        figures(ratios.filter(|ratio| ratio.is_finite()))
    }

    /// Part of one processor that the server used.
    pub(crate) fn server_busy(&self, scenario: Scenario, row: Row<'_>) -> Option<f64> {
        let busy = |report: &Value| {
            let used = report.pointer("/server/cpu_us")?.as_f64()?;
            Some(used / 1e6 / report.pointer("/seconds")?.as_f64()?)
        };
        let reports = self.reports(scenario, row);
        Some(figures(reports.filter_map(|(_, report)| busy(report)))?.median)
    }

    /// The median share of the machine that was taken by others.
    pub(crate) fn stolen(&self) -> Option<Figures> {
        figures(self.measurements.iter().map(|one| one.stolen_percent))
    }
}

impl<'a> From<&'a str> for Row<'a> {
    /// As the scenario is meant.
    fn from(peer: &'a str) -> Self {
        Row {
            peer,
            undisturbed: false,
        }
    }
}

impl Measured<'_> {
    fn of(self, scenario: Scenario, report: &Value) -> Option<f64> {
        match self {
            Measured::Headline => scenario.metric().of(report),
            Measured::At(pointer) => report.pointer(pointer)?.as_f64(),
        }
    }
}

impl Machine {
    fn this() -> Self {
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let memory = memory
            .split(' ')
            .next()
            .and_then(|kib| kib.parse::<u64>().ok());
        let rustc = Command::new("rustc").arg("--version").output();
        let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let mut profile: Vec<_> = std::env::vars()
            .filter(|(name, _)| name.starts_with("CARGO_PROFILE_RELEASE_"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        profile.sort_unstable();
        Machine {
            processor: field("/proc/cpuinfo", "model name"),
            processors: fs::read_to_string("/proc/cpuinfo").map_or(0, |text| {
                text.lines()
                    .filter(|line| line.starts_with("processor"))
                    .count()
            }),
            memory_gib: (memory.unwrap_or(0) + (1 << 19)) >> 20,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or(String::new(), |text| text.trim().to_owned()),
            rustc: rustc.unwrap_or_default(),
            profile,
        }
    }
}
