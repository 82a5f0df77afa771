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
/// However long they live, they are not to die more often than every 3 s. Twenty deaths may come sooner, as those
/// of somebody who kills workers on purpose do; each further one counts as an early death, and is followed
/// when the 3 s are over, but after 100 ms at most, doubled up to 1 s for those in a row. So what dies again and again
/// is started at most once a second in the long run, and one death after some time of peace is followed at
/// once.
///
/// A process that lives for 10 s makes good what was before.
#[derive(Debug)]
pub(crate) struct BackOff {
    /// Processes in a row that did not start, or died young or too often.
    early_deaths: u32,
    until: Option<Instant>,
    after_service: AfterService,
    /// When the deaths of processes that were ready will be made good, at 3 s for each.
    made_good: Option<Instant>,
    /// How many of them in a row were too many.
    too_many: u32,
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
            made_good: None,
            too_many: 0,
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
        let pause = lived.map_or(Duration::ZERO, |_| self.one_more(now));
        if lived.is_some_and(|lived| lived >= GOOD) {
            self.early_deaths = 0;
        } else if is_young || !pause.is_zero() {
            self.early_deaths += 1;
        }
        let delay = match self.early_deaths.checked_sub(free + 1) {
            Some(earlier) if is_young => doubled(earlier).min(longest),
            _ => Duration::ZERO,
        };
        let delay = delay.max(pause);
        self.until = Some(now + delay);
        Delay(delay)
    }

    /// Counts the death of a process that was ready, and says how long the next is to wait for that.
    fn one_more(&mut self, now: Instant) -> Duration {
        let made_good = self.made_good.map_or(now, |before| before.max(now)) + EACH;
        let too_soon = made_good.saturating_duration_since(now + EACH * AT_ONCE);
        // What was not waited for is forgiven.
        self.made_good = Some(made_good.min(now + EACH * AT_ONCE + LONGEST_PAUSE));
        if too_soon.is_zero() {
            self.too_many = 0;
            return Duration::ZERO;
        }
        let pause = doubled(self.too_many).min(LONGEST_PAUSE).min(too_soon);
        self.too_many += 1;
        pause
    }

    /// A process is started: there is nothing to wait for.
    pub(crate) fn begin(&mut self) {
        self.until = None;
    }

    /// Forgets a delay that is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.until.take_if(|until| *until <= now);
    }

    /// Processes in a row that did not start, or died young or too often.
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

fn doubled(times: u32) -> Duration {
    FIRST.saturating_mul(2u32.saturating_pow(times))
}

const GOOD: Duration = Duration::from_secs(10);
/// Tries that failed without a delay before the next.
const FREE: u32 = 1;
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A death of a process that was ready is made good after so long.
const EACH: Duration = Duration::from_secs(3);
/// Deaths that need not be made good before the next start.
const AT_ONCE: u32 = 20;
/// The longest delay for a death that is one too many.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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

    /// How long each of so many processes waits for its start, that all live for `lived`.
    fn pauses(
        backoff: &mut BackOff,
        now: &mut Instant,
        lived: Duration,
        count: usize,
    ) -> Vec<u128> {
        let mut pause = || {
            *now += lived;
            let Delay(delay) = backoff.failed(*now, Some(lived));
            *now += delay;
            delay.as_millis()
        };
        (0..count).map(|_| pause()).collect()
    }

    #[test]
    fn twenty_that_were_of_use_are_followed_at_once_and_then_the_delay_grows() {
        let (mut backoff, mut now) = (BackOff::default(), Instant::now());
        let lived = Duration::from_millis(101);
        let pauses = pauses(&mut backoff, &mut now, lived, 28);
        assert_eq!(pauses[..20], [0; 20]);
        assert_eq!(pauses[20..], [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        assert_eq!(backoff.early_deaths(), 8);
    }

    #[test]
    fn who_dies_less_often_than_every_three_seconds_is_followed_at_once_for_ever() {
        for lived in [3_000, 3_100, 9_000] {
            let (mut backoff, mut now) = (BackOff::default(), Instant::now());
            let lived = Duration::from_millis(lived);
            assert_eq!(pauses(&mut backoff, &mut now, lived, 500), [0; 500]);
            assert_eq!(backoff.early_deaths(), 0);
        }
    }

    #[test]
    fn a_crash_loop_of_any_period_below_that_is_slowed_down() {
        for backoff in [BackOff::default, BackOff::patient] {
            for lived in [1, 50, 99, 100, 101, 250, 999, 1_000, 1_500, 2_500, 2_990] {
                let (mut backoff, mut now) = (backoff(), Instant::now());
                let lived = Duration::from_millis(lived);
                pauses(&mut backoff, &mut now, lived, 10_000);
                let before = now;
                pauses(&mut backoff, &mut now, lived, 100);
                let mean = (now - before) / 100;
                let least = EACH.min(lived + LONGEST_PAUSE);
                assert!(mean >= least, "{lived:?}: one in {mean:?}");
                assert!(backoff.early_deaths() > 100);
            }
        }
    }

    #[test]
    fn one_death_after_some_peace_is_followed_at_once_whatever_was_before() {
        let (mut backoff, mut now) = (BackOff::default(), Instant::now());
        pauses(&mut backoff, &mut now, Duration::from_millis(150), 100);
        assert_eq!(pauses(&mut backoff, &mut now, GOOD, 1), [0]);
        assert_eq!(backoff.early_deaths(), 0);
        // The loop that goes on then is not given another twenty.
        let again = pauses(&mut backoff, &mut now, Duration::from_millis(150), 4);
        assert_eq!(again, [0, 0, 100, 200]);
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
