//! One reactor's connection to one incarnation of a worker: two rings, two arenas, two bells.
//!
//! A link that an earlier master used begins with a `Reset`. Until the worker has read it, nothing
//! new goes there: events of before may lie in the ring, with payloads in the arena that a new one
//! would overwrite, and what the worker reads before the `Reset` it takes for a matter of before.
//!
//! States: **current** (gets the events of its place) → **retiring** (a successor has the place;
//! finishes what it has; told `Retire` when nothing is owed) → dropped when the manager says that
//! the process has ended. From any state: the process dies, its published commands are taken, its
//! unfinished events go to the place's backlog.

use std::{
    collections::{HashSet, VecDeque},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use gannet_shm::{
    Arena, ArenaReader, Block, BlockRef, Consumer, Doorbell, Position, Producer, Region, RingSpec,
};

use super::{
    hand::Hand,
    ledger::{Bytes, Finished, Ledger, Unfinished},
};
use crate::{
    claim::Claim,
    control::Role as Kind,
    id::{ConnId, WorkerId},
    layout::{Dimensions, WorkerCounter},
    wire::{
        self, HEADER,
        event::{EventHeader, EventKind, REDELIVERED},
    },
};

/// The reactor's end.
pub(super) struct Link {
    pub(super) worker: WorkerId,
    pub(super) kind: Kind,
    pub(super) incarnation: u64,
    pub(super) retiring: bool,
    /// `Retire` was sent.
    pub(super) retired: bool,
    /// For task workers: the tasks that it has.
    pub(super) hand: Hand,
    pub(super) commands: Consumer,
    pub(super) command_arena: ArenaReader,
    events: Producer,
    arena: Arena,
    bell: Doorbell,
    region: Arc<Region>,
    dimensions: Dimensions,
    reactor: usize,
    ledger: Ledger,
    /// Numbers of the datagrams among its events.
    packets: HashSet<u64>,
    /// Events that belong to no socket and found the ring full.
    outbox: VecDeque<(EventHeader, Vec<u8>)>,
    outbox_bytes: usize,
    max_parked: usize,
    /// Where the worker's reading was, and since when (ms), for the stall check.
    seen: (Position, u64),
    reset: Reset,
    /// When the reactor's turn began, for the events that it writes.
    stamp: Arc<AtomicU32>,
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

/// What a link is made of: a worker that is ready, and what it shares.
pub(super) struct Attachment {
    pub(super) worker: WorkerId,
    pub(super) kind: Kind,
    pub(super) incarnation: u64,
    pub(super) region: Arc<Region>,
    pub(super) bell: OwnedFd,
}

/// The ring has no room for an event now.
pub(super) struct NoRoom;

/// An event that has to be handled again, or given up.
pub(super) struct Orphan {
    pub(super) header: EventHeader,
    pub(super) payload: Vec<u8>,
    /// The worker had taken it.
    pub(super) read: bool,
    /// The worker died while it handled this one.
    pub(super) current: bool,
}

impl Link {
    pub(super) fn attach(
        reactor: usize,
        dimensions: Dimensions,
        attachment: Attachment,
        max_parked: usize,
        stamp: Arc<AtomicU32>,
    ) -> Self {
        let Attachment {
            worker,
            kind,
            incarnation,
            region,
            bell,
        } = attachment;
        let events = Producer::attach(region.clone(), dimensions.event_ring(reactor));
        Link {
            worker,
            kind,
            incarnation,
            retiring: false,
            retired: false,
            hand: Hand::new(Claim::attach(region.clone(), dimensions)),
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
            packets: HashSet::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            max_parked,
            stamp,
        }
    }

    /// Gives the worker an event that is owed an outcome, and returns its number.
    pub(super) fn push(
        &mut self,
        mut header: EventHeader,
        payload: &[&[u8]],
    ) -> Result<u64, NoRoom> {
        if !self.is_renewed() {
            return Err(NoRoom);
        }
        header.seq = self.ledger.next_seq();
        let (at, block) = self.write(header, payload)?;
        self.ledger.enter(header.conn, at, block);
        if header.kind == EventKind::Packet {
            self.packets.insert(header.seq);
        }
        if self.ledger.oldest() == Some(at) {
            self.events.hold_from(Some(at));
        }
        Ok(header.seq)
    }

    /// Gives the worker an event that belongs to no socket: if the ring is full it waits here.
    /// `false`: too much waits already; the event was dropped.
    ///
    /// What is not sequenced is never dropped: it answers a question, and the worker that asked
    /// bounds how many there are.
    pub(super) fn post(&mut self, header: EventHeader, payload: &[u8], sequenced: bool) -> bool {
        if self.outbox.is_empty() && self.is_renewed() && self.post_now(header, payload, sequenced)
        {
            return true;
        }
        if sequenced && self.outbox_bytes + HEADER + payload.len() > self.max_parked {
            return false;
        }
        self.outbox_bytes += HEADER + payload.len();
        let header = EventHeader {
            seq: u64::from(sequenced),
            ..header
        };
        self.outbox.push_back((header, payload.to_vec()));
        true
    }

    /// Pushes what waits in the outbox, as far as there is room.
    pub(super) fn flush_outbox(&mut self) {
        if !self.is_renewed() {
            return;
        }
        while let Some((header, payload)) = self.outbox.pop_front() {
            if !self.post_now(header, &payload, header.seq != 0) {
                self.outbox.push_front((header, payload));
                return;
            }
            self.outbox_bytes -= HEADER + payload.len();
        }
    }

    /// Shows the worker what was pushed and wakes it if it sleeps.
    pub(super) fn publish(&mut self) {
        if self.events.publish() {
            self.bell.ring();
        }
    }

    /// The worker says that an event is done.
    pub(super) fn finish(&mut self, seq: u64) -> Option<Finished> {
        let mut finished = self.ledger.finish(seq)?;
        if !self.packets.is_empty() {
            self.packets.remove(&seq);
        }
        if let Some(block) = finished.block.take() {
            self.arena.free(block);
        }
        self.events.hold_from(self.ledger.oldest());
        Some(finished)
    }

    /// After commands were taken: wakes the worker if it waits for room in the command ring.
    pub(super) fn commands_taken(&self) {
        let word = self.dimensions.worker_counters() + 8 * WorkerCounter::CommandsBlocked as usize;
        let blocked = self.region.word(word);
        std::sync::atomic::fence(Ordering::SeqCst);
        if blocked.load(Ordering::Relaxed) != 0 && blocked.swap(0, Ordering::SeqCst) != 0 {
            self.bell.ring();
        }
    }

    /// Nothing is owed to this worker or by it.
    pub(super) fn is_idle(&self) -> bool {
        self.ledger.is_empty() && self.outbox.is_empty()
    }

    /// Events without outcome.
    pub(super) fn owed(&self) -> usize {
        self.ledger.len() + self.outbox.len()
    }

    /// Datagrams without outcome.
    pub(super) fn packets(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn parked_bytes(&self) -> usize {
        self.ledger.parked_bytes() + self.outbox_bytes
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
        Self::inline_limit_of(self.events.capacity())
    }

    /// The same, for rings of this capacity: an eighth, so that a ring holds several.
    pub(super) fn inline_limit_of(ring: usize) -> usize {
        (ring / 8).min(RingSpec::max_record(ring)) - HEADER
    }

    /// Sends a `Tick` if the worker owes something and has nothing to read, and says whether it has
    /// read nothing for `limit` ms although there was something.
    pub(super) fn has_stalled(&mut self, now: u64, limit: u64) -> bool {
        let read = self.events.consumer_position();
        let owes = !self.is_idle() || self.reset != Reset::Done;
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

    /// Takes all events without outcome, in order; for a worker whose process has ended.
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
        for (header, payload) in self.outbox.drain(..).filter(|(header, _)| header.seq != 0) {
            orphans.push(Orphan {
                header,
                payload,
                read: false,
                current: false,
            });
        }
        self.outbox_bytes = 0;
        orphans
    }

    /// Takes back the tasks that were not begun, in order.
    pub(super) fn recall(&mut self) -> Vec<(EventHeader, Vec<u8>)> {
        let mut taken = Vec::new();
        for seq in self.hand.recall() {
            let event = self.ledger.take_back(seq);
            taken.extend(event.and_then(|event| self.read_back(event)));
        }
        self.ledger.sweep();
        self.events.hold_from(self.ledger.oldest());
        taken
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
            tracing::error!(worker = %self.worker, seq = event.seq, "an event could not be read back");
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

    /// Whether the worker knows that this master has taken over; tells it as soon as there is room.
    fn is_renewed(&mut self) -> bool {
        if self.reset == Reset::Due {
            let reset = EventHeader::new(EventKind::Reset, ConnId::from_u64(0));
            if let Ok((at, _)) = self.write(reset, &[]) {
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

    fn post_now(&mut self, header: EventHeader, payload: &[u8], sequenced: bool) -> bool {
        match sequenced {
            true => self.push(header, &[payload]).is_ok(),
            // A block of the arena is freed when its event is done: what is never done must fit.
            false if payload.len() > self.inline_limit() => self.push(header, &[payload]).is_ok(),
            false => self
                .write(EventHeader { seq: 0, ..header }, &[payload])
                .is_ok(),
        }
    }

    fn post_tick(&mut self) {
        let tick = EventHeader::new(EventKind::Tick, ConnId::from_u64(0));
        if self.write(tick, &[]).is_ok() {
            self.publish();
        }
    }

    fn write(
        &mut self,
        mut header: EventHeader,
        payload: &[&[u8]],
    ) -> Result<(Position, Option<Block>), NoRoom> {
        header.stamp = self.stamp.load(Ordering::Relaxed);
        let len: usize = payload.iter().map(|part| part.len()).sum();
        if len <= self.inline_limit() {
            return Ok((self.write_record(&header, payload, len)?, None));
        }
        let block = self.arena.alloc(len).ok_or(NoRoom)?;
        header.flags |= wire::ARENA;
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
            let Link { ledger, events, .. } = self;
            ledger.park_front(|at, record| {
                events.read_back(at, record);
            });
            events.hold_from(ledger.oldest());
        }
    }
}

/// The header with which an orphan goes to another worker.
pub(super) fn redelivered(orphan: &Orphan) -> EventHeader {
    let attempts = orphan
        .header
        .attempts
        .saturating_add(u8::from(orphan.current));
    let flag = if orphan.read { REDELIVERED } else { 0 };
    EventHeader {
        attempts,
        flags: orphan.header.flags | flag,
        ..orphan.header
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::layout::WORKER_KIND;

    fn link(region: &Arc<Region>) -> Link {
        let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let attachment = Attachment {
            worker: WorkerId(0),
            kind: Kind::Worker,
            incarnation: 1,
            region: region.clone(),
            bell,
        };
        Link::attach(0, Dimensions::SMALLEST, attachment, 1 << 20, Arc::default())
    }

    fn message() -> EventHeader {
        EventHeader::new(EventKind::Message, ConnId::from_u64(1))
    }

    #[test]
    fn a_new_master_sends_nothing_before_its_reset_is_read() {
        let region =
            Region::create("worker", WORKER_KIND, Dimensions::SMALLEST.worker_len()).unwrap();
        let mut dead = link(&region);
        while dead.push(message(), &[&[0; 1000]]).is_ok() {}
        dead.publish();
        drop(dead);

        // There is no room for the reset at first.
        let mut new = link(&region);
        assert!(new.push(message(), &[b"new"]).is_err());
        assert!(new.post(message(), b"answer", false));
        let mut worker = Consumer::attach(region, Dimensions::SMALLEST.event_ring(0));
        assert!(worker.next().is_some());
        worker.commit();
        new.flush_outbox();
        assert!(new.push(message(), &[b"new"]).is_err(), "it is not read");

        let mut kinds = Vec::new();
        while let Some(record) = worker.next() {
            let header = record
                .array(0)
                .and_then(|bytes| EventHeader::decode(&bytes));
            kinds.push(header.unwrap().kind);
        }
        assert_eq!(kinds.last(), Some(&EventKind::Reset));
        assert!(new.push(message(), &[b"new"]).is_err(), "nor taken");
        worker.commit();
        assert!(new.push(message(), &[b"new"]).is_ok());
    }
}
