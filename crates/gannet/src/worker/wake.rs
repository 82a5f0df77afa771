//! Waking the loop of a worker, from any thread.
//!
//! The loop sleeps in one of two places: in the runtime, where a [`Notify`] wakes it; or, in thread
//! mode, outside of it, where only a descriptor does.
//!
//! # Why no wake-up is lost outside
//!
//! Two words, all accesses SeqCst: `called` and `asleep`. Who calls stores `called`, then looks at
//! `asleep`, and strikes the descriptor if that is set. Who goes to sleep stores `asleep`, then looks
//! at `called`. In the one order of all these, one of the two comes first: either the sleeper sees
//! the call, or the caller sees the sleeper.

use std::{
    os::fd::OwnedFd,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use gannet_shm::Bell;
use tokio::sync::{Notify, futures::Notified};

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Wake {
    notify: Notify,
    outside: OnceLock<Outside>,
}

struct Outside {
    asleep: AtomicBool,
    called: AtomicBool,
    /// An eventfd that the sleeper waits for.
    bell: OwnedFd,
}

impl Wake {
    /// From now on the loop may sleep outside of the runtime, where this eventfd wakes it.
    pub(crate) fn reach_outside(&self, bell: OwnedFd) {
        // It is called once.
        let _ = self.outside.set(Outside {
            asleep: AtomicBool::new(false),
            called: AtomicBool::new(false),
            bell,
        });
    }

    /// Wakes the loop, or lets it not go to sleep.
    pub(crate) fn notify_one(&self) {
        self.notify.notify_one();
        if let Some(outside) = self.outside.get() {
            outside.called.store(true, SeqCst);
            if outside.asleep.load(SeqCst) {
                outside.bell.strike();
            }
        }
    }

    /// Waits in the runtime.
    pub(crate) fn notified(&self) -> Notified<'_> {
        self.notify.notified()
    }

    /// Announces sleep outside. `false`: there was a call, and it is to look first.
    pub(crate) fn fall_asleep_outside(&self) -> bool {
        self.outside.get().is_some_and(|outside| {
            outside.asleep.store(true, SeqCst);
            let called = outside.called.load(SeqCst);
            if called {
                outside.called.store(false, SeqCst);
            }
            !called
        })
    }

    /// Awake again.
    pub(crate) fn wake_up_outside(&self) {
        if let Some(outside) = self.outside.get() {
            // Who still sees it strikes once too often.
            outside
                .asleep
                .store(false, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
