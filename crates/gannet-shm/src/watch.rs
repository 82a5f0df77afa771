//! Waiting for shared memory in async code.
//!
//! No runtime can wait for a word in memory, and the thread of an event loop must not sleep on it.
//! So the first future that waits for an object starts a thread for it, the *watcher*, which sleeps
//! in its place and wakes all futures of this process that wait for the object. It ends by itself
//! when nobody has waited for a while. A process that waits for nothing has no such thread.
//!
//! # States of a watcher
//!
//! | state   | left by | to |
//! |---------|---------|----|
//! | none    | a future that has to wait; under the lock | running |
//! | running | a sleep that ended when nobody had waited for [`LINGER`]; under the lock | none |
//!
//! # Invariants
//!
//! 1. A future that is pending stands in `waiting`, and a watcher runs. (If no thread can be
//!    started, the future is polled again and again instead: slow, but not stuck.)
//! 2. The watcher's ticket is not younger than the look of any future that it has not woken since.
//!    A future enters first, looks then; the watcher takes a ticket, wakes all if it is another
//!    than the one before, sleeps on it. So a change behind a future's look moves the bell away
//!    from the ticket that the watcher sleeps on or is about to compare.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::sleepers::{Sleepers, Ticket};

/// The futures of this process that wait for one object.
pub(crate) struct Watch {
    sleepers: Sleepers,
    /// How long the watcher sleeps without looking.
    pause: Duration,
    /// Whether to wake all after a pause in which nobody rang.
    stirred: Box<dyn Fn() -> bool + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Watch {
    pub(crate) fn new(
        sleepers: Sleepers,
        pause: Duration,
        stirred: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<Watch> {
        Arc::new(Watch {
            sleepers,
            pause,
            stirred: Box::new(stirred),
            state: Mutex::default(),
        })
    }

    /// Waits until `look` has found something. It is called at least once, and after every change.
    pub(crate) fn until<T, F: FnMut() -> Option<T>>(self: &Arc<Watch>, look: F) -> Until<F> {
        Until {
            watch: self.clone(),
            look,
            place: None,
        }
    }

    fn enter(self: &Arc<Watch>, place: &mut Option<u64>, waker: &Waker) {
        let mut state = self.state();
        let place = *place.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        state.waiting.insert(place, waker.clone());
        if !state.running {
            let (watch, ticket) = (self.clone(), self.sleepers.announce());
            let started = thread::Builder::new()
                .name("gannet-watch".to_owned())
                .stack_size(STACK)
                .spawn(move || watch.run(ticket));
            state.running = started.is_ok();
            if !state.running {
                waker.wake_by_ref();
            }
        }
    }

    fn leave(&self, place: u64) {
        self.state().waiting.remove(&place);
    }

    fn run(&self, mut ticket: Ticket) {
        let mut needed = Instant::now();
        loop {
            self.sleepers.sleep(ticket, self.pause);
            let now = self.sleepers.announce();
            let rung = now != ticket;
            ticket = now;
            let mut state = self.state();
            if state.waiting.is_empty() {
                if needed.elapsed() >= LINGER {
                    state.running = false;
                    return;
                }
                continue;
            }
            needed = Instant::now();
            if rung || (self.stirred)() {
                // They come back if it was not for them.
                let woken = std::mem::take(&mut state.waiting);
                drop(state);
                woken.into_values().for_each(Waker::wake);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// See [`Watch::until`].
#[must_use = "nothing is waited for until it is awaited"]
pub(crate) struct Until<F> {
    watch: Arc<Watch>,
    look: F,
    place: Option<u64>,
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for Until<F> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        if let Some(found) = (this.look)() {
            this.leave();
            return Poll::Ready(found);
        }
        this.watch.enter(&mut this.place, cx.waker());
        this.watch.sleepers.announce();
        match (this.look)() {
            Some(found) => {
                this.leave();
                Poll::Ready(found)
            }
            None => Poll::Pending,
        }
    }
}

impl<F> Until<F> {
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.watch.leave(place);
        }
    }
}

impl<F> Drop for Until<F> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Of a watcher: it only sleeps and wakes.
const STACK: usize = 128 << 10;
/// How long a watcher stays that nobody needs.
const LINGER: Duration = Duration::from_secs(1);
