//! The tasks that a task worker has been handed: it runs the first, the others are ahead.

use std::collections::VecDeque;

use crate::{claim::Claim, wire::command::TASK_TIME};

pub(super) struct Hand {
    tasks: VecDeque<Handed>,
    claim: Claim,
    /// What a task takes, as far as is known: a mean over the last ones, in [`TASK_TIME`].
    mean: f32,
    /// The event that was last seen to be begun, if one was, and since when (ms).
    seen: (Option<u64>, u64),
}

/// One of them.
struct Handed {
    /// Number of the event.
    seq: u64,
    task: u64,
    /// When (ms).
    at: u64,
}

impl Hand {
    pub(super) fn new(claim: Claim) -> Self {
        Hand {
            tasks: VecDeque::new(),
            claim,
            mean: TOGETHER,
            seen: (None, 0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// It was handed a task.
    pub(super) fn push(&mut self, seq: u64, task: u64, now: u64) {
        if self.tasks.is_empty() {
            // Its time begins now.
            self.seen = (None, now);
        }
        self.tasks.push_back(Handed { seq, task, at: now });
    }

    /// A task was done, and took so long. Returns the one that is begun next.
    pub(super) fn done(&mut self, task: u64, took: u16) -> Option<u64> {
        if let Some(place) = self.tasks.iter().position(|handed| handed.task == task) {
            self.tasks.remove(place);
        }
        self.mean += (f32::from(took) - self.mean) / 8.0;
        self.tasks.front().map(|handed| handed.task)
    }

    /// It may be handed one more behind those that it has.
    pub(super) fn takes_more(&self) -> bool {
        let together = self.mean * self.tasks.len() as f32;
        together < TOGETHER && self.tasks.len() < AHEAD && self.claim.begun().is_some()
    }

    /// It may be handed one more along with those that it is about to begin, so that no other task worker
    /// need be woken: it has begun none of them, so none is known to take long, and they are short.
    pub(super) fn takes_along(&self) -> bool {
        let Some(first) = self.tasks.front() else {
            return false;
        };
        let together = self.mean * self.tasks.len() as f32;
        together < ALONG
            && self.tasks.len() < AHEAD
            && self.claim.begun().is_some_and(|begun| begun < first.seq)
    }

    /// It has not seen yet that something was taken back.
    pub(super) fn is_absent(&self) -> bool {
        self.claim.begun().is_none()
    }

    /// Whether tasks wait behind one that takes its time.
    pub(super) fn is_held_up(&mut self, now: u64) -> bool {
        if self.tasks.len() < 2 {
            return false;
        }
        let Some(begun) = self.claim.begun() else {
            return false;
        };
        if self.seen.0 == Some(begun) {
            return now - self.seen.1 >= PATIENCE;
        }
        self.seen = (Some(begun), now);
        false
    }

    /// The tasks that it was handed a while ago and has not begun.
    pub(super) fn left_waiting(&self, now: u64) -> impl Iterator<Item = u64> {
        // A recall that it has not seen has left nothing.
        let begun = self.claim.begun().unwrap_or(u64::MAX);
        let waiting = self
            .tasks
            .iter()
            .skip_while(move |handed| handed.seq <= begun);
        waiting
            .take_while(move |handed| now - handed.at >= PATIENCE)
            .map(|handed| handed.task)
    }

    /// Takes back what was not begun: numbers of events.
    pub(super) fn recall(&mut self) -> Vec<u64> {
        let Some(last) = self.tasks.back() else {
            return Vec::new();
        };
        let Some(begun) = self.claim.recall(last.seq) else {
            return Vec::new();
        };
        let kept = self.tasks.partition_point(|handed| handed.seq <= begun);
        let taken = self.tasks.split_off(kept);
        taken.into_iter().map(|handed| handed.seq).collect()
    }
}

/// Tasks that a task worker is handed at most: it runs one of them.
pub(super) const AHEAD: usize = 128;
/// And not more than what takes so long together, by what the last ones took: 2 ms.
const TOGETHER: f32 = 2e6 / TASK_TIME as f32;
/// What so long together is done by one task worker, by what the last ones took, though another has
/// nothing to do: 0.1 ms, a few times what it costs to wake that.
const ALONG: f32 = 1e5 / TASK_TIME as f32;
/// After so many ms at one task, a task worker has the others taken back; and those that it has had for so long,
/// if another has nothing to do.
pub(super) const PATIENCE: u64 = 5;
