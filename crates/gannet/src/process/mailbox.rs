//! Messages that wait for a user process's function.
//!
//! A message is in one of three states: **waiting** (in the queue), **taken** (the function has it),
//! **done** (dropped by the function; the master is told, and forgets it). The master keeps every
//! message that is not done, so whatever a process leaves when it dies goes to its successor in the
//! old order. How much waits is bounded there: by the ring, its arena and `max_parked`.
//!
//! The process's `current` word in shared memory names the message that was taken last while it is
//! not done: a process that dies is thought to have died of that one.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::{WorkerId, worker::Shared};

/// A message to a user process: see [`Process::recv`](crate::Process::recv).
///
/// It is done when it is dropped. Until then it stays with the server: if the process dies, its
/// successor gets the message again. So keep it until its work is done. A message that three
/// processes died of is given up, logged and counted (`dropped`).
#[must_use = "a message is done when it is dropped"]
pub struct ProcessMessage {
    mail: Mail,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    done: Option<oneshot::Sender<()>>,
}

/// What there is of a message beside the wish to know when it is done.
pub(crate) struct Mail {
    pub(crate) from: WorkerId,
    pub(crate) data: Bytes,
    pub(crate) redelivered: bool,
    pub(crate) reactor: usize,
    pub(crate) seq: u64,
}

#[derive(Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    came: Notify,
    /// Messages that are done and of which the master was not told yet.
    untold: AtomicU64,
    /// The function has ended.
    over: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<(Mail, oneshot::Sender<()>)>,
    /// The process is to end: so many are still handed out.
    left: Option<usize>,
}

impl ProcessMessage {
    /// The worker, task worker or user process that sent it, or whose output it is.
    pub fn from(&self) -> WorkerId {
        self.mail.from
    }

    /// What was sent.
    pub fn data(&self) -> &Bytes {
        &self.mail.data
    }

    /// Whether a process had taken it before, which died before it was done.
    pub fn is_redelivered(&self) -> bool {
        self.mail.redelivered
    }
}

impl Drop for ProcessMessage {
    fn drop(&mut self) {
        // If it ends the process, the successor is to have the message again.
        if std::thread::panicking() {
            return;
        }
        let word = self.shared.current(self.mail.reactor);
        let _ = word.compare_exchange(self.mail.seq, 0, Relaxed, Relaxed);
        if let Some(done) = self.done.take() {
            self.mailbox.untold.fetch_add(1, AcqRel);
            if done.send(()).is_err() {
                self.mailbox.told();
            }
        }
    }
}

impl fmt::Debug for ProcessMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessMessage")
            .field("from", &self.mail.from)
            .field("data", &self.mail.data)
            .field("redelivered", &self.mail.redelivered)
            .finish()
    }
}

impl Mailbox {
    /// Puts a message in; ends when it is done, and never if it is not. `true`: call
    /// [`Mailbox::told`] when the master has been told. `false`: a panic dropped it.
    pub(crate) fn deliver(self: &Arc<Self>, mail: Mail) -> impl Future<Output = bool> + use<> {
        let (done, is_done) = oneshot::channel();
        self.lock().queue.push_back((mail, done));
        self.came.notify_one();
        let mailbox = self.clone();
        async move {
            if is_done.await.is_ok() {
                return true;
            }
            tokio::time::sleep(GRACE).await;
            if mailbox.over.load(Acquire) {
                std::future::pending::<()>().await;
            }
            false
        }
    }

    /// The function has ended: what it has not done is for its successor.
    pub(crate) fn function_ended(&self) {
        self.over.store(true, Release);
    }

    /// The master was told of one that is done.
    pub(crate) fn told(&self) {
        self.untold.fetch_sub(1, Release);
    }

    /// Whether the master was told of everything that is done.
    pub(crate) fn is_settled(&self) -> bool {
        self.untold.load(Acquire) == 0
    }

    /// The process is to end: what is there now is handed out, nothing else.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        if waiting.left.is_none() {
            waiting.left = Some(waiting.queue.len());
        }
        drop(waiting);
        self.came.notify_waiters();
        self.came.notify_one();
    }

    pub(crate) async fn recv(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<ProcessMessage> {
        loop {
            let came = self.came.notified();
            let taken = {
                let mut waiting = self.lock();
                if waiting.left == Some(0) {
                    // Others that wait are to hear it too.
                    self.came.notify_one();
                    return None;
                }
                let taken = waiting.queue.pop_front();
                if taken.is_some() {
                    waiting.left = waiting.left.map(|left| left - 1);
                    if !waiting.queue.is_empty() || waiting.left == Some(0) {
                        self.came.notify_one();
                    }
                }
                taken
            };
            if let Some((mail, done)) = taken {
                shared.current(mail.reactor).store(mail.seq, Release);
                return Some(ProcessMessage {
                    mail,
                    shared: shared.clone(),
                    mailbox: self.clone(),
                    done: Some(done),
                });
            }
            came.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the function has to end because of a panic of one of its tasks.
const GRACE: Duration = Duration::from_secs(1);
