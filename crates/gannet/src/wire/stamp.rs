//! When an event was written, in the three bytes that its header has left for it.
//!
//! The unit is 16,384 ns of the monotonic clock, which is the same in all processes; it wraps after
//! 275 seconds, and so does a wait that is longer. 0 stands for "not known".
//!
//! Who asks how long an event has waited may have read the clock a moment before it was written: the
//! end of one handler is the beginning of the next, which another process has just handed over. A
//! stamp of up to [`AHEAD`] later is one of now, so that such a wait is none, and not one of 275 s.

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock.
#[inline]
pub(crate) fn monotonic_nanos() -> u64 {
    nanos(ClockId::Monotonic)
}

/// The same clock as it was a few milliseconds ago at most: cheaper, and coarse.
pub(crate) fn coarse_nanos() -> u64 {
    nanos(ClockId::MonotonicCoarse)
}

/// The stamp of this time; never 0.
#[inline]
pub(crate) fn at(nanos: u64) -> u32 {
    ((nanos >> SHIFT) as u32 & MASK).max(1)
}

/// Nanoseconds from a stamp until now, if the stamp is known.
#[inline]
pub(crate) fn since(stamp: u32, now: u64) -> Option<u64> {
    let passed = at(now).wrapping_sub(stamp) & MASK;
    let passed = if passed > MASK - AHEAD { 0 } else { passed };
    (stamp != 0).then(|| u64::from(passed) << SHIFT)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

const SHIFT: u32 = 14;
const MASK: u32 = (1 << 24) - 1;
/// Four seconds: more than a handler that does not wait, and then logs its failure, lags behind.
const AHEAD: u32 = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_known_over_the_wrap() {
        let unit = 1 << SHIFT;
        let wraps = u64::from(MASK) + 1;
        for begin in [5, wraps - 2, 7 * wraps - 1] {
            let stamp = at(begin * unit);
            for waited in [0, 3, 60_000] {
                let wait = since(stamp, (begin + waited) * unit).unwrap();
                // 0 is taken for 1.
                assert!(wait.abs_diff(waited * unit) <= unit, "{begin} {waited}");
            }
        }
        assert_eq!(since(0, 5 * unit), None);
        assert_eq!(at(0), 1);
    }

    #[test]
    fn an_event_that_was_written_after_the_clock_was_read_has_not_waited() {
        let unit = 1 << SHIFT;
        for read in [7, u64::from(MASK), 3 * u64::from(MASK) + 9] {
            for later in [1, 2, 60_000] {
                assert_eq!(since(at((read + later) * unit), read * unit), Some(0));
            }
        }
    }
}
