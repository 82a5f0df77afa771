//! Where things lie in a table's region.

use std::ops::Range;

use crate::layout::Layout;
use crate::robust::RobustMutex;
use crate::table::key::{KeyKind, MAX_KEY};

/// How many rows a table has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Rows that the index is made for at first. It grows by itself; this only saves it the way.
    pub first: usize,
    /// Most rows. Address space is reserved for all of them, memory is taken as they come.
    pub max: usize,
}

impl Rows {
    /// Most rows that a table can have.
    pub const MAX: usize = 1 << 31;

    /// At most `max` rows; the index begins with 1,024.
    pub const fn up_to(max: usize) -> Rows {
        let first = if max < 1024 { max } else { 1024 };
        Rows { first, max }
    }

    /// With an index made for `first` rows from the beginning.
    pub const fn first(self, first: usize) -> Rows {
        Rows { first, ..self }
    }
}

/// The offsets of a table. The same for all processes: it follows from the numbers in the header.
#[derive(Clone, Copy, Debug)]
pub(in crate::table) struct Plan {
    pub(super) key: KeyKind,
    pub(super) max_rows: usize,
    /// A power of two.
    pub(super) stripes: usize,
    /// Of one stripe.
    pub(super) first_buckets: usize,
    pub(super) max_buckets: usize,
    /// Words of a row's values.
    pub(super) values: usize,
    /// Words of a row in front of its values.
    head: usize,
    stripes_at: usize,
    owners_at: usize,
    buckets_at: usize,
    rows_at: usize,
    /// Of one slot, up to whole cache lines.
    pub(super) row_words: usize,
    pub(in crate::table) total: usize,
}

/// Words of a row, behind which its two copies of the values are.
#[derive(Clone, Copy)]
pub(super) enum RowWord {
    /// Version, whether there is a row, and which copy is valid.
    Seq = 0,
    /// Link to the next row of the bucket.
    Next = 1,
    /// Of the key.
    Hash = 2,
    /// The number, or the length of the bytes that follow.
    Key = 3,
}

/// Words of a stripe. In front of them is the lock.
#[derive(Clone, Copy)]
pub(super) enum StripeWord {
    // Behind the lock, in its cache line: every holder looks at them, and has that line already.
    /// What is being done: see `recover`.
    Intent = 6,
    /// Number of rows.
    Live = 7,

    // A line of the holder of the lock, for rows that come and go. Others may look.
    /// The number that `Live` or `Buckets` has when the intent is carried out.
    After = 8,
    /// Where to look for a free slot.
    Cursor = 9,
    /// Holders that died.
    Deaths = 10,
    /// How often somebody had to wait for the lock.
    Waits = 11,

    // A line, and the other half of the stripe, of the readers.
    /// Odd: links of the stripe are being changed.
    Version = 16,
    /// Number of buckets.
    Buckets = 17,
}

impl Plan {
    /// `start`: bytes in front that are the header's.
    pub(in crate::table) fn new(key: KeyKind, values: usize, rows: Rows, start: usize) -> Plan {
        let stripes = (rows.max / ROWS_PER_STRIPE)
            .next_power_of_two()
            .clamp(1, MAX_STRIPES);
        Plan::with_stripes(key, values, rows, start, stripes)
    }

    pub(in crate::table) fn with_stripes(
        key: KeyKind,
        values: usize,
        rows: Rows,
        start: usize,
        stripes: usize,
    ) -> Plan {
        let first_buckets = rows.first.div_ceil(stripes * ROWS_PER_BUCKET);
        // Stripes do not get the same number of rows each; what is reserved costs nothing.
        let max_buckets = (rows.max.div_ceil(stripes) * 2).div_ceil(ROWS_PER_BUCKET);
        let head = KEY_BYTES
            + match key {
                KeyKind::U64 => 0,
                KeyKind::Text | KeyKind::Bytes => MAX_KEY / 8,
            };
        let row_words = (head + 2 * values).next_multiple_of(LINE / 8);

        let mut layout = Layout::new();
        layout.take(start, LINE);
        let stripes_at = layout.take(stripes * STRIPE_WORDS * 8, STRIPE_WORDS * 8);
        let owners_at = layout.take(rows.max.div_ceil(LANES) * 8, LINE);
        let buckets_at = layout.take(stripes * max_buckets * BUCKET_BYTES, LINE);
        let rows_at = layout.take(rows.max * row_words * 8, LINE);
        Plan {
            key,
            max_rows: rows.max,
            stripes,
            first_buckets,
            max_buckets,
            values,
            head,
            stripes_at,
            owners_at,
            buckets_at,
            rows_at,
            row_words,
            total: layout.total(),
        }
    }

