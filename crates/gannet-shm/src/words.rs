//! Words that are found once and then used many times.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::region::Region;

/// `N` words of a region. Where they are is checked when the handle is made, and never again: for counters
/// and flags that every message moves.
///
/// ```
/// # use std::sync::atomic::Ordering::Relaxed;
/// # use gannet_shm::{Region, Words};
/// let region = Region::create("counters", 1, 4096)?;
/// let counters = Words::<3>::attach(region.clone(), 128);
/// counters[2].store(7, Relaxed);
/// assert_eq!(region.word(128 + 16).load(Relaxed), 7);
/// # Ok::<_, gannet_shm::RegionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Words<const N: usize> {
    at: NonNull<[AtomicU64; N]>,
    /// Keeps the mapping.
    _region: Arc<Region>,
}

impl<const N: usize> Words<N> {
    /// The words from `offset` on.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 8 or the words are not inside the region.
    pub fn attach(region: Arc<Region>, offset: usize) -> Words<N> {
        Words {
            at: NonNull::from(region.words(offset, N)).cast(),
            _region: region,
        }
    }
}

impl<const N: usize> Deref for Words<N> {
    type Target = [AtomicU64; N];

    #[inline]
    fn deref(&self) -> &[AtomicU64; N] {
        // SAFETY: `attach` had it from a slice of `N` words of the region, which is mapped, where it is, as
        // long as `_region` lives. These bytes are only ever accessed as atomics (rule 1 of `region`).
        unsafe { self.at.as_ref() }
    }
}

/// Rows of `N` words that stand behind each other in a region, found once as [`Words`] are: a row is one
/// check and one addition away.
///
/// ```
/// # use std::sync::atomic::Ordering::Relaxed;
/// # use gannet_shm::{Region, WordRows};
/// let region = Region::create("rows", 1, 4096)?;
/// let rows = WordRows::<4>::attach(region.clone(), 64, 10);
/// rows[9][1].store(7, Relaxed);
/// assert_eq!(region.word(64 + (9 * 4 + 1) * 8).load(Relaxed), 7);
/// # Ok::<_, gannet_shm::RegionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct WordRows<const N: usize> {
    at: NonNull<[[AtomicU64; N]]>,
    /// Keeps the mapping.
    _region: Arc<Region>,
}

impl<const N: usize> WordRows<N> {
    /// So many rows from `offset` on.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 8 or the rows are not inside the region.
    pub fn attach(region: Arc<Region>, offset: usize, rows: usize) -> WordRows<N> {
        let (rows, _) = region.words(offset, rows * N).as_chunks();
        WordRows {
            at: NonNull::from(rows),
            _region: region,
        }
    }
}

impl<const N: usize> Deref for WordRows<N> {
    type Target = [[AtomicU64; N]];

    #[inline]
    fn deref(&self) -> &[[AtomicU64; N]] {
        // SAFETY: as for `Words`: `attach` had it from a slice of words of the region.
        unsafe { self.at.as_ref() }
    }
}

// SAFETY: the words belong to the region, not to a thread, and are atomics.
unsafe impl<const N: usize> Send for WordRows<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for WordRows<N> {}

// SAFETY: the words belong to the region, not to a thread, and are atomics.
unsafe impl<const N: usize> Send for Words<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Words<N> {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn words_outlive_the_owner_of_their_region() {
        let region = Region::create("words", 1, 4096).unwrap();
        let words = Words::<2>::attach(region.clone(), 4080);
        region.word(4088).store(9, Relaxed);
        drop(region);
        assert_eq!(words[1].load(Relaxed), 9);
    }

    #[test]
    #[should_panic(expected = "outside of a region")]
    fn rows_beyond_the_end_are_refused() {
        let region = Region::create("rows", 1, 4096).unwrap();
        WordRows::<16>::attach(region, 0, 33);
    }

    #[test]
    #[should_panic(expected = "outside of a region")]
    fn words_beyond_the_end_are_refused() {
        let region = Region::create("words", 1, 4096).unwrap();
        Words::<2>::attach(region, 4088);
    }
}
