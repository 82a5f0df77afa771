//! A sealed, stamped piece of shared memory: the one place that touches raw memory.
//!
//! # Rules
//!
//! 1. **Shared bytes are only ever atomics.** The mapping is seen as `AtomicU64` (or
//!    `AtomicU32`) words and never as `&[u8]` or `&T`. Payload too is copied word by word with
//!    relaxed loads and stores. Compared with `memcpy` this costs nothing measurable for ring
//!    records and buys that *no* behaviour of a peer, dead, buggy or hostile, is undefined
//!    behaviour here: the worst it can produce is wrong bytes in a private buffer. (The bytes of a
//!    [`RobustMutex`](crate::robust::RobustMutex) belong to the C library alone; nobody else looks at
//!    them. It trusts them: for regions with mutexes, that is tables, a hostile peer is not ruled out.)
//! 2. **Offsets, not pointers.** Every process maps the region elsewhere.
//! 3. **The size is sealed** (`F_SEAL_SHRINK | F_SEAL_GROW`) before anyone maps it: a shrunk
//!    memfd would kill its readers with SIGBUS. [`Region::attach`] refuses one without seals.
//! 4. **The stamp** (magic, version, kind, length) fills a page in front of offset 0 and is
//!    written before the descriptor leaves the creating process; it never changes.

use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::memory::{Contiguous, Memory};

/// A sealed memfd, mapped shared. Offsets start at 0, behind the stamp; all bytes are zero at
/// first.
///
/// The pages cost nothing until they are touched (`MAP_NORESERVE`, sparse), so reserve the
/// maximum that the settings allow and never remap.
#[derive(Debug)]
pub struct Region {
    fd: OwnedFd,
    /// Start of the mapping, that is of the stamp.
    base: NonNull<u8>,
    /// Usable bytes, behind the stamp.
    len: usize,
}

impl Region {
    /// Makes a region of `len` zeroed bytes, rounded up to whole pages.
    ///
    /// `name` shows in `/proc/<pid>/maps` and has no other meaning. `kind` says what is laid
    /// out inside; [`Region::attach`] must name the same.
    pub fn create(name: &str, kind: u32, len: usize) -> Result<Arc<Region>, RegionError> {
        let failed = |call| {
            move |errno: rustix::io::Errno| RegionError::Create {
                name: name.to_owned(),
                call,
                source: errno.into(),
            }
        };
        let len = len
            .checked_next_multiple_of(PAGE)
            .filter(|&len| len != 0 && len <= MAX_LEN)
            .ok_or(RegionError::Length {
                name: name.to_owned(),
                len,
            })?;

        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(failed("memfd_create"))?;
        rustix::fs::ftruncate(&fd, (STAMP + len) as u64).map_err(failed("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS | SealFlags::SEAL)
            .map_err(failed("fcntl(F_ADD_SEALS)"))?;
        let base = map(&fd, STAMP + len).map_err(failed("mmap"))?;

        let region = Region { fd, base, len };
        for (index, value) in Stamp::of(kind, len).0.into_iter().enumerate() {
            region.raw_word(index * 8).store(value, Ordering::Relaxed);
        }
        Ok(Arc::new(region))
    }

    /// Maps a region that another process made, or refuses what is not one.
    pub fn attach(fd: OwnedFd, kind: u32) -> Result<Arc<Region>, RegionError> {
        let failed = |call| {
            move |errno: rustix::io::Errno| RegionError::Attach {
                call,
                source: errno.into(),
            }
        };
        // Seals first: only with them does the size that is read next stay true.
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(failed("fcntl(F_GET_SEALS)"))?;
        if !seals.contains(SIZE_SEALS) {
            return Err(RegionError::Unsealed {
                expected: SIZE_SEALS.bits(),
                found: seals.bits(),
            });
        }
        let size = rustix::fs::fstat(&fd).map_err(failed("fstat"))?.st_size;
        let size = usize::try_from(size).unwrap_or(0);
        if !(STAMP + PAGE..=STAMP + MAX_LEN).contains(&size) || !size.is_multiple_of(PAGE) {
            return Err(RegionError::Size { size });
        }
        let base = map(&fd, size).map_err(failed("mmap"))?;
        let region = Region {
            fd,
            base,
            len: size - STAMP,
        };

        let expected = Stamp::of(kind, region.len);
        for (index, what) in Stamp::FIELDS.into_iter().enumerate() {
            let found = region.raw_word(index * 8).load(Ordering::Relaxed);
            if found != expected.0[index] {
                return Err(RegionError::Stranger {
                    what,
                    expected: expected.0[index],
                    found,
                });
            }
        }
        Ok(Arc::new(region))
    }

    /// The descriptor to pass to another process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Usable bytes.
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The 64-bit word at `offset`.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 8 or the word is not inside the region.
    #[inline]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        self.check(offset, 8, 8);
        self.raw_word(STAMP + offset)
    }

    /// The 32-bit word at `offset`. Do not mix with [`Region::word`] on the same bytes.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 4 or the word is not inside the region.
    #[inline]
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        self.check(offset, 4, 4);
        // SAFETY: `check` saw that the four bytes are inside the mapping, which lives as long
        // as `self`, and aligned (the mapping starts at a page). Rule 1: these bytes are never
        // accessed but through atomics.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(STAMP + offset).cast()) }
    }

