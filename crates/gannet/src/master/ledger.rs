//! The events of one link that have no outcome yet.
//!
//! Every sequenced event is here from when it is pushed until the worker says that it is done.
//! The event's bytes stay in the ring as long as there is room; when the ring is needed and the
//! front event was read but takes its time, its bytes are *parked*: copied to the heap, so that
//! one slow handler does not hold the ring for all.
//!
//! States of an entry: **in the ring** → **parked** → gone, or **in the ring** → gone. An entry in
//! the middle that is done stays as a tombstone until those before it are done or parked.
//!
//! Invariants:
//! - `base` is the sequence number of the front entry; numbers have no gaps.
//! - Every entry in the deque lies in the ring at `at`; the ring is held from the front's `at`.
//! - `parked` has only live entries with numbers below `base`.

use std::collections::{BTreeMap, VecDeque};

use gannet_shm::{Block, Position};

use crate::id::ConnId;

/// The live and the not yet swept entries of one link.
#[derive(Default)]
pub(super) struct Ledger {
    base: u64,
    entries: VecDeque<Entry>,
    parked: BTreeMap<u64, Parked>,
    parked_bytes: usize,
    live: usize,
}

/// An event whose bytes are in the ring.
struct Entry {
    at: Position,
    conn: ConnId,
    /// `None`: done.
    live: Option<Live>,
}

struct Live {
    block: Option<Block>,
}

/// An event whose record was copied out of the ring.
pub(super) struct Parked {
    conn: ConnId,
    record: Vec<u8>,
    block: Option<Block>,
}

/// What is left of an event that is done.
pub(super) struct Finished {
    pub(super) conn: ConnId,
    /// Its arena block, to be freed.
    pub(super) block: Option<Block>,
}

/// An event without outcome, when its worker is dead.
pub(super) struct Unfinished {
    pub(super) seq: u64,
    pub(super) place: Bytes,
    pub(super) block: Option<Block>,
}

/// Where the record of an unfinished event is.
pub(super) enum Bytes {
    Ring(Position),
    Heap(Vec<u8>),
}

impl Ledger {
    /// A ledger whose first event gets the number `first`, at least 1.
    pub(super) fn new(first: u64) -> Self {
        Ledger {
            base: first,
            ..Self::default()
        }
    }

