//! User processes of a server: what [`Server::add_process`](crate::Server::add_process) runs, and
//! what its function is given.
//!
//! - [`options`]: what is said of a process before it runs.
//! - [`mailbox`]: messages that wait for it, and when they are done.
//! - [`Process`]: the handle that its function has.
//!
//! How such a process runs is in `worker::process`; when it runs is decided in `manager::places`.

mod mailbox;
mod options;

use std::{fmt, ops::Deref, pin::Pin, sync::Arc};

use tokio::sync::watch;

pub use self::{
    mailbox::ProcessMessage,
    options::{Output, ProcessOptions, Restart},
};
pub(crate) use self::{
    mailbox::{Mail, Mailbox},
    options::{ProcessSpec, check, check_name, target},
};
use crate::{Result, Worker};

/// The user process that a function runs in: what [`Server::add_process`] gives the function.
///
/// It is a [`Worker`] as well, and does what a worker does: sends to connections by their number
/// ([`Worker::send`], [`Worker::conn`]), publishes, iterates connections, has tasks run, sends
/// messages to workers and other processes ([`Worker::pipe`], [`Worker::process`]). Results of
/// [`Worker::detach_task`] go to nobody here, failures into the log; await [`Worker::task`] where
/// the result matters. Cheap to clone; may be used on any thread.
///
/// [`Server::add_process`]: crate::Server::add_process
#[derive(Clone)]
pub struct Process {
    worker: Worker,
    name: Arc<str>,
    mailbox: Arc<Mailbox>,
    stop: watch::Receiver<bool>,
}

/// The function of a user process.
pub(crate) type ProcessFn =
    Arc<dyn Fn(Process) -> Pin<Box<dyn Future<Output = Result>>> + Send + Sync>;

impl Process {
    pub(crate) fn new(
        worker: Worker,
        name: &str,
        mailbox: Arc<Mailbox>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Process {
            worker,
            name: name.into(),
            mailbox,
            stop,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next message that was sent to this process. Waits for one; cancel safe.
    ///
    /// `None` when the process is asked to end and everything is taken that was there by then: what
    /// comes later is for its successor. So this is a whole function of a process:
    ///
    /// ```
    /// # async fn handle(_: &[u8]) -> gannet::Result { Ok(()) }
    /// async fn consume(process: gannet::Process) -> gannet::Result {
    ///     while let Some(message) = process.recv().await {
    ///         handle(message.data()).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn recv(&self) -> Option<ProcessMessage> {
        self.mailbox.recv(self.worker.shared()).await
    }

    /// Waits until the process is asked to end, by a reload or a stop of the server. It is killed if
    /// the function has not returned within `max_wait_time_ms` of that.
    pub async fn stopping(&self) {
        // The sender lives as long as the process.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Whether the process was asked to end.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// The same as a worker.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }
}

impl Deref for Process {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.name)
    }
}
