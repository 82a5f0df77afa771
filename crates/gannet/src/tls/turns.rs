//! Handshakes in a second: when the next may begin.
//!
//! A shared count of time (GCRA): each handshake moves it on by its share of a second. It may run
//! ahead of the clock by a burst; whoever comes behind that waits until the clock has caught up.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    /// In so many milliseconds. The turn is taken.
    In(u64),
    /// Later than it may wait for.
    Never,
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
    pub(crate) fn take(&self, patience: u64) -> Turn {
        if self.interval == 0 {
            return Turn::Now;
        }
        let now = self.epoch.elapsed();
        self.take_at(now, patience)
    }

    fn take_at(&self, now: Duration, patience: u64) -> Turn {
        let now = now.as_micros() as u64;
        let mut turn = Turn::Never;
        let taken = self.used_up.fetch_update(Relaxed, Relaxed, |used_up| {
            let wait = used_up.saturating_sub(now + BURST);
            turn = match wait {
                0 => Turn::Now,
                wait => Turn::In(wait.div_ceil(1_000)),
            };
            (wait / 1_000 < patience).then(|| used_up.max(now) + self.interval)
        });
        match taken {
            Ok(_) => turn,
            Err(_) => Turn::Never,
        }
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
        let now = (0..1_000).map_while(|_| match turns.take_at(at, 10_000) {
            Turn::Now => Some(()),
            _ => None,
        });
        assert_eq!(now.count(), 51);
        assert_eq!(
            turns.take_at(at, 10_000),
            Turn::In(2),
            "one was refused its turn above"
        );
        assert_eq!(turns.take_at(at, 10_000), Turn::In(3));
        assert_eq!(
            turns.take_at(at + Duration::from_secs(1), 10_000),
            Turn::Now
        );
    }

    #[test]
    fn whoever_cannot_wait_so_long_takes_no_turn() {
        let turns = Turns::new(10);
        let at = Duration::from_secs(1);
        assert_eq!(turns.take_at(at, 60), Turn::Now);
        assert_eq!(turns.take_at(at, 60), Turn::In(50));
        for _ in 0..3 {
            assert_eq!(turns.take_at(at, 60), Turn::Never);
        }
        assert_eq!(turns.take_at(at, 200), Turn::In(150));
    }

    #[test]
    fn no_limit_is_no_limit() {
        let turns = Turns::new(0);
        assert!((0..100_000).all(|_| turns.take(0) == Turn::Now));
    }
}
