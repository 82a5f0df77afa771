//! Which units are free: a buddy allocator over indices, with no memory behind it.

use std::collections::BTreeSet;

/// Free blocks of each order; a block of order `n` is `1 << n` units, at a multiple of that.
#[derive(Debug)]
pub(super) struct Buddy {
    free: Vec<BTreeSet<usize>>,
}

impl Buddy {
    /// `units` free units. They need not be a power of two.
    pub(super) fn new(units: usize) -> Buddy {
        let orders = usize::BITS - units.leading_zeros();
        let mut buddy = Buddy {
            free: vec![BTreeSet::new(); orders as usize],
        };
        let mut first = 0;
        for order in (0..orders).rev() {
            if units & (1 << order) != 0 {
                buddy.free[order as usize].insert(first);
                first += 1 << order;
            }
        }
        buddy
    }

    /// Takes the lowest block among the smallest that are large enough; returns its first unit.
    pub(super) fn take(&mut self, order: u32) -> Option<usize> {
        let order = order as usize;
        let from = (order..self.free.len()).find(|&from| !self.free[from].is_empty())?;
        let first = self.free[from].pop_first()?;
        for half in order..from {
            self.free[half].insert(first + (1 << half));
        }
        Some(first)
    }

    /// Takes a block back and joins it with its free neighbours.
    pub(super) fn give(&mut self, mut first: usize, order: u32) {
        let mut order = order as usize;
        while order + 1 < self.free.len() && self.free[order].remove(&(first ^ (1 << order))) {
            first &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_split_and_joined_again() {
        let mut buddy = Buddy::new(11);
        assert_eq!(buddy.take(0), Some(10));
        assert_eq!(buddy.take(0), Some(8));
        assert_eq!(buddy.take(0), Some(9));
        assert_eq!(buddy.take(3), Some(0));
        assert_eq!(buddy.take(0), None);
        for (first, order) in [(8, 0), (0, 3), (10, 0), (9, 0)] {
            buddy.give(first, order);
        }
        assert_eq!(buddy.free, Buddy::new(11).free);
    }

    #[test]
    fn a_block_is_aligned_to_its_size() {
        let mut buddy = Buddy::new(16);
        assert_eq!(buddy.take(0), Some(0));
        assert_eq!(buddy.take(2), Some(4));
        assert_eq!(buddy.take(3), Some(8));
        assert_eq!(buddy.take(2), None);
        assert_eq!(buddy.take(1), Some(2));
    }
}
