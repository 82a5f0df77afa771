//! `reload`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use serde::Serialize;

use super::{print, seconds};
use crate::{
    Error, Result, Server, WorkerId,
    control::{ControlError, ReloadEvent, ReloadOptions, ReloadOutcome, Reloaded},
};

/// Replace the workers by new processes of the program on disk; no connection drops
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = HELP)]
#[non_exhaustive]
pub struct Reload {
    /// Replace task workers only
    #[arg(long)]
    pub tasks: bool,

    /// Wait for the end no longer than this; the reload goes on all the same
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Say what happens in JSON, one object a line; the last is the outcome
    #[arg(long)]
    pub json: bool,
}

/// What is told of a reload while it runs.
#[derive(Default)]
struct Report {
    json: bool,
    /// Who has not changed yet.
    left: BTreeMap<WorkerId, String>,
    /// Why the last line could not be printed.
    unprinted: Option<Error>,
}

/// The last line of `--json`.
#[derive(Serialize)]
struct Last<'a> {
    reload: &'static str,
    #[serde(flatten)]
    reloaded: &'a Reloaded,
}

impl Reload {
    pub(super) fn run(&self, server: &Server) -> Result {
        let options = ReloadOptions {
            tasks_only: self.tasks,
            timeout: self.timeout,
        };
        let mut report = Report {
            json: self.json,
            ..Report::default()
        };
        let mut client = server.control()?;
        let outcome = client.reload_with(options, |event| report.take(event));
        let reloaded = outcome.map_err(|error| match error.downcast_ref() {
            Some(ControlError::Late) => report.late(),
            _ => error,
        })?;
        report.end(&reloaded)
    }
}

impl Report {
    fn take(&mut self, event: &ReloadEvent) {
        match event {
            ReloadEvent::Begins { workers } => {
                let left = workers.iter().map(|worker| (worker.id, &worker.title));
                self.left = left.map(|(id, title)| (id, title.clone())).collect();
            }
            ReloadEvent::Ended { worker, .. } => drop(self.left.remove(worker)),
            _ => {}
        }
        let line = match self.json {
            true => serde_json::to_string(event).ok(),
            false => in_words(event),
        };
        if let (Some(line), None) = (line, &self.unprinted) {
            self.unprinted = print(&line).err();
        }
    }

    fn late(&self) -> Error {
        if self.left.is_empty() {
            return Error::late("the reload has not begun in time; it goes on");
        }
        let left: Vec<&str> = self.left.values().map(String::as_str).collect();
        let left = left.join(", ");
        Error::late(format!(
            "not yet changed: {left}; the reload goes on (`status` shows how)"
        ))
    }

    fn end(self, reloaded: &Reloaded) -> Result {
        if let Some(error) = self.unprinted {
            return Err(error);
        }
        if self.json {
            let reload = "done";
            print(&serde_json::to_string(&Last { reload, reloaded })?)?;
        }
        if let Some(error) = &reloaded.certificates {
            return Err(Error::new(format!(
                "the certificates stay as they are: {error} (workers: {})",
                reloaded.error.as_deref().unwrap_or("reloaded")
            )));
        }
        match &reloaded.error {
            Some(error) => Err(Error::new(format!("reload aborted: {error}"))),
            None if self.json => Ok(()),
            None => {
                let took = Duration::from_millis(reloaded.took_ms);
                print(&format!(
                    "reloaded {} workers in {took:?}",
                    reloaded.workers.len()
                ))
            }
        }
    }
}

fn in_words(event: &ReloadEvent) -> Option<String> {
    Some(match event {
        ReloadEvent::Waits => "another reload runs: this one begins after it".to_owned(),
        ReloadEvent::Begins { workers } => format!("reload of {} workers begins", workers.len()),
        ReloadEvent::Starts { title, pid, .. } => match pid {
            Some(pid) => format!("{title}: its successor starts (pid {pid})"),
            None => format!("{title}: its successor starts"),
        },
        ReloadEvent::Ended {
            title,
            outcome,
            error,
            after_ms,
            ..
        } => {
            let after = Duration::from_millis(*after_ms);
            match (outcome, error) {
                (ReloadOutcome::Replaced, _) => format!("{title}: replaced after {after:?}"),
                (ReloadOutcome::Failed, Some(error)) => format!("{title}: failed: {error}"),
                (ReloadOutcome::Failed, None) => format!("{title}: failed"),
                (ReloadOutcome::Kept, _) => format!("{title}: kept"),
            }
        }
        ReloadEvent::Other => return None,
    })
}

const HELP: &str = "\
Exit code: 0 if all have changed; 1 if the reload was aborted, with the reason; 3 if it took longer
than --timeout, with the names of those that have not changed.

Examples:
  {name} reload
  {name} reload --timeout 60
  {name} reload --tasks --json";
