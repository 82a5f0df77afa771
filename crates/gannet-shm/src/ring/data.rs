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

    /// Writes a record's payload behind the header at `at`: `head`, then the others; `len` bytes in all.
    #[inline]
    pub(super) fn write_parts<const N: usize>(
        &self,
        at: u64,
        head: &[u8; N],
        parts: &[&[u8]],
        len: usize,
    ) {
        let (first, second) = self.pieces(at, len);
        if second.1 == 0 {
            self.memory.put(first.0, head);
            let mut to = first.0 + N;
            for part in parts.iter().filter(|part| !part.is_empty()) {
                self.memory.copy_in(to, part);
                to += part.len();
            }
        } else {
            self.write(at, head);
            let mut to = at + N as u64;
            for part in parts.iter().filter(|part| !part.is_empty()) {
                self.write(to, part);
                to += part.len() as u64;
            }
        }
    }

    #[inline]
    pub(super) fn read(&self, at: u64, into: &mut [u8]) {
        self.read_uninit(at, as_uninit(into));
    }

    /// The `N` bytes at `at`, a multiple of 8.
    #[inline]
    pub(super) fn take<const N: usize>(&self, at: u64) -> [u8; N] {
        let (first, second) = self.pieces(at, N);
        if second.1 == 0 {
            return self.memory.take(first.0);
        }
        let mut bytes = [0; N];
        self.read(at, &mut bytes);
        bytes
    }

    #[inline]
    pub(super) fn append(&self, at: u64, len: usize, out: &mut impl Append) {
        let (first, second) = self.pieces(at, len);
        out.append_from(&*self.memory, first, second);
    }

    /// Writes a word at `at`, a multiple of 8.
    #[inline]
    pub(super) fn write_word(&self, at: u64, word: [u8; 8]) {
        self.memory.put(self.place(at), &word);
    }

    /// Header word of the record at `at`, never torn because it is aligned.
    #[inline]
    pub(super) fn write_header(&self, at: u64, len: usize) {
        // The capacity bounds `len` to 32 bits.
        let header = (u64::from(tag(at)) << 32) | len as u64;
        self.write_word(at, header.to_ne_bytes());
    }

    /// Payload length of the record at `at`, if there is an intact header and the record ends
    /// at or before `end`.
    #[inline]
    pub(super) fn record_len(&self, at: u64, end: u64) -> Option<usize> {
        let room = end.checked_sub(at)?;
        if room < HEADER as u64 {
            return None;
        }
        let header = u64::from_ne_bytes(self.memory.take(self.place(at)));
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

    /// Offset in memory of the byte at `at`.
    #[inline]
    fn place(&self, at: u64) -> usize {
        let RingSpec { offset, capacity } = self.spec;
        offset + DATA + (at & (capacity as u64 - 1)) as usize
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
