//! Which processes there are to be: the decisions of the manager, without any I/O.
//!
//! What happens comes in through [`Places::handle`] and [`Places::handle_timeout`]; what is to be
//! done comes out of [`Places::poll_action`]; time is an argument.
//!
//! # A place
//!
//! A place is a worker's number. A process for it goes through these states:
//!
//! ```text
//!              Ready said          a successor is Ready        exits by itself
//!   Starting ───────────▶ Ready ──────────────────▶ Retiring ─────────────────▶ gone
//!      │                    │                          │
//!      │ fails, time-out    │ crash, stall             │ longer than max_wait_time: killed
//!      ▼                    ▼                          ▼
//!     gone                 gone                       gone
//! ```
//!
//! - A place has at most one *holder* (Ready), one *next* (Starting), and any number of Retiring
//!   ones; but a successor for a living holder is started only when none is Retiring, so reloads in
//!   a row never pile up processes.
//! - The master hears `Attach` once for every process that became Ready (and again after its own
//!   death, for the holders), and `Dead` exactly once for every process that it was told to attach.
//! - A place that lost its holder is *lost* until the next Ready. A lost place starts a process at
//!   once, or after the back-off if the last ones died young.
//! - A killed process is not counted on any more but stays in the books until it was reaped.
//!
//! # A user process
//!
//! Its place goes through the same states, with one more, and no two processes of it run their
//! function at a time:
//!
//! ```text
//!              Ready said            its turn               asked to stop          exits
//!   Starting ───────────▶ Standby ────────────▶ Ready ─────────────────▶ Retiring ───────▶ gone
//! ```
//!
//! - Its turn is when the server is Running, the place has no holder and none is Retiring.
//! - A holder is asked to stop when a successor stands by, or the server stops. The place is lost
//!   from then on: if the successor dies before its turn, another is started.
//! - `Attach` is said at its turn, when all before it are reaped and `Dead` was said of them: what
//!   they left, and what came meanwhile, goes to it in order.
//! - A holder that ends by itself is followed by another, or the place has *ended*, as its policy
//!   says. In Stopping it is never followed.
//!
//! # The server
//!
//! ```text
//!   Starting ──all Ready──▶ Running ──stop──▶ Stopping ──all gone──▶ Finished
//!      │  any failure, stop                      │ stop again, out of time
//!      └────────────────────▶ Ending ◀───────────┘
//! ```
//!
//! - In Starting a failure ends the server; from Running on it is retried with back-off.
//! - In Stopping no process is started, but for a place that crashed while the master still works
//!   off what is in flight: its events need a worker.
//! - In Ending everything was killed and only reaping is left.
//!
//! # Threads
//!
//! In thread mode a process is a thread, and killing it means that it is left behind: the server is
//! about to end. The master, workers and task workers are never started a second time: when one ends
//! that should not, the server ends. User processes are followed as their policies say.
//!
//! # A reload
//!
//! At most [`PARALLEL`] successors start at a time. The first that fails aborts the reload: nothing
//! more is started for it, those that are Ready stay. A reload during a reload is kept and merged
//! with others, and begins when the first has ended.

mod process;
mod reload;
mod stop;
#[cfg(test)]
mod tests;
mod user;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use self::{
    process::{Kill, Master},
    reload::Reload,
    stop::GRACE,
};
pub(crate) use self::{
    process::{Place, Process, State, title},
    reload::{Past, Progress, RequestId},
};
use crate::{
    WorkerError, WorkerId, WorkerTrouble,
    control::{ReloadCause, Reloaded, Role as Kind},
    process::ProcessSpec,
};

/// How far the server is, for who looks at it from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting,
    Ready,
    /// A reload runs, or waits.
    Reloading,
    /// It is on its way to its end.
    Stopping,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    phase: Phase,
    master: Master,
    places: Vec<Place>,
    /// By incarnation.
    processes: BTreeMap<u64, Process>,
    next_incarnation: u64,
    reload: Option<Reload>,
    /// A reload wanted after the one that runs, or after the start.
    queued: Option<reload::Wish>,
    reloads: u64,
    last_reload: Option<Past>,
    actions: VecDeque<Action>,
}

