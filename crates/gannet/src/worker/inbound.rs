//! The events from one reactor.

use bytes::{Bytes, BytesMut};
use gannet_shm::{ArenaReader, BlockRef, Consumer, Record};

use super::shared::Shared;
use crate::wire::{ARENA, HEADER, block_from, event::EventHeader};

pub(crate) struct Inbound {
    ring: Consumer,
    arena: ArenaReader,
    reactor: usize,
}

/// An event, copied out of the ring.
pub(crate) struct Event {
    pub(crate) header: EventHeader,
    pub(crate) payload: Bytes,
}

impl Inbound {
    pub(crate) fn attach(shared: &Shared, reactor: usize) -> Self {
        let (region, dimensions) = (&shared.region, &shared.dimensions);
        Inbound {
            ring: Consumer::attach(region.clone(), dimensions.event_ring(reactor)),
            arena: ArenaReader::attach(region.clone(), dimensions.event_arena(reactor)),
            reactor,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The next event. From now on it counts as begun: should the worker die, the master knows
    /// that it may have been handled.
    ///
    /// Payloads are cut from `chunk`, which is allocated anew, or recycled if all that was cut
    /// from it is gone, when it is used up.
    pub(crate) fn next(&mut self, chunk: &mut BytesMut) -> Option<Event> {
        loop {
            let Some(record) = self.ring.next() else {
                self.ring.commit();
                return None;
            };
            let Some(header) = record
                .array(0)
                .and_then(|bytes| EventHeader::decode(&bytes))
            else {
                self.skip(None);
                continue;
            };
            let payload = if !header.has(ARENA) {
                let len = record.len() - HEADER;
                if chunk.capacity() < len {
                    chunk.reserve(len.max(CHUNK));
                }
                if record.append_to(HEADER.., chunk).is_err() {
                    self.skip(Some(header));
                    continue;
                }
                chunk.split().freeze()
            } else if let Some(payload) = large(&self.arena, &record) {
                payload
            } else {
                self.skip(Some(header));
                continue;
            };
            self.ring.commit();
            return Some(Event { header, payload });
        }
    }

    #[cold]
    fn skip(&self, header: Option<EventHeader>) {
        let reactor = self.reactor;
        match header {
            None => tracing::error!(reactor, "an event of an unknown kind was skipped"),
            Some(header) => tracing::error!(reactor, ?header, "an event without its payload"),
        }
    }
}

/// The payload that lies in the arena.
#[cold]
fn large(arena: &ArenaReader, record: &Record<'_>) -> Option<Bytes> {
    let (offset, len) = block_from(record.array(HEADER)?);
    let mut payload = BytesMut::new();
    arena
        .append_to(BlockRef { offset, len }, &mut payload)
        .ok()?;
    Some(payload.freeze())
}

/// Bytes that the payloads of many small events share. Whoever keeps one of them keeps all.
const CHUNK: usize = 16 << 10;
