//! The way to one reactor, as seen from any thread: an inbox for other threads, and the line of
//! those who wait for room.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::Waker,
};

use super::shared::Command;

/// One for each reactor.
#[derive(Default)]
pub(crate) struct Lane {
    inbox: Mutex<Inbox>,
    /// Whether the inbox holds something.
    pub(crate) mail: AtomicBool,
    /// Those on the worker's thread who wait for room in the ring.
    pub(crate) room: Line,
    /// Counted up when a new master takes over: events of before need no outcome any more.
    pub(crate) epoch: AtomicU32,
}

#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) queue: VecDeque<Command>,
    /// Bytes in the queue.
    pub(crate) bytes: usize,
    /// Commands ever put in, and taken out.
    pub(crate) delivered: u64,
    pub(crate) taken: u64,
    /// Whether others wait for room here.
    pub(crate) line: Waiters,
}

impl Lane {
    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
    }
}

impl Inbox {
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < INBOX_COMMANDS && self.bytes < INBOX_BYTES
    }
}

/// Waiters behind a lock that is only taken while there are any.
#[derive(Default)]
pub(crate) struct Line {
    waiters: Mutex<Waiters>,
    waiting: AtomicBool,
}

impl Line {
    /// Whether it is the turn of whoever holds this place (`None`: none yet).
    pub(crate) fn may_go(&self, place: Option<u64>) -> bool {
        !self.waiting.load(Relaxed) || self.lock().may_go(place)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.waiting.load(Relaxed)
    }

    /// Takes a place at the end, or keeps the one it has.
    pub(crate) fn wait(&self, place: &mut Option<u64>, waker: &Waker) {
        let mut waiters = self.lock();
        waiters.wait(place, waker);
        self.waiting.store(true, Relaxed);
    }

    /// Gives a place up. The next in the line is woken if this was the first.
    pub(crate) fn leave(&self, place: u64) {
        let mut waiters = self.lock();
        waiters.leave(place);
        self.waiting.store(!waiters.queue.is_empty(), Relaxed);
    }

    pub(crate) fn wake_first(&self) {
        if !self.is_empty() {
            self.lock().wake_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// First come, first served.
#[derive(Default)]
pub(crate) struct Waiters {
    queue: VecDeque<(u64, Waker)>,
    next: u64,
}

impl Waiters {
    pub(crate) fn may_go(&self, place: Option<u64>) -> bool {
        self.queue
            .front()
            .is_none_or(|(first, _)| Some(*first) == place)
    }

    pub(crate) fn wait(&mut self, place: &mut Option<u64>, waker: &Waker) {
        if let Some(place) = *place
            && let Some((_, known)) = self.queue.iter_mut().find(|(number, _)| *number == place)
        {
            known.clone_from(waker);
            return;
        }
        *place = Some(self.next);
        self.queue.push_back((self.next, waker.clone()));
        self.next += 1;
    }

    pub(crate) fn leave(&mut self, place: u64) {
        let first = self
            .queue
            .front()
            .is_some_and(|(number, _)| *number == place);
        self.queue.retain(|(number, _)| *number != place);
        if first {
            self.wake_first();
        }
    }

    pub(crate) fn wake_first(&self) {
        if let Some((_, waker)) = self.queue.front() {
            waker.wake_by_ref();
        }
    }
}

/// Commands that other threads may have waiting for the worker's thread.
const INBOX_COMMANDS: usize = 1024;
/// Bytes of them; one command may go over it.
const INBOX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let line = Line::default();
        let (mut first, mut second) = (None, None);
        line.wait(&mut first, Waker::noop());
        line.wait(&mut second, Waker::noop());
        line.wait(&mut first, Waker::noop());
        assert!(line.may_go(first) && !line.may_go(second) && !line.may_go(None));
        line.leave(first.unwrap());
        assert!(line.may_go(second) && !line.may_go(None));
        line.leave(second.unwrap());
        assert!(line.may_go(None) && line.is_empty());
    }
}
