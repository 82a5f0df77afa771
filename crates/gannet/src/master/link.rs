//! One reactor's connection to one incarnation of a worker.
//!
//! It leads over a pair of rings ([`Rings`]), or, in thread mode, to the worker of the same thread
//! ([`Direct`]).
//!
//! States: **current** (gets the events of its place) → **retiring** (a successor has the place;
//! finishes what it has; told `Retire` when nothing is owed) → dropped when the manager says that
//! the process has ended. From any state: the process dies, its published commands are taken, its
//! unfinished events go to the place's backlog.

use std::{
    collections::{HashSet, VecDeque},
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{self, Relaxed},
        },
    },
};

use gannet_shm::{Region, Words};

use super::{hand::Hand, rings::Rings};
use crate::{
    claim::Claim,
    control::Role as Kind,
    direct::{Batch, Direct, Full},
    id::{ConnId, WorkerId},
    layout::Dimensions,
    wire::{
        HEADER,
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
    pub(super) way: Way,
    /// Numbers of the datagrams among its events.
    packets: HashSet<u64>,
    /// Events that belong to no socket and found no room.
    outbox: VecDeque<(EventHeader, Vec<u8>)>,
    outbox_bytes: usize,
    max_parked: usize,
    /// When the reactor's turn began, for the events that it writes.
    stamp: Arc<AtomicU32>,
}

/// Where a link leads.
pub(super) enum Way {
    /// To another process or thread.
    Rings(Box<Rings>),
    /// To the worker of this thread.
    Direct(Box<Own>),
}

/// The way to the worker of this thread.
pub(super) struct Own {
    pub(super) direct: Rc<Direct>,
    /// Commands that were not carried out yet.
    pub(super) batch: Batch,
    /// Of the rings that would be here, for `status` and the metrics: how many bytes wait.
    shown: [Words<1>; 2],
}

/// What a link is made of: a worker that is ready, and what it shares.
pub(super) struct Attachment {
    pub(super) worker: WorkerId,
    pub(super) kind: Kind,
    pub(super) incarnation: u64,
    pub(super) region: Arc<Region>,
    pub(super) bell: OwnedFd,
}

/// There is no room for an event now.
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
    /// `direct`: what leads to this worker, if it is the one of the reactor's thread.
    pub(super) fn attach(
        reactor: usize,
        dimensions: Dimensions,
        attachment: Attachment,
        direct: Option<Rc<Direct>>,
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
        let hand = Hand::new(Claim::attach(region.clone(), dimensions));
        let way = match direct {
            Some(direct) => Way::Direct(Box::new(Own {
                direct,
                batch: Batch::default(),
                shown: [
                    dimensions.event_ring(reactor).stand_in(region.clone()),
                    dimensions.command_ring(reactor).stand_in(region),
                ],
            })),
            None => {
                let rings = Rings::attach(reactor, dimensions, region, bell, max_parked);
                Way::Rings(Box::new(rings))
            }
        };
        Link {
            worker,
            kind,
            incarnation,
            retiring: false,
            retired: false,
            hand,
            way,
            packets: HashSet::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            max_parked,
            stamp,
        }
    }

    /// Gives the worker an event that is owed an outcome, and returns its number.
    #[inline]
    pub(super) fn push(
        &mut self,
        mut header: EventHeader,
        payload: &[&[u8]],
    ) -> Result<u64, NoRoom> {
        header.stamp = self.stamp.load(Ordering::Relaxed);
        let seq = match &mut self.way {
            Way::Rings(rings) => rings.push(header, payload)?,
            Way::Direct(own) => own.direct.push(&header, payload)?,
        };
        if header.kind == EventKind::Packet {
            self.packets.insert(seq);
        }
        Ok(seq)
    }

    /// Gives the worker an event that belongs to no socket: if there is no room it waits here.
    /// `false`: too much waits already; the event was dropped.
    ///
    /// What is not sequenced is never dropped: it answers a question, and the worker that asked
    /// bounds how many there are.
    pub(super) fn post(&mut self, header: EventHeader, payload: &[u8], sequenced: bool) -> bool {
        if self.outbox.is_empty() && self.post_now(header, payload, sequenced) {
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
        if let Way::Rings(rings) = &mut self.way
            && !rings.is_renewed()
        {
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
    #[inline]
    pub(super) fn publish(&mut self) {
        match &mut self.way {
            Way::Rings(rings) => rings.publish(),
            // Its turn comes after the reactor's.
            Way::Direct(own) => own.show(),
        }
    }

    /// The worker says that an event is done: whose it was. `None`: there is none, or it was done before.
    #[inline(always)]
    pub(super) fn finish(&mut self, seq: u64) -> Option<ConnId> {
        let conn = match &mut self.way {
            Way::Rings(rings) => rings.finish(seq),
            Way::Direct(own) => own.direct.finish(seq),
        };
        if conn.is_some() && !self.packets.is_empty() {
            self.packets.remove(&seq);
        }
        conn
    }

    pub(super) fn has_commands(&self) -> bool {
        match &self.way {
            Way::Rings(rings) => !rings.commands.is_empty(),
            Way::Direct(own) => own.direct.has_commands(),
        }
    }

    /// Nothing is owed to this worker or by it.
    pub(super) fn is_idle(&self) -> bool {
        self.owed() == 0
    }

    /// Events without outcome.
    pub(super) fn owed(&self) -> usize {
        let owed = match &self.way {
            Way::Rings(rings) => rings.owed(),
            Way::Direct(own) => own.direct.owed(),
        };
        owed + self.outbox.len()
    }

    /// Datagrams without outcome.
    pub(super) fn packets(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn parked_bytes(&self) -> usize {
        let parked = match &self.way {
            Way::Rings(rings) => rings.parked_bytes(),
            Way::Direct(own) => own.direct.parked_bytes(),
        };
        parked + self.outbox_bytes
    }

    /// Whether an event of so many bytes would find room now.
    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        match &mut self.way {
            Way::Rings(rings) => rings.has_room(bytes),
            Way::Direct(own) => own.direct.has_room(bytes),
        }
    }

    /// Payloads over this lie outside of the ring.
    pub(super) fn inline_limit(&self) -> usize {
        match &self.way {
            Way::Rings(rings) => rings.inline_limit(),
            Way::Direct(_) => usize::MAX,
        }
    }

    /// Sends a `Tick` if the worker owes something and has nothing to read, and says whether it has
    /// read nothing for `limit` ms although there was something.
    pub(super) fn has_stalled(&mut self, now: u64, limit: u64) -> bool {
        let owes = !self.is_idle();
        match &mut self.way {
            Way::Rings(rings) => rings.has_stalled(now, limit, owes),
            Way::Direct(_) => false,
        }
    }

    /// Takes all events without outcome, in order; for a worker that has ended.
    pub(super) fn orphans(&mut self) -> Vec<Orphan> {
        let mut orphans = match &mut self.way {
            Way::Rings(rings) => rings.orphans(),
            Way::Direct(own) => {
                let unfinished = own.direct.take_unfinished().into_iter();
                let orphan = |(header, payload, read)| Orphan {
                    header,
                    payload,
                    read,
                    current: false,
                };
                unfinished.map(orphan).collect()
            }
        };
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
        let recalled = self.hand.recall();
        match &mut self.way {
            Way::Rings(rings) => rings.take_back(recalled),
            // No task worker is the worker of a reactor's thread.
            Way::Direct(_) => Vec::new(),
        }
    }

    fn post_now(&mut self, header: EventHeader, payload: &[u8], sequenced: bool) -> bool {
        if sequenced {
            return self.push(header, &[payload]).is_ok();
        }
        let stamp = self.stamp.load(Ordering::Relaxed);
        let header = EventHeader { stamp, ..header };
        match &mut self.way {
            Way::Rings(rings) => rings.post(header, payload).is_ok(),
            Way::Direct(own) => own.direct.post(&header, payload).is_ok(),
        }
    }
}

impl Own {
    /// Says how much waits.
    fn show(&self) {
        for (word, bytes) in self.shown.iter().zip(self.direct.waiting()) {
            word[0].store(bytes as u64, Relaxed);
        }
    }
}

impl From<Full> for NoRoom {
    fn from(_: Full) -> Self {
        NoRoom
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
    use gannet_shm::Consumer;
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
        let dimensions = Dimensions::SMALLEST;
        Link::attach(0, dimensions, attachment, None, 1 << 20, Arc::default())
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
