//! The table itself: rows of words under keys, in memory that processes share.
//!
//! # Parts
//!
//! - *Slots*: room for one row each. A row never changes its slot while it lives. It has two copies
//!   of its values, of which the word `seq` names the valid one.
//! - *Owners*: a word with 16 bits for each slot: 0 if the slot is free, else the number of the
//!   stripe that has it, plus one. Claiming a slot and saying whose it is are one atomic operation.
//! - *Stripes*: the hash of a key says which stripe it belongs to. A stripe is a hash table by
//!   itself, with a lock, and buckets that grow by linear hashing. Nothing is ever locked but one
//!   stripe, and nobody who holds one waits for anything else.
//! - *Buckets*: each is a cache line with links to rows, and one link more to a chain of those for
//!   which there was no room, each of which links to the next (`chain`). A link also has 32 bits of
//!   the key's hash, so that rows with other keys are seldom looked at. A row that has a link of a
//!   bucket keeps it, and one in the chain its place, until it is removed or the bucket is split.
//!
//! # Who writes what
//!
//! | word | written by | order | means |
//! |---|---|---|---|
//! | row: key, hash | holder of the stripe, while the row is not present | Relaxed, behind fence(Release) | |
//! | row: copy that is not valid | holder | Relaxed, behind fence(Release) | the values to be |
//! | row: one word of the valid copy | holder, behind a new `seq` | Relaxed, behind fence(Release) | a number that is changed in place |
//! | row: `seq` | holder | Release | bit 0: valid copy; bit 1: present; above: version |
//! | row: `next`; links of a bucket | holder | Release | link, 0: none |
//! | stripe: `version` | holder | odd: Relaxed; even: Release | odd: links are taken away |
//! | stripe: `buckets` | holder, while `version` is odd | Release | number of buckets |
//! | owner of a slot | holder of the stripe that claims or has it | AcqRel | |
//! | the rest of a stripe | holder | Relaxed, in program order | |
//!
//! # Why no torn row is seen
//!
//! A reader loads `seq` (Acquire), compares the key, loads the valid copy, and then, behind
//! fence(Acquire), `seq` again. It takes what it has only if both are the same.
//!
//! - *Whole values.* A writer fills the copy that is not valid and then stores `seq`. The copy that a
//!   reader is at becomes a target only for the write after next, which begins with a
//!   fence(Release) behind the `seq` in between. If the reader saw one word of it, its fence makes it
//!   see that `seq` too, and it tries again.
//! - *One word in place* (`incr`). The writer stores a new `seq` first and the word behind
//!   fence(Release). Between two values of `seq` at most one word changes, so what the reader loaded
//!   is the row before or the row after. If it saw words of two changes, it sees the `seq` between
//!   them.
//! - *Another row in the slot.* Before it is written, `seq` has lost its bit *present*; the same
//!   argument.
//!
//! # Why no row is overlooked
//!
//! A reader that finds its key is right by the above, by whatever way it came to the row. One that
//! finds nothing looks whether `version` was even and is the same as before; only then there is
//! nothing. (Links are stored Release and loaded Acquire: who saw one that was changed sees the odd
//! `version` that was stored before.) Links are added without changing `version`: who came before
//! them did not need to see them. That holds for the `next` of a slot that is another row's now,
//! too: its new value was stored behind the odd `version` under which the old row went.
//!
//! # Why nobody's death does harm
//!
//! Whoever dies while writing values leaves the valid copy as it was: there is nothing to repair.
//! Whoever is about to claim, unlink or move a slot first writes down which and what for
//! ([`StripeWord::Intent`]); the next holder of the lock is told of the death by the kernel, reads
//! that, and brings the one slot to an end (`recover`). All steps may be done twice.
//!
//! # Bounds
//!
//! Readers try a bounded number of times, then take the lock of the stripe: a writer in a hurry
//! delays them, and only a holder that is stopped in the middle of taking a link away makes those
//! wait who look for something that is not there, in that stripe.

mod chain;
mod entry;
mod hash;
pub(super) mod plan;
mod recover;
mod row;
mod slot;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use self::hash::Hash;
use self::plan::{LINKS, Plan, RowWord, STRIPE_WORDS, StripeWord};
use self::row::Row;
use super::key::{RawKey, StoredKey};
use crate::memory::{Contiguous, Word};
use crate::robust::LockError;

