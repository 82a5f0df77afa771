//! The books on places, their processes and the master.

use std::time::{Duration, Instant};

use super::End;
use crate::{
    WorkerError, WorkerId, WorkerTrouble, backoff::BackOff, control::Role as Kind, process::Restart,
};

/// A worker's number and who holds it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) id: WorkerId,
    pub(crate) kind: Kind,
    /// Of a user process.
    pub(crate) name: Option<String>,
    pub(super) restart: Restart,
    /// A user process that is not started again.
    pub(super) ended: bool,
    /// The process that gets the events; by incarnation, as all here.
    pub(super) holder: Option<u64>,
    /// The process that starts in order to hold the place.
    pub(super) next: Option<u64>,
    /// Processes that finish what they have.
    pub(super) retiring: usize,
    /// There is no holder and there is to be one.
    pub(super) lost: bool,
    /// The holder asked for a successor.
    pub(super) replace: bool,
    /// How often the place was filled by reload.
    pub(super) generation: u64,
    pub(super) backoff: BackOff,
    /// Holders that ended without being asked to.
    pub(crate) restarts: u64,
    /// Why the last process that did not end well did end.
    pub(crate) last_exit: Option<String>,
}

/// A process of a worker or task worker.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) place: usize,
    pub(crate) generation: u64,
    pub(crate) state: State,
    pub(crate) started: Instant,
    pub(super) ready_at: Option<Instant>,
    /// What it said before it ended.
    pub(super) failure: Option<String>,
    pub(super) kill: Option<Kill>,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Starting {
        deadline: Instant,
    },
    /// A user process that could run, and waits for its turn.
    Standby,
    Ready,
    Retiring {
        deadline: Instant,
    },
}

/// Why the manager killed a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kill {
    /// It was not ready in time.
    NotReady,
    /// It made no progress.
    Stalled,
    /// It did not finish in time.
    OutOfTime,
    /// The server stops before it was of use.
    NotWanted,
}

/// The master's process, and the place that it holds.
#[derive(Debug, Default)]
pub(crate) struct Master {
    process: Option<MasterProcess>,
    generation: u64,
    pub(super) backoff: BackOff,
    /// Masters that ended without being asked to.
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<String>,
}

#[derive(Debug)]
struct MasterProcess {
    state: State,
    started: Instant,
    ready_at: Option<Instant>,
    failure: Option<String>,
    kill: Option<Kill>,
}

impl Place {
    pub(super) fn new(id: WorkerId, kind: Kind) -> Self {
        Place {
            id,
            kind,
            name: None,
            restart: Restart::Always,
            ended: false,
            holder: None,
            next: None,
            retiring: 0,
            lost: true,
            replace: false,
            generation: 0,
            backoff: BackOff::default(),
            restarts: 0,
            last_exit: None,
        }
    }

    /// Of a user process.
    pub(super) fn of_process(id: WorkerId, name: &str, restart: Restart) -> Self {
        Place {
            name: Some(name.to_owned()),
            restart,
            backoff: BackOff::patient(),
            ..Place::new(id, Kind::Process)
        }
    }

    /// `worker 3`, `task worker 4`, `process feed`.
    pub(crate) fn title(&self) -> String {
        title(self.id, self.kind, self.name.as_deref())
    }

    /// What the program is told of a process of this place.
    pub(super) fn trouble(
        &self,
        trouble: WorkerTrouble,
        pid: Option<u32>,
        reason: &str,
        retry_in: Option<Duration>,
    ) -> WorkerError {
        WorkerError {
            worker: self.id,
            role: self.kind,
            name: self.name.clone(),
            pid,
            trouble,
            reason: reason.to_owned(),
            restarts: self.restarts,
            early_deaths: self.backoff.early_deaths(),
            retry_in,
        }
    }

    /// Whether it has ended for good.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The process that stands for the place.
    pub(crate) fn principal(&self) -> Option<u64> {
        self.holder.or(self.next)
    }

    /// How often the place was filled by reload.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Processes in a row that did not start, or died young; and when the next try is, if that is
    /// delayed.
    pub(crate) fn back_off(&self) -> (u32, Option<Instant>) {
        (self.backoff.early_deaths(), self.backoff.until())
    }

    /// Whether it waits for its back-off to end.
    pub(super) fn wants_process(&self) -> bool {
        self.next.is_none() && (self.lost || self.replace)
    }
}

