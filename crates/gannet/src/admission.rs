//! Which detached tasks are taken without a question, and which number they get.
//!
//! A detached task need not wait for the desk's word: its submitter writes it into the ring and goes on, as
//! with anything that it sends. For that it has to be sure that the desk will take it, so the desk says
//! in time when it may not:
//!
//! | word (control region) | written by | meaning |
//! |---|---|---|
//! | last task | whoever numbers a task, by an atomic addition | the number of the last task of the server |
//! | crowded | the desk, before the ring says that what crowded it is taken | half of `task_queue` or of `task_queue_bytes` waits: ask first |
//!
//! A submitter does not ask while it is not crowded, if it has less than [`Admission::ahead`] such tasks under
//! way: written to the ring, and not yet behind the desk's reading position, which it loads (Acquire) before
//! it looks whether it is crowded. What it asks for, the desk refuses when the queue is full.
//!
//! Invariants:
//!
//! 1. A task that was not asked for is never refused for want of room. All that are under way at a time are
//!    a quarter of the queue at most, and they begin to be under way only while it is half empty. So
//!    they alone never fill it; together with as many that are asked for in the same moment they may go
//!    over it by that quarter.
//! 2. A task is written before the event that submitted it is finished, and is visible before that is: both are
//!    in the same ring, in this order, or the other rings are published first (`Local::publish_others`).
//!    So a worker that is killed leaves both, or the task alone, or neither; and in the last two cases the
//!    event comes again.
//! 3. No handler, no event: such a task (of a timer, of a future beside the handlers, of a handler whose event was
//!    a former master's) is published at once.
//!    Other threads and user processes ask: what they write is not in the ring when they go on, or there
//!    may be nobody who reads it any more.
//! 4. Numbers outlive the master, so none is given twice.
//! 5. Who submits without end asks now and then, whatever the desk has taken: after `ahead` tasks in one turn of
//!    the worker's loop. So the loop comes to read the outcomes, which would fill the ring else.
//! 6. In `start` there is no master yet that could be asked. What is submitted there is numbered, and not sure of
//!    its place: the desk refuses it for want of room as if it had been asked, and tells `finish`. So workers that die
//!    after every start fill the queue and no more. What `start` has spawned asks, and waits until the worker
//!    is ready.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gannet_shm::{Position, Region};

use crate::{layout::Dimensions, settings::Settings};

/// Both words, and the share of one submitter.
pub(crate) struct Admission {
    control: Arc<Region>,
    dimensions: Dimensions,
    ahead: u64,
    largest: usize,
}

/// The tasks that a submitter has under way without having asked.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    older: Batch,
    newer: Batch,
}

/// So many tasks, and where the last of them ends in the ring.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    tasks: u64,
    end: Position,
}

impl Admission {
    pub(crate) fn attach(
        control: Arc<Region>,
        dimensions: Dimensions,
        settings: &Settings,
    ) -> Self {
        // During a reload there are two of each.
        let submitters = 2 * (settings.workers + settings.task_workers).max(1);
        let ahead = settings.task_queue / 4 / submitters;
        let largest = settings.task_queue_bytes / 4 / submitters / ahead.max(1);
        Admission {
            control,
            dimensions,
            ahead: ahead as u64,
            largest,
        }
    }

    /// The number of a new task.
    pub(crate) fn next_task(&self) -> u64 {
        let last = self.control.word(self.dimensions.last_task());
        last.fetch_add(1, Relaxed) + 1
    }

    /// Tasks that a submitter may have under way.
    pub(crate) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// Bytes that each of them may have.
    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    /// Whether the desk wants to be asked.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded().load(Relaxed) != 0
    }

    /// The desk says whether it wants to be asked.
    pub(crate) fn set_crowded(&self, crowded: bool) {
        self.crowded().store(u64::from(crowded), Relaxed);
    }

    fn crowded(&self) -> &AtomicU64 {
        self.control.word(self.dimensions.tasks_crowded())
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("ahead", &self.ahead)
            .field("largest", &self.largest)
            .finish_non_exhaustive()
    }
}

impl UnderWay {
    /// How many there are at most, when everything before `read` was taken.
    pub(crate) fn tasks(&mut self, read: Position) -> u64 {
        if self.older.is_before(read) {
            self.older = std::mem::take(&mut self.newer);
            if self.older.is_before(read) {
                self.older = Batch::default();
            }
        }
        self.older.tasks + self.newer.tasks
    }

    /// One more, that ends here in the ring.
    pub(crate) fn add(&mut self, end: Position) {
        self.newer.tasks += 1;
        self.newer.end = end;
    }
}

impl Batch {
    fn is_before(&self, read: Position) -> bool {
        self.tasks == 0 || self.end <= read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::CONTROL_KIND;

    fn admission(settings: &Settings) -> Admission {
        let dimensions = Dimensions {
            tls_words: 0,
            reactors: 2,
            slots: 1,
            ring: 64 << 10,
            arena: 1 << 20,
        };
        let region = Region::create("control", CONTROL_KIND, dimensions.control_len()).unwrap();
        Admission::attach(region, dimensions, settings)
    }

    #[test]
    fn all_that_is_under_way_is_a_quarter_of_the_queue() {
        for (workers, task_workers) in [(1, 1), (2, 2), (16, 48), (1_000, 1_000)] {
            let settings = Settings {
                workers,
                task_workers,
                ..Settings::default()
            };
            let admission = admission(&settings);
            let submitters = 2 * (workers + task_workers) as u64;
            let tasks = submitters * admission.ahead();
            assert!(tasks <= settings.task_queue as u64 / 4);
            let bytes = tasks as usize * admission.largest();
            assert!(bytes <= settings.task_queue_bytes / 4);
        }
        let small = Settings {
            task_queue: 3,
            task_workers: 1,
            ..Settings::default()
        };
        assert_eq!(
            admission(&small).ahead(),
            0,
            "every place is one to ask for"
        );
    }

    #[test]
    fn what_was_taken_is_not_under_way() {
        let mut under_way = UnderWay::default();
        for end in [8, 16, 24] {
            under_way.add(Position(end));
        }
        assert_eq!(under_way.tasks(Position(0)), 3);
        under_way.add(Position(32));
        assert_eq!(
            under_way.tasks(Position(8)),
            4,
            "those behind count as well"
        );
        assert_eq!(under_way.tasks(Position(24)), 1);
        assert_eq!(under_way.tasks(Position(32)), 0);
    }

    #[test]
    fn a_reader_that_is_always_behind_is_followed() {
        let mut under_way = UnderWay::default();
        for turn in 1..1_000u64 {
            for record in 0..10 {
                under_way.add(Position(turn * 80 + (record + 1) * 8));
            }
            // It has read what was written a turn ago.
            assert!(under_way.tasks(Position(turn * 80)) <= 20);
        }
    }

    #[test]
    fn numbers_are_drawn_once() {
        let admission = admission(&Settings::default());
        let draw = || -> Vec<u64> { (0..10_000).map(|_| admission.next_task()).collect() };
        let mut all = std::thread::scope(|scope| {
            let other = scope.spawn(draw);
            let mut all = draw();
            all.extend(other.join().unwrap());
            all
        });
        all.sort_unstable();
        assert_eq!(all, (1..=20_000).collect::<Vec<u64>>());
    }
}