/// The settings that matter here.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) workers: usize,
    pub(crate) task_workers: usize,
    pub(crate) processes: Vec<ProcessSpec>,
    pub(crate) start_timeout: Duration,
    pub(crate) max_wait_time: Duration,
    /// They are threads: the master and workers are not started a second time.
    pub(crate) threads: bool,
}

/// A process: there is one master at a time, workers go by incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Master,
    Worker(u64),
}

/// Something happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The process said that it is ready.
    Ready(Who),
    /// The process said why it cannot start, or could not even be started. `Exited` follows.
    Failed(Who, String),
    /// The process was reaped, or never was.
    Exited(Who, End),
    /// The master gives the worker the events of its place.
    Attached(u64),
    /// The worker wants a successor (`max_requests`).
    Retire(u64),
    /// The worker makes no progress.
    Stalled(u64),
    /// The master has no connection left.
    Stopped,
    Reload {
        tasks_only: bool,
        cause: ReloadCause,
        request: Option<RequestId>,
    },
    Stop,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// `None`: there was no process.
    pub(crate) pid: Option<u32>,
    /// Exit code 0.
    pub(crate) clean: bool,
    /// `exit code 101`, `signal 9 (SIGKILL)`.
    pub(crate) how: String,
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    SpawnMaster {
        generation: u64,
    },
    SpawnWorker {
        worker: WorkerId,
        incarnation: u64,
        generation: u64,
    },
    /// To the master.
    Attach {
        worker: WorkerId,
        incarnation: u64,
    },
    /// To the master.
    Dead {
        worker: WorkerId,
        incarnation: u64,
        blame: bool,
    },
    /// To the master.
    Stop {
        deadline: Duration,
    },
    /// To the worker.
    Exit {
        incarnation: u64,
    },
    /// To the user process: its function is to run.
    Begin {
        incarnation: u64,
    },
    /// To the user process: its function is to end.
    AskToStop {
        incarnation: u64,
    },
    /// SIGKILL.
    Kill(Who),
    /// Everything is ready for the first time.
    Started,
    /// A process has ended badly.
    Trouble(WorkerError),
    /// A reload has come so far.
    Tell {
        requests: Vec<RequestId>,
        progress: Progress,
    },
    /// A reload has ended, or was refused.
    Reloaded {
        requests: Vec<RequestId>,
        reloaded: Reloaded,
    },
    /// No process is left. The last action.
    Finished(Result<(), String>),
}

#[derive(Debug)]
enum Phase {
    Starting,
    Running,
    Stopping {
        /// When what is in flight is cut.
        deadline: Instant,
        /// The master has nothing more to do: workers were told to exit, until then.
        exit_by: Option<Instant>,
    },
    Ending(Result<(), String>),
    Finished,
}

