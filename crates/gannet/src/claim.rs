//! Who has a task that was handed to a task worker before it could begin it.
//!
//! A task worker has its next tasks in its ring while it runs one, so that it goes on without waking
//! anybody. Until it has begun them, the desk may take them back: because another task worker has
//! nothing to do, or because they are not wanted any more. One word decides each race:
//!
//! | word | written by | meaning |
//! |---|---|---|
//! | `TaskBegun` | both, by compare and exchange | the number of the last event whose task was begun; with [`RECALL`]: the desk has taken back what follows |
//! | `TasksRecalled` | the desk, before it sets [`RECALL`] | up to which number |
//!
//! States of an event: **handed** → **begun**, by the task worker, if [`RECALL`] is not set; or → **taken
//! back**, by the desk, if its number is above that in the word. A task worker that finds [`RECALL`]
//! notes how far it goes, clears it, and skips what was taken back. Until then nothing more is handed
//! to it ahead of time, so the desk never recalls twice.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
};

use gannet_shm::Region;

use crate::layout::{Dimensions, WorkerCounter};

/// Both words of a task worker.
#[derive(Debug)]
pub(crate) struct Claim {
    region: Arc<Region>,
    dimensions: Dimensions,
}

impl Claim {
    pub(crate) fn attach(region: Arc<Region>, dimensions: Dimensions) -> Self {
        Claim { region, dimensions }
    }

    /// The task worker begins the task of an event; `recalled` is what it knows to be taken back.
    /// `false`: this one was.
    pub(crate) fn begin(&self, seq: u64, recalled: &mut u64) -> bool {
        let begun = self.word(WorkerCounter::TaskBegun);
        loop {
            let word = begun.load(Acquire);
            let next = if word & RECALL != 0 {
                *recalled = self.word(WorkerCounter::TasksRecalled).load(Acquire);
                word & !RECALL
            } else if seq <= *recalled {
                return false;
            } else {
                seq
            };
            let set = begun.compare_exchange(word, next, AcqRel, Acquire);
            if set.is_ok() && next == seq {
                return true;
            }
        }
    }

    /// The desk takes back what was not begun, up to the number `last`. Returns the number of the last
    /// that was begun; `None`: the task worker has not seen the recall before this one.
    pub(crate) fn recall(&self, last: u64) -> Option<u64> {
        let begun = self.word(WorkerCounter::TaskBegun);
        let mut word = begun.load(Acquire);
        if word & RECALL != 0 {
            return None;
        }
        self.word(WorkerCounter::TasksRecalled).store(last, Release);
        while let Err(now) = begun.compare_exchange(word, word | RECALL, AcqRel, Acquire) {
            word = now;
        }
        Some(word)
    }

    /// The number of the last event whose task was begun; `None`: a recall is not seen yet.
    pub(crate) fn begun(&self) -> Option<u64> {
        let word = self.word(WorkerCounter::TaskBegun).load(Acquire);
        (word & RECALL == 0).then_some(word)
    }

    fn word(&self, word: WorkerCounter) -> &AtomicU64 {
        let at = self.dimensions.worker_counters() + 8 * word as usize;
        self.region.word(at)
    }
}

/// Numbers of events are below it.
const RECALL: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::WORKER_KIND;

    fn claim() -> Claim {
        let dimensions = Dimensions {
            tls_words: 0,
            reactors: 1,
            slots: 1,
            ring: 64 << 10,
            arena: 1 << 20,
        };
        let region = Region::create("worker", WORKER_KIND, dimensions.worker_len()).unwrap();
        Claim::attach(region, dimensions)
    }

    #[test]
    fn what_was_taken_back_is_not_begun() {
        let (claim, mut recalled) = (claim(), 0);
        assert!(claim.begin(3, &mut recalled));
        assert_eq!(claim.recall(5), Some(3));
        assert_eq!(claim.recall(5), None, "not seen yet");
        assert_eq!(claim.begun(), None);
        assert!(!claim.begin(4, &mut recalled));
        assert!(!claim.begin(5, &mut recalled));
        assert_eq!(claim.begun(), Some(3), "the recall is seen");
        assert!(claim.begin(6, &mut recalled), "handed later");
        assert_eq!(claim.recall(6), Some(6), "there was nothing to take back");
        assert!(claim.begin(7, &mut recalled));
    }

    #[test]
    fn each_task_is_begun_or_taken_back_and_never_both() {
        let claim = claim();
        let mut begun_by_worker = Vec::new();
        let mut taken = Vec::new();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut recalled = 0;
                (1..=100_000)
                    .filter(|&seq| claim.begin(seq, &mut recalled))
                    .collect::<Vec<u64>>()
            });
            for last in (100..=100_000).step_by(100) {
                if let Some(begun) = claim.recall(last) {
                    taken.extend(begun + 1..=last);
                }
                std::hint::spin_loop();
            }
            begun_by_worker = worker.join().unwrap();
        });
        taken.sort_unstable();
        taken.dedup();
        assert!(
            taken
                .iter()
                .all(|seq| begun_by_worker.binary_search(seq).is_err())
        );
        let mut all = [begun_by_worker, taken].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=100_000).collect::<Vec<u64>>());
    }
}
