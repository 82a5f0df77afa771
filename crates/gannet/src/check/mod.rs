//! What `check` says of a server that is to be started: its settings, and the machine.
//!
//! [`Findings`] are what was looked at, each with what to do if it is not as it should be. An *error*
//! keeps the server from starting or from working as the settings say, a *warning* from doing so
//! under load. `machine` looks at the kernel's settings and at limits; `server` at what belongs to the
//! server, as the user that it is to run as. Nothing is changed: sockets are bound and closed again,
//! unless a server runs.

mod machine;
mod server;

use std::fmt;

use serde::Serialize;

use self::machine::Machine;
use crate::{Result, Settings, settings::Endpoint};

/// All that was looked at.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// What it is about.
    subject: &'static str,
    /// How it is.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Error,
}

/// Looks at everything. The settings are those of all layers, and were checked.
pub(crate) fn look(settings: &mut Settings, addresses: &[Endpoint]) -> Findings {
    let mut findings = Findings::default();
    let listeners: Vec<_> = settings
        .listeners
        .iter()
        .map(|listener| format!("{}://{}", listener.scheme(), listener.address))
        .collect();
    findings.ok(
        "settings",
        format!(
            "{}; {} workers, {} reactors, {} task workers",
            listeners.join(", "),
            settings.workers,
            settings.reactors,
            settings.task_workers
        ),
    );
    server::look(&mut findings, settings, addresses);
    if let Err(error) = crate::traces::check() {
        findings.refused("traces", &error);
    }
    Machine::here().look(&mut findings, settings);
    findings
}

impl Findings {
    /// What there is to say if the settings themselves are wrong.
    pub(crate) fn of_wrong_settings(error: &crate::Error) -> Self {
        let mut findings = Findings::default();
        findings.refused("settings", error);
        findings
    }

    fn ok(&mut self, subject: &'static str, found: impl Into<String>) {
        self.add(Level::Ok, subject, found.into(), None);
    }

    fn warn(&mut self, subject: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warn, subject, found.into(), Some(advice.into()));
    }

    fn error(
        &mut self,
        subject: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Level::Error, subject, found.into(), Some(advice.into()));
    }

    fn add(&mut self, level: Level, subject: &'static str, found: String, advice: Option<String>) {
        self.findings.push(Finding {
            level,
            subject,
            found,
            advice,
        });
    }

    /// What the start would say, too: it has its advice in it.
    fn refused(&mut self, subject: &'static str, error: &crate::Error) {
        self.add(Level::Error, subject, error.to_string(), None);
    }

    /// How many there are of a level.
    fn count(&self, level: Level) -> usize {
        let of_level = |finding: &&Finding| finding.level == level;
        self.findings.iter().filter(of_level).count()
    }

    /// `Err` with a summary if anything is in the way of a start.
    pub(crate) fn verdict(&self) -> Result {
        match self.count(Level::Error) {
            0 => Ok(()),
            1 => Err(crate::Error::new("one thing is in the way: see above")),
            more => Err(crate::Error::new(format!(
                "{more} things are in the way: see above"
            ))),
        }
    }

    /// As JSON, with the numbers in front.
    pub(crate) fn json(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            errors: usize,
            warnings: usize,
            findings: &'a [Finding],
        }
        Ok(serde_json::to_string(&Whole {
            errors: self.count(Level::Error),
            warnings: self.count(Level::Warn),
            findings: &self.findings,
        })?)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warn => "WARN",
                Level::Error => "ERROR",
            };
            writeln!(f, "{level:<6} {:<16} {}", finding.subject, finding.found)?;
            if let Some(advice) = &finding.advice {
                writeln!(f, "{:<23} do: {advice}", "")?;
            }
        }
        let (errors, warnings) = (self.count(Level::Error), self.count(Level::Warn));
        match (errors, warnings) {
            (0, 0) => write!(f, "all is well"),
            _ => write!(f, "{errors} errors, {warnings} warnings"),
        }
    }
}
