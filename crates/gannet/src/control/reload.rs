//! What a server tells about reloads.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::show::age;
use crate::WorkerId;

/// What became of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reloaded {
    /// The workers and task workers that it was about.
    pub workers: Vec<ReloadedWorker>,
    /// Why it was aborted, if it was.
    pub error: Option<String>,
    /// Why the certificates were not read again, if that failed: those of before stay in use. The
    /// workers are replaced all the same.
    #[serde(default)]
    pub certificates: Option<String>,
    /// How long it took, in milliseconds, without the time that it waited for its turn.
    #[serde(default)]
    pub took_ms: u64,
}

/// What became of a worker in a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReloadedWorker {
    /// The worker's number.
    pub id: WorkerId,
    /// What became of it.
    pub outcome: ReloadOutcome,
}

/// What became of a worker in a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReloadOutcome {
    /// A new process gets its events.
    Replaced,
    /// The new process did not start; the old one goes on.
    Failed,
    /// The reload was aborted before its turn; the old process goes on.
    Kept,
}

/// How far a reload has got: see [`Client::reload_with`](super::Client::reload_with).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reload", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReloadEvent {
    /// Another one runs; this one begins after it, together with all that were asked for meanwhile.
    Waits,
    /// It begins.
    Begins {
        /// Who is to be replaced.
        workers: Vec<ReloadingWorker>,
    },
    /// A new process was started for a worker.
    Starts {
        /// The worker's number.
        worker: WorkerId,
        /// `worker 3`, `task worker 4`, `process feed`.
        title: String,
        /// The new process.
        pid: Option<u32>,
    },
    /// It is decided what became of a worker.
    Ended {
        /// The worker's number.
        worker: WorkerId,
        /// `worker 3`, `task worker 4`, `process feed`.
        title: String,
        /// What became of it.
        outcome: ReloadOutcome,
        /// Why its new process did not start.
        error: Option<String>,
        /// How long that took, from the beginning of the reload, in milliseconds.
        after_ms: u64,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// A worker that is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReloadingWorker {
    /// The worker's number.
    pub id: WorkerId,
    /// `worker 3`, `task worker 4`, `process feed`.
    pub title: String,
}

/// Who wanted a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReloadCause {
    /// A signal.
    Signal,
    /// A program, through the control socket.
    Control,
    /// A file that the server watches has changed.
    Watch,
}

/// The reload that has ended last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastReload {
    /// Who wanted it; the first, if several did.
    pub cause: ReloadCause,
    /// How long ago it ended, in milliseconds.
    pub ago_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How many workers it was about.
    pub workers: usize,
    /// How many of them were replaced.
    pub replaced: usize,
    /// Why it was aborted, if it was.
    pub error: Option<String>,
}

impl ReloadCause {
    /// `a signal`, `the control socket`, `a watched file`.
    pub fn as_str(self) -> &'static str {
        match self {
            ReloadCause::Signal => "a signal",
            ReloadCause::Control => "the control socket",
            ReloadCause::Watch => "a watched file",
        }
    }
}

/// `2m 3s ago, by the control socket: replaced 4 of 4 in 310ms`
impl fmt::Display for LastReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LastReload {
            workers, replaced, ..
        } = self;
        let (ago, took, by) = (age(self.ago_ms), age(self.took_ms), self.cause.as_str());
        write!(
            f,
            "{ago} ago, by {by}: replaced {replaced} of {workers} in {took}"
        )?;
        match &self.error {
            Some(error) => write!(f, "; aborted: {error}"),
            None => Ok(()),
        }
    }
}
