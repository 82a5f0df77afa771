//! When to look at which connection again.
//!
//! A hashed wheel: a connection hangs in the list of its tick, modulo the wheel's span, by links that
//! stand in the connection itself ([`Timer`]), so the wheel has no memory of its own for it, and each is
//! in one list at most. When its tick comes up it is taken out, and that is a hint only: the connection
//! says whether something is due, and until when it wants to be left alone. So a message that moves a
//! deadline away does not touch the wheel; one that moves it nearer changes the list.
//!
//! Ticks are kept modulo 2^32. What is farther away than half of that (three years) comes up sooner.

use super::{conn::Conn, conns::Conns};

/// The wheel of one reactor.
pub(super) struct Wheel {
    /// The first of each list; [`END`] if it is empty.
    heads: Box<[u32]>,
    /// Next tick to look at.
    tick: u64,
}

/// What a connection has of the wheel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    /// When it comes up.
    tick: u32,
    /// Its neighbours in the list; [`END`] if there is none, [`OUT`] if it is in no list.
    before: u32,
    behind: u32,
}

/// Resolution of deadlines, in ms.
pub(super) const TICK: u64 = 50;
const SLOTS: usize = 1024;
const END: u32 = u32::MAX;
const OUT: u32 = u32::MAX - 1;

/// Where the timers are, by slot.
pub(super) trait Timers {
    fn timer(&mut self, slot: u32) -> Option<&mut Timer>;
}

impl Timers for Conns {
    fn timer(&mut self, slot: u32) -> Option<&mut Timer> {
        self.get_mut(slot as usize).map(Conn::timer_mut)
    }
}

impl Timer {
    /// Of a connection that nobody looks at.
    pub(super) fn new() -> Self {
        Timer {
            tick: 0,
            before: OUT,
            behind: OUT,
        }
    }

    /// Whether somebody looks at the connection at some time.
    pub(super) fn is_set(&self) -> bool {
        self.before != OUT
    }

    /// How many ticks are left at `tick`; none or less: it is up.
    fn left(&self, tick: u32) -> i32 {
        self.tick.wrapping_sub(tick) as i32
    }
}

impl Wheel {
    pub(super) fn new(now: u64) -> Self {
        Wheel {
            heads: vec![END; SLOTS].into(),
            tick: now / TICK,
        }
    }

    /// Looks at the connection in this slot soon after `at` (ms), or sooner if that was said before.
    pub(super) fn watch(&mut self, timers: &mut impl Timers, slot: u32, at: u64) {
        let farthest = self.tick + i32::MAX as u64;
        let tick = (at / TICK + 1).clamp(self.tick, farthest);
        let Some(timer) = timers.timer(slot) else {
            return;
        };
        if timer.is_set() {
            if timer.left(tick as u32) <= 0 {
                return;
            }
            self.forget(timers, slot);
        }
        let head = &mut self.heads[tick as usize % SLOTS];
        let behind = std::mem::replace(head, slot);
        if let Some(first) = timers.timer(behind) {
            first.before = slot;
        }
        if let Some(timer) = timers.timer(slot) {
            *timer = Timer {
                tick: tick as u32,
                before: END,
                behind,
            };
        }
    }

    /// Takes the connection in this slot out, which may not be in.
    pub(super) fn forget(&mut self, timers: &mut impl Timers, slot: u32) {
        let Some(timer) = timers.timer(slot).filter(|timer| timer.is_set()) else {
            return;
        };
        let Timer {
            tick,
            before,
            behind,
        } = std::mem::replace(timer, Timer::new());
        match timers.timer(before) {
            Some(before) => before.behind = behind,
            None => self.heads[tick as usize % SLOTS] = behind,
        }
        if let Some(behind) = timers.timer(behind) {
            behind.before = before;
        }
    }