impl Places {
    /// Places that are all to be filled: poll the actions.
    pub(crate) fn new(now: Instant, limits: Limits) -> Self {
        let mut filled: Vec<Place> = Vec::new();
        let id = |places: &[Place]| WorkerId(places.len() as u16);
        for _ in 0..limits.workers {
            filled.push(Place::new(id(&filled), Kind::Worker));
        }
        for _ in 0..limits.task_workers {
            filled.push(Place::new(id(&filled), Kind::TaskWorker));
        }
        for spec in &limits.processes {
            filled.push(Place::of_process(id(&filled), &spec.name, spec.restart()));
        }
        let mut places = Places {
            limits,
            phase: Phase::Starting,
            master: Master::default(),
            places: filled,
            processes: BTreeMap::new(),
            next_incarnation: 1,
            reload: None,
            queued: None,
            reloads: 0,
            last_reload: None,
            actions: VecDeque::new(),
        };
        places.step(now);
        places
    }

    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Ready(Who::Master) => self.master.ready(now),
            Input::Ready(Who::Worker(incarnation)) => self.worker_ready(now, incarnation),
            Input::Attached(incarnation) => self.worker_attached(now, incarnation),
            Input::Failed(Who::Master, error) => self.master.fail(error),
            Input::Failed(Who::Worker(incarnation), error) => {
                if let Some(process) = self.processes.get_mut(&incarnation) {
                    process.failure = Some(error);
                }
            }
            Input::Exited(Who::Master, end) => self.master_exited(now, &end),
            Input::Exited(Who::Worker(incarnation), end) => {
                self.worker_exited(now, incarnation, &end);
            }
            Input::Retire(incarnation) => {
                if let Some(process) = self.processes.get(&incarnation) {
                    self.places[process.place].replace |= process.state == State::Ready;
                }
            }
            Input::Stalled(incarnation) => self.kill_worker(incarnation, Kill::Stalled),
            Input::Stopped => self.master_done(now),
            Input::Reload {
                tasks_only,
                cause,
                request,
            } => self.wish_reload(now, tasks_only, cause, request),
            Input::Stop => self.stop(now),
        }
        self.step(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<(u64, Kill)> = self
            .processes
            .iter()
            .filter(|(_, process)| process.deadline().is_some_and(|deadline| deadline <= now))
            .map(|(&incarnation, process)| (incarnation, process.out_of_time()))
            .collect();
        for (incarnation, kill) in late {
            self.kill_worker(incarnation, kill);
        }
        if self
            .master
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.kill_master(Kill::NotReady);
        }
        match self.phase {
            Phase::Stopping {
                exit_by: Some(exit_by),
                ..
            } if exit_by <= now => self.end(now, Ok(())),
            Phase::Stopping {
                deadline,
                exit_by: None,
            } if deadline + GRACE <= now => {
                if self.limits.threads {
                    // A handler has its thread, and the reactor there cannot even hear of the stop.
                    return self.end(now, Ok(()));
                }
                self.kill_master(Kill::OutOfTime);
            }
            _ => {}
        }
        self.step(now);
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Places::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let stop = match self.phase {
            Phase::Stopping {
                exit_by: Some(exit_by),
                ..
            } => Some(exit_by),
            // The master was killed when this has passed, and that happens once.
            Phase::Stopping { deadline, .. } if !self.master.is_killed() => Some(deadline + GRACE),
            _ => None,
        };
        let retries = self.may_start().then(|| {
            let places = self.places.iter().filter(|place| place.wants_process());
            places.filter_map(|place| place.backoff.until()).min()
        });
        let processes = self.processes.values().filter_map(Process::deadline).min();
        [
            stop,
            retries.flatten(),
            processes,
            self.master.deadline(),
            self.master_retry(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The places, for `status`.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The processes of workers and task workers by incarnation, for `status`.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (u64, &Process)> {
        self.processes
            .iter()
            .map(|(&incarnation, process)| (incarnation, process))
    }

    /// For `status`.
    pub(crate) fn master(&self) -> &Master {
        &self.master
    }

    /// Reloads that were begun since the start.
    pub(crate) fn reloads(&self) -> u64 {
        self.reloads
    }

    /// The reload that ended last.
    pub(crate) fn last_reload(&self) -> Option<&Past> {
        self.last_reload.as_ref()
    }

    /// How far the server is.
    pub(crate) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Starting => Stage::Starting,
            Phase::Running if self.reload.is_some() || self.queued.is_some() => Stage::Reloading,
            Phase::Running => Stage::Ready,
            _ => Stage::Stopping,
        }
    }

    /// Whether the server is on its way to its end.
    pub(crate) fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// Does whatever the state now asks for.
    fn step(&mut self, now: Instant) {
        match &self.phase {
            Phase::Finished => return,
            Phase::Starting if self.all_ready() => {
                self.phase = Phase::Running;
                self.actions.push_back(Action::Started);
            }
            Phase::Stopping { .. } | Phase::Ending(_)
                if self.processes.is_empty() && !self.master.exists() =>
            {
                let ended = std::mem::replace(&mut self.phase, Phase::Finished);
                let result = if let Phase::Ending(result) = ended {
                    result
                } else {
                    Ok(())
                };
                self.actions.push_back(Action::Finished(result));
                return;
            }
            _ => {}
        }
        self.start_master(now);
        self.turn_processes(now);
        self.fill_places(now);
        self.step_reload(now);
    }

    fn all_ready(&self) -> bool {
        self.master.state() == Some(State::Ready)
            && self.places.iter().all(|place| self.is_filled(place))
    }

    fn start_master(&mut self, now: Instant) {
        self.master.backoff.expire(now);
        let wanted = matches!(self.phase, Phase::Starting | Phase::Running)
            && !self.master.exists()
            && self.master.backoff.until().is_none();
        if !wanted {
            return;
        }
        let generation = self.master.start(now, now + self.limits.start_timeout);
        self.actions.push_back(Action::SpawnMaster { generation });
        for place in &self.places {
            if let Some(incarnation) = place.holder {
                self.actions.push_back(Action::Attach {
                    worker: place.id,
                    incarnation,
                });
            }
        }
    }

    fn master_retry(&self) -> Option<Instant> {
        let running = matches!(self.phase, Phase::Running) && !self.master.exists();
        running.then(|| self.master.backoff.until()).flatten()
    }

    /// Whether lost places are filled.
    fn may_start(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Running => true,
            Phase::Stopping { exit_by, .. } => exit_by.is_none(),
            Phase::Ending(_) | Phase::Finished => false,
        }
    }

    fn fill_places(&mut self, now: Instant) {
        if !self.may_start() {
            return;
        }
        let running = matches!(self.phase, Phase::Running);
        let stopping = self.is_stopping();
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            place.backoff.expire(now);
            if stopping && place.kind == Kind::Process {
                continue;
            }
            let wanted = place.lost || (running && place.replace && place.retiring == 0);
            if wanted && place.next.is_none() && place.backoff.until().is_none() {
                self.start_worker(now, index);
            }
        }
    }

    fn start_worker(&mut self, now: Instant, index: usize) {
        let reloading = self
            .reload
            .as_ref()
            .is_some_and(|reload| reload.covers(index));
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        let place = &mut self.places[index];
        let generation = place.generation + u64::from(reloading);
        place.next = Some(incarnation);
        place.backoff.begin();
        let deadline = now + self.limits.start_timeout;
        self.processes
            .insert(incarnation, Process::new(index, generation, deadline, now));
        let worker = place.id;
        self.actions.push_back(Action::SpawnWorker {
            worker,
            incarnation,
            generation,
        });
        if reloading {
            self.step_starts(worker, incarnation);
        }
    }

    fn worker_ready(&mut self, now: Instant, incarnation: u64) {
        let Some(process) = self.processes.get_mut(&incarnation) else {
            return;
        };
        if !matches!(process.state, State::Starting { .. }) || process.kill.is_some() {
            return;
        }
        let index = process.place;
        let generation = process.generation;
        let place = &mut self.places[index];
        if place.kind == Kind::Process {
            // `turn_processes` says when it begins.
            process.state = State::Standby;
            return;
        }
        process.state = State::Ready;
        process.ready_at = Some(now);

        place.next = None;
        place.lost = false;
        place.replace = false;
        place.generation = generation;
        let worker = place.id;
        if let Some(old) = place.holder.replace(incarnation) {
            place.retiring += 1;
            if let Some(old) = self.processes.get_mut(&old) {
                old.state = State::Retiring {
                    deadline: now + self.limits.max_wait_time,
                };
            }
            if !self.master.exists() {
                self.actions.push_back(Action::Exit { incarnation: old });
            }
        }
        if self.master.exists() {
            self.actions.push_back(Action::Attach {
                worker,
                incarnation,
            });
        }
    }

    /// A reload has done its step when new events go to the new process, not before.
    fn worker_attached(&mut self, now: Instant, incarnation: u64) {
        if let Some(process) = self.processes.get(&incarnation) {
            self.step_is_done(now, process.place, incarnation);
        }
    }

    fn worker_exited(&mut self, now: Instant, incarnation: u64, end: &End) {
        let Some(process) = self.processes.remove(&incarnation) else {
            return;
        };
        let index = process.place;
        let starting = matches!(self.phase, Phase::Starting);
        let stopping = self.is_stopping();
        let may_start = self.may_start();
        let place = &mut self.places[index];
        let worker = place.id;
        let title = match end.pid {
            Some(pid) => format!("{} (pid {pid})", place.title()),
            None => place.title(),
        };
        let reason = process.reason(end);

        if process.ready_at.is_some() && self.master.exists() {
            let asked = matches!(process.state, State::Retiring { .. }) || stopping;
            let blame = process.blame(asked && end.clean);
            self.actions.push_back(Action::Dead {
                worker,
                incarnation,
                blame,
            });
        }
        match process.state {
            State::Starting { .. } | State::Standby => {
                place.next = None;
                if process.kill == Some(Kill::NotWanted) || !may_start {
                    return;
                }
                place.last_exit = Some(reason.clone());
                if starting {
                    self.end(now, Err(format!("{title} did not start: {reason}")));
                    return;
                }
                let mut retry_in = None;
                if place.lost || place.replace {
                    let when = place.backoff.failed(now, None);
                    retry_in = Some(when.duration());
                    tracing::error!("{title} did not start: {reason}; next try {when}");
                } else {
                    tracing::error!("{title} did not start: {reason}; its predecessor goes on");
                }
                let trouble = WorkerTrouble::NotStarted;
                let error = place.trouble(trouble, end.pid, &reason, retry_in);
                self.actions.push_back(Action::Trouble(error));
                self.step_failed(now, index, incarnation, &reason);
            }
            State::Ready => {
                place.holder = None;
                place.last_exit = Some(reason.clone());
                if place.kind == Kind::Process && (stopping || place.restart.is_over(end.clean)) {
                    if !end.clean {
                        let trouble = WorkerTrouble::Ended;
                        let error = place.trouble(trouble, end.pid, &reason, None);
                        self.actions.push_back(Action::Trouble(error));
                    }
                    self.process_is_over(now, index, &title, &reason, end.clean);
                    return;
                }
                if stopping && end.clean {
                    return;
                }
                let lived = process
                    .ready_at
                    .map(|ready| now.saturating_duration_since(ready));
                place.lost = true;
                place.restarts += 1;
                let when = place.backoff.failed(now, lived);
                let retry_in = (may_start && !starting).then(|| when.duration());
                let error = place.trouble(WorkerTrouble::Ended, end.pid, &reason, retry_in);
                self.actions.push_back(Action::Trouble(error));
                let threads = self.limits.threads && place.kind != Kind::Process;
                if threads && !stopping {
                    let error = format!("the thread of {title} has ended: {reason}");
                    self.end(now, Err(error));
                } else if starting {
                    self.end(
                        now,
                        Err(format!("{title} ended during the start: {reason}")),
                    );
                } else if may_start {
                    let text = format!("{title} ended: {reason}; its successor starts {when}");
                    match end.clean {
                        true => tracing::warn!("{text}"),
                        false => tracing::error!("{text}"),
                    }
                }
            }
            State::Retiring { .. } => {
                place.retiring -= 1;
                if !end.clean {
                    place.last_exit = Some(reason.clone());
                    tracing::warn!("{title}, replaced, ended: {reason}");
                    let error = place.trouble(WorkerTrouble::Retired, end.pid, &reason, None);
                    self.actions.push_back(Action::Trouble(error));
                }
            }
        }
    }

    fn master_exited(&mut self, now: Instant, end: &End) {
        let Some((reason, lived)) = self.master.exited(now, end) else {
            return;
        };
        match self.phase {
            Phase::Starting => self.end(now, Err(format!("the master did not start: {reason}"))),
            Phase::Running if self.limits.threads => {
                self.end(now, Err(format!("the master's thread has ended: {reason}")));
            }
            Phase::Running => {
                let when = self.master.backoff.failed(now, lived);
                self.master.restarts += 1;
                tracing::error!(
                    "the master ended, its connections are lost: {reason}; its successor starts \
                     {when}"
                );
                // The message that would have told them may have been lost with the master.
                for (&incarnation, process) in &self.processes {
                    if matches!(process.state, State::Retiring { .. }) {
                        self.actions.push_back(Action::Exit { incarnation });
                    }
                }
            }
            Phase::Stopping { .. } => self.master_done(now),
            Phase::Ending(_) | Phase::Finished => {}
        }
    }
}

/// Successors that a reload starts at a time.
const PARALLEL: usize = 2;
