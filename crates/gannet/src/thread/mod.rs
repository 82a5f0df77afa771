//! Thread mode: all that a server consists of as threads of one process.
//!
//! | in process mode            | in thread mode                                             |
//! |----------------------------|------------------------------------------------------------|
//! | manager                    | the main thread; the same code                             |
//! | master's main thread       | thread `master`; the same code                             |
//! | reactor *i*, worker *i*    | thread `worker i`, both in turn: `worker::inline`          |
//! | task worker                | thread `task worker i`; may block                          |
//! | user process               | thread `process NAME`                                      |
//!
//! - [`crew`]: starts the threads, in the place of `manager::spawn`.
//! - [`running`]: a thread as the manager sees it, in the place of a process.
//! - [`watchdog`]: tells of workers that make no progress.
//!
//! What the threads tell each other is the same as between processes, on the same ways: channels
//! (`crate::channel`) to the manager, rings and doorbells between reactors and workers. There are as
//! many reactors as workers. What a thread's own reactor and worker tell each other goes through no ring, and
//! wakes nobody: [`crate::direct`].
//!
//! # How a thread ends
//!
//! ```text
//!   starting ──ready──▶ running ──told to exit──▶ exiting ──▶ ended, joined
//!      │ fails             │ fails, panics           │ out of time
//!      ▼                   ▼                         ▼
//!   the server does not    the server ends with      left behind: the manager waits no more,
//!   start                  an error (a user process  the thread ends with the process
//!                          follows its policy)
//! ```
//!
//! A thread cannot be killed. Where the manager would kill a process, it *leaves* the thread *behind*:
//! it closes its channel, by which the thread ends as soon as it comes by there, and counts it as
//! ended. That happens at the end of the server only.
//!
//! # Invariants
//!
//! - One master, one incarnation of each worker and task worker: they are never started anew. So no
//!   ring is ever taken over, and no event is ever delivered a second time.
//! - A reactor lives from before its worker's `start` until the master has ended: its thread goes on
//!   with it alone when the worker has stopped.
//! - Nothing here ends the process; that is for whoever has called `Server::run`.

mod crew;
mod running;
mod watchdog;

pub(crate) use self::{
    crew::{Code, Common, Crew, Post},
    running::Running,
};
use crate::{CaptureOutput, ConnId, Error, Mode, Output, Result, Settings};

/// Refuses what thread mode cannot do, and gives each worker its reactor.
pub(crate) fn check(settings: &mut Settings) -> Result {
    if settings.mode != Mode::Thread {
        return Ok(());
    }
    let wrong = |what: String| Err(Error::usage(format!("{what} (`mode` = thread)")));
    let most = ConnId::MAX_REACTORS;
    if settings.workers > most {
        if settings.workers != Settings::default().workers {
            return wrong(format!(
                "`workers` = {}: in thread mode each worker has a reactor, and there can be at most \
                 {most}; take fewer workers, or process mode",
                settings.workers
            ));
        }
        // Nobody has asked for so many.
        settings.workers = most;
    }
    settings.reactors = settings.workers;
    if settings.max_requests > 0 {
        return wrong(format!(
            "`max_requests` = {} needs process mode: a thread cannot be replaced; remove it",
            settings.max_requests
        ));
    }
    if !settings.watch.is_empty() {
        return wrong(format!(
            "`watch` = {:?} needs process mode: it reloads, which threads cannot do; remove it",
            settings.watch
        ));
    }
    if settings.capture_output == CaptureOutput::On {
        return wrong(
            "`capture_output` = on needs process mode: what threads print is what the server prints; \
             remove it"
                .to_owned(),
        );
    }
    if settings.worker_oom_score_adj > 0 {
        return wrong(
            "`worker_oom_score_adj` needs process mode: threads have one memory together; remove it"
                .to_owned(),
        );
    }
    if !settings.reactor_cpus.is_empty() {
        return wrong(
            "`reactor_cpus` needs process mode: here reactors run on the workers' threads; use \
             `worker_cpus`"
                .to_owned(),
        );
    }
    for spec in &settings.processes {
        let inherits = |output: &&Output| **output == Output::Inherit;
        if !spec.outputs().iter().all(inherits) {
            return wrong(format!(
                "the process `{}` wants its output redirected, which needs process mode: threads have \
                 one standard output together; remove the redirection",
                spec.name
            ));
        }
    }
    Ok(())
}

/// What a reload is answered with.
pub(crate) const NO_RELOAD: &str = "a reload needs process mode, and this server runs in thread \
                                    mode: stop and start it to run new code (SIGHUP reads \
                                    certificates again)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProcessOptions;

    fn checked(change: impl FnOnce(&mut Settings)) -> Result<Settings> {
        let mut settings = Settings {
            mode: Mode::Thread,
            workers: 3,
            ..Settings::default()
        };
        change(&mut settings);
        check(&mut settings).map(|()| settings)
    }

    #[test]
    fn each_worker_has_a_reactor() {
        assert_eq!(checked(|_| {}).unwrap().reactors, 3);
        let processes = checked(|settings| settings.mode = Mode::Process).unwrap();
        assert_eq!(processes.reactors, 1);
    }

    #[test]
    fn what_needs_processes_is_refused_with_a_reason() {
        let error = |change: fn(&mut Settings)| {
            let error = checked(change).unwrap_err();
            assert!(error.is_usage());
            error.to_string()
        };
        assert!(error(|settings| settings.workers = 65).contains("at most 64"));
        assert!(error(|settings| settings.max_requests = 5).contains("needs process mode"));
        assert!(error(|settings| settings.watch = vec!["templates".into()]).contains("reloads"));
        assert!(error(|settings| settings.worker_oom_score_adj = 5).contains("one memory"));
        assert!(error(|settings| settings.reactor_cpus = "0".into()).contains("`worker_cpus`"));
        let piped = error(|settings| {
            let options = ProcessOptions::new().output(Output::Log);
            let spec = crate::process::ProcessSpec::new("a".to_owned(), options);
            settings.processes.push(spec);
        });
        assert!(piped.contains("process `a`"), "{piped}");
    }
}