    /// Moves on to `now` and puts the slots that have come up into `due`.
    pub(super) fn advance(&mut self, timers: &mut impl Timers, now: u64, due: &mut Vec<u32>) {
        let end = now / TICK;
        // After a long pause (a stopped process) one round sees every slot.
        let first = self.tick.max(end.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=end {
            let mut next = self.heads[tick as usize % SLOTS];
            while let Some(timer) = timers.timer(next) {
                let slot = next;
                next = timer.behind;
                if timer.left(end as u32) <= 0 {
                    due.push(slot);
                    self.forget(timers, slot);
                }
            }
        }
        self.tick = self.tick.max(end + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Timers for Vec<Timer> {
        fn timer(&mut self, slot: u32) -> Option<&mut Timer> {
            self.get_mut(slot as usize)
        }
    }

    struct Kit {
        wheel: Wheel,
        timers: Vec<Timer>,
    }

    impl Kit {
        fn new(now: u64, connections: usize) -> Self {
            Kit {
                wheel: Wheel::new(now),
                timers: vec![Timer::new(); connections],
            }
        }

        fn watch(&mut self, slot: u32, at: u64) {
            self.wheel.watch(&mut self.timers, slot, at);
        }

        fn forget(&mut self, slot: u32) {
            self.wheel.forget(&mut self.timers, slot);
        }

        fn due(&mut self, now: u64) -> Vec<u32> {
            let mut due = Vec::new();
            self.wheel.advance(&mut self.timers, now, &mut due);
            due.sort_unstable();
            due
        }
    }

    const ROUND: u64 = TICK * SLOTS as u64;

    #[test]
    fn comes_up_after_its_time_and_once() {
        let mut kit = Kit::new(1_000, 3);
        kit.watch(1, 1_200);
        kit.watch(2, 1_000 + ROUND + 200);
        assert!(kit.due(1_200).is_empty());
        assert_eq!(kit.due(1_250), [1]);
        assert!(kit.due(2_000).is_empty());
        assert_eq!(kit.due(1_000 + ROUND + 300), [2]);
    }

    #[test]
    fn the_nearer_of_two_times_counts() {
        let mut kit = Kit::new(0, 2);
        kit.watch(0, 500);
        kit.watch(0, 3 * ROUND);
        assert_eq!(kit.due(550), [0]);
        kit.watch(1, 2 * ROUND);
        kit.watch(1, 1_000);
        assert_eq!(kit.due(1_050), [1]);
        assert!(kit.due(4 * ROUND).is_empty(), "the farther one is gone");
    }

    #[test]
    fn who_leaves_takes_nobody_along() {
        // First, middle and last of a list; times a round apart share it.
        for leaves in 0..3 {
            let mut kit = Kit::new(0, 3);
            for slot in 0..3 {
                kit.watch(slot, 1_000 + u64::from(slot) * ROUND);
            }
            kit.forget(leaves);
            kit.forget(leaves);
            let due = kit.due(1_000 + 3 * ROUND);
            assert_eq!(due.len(), 2);
            assert!(!due.contains(&leaves));
            kit.watch(leaves, 0);
            assert_eq!(kit.due(1_000 + 4 * ROUND), [leaves]);
        }
    }

    #[test]
    fn a_long_pause_loses_nothing() {
        let mut kit = Kit::new(0, 100);
        for slot in 0..100 {
            kit.watch(slot, u64::from(slot) * 1_000);
        }
        assert_eq!(kit.due(1_000_000).len(), 100);
        kit.watch(7, 5);
        assert_eq!(
            kit.due(1_000_100),
            [7],
            "a time in the past comes up at once"
        );
    }

    #[test]
    fn years_go_round() {
        // The numbers of ticks go round in the middle of this.
        let begin = (u64::from(u32::MAX) - 10) * TICK;
        let mut kit = Kit::new(begin, 2);
        kit.watch(0, begin + 20 * TICK);
        kit.watch(1, u64::MAX);
        assert!(kit.due(begin + 20 * TICK).is_empty());
        assert_eq!(kit.due(begin + 21 * TICK), [0]);
        assert!(kit.due(begin + ROUND * 2).is_empty());
        assert_eq!(
            kit.due(begin + i32::MAX as u64 * TICK),
            [1],
            "only looked at"
        );
    }
}
