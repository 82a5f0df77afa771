//! What the program can be told when a worker has ended badly.

use std::{fmt, time::Duration};

use crate::{ConnId, WorkerId, control::Role};

/// A process of a worker, task worker or user process has ended badly, or an event was given up: see
/// [`Server::on_worker_error`](crate::Server::on_worker_error).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WorkerError {
    /// The worker's number.
    pub worker: WorkerId,
    /// What it runs.
    pub role: Role,
    /// Name of the user process.
    pub name: Option<String>,
    /// Process id, if there was a process.
    pub pid: Option<u32>,
    /// What has happened.
    pub trouble: WorkerTrouble,
    /// Why, in words: `signal 9 (SIGKILL)`.
    pub reason: String,
    /// How often a process of its place has ended without being asked to.
    pub restarts: u64,
    /// How many in a row did not start, or died young or too often; `status` has the same. With more than two, starts
    /// are delayed.
    pub early_deaths: u32,
    /// After how long its successor is started; `None` if none is, or one is there.
    pub retry_in: Option<Duration>,
}

/// What has happened to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerTrouble {
    /// It did not get ready.
    NotStarted,
    /// It crashed, was killed, or ended without being asked to.
    Ended,
    /// It was replaced, and did not end well.
    Retired,
    /// An event that has killed one worker after the other is given up; its client was told. The
    /// connection, if it is one's.
    GaveUp(Option<ConnId>),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = crate::manager::title(self.worker, self.role, self.name.as_deref());
        let what = match self.trouble {
            WorkerTrouble::NotStarted => "did not start",
            WorkerTrouble::Ended => "ended",
            WorkerTrouble::Retired => "ended after it was replaced",
            WorkerTrouble::GaveUp(_) => "lost an event",
        };
        write!(f, "{title} {what}: {}", self.reason)
    }
}