    /// A stripe, which begins with its lock.
    #[inline]
    pub(super) fn stripe(&self, stripe: usize) -> usize {
        self.stripes_at + stripe * STRIPE_WORDS * 8
    }

    /// The locks of all stripes.
    pub(in crate::table) fn mutexes(&self) -> impl Iterator<Item = usize> {
        let plan = *self;
        (0..plan.stripes).map(move |stripe| plan.stripe(stripe))
    }

    /// Buckets of one number lie together, so that all stripes grow through the memory at one
    /// pace.
    #[inline]
    pub(super) fn bucket(&self, stripe: usize, bucket: usize) -> usize {
        self.buckets_at + (bucket * self.stripes + stripe) * BUCKET_BYTES
    }

    #[inline]
    pub(super) fn row(&self, slot: usize, word: RowWord) -> usize {
        self.rows_at + (slot * self.row_words + word as usize) * 8
    }

    /// Where in a row the bytes of a key are.
    #[inline]
    pub(super) fn key_bytes(&self) -> Range<usize> {
        KEY_BYTES..self.head
    }

    /// Where in a row a copy, 0 or 1, of the values is.
    #[inline]
    pub(super) fn copy(&self, copy: usize) -> Range<usize> {
        let start = self.head + copy * self.values;
        start..start + self.values
    }

    /// The word with the owners of the slots `word * LANES ..`.
    #[inline]
    pub(super) fn owners(&self, word: usize) -> usize {
        self.owners_at + word * 8
    }

    pub(super) fn owner_words(&self) -> usize {
        self.max_rows.div_ceil(LANES)
    }

    /// Bytes of a row, with its place in the index.
    pub(in crate::table) fn bytes_per_row(&self) -> usize {
        self.row_words * 8 + BUCKET_BYTES / ROWS_PER_BUCKET + 8 / LANES
    }
}

/// Links of a bucket, besides the one to its chain. Few for tests: chains in small models.
pub(super) const LINKS: usize = if cfg!(test) { 2 } else { 7 };
/// A cache line, but for tests.
const BUCKET_BYTES: usize = (LINKS + 1).next_power_of_two() * 8;
/// A bucket is split when there are more rows than this for each. With few of them memory is
/// wasted; with many, buckets that are due to be split have chains.
pub(in crate::table) const ROWS_PER_BUCKET: usize = LINKS.div_ceil(2);
/// Slots whose owners share a word.
pub(super) const LANES: usize = 4;
/// Two pairs of cache lines: processors fetch them in pairs, and readers shall not wait for the
/// lines that the lock moves to and fro.
pub(super) const STRIPE_WORDS: usize = 32;
/// The first word of a row behind [`RowWord`].
const KEY_BYTES: usize = RowWord::Key as usize + 1;
const _: () = assert!(RobustMutex::BYTES <= StripeWord::Intent as usize * 8);
/// With many stripes writers seldom meet; each takes 256 bytes.
const MAX_STRIPES: usize = 1024;
const ROWS_PER_STRIPE: usize = 64;
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps() {
        for (key, values, max) in [
            (KeyKind::U64, 1, 1),
            (KeyKind::Text, 11, 1000),
            (KeyKind::Bytes, 3, 100_000),
        ] {
            let plan = Plan::new(key, values, Rows::up_to(max), 100);
            assert!(plan.stripe(0) >= 100);
            assert!(plan.stripe(plan.stripes) <= plan.owners(0));
            assert!(plan.owners(plan.owner_words() - 1) + 8 <= plan.bucket(0, 0));
            let last = plan.bucket(plan.stripes - 1, plan.max_buckets - 1);
            assert!(last + BUCKET_BYTES <= plan.row(0, RowWord::Seq));
            assert!(plan.key_bytes().end <= plan.copy(0).start);
            assert_eq!((plan.copy(0).len(), plan.copy(1).len()), (values, values));
            assert_eq!(plan.copy(0).end, plan.copy(1).start);
            assert!(plan.copy(1).end <= plan.row_words);
            assert!(plan.row(max, RowWord::Seq) <= plan.total);
        }
    }

    #[test]
    fn a_row_of_two_ints_and_a_text_is_five_cache_lines() {
        let plan = Plan::new(KeyKind::Text, 2 + 9, Rows::up_to(1000), 0);
        assert_eq!(plan.row_words * 8, 320);
        let plan = Plan::new(KeyKind::U64, 2, Rows::up_to(1000), 0);
        assert_eq!(plan.row_words * 8, 64);
    }
}