impl Process {
    pub(super) fn new(place: usize, generation: u64, deadline: Instant, now: Instant) -> Self {
        Process {
            place,
            generation,
            state: State::Starting { deadline },
            started: now,
            ready_at: None,
            failure: None,
            kill: None,
        }
    }

    /// When it is to be killed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        deadline(self.state, self.kill)
    }

    /// Why it is killed at its deadline.
    pub(super) fn out_of_time(&self) -> Kill {
        if self.ready_at.is_none() {
            Kill::NotReady
        } else {
            Kill::OutOfTime
        }
    }

    /// Whether the event that it was handling is a suspect.
    pub(super) fn blame(&self, as_asked: bool) -> bool {
        match self.kill {
            Some(Kill::Stalled) => true,
            Some(_) => false,
            None => !as_asked,
        }
    }

    pub(super) fn reason(&self, end: &End) -> String {
        reason(self.failure.as_deref(), self.kill, end)
    }
}

impl Master {
    /// A process is about to be started. Returns its generation.
    pub(super) fn start(&mut self, now: Instant, deadline: Instant) -> u64 {
        let state = State::Starting { deadline };
        self.process = Some(MasterProcess {
            state,
            started: now,
            ready_at: None,
            failure: None,
            kill: None,
        });
        self.backoff.begin();
        let generation = self.generation;
        self.generation += 1;
        generation
    }

    pub(super) fn ready(&mut self, now: Instant) {
        if let Some(process) = &mut self.process {
            process.state = State::Ready;
            process.ready_at = Some(now);
        }
    }

    pub(super) fn fail(&mut self, error: String) {
        if let Some(process) = &mut self.process {
            process.failure = Some(error);
        }
    }

    /// The process is gone: why, and how long it was ready.
    pub(super) fn exited(&mut self, now: Instant, end: &End) -> Option<(String, Option<Duration>)> {
        let process = self.process.take()?;
        let reason = reason(process.failure.as_deref(), process.kill, end);
        if !end.clean {
            self.last_exit = Some(reason.clone());
        }
        Some((
            reason,
            process
                .ready_at
                .map(|ready| now.saturating_duration_since(ready)),
        ))
    }

    /// Notes that it is killed; `false` if it was before, or there is none.
    pub(super) fn kill(&mut self, kill: Kill) -> bool {
        let process = self
            .process
            .as_mut()
            .filter(|process| process.kill.is_none());
        process.map(|process| process.kill = Some(kill)).is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.process
            .as_ref()
            .and_then(|process| deadline(process.state, process.kill))
    }

    pub(super) fn exists(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn is_killed(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.kill.is_some())
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.process.as_ref().map(|process| process.state)
    }

    /// When its process was started.
    pub(crate) fn started(&self) -> Option<Instant> {
        Some(self.process.as_ref()?.started)
    }
}

/// `worker 3`, `task worker 4`, `process feed`.
pub(crate) fn title(id: WorkerId, kind: Kind, name: Option<&str>) -> String {
    match (kind, name) {
        (Kind::Worker, _) => format!("worker {id}"),
        (Kind::TaskWorker, _) => format!("task worker {id}"),
        (Kind::Process, Some(name)) => format!("process {name}"),
        (Kind::Process, None) => format!("process {id}"),
    }
}

fn deadline(state: State, kill: Option<Kill>) -> Option<Instant> {
    match state {
        _ if kill.is_some() => None,
        State::Starting { deadline } | State::Retiring { deadline } => Some(deadline),
        State::Standby | State::Ready => None,
    }
}

fn reason(failure: Option<&str>, kill: Option<Kill>, end: &End) -> String {
    match (failure, kill) {
        (Some(failure), _) => failure.to_owned(),
        (None, Some(Kill::NotReady)) => {
            "it was not ready within start_timeout_ms and was killed".to_owned()
        }
        (None, Some(Kill::Stalled)) => {
            "it made no progress for stall_timeout_ms and was killed".to_owned()
        }
        (None, Some(Kill::OutOfTime)) => {
            "it did not finish within max_wait_time_ms and was killed".to_owned()
        }
        (None, Some(Kill::NotWanted)) => "it was not needed any more and was killed".to_owned(),
        (None, None) => end.how.clone(),
    }
}
