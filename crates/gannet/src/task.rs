//! Tasks.

use std::time::Duration;

use bytes::Bytes;

use crate::{SendError, TaskId, WorkerId, wire::event::TaskFailure};

/// A task, as [`Handler::task`](crate::Handler::task) gets it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Task {
    /// Its number; tasks of a server count up.
    pub id: TaskId,
    /// The worker that submitted it.
    pub from: WorkerId,
    /// What was submitted.
    pub data: Bytes,
    /// How many task workers died with it before.
    pub attempts: u8,
}

/// How a task is to be run: see [`Worker::task_with`](crate::Worker::task_with).
#[derive(Clone, Debug, Default)]
pub struct TaskOptions {
    /// The task worker, by its number among the task workers from 0. `None`: any that is idle.
    pub worker: Option<u16>,
    /// How long it may wait and run, in whole milliseconds up to 49 days. `None`: no limit.
    pub timeout: Option<Duration>,
}

/// Why a task has no result.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// The server has none.
    #[error("no task worker: the server was started with task_workers = 0")]
    NoTaskWorkers,
    /// Refused; nothing was queued.
    #[error("the task queue is full ({limit} tasks wait): try again later, or raise `task_queue`")]
    QueueFull {
        /// The setting `task_queue`.
        limit: usize,
    },
    /// [`TaskOptions::timeout`] has passed.
    #[error("the task took longer than its time-out")]
    TimedOut,
    /// `Handler::task` returned an error or panicked.
    #[error("the task failed: {0}")]
    Failed(String),
    /// Every task worker that ran it died.
    #[error("the task killed its task worker {0} times and was given up")]
    Poisonous(u8),
    /// Data or result do not fit.
    #[error("a task of {len} bytes is larger than the {max} bytes that fit: raise `arena_size`")]
    TooLarge {
        /// Bytes that it has.
        len: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// [`TaskOptions::worker`] is too large.
    #[error("there is no task worker {0}")]
    NoSuchWorker(u16),
    /// [`Handler::start`](crate::Handler::start) has waited for a result, or submitted more than a ring holds.
    #[error(
        "`Handler::start` cannot wait for the result of a task, nor submit more than `ring_size`: tasks leave \
         when it has returned. Detach the task, or have a future do it that `start` gives to `Worker::spawn_local`"
    )]
    NotReady,
    /// The queue was in the master. The task may have been run.
    #[error("the master died, and the task queue with it: the task may or may not have been run")]
    Lost,
}

impl TaskError {
    /// From the payload of a failed `TaskResult` or `Finish`; `wanted` is the task worker that was
    /// asked for.
    pub(crate) fn from_payload(payload: &[u8], wanted: u16) -> Self {
        let (kind, rest) = payload
            .split_first()
            .map_or((0, payload), |(kind, rest)| (*kind, rest));
        let failure = |failure: TaskFailure| kind == failure as u8;
        if failure(TaskFailure::NoTaskWorkers) {
            TaskError::NoTaskWorkers
        } else if failure(TaskFailure::QueueFull) {
            let limit = rest
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            TaskError::QueueFull {
                limit: limit as usize,
            }
        } else if failure(TaskFailure::TimedOut) {
            TaskError::TimedOut
        } else if failure(TaskFailure::Poisonous) {
            TaskError::Poisonous(rest.first().copied().unwrap_or(POISONOUS))
        } else if failure(TaskFailure::NoSuchWorker) {
            TaskError::NoSuchWorker(wanted)
        } else {
            TaskError::Failed(String::from_utf8_lossy(rest).into_owned())
        }
    }
}

impl From<SendError> for TaskError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLarge { len, max } => TaskError::TooLarge { len, max },
            SendError::Lost => TaskError::Lost,
            SendError::NotReady => TaskError::NotReady,
            SendError::Full => TaskError::Failed(error.to_string()),
        }
    }
}

/// Workers that an event may kill before it is given up.
const POISONOUS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_cross_the_ring() {
        let of = |bytes: &[u8]| TaskError::from_payload(bytes, 7);
        assert_eq!(of(&[1]), TaskError::NoTaskWorkers);
        assert_eq!(
            of(&[2, 10, 0, 0, 0, 0, 0, 0, 0]),
            TaskError::QueueFull { limit: 10 }
        );
        assert_eq!(of(&[3]), TaskError::TimedOut);
        assert_eq!(of(b"\x04why"), TaskError::Failed("why".to_owned()));
        assert_eq!(of(&[5]), TaskError::Poisonous(3));
        assert_eq!(of(&[6]), TaskError::NoSuchWorker(7));
        assert_eq!(of(&[]), TaskError::Failed(String::new()));
    }
}
