//! The reading end of a ring.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::data::Data;
use super::record::Record;
use super::{HEAD, HEADER, Position, READ, RingSpec, plausible};
use crate::memory::{Memory, Word};
use crate::region::Region;

/// The reading end of a ring. One per ring at any time, in whatever process.
///
/// Copy records out, [commit](Consumer::commit), then act on the copies. In this order the
/// committed cursor bounds what a consumer that died may have acted on.
///
/// It can move to another thread but not be shared or cloned:
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<gannet_shm::Consumer>();
/// ```
#[derive(Debug)]
pub struct Consumer<M: Memory = Region> {
    data: Data<M>,
    /// Records before it have been handed out.
    cursor: u64,
    /// The last shared `head` that was looked at and found possible.
    head: u64,
    /// The shared `read`.
    committed: u64,
    corrupt: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl<M: Memory> Consumer<M> {
    /// Continues from the shared read cursor.
    ///
    /// # Panics
    ///
    /// If `spec` breaks its rules or does not fit into the region.
    pub fn attach(region: Arc<M>, spec: RingSpec) -> Consumer<M> {
        let data = Data::new(region, spec);
        // Acquire: the producer may have taken records back while no consumer was there.
        let read = data.cursor(READ).load(Ordering::Acquire);
        Consumer {
            data,
            cursor: read,
            head: read,
            committed: read,
            corrupt: !plausible(read),
            not_sync: PhantomData,
        }
    }

    /// The next record, if there is one. Its bytes stay in place until [`Consumer::commit`],
    /// which cannot be called while the record is borrowed.
    ///
    /// Looks at the shared head only when the records it knows of are used up.
    #[expect(clippy::should_implement_trait, reason = "records borrow the consumer")]
    #[inline]
    pub fn next(&mut self) -> Option<Record<'_, M>> {
        if self.cursor == self.head && !self.look() {
            return None;
        }
        let at = self.cursor;
        // The length is read once, and bounded by the head before it is used.
        let Some(len) = self.data.record_len(at, self.head) else {
            self.condemn();
            return None;
        };
        self.cursor = at + RingSpec::record_bytes(len) as u64;
        Some(Record::new(&self.data, at + HEADER as u64, len))
    }

    /// Tells the producer that all records handed out so far have been copied and may be
    /// overwritten: one store.
    #[inline]
    pub fn commit(&mut self) {
        if self.cursor != self.committed {
            self.data.cursor(READ).store(self.cursor, Ordering::Release);
            self.committed = self.cursor;
        }
    }

    /// Where the next record will be.
    pub fn position(&self) -> Position {
        Position(self.cursor)
    }

    /// Whether there is nothing to read. Looks at the shared head: this is the re-check between
    /// [`Doorbell::prepare_sleep`](crate::Doorbell::prepare_sleep) and going to sleep.
    pub fn is_empty(&self) -> bool {
        self.corrupt || self.data.cursor(HEAD).load(Ordering::Acquire) == self.cursor
    }

    /// Whether a cursor or a header was found impossible. Nothing more is read; the ring is to
    /// be made anew.
    pub fn corrupt(&self) -> bool {
        self.corrupt
    }

    /// Looks at the shared head; says whether there are new records.
    fn look(&mut self) -> bool {
        if self.corrupt {
            return false;
        }
        let head = self.data.cursor(HEAD).load(Ordering::Acquire);
        let unread = head.checked_sub(self.cursor);
        if !plausible(head) || unread.is_none_or(|unread| unread > self.data.capacity()) {
            self.condemn();
            return false;
        }
        self.head = head;
        head != self.cursor
    }

    #[cold]
    fn condemn(&mut self) {
        self.corrupt = true;
        self.head = self.cursor;
    }
}
