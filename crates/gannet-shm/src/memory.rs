//! What the algorithms of this crate need from memory.
//!
//! Rings, doorbells and slots are written against [`Memory`], not against a mapping. In
//! production it is a [`Region`](crate::Region); in `tests/loom.rs` it is a model whose words
//! are loom's atomics and whose payload bytes are loom's race-detecting cells. So the model
//! checker explores the code that ships, not a copy of it.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::as_uninit;

/// Words and bytes that several processes see at the same offsets.
///
/// *Words* are the cursors, flags and sequence numbers that order everything else. *Bytes*
/// are payload: a protocol built from words says who may touch them when.
///
/// Offsets that are out of range or misaligned are bugs of the caller, not of a peer (whoever
/// takes an offset from shared memory bounds it first), so these methods panic on them.
///
/// # Safety
///
/// `copy_out` must write every element of `into`: callers hand out the buffer as initialised.
pub unsafe trait Memory {
    /// A 64-bit atomic word.
    type Word: Word;

    /// The atomic word at `offset`, a multiple of 8.
    fn word(&self, offset: usize) -> &Self::Word;

    /// Copies `bytes` to `offset`.
    fn copy_in(&self, offset: usize, bytes: &[u8]);

    /// Fills `into` with the bytes from `offset` on.
    fn copy_out(&self, offset: usize, into: &mut [MaybeUninit<u8>]);

    /// Copies `N` bytes to `offset`, a multiple of 8: for what has the same length every time, best whole
    /// words.
    #[inline]
    fn put<const N: usize>(&self, offset: usize, bytes: &[u8; N]) {
        self.copy_in(offset, bytes);
    }

    /// The `N` bytes at `offset`, a multiple of 8.
    #[inline]
    fn take<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.copy_out(offset, as_uninit(&mut bytes));
        bytes
    }

    /// An atomic fence.
    fn fence(order: Ordering);

    /// Asks for the cache line at `offset`, because it is about to be read.
    #[inline]
    fn prefetch(&self, offset: usize) {
        let _ = offset;
    }
}

/// Memory of which many words can be had at once: where they are is checked once for all.
pub(crate) trait Contiguous: Memory {
    /// The `count` words from `offset`, a multiple of 8, on.
    fn words(&self, offset: usize, count: usize) -> &[Self::Word];
}

/// The operations on a word that the algorithms use.
pub trait Word {
    /// Atomic load.
    fn load(&self, order: Ordering) -> u64;
    /// Atomic store.
    fn store(&self, value: u64, order: Ordering);
    /// Atomic exchange; returns the value before.
    fn swap(&self, value: u64, order: Ordering) -> u64;
    /// Stores `new` if the value is `current`; says whether it was.
    fn replace(&self, current: u64, new: u64, order: Ordering) -> bool;
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    #[inline]
    fn replace(&self, current: u64, new: u64, order: Ordering) -> bool {
        self.compare_exchange(current, new, order, Ordering::Relaxed)
            .is_ok()
    }
}
