//! Blocks for payloads that are too large for a ring.
//!
//! One process allocates ([`Arena`]), others read blocks that they were told of
//! ([`ArenaReader`]). There is no allocation state in shared memory, so nothing that a reader
//! does, or dying, can harm the allocator.
//!
//! # Who may touch a block when
//!
//! From `alloc` to `free` the block belongs to whoever allocated it. It writes the block and
//! then publishes a ring record that names it; the reader learns of the block from that record
//! and so sees the bytes (the ring's Release and Acquire order them). It frees the block only
//! when the reader has said, through a ring, that it is done, or has died and been waited for.
//! A reference that a mad reader makes up, or uses too late, gives it wrong bytes, nothing worse.
//!
//! # Memory
//!
//! Blocks come from a buddy allocator (16 KiB and powers of two), lowest address first, so that
//! the pages in use stay together. Pages of freed blocks are kept for the next message until
//! there are more than twice [`Arena::keep`] of them; then they go back to the system, highest
//! address first, until that much is left. So a message smaller than that costs no system
//! call, and for a larger one the call costs in the order of what copying it costs.
//! [`Arena::trim`] gives everything back, for when the owner is idle.

mod buddy;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::buffer::Append;
use crate::memory::Memory;
use crate::region::{PAGE, Region};
use crate::ring::OutOfBounds;
use buddy::Buddy;

/// Where an arena lies in its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaSpec {
    /// Offset in the region; a multiple of [`ArenaSpec::ALIGN`].
    pub offset: usize,
    /// Bytes; rounded down to a multiple of [`ArenaSpec::UNIT`].
    ///
    /// Costs no memory until used. The largest block is the largest power of two in it.
    pub len: usize,
}

impl ArenaSpec {
    /// Alignment of the offset: a page, so that blocks are whole pages.
    pub const ALIGN: usize = PAGE;
    /// The smallest block.
    pub const UNIT: usize = 16 << 10;

    fn units(&self) -> usize {
        self.len / ArenaSpec::UNIT
    }
}

/// An allocated block, owned until it is given to [`Arena::free`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a block that is dropped stays allocated"]
pub struct Block(BlockRef);

impl Block {
    /// What to tell a reader: plain data, to be sent in a ring record.
    pub fn reference(&self) -> BlockRef {
        self.0
    }

    /// Offset in the arena.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Bytes asked for.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the pair (offset, len) is plain data"
    )]
    pub fn len(&self) -> u64 {
        self.0.len
    }
}

/// A block as a reader knows it. Checked when used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Offset in the arena.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// The allocating side.
#[derive(Debug)]
pub struct Arena {
    region: Arc<Region>,
    spec: ArenaSpec,
    buddy: Buddy,
    /// Order of the block that starts at a unit.
    allocated: HashMap<usize, u32>,
    /// Units that belong to a block.
    used: Bits,
    /// Units whose pages have been written since they were last given back.
    dirty: Bits,
    /// Units that are dirty and free.
    idle: usize,
    keep: usize,
}

impl Arena {
    /// An arena in which everything is free: blocks of an earlier owner are forgotten, and their
    /// pages given back.
    ///
    /// # Panics
    ///
    /// If `spec` is misaligned or does not fit into the region.
    pub fn attach(region: Arc<Region>, spec: ArenaSpec) -> Arena {
        let spec = checked(&region, spec);
        let units = spec.units();
        // Without it (it does not fail on a memfd) the pages would be found again when used.
        let _ = region.punch(spec.offset, units * ArenaSpec::UNIT);
        Arena {
            region,
            spec,
            buddy: Buddy::new(units),
            allocated: HashMap::new(),
            used: Bits::new(units),
            dirty: Bits::new(units),
            idle: 0,
            keep: (units / 8).max(64),
        }
    }

    /// A block for `len` bytes, or `None` if the arena has no room for it.
    ///
    /// It takes `len` rounded up to a power of two, at least [`ArenaSpec::UNIT`]; pages behind
    /// `len` are not touched.
    pub fn alloc(&mut self, len: usize) -> Option<Block> {
        let order = order_of(len)?;
        let first = self.buddy.take(order)?;
        self.allocated.insert(first, order);
        let units = first..first + (1 << order);
        self.idle -= self.dirty.count(units.clone());
        self.used.set(units, true);
        self.dirty
            .set(first..first + len.div_ceil(ArenaSpec::UNIT), true);
        Some(Block(BlockRef {
            offset: (first * ArenaSpec::UNIT) as u64,
            len: len as u64,
        }))
    }

