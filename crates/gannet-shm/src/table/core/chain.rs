//! Buckets: links to rows, and the chain of those for which there was no link left.
//!
//! A bucket is a cache line: [`LINKS`] links, and one more to the first row of a chain. The other
//! rows of the chain are behind the `next` of the one in front. Whatever leads to a row is a word
//! that is known by its offset, and a row is taken out by storing its own `next` there: a row that a
//! link of the bucket leads to has none.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::hash::{Hash, origin};
use super::plan::{LINKS, Plan, ROWS_PER_BUCKET, RowWord, StripeWord};
use super::recover::Intent;
use super::{Locks, Stripe};
use crate::memory::{Contiguous, Word};

/// What leads to a row: its slot, and some bits of its key's hash. 0 leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table) struct Link(pub(super) u64);

impl Link {
    #[inline]
    pub(super) fn to(slot: usize, tag: u32) -> Link {
        Link(u64::from(tag) << 32 | (slot as u64 + 1))
    }

    #[inline]
    pub(super) fn slot(self, plan: &Plan) -> Option<usize> {
        let slot = (self.0 as u32 as usize).checked_sub(1)?;
        (slot < plan.max_rows).then_some(slot)
    }

    #[inline]
    pub(super) fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A slot that a link leads to.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    pub(super) slot: usize,
    /// Offset of the link.
    pub(super) link: usize,
}

impl<M: Contiguous, L: Locks> Stripe<'_, M, L> {
    /// Offset of the bucket of a key.
    #[inline]
    pub(super) fn bucket_of(&self, hash: Hash) -> usize {
        let bucket = self.core.bucket(hash, self.buckets() as u64);
        self.core.plan.bucket(self.index, bucket)
    }

    /// The link, of a bucket or in its chain, that leads to what is wanted.
    #[inline]
    pub(super) fn link_to(
        &self,
        bucket: usize,
        wanted: impl Fn(Link, usize) -> bool,
    ) -> Option<Spot> {
        let links = self.core.bucket_words(bucket);
        for (index, word) in links[..LINKS].iter().enumerate() {
            let link = Link(word.load(Acquire));
            if let Some(slot) = link.slot(&self.core.plan)
                && wanted(link, slot)
            {
                let link = bucket + index * 8;
                return Some(Spot { slot, link });
            }
        }
        let mut at = chain(bucket);
        // A chain that is longer than all rows is one that somebody else wrote into.
        for _ in 0..=self.core.plan.max_rows {
            let link = self.core.link(at);
            let slot = link.slot(&self.core.plan)?;
            if wanted(link, slot) {
                return Some(Spot { slot, link: at });
            }
            at = self.core.plan.row(slot, RowWord::Next);
        }
        None
    }

    /// Puts a row into a bucket; returns the offset of the link that leads to it.
    pub(super) fn put_into(&self, bucket: usize, slot: usize, tag: u32) -> usize {
        let links = self.core.bucket_words(bucket);
        let is_empty = |word: &M::Word| Link(word.load(Relaxed)).slot(&self.core.plan).is_none();
        let (link, next) = match links[..LINKS].iter().position(is_empty) {
            Some(free) => (free, NOWHERE),
            None => (LINKS, Link(links[LINKS].load(Relaxed))),
        };
        self.core
            .row_word(slot, RowWord::Next)
            .store(next.0, Release);
        links[link].store(Link::to(slot, tag).0, Release);
        bucket + link * 8
    }

    /// Takes the row out to which the link at `at` leads.
    pub(super) fn unlink(&self, at: usize, slot: usize) {
        let next = self.core.link(self.core.plan.row(slot, RowWord::Next));
        self.core.memory.word(at).store(next.0, Release);
    }

    /// Readers that find nothing from here on, until [`Stripe::links_are_whole`], look again.
    pub(super) fn links_change(&self) {
        let version = self.word(StripeWord::Version);
        version.store(version.load(Relaxed) | 1, Relaxed);
    }

    pub(super) fn links_are_whole(&self) {
        let version = self.word(StripeWord::Version);
        version.store((version.load(Relaxed) | 1).wrapping_add(1), Release);
    }

    /// Adds a bucket if there are too many rows for those that there are.
    #[inline]
    pub(super) fn grow(&mut self) {
        let buckets = self.buckets();
        if self.word(StripeWord::Live).load(Relaxed) > (buckets * ROWS_PER_BUCKET) as u64
            && buckets < self.core.plan.max_buckets
        {
            self.word(StripeWord::After)
                .store(buckets as u64 + 1, Relaxed);
            self.intend(Intent::Split(None));
            self.split(buckets);
            self.intend(Intent::None);
        }
    }

    /// Adds a bucket with this number, or goes on with that after a death.
    pub(super) fn split(&self, new: usize) {
        let core = self.core;
        self.links_change();
        self.word(StripeWord::Buckets)
            .store(new as u64 + 1, Release);
        let target = core.plan.bucket(self.index, new);
        let belongs = |slot: usize| {
            let hash = core.place(core.row_word(slot, RowWord::Hash).load(Relaxed));
            (self.bucket_of(hash) == target).then_some(hash.tag)
        };
        let move_over = |at, slot, tag| {
            self.intend(Intent::Split(Some(slot)));
            self.unlink(at, slot);
            self.put_into(target, slot, tag);
        };
        let origin = core.plan.bucket(self.index, origin(new));
        for at in links(origin) {
            if let Some(slot) = core.link(at).slot(&core.plan)
                && let Some(tag) = belongs(slot)
            {
                move_over(at, slot, tag);
            }
        }
        let mut at = chain(origin);
        for _ in 0..=core.plan.max_rows {
            let Some(slot) = core.link(at).slot(&core.plan) else {
                break;
            };
            match belongs(slot) {
                Some(tag) => move_over(at, slot, tag),
                None => at = core.plan.row(slot, RowWord::Next),
            }
        }
        self.links_are_whole();
    }
}

/// Offsets of the links of a bucket.
pub(super) fn links(bucket: usize) -> impl Iterator<Item = usize> {
    (0..LINKS).map(move |link| bucket + link * 8)
}

/// Offset of the link that a bucket's chain begins with.
#[inline]
pub(super) fn chain(bucket: usize) -> usize {
    bucket + LINKS * 8
}

const NOWHERE: Link = Link(0);
