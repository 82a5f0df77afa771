//! A thread that makes load: one epoll, many connections, no allocation for a message.
//!
//! A connection goes through the phases of [`Phase`]; when it has got to `Ready` and the load has begun,
//! messages go out until `depth` are under way. In a closed loop, the answer to one makes the next one
//! due. In an open loop (a rate), messages are due by the clock alone: what finds `depth` messages under
//! way waits here, and the wait counts.
//!
//! Sockets are registered once, edge-triggered: they are read until they have no more, and what does not
//! fit is written when there is room again. All messages that go out on a connection at a time leave in
//! one write.

use std::{
    collections::VecDeque, io::ErrorKind, num::NonZeroU64, os::fd::OwnedFd, sync::atomic::Ordering,
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    thread::set_current_timer_slack,
    time::Timespec,
};

use crate::{
    Error,
    connection::{Connection, Fault, Phase},
    control::{Control, Lane, NEVER},
    plan::{Plan, Traffic},
    protocol::Protocol,
    record::Record,
    transport::Transport,
};

mod faults;
mod messages;
mod rate;
mod storm;

/// Drives the connections of one thread.
pub(crate) struct Driver<'a, P: Protocol> {
    plan: &'a Plan,
    control: &'a Control,
    lane: &'a Lane,
    protocol: P,
    epoll: OwnedFd,
    connections: Vec<Connection<P::State>>,
    /// How many of them send by themselves: the first ones.
    senders: usize,
    /// Broadcast: of each publisher, where its messages under way have arrived.
    arrivals: Vec<VecDeque<u32>>,
    /// Broadcast: publishers that may go on.
    freed: Vec<usize>,
    /// Connections that are to be made, and when.
    to_make: VecDeque<(u64, u32)>,
    coming: usize,
    ready: usize,
    dead: usize,
    /// Messages or, in a storm, connections that have been done.
    done: u64,
    /// When the load began; [`NEVER`] before.
    start: u64,
    /// What is measured, as last looked up.
    window: (u64, u64),
    /// Open loop: whose turn it is, in which round.
    round: u64,
    turn: usize,
    worst: u64,
    next_check: u64,
    record: Record,
    fatal: Option<Error>,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

