//! The writing end of a ring.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::data::Data;
use super::{HEAD, HEADER, Position, READ, RingSpec, plausible};
use crate::memory::{Memory, Word};
use crate::region::Region;

/// The writing end of a ring. One per ring at any time, in whatever process.
///
/// It can move to another thread but not be shared or cloned:
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<gannet_shm::Producer>();
/// ```
#[derive(Debug)]
pub struct Producer<M: Memory = Region> {
    data: Data<M>,
    /// End of what has been written.
    tail: u64,
    /// The shared `head`.
    published: u64,
    /// The last `read` that was looked at and found possible.
    seen: u64,
    /// The oldest record that the owner keeps.
    hold: Option<u64>,
    /// Writing may go up to here: `min(seen, hold) + capacity`.
    limit: u64,
    corrupt: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl<M: Memory> Producer<M> {
    /// Continues from the shared head, also after an earlier producer died: what that one had
    /// not published is overwritten.
    ///
    /// # Panics
    ///
    /// If `spec` breaks its rules or does not fit into the region.
    pub fn attach(region: Arc<M>, spec: RingSpec) -> Producer<M> {
        let data = Data::new(region, spec);
        // The predecessor's writes happened before this: its process has ended.
        let head = data.cursor(HEAD).load(Ordering::Acquire);
        let read = data.cursor(READ).load(Ordering::Acquire);
        let sound = plausible(head)
            && head
                .checked_sub(read)
                .is_some_and(|unread| unread <= data.capacity());
        let mut producer = Producer {
            data,
            tail: head,
            published: head,
            seen: read,
            hold: None,
            limit: head,
            corrupt: !sound || !read.is_multiple_of(8),
            not_sync: PhantomData,
        };
        producer.bound();
        producer
    }

    /// Writes a record made of `parts` behind the last one; nobody sees it until
    /// [`Producer::publish`].
    ///
    /// Costs one copy, no system call, and a look at the consumer's cursor only when the space
    /// known to be free is used up. An error leaves the ring as it was. A record of more than
    /// [`Producer::max_record`] bytes is always refused: send it through an arena.
    #[inline]
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<Position, Full> {
        self.push_headed(&[], parts)
    }

    /// As [`Producer::push`], of a record that begins with `head`: its length is known when the program
    /// is compiled, so that it takes a store for each word and nothing else.
    #[inline]
    pub fn push_headed<const N: usize>(
        &mut self,
        head: &[u8; N],
        parts: &[&[u8]],
    ) -> Result<Position, Full> {
        let len = parts
            .iter()
            .fold(N, |sum: usize, part| sum.saturating_add(part.len()));
        if len > self.max_record() {
            return Err(Full {
                len,
                free: self.free(),
            });
        }
        let bytes = RingSpec::record_bytes(len) as u64;
        if self.limit - self.tail < bytes {
            self.look();
            if self.limit - self.tail < bytes {
                return Err(Full {
                    len,
                    free: self.free(),
                });
            }
        }
        let at = self.tail;
        self.data.write_header(at, len);
        self.data.write_parts(at + HEADER as u64, head, parts, len);
        self.tail = at + bytes;
        Ok(Position(at))
    }

    /// Changes bytes of a record that is not published: pushed and not yet published, or
    /// [taken back](Producer::take_back).
    ///
    /// Says `false` and changes nothing if there is no such record or it is too short.
    pub fn amend(&mut self, at: Position, offset: usize, bytes: &[u8]) -> bool {
        let may = self.may_amend(at, offset, bytes.len());
        if may {
            self.data.write(at.0 + (HEADER + offset) as u64, bytes);
        }
        may
    }

    /// The same with a whole word at a multiple of 8: one store. At another offset it says `false`.
    #[inline]
    pub fn amend_word(&mut self, at: Position, offset: usize, word: [u8; 8]) -> bool {
        let may = offset.is_multiple_of(8) && self.may_amend(at, offset, word.len());
        if may {
            self.data.write_word(at.0 + (HEADER + offset) as u64, word);
        }
        may
    }

    /// Whether there is such a record, not published, with `len` bytes at `offset`.
    #[inline]
    fn may_amend(&self, Position(at): Position, offset: usize, len: usize) -> bool {
        at >= self.published
            && at.is_multiple_of(8)
            && self
                .data
                .record_len(at, self.tail)
                .is_some_and(|all| offset <= all && len <= all - offset)
    }

    /// Shows the consumer everything pushed so far: one store. Says whether there was anything
    /// new; if so, ring the consumer's [`Doorbell`](crate::Doorbell).
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.tail == self.published || self.corrupt {
            return false;
        }
        self.data.cursor(HEAD).store(self.tail, Ordering::Release);
        self.published = self.tail;
        true
    }

