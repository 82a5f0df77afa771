//! The events from one reactor.

use bytes::{Bytes, BytesMut};
use gannet_shm::{ArenaReader, BlockRef, Consumer};

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
                tracing::error!(
                    reactor = self.reactor,
                    "an event of an unknown kind was skipped"
                );
                continue;
            };
            let payload = if !header.has(ARENA) {
                let len = record.len() - HEADER;
                if chunk.capacity() < len {
                    chunk.reserve(len.max(CHUNK));
                }
                record
                    .append_to(HEADER.., chunk)
                    .map(|()| chunk.split().freeze())
                    .ok()
            } else {
                record.array(HEADER).and_then(|reference| {
                    let (offset, len) = block_from(reference);
                    let mut payload = BytesMut::new();
                    self.arena
                        .append_to(BlockRef { offset, len }, &mut payload)
                        .ok()?;
                    Some(payload.freeze())
                })
            };
            self.ring.commit();
            let Some(payload) = payload else {
                tracing::error!(
                    reactor = self.reactor,
                    ?header,
                    "an event without its payload"
                );
                continue;
            };
            return Some(Event { header, payload });
        }
    }
}

/// Bytes that the payloads of many small events share. Whoever keeps one of them keeps all.
const CHUNK: usize = 16 << 10;
