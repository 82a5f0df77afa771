//! How long to wait before the next try.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Delays of one place.
///
/// A process that did not become ready is tried again at once, then after 100 ms, doubled up to 10 s.
///
/// Clients wait for one that did, so it is followed at once if it has lived for 100 ms: what a start
/// costs is little beside that, and a delay would be longer than the outage that it stands for. One
/// that has died sooner is followed at once twice, then after 100 ms, doubled up to 300 ms. Twice,
/// because an event that kills its workers is given up after three: those who share a worker with it
/// are not to wait for more than the starts.
///
/// A process that lives for 10 s makes good what was before.
#[derive(Debug)]
pub(crate) struct BackOff {
    /// Processes in a row that did not start, or died young.
    early_deaths: u32,
    until: Option<Instant>,
    after_service: AfterService,
}

/// What holds for processes that were ready.
#[derive(Clone, Copy, Debug)]
struct AfterService {
    /// Who has lived for less has died young.
    young: Duration,
    /// Early deaths without a delay.
    free: u32,
    longest: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        BackOff {
            early_deaths: 0,
            until: None,
            after_service: AfterService {
                young: Duration::from_millis(100),
                free: 2,
                longest: Duration::from_millis(300),
            },
        }
    }
}

impl BackOff {
    /// Of a user process: no client waits for it, and what it needs (a queue, a database) may be
    /// away for long. It waits up to 10 s whatever it died of within a second.
    pub(crate) fn patient() -> Self {
        BackOff {
            after_service: AfterService {
                young: Duration::from_secs(1),
                free: FREE,
                longest: LONGEST,
            },
            ..BackOff::default()
        }
    }

    /// A process failed that was ready for `lived`, or never.
    pub(crate) fn failed(&mut self, now: Instant, lived: Option<Duration>) -> Delay {
        let AfterService {
            young,
            free,
            longest,
        } = self.after_service;
        let (free, longest) = match lived {
            Some(_) => (free, longest),
            None => (FREE, LONGEST),
        };
        let is_young = lived.is_none_or(|lived| lived < young);
        if lived.is_some_and(|lived| lived >= GOOD) {
            self.early_deaths = 0;
        } else if is_young {
            self.early_deaths += 1;
        }
        let delay = match self.early_deaths.checked_sub(free + 1) {
            Some(doubled) if is_young => longest.min(FIRST * 2u32.saturating_pow(doubled)),
            _ => Duration::ZERO,
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

const GOOD: Duration = Duration::from_secs(10);
/// Tries that failed without a delay before the next.
const FREE: u32 = 1;
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

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
        assert_eq!(fail(Some(Duration::from_millis(99))), 300);
        assert_eq!(fail(Some(Duration::from_secs(10))), 0);
        assert_eq!(fail(None), 0);
        assert_eq!(fail(None), 100);
    }

    #[test]
    fn who_was_of_use_is_followed_at_once_however_often_it_dies() {
        let now = Instant::now();
        let mut backoff = BackOff::default();
        for _ in 0..100 {
            let delay = backoff.failed(now, Some(Duration::from_millis(100)));
            assert_eq!((delay.0, backoff.early_deaths()), (Duration::ZERO, 0));
        }
    }

    #[test]
    fn an_event_that_kills_three_workers_delays_none_of_their_successors() {
        let now = Instant::now();
        let mut backoff = BackOff::default();
        let mut fail = |ms| backoff.failed(now, Some(Duration::from_millis(ms))).0;
        // The first had lived for some time, and its successors take the event first of all.
        let delays = [fail(5_000), fail(1), fail(1)];
        assert_eq!(delays, [Duration::ZERO; 3]);
        // The next such event finds the third successor.
        let delays = [fail(5_000), fail(1), fail(1), fail(1), fail(1)];
        assert_eq!(
            delays.map(|delay| delay.as_millis()),
            [0, 100, 200, 300, 300]
        );
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
