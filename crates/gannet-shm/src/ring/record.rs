//! One record, in place.

use std::ops::{Bound, RangeBounds};

use super::data::Data;
use super::{HEADER, Position};
use crate::buffer::Append;
use crate::memory::Memory;
use crate::region::Region;

/// A record in the ring. Its bytes can be copied out, never borrowed: they are shared memory.
#[derive(Debug)]
pub struct Record<'a, M: Memory = Region> {
    data: &'a Data<M>,
    /// Position of the first payload byte.
    payload: u64,
    len: usize,
}

impl<'a, M: Memory> Record<'a, M> {
    pub(super) fn new(data: &'a Data<M>, payload: u64, len: usize) -> Record<'a, M> {
        Record { data, payload, len }
    }

    /// Where the record is; the same as `push` returned to the producer.
    pub fn position(&self) -> Position {
        Position(self.payload - HEADER as u64)
    }

    /// Payload bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `into` with the bytes from `offset` on.
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let at = self.bound(offset, into.len())?;
        self.data.read(at, into);
        Ok(())
    }

    /// The `N` bytes at `offset`, if there are so many: a number, or a small fixed head.
    #[inline]
    pub fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.bound(offset, N).ok()?;
        if at.is_multiple_of(8) {
            return Some(self.data.take(at));
        }
        let mut bytes = [0; N];
        self.data.read(at, &mut bytes);
        Some(bytes)
    }

    /// Appends a range of the payload to a `Vec<u8>` or a `BytesMut`, without zeroing first.
    #[inline]
    pub fn append_to(
        &self,
        range: impl RangeBounds<usize>,
        out: &mut impl Append,
    ) -> Result<(), OutOfBounds> {
        let (offset, len) = resolve(range, self.len)?;
        let at = self.bound(offset, len)?;
        self.data.append(at, len, out);
        Ok(())
    }

    /// Position of the byte at `offset`, if `len` bytes from there on are inside.
    #[inline]
    fn bound(&self, offset: usize, len: usize) -> Result<u64, OutOfBounds> {
        if len > self.len || offset > self.len - len {
            return Err(OutOfBounds {
                offset,
                len,
                available: self.len,
            });
        }
        Ok(self.payload + offset as u64)
    }
}

/// Bytes were asked for that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {offset} are outside of the {available} bytes that there are")]
pub struct OutOfBounds {
    /// Where the bytes should start.
    pub offset: usize,
    /// How many were asked for.
    pub len: usize,
    /// How many there are.
    pub available: usize,
}

/// Offset and length of a range over `available` elements; the end is not checked.
fn resolve(
    range: impl RangeBounds<usize>,
    available: usize,
) -> Result<(usize, usize), OutOfBounds> {
    let start = match range.start_bound() {
        Bound::Included(&start) => Some(start),
        Bound::Excluded(&start) => start.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.checked_add(1),
        Bound::Excluded(&end) => Some(end),
        Bound::Unbounded => Some(available),
    };
    let span = start
        .zip(end)
        .and_then(|(start, end)| Some((start, end.checked_sub(start)?)));
    span.ok_or(OutOfBounds {
        offset: start.unwrap_or(usize::MAX),
        len: 0,
        available,
    })
}
