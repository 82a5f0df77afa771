//! Which slots are taken, and by which stripe.
//!
//! A slot is claimed by changing its 16 bits from 0 to the stripe's number plus one, and given back
//! by changing them to 0. Every stripe begins to look at a place of its own, so that they seldom
//! meet; but any stripe can have any slot, so that all are usable to the last.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::plan::{LANES, StripeWord};
use super::recover::Intent;
use super::{Core, Full, Locks, Stripe};
use crate::memory::{Contiguous, Word};

impl<M: Contiguous, L: Locks> Core<M, L> {
    /// 0, or one more than the stripe that has the slot.
    #[inline]
    pub(super) fn owner(&self, slot: usize) -> usize {
        let word = self.memory.word(self.plan.owners(slot / LANES));
        usize::from(lane(word.load(Acquire), slot % LANES))
    }

    fn change_owner(&self, slot: usize, from: u16, to: u16) -> bool {
        let word = self.memory.word(self.plan.owners(slot / LANES));
        let shift = slot % LANES * 16;
        loop {
            let now = word.load(Relaxed);
            if lane(now, slot % LANES) != from {
                return false;
            }
            let new = now & !(0xffff << shift) | u64::from(to) << shift;
            if word.replace(now, new, AcqRel) {
                return true;
            }
        }
    }
}

pub(super) fn next_owned<M: Contiguous, L: Locks>(core: &Core<M, L>, from: usize) -> Option<usize> {
    let mut slot = from;
    while slot < core.plan.max_rows {
        let word = core
            .memory
            .word(core.plan.owners(slot / LANES))
            .load(Acquire);
        // The lanes in front of the slot, shifted out.
        let rest = word >> (slot % LANES * 16);
        if rest != 0 {
            let slot = slot + rest.trailing_zeros() as usize / 16;
            return (slot < core.plan.max_rows).then_some(slot);
        }
        slot = (slot / LANES + 1) * LANES;
    }
    None
}

impl<M: Contiguous, L: Locks> Stripe<'_, M, L> {
    /// Takes a free slot, as the intent to insert a row. It stays until the intent is carried out or
    /// given up.
    pub(super) fn claim(&mut self) -> Result<usize, Full> {
        let words = self.core.plan.owner_words();
        let cursor = self.word(StripeWord::Cursor).load(Relaxed) as usize % words;
        for word in (cursor..words).chain(0..cursor) {
            let lanes = self.core.memory.word(self.core.plan.owners(word));
            if !has_free(lanes.load(Relaxed)) {
                continue;
            }
            for slot in word * LANES..((word + 1) * LANES).min(self.core.plan.max_rows) {
                // It must be free before the intent names it: so if it is this stripe's afterwards,
                // it is because of the intent.
                if self.core.owner(slot) != 0 {
                    continue;
                }
                self.intend(Intent::Insert(slot));
                if self.core.change_owner(slot, 0, self.name()) {
                    self.word(StripeWord::Cursor).store(word as u64, Relaxed);
                    return Ok(slot);
                }
            }
        }
        self.intend(Intent::None);
        Err(Full)
    }

    /// Gives a slot back. The next row of this stripe will be here.
    pub(super) fn give_back(&self, slot: usize) {
        if self.core.change_owner(slot, self.name(), 0) {
            let word = (slot / LANES) as u64;
            self.word(StripeWord::Cursor).store(word, Relaxed);
        }
    }

    #[inline]
    pub(super) fn owns(&self, slot: usize) -> bool {
        self.core.owner(slot) == usize::from(self.name())
    }

    /// The stripe among the owners.
    #[inline]
    fn name(&self) -> u16 {
        // There are at most 1,024.
        self.index as u16 + 1
    }
}

#[inline]
fn lane(word: u64, lane: usize) -> u16 {
    (word >> (lane * 16)) as u16
}

/// Whether one of the four is zero.
#[inline]
fn has_free(word: u64) -> bool {
    const ONES: u64 = 0x0001_0001_0001_0001;
    word.wrapping_sub(ONES) & !word & (ONES << 15) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_lane_is_seen_wherever_it_is() {
        assert!(has_free(0));
        assert!(!has_free(0x0001_8000_ffff_0400));
        for free in 0..4 {
            let word = 0xffff_8000_0001_0400 & !(0xffff << (free * 16));
            assert!(has_free(word), "{word:x}");
        }
    }
}