pub(super) use self::chain::Link;
pub(super) use self::entry::Entry;
pub(super) use self::row::{Room, Words};

/// The locks of the stripes.
pub(super) trait Locks {
    type Guard<'a>: Guard
    where
        Self: 'a;

    fn lock(&self, stripe: usize) -> Result<Self::Guard<'_>, LockError>;
    /// `None`: it is held.
    fn try_lock(&self, stripe: usize) -> Result<Option<Self::Guard<'_>>, LockError>;
}

pub(super) trait Guard {
    /// The last holder died.
    fn owner_died(&self) -> bool;
}

/// A table of words. See the module's documentation.
#[derive(Debug)]
pub(super) struct Core<M: Contiguous, L> {
    memory: Arc<M>,
    locks: L,
    plan: Plan,
    seed: [u64; 2],
}

/// Every slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A stripe whose lock is held.
pub(super) struct Stripe<'a, M: Contiguous, L: Locks + 'a> {
    core: &'a Core<M, L>,
    index: usize,
    words: &'a [M::Word],
    _guard: L::Guard<'a>,
}

enum Found<T> {
    Row(T),
    Nothing,
    /// A writer was at work there.
    Unsettled,
}

impl<M: Contiguous, L: Locks> Core<M, L> {
    /// A table in memory that [`Core::format`] has prepared.
    pub(super) fn new(memory: Arc<M>, locks: L, plan: Plan, seed: [u64; 2]) -> Self {
        Core {
            memory,
            locks,
            plan,
            seed,
        }
    }