    /// The `count` atomic words from `offset` on: where they are is checked once for all.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 8 or the words are not inside the region.
    #[inline]
    pub fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        self.check(offset, count.saturating_mul(8), 8);
        self.raw_words(offset, count)
    }

    /// A pointer to `len` bytes at `offset`, for what the C library keeps in shared memory itself.
    ///
    /// # Panics
    ///
    /// If `offset` is not a multiple of 64 or the bytes are not inside the region.
    #[inline]
    pub(crate) fn cells(&self, offset: usize, len: usize) -> *mut u8 {
        self.check(offset, len, 64);
        self.base.as_ptr().wrapping_add(STAMP + offset)
    }

    /// Bytes of memory that the region takes now.
    pub fn resident(&self) -> u64 {
        // The descriptor is open: there is nothing that could fail.
        rustix::fs::fstat(&self.fd).map_or(0, |stat| stat.st_blocks.cast_unsigned() * 512)
    }

    /// Gives the whole pages inside `offset..offset + len` back to the system; they read as
    /// zero afterwards. Parts of pages at either end are left as they are.
    pub fn punch(&self, offset: usize, len: usize) -> io::Result<()> {
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= self.len)
            .ok_or_else(|| {
                let message = format!(
                    "cannot punch {len} bytes at {offset} out of a region of {} bytes",
                    self.len
                );
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })?;
        let first = offset.next_multiple_of(PAGE);
        let last = end - end % PAGE;
        if first >= last {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (at, bytes) = ((STAMP + first) as u64, (last - first) as u64);
        Ok(rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&self.fd, flags, at, bytes)
        })?)
    }

    #[inline]
    fn check(&self, offset: usize, len: usize, align: usize) {
        assert!(
            offset.is_multiple_of(align) && len <= self.len && offset <= self.len - len,
            "{len} bytes at {offset} are misaligned or outside of a region of {} bytes",
            self.len
        );
    }

    /// The word at `at` bytes from the start of the mapping; callers have checked it.
    #[inline]
    fn raw_word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= STAMP + self.len);
        // SAFETY: every caller has checked that the eight bytes are inside the mapping, which
        // lives as long as `self`, and aligned (the mapping starts at a page). Rule 1: these
        // bytes are never accessed but through atomics.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// The `count` words from `offset` on, which callers have checked.
    #[inline]
    fn raw_words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        debug_assert!(offset.is_multiple_of(8) && offset + count * 8 <= self.len);
        // SAFETY: every caller has checked that the words are inside the mapping, which lives
        // as long as `self`, and aligned. Atomics may be shared and changed by others (rule 1).
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(STAMP + offset).cast(), count) }
    }
}

