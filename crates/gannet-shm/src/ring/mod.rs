//! A byte ring of records between one producer and one consumer.
//!
//! # Shared state
//!
//! | word    | at     | written by | order   | read by  | order   | means                        |
//! |---------|--------|------------|---------|----------|---------|------------------------------|
//! | `head`  | 0      | producer   | Release | consumer | Acquire | records before it are whole  |
//! | `read`  | 128    | consumer   | Release | producer | Acquire | records before it are copied |
//! | data    | 256..  | producer   | Relaxed | consumer | Relaxed | headers and payload          |
//!
//! Each word has 128 bytes to itself (two lines, because processors prefetch pairs). All zero
//! is an empty ring, so a fresh region needs no initialisation.
//!
//! Cursors are [`Position`]s: byte counts since the ring was made, never wrapped (64 bits last
//! for years at memory speed). A byte's place is its position modulo the capacity.
//!
//! # Private state
//!
//! The producer has `tail` (end of what it has written), `published` (its copy of `head`),
//! `hold` (the oldest record that its ledger keeps) and `seen` (the last `read` it looked at).
//! The consumer has `cursor` and the last `head` it looked at. Both look again only when the
//! cached value is used up, so in the steady state a side touches the other's line once per
//! batch.
//!
//! # Invariants
//!
//! 1. `read ≤ cursor ≤ head = published ≤ tail ≤ min(read, hold) + capacity`.
//! 2. Bytes in `head..tail` and those free belong to the producer. Bytes in `read..head` are
//!    not written by anyone. Bytes in `hold..read` are not written by anyone either; only the
//!    producer reads them.
//! 3. The consumer never writes data.
//!
//! # Why no byte is read before it is written, or after it is overwritten
//!
//! *Published.* The producer writes a record and then stores `head` with Release. The consumer
//! loads `head` with Acquire and reads only records before it: the writes happen before the
//! reads.
//!
//! *Overwritten.* The consumer copies a record out and then stores `read` with Release. The
//! producer loads `read` with Acquire and writes only below `read + capacity`: the reads happen
//! before the writes that reuse the bytes. `hold` only lowers that bound.
//!
//! *Crash of the consumer.* `read` says what it had copied out for certain. The successor
//! starts there; a record that was read but not committed is read again. What it had
//! committed but not finished the producer still holds, and can [take back](Producer::take_back).
//!
//! *Crash of the producer.* `head` is one store, so either all of a batch is published or
//! nothing. The successor starts at `head` and overwrites whatever was behind it.
//!
//! # Records
//!
//! A record starts at a multiple of 8 with one header word (length, and a tag made from the
//! position), and is padded to 8 bytes. It may wrap around the end of the ring: since records
//! are copied and never borrowed, a wrapped copy is two copies, and neither a skip record nor a
//! mirrored mapping is needed. So `push` succeeds exactly if [`RingSpec::record_bytes`] are free.
//!
//! # Corruption
//!
//! The other side may be mad. Every cursor and length that comes from shared memory is loaded
//! once, checked (cursors: aligned, in invariant 1, not moving backwards; headers: tag and
//! length), and only then used. What fails is not used, and a flag stays set
//! ([`Producer::is_corrupt`], [`Consumer::corrupt`]): the ring is to be thrown away.

mod consumer;
mod data;
mod producer;
mod record;

pub use consumer::Consumer;
pub use producer::{Full, Producer};
pub use record::{OutOfBounds, Record};

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use crate::{region::Region, words::Words};

/// A place in a ring: bytes since the ring was made.
///
/// Plain data, so that it can travel in a record (an acknowledgement names the record it is
/// about). It is checked where it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a ring lies in its region and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSpec {
    /// Offset in the region; a multiple of 128.
    pub offset: usize,
    /// Bytes for records: a power of two, at least [`RingSpec::MIN_CAPACITY`].
    ///
    /// The largest record is a quarter of it. Memory is used up to this number once the ring
    /// has gone round, and stays used.
    pub capacity: usize,
}

impl RingSpec {
    /// The smallest capacity that works. Anything below a few KiB is for tests.
    pub const MIN_CAPACITY: usize = 64;

    /// The largest capacity: lengths and bounds must fit into 32 bits.
    pub const MAX_CAPACITY: usize = 1 << 31;

    /// Bytes that a ring of this capacity takes in its region; the offset must be a multiple of
    /// [`RingSpec::ALIGN`].
    pub const fn bytes(capacity: usize) -> usize {
        DATA + capacity
    }

    /// Alignment of the offset.
    pub const ALIGN: usize = 128;

    /// Bytes that a record of `len` payload bytes takes in the ring.
    pub const fn record_bytes(len: usize) -> usize {
        HEADER + len.next_multiple_of(8)
    }

    /// The most payload bytes of one record.
    pub const fn max_record(capacity: usize) -> usize {
        capacity / 4 - HEADER
    }

    /// What [`RingSpec::used`] says of a ring that nobody uses, for what stands in its place to be set.
    ///
    /// # Panics
    ///
    /// If the ring is not inside the region.
    pub fn stand_in(&self, region: Arc<Region>) -> Words<1> {
        Words::attach(region, self.offset + HEAD)
    }

    /// Bytes of this ring that were published and not read, for whoever watches it: the two cursors are
    /// not read at one moment, and the other sides go on.
    pub fn used(&self, region: &Region) -> usize {
        // In this order the second is not behind the first.
        let read = region.word(self.offset + READ).load(Ordering::Acquire);
        let head = region.word(self.offset + HEAD).load(Ordering::Acquire);
        usize::try_from(head.saturating_sub(read))
            .map_or(self.capacity, |used| used.min(self.capacity))
    }

    /// # Panics
    ///
    /// If the spec breaks its rules; it comes from settings that were checked at start.
    fn checked(self) -> RingSpec {
        let RingSpec { offset, capacity } = self;
        assert!(
            capacity.is_power_of_two()
                && (RingSpec::MIN_CAPACITY..=RingSpec::MAX_CAPACITY).contains(&capacity),
            "ring capacity {capacity} is not a power of two between 64 and 2^31"
        );
        assert!(
            offset.is_multiple_of(RingSpec::ALIGN),
            "ring offset {offset} is not a multiple of {}",
            RingSpec::ALIGN
        );
        self
    }
}

/// Whether a cursor from shared memory can be one at all.
fn plausible(cursor: u64) -> bool {
    cursor.is_multiple_of(8) && cursor <= MAX_POSITION
}

/// Offset of `head` in the ring.
const HEAD: usize = 0;
/// Offset of `read` in the ring.
const READ: usize = 128;
/// Offset of the first data byte in the ring.
const DATA: usize = 256;
/// Bytes in front of each payload.
const HEADER: usize = 8;
/// Larger positions are garbage; it also keeps sums of positions and lengths from overflowing.
const MAX_POSITION: u64 = 1 << 62;

const fn is_send<T: Send>() {}
const _: () = (is_send::<Producer>(), is_send::<Consumer>()).0;
const _: () = assert!(READ - HEAD >= 128 && DATA - READ >= 128);
const _: () = assert!(DATA.is_multiple_of(RingSpec::ALIGN) && HEADER.is_multiple_of(8));
const _: () = assert!(RingSpec::max_record(RingSpec::MIN_CAPACITY) == 8);
