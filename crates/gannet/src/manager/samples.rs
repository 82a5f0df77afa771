//! What was counted in the last seconds: from it come rates, and the use of processors.
//!
//! Once a second the manager notes a dozen counters and the processor time of each process (a system
//! call of half a microsecond); eleven such samples are kept.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{control::Rates, sys};

/// The last samples, the oldest first.
#[derive(Debug)]
pub(super) struct Samples {
    kept: VecDeque<Sample>,
    next: Instant,
}

/// What was counted at a moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) counts: Counted,
    /// By place.
    pub(super) handled: Vec<u64>,
    /// Processor time by process id.
    pub(super) cpu: HashMap<u32, Duration>,
}

/// Counters of the whole server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) accepted: u64,
    pub(super) events: u64,
    pub(super) handled: u64,
    pub(super) requests: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) tasks: u64,
}

impl Samples {
    pub(super) fn new(now: Instant) -> Self {
        Samples {
            kept: VecDeque::with_capacity(KEPT + 1),
            next: now,
        }
    }

    /// When to take the next.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.next
    }

    pub(super) fn add(&mut self, sample: Sample) {
        self.next = sample.at + EVERY;
        self.kept.push_back(sample);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// The rates up to now.
    pub(super) fn rates(&self, now: &Sample) -> Rates {
        let Some(then) = self.kept.front() else {
            return Rates::default();
        };
        let over = now.at.saturating_duration_since(then.at);
        let rate =
            |count: fn(&Counted) -> u64| per_second(count(&then.counts), count(&now.counts), over);
        Rates {
            over_ms: over.as_millis() as u64,
            accepted: rate(|counts| counts.accepted),
            events: rate(|counts| counts.events),
            handled: rate(|counts| counts.handled),
            requests: rate(|counts| counts.requests),
            bytes_in: rate(|counts| counts.bytes_in),
            bytes_out: rate(|counts| counts.bytes_out),
            tasks: rate(|counts| counts.tasks),
        }
    }

    /// Events that a place has handled in a second.
    pub(super) fn handled_per_s(&self, now: &Sample, place: usize) -> f64 {
        let Some(then) = self.kept.front() else {
            return 0.0;
        };
        let of = |sample: &Sample| sample.handled.get(place).copied().unwrap_or(0);
        let over = now.at.saturating_duration_since(then.at);
        per_second(of(then), of(now), over)
    }

    /// How much of a processor a process uses, in percent; `age` is how long it has been there.
    pub(super) fn cpu_percent(&self, now: &Sample, pid: u32, age: Duration) -> f64 {
        let Some(used) = now.cpu.get(&pid) else {
            return 0.0;
        };
        let then = self
            .kept
            .iter()
            .find_map(|sample| Some((sample.at, sample.cpu.get(&pid)?)));
        let (used, over) = match then {
            Some((at, then)) if at < now.at => {
                let over = now.at.saturating_duration_since(at);
                (used.saturating_sub(*then), over)
            }
            _ => (*used, age),
        };
        if over.is_zero() {
            return 0.0;
        }
        rounded(100.0 * used.as_secs_f64() / over.as_secs_f64())
    }
}

/// The processor time of each of these processes that is there.
pub(super) fn cpu_times(pids: impl Iterator<Item = u32>) -> HashMap<u32, Duration> {
    pids.filter_map(|pid| Some((pid, sys::cpu_time(pid)?)))
        .collect()
}

fn per_second(then: u64, now: u64, over: Duration) -> f64 {
    if over < SHORTEST {
        return 0.0;
    }
    rounded(now.saturating_sub(then) as f64 / over.as_secs_f64())
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

const EVERY: Duration = Duration::from_secs(1);
/// So that the oldest is ten seconds old.
const KEPT: usize = 11;
/// Over less than this a rate says nothing.
const SHORTEST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, count: u64, cpu_ms: u64) -> Sample {
        Sample {
            at,
            counts: Counted {
                events: count,
                ..Counted::default()
            },
            handled: vec![0, count],
            cpu: HashMap::from([(7, Duration::from_millis(cpu_ms))]),
        }
    }

    #[test]
    fn rates_are_taken_over_the_last_ten_seconds() {
        let begin = Instant::now();
        let mut samples = Samples::new(begin);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(samples.poll_timeout(), begin);
        assert_eq!(samples.rates(&sample(begin, 5, 0)).over_ms, 0);
        for second in 0..20 {
            // Nothing in the first ten seconds, 100 a second and half a processor then.
            let busy = second.max(10) - 10;
            samples.add(sample(at(second), busy * 100, busy * 500));
        }
        assert_eq!(samples.poll_timeout(), at(20));
        let now = sample(at(20), 1_000, 5_000);
        let rates = samples.rates(&now);
        assert_eq!((rates.over_ms, rates.events), (11_000, 90.91));
        assert_eq!(rates.requests, 0.0);
        assert_eq!(samples.handled_per_s(&now, 1), 90.91);
        assert_eq!(samples.handled_per_s(&now, 9), 0.0);
        assert_eq!(samples.cpu_percent(&now, 7, Duration::MAX), 45.45);
        // A process that no sample has yet.
        let mut young = now.clone();
        young.cpu.insert(8, Duration::from_millis(30));
        let age = Duration::from_millis(60);
        assert_eq!(samples.cpu_percent(&young, 8, age), 50.0);
        assert_eq!(samples.cpu_percent(&young, 9, age), 0.0);
    }
}
