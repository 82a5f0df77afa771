//! The rings between a reactor and a worker of another process or thread: the reactor's end.
//!
//! A pair that an earlier master used begins with a `Reset`. Until the worker has read it, nothing
//! new goes there: events of before may lie in the ring, with payloads in the arena that a new one
//! would overwrite, and what the worker reads before the `Reset` it takes for a matter of before.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
};

use gannet_shm::{
    Arena, ArenaReader, Block, BlockRef, Consumer, Doorbell, Position, Producer, Region,
};

use super::{
    ledger::{Bytes, Ledger, Unfinished},
    link::{NoRoom, Orphan},
};
use crate::{
    id::ConnId,
    layout::{Dimensions, WorkerCounter},
    wire::{
        self, HEADER,
        event::{EventHeader, EventKind},
    },
};

/// See the module's documentation.
pub(super) struct Rings {
    pub(super) commands: Consumer,
    pub(super) command_arena: ArenaReader,
    events: Producer,
    arena: Arena,
    bell: Doorbell,
    region: Arc<Region>,
    dimensions: Dimensions,
    reactor: usize,
    ledger: Ledger,
    max_parked: usize,
    /// Where the worker's reading was, and since when (ms), for the stall check.
    seen: (Position, u64),
    reset: Reset,
}

/// How far the take-over from an earlier master is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    /// There was none, or it is over.
    Done,
    /// The ring had no room for it yet.
    Due,
    /// The worker has it before it when it has read this far.
    Written(Position),
}

impl Rings {
    pub(super) fn attach(
        reactor: usize,
        dimensions: Dimensions,
        region: Arc<Region>,
        bell: OwnedFd,
        max_parked: usize,
    ) -> Self {
        let events = Producer::attach(region.clone(), dimensions.event_ring(reactor));
        Rings {
            commands: Consumer::attach(region.clone(), dimensions.command_ring(reactor)),
            command_arena: ArenaReader::attach(region.clone(), dimensions.command_arena(reactor)),
            seen: (events.consumer_position(), 0),
            reset: match events.head() {
                Position(0) => Reset::Done,
                _ => Reset::Due,
            },
            // Above all numbers that an earlier master gave: an event takes more than one byte. An
            // answer to one of those must not be taken for an answer to ours.
            ledger: Ledger::new(events.head().0 + 1),
            events,
            arena: Arena::attach(region.clone(), dimensions.event_arena(reactor)),
            bell: Doorbell::attach(region.clone(), dimensions.worker_bell(), bell),
            region,
            dimensions,
            reactor,
            max_parked,
        }
    }

    /// Writes an event that is owed an outcome, and returns its number.
    #[inline(never)]
    pub(super) fn push(
        &mut self,
        mut header: EventHeader,
        payload: &[&[u8]],
    ) -> Result<u64, NoRoom> {
        if !self.is_renewed() {
            return Err(NoRoom);
        }
        header.seq = self.ledger.next_seq();
        let (at, block) = self.write(&header, payload)?;
        self.ledger.enter(header.conn, at, block);
        if self.ledger.oldest() == Some(at) {
            self.events.hold_from(Some(at));
        }
        Ok(header.seq)
    }

    /// Writes an event that is owed none.
    pub(super) fn post(&mut self, header: EventHeader, payload: &[u8]) -> Result<(), NoRoom> {
        // A block of the arena is freed when its event is done: what is never done must fit.
        if payload.len() > self.dimensions.inline_limit() {
            return self.push(header, &[payload]).map(drop);
        }
        if !self.is_renewed() {
            return Err(NoRoom);
        }
        self.write(&EventHeader { seq: 0, ..header }, &[payload])
            .map(drop)
    }

    /// Shows the worker what was written and wakes it if it sleeps.
    pub(super) fn publish(&mut self) {
        if self.events.publish() {
            self.bell.ring();
        }
    }

    /// As [`Link::finish`](super::link::Link::finish).
    #[inline(never)]
    pub(super) fn finish(&mut self, seq: u64) -> Option<ConnId> {
        let finished = self.ledger.finish(seq)?;
        if let Some(block) = finished.block {
            self.arena.free(block);
        }
        self.events.hold_from(self.ledger.oldest());
        Some(finished.conn)
    }

    /// After commands were taken: gives their room back, and wakes the worker if it waits for that.
    pub(super) fn commands_taken(&mut self) {
        self.commands.commit();
        let word = self.dimensions.worker_counters() + 8 * WorkerCounter::CommandsBlocked as usize;
        let blocked = self.region.word(word);
        std::sync::atomic::fence(Ordering::SeqCst);
        if blocked.load(Ordering::Relaxed) != 0 && blocked.swap(0, Ordering::SeqCst) != 0 {
            self.bell.ring();
        }
    }

    /// Events without outcome.
    pub(super) fn owed(&self) -> usize {
        self.ledger.len()
    }

    pub(super) fn parked_bytes(&self) -> usize {
        self.ledger.parked_bytes()
    }

