//! How long handlers take, and how long events wait for them: histograms in the memory of a worker.
//!
//! Each worker has one histogram for each [`Timed`], in its region. Only the worker's thread writes to
//! them (a relaxed load and a relaxed store of two words for each time); the manager reads them,
//! also when the worker is gone, and adds up those of all workers that there ever were. A reader
//! may see a time in its bucket and not yet in the sum.
//!
//! | word      | what                                                          |
//! |-----------|---------------------------------------------------------------|
//! | 0 .. 20   | times of at most [`BOUNDS`]\[n\] that the bucket before has not |
//! | 21        | longer ones                                                   |
//! | 22        | sum of all, in nanoseconds                                    |

use std::sync::{Arc, atomic::Ordering::Relaxed};

use gannet_shm::{Region, Words};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Timed {
    Connect,
    Receive,
    Packet,
    Request,
    Open,
    Message,
    Close,
    Task,
    Finish,
    PipeMessage,
    Timer,
    /// From an event's way into the ring until its handler begins.
    Wait,
}

impl Timed {
    /// The handlers', by the name of their method.
    pub(crate) const HANDLERS: [(Timed, &str); 11] = [
        (Timed::Connect, "connect"),
        (Timed::Receive, "receive"),
        (Timed::Packet, "packet"),
        (Timed::Request, "request"),
        (Timed::Open, "open"),
        (Timed::Message, "message"),
        (Timed::Close, "close"),
        (Timed::Task, "task"),
        (Timed::Finish, "finish"),
        (Timed::PipeMessage, "pipe_message"),
        (Timed::Timer, "timer"),
    ];
}

/// A copy of histograms, or the sum of several.
#[derive(Clone, Debug)]
pub(crate) struct Histograms([[u64; WORDS]; COUNT]);

/// A histogram of this process alone.
#[derive(Clone, Debug)]
pub(crate) struct Durations([u64; WORDS]);

/// A histogram, to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Histogram<'a>(&'a [u64; WORDS]);

/// The histograms of a worker, for the worker.
pub(crate) struct Recorder(Words<{ COUNT * WORDS }>);

impl Recorder {
    /// `at`: where they are.
    pub(crate) fn attach(region: Arc<Region>, at: usize) -> Self {
        Recorder(Words::attach(region, at))
    }

    /// Notes a time. Only the worker's thread calls it.
    #[inline]
    pub(crate) fn record(&self, timed: Timed, nanos: u64) {
        let first = timed as usize * WORDS;
        for (word, by) in [(bucket(nanos), 1), (SUM, nanos)] {
            let word = &self.0[first + word];
            word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
        }
    }
}

#[inline]
fn bucket(nanos: u64) -> usize {
    // One after another: nearly all handlers end, and nearly all waits, in the first ones.
    BOUNDS.iter().take_while(|bound| **bound < nanos).count()
}

impl Histograms {
    /// Adds those of a worker.
    pub(crate) fn add(&mut self, region: &Region, at: usize) {
        let words = self.0.as_flattened_mut().iter_mut().enumerate();
        for (index, word) in words {
            *word = word.wrapping_add(region.word(at + index * 8).load(Relaxed));
        }
    }

    pub(crate) fn of(&self, timed: Timed) -> Histogram<'_> {
        Histogram(&self.0[timed as usize])
    }
}

impl Durations {
    pub(crate) fn record(&mut self, nanos: u64) {
        self.0[bucket(nanos)] += 1;
        self.0[SUM] = self.0[SUM].wrapping_add(nanos);
    }

    pub(crate) fn read(&self) -> Histogram<'_> {
        Histogram(&self.0)
    }
}

impl Default for Durations {
    fn default() -> Self {
        Durations([0; WORDS])
    }
}

impl Default for Histograms {
    fn default() -> Self {
        Histograms([[0; WORDS]; COUNT])
    }
}

impl Histogram<'_> {
    /// How many times are at most as long as each of [`BOUNDS`].
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let sums = self.0[..BOUNDS.len()].iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS.into_iter().zip(sums)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0[..SUM].iter().sum()
    }

    /// In nanoseconds.
    pub(crate) fn sum(&self) -> u64 {
        self.0[SUM]
    }
}

/// Upper ends of the buckets in nanoseconds: 10 µs to 60 s, three to a decade, as Prometheus likes
/// them.
pub(crate) const BOUNDS: [u64; 21] = [
    10 * US,
    25 * US,
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    1_000 * MS,
    2_500 * MS,
    5_000 * MS,
    10_000 * MS,
    30_000 * MS,
    60_000 * MS,
];
const US: u64 = 1_000;
const MS: u64 = 1_000 * US;

/// Word of the sum: after the buckets.
const SUM: usize = BOUNDS.len() + 1;
const WORDS: usize = SUM + 1;
const COUNT: usize = Timed::Wait as usize + 1;
/// Bytes of the histograms of a worker.
pub(crate) const BYTES: usize = COUNT * WORDS * 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets_and_departed_workers_add_up() {
        let region = Region::create("histogram", 1, BYTES).unwrap();
        let recorder = Recorder::attach(region.clone(), 0);
        for nanos in [0, 10 * US, 10 * US + 1, 60_000 * MS, 60_001 * MS] {
            recorder.record(Timed::Task, nanos);
        }
        recorder.record(Timed::Wait, 7);

        let mut all = Histograms::default();
        all.add(&region, 0);
        all.add(&region, 0);
        let tasks = all.of(Timed::Task);
        let cumulative: Vec<_> = tasks.cumulative().collect();
        assert_eq!(cumulative[0], (10 * US, 4));
        assert_eq!(cumulative[1], (25 * US, 6));
        assert_eq!(cumulative[20], (60_000 * MS, 8));
        assert_eq!(tasks.count(), 10);
        assert_eq!(tasks.sum(), 2 * (20 * US + 1 + 120_001 * MS));
        assert_eq!(
            (all.of(Timed::Wait).count(), all.of(Timed::Wait).sum()),
            (2, 14)
        );
        assert_eq!(all.of(Timed::Message).count(), 0);
    }

    #[test]
    fn bounds_rise_and_names_are_in_the_order_of_the_words() {
        assert!(BOUNDS.is_sorted());
        for (index, (timed, _)) in Timed::HANDLERS.into_iter().enumerate() {
            assert_eq!(timed as usize, index);
        }
        assert_eq!(COUNT, Timed::HANDLERS.len() + 1);
    }
}
