//! Paths inside of the engine whose instructions are counted, see `crates/gannet-counts`; they are public
//! for that and for nothing else.

use std::{hint::black_box, io, sync::Arc};

use gannet_shm::{Consumer, Position, Region};
use rustix::event::{EventfdFlags, eventfd};

use super::{
    conn::{Conn, Speaks},
    conns::Conns,
    ledger::Ledger,
    link::{Attachment, Link},
    wheel::{TICK, Wheel},
};
use crate::{
    control::Role as Kind,
    direct::{Batch, Direct, Event, Taken},
    id::{ConnId, WorkerId},
    layout::{Dimensions, WORKER_KIND},
    wire::{
        command::{CommandHeader, CommandKind},
        event::{EventHeader, EventKind},
    },
};

/// The header of an event, encoded and decoded.
#[must_use]
pub fn event_header() -> bool {
    let header = EventHeader {
        seq: 7,
        ..EventHeader::new(EventKind::Message, ConnId::from_u64(7))
    };
    EventHeader::decode(black_box(&black_box(header).encode())) == Some(header)
}

/// A link, and the worker's end of its ring.
pub struct Events {
    link: Box<Link>,
    worker: Consumer,
    payload: Vec<u8>,
}

impl Events {
    /// With an empty ring.
    ///
    /// # Errors
    ///
    /// There is no memory for it, or no descriptor.
    pub fn new() -> io::Result<Self> {
        let region = Region::create("counts", WORKER_KIND, SMALL.worker_len());
        let region = region.map_err(io::Error::other)?;
        let attachment = Attachment {
            worker: WorkerId(0),
            kind: Kind::Worker,
            incarnation: 1,
            region: region.clone(),
            bell: eventfd(0, EventfdFlags::CLOEXEC)?,
        };
        Ok(Events {
            link: Box::new(Link::attach(
                0,
                SMALL,
                attachment,
                None,
                1 << 20,
                Arc::default(),
            )),
            worker: Consumer::attach(region, SMALL.event_ring(0)),
            payload: Vec::new(),
        })
    }

    /// An event of 64 bytes is given to the worker, read, done, and off the ledger.
    pub fn round(&mut self) -> bool {
        let header = EventHeader::new(EventKind::Message, ConnId::from_u64(7));
        let given = self.link.push(header, &[black_box(&[7; 64])]).is_ok();
        self.link.publish();
        self.payload.clear();
        let Some(record) = self.worker.next() else {
            return false;
        };
        let read = record.append_to(crate::wire::HEADER.., &mut self.payload);
        let header = record.array(0);
        let header = header.and_then(|bytes| EventHeader::decode(&bytes));
        self.worker.commit();
        let done = header.and_then(|header| self.link.finish(header.seq));
        given && read.is_ok() && done.is_some()
    }
}

/// What lies between the reactor and the worker of one thread, and the batch of the reactor.
pub struct OwnThread {
    direct: Box<Direct>,
    batch: Batch,
}

impl OwnThread {
    /// With nothing in it.
    #[expect(clippy::new_without_default, reason = "its like have none either")]
    pub fn new() -> Self {
        OwnThread {
            direct: Box::new(Direct::new(SMALL, 1 << 20)),
            batch: Batch::default(),
        }
    }

    /// An event of 64 bytes is given to the worker and read; a command sends it back, finishes it, and is
    /// taken.
    pub fn round(&mut self) -> bool {
        let OwnThread { direct, batch } = self;
        let conn = ConnId::from_u64(7);
        let header = EventHeader::new(EventKind::Message, conn);
        let given = direct.push(&header, &[black_box(&[7; 64])]);
        let Some(Event { header, payload }) = direct.next_event() else {
            return false;
        };
        let send = CommandHeader::new(CommandKind::Send, conn);
        let sent = direct.send(&send, &[], &payload);
        let amended = sent.is_ok_and(|number| direct.amend(number, header.seq));
        direct.exchange(batch);
        let mut taken = Taken::default();
        let Some((command, payload)) = batch.next() else {
            return false;
        };
        direct.note(&mut taken, &payload);
        let came = batch.payload(payload).len() == 64;
        direct.took(&taken);
        given.is_ok() && amended && came && direct.finish(command.done).is_some()
    }
}

/// A ledger without its ring.
pub struct Numbers(Box<Ledger>);

impl Numbers {
    /// With nothing in it.
    #[expect(clippy::new_without_default, reason = "its like have none either")]
    pub fn new() -> Self {
        Numbers(Box::new(Ledger::new(1)))
    }

    /// Four events are entered, and done in another order.
    pub fn round(&mut self) -> bool {
        let first = self.0.next_seq();
        for at in 0..4 {
            self.0.enter(ConnId::from_u64(7), Position(at), None);
        }
        let done = [1, 0, 3, 2].map(|n| self.0.finish(first + n).is_some());
        done == [true; 4]
    }
}

/// A wheel, and the connections that it looks at.
pub struct Deadlines {
    wheel: Wheel,
    conns: Conns,
    now: u64,
    due: Vec<u32>,
}

impl Deadlines {
    /// Three connections, none of which has a deadline.
    #[expect(clippy::new_without_default, reason = "its like have none either")]
    pub fn new() -> Self {
        let mut conns = Conns::new(0, 3);
        for slot in 0..3 {
            conns.insert(Conn::new(ConnId::new(1, 0, slot), 0, 0, Speaks::Tcp, 0));
        }
        Deadlines {
            wheel: Wheel::new(0),
            conns,
            now: 0,
            due: Vec::new(),
        }
    }

    /// One deadline is set and comes up in the tick, one is far away and is moved nearer, one stays.
    pub fn round(&mut self) -> bool {
        self.now += TICK;
        for (slot, at) in [(0, 0), (1, 40 * TICK), (1, 30 * TICK), (2, 50 * TICK)] {
            self.wheel.watch(&mut self.conns, slot, self.now + at);
        }
        self.due.clear();
        self.wheel
            .advance(&mut self.conns, self.now + TICK, &mut self.due);
        self.due.contains(&0)
    }
}

/// One reactor, one connection.
const SMALL: Dimensions = Dimensions {
    tls_words: 0,
    reactors: 1,
    slots: 1,
    ring: 64 << 10,
    arena: 1 << 20,
};