    /// Prepares zeroed memory, before anyone else knows it.
    pub(super) fn format(&self) {
        for stripe in 0..self.plan.stripes {
            let words = self.stripe(stripe);
            let buckets = self.plan.first_buckets as u64;
            words[StripeWord::Buckets as usize].store(buckets, Relaxed);
            let home = stripe * self.plan.owner_words() / self.plan.stripes;
            words[StripeWord::Cursor as usize].store(home as u64, Relaxed);
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Loads the row under a key, without a lock unless writers are in the way. `load` may be called
    /// several times, also with values that never were; what it makes of those is dropped.
    #[inline]
    pub(super) fn read<T>(
        &self,
        key: RawKey<'_>,
        load: impl Fn(Words<'_, M>) -> T,
    ) -> Result<Option<T>, LockError> {
        let hash = self.hash(key);
        for _ in 0..ATTEMPTS {
            match self.try_read(hash, key, &load) {
                Found::Row(row) => return Ok(Some(row)),
                Found::Nothing => return Ok(None),
                Found::Unsettled => spin_loop(),
            }
        }
        self.entry(key, |entry| entry.values().map(load))
    }

    /// Does something to the row under a key, or to its place, under the lock of its stripe.
    #[inline]
    pub(super) fn entry<T>(
        &self,
        key: RawKey<'_>,
        change: impl FnOnce(&mut Entry<'_, '_, M, L>) -> T,
    ) -> Result<T, LockError> {
        let hash = self.hash(key);
        let mut stripe = self.lock(hash.stripe)?;
        Ok(change(&mut Entry::find(&mut stripe, hash, key)))
    }

    /// The row in a slot, if there is one. As [`Core::read`].
    pub(super) fn row_in<T>(
        &self,
        slot: usize,
        load: impl Fn(Words<'_, M>) -> T,
    ) -> Result<Option<(StoredKey, T)>, LockError> {
        let owner = self.owner(slot);
        let Some(stripe) = owner.checked_sub(1).filter(|&it| it < self.plan.stripes) else {
            return Ok(None);
        };
        let row = self.row(slot);
        let whole = |seq: u64| (row.key(), load(row.values(seq)));
        for _ in 0..ATTEMPTS {
            match row.snapshot(whole) {
                Found::Row(row) => return Ok(Some(row)),
                Found::Nothing => return Ok(None),
                Found::Unsettled => spin_loop(),
            }
        }
        // Whoever has the slot now: it is another row, which need not be seen.
        let _stripe = self.lock(stripe)?;
        let seq = row.word(RowWord::Seq).load(Acquire);
        let same = self.owner(slot) == owner && is_present(seq);
        Ok(same.then(|| whole(seq)))
    }

    /// The first slot from this one on that has an owner.
    pub(super) fn next_owned(&self, from: usize) -> Option<usize> {
        slot::next_owned(self, from)
    }

    /// Number of rows: of each stripe at a moment, not of all at one.
    pub(super) fn len(&self) -> usize {
        self.sum(StripeWord::Live) as usize
    }

    pub(super) fn max_rows(&self) -> usize {
        self.plan.max_rows
    }

    pub(super) fn buckets(&self) -> usize {
        self.sum(StripeWord::Buckets) as usize
    }

    /// How many holders of locks have died, and how often somebody waited for a lock.
    pub(super) fn deaths_and_waits(&self) -> (u64, u64) {
        (self.sum(StripeWord::Deaths), self.sum(StripeWord::Waits))
    }

    /// Removes the rows that are there now.
    pub(super) fn clear(&self) -> Result<(), LockError> {
        for index in 0..self.plan.stripes {
            // Buckets that are added meanwhile are visited too: they have rows of earlier ones.
            let mut bucket = 0;
            loop {
                let mut stripe = self.lock(index)?;
                if bucket >= stripe.buckets() {
                    break;
                }
                stripe.empty(bucket);
                bucket += 1;
            }
        }
        Ok(())
    }

    /// Brings to an end what dead holders have left; says whether there was something.
    pub(super) fn sweep(&self) -> Result<bool, LockError> {
        let before = self.deaths_and_waits().0;
        for stripe in 0..self.plan.stripes {
            drop(self.try_lock(stripe)?);
        }
        Ok(self.deaths_and_waits().0 != before)
    }

    #[inline]
    pub(super) fn lock(&self, stripe: usize) -> Result<Stripe<'_, M, L>, LockError> {
        match self.locks.try_lock(stripe)? {
            Some(guard) => Ok(self.locked(stripe, guard)),
            None => self.wait(stripe),
        }
    }

    #[cold]
    fn wait(&self, stripe: usize) -> Result<Stripe<'_, M, L>, LockError> {
        let locked = self.locked(stripe, self.locks.lock(stripe)?);
        locked.add(StripeWord::Waits, 1);
        Ok(locked)
    }

    fn try_lock(&self, stripe: usize) -> Result<Option<Stripe<'_, M, L>>, LockError> {
        let guard = self.locks.try_lock(stripe)?;
        Ok(guard.map(|guard| self.locked(stripe, guard)))
    }

    #[inline]
    fn locked<'a>(&'a self, index: usize, guard: L::Guard<'a>) -> Stripe<'a, M, L> {
        let died = guard.owner_died();
        let mut stripe = Stripe {
            core: self,
            index,
            words: self.stripe(index),
            _guard: guard,
        };
        if died {
            stripe.succeed();
        }
        stripe
    }

    #[inline]
    fn try_read<T>(
        &self,
        hash: Hash,
        key: RawKey<'_>,
        load: &impl Fn(Words<'_, M>) -> T,
    ) -> Found<T> {
        let stripe = self.stripe(hash.stripe);
        let version_word = &stripe[StripeWord::Version as usize];
        let version = version_word.load(Acquire);
        let buckets = stripe[StripeWord::Buckets as usize].load(Acquire);
        let bucket = self.plan.bucket(hash.stripe, self.bucket(hash, buckets));
        let (links, chain) = self.bucket_words(bucket).split_at(LINKS);
        for word in links {
            let link = Link(word.load(Acquire));
            if link.tag() == hash.tag
                && let Some(slot) = link.slot(&self.plan)
                && let Some(found) = self.read_row(slot, key, load)
            {
                return found;
            }
        }
        let mut link = Link(chain[0].load(Acquire));
        let mut steps = 0;
        while let Some(slot) = link.slot(&self.plan) {
            if link.tag() == hash.tag
                && let Some(found) = self.read_row(slot, key, load)
            {
                return found;
            }
            link = self.link(self.plan.row(slot, RowWord::Next));
            steps += 1;
            // Links that are changed under the reader can lead it in a circle; so can links that
            // somebody else wrote into, for ever.
            if steps % CIRCLE == 0
                && (version_word.load(Relaxed) != version || steps > self.plan.max_rows)
            {
                return Found::Unsettled;
            }
        }
        if version.is_multiple_of(2) && version_word.load(Relaxed) == version {
            Found::Nothing
        } else {
            Found::Unsettled
        }
    }

    /// The row in a slot, to which a link with its key's tag led. `None`: it is that of another key.
    #[inline]
    fn read_row<T>(
        &self,
        slot: usize,
        key: RawKey<'_>,
        load: &impl Fn(Words<'_, M>) -> T,
    ) -> Option<Found<T>> {
        self.fetch(slot);
        let row = self.row(slot);
        match row.snapshot(|seq| row.key_is(key).then(|| load(row.values(seq)))) {
            Found::Row(row) => row.map(Found::Row),
            Found::Nothing | Found::Unsettled => Some(Found::Unsettled),
        }
    }

    /// Asks for a row as a whole: where its valid copy is, is known only when its first word is here.
    /// (For readers: writers do not wait for what they store.)
    #[inline]
    fn fetch(&self, slot: usize) {
        let start = self.plan.row(slot, RowWord::Seq);
        let end = start + self.plan.row_words * 8;
        for at in (start..end).step_by(LINE).take(FETCHED) {
            self.memory.prefetch(at);
        }
    }

    #[inline]
    fn link(&self, at: usize) -> Link {
        Link(self.memory.word(at).load(Acquire))
    }

    #[inline]
    fn row(&self, slot: usize) -> Row<'_, M> {
        Row::new(&*self.memory, &self.plan, slot)
    }

    #[inline]
    fn row_word(&self, slot: usize, word: RowWord) -> &M::Word {
        self.memory.word(self.plan.row(slot, word))
    }

    /// The words of the bucket at an offset.
    #[inline]
    fn bucket_words(&self, bucket: usize) -> &[M::Word] {
        self.memory.words(bucket, LINKS + 1)
    }

    /// The words of a stripe, in front the lock.
    #[inline]
    fn stripe(&self, stripe: usize) -> &[M::Word] {
        self.memory.words(self.plan.stripe(stripe), STRIPE_WORDS)
    }

    fn sum(&self, word: StripeWord) -> u64 {
        (0..self.plan.stripes)
            .map(|stripe| self.stripe(stripe)[word as usize].load(Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

impl<M: Contiguous, L: Locks> Stripe<'_, M, L> {
    #[inline]
    fn word(&self, word: StripeWord) -> &M::Word {
        &self.words[word as usize]
    }

    /// Takes over from a holder that died.
    #[cold]
    fn succeed(&mut self) {
        self.add(StripeWord::Deaths, 1);
        self.recover();
    }

    fn add(&self, word: StripeWord, by: u64) {
        let word = self.word(word);
        word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
    }

    #[inline]
    fn buckets(&self) -> usize {
        let buckets = self.word(StripeWord::Buckets).load(Relaxed) as usize;
        buckets.clamp(1, self.core.plan.max_buckets)
    }
}

impl<M: Contiguous, L: Locks> Drop for Stripe<'_, M, L> {
    /// A change that ended early, by an error or a panic in what was called, is taken back.
    #[inline]
    fn drop(&mut self) {
        if self.word(StripeWord::Intent).load(Relaxed) != 0 {
            self.recover();
        }
    }
}

#[inline]
fn is_present(seq: u64) -> bool {
    seq & PRESENT != 0
}

/// In `seq`: the copy that is valid.
const COPY: u64 = 1;
/// In `seq`: there is a row.
const PRESENT: u64 = 2;
/// What `seq` is counted up by.
const VERSION: u64 = 4;

/// How often readers try before they take the lock. Each try is longer than what a writer needs.
/// (In models every one multiplies what is to be explored.)
const ATTEMPTS: usize = if cfg!(test) { 2 } else { 100 };
/// Most cache lines of a row that are asked for in advance.
const FETCHED: usize = 8;
const LINE: usize = 64;
/// After so many rows of one chain a reader looks whether it is on the right way.
const CIRCLE: usize = 64;