    /// Keeps the record at `oldest` and all behind it, even when the consumer has read them:
    /// their space is not reused and [`Producer::read_back`] can have them again. `None`: only
    /// the consumer's cursor counts.
    ///
    /// The record must still be whole, that is never have been below both the floor and the
    /// consumer's cursor. Hold a record when it is pushed, before the next push.
    pub fn hold_from(&mut self, oldest: Option<Position>) {
        let intact = self.tail.saturating_sub(self.data.capacity());
        debug_assert!(
            oldest.is_none_or(|Position(at)| (intact..=self.tail).contains(&at)),
            "cannot hold {oldest:?}: the ring has {intact}..{}",
            self.tail
        );
        self.hold = oldest.map(|Position(at)| at.clamp(intact, self.tail));
        self.bound();
    }

    /// Un-publishes everything from `to` on, so that the next consumer reads it (again) after
    /// the next [`Producer::publish`]. Until then those records can be amended: marked as
    /// redelivered, or as finished and to be skipped. Order is kept.
    ///
    /// For the owner of a ledger whose consumer has died: records from `to` on must be held or
    /// not have been read, and **no consumer may be attached** (its process has been waited
    /// for, the successor attaches later).
    ///
    /// Says `false` and changes nothing if no record starts at `to`, or it is not kept.
    #[must_use = "if nothing was taken back, the consumer goes on behind it"]
    pub fn take_back(&mut self, to: Position) -> bool {
        self.look();
        let Position(to) = to;
        let floor = self.seen.min(self.hold.unwrap_or(u64::MAX));
        if self.corrupt || !(floor..=self.published).contains(&to) || !to.is_multiple_of(8) {
            return false;
        }
        if to != self.tail && self.data.record_len(to, self.tail).is_none() {
            return false;
        }
        // `read` first: a producer that dies between the two leaves a ring in order.
        self.seen = self.seen.min(to);
        self.data.cursor(READ).store(self.seen, Ordering::Release);
        self.data.cursor(HEAD).store(to, Ordering::Release);
        self.published = to;
        self.bound();
        true
    }

    /// Appends the payload of a record to `out`: one that is held, not yet read by the consumer, or
    /// not yet published.
    ///
    /// Says `false` and appends nothing if no such record is kept.
    pub fn read_back(&self, at: Position, out: &mut Vec<u8>) -> bool {
        let Position(at) = at;
        let floor = self.seen.min(self.hold.unwrap_or(u64::MAX));
        if at < floor || !at.is_multiple_of(8) {
            return false;
        }
        let Some(len) = self.data.record_len(at, self.tail) else {
            return false;
        };
        self.data.append(at + HEADER as u64, len, out);
        true
    }

    /// The consumer's read cursor: records before it have been copied out.
    pub fn consumer_position(&self) -> Position {
        Position(self.read_cursor().unwrap_or(self.seen))
    }

    /// Bytes free now, headers included: [`RingSpec::record_bytes`] of a record must fit.
    pub fn free(&self) -> usize {
        if self.corrupt {
            return 0;
        }
        let floor = self
            .consumer_position()
            .0
            .min(self.hold.unwrap_or(u64::MAX));
        (floor + self.data.capacity() - self.tail) as usize
    }

    /// Bytes for records, headers included.
    pub fn capacity(&self) -> usize {
        self.data.capacity() as usize
    }

    /// The most payload bytes of one record.
    pub fn max_record(&self) -> usize {
        RingSpec::max_record(self.capacity())
    }

    /// Where the next record will be.
    pub fn head(&self) -> Position {
        Position(self.tail)
    }

    /// End of what the consumer may read.
    pub fn published(&self) -> Position {
        Position(self.published)
    }

    /// Whether the shared cursors were found impossible. Nothing can be pushed or published
    /// any more; make a new ring.
    pub fn is_corrupt(&self) -> bool {
        self.corrupt
    }

    /// Looks at the consumer's cursor.
    #[cold]
    fn look(&mut self) {
        match self.read_cursor() {
            Some(read) => self.seen = read,
            None => self.corrupt = true,
        }
        self.bound();
    }

    /// The consumer's cursor if it is a possible one: it never moves backwards, nor beyond what
    /// was published.
    fn read_cursor(&self) -> Option<u64> {
        let read = self.data.cursor(READ).load(Ordering::Acquire);
        let possible = (self.seen..=self.published).contains(&read) && read.is_multiple_of(8);
        possible.then_some(read)
    }

    fn bound(&mut self) {
        let floor = self.seen.min(self.hold.unwrap_or(u64::MAX));
        self.limit = if self.corrupt {
            self.tail
        } else {
            floor + self.data.capacity()
        };
    }
}

/// A record does not fit into the ring now, or (if longer than the longest) ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {len} bytes does not fit into the ring: {free} bytes are free")]
pub struct Full {
    /// Payload bytes of the record.
    pub len: usize,
    /// Bytes free in the ring, headers included.
    pub free: usize,
}
