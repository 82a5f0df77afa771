//! Answers that somebody waits for, by token.
//!
//! A token is the worker's incarnation and a number, so that an answer for a predecessor that
//! died meets nobody.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{SendError, TaskId};

pub(crate) struct Awaited {
    waiting: Mutex<HashMap<u64, Waiting>>,
    incarnation: u64,
    next: AtomicU32,
}

struct Waiting {
    reactor: usize,
    /// It waits for the task to be accepted, not for its result.
    acceptance: bool,
    sender: oneshot::Sender<Answer>,
}

/// What can come.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Of a query, or the result of a task.
    Data(Bytes),
    /// The payload of a failed task.
    Failed(Bytes),
    Accepted(TaskId),
    /// The master died.
    Lost,
}

impl Awaited {
    pub(crate) fn new(incarnation: u64) -> Self {
        Awaited {
            waiting: Mutex::default(),
            incarnation,
            next: AtomicU32::new(0),
        }
    }

    /// Expects the reply of a reactor to a query.
    pub(crate) fn reply(&self, reactor: usize) -> Expected<'_> {
        self.expect(reactor, false)
    }

    /// Expects the result of a task.
    pub(crate) fn result(&self) -> Expected<'_> {
        self.expect(0, false)
    }

    /// Expects a task to be accepted.
    pub(crate) fn acceptance(&self) -> Expected<'_> {
        self.expect(0, true)
    }

    /// An answer came. One that nobody waits for (any more) is dropped.
    pub(crate) fn answer(&self, token: u64, answer: Answer) {
        let mut waiting = self.lock();
        let accepted = matches!(answer, Answer::Accepted(_));
        if waiting
            .get(&token)
            .is_some_and(|waiting| accepted && !waiting.acceptance)
        {
            return;
        }
        if let Some(waiting) = waiting.remove(&token) {
            let _ = waiting.sender.send(answer);
        }
    }

    /// The master died: nothing that was asked of this reactor will be answered.
    pub(crate) fn lose(&self, reactor: usize) {
        let mut waiting = self.lock();
        let lost = waiting.extract_if(|_, waiting| waiting.reactor == reactor);
        for (_, waiting) in lost {
            let _ = waiting.sender.send(Answer::Lost);
        }
    }

    fn expect(&self, reactor: usize, acceptance: bool) -> Expected<'_> {
        let number = self.next.fetch_add(1, Relaxed);
        let token = self.incarnation << 32 | u64::from(number);
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(
            token,
            Waiting {
                reactor,
                acceptance,
                sender,
            },
        );
        Expected {
            awaited: self,
            token,
            receiver,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits. Dropping it forgets the token.
pub(crate) struct Expected<'a> {
    awaited: &'a Awaited,
    token: u64,
    receiver: oneshot::Receiver<Answer>,
}

impl Expected<'_> {
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    pub(crate) async fn answer(mut self) -> Answer {
        (&mut self.receiver).await.unwrap_or(Answer::Lost)
    }

    pub(crate) async fn reply(self) -> Result<Bytes, SendError> {
        match self.answer().await {
            Answer::Data(data) => Ok(data),
            _ => Err(SendError::Lost),
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.awaited.lock().remove(&self.token);
    }
}
