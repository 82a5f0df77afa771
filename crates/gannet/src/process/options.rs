//! What is said of a user process before it runs: its name, when it is restarted, where its output
//! goes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Settings, WorkerId};

/// When a process that ended by itself is started again.
///
/// It says nothing of a process that was asked to end: by a reload, which always starts the next
/// one, or by a stop, which never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Restart {
    /// However it ended. The default.
    #[default]
    Always,
    /// When it failed: an error, a panic, a signal, an exit code other than 0. A function that
    /// returns `Ok` has done its work.
    OnFailure,
    /// Never: it runs once.
    Never,
}

impl Restart {
    /// Whether a process that ended by itself stays so.
    pub(crate) fn is_over(self, clean: bool) -> bool {
        match self {
            Restart::Always => false,
            Restart::OnFailure => clean,
            Restart::Never => true,
        }
    }
}

/// Where a user process's standard output or standard error goes.
///
/// Whatever it is, it takes in what programs write that the process starts, too, and what was written
/// just before a crash.
///
/// What is redirected goes line by line. A line longer than 8 KiB is cut into pieces of that
/// length. For a process or worker the manager takes at most 256 KiB a second of each output, on
/// average; the pipe to it holds 64 KiB more, then the process waits in its `write`. Nothing is dropped
/// on this way. Lines for the log are dropped and counted when that cannot be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Output {
    /// To wherever the server's goes, which may be the log: see
    /// [`Settings::capture_output`](crate::Settings::capture_output). The default.
    #[default]
    Inherit,
    /// Into the server's log, each line with the process's name: `info` for standard output,
    /// `warn` for standard error.
    Log,
    /// To a user process, by its name: each line is a [`ProcessMessage`](crate::ProcessMessage),
    /// without the end of line. If the receiver is behind by `max_parked`, lines are dropped,
    /// logged and counted, as pipe messages are.
    ToProcess(String),
    /// To a worker or task worker: each line, without the end of line, is a call of
    /// [`Handler::pipe_message`](crate::Handler::pipe_message). Limited as
    /// [`Output::ToProcess`] is.
    ToWorker(WorkerId),
}

/// How [`Server::add_process`](crate::Server::add_process) is to run a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct ProcessOptions {
    restart: Restart,
    output: Output,
    errors: Output,
}

impl ProcessOptions {
    /// Restarted always, output where the server's goes.
    pub fn new() -> Self {
        ProcessOptions::default()
    }

    /// When it is started again after it has ended by itself. Default: [`Restart::Always`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Where its standard output goes. Default: [`Output::Inherit`].
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Where its standard error goes. Default: [`Output::Inherit`].
    ///
    /// What the process logs does not go this way, but into the log.
    pub fn errors(mut self, errors: Output) -> Self {
        self.errors = errors;
        self
    }
}

impl From<Restart> for ProcessOptions {
    fn from(restart: Restart) -> Self {
        ProcessOptions::new().restart(restart)
    }
}

/// A user process of a server, as every process of the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessSpec {
    pub(crate) name: String,
    options: ProcessOptions,
}

impl ProcessSpec {
    pub(crate) fn new(name: String, options: ProcessOptions) -> Self {
        ProcessSpec { name, options }
    }

    pub(crate) fn restart(&self) -> Restart {
        self.options.restart
    }

    /// Of standard output and standard error.
    pub(crate) fn outputs(&self) -> [&Output; 2] {
        [&self.options.output, &self.options.errors]
    }
}

/// Refuses processes that cannot be told apart, and outputs that lead nowhere.
pub(crate) fn check(settings: &Settings) -> Result {
    let mut names = BTreeSet::new();
    if settings.processes.len() > MOST {
        return Err(Error::usage(format!(
            "{} user processes: at most {MOST} can be added",
            settings.processes.len()
        )));
    }
    for spec in &settings.processes {
        check_name("process", &spec.name)?;
        if !names.insert(&spec.name) {
            return Err(Error::usage(format!(
                "the process `{}` was added twice: each needs a name of its own",
                spec.name
            )));
        }
    }
    for (index, spec) in settings.processes.iter().enumerate() {
        for output in spec.outputs() {
            let Some(to) = target(settings, output).map_err(|why| {
                Error::usage(format!("an output of the process `{}`: {why}", spec.name))
            })?
            else {
                continue;
            };
            if usize::from(to.0) == settings.first_process() + index {
                return Err(Error::usage(format!(
                    "an output of the process `{}` leads to itself: it would wait for itself",
                    spec.name
                )));
            }
        }
    }
    Ok(())
}

