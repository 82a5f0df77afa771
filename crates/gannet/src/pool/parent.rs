//! A running pool, in its parent.

use std::{fmt, marker::PhantomData, thread::JoinHandle};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, watch};

use super::frame::{decode, encode};
use crate::{Error, Result};

/// A running pool of child processes: see [`Pool::define`].
///
/// Dropping it kills the children. To end them well, call [`Pool::stop`] and receive until the end,
/// or [`Pool::finish`].
///
/// The methods that wait come twice: for async code, and as `…_blocking` for code without a runtime.
pub struct Pool<Request, Reply> {
    sender: PoolSender<Request>,
    events: mpsc::Receiver<Event>,
    phase: watch::Sender<Phase>,
    thread: Option<JoinHandle<()>>,
    types: PhantomData<fn() -> Reply>,
}

/// Sends messages to the children of a pool, from anywhere in the parent: see [`Pool::sender`].
pub struct PoolSender<Request> {
    name: String,
    queues: Vec<mpsc::Sender<Bytes>>,
    max_message: usize,
    types: PhantomData<fn(Request)>,
}

/// Something happened in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent<Reply> {
    /// A child has sent a message.
    Reply {
        /// Its number.
        child: usize,
        /// What it sent.
        reply: Reply,
    },
    /// A child has written a line to standard output (without its end): see
    /// [`PoolOptions::capture_output`](crate::PoolOptions::capture_output). What is no UTF-8 is
    /// replaced by U+FFFD.
    Line {
        /// Its number.
        child: usize,
        /// What it wrote.
        line: String,
    },
    /// A child has ended. Everything that it sent came before this. What was sent to it and was not
    /// answered was handled or not: whether to send it again, the program knows.
    Exited {
        /// Its number.
        child: usize,
        /// `exit code 0`, `signal 9 (SIGKILL)`, or the function's error.
        how: String,
        /// Whether it is started again. What waits for it in the queue goes to the next one.
        restarts: bool,
    },
}

/// What the pool's thread tells.
#[derive(Debug)]
pub(super) enum Event {
    Reply(usize, Bytes),
    Line(usize, String),
    Exited(usize, String, bool),
}

/// What the pool's thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Children are to end.
    Stopping,
    /// Children are to be killed.
    Dropped,
}

/// A pool whose children run.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) queues: Vec<mpsc::Sender<Bytes>>,
    pub(super) max_message: usize,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) thread: JoinHandle<()>,
}

impl<Request, Reply> Pool<Request, Reply> {
    pub(super) fn new(running: Running) -> Result<Self> {
        Ok(Pool {
            sender: PoolSender {
                name: running.name,
                queues: running.queues,
                max_message: running.max_message,
                types: PhantomData,
            },
            events: running.events,
            phase: running.phase,
            thread: Some(running.thread),
            types: PhantomData,
        })
    }

    /// How many children it has.
    pub fn processes(&self) -> usize {
        self.sender.queues.len()
    }

    /// A handle that sends, for another task or thread: one that waits for room in a child's queue
    /// must not be the one that is to receive what the child waits to get rid of.
    pub fn sender(&self) -> PoolSender<Request> {
        self.sender.clone()
    }

    /// Asks all children to end. Nothing can be sent any more; what was sent before is received by
    /// the children, then their `recv` gives `None`. They are killed when `max_wait` has passed.
    ///
    /// Go on receiving until the end: what they send still comes.
    pub fn stop(&mut self) {
        self.phase.send_if_modified(|phase| {
            let runs = *phase == Phase::Running;
            if runs {
                *phase = Phase::Stopping;
            }
            runs
        });
    }

    /// Stops the children, and waits until all are gone. What they send is dropped.
    pub async fn finish(mut self) {
        self.stop();
        while self.events.recv().await.is_some() {}
    }

    /// As [`Pool::finish`].
    pub fn finish_blocking(mut self) -> Result {
        refuse_in_runtime("finish")?;
        self.stop();
        while self.events.blocking_recv().is_some() {}
        Ok(())
    }
}

impl<Request: Serialize, Reply> Pool<Request, Reply> {
    /// As [`PoolSender::send`].
    pub async fn send(&self, child: usize, request: &Request) -> Result {
        self.sender.send(child, request).await
    }