    /// Writes `parts`, one behind the other, from the start of the block.
    pub fn write(&self, block: &Block, parts: &[&[u8]]) -> Result<(), OutOfBounds> {
        let len = parts
            .iter()
            .fold(0, |sum: usize, part| sum.saturating_add(part.len()));
        let available = block.0.len as usize;
        if len > available {
            return Err(OutOfBounds {
                offset: 0,
                len,
                available,
            });
        }
        let mut at = self.spec.offset + block.0.offset as usize;
        for part in parts {
            self.region.copy_in(at, part);
            at += part.len();
        }
        Ok(())
    }

    /// Appends the whole block to `out`.
    pub fn read_back(&self, block: &Block, out: &mut Vec<u8>) {
        let at = self.spec.offset + block.0.offset as usize;
        out.append_from(&*self.region, (at, block.0.len as usize), (0, 0));
    }

    /// Ends a block: when its reader has said that it is done, or has died and been waited for.
    pub fn free(&mut self, block: Block) {
        let first = block.0.offset as usize / ArenaSpec::UNIT;
        let Some(order) = self.allocated.remove(&first) else {
            debug_assert!(false, "{block:?} is of another arena");
            return;
        };
        let units = first..first + (1 << order);
        self.idle += self.dirty.count(units.clone());
        self.used.set(units, false);
        self.buddy.give(first, order);
        if self.idle > 2 * self.keep {
            self.give_back(self.keep);
        }
    }

    /// Gives the pages of all free blocks back to the system. For an owner that is idle: the
    /// next message takes page faults again.
    pub fn trim(&mut self) {
        self.give_back(0);
    }

    /// Bytes in blocks, including what rounding up wastes.
    pub fn used(&self) -> usize {
        self.used.total * ArenaSpec::UNIT
    }

    /// Bytes for blocks.
    pub fn capacity(&self) -> usize {
        self.spec.units() * ArenaSpec::UNIT
    }

    /// Bytes of memory that free blocks keep for the next messages: at most twice
    /// [`Arena::keep`].
    pub fn idle(&self) -> usize {
        self.idle * ArenaSpec::UNIT
    }

    /// Bytes of free blocks below which no memory is given back: an eighth of the capacity, at
    /// least 1 MiB.
    pub fn keep(&self) -> usize {
        self.keep * ArenaSpec::UNIT
    }

    /// Gives free dirty units back, from the highest down, until at most `keep` are left.
    fn give_back(&mut self, keep: usize) {
        let mut end = self.spec.units();
        while self.idle > keep {
            let Some(last) = (0..end).rev().find(|&unit| self.is_idle(unit)) else {
                break;
            };
            let most = self.idle - keep;
            let run = (0..=last)
                .rev()
                .take(most)
                .take_while(|&unit| self.is_idle(unit))
                .count();
            let first = last + 1 - run;
            let at = self.spec.offset + first * ArenaSpec::UNIT;
            if self.region.punch(at, run * ArenaSpec::UNIT).is_err() {
                // Then the pages stay, and stay counted; the next free tries again.
                return;
            }
            self.dirty.set(first..last + 1, false);
            self.idle -= run;
            end = first;
        }
    }

    fn is_idle(&self, unit: usize) -> bool {
        self.dirty.has(unit) && !self.used.has(unit)
    }
}

/// The reading side.
#[derive(Clone, Debug)]
pub struct ArenaReader {
    region: Arc<Region>,
    spec: ArenaSpec,
}

impl ArenaReader {
    /// The same arena as its [`Arena`].
    ///
    /// # Panics
    ///
    /// If `spec` is misaligned or does not fit into the region.
    pub fn attach(region: Arc<Region>, spec: ArenaSpec) -> ArenaReader {
        let spec = checked(&region, spec);
        ArenaReader { region, spec }
    }

