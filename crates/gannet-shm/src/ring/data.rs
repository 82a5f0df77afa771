//! The data part of a ring: positions to offsets, and the header of a record.

use std::mem::MaybeUninit;
use std::sync::Arc;

use super::{DATA, HEADER, RingSpec};
use crate::buffer::{Append, as_uninit, fill};
use crate::memory::Memory;

/// The ring's memory, addressed by position. Copies that wrap around the end are split.
#[derive(Debug)]
pub(super) struct Data<M> {
    pub(super) memory: Arc<M>,
    spec: RingSpec,
}

impl<M: Memory> Data<M> {
    pub(super) fn new(memory: Arc<M>, spec: RingSpec) -> Data<M> {
        Data {
            memory,
            spec: spec.checked(),
        }
    }

    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.spec.capacity as u64
    }

    /// One of the cursors.
    #[inline]
    pub(super) fn cursor(&self, which: usize) -> &M::Word {
        self.memory.word(self.spec.offset + which)
    }

    #[inline]
    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        let (first, second) = self.pieces(at, bytes.len());
        let (head, tail) = bytes.split_at(first.1);
        self.memory.copy_in(first.0, head);
        if !tail.is_empty() {
            self.memory.copy_in(second.0, tail);
        }
    }

    #[inline]
    pub(super) fn read(&self, at: u64, into: &mut [u8]) {
        self.read_uninit(at, as_uninit(into));
    }

    #[inline]
    pub(super) fn append(&self, at: u64, len: usize, out: &mut impl Append) {
        let (first, second) = self.pieces(at, len);
        out.append_from(&*self.memory, first, second);
    }

    /// Header word of the record at `at`, never torn because it is aligned.
    #[inline]
    pub(super) fn write_header(&self, at: u64, len: usize) {
        // The capacity bounds `len` to 32 bits.
        let header = (u64::from(tag(at)) << 32) | len as u64;
        self.write(at, &header.to_ne_bytes());
    }

    /// Payload length of the record at `at`, if there is an intact header and the record ends
    /// at or before `end`.
    #[inline]
    pub(super) fn record_len(&self, at: u64, end: u64) -> Option<usize> {
        let room = end.checked_sub(at)?;
        if room < HEADER as u64 {
            return None;
        }
        let mut header = [0; HEADER];
        self.read(at, &mut header);
        let header = u64::from_ne_bytes(header);
        let len = (header & u64::from(u32::MAX)) as usize;
        let fits = len <= RingSpec::max_record(self.spec.capacity)
            && RingSpec::record_bytes(len) as u64 <= room;
        (fits && header >> 32 == u64::from(tag(at))).then_some(len)
    }

    #[inline]
    fn read_uninit(&self, at: u64, into: &mut [MaybeUninit<u8>]) {
        let (first, second) = self.pieces(at, into.len());
        fill(&*self.memory, into, first, second);
    }

    /// Offsets and lengths in memory of the `len` bytes at `at`, before and behind the end.
    #[inline]
    fn pieces(&self, at: u64, len: usize) -> ((usize, usize), (usize, usize)) {
        let RingSpec { offset, capacity } = self.spec;
        let start = (at & (capacity as u64 - 1)) as usize;
        let first = len.min(capacity - start);
        ((offset + DATA + start, first), (offset + DATA, len - first))
    }
}

/// Upper half of the header at a position: a header from an earlier lap, a payload or zeros do
/// not pass for one.
#[inline]
fn tag(at: u64) -> u32 {
    (at >> 3) as u32 ^ 0x6761_6e74
}