    /// The number that the next event gets.
    pub(super) fn next_seq(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Enters the event that was pushed with [`Ledger::next_seq`].
    pub(super) fn enter(&mut self, conn: ConnId, at: Position, block: Option<Block>) {
        self.entries.push_back(Entry {
            at,
            conn,
            live: Some(Live { block }),
        });
        self.live += 1;
    }

    /// The event has its outcome. `None`: there is no such event, or it was done before.
    pub(super) fn finish(&mut self, seq: u64) -> Option<Finished> {
        let finished = if seq == self.base
            && let Some(entry) = self.entries.pop_front_if(|entry| entry.live.is_some())
        {
            // Nearly all are done in the order in which they came.
            self.base += 1;
            Finished {
                conn: entry.conn,
                block: entry.live.and_then(|live| live.block),
            }
        } else if seq < self.base {
            let parked = self.parked.remove(&seq)?;
            self.parked_bytes -= parked.record.capacity();
            Finished {
                conn: parked.conn,
                block: parked.block,
            }
        } else {
            let entry = self
                .entries
                .get_mut(usize::try_from(seq - self.base).ok()?)?;
            let live = entry.live.take()?;
            Finished {
                conn: entry.conn,
                block: live.block,
            }
        };
        self.live -= 1;
        self.sweep();
        Some(finished)
    }

    /// Takes back an event that was not begun. Once its bytes were read, [`Ledger::sweep`] lets go of
    /// them.
    pub(super) fn take_back(&mut self, seq: u64) -> Option<Unfinished> {
        let (place, block) = if seq < self.base {
            let parked = self.parked.remove(&seq)?;
            self.parked_bytes -= parked.record.capacity();
            (Bytes::Heap(parked.record), parked.block)
        } else {
            let index = usize::try_from(seq - self.base).ok()?;
            let entry = self.entries.get_mut(index)?;
            let live = entry.live.take()?;
            (Bytes::Ring(entry.at), live.block)
        };
        self.live -= 1;
        Some(Unfinished { seq, place, block })
    }

    /// The oldest position that must stay in the ring.
    pub(super) fn oldest(&self) -> Option<Position> {
        self.entries.front().map(|entry| entry.at)
    }

    /// Moves the front entry out of the ring; `read` gives its record.
    pub(super) fn park_front(&mut self, read: impl FnOnce(Position, &mut Vec<u8>)) {
        let Some(mut entry) = self.entries.pop_front() else {
            return;
        };
        if let Some(live) = entry.live.take() {
            let mut record = Vec::new();
            read(entry.at, &mut record);
            self.parked_bytes += record.capacity();
            self.parked.insert(
                self.base,
                Parked {
                    conn: entry.conn,
                    record,
                    block: live.block,
                },
            );
        }
        self.base += 1;
        self.sweep();
    }

    /// Takes everything that has no outcome, in order.
    pub(super) fn take_all(&mut self) -> Vec<Unfinished> {
        let base = self.base;
        self.base = self.next_seq();
        self.live = 0;
        self.parked_bytes = 0;
        let parked = std::mem::take(&mut self.parked)
            .into_iter()
            .map(|(seq, parked)| Unfinished {
                seq,
                place: Bytes::Heap(parked.record),
                block: parked.block,
            });
        let ring = std::mem::take(&mut self.entries)
            .into_iter()
            .zip(base..)
            .filter_map(|(entry, seq)| {
                let live = entry.live?;
                Some(Unfinished {
                    seq,
                    place: Bytes::Ring(entry.at),
                    block: live.block,
                })
            });
        parked.chain(ring).collect()
    }

    /// Events without outcome.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Bytes of heap that parked records take.
    pub(super) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Forgets what is done at the front.
    pub(super) fn sweep(&mut self) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.live.is_none())
        {
            self.entries.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Ledger {
        let mut ledger = Ledger::new(1);
        for n in 0..count {
            assert_eq!(ledger.next_seq(), n + 1);
            ledger.enter(ConnId::from_u64(n), Position(n * 64), None);
        }
        ledger
    }

    #[test]
    fn holds_the_ring_from_the_oldest_event_without_outcome() {
        let mut ledger = filled(4);
        assert!(ledger.finish(2).is_some());
        assert_eq!(ledger.oldest(), Some(Position(0)));
        assert!(ledger.finish(1).is_some());
        assert_eq!(ledger.oldest(), Some(Position(128)), "1 and 2 are swept");
        assert!(ledger.finish(2).is_none(), "only once");
        assert!(ledger.finish(9).is_none(), "never pushed");
        assert_eq!(ledger.len(), 2);
    }

    #[test]
    fn a_parked_event_is_still_owed() {
        let mut ledger = filled(3);
        ledger.park_front(|_, record| record.extend_from_slice(b"one"));
        assert_eq!(ledger.oldest(), Some(Position(64)));
        ledger.finish(2);
        let left = ledger.take_all();
        assert_eq!(
            left.iter().map(|event| event.seq).collect::<Vec<_>>(),
            [1, 3]
        );
        assert!(matches!(&left[0].place, Bytes::Heap(record) if record == b"one"));
        assert!(ledger.len() == 0);
        assert_eq!(ledger.next_seq(), 4);
    }

    #[test]
    fn a_parked_event_can_be_finished() {
        let mut ledger = filled(2);
        ledger.park_front(|_, record| record.extend_from_slice(b"one"));
        assert_eq!(ledger.finish(1).unwrap().conn, ConnId::from_u64(0));
        assert_eq!((ledger.parked_bytes(), ledger.len()), (0, 1));
    }
}
