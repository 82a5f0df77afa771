//! The words of one slot, taken from the memory once.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::plan::{Plan, RowWord};
use super::{COPY, Found, is_present};
use crate::memory::{Contiguous, Word};
use crate::table::key::{KeyKind, MAX_KEY, RawKey, StoredKey};
use crate::table::row::{load_bytes, store_bytes};

/// A slot, whatever is in it.
pub(super) struct Row<'a, M: Contiguous> {
    words: &'a [M::Word],
    plan: &'a Plan,
}

impl<'a, M: Contiguous> Row<'a, M> {
    #[inline]
    pub(super) fn new(memory: &'a M, plan: &'a Plan, slot: usize) -> Self {
        let words = memory.words(plan.row(slot, RowWord::Seq), plan.row_words);
        Row { words, plan }
    }

    #[inline]
    pub(super) fn word(&self, word: RowWord) -> &'a M::Word {
        &self.words[word as usize]
    }

    /// What `take` makes of the row, if it was the same all the while.
    #[inline]
    pub(super) fn snapshot<T>(&self, take: impl Fn(u64) -> T) -> Found<T> {
        let seq_word = self.word(RowWord::Seq);
        let seq = seq_word.load(Acquire);
        if !is_present(seq) {
            return Found::Nothing;
        }
        let taken = take(seq);
        M::fence(Acquire);
        if seq_word.load(Relaxed) == seq {
            Found::Row(taken)
        } else {
            Found::Unsettled
        }
    }

    /// The values that are valid by this `seq`.
    #[inline]
    pub(super) fn values(&self, seq: u64) -> Words<'a, M> {
        let copy = self.plan.copy((seq & COPY) as usize);
        Words(&self.words[copy])
    }

    /// Where those values are put.
    #[inline]
    pub(super) fn room(&self, seq: u64) -> Room<'a, M> {
        Room(self.values(seq).0)
    }

    #[inline]
    pub(super) fn key_is(&self, key: RawKey<'_>) -> bool {
        let number = self.word(RowWord::Key).load(Relaxed);
        match key {
            RawKey::U64(key) => number == key,
            RawKey::Bytes(bytes) => {
                let stored = self.key_bytes();
                let mut same = number == bytes.len() as u64;
                store_bytes(bytes, |word, value| {
                    same &= stored[word].load(Relaxed) == value;
                });
                same
            }
        }
    }

    pub(super) fn key(&self) -> StoredKey {
        let number = self.word(RowWord::Key).load(Relaxed);
        let mut bytes = [0; MAX_KEY];
        if self.plan.key != KeyKind::U64 {
            let stored = self.key_bytes();
            let len = (number as usize).min(MAX_KEY);
            load_bytes(&mut bytes[..len], |word| stored[word].load(Relaxed));
        }
        StoredKey { number, bytes }
    }

    /// For the holder of the lock, while there is no row.
    pub(super) fn store_key(&self, key: RawKey<'_>) {
        let number = self.word(RowWord::Key);
        match key {
            RawKey::U64(key) => number.store(key, Relaxed),
            RawKey::Bytes(bytes) => {
                number.store(bytes.len() as u64, Relaxed);
                let stored = self.key_bytes();
                store_bytes(bytes, |word, value| stored[word].store(value, Relaxed));
            }
        }
    }

    #[inline]
    fn key_bytes(&self) -> &'a [M::Word] {
        &self.words[self.plan.key_bytes()]
    }
}

/// The values of a row, word by word. They may change meanwhile: who loads them is told afterwards.
pub(in crate::table) struct Words<'a, M: Contiguous>(&'a [M::Word]);

impl<M: Contiguous> Words<'_, M> {
    #[inline]
    pub(in crate::table) fn load(&self, word: usize) -> u64 {
        self.0[word].load(Relaxed)
    }
}

/// Where the holder of the lock puts values.
pub(in crate::table) struct Room<'a, M: Contiguous>(&'a [M::Word]);

impl<M: Contiguous> Room<'_, M> {
    #[inline]
    pub(in crate::table) fn put(&self, word: usize, value: u64) {
        self.0[word].store(value, Relaxed);
    }
}
