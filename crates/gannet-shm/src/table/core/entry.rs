//! A row, or the place where it would be, under the lock of its stripe.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::chain::{Spot, chain, links};
use super::hash::Hash;
use super::plan::{RowWord, StripeWord};
use super::recover::Intent;
use super::{COPY, Full, Locks, PRESENT, Room, Stripe, VERSION, Words};
use crate::memory::{Contiguous, Word};
use crate::table::key::RawKey;

/// A key's row or the lack of it. While this exists nobody else changes either.
pub(in crate::table) struct Entry<'e, 'a, M: Contiguous, L: Locks> {
    stripe: &'e mut Stripe<'a, M, L>,
    hash: Hash,
    key: RawKey<'e>,
    spot: Option<Spot>,
}

impl<'e, 'a, M: Contiguous, L: Locks> Entry<'e, 'a, M, L> {
    #[inline]
    pub(super) fn find(stripe: &'e mut Stripe<'a, M, L>, hash: Hash, key: RawKey<'e>) -> Self {
        let core = stripe.core;
        let is_it = |link: super::Link, slot| link.tag() == hash.tag && core.row(slot).key_is(key);
        let spot = stripe.link_to(stripe.bucket_of(hash), is_it);
        Entry {
            stripe,
            hash,
            key,
            spot,
        }
    }

    /// Whether there is a row.
    pub(in crate::table) fn is_present(&self) -> bool {
        self.spot.is_some()
    }

    /// The values of the row.
    #[inline]
    pub(in crate::table) fn values(&self) -> Option<Words<'_, M>> {
        let row = self.stripe.core.row(self.spot?.slot);
        Some(row.values(row.word(RowWord::Seq).load(Relaxed)))
    }

    /// Gives the row other values, or makes a row. If `store` fails, or panics, nothing has changed.
    #[inline]
    pub(in crate::table) fn put<E: From<Full>>(
        &mut self,
        store: impl FnOnce(&Room<'_, M>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.spot {
            Some(spot) => self.replace(spot.slot, store),
            None => self.insert(store),
        }
    }

    /// Changes one word of the values.
    #[inline]
    pub(in crate::table) fn put_word(&mut self, word: usize, value: u64) {
        let Some(spot) = self.spot else { return };
        let row = self.stripe.core.row(spot.slot);
        let seq_word = row.word(RowWord::Seq);
        let seq = seq_word.load(Relaxed);
        seq_word.store(seq.wrapping_add(VERSION), Release);
        M::fence(Release);
        row.room(seq).put(word, value);
    }

    /// Changes some words of the values, all at once.
    pub(in crate::table) fn patch(&mut self, store: impl FnOnce(&Room<'_, M>)) {
        let Some(spot) = self.spot else { return };
        let core = self.stripe.core;
        let row = core.row(spot.slot);
        let words = row.values(row.word(RowWord::Seq).load(Relaxed));
        let patched: Result<(), std::convert::Infallible> = self.replace(spot.slot, |room| {
            for word in 0..core.plan.values {
                room.put(word, words.load(word));
            }
            store(room);
            Ok(())
        });
        let Ok(()) = patched;
    }

    /// Takes the row away.
    pub(in crate::table) fn remove(&mut self) {
        if let Some(spot) = self.spot.take() {
            self.stripe.remove(spot.slot, spot.link);
        }
    }

    #[inline]
    fn replace<E>(
        &mut self,
        slot: usize,
        store: impl FnOnce(&Room<'_, M>) -> Result<(), E>,
    ) -> Result<(), E> {
        let row = self.stripe.core.row(slot);
        let seq_word = row.word(RowWord::Seq);
        let other = (seq_word.load(Relaxed) ^ COPY).wrapping_add(VERSION);
        M::fence(Release);
        let values = row.room(other);
        store(&values)?;
        seq_word.store(other, Release);
        Ok(())
    }

    fn insert<E: From<Full>>(
        &mut self,
        store: impl FnOnce(&Room<'_, M>) -> Result<(), E>,
    ) -> Result<(), E> {
        let live = self.stripe.word(StripeWord::Live).load(Relaxed) + 1;
        self.stripe.word(StripeWord::After).store(live, Relaxed);
        let slot = self.stripe.claim()?;
        let row = self.stripe.core.row(slot);
        let seq_word = row.word(RowWord::Seq);
        let seq = seq_word.load(Relaxed);
        M::fence(Release);
        row.word(RowWord::Hash).store(self.hash.all, Relaxed);
        row.store_key(self.key);
        let values = row.room(seq);
        // If this fails, the intent is still there when the lock is let go: the slot is given back.
        store(&values)?;

        seq_word.store(seq.wrapping_add(VERSION) | PRESENT, Release);
        let bucket = self.stripe.bucket_of(self.hash);
        let link = self.stripe.put_into(bucket, slot, self.hash.tag);
        self.spot = Some(Spot { slot, link });
        self.stripe.word(StripeWord::Live).store(live, Relaxed);
        self.stripe.intend(Intent::None);
        self.stripe.grow();
        Ok(())
    }
}

impl<M: Contiguous, L: Locks> Stripe<'_, M, L> {
    /// Removes all rows of a bucket.
    pub(super) fn empty(&mut self, bucket: usize) {
        let bucket = self.core.plan.bucket(self.index, bucket);
        for at in links(bucket) {
            if let Some(slot) = self.core.link(at).slot(&self.core.plan) {
                self.remove(slot, at);
            }
        }
        let at = chain(bucket);
        for _ in 0..=self.core.plan.max_rows {
            let Some(slot) = self.core.link(at).slot(&self.core.plan) else {
                return;
            };
            self.remove(slot, at);
        }
    }

    fn remove(&mut self, slot: usize, link: usize) {
        let live = self.word(StripeWord::Live).load(Relaxed).saturating_sub(1);
        self.word(StripeWord::After).store(live, Relaxed);
        self.intend(Intent::Remove(slot));
        self.links_change();
        let seq_word = self.core.row_word(slot, RowWord::Seq);
        let seq = seq_word.load(Relaxed);
        seq_word.store(seq.wrapping_add(VERSION) & !PRESENT, Release);
        self.unlink(link, slot);
        self.links_are_whole();
        self.give_back(slot);
        self.word(StripeWord::Live).store(live, Relaxed);
        self.intend(Intent::None);
    }
}
