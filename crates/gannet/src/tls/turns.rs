//! Handshakes in a second: when the next may begin.
//!
//! A shared count of time (GCRA): each handshake moves it on by its share of a second. It may run
//! ahead of the clock by a burst; whoever comes behind that waits until the clock has caught up.
//!
//! Whoever leaves while waiting moves the count back. Those who wait are not moved: the place is one
//! more for those who come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Turns for handshakes, given to all reactors.
#[derive(Debug)]
pub(crate) struct Turns {
    epoch: Instant,
    /// µs from handshake to handshake; 0: no limit.
    interval: u64,
    /// µs since the epoch: when the last one's share is used up.
    used_up: AtomicU64,
}

/// When a handshake may begin.
#[derive(Debug)]
pub(crate) enum Turn {
    Now,
    /// In so many milliseconds. The turn is taken.
    In(u64, Place),
    /// Later than it may wait for.
    Never,
}

/// The turn of somebody who waits: given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<Arc<Turns>>);

impl Place {
    /// The turn has come.
    pub(crate) fn use_up(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(turns) = &self.0 {
            turns.give_back();
        }
    }
}

impl Turns {
    pub(super) fn new(per_second: u64) -> Self {
        Turns {
            epoch: Instant::now(),
            interval: 1_000_000u64.checked_div(per_second).unwrap_or(0),
            used_up: AtomicU64::new(0),
        }
    }

    /// A turn for somebody who can wait for so many milliseconds.
    pub(crate) fn take(self: &Arc<Self>, patience: u64) -> Turn {
        if self.interval == 0 {
            return Turn::Now;
        }
        match self.take_at(self.epoch.elapsed(), patience) {
            Some(0) => Turn::Now,
            Some(wait) => Turn::In(wait, Place(Some(self.clone()))),
            None => Turn::Never,
        }
    }

    /// The milliseconds to wait, if the turn is taken.
    fn take_at(&self, now: Duration, patience: u64) -> Option<u64> {
        let now = now.as_micros() as u64;
        let wait = |used_up: u64| used_up.saturating_sub(now + BURST);
        let taken = self.used_up.fetch_update(Relaxed, Relaxed, |used_up| {
            (wait(used_up) / 1_000 < patience).then(|| used_up.max(now) + self.interval)
        });
        let before = taken.ok()?;
        Some(wait(before).div_ceil(1_000))
    }

    fn give_back(&self) {
        // It never fails, and never goes below 0: each turn has added as much.
        let _ = self.used_up.fetch_update(Relaxed, Relaxed, |used_up| {
            Some(used_up.saturating_sub(self.interval))
        });
    }
}

/// How far the count may run ahead, in µs.
const BURST: u64 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_one_by_one() {
        let turns = Turns::new(1_000);
        let at = Duration::from_secs(7);
        let waits: Vec<_> = (0..54).map(|_| turns.take_at(at, 10_000)).collect();
        assert!(waits[..51].iter().all(|wait| *wait == Some(0)));
        assert_eq!(waits[51..], [Some(1), Some(2), Some(3)]);
        assert_eq!(
            turns.take_at(at + Duration::from_secs(1), 10_000),
            Some(0),
            "the clock has caught up"
        );
    }

    #[test]
    fn whoever_cannot_wait_so_long_takes_no_turn() {
        let turns = Turns::new(10);
        let at = Duration::from_secs(1);
        assert_eq!(turns.take_at(at, 60), Some(0));
        assert_eq!(turns.take_at(at, 60), Some(50));
        for _ in 0..3 {
            assert_eq!(turns.take_at(at, 60), None);
        }
        assert_eq!(turns.take_at(at, 200), Some(150));
    }

    #[test]
    fn whoever_leaves_gives_the_place_back() {
        let turns = Arc::new(Turns::new(1));
        let wait = || match turns.take(100_000) {
            Turn::In(wait, place) => (wait, place),
            turn => panic!("{turn:?}"),
        };
        assert!(matches!(turns.take(100_000), Turn::Now));
        let (first, place) = wait();
        place.use_up();
        let (second, place) = wait();
        assert!((1..=1_000).contains(&first) && second > 1_000 - 60);
        let used_up = || turns.used_up.load(Relaxed);
        let before = used_up();
        drop(place);
        assert_eq!(used_up(), before - 1_000_000);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let turns = Arc::new(Turns::new(0));
        assert!((0..100_000).all(|_| matches!(turns.take(0), Turn::Now)));
    }
}
