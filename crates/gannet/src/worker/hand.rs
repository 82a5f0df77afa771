//! The tasks that a task worker has been handed and not begun.
//!
//! They are read with all other events, and begun one after another: one at a time runs, also if it
//! waits. Until it is begun, a task may be taken back: see `claim`.

use std::collections::VecDeque;

use crate::{claim::Claim, direct::Event};

pub(crate) struct Hand {
    tasks: VecDeque<(usize, Event)>,
    claim: Claim,
    recalled: u64,
}

impl Hand {
    pub(crate) fn new(claim: Claim) -> Self {
        Hand {
            tasks: VecDeque::new(),
            claim,
            recalled: 0,
        }
    }

    /// A task has come from this reactor.
    pub(crate) fn take(&mut self, reactor: usize, event: Event) {
        self.tasks.push_back((reactor, event));
    }

    /// The next task, which is begun by that.
    pub(crate) fn begin(&mut self) -> Option<(usize, Event)> {
        while let Some((reactor, event)) = self.tasks.pop_front() {
            if self.claim.begin(event.header.seq, &mut self.recalled) {
                return Some((reactor, event));
            }
        }
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The master of this reactor is new: it does not know what the one before has handed over.
    pub(crate) fn forget(&mut self, reactor: usize) {
        self.tasks.retain(|(of, _)| *of != reactor);
    }
}