// SAFETY: `copy_out` writes `into` in up to four pieces (the end of a word, words by fours, the
// other words, the start of a word) that together are all of it.
unsafe impl Memory for Region {
    type Word = AtomicU64;

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        self.word(offset)
    }

    #[inline]
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len(), 1);
        let (lead, rest) = bytes.split_at(lead(offset, bytes.len()));
        if !lead.is_empty() {
            self.merge(offset - offset % 8, offset % 8, lead);
        }
        if rest.is_empty() {
            return;
        }
        let offset = offset + lead.len();
        let (words, tail) = rest.as_chunks::<8>();
        let (blocks, singles) = words.as_chunks::<BLOCK>();
        let (into, into_singles) = self.raw_words(offset, words.len()).as_chunks::<BLOCK>();
        for (into, block) in into.iter().zip(blocks) {
            for at in 0..BLOCK {
                into[at].store(u64::from_ne_bytes(block[at]), Ordering::Relaxed);
            }
        }
        for (word, bytes) in into_singles.iter().zip(singles) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if !tail.is_empty() {
            self.merge_end(offset + words.len() * 8, rest, tail.len());
        }
    }

    #[inline]
    fn copy_out(&self, offset: usize, into: &mut [MaybeUninit<u8>]) {
        self.check(offset, into.len(), 1);
        let (lead, rest) = into.split_at_mut(lead(offset, into.len()));
        if !lead.is_empty() {
            let skip = offset % 8;
            let word = self
                .word(offset - skip)
                .load(Ordering::Relaxed)
                .to_ne_bytes();
            lead.write_copy_of_slice(&word[skip..skip + lead.len()]);
        }
        if rest.is_empty() {
            return;
        }
        let offset = offset + lead.len();
        let (words, tail) = rest.as_chunks_mut::<8>();
        let from = self.raw_words(offset, words.len());
        let (blocks, singles) = words.as_chunks_mut::<BLOCK>();
        let (from, from_singles) = from.as_chunks::<BLOCK>();
        for (from, block) in from.iter().zip(blocks) {
            for at in 0..BLOCK {
                block[at].write_copy_of_slice(&from[at].load(Ordering::Relaxed).to_ne_bytes());
            }
        }
        for (word, bytes) in from_singles.iter().zip(singles) {
            bytes.write_copy_of_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        if !tail.is_empty() {
            let word = self.word(offset + words.len() * 8).load(Ordering::Relaxed);
            copy_start(tail, word.to_ne_bytes());
        }
    }

    #[inline]
    fn put<const N: usize>(&self, offset: usize, bytes: &[u8; N]) {
        if N == 8 {
            // Headers and sequence numbers: no loop, in whatever crate this is compiled.
            let word = bytes.first_chunk().copied().map_or(0, u64::from_ne_bytes);
            return self.word(offset).store(word, Ordering::Relaxed);
        }
        if !N.is_multiple_of(8) {
            return self.copy_in(offset, bytes);
        }
        let (words, bytes) = (self.words(offset, N / 8), bytes.as_chunks().0);
        for at in 0..N / 8 {
            words[at].store(u64::from_ne_bytes(bytes[at]), Ordering::Relaxed);
        }
    }

    #[inline]
    fn take<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if N == 8 {
            let word = self.word(offset).load(Ordering::Relaxed);
            bytes.copy_from_slice(&word.to_ne_bytes());
            return bytes;
        }
        if !N.is_multiple_of(8) {
            self.copy_out(offset, crate::buffer::as_uninit(&mut bytes));
            return bytes;
        }
        let (words, into) = (self.words(offset, N / 8), bytes.as_chunks_mut().0);
        for at in 0..N / 8 {
            into[at] = words[at].load(Ordering::Relaxed).to_ne_bytes();
        }
        bytes
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }

    #[inline]
    fn prefetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

            let line = self.base.as_ptr().wrapping_add(STAMP + offset).cast();
            // SAFETY: a hint, which reads nothing and cannot fault, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }
}