    /// Appends a block to a `Vec<u8>` or a `BytesMut`, without zeroing first.
    pub fn append_to(&self, block: BlockRef, out: &mut impl Append) -> Result<(), OutOfBounds> {
        let available = self.spec.units() * ArenaSpec::UNIT;
        let (offset, len) = (block.offset as usize, block.len as usize);
        if len > available || offset > available - len {
            return Err(OutOfBounds {
                offset,
                len,
                available,
            });
        }
        out.append_from(&*self.region, (self.spec.offset + offset, len), (0, 0));
        Ok(())
    }
}

/// One bit per unit.
#[derive(Debug)]
struct Bits {
    words: Vec<u64>,
    /// Bits that are set.
    total: usize,
}

impl Bits {
    fn new(bits: usize) -> Bits {
        Bits {
            words: vec![0; bits.div_ceil(64)],
            total: 0,
        }
    }

    fn has(&self, bit: usize) -> bool {
        self.words[bit / 64] & (1 << (bit % 64)) != 0
    }

    fn count(&self, bits: Range<usize>) -> usize {
        masks(bits)
            .map(|(word, mask)| (self.words[word] & mask).count_ones() as usize)
            .sum()
    }

    fn set(&mut self, bits: Range<usize>, value: bool) {
        self.total -= self.count(bits.clone());
        for (word, mask) in masks(bits.clone()) {
            if value {
                self.words[word] |= mask;
            } else {
                self.words[word] &= !mask;
            }
        }
        self.total += if value { bits.len() } else { 0 };
    }
}

/// The words that a range of bits touches, with a mask for each.
fn masks(bits: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (bits.start / 64..bits.end.div_ceil(64)).map(move |word| {
        let from = bits.start.saturating_sub(word * 64);
        let to = (bits.end - word * 64).min(64);
        let below = |bit: usize| if bit == 64 { u64::MAX } else { (1 << bit) - 1 };
        (word, below(to) & !below(from))
    })
}

/// Order of the smallest block that holds `len` bytes.
fn order_of(len: usize) -> Option<u32> {
    let units = len
        .div_ceil(ArenaSpec::UNIT)
        .max(1)
        .checked_next_power_of_two()?;
    Some(units.trailing_zeros())
}

fn checked(region: &Region, spec: ArenaSpec) -> ArenaSpec {
    assert!(
        spec.offset.is_multiple_of(ArenaSpec::ALIGN)
            && spec.units() > 0
            && spec.len <= region.len()
            && spec.offset <= region.len() - spec.len,
        "{spec:?} is misaligned, empty or not inside a region of {} bytes",
        region.len()
    );
    spec
}

