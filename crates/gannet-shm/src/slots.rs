//! Fixed rows of words: one writer per row, any number of readers.
//!
//! # A row
//!
//! | word   | written by     | order                              | means                          |
//! |--------|----------------|------------------------------------|--------------------------------|
//! | `seq`  | row's writer   | odd: Relaxed + fence(Release); even: Release | odd: being written   |
//! | values | row's writer   | Relaxed                            | valid if `seq` was even and the same before and after |
//! | cells  | anyone         | as they like                       | each for itself; same words as values, by agreement |
//!
//! # Why no torn row is returned (a seqlock)
//!
//! The reader loads `seq` with Acquire (`s1`), the values Relaxed, then after fence(Acquire)
//! `seq` again (`s2`), and takes the values only if `s1 == s2` is even.
//!
//! *Not older than `s1`*: the even store was Release, so with `s1` all values stored before it
//! are visible. *Not newer*: if any value was one that a later write stored, then the fence of
//! the writer, in front of that store, and the reader's fence, behind its load, order the
//! writer's odd `seq` before the load of `s2`: `s2 != s1`. (`seq` is a 64-bit count and does not
//! come round.)
//!
//! A writer that dies while it writes leaves `seq` odd. Readers give up after a bound. The next
//! writer of the row takes over: [`Slots::write`] of all values repairs it by itself, or
//! [`Slots::repair`] empties it.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::yield_now;

use crate::memory::{Memory, Word};
use crate::region::Region;
use crate::words::WordRows;

/// Rows of words in a region. Out-of-range rows and words are bugs of the caller: they panic,
/// except in the reading methods, whose row may come from anywhere.
#[derive(Debug)]
pub struct Slots<M: Memory = Region> {
    memory: Arc<M>,
    offset: usize,
    rows: usize,
    words: usize,
    /// Bytes from row to row.
    stride: usize,
}

impl Slots {
    /// Alignment of the offset.
    pub const ALIGN: usize = 64;

    /// Bytes that the rows take in the region.
    pub const fn bytes(rows: usize, words: usize) -> usize {
        rows * stride(words)
    }

    /// All rows as they lie in memory: `seq` first, then the words, then what makes a row `N` words long. For
    /// who changes cells very often.
    ///
    /// # Panics
    ///
    /// If a row does not take `N` words.
    pub fn by_word<const N: usize>(&self) -> WordRows<N> {
        assert!(self.stride == N * 8, "a row takes {} bytes", self.stride);
        WordRows::attach(self.memory.clone(), self.offset, self.rows)
    }
}

impl<M: Memory> Slots<M> {
    /// The rows at `offset`. All zero is a valid state of every row.
    ///
    /// # Panics
    ///
    /// If the offset is misaligned or the rows are not inside the region.
    pub fn attach(region: Arc<M>, offset: usize, rows: usize, words: usize) -> Slots<M> {
        assert!(
            offset.is_multiple_of(Slots::ALIGN),
            "slots at {offset} are not at a multiple of {}",
            Slots::ALIGN
        );
        let slots = Slots {
            memory: region,
            offset,
            rows,
            words,
            stride: stride(words),
        };
        if let Some(last) = rows.checked_sub(1) {
            slots.memory.word(slots.seq(last) + words * 8);
        }
        slots
    }

    /// Writes the first `values.len()` words of a row, never seen torn. Words behind them are
    /// not touched: they can be [cells](Slots::cell).
    ///
    /// Only one writer per row at a time. After a writer that died in the middle, write as many
    /// values as it did, or [`Slots::repair`] first.
    #[inline]
    pub fn write(&self, row: usize, values: &[u64]) {
        assert!(
            row < self.rows && values.len() <= self.words,
            "no row {row} of {} values in {} rows of {} words",
            values.len(),
            self.rows,
            self.words
        );
        self.write_all(row, values.iter().copied());
    }

    /// Reads the first `into.len()` words of a row.
    ///
    /// `false`: there is no such row, or its writer was in the middle of a write all the time
    /// (it is busy, stopped or dead). Then `into` holds garbage.
    #[must_use]
    pub fn read(&self, row: usize, into: &mut [u64]) -> bool {
        if row >= self.rows || into.len() > self.words {
            return false;
        }
        for attempt in 0..SPINS + YIELDS {
            if self.try_read(row, into) {
                return true;
            }
            // A writer that runs needs less than the spins; one that was descheduled needs our
            // processor.
            if attempt < SPINS {
                spin_loop()
            } else {
                yield_now()
            }
        }
        false
    }

    /// One attempt of [`Slots::read`].
    #[must_use]
    #[inline]
    pub fn try_read(&self, row: usize, into: &mut [u64]) -> bool {
        if row >= self.rows || into.len() > self.words {
            return false;
        }
        let seq = self.memory.word(self.seq(row));
        let before = seq.load(Ordering::Acquire);
        if before % 2 == 1 {
            return false;
        }
        for (word, value) in into.iter_mut().enumerate() {
            *value = self.at(row, word).load(Ordering::Relaxed);
        }
        M::fence(Ordering::Acquire);
        seq.load(Ordering::Relaxed) == before
    }