impl<'a, P: Protocol> Driver<'a, P> {
    /// `thread` counts from 0: each thread has every `threads`th connection.
    pub(crate) fn new(
        plan: &'a Plan,
        control: &'a Control,
        protocol: P,
        thread: usize,
    ) -> Result<Self, Error> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(Error::system("make an epoll"))?;
        let connections: Vec<_> = (thread..plan.connections)
            .step_by(plan.threads)
            .map(|number| Connection::new((plan.first + number) as u32))
            .collect();
        let senders = match plan.traffic {
            Traffic::Broadcast { publishers, .. } => publishers,
            Traffic::Idle => 0,
            Traffic::Messages | Traffic::Connects { .. } => connections.len(),
        };
        Ok(Driver {
            senders,
            arrivals: match plan.traffic {
                Traffic::Broadcast { .. } => vec![VecDeque::new(); senders],
                _ => Vec::new(),
            },
            freed: Vec::new(),
            plan,
            control,
            lane: control.lane(thread),
            protocol,
            epoll,
            to_make: (0..connections.len() as u32)
                .map(|index| (0, index))
                .collect(),
            connections,
            coming: 0,
            ready: 0,
            dead: 0,
            done: 0,
            start: NEVER,
            window: (NEVER, NEVER),
            round: 0,
            turn: 0,
            worst: 0,
            next_check: 0,
            record: Record::new(),
            fatal: None,
            buffer: vec![0; READ],
            out: Vec::new(),
        })
    }

    /// Connects, waits for the others, makes load until the window has ended, and waits for what is due.
    pub(crate) fn run(mut self) -> Result<Record, Error> {
        if self.plan.rate.is_some() {
            // What is due is to leave in time: the kernel may be late by 50 µs otherwise.
            let _ = set_current_timer_slack(NonZeroU64::new(1));
        }
        let mut events = Vec::with_capacity(EVENTS);
        while self.ready + self.dead < self.connections.len() {
            self.turn(&mut events)?;
            if let Some(error) = self.fatal.take() {
                return Err(error);
            }
            if self.control.is_aborted() {
                return Ok(self.record);
            }
        }
        self.publish();
        let Some(start) = self.control.ready() else {
            return Ok(self.record);
        };
        self.start = start;
        for index in 0..self.connections.len() {
            self.begin(index);
        }
        while !self.control.is_aborted() && self.is_of_use() {
            let window = self.control.window();
            if window.1 != NEVER && !self.is_over() {
                // What is due up to the end still goes out, if it can.
                self.release_due(window.1.saturating_sub(1));
            }
            self.window = window;
            if self.is_over() && !self.owes_us() {
                break;
            }
            self.turn(&mut events)?;
        }
        self.publish();
        self.count_unsent();
        Ok(self.record)
    }

    /// Whether nothing new is to begin.
    fn is_over(&self) -> bool {
        self.window.1 != NEVER
    }

    /// Whether there is somebody to go on with. A broadcast of which one has gone is none any more.
    fn is_of_use(&self) -> bool {
        match self.plan.traffic {
            Traffic::Broadcast { .. } => self.dead == 0,
            _ => self.dead < self.connections.len(),
        }
    }

    /// Whether an answer has still to come.
    fn owes_us(&self) -> bool {
        !matches!(self.plan.traffic, Traffic::Connects { .. })
            && self.connections.iter().any(|one| one.under_way() > 0)
    }

    /// Waits for events, for as long as nothing else is to be done, and handles them.
    fn turn(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let now = self.control.now();
        self.make_due(now);
        let next = self.release_due(now);
        let next = match self.to_make.front() {
            Some(&(when, _)) if self.coming < COMING && !self.is_over() => next.min(when),
            _ => next,
        };
        let timeout = next.saturating_sub(now).min(TICK);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: timeout as _,
        };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::system("wait for events")(error)),
        }
        for event in events.drain(..) {
            let (flags, data) = (event.flags, event.data.u64());
            let (index, generation) = (data as u32 as usize, (data >> 32) as u32);
            if self.connections[index].generation == generation {
                let outcome = self.handle(index, flags);
                self.settle(index, outcome);
            }
        }
        if now >= self.next_check {
            self.next_check = now + CHECK;
            self.check_timeouts(now);
        }
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let store =
            |cell: &std::sync::atomic::AtomicU64, value| cell.store(value, Ordering::Relaxed);
        store(&self.lane.done, self.done);
        store(&self.lane.connected, self.ready as u64);
        let errors = self.record.faults.errors(self.plan.reconnect);
        store(&self.lane.errors, errors);
        if self.worst > 0 {
            self.lane.worst.fetch_max(self.worst, Ordering::Relaxed);
            self.worst = 0;
        }
    }

    /// Makes the connections that are to be made by now.
    fn make_due(&mut self, now: u64) {
        while self.coming < COMING
            && !self.is_over()
            && let Some(&(when, index)) = self.to_make.front()
            && when <= now
        {
            self.to_make.pop_front();
            let outcome = self.make(index as usize, now);
            self.settle(index as usize, outcome);
        }
    }

    fn make(&mut self, index: usize, now: u64) -> Result<(), Fault> {
        let connection = &mut self.connections[index];
        connection.active = now;
        // In a storm, every connection is another one for the ports too.
        let turn = connection.number as usize + connection.generation as usize;
        let from = self.plan.sources.of(turn);
        let transport = Transport::connect(self.plan.to, from, self.plan.tls.as_ref());
        connection.phase = Phase::Connecting;
        self.coming += 1;
        let transport = transport.map_err(Fault::Connect)?;
        let data = index as u64 | u64::from(connection.generation) << 32;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, transport.fd(), EventData::new_u64(data), flags)
            .map_err(|error| Fault::Connect(error.into()))?;
        connection.transport = Some(transport);
        Ok(())
    }

    fn handle(&mut self, index: usize, flags: EventFlags) -> Result<(), Fault> {
        let connection = &mut self.connections[index];
        let Some(transport) = &mut connection.transport else {
            return Ok(());
        };
        if connection.phase == Phase::Connecting {
            transport.connected().map_err(Fault::Connect)?;
            if !flags.contains(EventFlags::OUT) {
                return Ok(());
            }
            connection.phase = Phase::Securing;
            transport.flush().map_err(Fault::Io)?;
            self.secured(index)?;
        } else if flags.contains(EventFlags::OUT) {
            connection.send_rest()?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            let mut buffer = std::mem::take(&mut self.buffer);
            // The end comes with no event of its own if it has come with the last bytes.
            let ended = !(flags & !(EventFlags::IN | EventFlags::OUT)).is_empty();
            let outcome = self.read(index, &mut buffer, ended);
            self.buffer = buffer;
            return outcome;
        }
        Ok(())
    }

    /// Reads all there is, up to the end if that is known to be there.
    fn read(&mut self, index: usize, buffer: &mut [u8], ended: bool) -> Result<(), Fault> {
        let generation = self.connections[index].generation;
        loop {
            let connection = &mut self.connections[index];
            let Some(transport) = &mut connection.transport else {
                return Ok(());
            };
            let outcome = transport.read(buffer);
            if connection.phase == Phase::Securing {
                self.secured(index)?;
            }
            match outcome {
                Ok((0, _)) => return Err(Fault::Closed),
                Ok((count, more)) => {
                    self.arrived(index, &buffer[..count])?;
                    let more = more || ended;
                    if !more || self.connections[index].generation != generation {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Io(error)),
            }
        }
    }

    /// If TLS has agreed on keys, the protocol has its turn.
    fn secured(&mut self, index: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[index];
        let Some(transport) = &connection.transport else {
            return Ok(());
        };
        if transport.is_handshaking() {
            return Ok(());
        }
        self.record.resumed += u64::from(transport.is_resumed() && self.start != NEVER);
        connection.phase = Phase::Opening;
        self.out.clear();
        let waits = self.protocol.open(&mut self.out);
        connection.send(&self.out)?;
        match waits {
            true => Ok(()),
            false => self.opened(index),
        }
    }

    /// The connection is ready for messages.
    fn opened(&mut self, index: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[index];
        connection.phase = Phase::Ready;
        self.coming -= 1;
        self.ready += 1;
        if self.start == NEVER {
            return Ok(());
        }
        let now = self.control.now();
        if self.plan.traffic == (Traffic::Connects { exchange: false }) {
            self.stormed(index, now);
            return Ok(());
        }
        if connection.again && self.plan.traffic == Traffic::Messages {
            self.record.reconnects += 1;
        }
        connection.again = true;
        let due = connection.lost_at.take().unwrap_or(now);
        self.out.clear();
        self.fill(index, now, due);
        self.connections[index].send(&self.out)
    }

    /// The load has begun.
    fn begin(&mut self, index: usize) {
        let now = self.control.now();
        let connection = &mut self.connections[index];
        if connection.phase != Phase::Ready {
            return;
        }
        connection.again = true;
        match self.plan.traffic {
            // What was connected before was the test whether that works.
            Traffic::Connects { .. } => {
                self.ready -= 1;
                connection.reset();
                self.make_again(index, now);
            }
            Traffic::Idle => {}
            Traffic::Messages | Traffic::Broadcast { .. } => {
                self.out.clear();
                self.fill(index, now, now);
                let outcome = self.connections[index].send(&self.out);
                self.settle(index, outcome);
            }
        }
    }
}

/// Not to be late for the window and the end.
const TICK: u64 = Duration::from_millis(20).as_nanos() as u64;

/// How often it is looked for what has had no answer for too long.
const CHECK: u64 = Duration::from_millis(100).as_nanos() as u64;

/// Connections of a thread that are being made at a time: more than a server's backlog holds would wait
/// for a second.
const COMING: usize = 128;

const EVENTS: usize = 512;
const READ: usize = 256 << 10;
