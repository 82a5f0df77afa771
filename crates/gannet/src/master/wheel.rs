//! When to look at which connection again.
//!
//! A hashed wheel: an entry falls into the slot of its time, modulo the wheel's span. What is
//! found there is a hint only; the connection itself says whether something is due, and until when
//! it wants to be left alone. So nothing is ever removed: not when a connection closes, and not
//! when a message moves its deadline.

use crate::id::ConnId;

/// The wheel of one reactor.
pub(super) struct Wheel {
    slots: Vec<Vec<(ConnId, u64)>>,
    /// Next tick to look at.
    tick: u64,
}

/// Resolution of deadlines, in ms.
pub(super) const TICK: u64 = 50;
const SLOTS: usize = 1024;

impl Wheel {
    pub(super) fn new(now: u64) -> Self {
        Wheel {
            slots: vec![Vec::new(); SLOTS],
            tick: now / TICK,
        }
    }

    /// Looks at `id` soon after `at` (ms).
    pub(super) fn add(&mut self, id: ConnId, at: u64) {
        let tick = (at / TICK + 1).max(self.tick);
        self.slots[tick as usize % SLOTS].push((id, tick));
    }

    /// Moves on to `now` and puts what has come up into `due`.
    pub(super) fn advance(&mut self, now: u64, due: &mut Vec<ConnId>) {
        let end = now / TICK;
        // After a long pause (a stopped process) one round sees every slot.
        let first = self.tick.max(end.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=end {
            self.slots[tick as usize % SLOTS].retain(|&(id, at)| {
                let up = at <= end;
                if up {
                    due.push(id);
                }
                !up
            });
        }
        self.tick = self.tick.max(end + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel, now: u64) -> Vec<u64> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due.into_iter().map(ConnId::as_u64).collect()
    }

    #[test]
    fn comes_up_after_its_time_and_once() {
        let mut wheel = Wheel::new(1_000);
        wheel.add(ConnId::from_u64(1), 1_200);
        wheel.add(ConnId::from_u64(2), 1_000 + TICK * SLOTS as u64 + 200);
        assert!(due(&mut wheel, 1_200).is_empty());
        assert_eq!(due(&mut wheel, 1_250), [1]);
        assert!(due(&mut wheel, 2_000).is_empty());
        assert_eq!(due(&mut wheel, 1_000 + TICK * SLOTS as u64 + 300), [2]);
    }

    #[test]
    fn a_long_pause_loses_nothing() {
        let mut wheel = Wheel::new(0);
        for id in 0..100 {
            wheel.add(ConnId::from_u64(id), id * 1_000);
        }
        assert_eq!(due(&mut wheel, 1_000_000).len(), 100);
        wheel.add(ConnId::from_u64(7), 5);
        assert_eq!(
            due(&mut wheel, 1_000_100),
            [7],
            "a time in the past comes up at once"
        );
    }
}
