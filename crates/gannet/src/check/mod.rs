//! What `check` says of a server that is to be started: its settings, and the machine.
//!
//! [`Findings`] are what was looked at, each with what to do if it is not as it should be. An *error*
//! keeps the server from starting or from working as the settings say, a *warning* from doing so
//! under load. `machine` looks at the kernel's settings and at limits; this module at what belongs to
//! the server. Nothing is changed: sockets are bound and closed again, unless a server runs.

mod machine;

use std::{fmt, io, path::Path};

use serde::Serialize;

use self::machine::Machine;
use crate::{Result, Settings, account::Rights, control::Client, manager, settings, tls::Material};

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
pub(crate) fn look(settings: &Settings, addresses: &[settings::Endpoint]) -> Findings {
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
    user(&mut findings, settings);
    certificates(&mut findings, settings);
    let runs = running(&mut findings, settings);
    log_file(&mut findings, settings);
    if let Err(error) = crate::traces::check() {
        findings.refused("traces", &error);
    }
    match runs {
        true => findings.ok(
            "addresses",
            "not tried out: the running server has them".to_owned(),
        ),
        false => bind(&mut findings, settings, addresses),
    }
    Machine::here().look(&mut findings, settings);
    findings
}

impl Findings {
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

fn user(findings: &mut Findings, settings: &Settings) {
    match Rights::wanted(settings) {
        Ok(rights) => {
            let name = rights.user().map_or_else(
                || {
                    format!(
                        "as who starts it (uid {})",
                        rustix::process::geteuid().as_raw()
                    )
                },
                |user| format!("as {user}"),
            );
            findings.ok("user", format!("the server runs {name}"));
        }
        Err(error) => findings.refused("user", &error),
    }
}

fn certificates(findings: &mut Findings, settings: &Settings) {
    let with_tls = settings
        .listeners
        .iter()
        .filter(|listener| listener.tls.is_some());
    match (with_tls.count(), Material::read(settings)) {
        (0, _) => {}
        (count, Ok(_)) => findings.ok("certificates", format!("good, for {count} listeners")),
        (_, Err(error)) => findings.refused("certificates", &error),
    }
}

/// Whether a server with this pid file runs.
fn running(findings: &mut Findings, settings: &Settings) -> bool {
    let path = match settings::pid_file(settings) {
        Ok(path) => path,
        Err(error) => {
            findings.refused("pid file", &error);
            return false;
        }
    };
    let shown = path.display();
    if let Ok(status) = Client::connect(&path).and_then(|mut client| client.status()) {
        let pid = status.manager_pid;
        findings.ok(
            "pid file",
            format!("{shown}: the server runs, with pid {pid}"),
        );
        return true;
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    match writable(directory) {
        Ok(()) => findings.ok("pid file", format!("{shown}: no server runs")),
        Err(error) => findings.error(
            "pid file",
            format!("{shown} cannot be made: {error}"),
            format!(
                "make the directory {} for the user who starts the server, or choose another place \
                 with --pid-file",
                directory.display()
            ),
        ),
    }
    false
}

fn log_file(findings: &mut Findings, settings: &Settings) {
    let Some(path) = &settings.log_file else {
        findings.ok("log", "to standard error");
        return;
    };
    let shown = path.display();
    let place = match path.exists() {
        true => path.as_path(),
        false => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        },
    };
    match writable(place) {
        Ok(()) => findings.ok("log", format!("to {shown}")),
        Err(error) => findings.error(
            "log",
            format!("{shown} cannot be written: {error}"),
            format!("let the server's user write {}", place.display()),
        ),
    }
}

/// Whether this process may write there; for a directory, make files in it.
fn writable(path: &Path) -> io::Result<()> {
    let access = rustix::fs::Access::WRITE_OK;
    let flags = rustix::fs::AtFlags::EACCESS;
    Ok(rustix::fs::accessat(rustix::fs::CWD, path, access, flags)?)
}

/// Binds what the server would listen on, and lets go of it again.
fn bind(findings: &mut Findings, settings: &Settings, addresses: &[settings::Endpoint]) {
    match manager::try_to_listen(settings, addresses) {
        Ok(()) => findings.ok("addresses", "free"),
        Err(error) => findings.refused("addresses", &error),
    }
}
