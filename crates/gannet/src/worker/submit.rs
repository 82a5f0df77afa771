//! Tasks and messages to other workers.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Worker,
    awaited::Answer,
    shared::{Command, Shared},
};
use crate::{
    ConnId, Error, Result, TaskError, TaskId, TaskOptions, WorkerId,
    wire::command::{CommandHeader, CommandKind, DETACHED},
};

impl Worker {
    /// Has a task worker run [`Handler::task`](crate::Handler::task), and waits for its result.
    ///
    /// If the future is dropped, a task that has not begun is taken out of the queue, and one that
    /// has begun runs to its end for nobody.
    ///
    /// [`Handler::start`](crate::Handler::start) cannot wait for a result ([`TaskError::NotReady`]): let it
    /// [spawn](Worker::spawn_local) what does.
    pub async fn task(&self, data: impl Into<Bytes>) -> std::result::Result<Bytes, TaskError> {
        self.task_with(data, TaskOptions::default()).await
    }

    /// As [`Worker::task`], by a certain task worker or within a time.
    pub async fn task_with(
        &self,
        data: impl Into<Bytes>,
        options: TaskOptions,
    ) -> std::result::Result<Bytes, TaskError> {
        let (wanted, timeout) = self.checked(&options)?;
        let shared = self.shared();
        if shared.is_starting() {
            return Err(TaskError::NotReady);
        }
        let expected = shared.awaited.result();
        let mut submitted = Submitted {
            shared,
            token: expected.token(),
            open: false,
        };
        shared
            .push(
                0,
                submission(expected.token(), 0, wanted, timeout, data.into()),
            )
            .await?;
        submitted.open = true;
        let answer = expected.answer().await;
        submitted.open = false;
        match answer {
            Answer::Data(result) => Ok(result),
            Answer::Failed(payload) => Err(TaskError::from_payload(&payload, wanted)),
            Answer::Accepted(_) | Answer::Lost => Err(TaskError::Lost),
        }
    }

    /// Has a task worker run [`Handler::task`](crate::Handler::task); this worker's
    /// [`Handler::finish`](crate::Handler::finish) gets the result.
    ///
    /// Returns when the task is on its way, as [`Conn::send`](crate::Conn::send) does; while there is little
    /// room in the queue, and on threads other than the worker's, when it is in the queue. In both cases
    /// it will be run. Should the worker be killed before the master can see a task of a handler, then
    /// the handler's event is not done either: it is handled again, or its client is told.
    ///
    /// In [`Handler::start`](crate::Handler::start) it returns at once. Such a task is submitted when the worker is
    /// ready, and never if it does not become so; if the queue has no room then, `finish` gets
    /// [`TaskError::QueueFull`].
    pub async fn detach_task(
        &self,
        data: impl Into<Bytes>,
    ) -> std::result::Result<TaskId, TaskError> {
        self.detach_task_with(data, TaskOptions::default()).await
    }

    /// As [`Worker::detach_task`], by a certain task worker or within a time.
    pub async fn detach_task_with(
        &self,
        data: impl Into<Bytes>,
        options: TaskOptions,
    ) -> std::result::Result<TaskId, TaskError> {
        let (wanted, timeout) = self.checked(&options)?;
        let shared = self.shared();
        let mut command = submission(0, DETACHED, wanted, timeout, data.into());
        if shared.is_starting() {
            return Ok(shared.submit_early(&command)?);
        }
        if let Some(task) = shared.submit(command.header, &command.head, &command.payload) {
            return Ok(task);
        }
        let expected = shared.awaited.acceptance();
        command.header.aux = expected.token();
        shared.push(0, command).await?;
        match expected.answer().await {
            Answer::Accepted(task) => Ok(task),
            Answer::Failed(payload) => Err(TaskError::from_payload(&payload, wanted)),
            Answer::Data(_) | Answer::Lost => Err(TaskError::Lost),
        }
    }

    /// Sends a message to another worker or task worker, whose
    /// [`Handler::pipe_message`](crate::Handler::pipe_message) gets it, or to a user process
    /// ([`Worker::process`] says its number), whose [`Process::recv`](crate::Process::recv) does.
    ///
    /// It stays with the master until it is handled: if the receiver dies, its successor gets it.
    /// While the receiver is behind by `max_parked` bytes, messages to it are dropped, logged and
    /// counted (`dropped` in `status`).
    pub async fn pipe(&self, to: WorkerId, data: impl Into<Bytes>) -> Result {
        let places = self.settings().places();
        if usize::from(to.0) >= places {
            return Err(Error::new(format!(
                "there is no worker {to}: workers, task workers and processes are 0 to {}",
                places - 1
            )));
        }
        let none = ConnId::from_u64(0);
        let header = CommandHeader {
            code: to.0,
            ..CommandHeader::new(CommandKind::Pipe, none)
        };
        Ok(self
            .shared()
            .push(0, Command::new(header, data.into()))
            .await?)
    }

    /// The number of the user process with this name, for [`Worker::pipe`].
    pub fn process(&self, name: &str) -> Result<WorkerId> {
        self.settings().process(name)
    }

    /// The task worker wanted and the time-out, as they go into a command.
    fn checked(&self, options: &TaskOptions) -> std::result::Result<(u16, u32), TaskError> {
        let task_workers = self.settings().task_workers;
        if task_workers == 0 {
            return Err(TaskError::NoTaskWorkers);
        }
        if let Some(wanted) = options
            .worker
            .filter(|wanted| usize::from(*wanted) >= task_workers)
        {
            return Err(TaskError::NoSuchWorker(wanted));
        }
        let timeout = options.timeout.map_or(0, |timeout| {
            // 0 would be no limit.
            timeout.as_millis().clamp(1, u32::MAX.into()) as u32
        });
        Ok((options.worker.unwrap_or(ANY), timeout))
    }
}

fn submission(token: u64, flags: u8, wanted: u16, timeout: u32, data: Bytes) -> Command {
    let none = ConnId::from_u64(0);
    let header = CommandHeader {
        flags,
        code: wanted,
        aux: token,
        ..CommandHeader::new(CommandKind::TaskSubmit, none)
    };
    let head = match timeout {
        0 => Bytes::from_static(&NO_TIMEOUT),
        timeout => Bytes::copy_from_slice(&timeout.to_le_bytes()),
    };
    Command {
        header,
        head,
        payload: data,
    }
}

/// A task somebody waits for. Dropped while it is open, it takes the task back.
struct Submitted<'a> {
    shared: &'a Arc<Shared>,
    token: u64,
    open: bool,
}

impl Drop for Submitted<'_> {
    fn drop(&mut self) {
        if self.open {
            let none = ConnId::from_u64(0);
            let header = CommandHeader {
                aux: self.token,
                ..CommandHeader::new(CommandKind::TaskCancel, none)
            };
            self.shared.post(0, Command::new(header, Bytes::new()));
        }
    }
}

/// Any task worker.
const ANY: u16 = u16::MAX;
static NO_TIMEOUT: [u8; 4] = [0; 4];
