//! What is left to do when a holder of a stripe's lock died, or gave up in the middle.
//!
//! | intent | written | given up or carried out? |
//! |---|---|---|
//! | `Insert(slot)` | before the slot is claimed, and free then | the row is present: it is linked and counted; else the slot, if it was claimed, is given back |
//! | `Remove(slot)` | before the row stops being present | it has stopped: it is unlinked, given back and counted; else it stays |
//! | `Split(moving)` | before the number of buckets changes | it goes on; the row that was on its way is in the old bucket, in the new, or in neither |
//!
//! `After` has the number of rows, or of buckets, that there are when the intent has been carried
//! out. Stores are made in program order (each behind a release fence): a process that is killed
//! leaves those up to the instruction where it was, and no others.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::plan::{RowWord, StripeWord};
use super::{Locks, Stripe, is_present};
use crate::memory::{Contiguous, Word};

/// What the holder of a stripe's lock is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    None,
    Insert(usize),
    Remove(usize),
    /// With the slot that is being moved.
    Split(Option<usize>),
}

impl Intent {
    fn to_word(self) -> u64 {
        let of = |kind: u64, slot: usize| kind | (slot as u64 + 1) << 8;
        match self {
            Intent::None => 0,
            Intent::Insert(slot) => of(1, slot),
            Intent::Remove(slot) => of(2, slot),
            Intent::Split(None) => 3,
            Intent::Split(Some(slot)) => of(3, slot),
        }
    }

    fn from_word(word: u64, slots: usize) -> Intent {
        let slot = ((word >> 8) as usize)
            .checked_sub(1)
            .filter(|&slot| slot < slots);
        match (word & 0xff, slot) {
            (1, Some(slot)) => Intent::Insert(slot),
            (2, Some(slot)) => Intent::Remove(slot),
            (3, slot) => Intent::Split(slot),
            _ => Intent::None,
        }
    }
}

impl<M: Contiguous, L: Locks> Stripe<'_, M, L> {
    /// Writes down what is about to be done, in front of doing it.
    #[inline]
    pub(super) fn intend(&self, intent: Intent) {
        M::fence(Release);
        self.word(StripeWord::Intent)
            .store(intent.to_word(), Relaxed);
        M::fence(Release);
    }

    /// Brings what was begun to its end, or takes it back. Can itself be cut short and done again.
    #[cold]
    pub(super) fn recover(&mut self) {
        let intent = self.word(StripeWord::Intent).load(Relaxed);
        let after = self.word(StripeWord::After).load(Relaxed);
        match Intent::from_word(intent, self.core.plan.max_rows) {
            Intent::None => {}
            Intent::Insert(slot) if self.is_present(slot) && self.owns(slot) => {
                self.link_again(slot);
                self.count(after);
            }
            Intent::Insert(slot) => {
                if self.owns(slot) {
                    self.give_back(slot);
                }
            }
            Intent::Remove(slot) if !self.owns(slot) => self.count(after),
            Intent::Remove(slot) if self.is_present(slot) => {}
            Intent::Remove(slot) => {
                self.links_change();
                if let Some(spot) = self.link_to(self.own_bucket(slot).0, |_, at| at == slot) {
                    self.unlink(spot.link, slot);
                }
                self.give_back(slot);
                self.count(after);
            }
            Intent::Split(moving) => {
                let new = (after as usize).clamp(1, self.core.plan.max_buckets) - 1;
                self.links_change();
                self.word(StripeWord::Buckets)
                    .store(new as u64 + 1, Release);
                if let Some(slot) = moving
                    && self.owns(slot)
                    && !self.is_in_old_bucket(slot, new)
                {
                    self.link_again(slot);
                }
                if new > 0 {
                    self.split(new);
                }
            }
        }
        // A death between the two may have left it odd.
        if self.word(StripeWord::Version).load(Relaxed) % 2 == 1 {
            self.links_are_whole();
        }
        self.intend(Intent::None);
    }

    fn is_present(&self, slot: usize) -> bool {
        is_present(self.core.row_word(slot, RowWord::Seq).load(Relaxed))
    }

    /// The bucket that a row belongs to, by its offset, and the tag of its links.
    fn own_bucket(&self, slot: usize) -> (usize, u32) {
        let hash = self.core.row_word(slot, RowWord::Hash).load(Relaxed);
        let hash = self.core.place(hash);
        (self.bucket_of(hash), hash.tag)
    }

    fn link_again(&self, slot: usize) {
        let (bucket, tag) = self.own_bucket(slot);
        if self.link_to(bucket, |_, at| at == slot).is_none() {
            self.put_into(bucket, slot, tag);
        }
    }

    fn is_in_old_bucket(&self, slot: usize, new: usize) -> bool {
        let old = self.core.plan.bucket(self.index, super::hash::origin(new));
        self.link_to(old, |_, at| at == slot).is_some()
    }

    fn count(&self, live: u64) {
        self.word(StripeWord::Live).store(live, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_are_read_as_they_were_written() {
        for intent in [
            Intent::None,
            Intent::Insert(0),
            Intent::Remove(9),
            Intent::Split(None),
            Intent::Split(Some(7)),
        ] {
            assert_eq!(Intent::from_word(intent.to_word(), 10), intent);
        }
        assert_eq!(
            Intent::from_word(Intent::Insert(10).to_word(), 10),
            Intent::None
        );
        assert_eq!(Intent::from_word(u64::MAX, 10), Intent::None);
    }
}
