//! How long to wait before the next try.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Delays of one place: none after the first early death, then 100 ms, doubled up to 10 s for a
/// process that did not become ready, up to 300 ms for one that did: clients wait for it, and the
/// event that kills it is given up after three times. A process that lives for 10 s makes good what
/// was before.
#[derive(Debug)]
pub(crate) struct BackOff {
    /// Processes in a row that did not start, or died within [`EARLY`].
    early_deaths: u32,
    until: Option<Instant>,
    longest_after_service: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        BackOff {
            early_deaths: 0,
            until: None,
            longest_after_service: LONGEST_AFTER_SERVICE,
        }
    }
}

impl BackOff {
    /// Of a user process: no client waits for it, and what it needs (a queue, a database) may be
    /// away for long. It waits up to 10 s whatever it died of.
    pub(crate) fn patient() -> Self {
        BackOff {
            longest_after_service: LONGEST,
            ..BackOff::default()
        }
    }

    /// A process failed that was ready for `lived`, or never.
    pub(crate) fn failed(&mut self, now: Instant, lived: Option<Duration>) -> Delay {
        let longest = match lived {
            Some(_) => self.longest_after_service,
            None => LONGEST,
        };
        let lived = lived.unwrap_or_default();
        if lived >= GOOD {
            self.early_deaths = 0;
        } else if lived < EARLY {
            self.early_deaths += 1;
        }
        let delay = match self.early_deaths {
            0 | 1 => Duration::ZERO,
            _ if lived >= EARLY => Duration::ZERO,
            deaths => longest.min(FIRST * 2u32.saturating_pow(deaths - 2)),
        };
        self.until = Some(now + delay);
        Delay(delay)
    }

    /// A process is started: there is nothing to wait for.
    pub(crate) fn begin(&mut self) {
        self.until = None;
    }

    /// Forgets a delay that is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.until.take_if(|until| *until <= now);
    }

    /// Processes in a row that did not start, or died young.
    pub(crate) fn early_deaths(&self) -> u32 {
        self.early_deaths
    }

    /// When the delay is over; `None` if nothing is to be waited for.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// How long the next try is delayed: `at once`, `in 100ms`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay(Duration);

impl Delay {
    pub(crate) fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Duration::ZERO => f.write_str("at once"),
            delay => write!(f, "in {delay:?}"),
        }
    }
}

const EARLY: Duration = Duration::from_secs(1);
const GOOD: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
const LONGEST_AFTER_SERVICE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit_and_are_forgotten_after_a_good_life() {
        let now = Instant::now();
        let mut backoff = BackOff::default();
        let mut fail = |lived| backoff.failed(now, lived).0.as_millis();
        let delays: Vec<_> = (0..11).map(|_| fail(None)).collect();
        assert_eq!(
            delays,
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000
            ]
        );
        assert_eq!(fail(Some(Duration::from_secs(5))), 0);
        assert_eq!(fail(Some(Duration::from_millis(999))), 300);
        assert_eq!(fail(Some(Duration::from_secs(10))), 0);
        assert_eq!(fail(None), 0);
        assert_eq!(fail(None), 100);
    }

    #[test]
    fn a_user_process_that_dies_young_waits_as_long_as_one_that_does_not_start() {
        let now = Instant::now();
        let mut backoff = BackOff::patient();
        let young = Some(Duration::from_millis(5));
        let delays: Vec<_> = (0..9)
            .map(|_| backoff.failed(now, young).0.as_millis())
            .collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
    }
}