    /// A word of a row by itself, outside of the seqlock: counters and times that are updated
    /// one by one, mostly behind the words that [`Slots::write`] writes.
    #[inline]
    pub fn cell(&self, row: usize, word: usize) -> &M::Word {
        assert!(
            row < self.rows && word < self.words,
            "no word {word} in row {row}"
        );
        self.at(row, word)
    }

    /// For the successor of a writer: if that one died in the middle of a write, zeroes the whole
    /// row, cells too, and says `true`.
    pub fn repair(&self, row: usize) -> bool {
        assert!(row < self.rows, "no row {row}");
        let torn = self.memory.word(self.seq(row)).load(Ordering::Relaxed) % 2 == 1;
        if torn {
            self.write_all(row, (0..self.words).map(|_| 0));
        }
        torn
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Words per row.
    pub fn words(&self) -> usize {
        self.words
    }

    #[inline]
    fn write_all(&self, row: usize, values: impl Iterator<Item = u64>) {
        let seq = self.memory.word(self.seq(row));
        // Odd already if the writer before died: this write then goes on with its number.
        let odd = seq.load(Ordering::Relaxed) | 1;
        seq.store(odd, Ordering::Relaxed);
        M::fence(Ordering::Release);
        for (word, value) in values.enumerate() {
            self.at(row, word).store(value, Ordering::Relaxed);
        }
        seq.store(odd.wrapping_add(1), Ordering::Release);
    }

    #[inline]
    fn seq(&self, row: usize) -> usize {
        self.offset + row * self.stride
    }

    #[inline]
    fn at(&self, row: usize, word: usize) -> &M::Word {
        self.memory.word(self.seq(row) + (1 + word) * 8)
    }
}

/// Bytes from row to row: whole cache lines, so that rows of different writers do not share.
const fn stride(words: usize) -> usize {
    ((1 + words) * 8).next_multiple_of(Slots::ALIGN)
}

const SPINS: usize = 64;
const YIELDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(rows: usize, words: usize) -> Slots {
        let region = Region::create("slots", 1, Slots::bytes(rows, words)).unwrap();
        Slots::attach(region, 0, rows, words)
    }

    #[test]
    fn rows_do_not_overlap() {
        let slots = slots(20, 9);
        for row in 0..20 {
            slots.write(row, &[row as u64 + 1; 9]);
        }
        for row in 0..20 {
            let mut values = [0; 9];
            assert!(slots.read(row, &mut values));
            assert_eq!(values, [row as u64 + 1; 9]);
        }
    }

    #[test]
    fn a_write_leaves_the_cells_behind_it() {
        let slots = slots(1, 4);
        slots.cell(0, 3).fetch_add(5, Ordering::Relaxed);
        slots.write(0, &[1, 2, 3]);
        slots.cell(0, 3).fetch_add(5, Ordering::Relaxed);
        let mut row = [0; 4];
        assert!(slots.read(0, &mut row));
        assert_eq!(row, [1, 2, 3, 10]);
    }

    #[test]
    fn a_reader_gives_up_on_a_dead_writer_and_the_next_writer_takes_over() {
        let slots = slots(2, 2);
        slots.write(1, &[1, 1]);
        slots
            .memory
            .word(slots.seq(1))
            .fetch_add(1, Ordering::Relaxed);
        slots.cell(1, 0).store(9, Ordering::Relaxed);
        let mut row = [0; 2];
        assert!(!slots.read(1, &mut row));
        slots.write(1, &[2, 2]);
        assert!(slots.read(1, &mut row));
        assert_eq!(row, [2, 2]);
    }

    #[test]
    fn repair_empties_a_torn_row_and_no_other() {
        let slots = slots(2, 2);
        slots.write(0, &[1, 1]);
        slots.write(1, &[1, 1]);
        slots
            .memory
            .word(slots.seq(1))
            .fetch_add(1, Ordering::Relaxed);
        let mut row = [0; 2];
        assert!(!slots.repair(0) && slots.read(0, &mut row) && row == [1, 1]);
        assert!(slots.repair(1) && slots.read(1, &mut row) && row == [0, 0]);
    }

    #[test]
    fn a_row_that_is_not_there_cannot_be_read() {
        let slots = slots(2, 2);
        assert!(!slots.read(2, &mut [0; 2]));
        assert!(!slots.read(usize::MAX, &mut [0; 2]));
        assert!(!slots.read(0, &mut [0; 3]));
    }

    #[test]
    #[should_panic(expected = "outside of a region")]
    fn refuse_rows_outside_of_the_region() {
        let region = Region::create("slots", 1, Slots::bytes(64, 7)).unwrap();
        Slots::attach(region, 0, 65, 7);
    }
}
