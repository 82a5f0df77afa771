//! Where a key belongs.
//!
//! SipHash-1-3, keyed with a random number of the table: clients that choose keys cannot make all
//! of them meet in one bucket. It is a stated function, so that programs built by different
//! compilers find the same rows.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Core, Locks};
use crate::memory::Contiguous;
use crate::table::key::RawKey;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) stripe: usize,
    pub(super) tag: u32,
    pub(super) all: u64,
}

impl<M: Contiguous, L: Locks> Core<M, L> {
    #[inline]
    pub(super) fn hash(&self, key: RawKey<'_>) -> Hash {
        let mut hasher = SipHasher13::new_with_keys(self.seed[0], self.seed[1]);
        match key {
            RawKey::Bytes(bytes) => hasher.write(bytes),
            RawKey::U64(number) => hasher.write_u64(number.to_le()),
        }
        self.place(hasher.finish())
    }

    pub(in crate::table) fn stripe_of(&self, key: RawKey<'_>) -> usize {
        self.hash(key).stripe
    }

    #[inline]
    pub(super) fn place(&self, hash: u64) -> Hash {
        Hash {
            stripe: hash as usize & (self.plan.stripes - 1),
            tag: (hash >> 32) as u32,
            all: hash,
        }
    }

    /// Which of its stripe's buckets a key belongs to, when there are so many (linear hashing:
    /// Litwin, VLDB 1980).
    #[inline]
    pub(super) fn bucket(&self, hash: Hash, buckets: u64) -> usize {
        // A number that is out of range is not from here: any bucket will do.
        let buckets = (buckets as usize).clamp(1, self.plan.max_buckets);
        let rest = (hash.all / self.plan.stripes as u64) as usize;
        let mask = buckets.next_power_of_two() - 1;
        let bucket = rest & mask;
        if bucket < buckets {
            bucket
        } else {
            bucket & (mask >> 1)
        }
    }
}

/// The bucket whose rows a new bucket of this number gets some of.
#[inline]
pub(super) fn origin(bucket: usize) -> usize {
    bucket - (bucket + 1).next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_bucket_takes_from_the_one_without_its_highest_bit() {
        let origins: Vec<_> = (1..9).map(origin).collect();
        assert_eq!(origins, [0, 0, 1, 0, 1, 2, 3, 0]);
    }
}