impl Contiguous for Region {
    #[inline]
    fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        self.words(offset, count)
    }
}

impl Region {
    /// Replaces some bytes of one word. Only the one writer of a record or block writes its
    /// words, so load and store need not be one operation.
    #[inline]
    fn merge(&self, offset: usize, skip: usize, bytes: &[u8]) {
        let word = self.word(offset);
        let mut value = word.load(Ordering::Relaxed).to_ne_bytes();
        value[skip..skip + bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
    }

    /// Replaces the first `count` (1 to 7) bytes of a word by the last ones of `bytes`, as [`Region::merge`]
    /// would, without a copy whose length only shows when it runs.
    #[inline]
    fn merge_end(&self, offset: usize, bytes: &[u8], count: usize) {
        let end = match bytes.last_chunk() {
            Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * count),
            None => bytes
                .iter()
                .rfold(0, |value, &byte| value << 8 | u64::from(byte)),
        };
        let word = self.word(offset);
        let kept = u64::from_le(word.load(Ordering::Relaxed)) & (u64::MAX << (8 * count));
        word.store((kept | end).to_le(), Ordering::Relaxed);
    }
}

// SAFETY: the mapping belongs to the value, not to a thread, and is only accessed through
// atomics (rule 1).
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `base` is a mapping of exactly this length that `create` or `attach` made, and
        // no reference into it outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), STAMP + self.len) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

/// Why a region could not be made or was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The length is zero or too large.
    #[error("shared memory `{name}` cannot have {len} bytes: between 1 and 2^46 are possible")]
    Length {
        /// The name given to `create`.
        name: String,
        /// The length given to `create`.
        len: usize,
    },
    /// A system call failed while the region was made.
    #[error("cannot create shared memory `{name}`: {call}: {source}")]
    Create {
        /// The name given to `create`.
        name: String,
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A system call failed while the region was mapped.
    #[error("cannot attach shared memory: {call}: {source} (is the descriptor a memfd?)")]
    Attach {
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The size is not sealed.
    #[error(
        "refused shared memory whose size is not sealed: seals {expected:#x} are needed, it has \
         {found:#x}"
    )]
    Unsealed {
        /// The seals that are needed.
        expected: u32,
        /// The seals that are there.
        found: u32,
    },
    /// The file is not a stamp and whole pages.
    #[error("refused shared memory of {size} bytes: that is not a stamp and whole pages")]
    Size {
        /// Size of the file in bytes.
        size: usize,
    },
    /// The stamp is that of something else, or of another version.
    #[error(
        "refused shared memory: its {what} is {found:#x}, this process expects {expected:#x} \
         (another kind of memory, or another version of the program?)"
    )]
    Stranger {
        /// The field of the stamp.
        what: &'static str,
        /// The value that this process expects.
        expected: u64,
        /// The value that it found.
        found: u64,
    },
}

/// The first words of the page in front of offset 0.
struct Stamp([u64; 4]);

impl Stamp {
    const FIELDS: [&str; 4] = ["magic", "version", "kind", "length"];

    fn of(kind: u32, len: usize) -> Stamp {
        Stamp([MAGIC, VERSION, u64::from(kind), len as u64])
    }
}

/// Fills `into`, at most 7 bytes, with the first ones of a word: in steps of 4, 2 and 1.
#[inline]
fn copy_start(into: &mut [MaybeUninit<u8>], word: [u8; 8]) {
    let (mut into, mut word) = (into, &word[..]);
    for step in [4, 2, 1] {
        if into.len() >= step {
            let (first, rest) = into.split_at_mut(step);
            first.write_copy_of_slice(&word[..step]);
            (into, word) = (rest, &word[step..]);
        }
    }
}

/// Words that are copied in one step.
const BLOCK: usize = 4;

/// How many of `len` bytes at `offset` lie in front of the first whole word.
#[inline]
fn lead(offset: usize, len: usize) -> usize {
    offset.wrapping_neg().wrapping_rem(8).min(len)
}