const _: () = assert!(ArenaSpec::UNIT.is_multiple_of(PAGE) && size_of::<BlockRef>() == 16);

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    const UNIT: usize = ArenaSpec::UNIT;

    fn arena(len: usize) -> (Arena, ArenaReader) {
        let region = Region::create("arena", 1, PAGE + len).unwrap();
        let spec = ArenaSpec { offset: PAGE, len };
        let reader = ArenaReader::attach(region.clone(), spec);
        (Arena::attach(region, spec), reader)
    }

    /// Bytes of memory in use, without the stamp.
    fn resident(arena: &Arena) -> usize {
        rustix::fs::fstat(arena.region.fd()).unwrap().st_blocks as usize * 512 - PAGE
    }

    /// Allocates and fills.
    fn filled(arena: &mut Arena, len: usize) -> Block {
        let block = arena.alloc(len).unwrap();
        arena.write(&block, &[&vec![1; len]]).unwrap();
        block
    }

    #[test]
    fn a_reader_gets_what_was_gathered() {
        let (mut arena, reader) = arena(1 << 20);
        let _other = arena.alloc(1).unwrap();
        let block = arena.alloc(40_003).unwrap();
        let (head, body) = (vec![1; 3], vec![2; 40_000]);
        arena.write(&block, &[&head, &body]).unwrap();
        let expected = [head, body].concat();

        let (mut vec, mut bytes, mut back) = (vec![9], BytesMut::new(), Vec::new());
        reader.append_to(block.reference(), &mut vec).unwrap();
        reader.append_to(block.reference(), &mut bytes).unwrap();
        arena.read_back(&block, &mut back);
        assert!(vec[1..] == expected && bytes == expected && back == expected);
    }

    #[test]
    fn a_block_takes_a_power_of_two() {
        let (mut arena, _) = arena(1 << 20);
        let blocks = [0, 1, UNIT, UNIT + 1, 3 * UNIT].map(|len| arena.alloc(len).unwrap());
        assert_eq!(arena.used(), (1 + 1 + 1 + 2 + 4) * UNIT);
        for block in blocks {
            arena.free(block);
        }
        assert_eq!(arena.used(), 0);
        assert_eq!(arena.alloc(1 << 20).map(|block| block.offset()), Some(0));
        assert_eq!(arena.alloc(1), None);
    }

    #[test]
    fn too_much_is_refused() {
        let (mut arena, _) = arena(1 << 20);
        assert_eq!(arena.alloc((1 << 20) + 1), None);
        assert_eq!(arena.alloc(usize::MAX), None);
        let block = arena.alloc(10).unwrap();
        let error = arena.write(&block, &[&[0; 5], &[0; 6]]).unwrap_err();
        assert_eq!(
            error,
            OutOfBounds {
                offset: 0,
                len: 11,
                available: 10
            }
        );
    }

    #[test]
    fn a_reference_from_a_mad_peer_is_refused() {
        let (_, reader) = arena(1 << 20);
        let end = 1u64 << 20;
        for (offset, len) in [
            (end, 1),
            (0, end + 1),
            (u64::MAX, 2),
            (2, u64::MAX),
            (end - 1, 2),
        ] {
            let mut out = Vec::new();
            assert!(
                reader
                    .append_to(BlockRef { offset, len }, &mut out)
                    .is_err()
            );
            assert!(out.is_empty());
        }
    }

    #[test]
    fn small_messages_do_not_give_memory_back_and_large_ones_do() {
        let (mut arena, _) = arena(64 << 20);
        assert_eq!(arena.keep(), 8 << 20);
        for _ in 0..100 {
            let block = filled(&mut arena, 100_000);
            arena.free(block);
        }
        assert_eq!(arena.idle(), 7 * UNIT);
        assert_eq!(resident(&arena), 100_000usize.next_multiple_of(PAGE));

        let blocks = [(); 30].map(|()| filled(&mut arena, 1 << 20));
        assert!(resident(&arena) >= 30 << 20);
        for block in blocks {
            arena.free(block);
        }
        assert!((arena.keep()..=2 * arena.keep()).contains(&arena.idle()));
        assert!(resident(&arena) <= arena.idle());

        arena.trim();
        assert_eq!((arena.idle(), resident(&arena)), (0, 0));
    }

    #[test]
    fn memory_in_use_is_not_given_back() {
        let (mut arena, _) = arena(1 << 20);
        let first = filled(&mut arena, UNIT);
        let second = filled(&mut arena, UNIT);
        let third = filled(&mut arena, UNIT);
        arena.free(second);
        arena.trim();
        assert_eq!(resident(&arena), 2 * UNIT);
        for block in [&first, &third] {
            let mut bytes = Vec::new();
            arena.read_back(block, &mut bytes);
            assert!(bytes == vec![1; UNIT]);
        }
    }

    #[test]
    fn a_new_owner_starts_with_an_empty_arena() {
        let (mut arena, _) = arena(1 << 20);
        let _lost = filled(&mut arena, 1 << 19);
        let arena = Arena::attach(arena.region, arena.spec);
        assert_eq!((arena.used(), resident(&arena)), (0, 0));
    }

    #[test]
    fn masks_cover_exactly_their_bits() {
        for (from, to) in [
            (0, 0),
            (0, 1),
            (0, 64),
            (63, 65),
            (64, 64),
            (5, 200),
            (64, 128),
        ] {
            let mut bits = Bits::new(256);
            bits.set(from..to, true);
            let set: Vec<usize> = (0..256).filter(|&bit| bits.has(bit)).collect();
            assert_eq!(set, (from..to).collect::<Vec<_>>());
            assert_eq!((bits.total, bits.count(0..256)), (to - from, to - from));
            bits.set(0..256, false);
            assert_eq!(bits.total, 0);
        }
    }
}