    /// Whether an event of so many bytes would find room now.
    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        let need = bytes + 2 * HEADER;
        self.events.free() >= need || {
            self.park(need);
            self.events.free() >= need
        }
    }

    /// Payloads over this go through the arena.
    pub(super) fn inline_limit(&self) -> usize {
        self.dimensions.inline_limit()
    }

    /// As [`Link::has_stalled`](super::link::Link::has_stalled).
    pub(super) fn has_stalled(&mut self, now: u64, limit: u64, owes: bool) -> bool {
        let read = self.events.consumer_position();
        let owes = owes || self.reset != Reset::Done;
        // The first look, at a time of 0, only begins the count.
        if read != self.seen.0 || !owes || self.seen.1 == 0 {
            self.seen = (read, now);
        }
        if !owes {
            return false;
        }
        if read == self.events.published() {
            self.post_tick();
        }
        now.saturating_sub(self.seen.1) > limit
    }

    /// Takes all events without outcome, in order.
    pub(super) fn orphans(&mut self) -> Vec<Orphan> {
        let read = self.events.consumer_position();
        let current = self
            .region
            .word(self.dimensions.current(self.reactor))
            .load(Ordering::Acquire);
        let mut orphans = Vec::new();
        for event in self.ledger.take_all() {
            let was_read = match event.place {
                Bytes::Heap(_) => true,
                Bytes::Ring(at) => at < read,
            };
            let seq = event.seq;
            let Some((header, payload)) = self.read_back(event) else {
                continue;
            };
            orphans.push(Orphan {
                header,
                payload,
                read: was_read,
                current: was_read && current == seq,
            });
        }
        orphans
    }

    /// Takes back events that were not begun.
    pub(super) fn take_back(
        &mut self,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Vec<(EventHeader, Vec<u8>)> {
        let mut taken = Vec::new();
        for seq in numbers {
            let event = self.ledger.take_back(seq);
            taken.extend(event.and_then(|event| self.read_back(event)));
        }
        self.ledger.sweep();
        self.events.hold_from(self.ledger.oldest());
        taken
    }

    /// Whether the worker knows that this master has taken over; tells it as soon as there is room.
    pub(super) fn is_renewed(&mut self) -> bool {
        if self.reset == Reset::Due {
            let reset = EventHeader::new(EventKind::Reset, ConnId::from_u64(0));
            if let Ok((at, _)) = self.write(&reset, &[]) {
                self.reset = Reset::Written(at);
                self.publish();
            }
        }
        if let Reset::Written(at) = self.reset
            && self.events.consumer_position() > at
        {
            self.reset = Reset::Done;
        }
        self.reset == Reset::Done
    }

    /// Header and payload of an event that the worker will not handle; frees what it took.
    fn read_back(&mut self, event: Unfinished) -> Option<(EventHeader, Vec<u8>)> {
        let mut record = match event.place {
            Bytes::Heap(record) => record,
            Bytes::Ring(at) => {
                let mut record = Vec::new();
                self.events.read_back(at, &mut record);
                record
            }
        };
        let Some(header) = record.first_chunk::<HEADER>().and_then(EventHeader::decode) else {
            tracing::error!(
                reactor = self.reactor,
                seq = event.seq,
                "an event could not be read back"
            );
            return None;
        };
        record.drain(..HEADER);
        if let Some(block) = event.block {
            record.clear();
            self.arena.read_back(&block, &mut record);
            self.arena.free(block);
        }
        let flags = header.flags & !wire::ARENA;
        Some((EventHeader { flags, ..header }, record))
    }

    fn post_tick(&mut self) {
        let tick = EventHeader::new(EventKind::Tick, ConnId::from_u64(0));
        if self.write(&tick, &[]).is_ok() {
            self.publish();
        }
    }

    fn write(
        &mut self,
        header: &EventHeader,
        payload: &[&[u8]],
    ) -> Result<(Position, Option<Block>), NoRoom> {
        let len: usize = payload.iter().map(|part| part.len()).sum();
        if len <= self.dimensions.inline_limit() {
            return Ok((self.write_record(header, payload, len)?, None));
        }
        let block = self.arena.alloc(len).ok_or(NoRoom)?;
        let header = EventHeader {
            flags: header.flags | wire::ARENA,
            ..*header
        };
        let BlockRef { offset, len } = block.reference();
        let written = self
            .arena
            .write(&block, payload)
            .map_err(|_| NoRoom)
            .and_then(|()| self.write_record(&header, &[&wire::block_bytes(offset, len)], 16));
        match written {
            Ok(at) => Ok((at, Some(block))),
            Err(full) => {
                self.arena.free(block);
                Err(full)
            }
        }
    }

    #[inline]
    fn write_record(
        &mut self,
        header: &EventHeader,
        parts: &[&[u8]],
        len: usize,
    ) -> Result<Position, NoRoom> {
        if let Ok(at) = self.events.push_headed(&header.encode(), parts) {
            return Ok(at);
        }
        self.park(len + 2 * HEADER);
        self.events
            .push_headed(&header.encode(), parts)
            .map_err(|_| {
                // The worker is to read on while the reactor waits for room.
                self.publish();
                NoRoom
            })
    }

    /// Makes room by copying events out of the ring that were read and are not done.
    fn park(&mut self, need: usize) {
        let want = need.max(self.events.capacity() / 4);
        let read = self.events.consumer_position();
        while self.events.free() < want
            && self.ledger.parked_bytes() < self.max_parked
            && self.ledger.oldest().is_some_and(|at| at < read)
        {
            let Rings { ledger, events, .. } = self;
            ledger.park_front(|at, record| {
                events.read_back(at, record);
            });
            events.hold_from(ledger.oldest());
        }
    }
}