fn map(fd: &OwnedFd, size: usize) -> rustix::io::Result<NonNull<u8>> {
    let size = NonZeroUsize::new(size)
        .ok_or(rustix::io::Errno::INVAL)?
        .get();
    // SAFETY: the address is the kernel's choice, so nothing that exists is replaced.
    let base: *mut c_void = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            size,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::NORESERVE,
            fd,
            0,
        )?
    };
    NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)
}

/// "gannetsm" in the byte order of the machine.
const MAGIC: u64 = u64::from_ne_bytes(*b"gannetsm");
/// Raised with every change of a layout or protocol in this crate.
const VERSION: u64 = 1;
/// The smallest page size; larger pages only make [`Region::punch`] give back less.
pub(crate) const PAGE: usize = 4096;
/// Bytes in front of offset 0: a page, so that offsets keep the alignment of the mapping.
const STAMP: usize = PAGE;
/// Half of the address space that x86-64 and aarch64 give a process.
pub(crate) const MAX_LEN: usize = 1 << 46;
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

const _: () = assert!(size_of::<Stamp>() <= STAMP && STAMP.is_multiple_of(128));
const _: () = assert!(size_of::<AtomicU64>() == 8 && align_of::<AtomicU64>() == 8);
const _: () = assert!(size_of::<AtomicU32>() == 4 && align_of::<AtomicU32>() == 4);
const _: () = assert!(size_of::<usize>() == 8, "positions and lengths are 64 bit");

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: u32 = 7;

    fn region(len: usize) -> Arc<Region> {
        Region::create("test", KIND, len).unwrap()
    }

    fn again(region: &Region) -> OwnedFd {
        region.fd().try_clone_to_owned().unwrap()
    }

    fn unsealed(size: u64) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("stranger", flags).unwrap();
        rustix::fs::ftruncate(&fd, size).unwrap();
        fd
    }

    fn sealed(size: u64) -> OwnedFd {
        let fd = unsealed(size);
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS).unwrap();
        fd
    }

    fn refusal(fd: OwnedFd, kind: u32) -> String {
        Region::attach(fd, kind).unwrap_err().to_string()
    }

    #[test]
    fn both_mappings_see_the_same_bytes() {
        let one = region(100);
        assert_eq!(one.len(), PAGE);
        let two = Region::attach(again(&one), KIND).unwrap();
        one.word(8).store(42, Ordering::Relaxed);
        assert_eq!(two.word(8).load(Ordering::Relaxed), 42);
        two.word32(PAGE - 4).store(43, Ordering::Relaxed);
        assert_eq!(one.word32(PAGE - 4).load(Ordering::Relaxed), 43);
    }

    #[test]
    fn refuse_another_kind_and_say_both() {
        let message = refusal(again(&region(1)), 0xBEEF);
        assert!(
            message.contains("kind is 0x7") && message.contains("expects 0xbeef"),
            "{message}"
        );
    }

    #[test]
    fn refuse_another_magic_version_or_length() {
        for (index, what) in Stamp::FIELDS.into_iter().enumerate() {
            let region = region(1);
            region.raw_word(index * 8).fetch_add(1, Ordering::Relaxed);
            let message = refusal(again(&region), KIND);
            assert!(message.contains(&format!("its {what} is ")), "{message}");
        }
    }

    #[test]
    fn refuse_a_memfd_without_seals() {
        let message = refusal(unsealed(1 << 20), KIND);
        assert!(
            message.contains("not sealed: seals 0x6 are needed"),
            "{message}"
        );
    }

    #[test]
    fn refuse_sizes_that_cannot_be() {
        for size in [0, 1, PAGE, 2 * PAGE + 1] {
            let message = refusal(sealed(size as u64), KIND);
            assert!(message.contains(&format!("of {size} bytes")), "{message}");
        }
        assert!(refusal(sealed(2 * PAGE as u64), KIND).contains("its magic is 0x0"));
    }

    #[test]
    fn refuse_what_is_not_a_memfd() {
        let (pipe, _) = std::io::pipe().unwrap();
        assert!(refusal(pipe.into(), KIND).contains("is the descriptor a memfd?"));
    }

    #[test]
    fn refuse_an_impossible_length() {
        for len in [0, MAX_LEN + 1, usize::MAX] {
            let error = Region::create("x", KIND, len).unwrap_err();
            assert!(matches!(error, RegionError::Length { .. }), "{error}");
        }
        let error = Region::create("a\0b", KIND, 1).unwrap_err();
        assert!(
            matches!(
                error,
                RegionError::Create {
                    call: "memfd_create",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn the_size_cannot_change() {
        let region = region(PAGE);
        assert!(rustix::fs::ftruncate(region.fd(), 0).is_err());
        assert!(rustix::fs::ftruncate(region.fd(), 1 << 20).is_err());
        assert!(rustix::fs::fcntl_add_seals(region.fd(), SealFlags::WRITE).is_err());
    }

    #[test]
    fn the_descriptor_is_closed_on_exec() {
        let flags = rustix::io::fcntl_getfd(region(1).fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn sparse_memory_costs_nothing() {
        let region = region(64 << 30);
        region.word((64 << 30) - 8).store(1, Ordering::Relaxed);
        assert!(pages(&region) <= 2);
    }

    #[test]
    fn punch_gives_whole_pages_back_and_no_others() {
        let region = region(8 * PAGE);
        region.copy_in(0, &vec![1; 8 * PAGE]);
        assert_eq!(pages(&region), 9);
        region.punch(PAGE + 1, 3 * PAGE).unwrap();
        assert_eq!(pages(&region), 7);
        region.punch(1, PAGE).unwrap();
        assert_eq!(pages(&region), 7);
        // Reading makes a page again.
        let byte = |at| region.word(at).load(Ordering::Relaxed) & 0xff;
        assert_eq!(
            [PAGE, 2 * PAGE, 4 * PAGE - 8, 4 * PAGE].map(byte),
            [1, 0, 0, 1]
        );
        for (offset, len) in [(0, 8 * PAGE + 1), (8 * PAGE, 1), (usize::MAX, 2)] {
            assert_eq!(
                region.punch(offset, len).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
    }

    #[test]
    fn copies_touch_their_bytes_only() {
        let region = region(1);
        for offset in 0..17 {
            for len in 0..40 {
                let mut expected = vec![0xEE; 64];
                region.copy_in(0, &expected);
                let bytes: Vec<u8> = (1..=len).collect();
                region.copy_in(offset, &bytes);
                expected[offset..offset + bytes.len()].copy_from_slice(&bytes);
                assert_eq!(copied(&region, 0, 64), expected);
                assert_eq!(copied(&region, offset, bytes.len()), bytes);
            }
        }
    }

    #[test]
    fn access_outside_is_refused() {
        let region = region(PAGE);
        let outside: [&dyn Fn(); 8] = [
            &|| assert_eq!(region.word(PAGE).load(Ordering::Relaxed), 0),
            &|| assert_eq!(region.word(4).load(Ordering::Relaxed), 0),
            &|| assert_eq!(region.word(usize::MAX - 7).load(Ordering::Relaxed), 0),
            &|| assert_eq!(region.word32(2).load(Ordering::Relaxed), 0),
            &|| assert_eq!(region.word32(PAGE).load(Ordering::Relaxed), 0),
            &|| region.copy_in(PAGE - 1, &[0; 2]),
            &|| drop(copied(&region, PAGE - 7, 8)),
            &|| drop(copied(&region, usize::MAX, 8)),
        ];
        for access in outside {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err());
        }
    }

    fn copied(region: &Region, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        region.copy_out(offset, crate::buffer::as_uninit(&mut bytes));
        bytes
    }

    /// Pages of memory in use, that of the stamp included.
    fn pages(region: &Region) -> usize {
        rustix::fs::fstat(region.fd()).unwrap().st_blocks as usize * 512 / PAGE
    }
}