    /// As [`PoolSender::send_blocking`].
    pub fn send_blocking(&self, child: usize, request: &Request) -> Result {
        self.sender.send_blocking(child, request)
    }

    /// As [`PoolSender::try_send`].
    pub fn try_send(&self, child: usize, request: &Request) -> Result<bool> {
        self.sender.try_send(child, request)
    }
}

impl<Request, Reply: DeserializeOwned> Pool<Request, Reply> {
    /// What happens next. Waits; cancel safe. `None`: all children have ended for good.
    ///
    /// Receive always, or children wait: their messages, their captured lines and the news of their
    /// end come this way, and at most `queue` of them wait in the parent.
    ///
    /// An error: a child has sent what is no `Reply`, which happens when the program was replaced by
    /// one with other types. The next call has the next event.
    pub async fn recv(&mut self) -> Result<Option<PoolEvent<Reply>>> {
        self.events.recv().await.map(public).transpose()
    }

    /// As [`Pool::recv`].
    pub fn recv_blocking(&mut self) -> Result<Option<PoolEvent<Reply>>> {
        refuse_in_runtime("recv")?;
        self.events.blocking_recv().map(public).transpose()
    }
}

impl<Request, Reply> Drop for Pool<Request, Reply> {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Dropped);
        // The thread may wait for room.
        self.events.close();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed, and has ended the children.
            let _ = thread.join();
        }
    }
}

impl<Request, Reply> fmt::Debug for Pool<Request, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.sender.name)
    }
}

impl<Request: Serialize> PoolSender<Request> {
    /// Sends a child a message. Waits while `queue` messages wait for it; cancel safe: then it was
    /// not sent. An error if the message is too large, if there is no such child, or if it has ended
    /// for good.
    pub async fn send(&self, child: usize, request: &Request) -> Result {
        let (queue, frame) = self.prepare(child, request)?;
        queue.send(frame).await.map_err(|_| self.ended(child))
    }

    /// As [`PoolSender::send`].
    pub fn send_blocking(&self, child: usize, request: &Request) -> Result {
        refuse_in_runtime("send")?;
        let (queue, frame) = self.prepare(child, request)?;
        queue.blocking_send(frame).map_err(|_| self.ended(child))
    }

    /// As [`PoolSender::send`], without waiting: `false` if `queue` messages wait already.
    pub fn try_send(&self, child: usize, request: &Request) -> Result<bool> {
        let (queue, frame) = self.prepare(child, request)?;
        match queue.try_send(frame) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.ended(child)),
        }
    }

    fn prepare(&self, child: usize, request: &Request) -> Result<(&mpsc::Sender<Bytes>, Bytes)> {
        let queue = self.queues.get(child).ok_or_else(|| {
            Error::new(format!(
                "the pool `{}` has no child {child}: they are 0 to {}",
                self.name,
                self.queues.len() - 1
            ))
        })?;
        Ok((queue, encode(request, self.max_message)?))
    }

    fn ended(&self, child: usize) -> Error {
        let name = &self.name;
        Error::new(format!(
            "child {child} of the pool `{name}` has ended or is to end"
        ))
    }
}

impl<Request> Clone for PoolSender<Request> {
    fn clone(&self) -> Self {
        PoolSender {
            name: self.name.clone(),
            queues: self.queues.clone(),
            max_message: self.max_message,
            types: PhantomData,
        }
    }
}

impl<Request> fmt::Debug for PoolSender<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolSender({})", self.name)
    }
}

fn public<Reply: DeserializeOwned>(event: Event) -> Result<PoolEvent<Reply>> {
    Ok(match event {
        Event::Reply(child, frame) => PoolEvent::Reply {
            child,
            reply: decode(&frame).map_err(|error| error.context(format!("child {child}")))?,
        },
        Event::Line(child, line) => PoolEvent::Line { child, line },
        Event::Exited(child, how, restarts) => PoolEvent::Exited {
            child,
            how,
            restarts,
        },
    })
}

/// To block there would hold up everything that runs in it.
fn refuse_in_runtime(what: &str) -> Result {
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(Error::new(format!(
            "`{what}_blocking` was called in async code: use `{what}` there"
        )));
    }
    Ok(())
}