/// The place that gets the lines of an output; `None` if none does.
pub(crate) fn target(settings: &Settings, output: &Output) -> Result<Option<WorkerId>> {
    match output {
        Output::Inherit | Output::Log => Ok(None),
        Output::ToProcess(name) => settings.process(name).map(Some),
        Output::ToWorker(id) if usize::from(id.0) < settings.first_process() => Ok(Some(*id)),
        Output::ToWorker(id) => Err(Error::new(format!(
            "there is no worker {id}: workers and task workers are 0 to {}",
            settings.first_process() - 1
        ))),
    }
}

/// Names stand in `ps`, `status`, log lines and error texts.
pub(crate) fn check_name(what: &str, name: &str) -> Result {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
        return Err(Error::usage(format!(
            "{name:?} is no name for a {what}: 1 to {LONGEST_NAME} letters, digits, `-`, `_` and \
             `.`, please"
        )));
    }
    Ok(())
}

impl Settings {
    /// Workers, task workers and user processes.
    pub(crate) fn places(&self) -> usize {
        self.first_process() + self.processes.len()
    }

    /// Number of the first user process.
    pub(crate) fn first_process(&self) -> usize {
        self.workers + self.task_workers
    }

    /// Number of a user process.
    pub(crate) fn process(&self, name: &str) -> Result<WorkerId> {
        let index = self.processes.iter().position(|spec| spec.name == name);
        index
            .map(|index| WorkerId((self.first_process() + index) as u16))
            .ok_or_else(|| {
                let names = self.processes.iter().map(|spec| format!("`{}`", spec.name));
                let names = names.collect::<Vec<_>>().join(", ");
                let there = if names.is_empty() {
                    "the server has none: see Server::add_process".to_owned()
                } else {
                    format!("there is {names}")
                };
                Error::new(format!("there is no process `{name}`; {there}"))
            })
    }

    /// The name of a place's user process.
    pub(crate) fn process_name(&self, place: WorkerId) -> Option<&str> {
        let index = usize::from(place.0).checked_sub(self.first_process())?;
        self.processes.get(index).map(|spec| &*spec.name)
    }
}

const LONGEST_NAME: usize = 64;
/// User processes of a server.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn with(processes: &[(&str, Output)]) -> Settings {
        let spec = |(name, output): &(&str, Output)| {
            let options = ProcessOptions::new().output(output.clone());
            ProcessSpec::new((*name).to_owned(), options)
        };
        Settings {
            workers: 2,
            task_workers: 1,
            processes: processes.iter().map(spec).collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn processes_follow_the_task_workers() {
        let settings = with(&[("a", Output::Inherit), ("b", Output::Log)]);
        assert!(check(&settings).is_ok());
        assert_eq!(settings.places(), 5);
        assert_eq!(settings.process("b").unwrap(), WorkerId(4));
        assert_eq!(settings.process_name(WorkerId(3)), Some("a"));
        assert_eq!(settings.process_name(WorkerId(2)), None);
        let error = settings.process("c").unwrap_err().to_string();
        assert_eq!(error, "there is no process `c`; there is `a`, `b`");
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        let refused = |processes: &[(&str, Output)]| {
            let error = check(&with(processes)).unwrap_err();
            assert!(error.is_usage());
            error.to_string()
        };
        let to = |name: &str| Output::ToProcess(name.to_owned());
        assert!(refused(&[("a", Output::Log), ("a", Output::Log)]).contains("twice"));
        assert!(refused(&[("", Output::Log)]).contains("no name"));
        assert!(refused(&[("a b", Output::Log)]).contains("no name"));
        assert!(refused(&[("a", to("b"))]).contains("no process `b`"));
        assert!(refused(&[("a", to("a"))]).contains("itself"));
        assert!(refused(&[("a", Output::ToWorker(WorkerId(3)))]).contains("0 to 2"));
        assert!(check(&with(&[("a", Output::ToWorker(WorkerId(2)))])).is_ok());
    }

    #[test]
    fn policies_decide_by_how_it_ended() {
        let over = |restart: Restart| [restart.is_over(true), restart.is_over(false)];
        assert_eq!(over(Restart::Always), [false, false]);
        assert_eq!(over(Restart::OnFailure), [true, false]);
        assert_eq!(over(Restart::Never), [true, true]);
    }
}
