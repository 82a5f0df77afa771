//! The events from one reactor.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use gannet_shm::{ArenaReader, BlockRef, Consumer, Record};

use super::shared::Shared;
use crate::{
    direct::{Direct, Event},
    wire::{ARENA, HEADER, block_from, event::EventHeader},
};

pub(crate) enum Inbound {
    /// From another process or thread.
    Ring(Box<Ring>),
    /// From the reactor of this thread.
    Direct(Rc<Direct>),
}

/// Where events are copied out of.
pub(crate) struct Ring {
    ring: Consumer,
    arena: ArenaReader,
    reactor: usize,
}

impl Inbound {
    /// `direct`: what leads to this reactor, if it runs on this thread.
    pub(crate) fn attach(shared: &Shared, reactor: usize, direct: Option<Rc<Direct>>) -> Self {
        let (region, dimensions) = (&shared.region, &shared.dimensions);
        match direct {
            Some(direct) => Inbound::Direct(direct),
            None => Inbound::Ring(Box::new(Ring {
                ring: Consumer::attach(region.clone(), dimensions.event_ring(reactor)),
                arena: ArenaReader::attach(region.clone(), dimensions.event_arena(reactor)),
                reactor,
            })),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Inbound::Ring(ring) => ring.ring.is_empty(),
            Inbound::Direct(direct) => !direct.has_events(),
        }
    }

    /// The next event. From now on it counts as begun: should the worker die, the master knows
    /// that it may have been handled.
    ///
    /// Payloads are cut from `chunk`, which is allocated anew, or recycled if all that was cut
    /// from it is gone, when it is used up.
    #[inline]
    pub(crate) fn next(&mut self, chunk: &mut BytesMut) -> Option<Event> {
        match self {
            Inbound::Ring(ring) => ring.next(chunk),
            Inbound::Direct(direct) => direct.next_event(),
        }
    }
}

impl Ring {
    #[inline(never)]
    fn next(&mut self, chunk: &mut BytesMut) -> Option<Event> {
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
