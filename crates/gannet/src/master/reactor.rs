//! A reactor: one thread, one epoll set, the connections that it accepted.
//!
//! A turn: wait; take what sockets and listeners have; take orders from the master's main thread;
//! take the commands of the workers; resume what was stalled; look at deadlines; write all that was
//! queued, one system call per connection; show the workers their new events.
//!
//! The reactor sleeps only after it has announced it on its doorbell and found every command ring
//! empty, so whoever publishes a command afterwards rings.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
};

use gannet_proto::http1::Date;
use gannet_shm::{Doorbell, Region, Words};
use rustix::{
    event::epoll,
    fs::Timespec,
    net::SocketAddrAny,
    time::{ClockId, clock_gettime},
};

use super::{
    Report, Reports,
    accept::Accepting,
    audience::Question,
    compress::Compressors,
    conns::Conns,
    framed::Refusals,
    http2::Woken,
    link::{Attachment, Link},
    output::Pool,
    packets::Packets,
    places::Place,
    spread::Spread,
    tasks::Desk,
    tls::FailureLog,
    topics::Topics,
    wheel::{TICK, Wheel},
};
use crate::{
    conn_table::ConnTable,
    control::Role as Kind,
    direct::Direct,
    id::{ConnId, WorkerId},
    layout::{CLOSE_REASONS, Dimensions, ReactorCounter},
    server::DispatchFn,
    settings::{Mode, Settings},
    tls::TlsListener,
    wire::stamp,
};

/// From the master's main thread to a reactor.
pub(super) enum Order {
    Attach(Attachment),
    Dead {
        worker: WorkerId,
        incarnation: u64,
        blame: bool,
    },
    Stop {
        deadline_ms: u64,
    },
    Ask(Arc<Question>),
    Ping(u64),
    Pipe {
        from: WorkerId,
        to: WorkerId,
        line: Vec<u8>,
    },
    /// What new connections are made with.
    Tls(Vec<Option<Arc<TlsListener>>>),
    /// A connection that another reactor has accepted.
    Adopt {
        listener: usize,
        socket: OwnedFd,
        peer: Option<SocketAddrAny>,
    },
    /// There is no master any more.
    End,
}

/// What a reactor is made of.
pub(crate) struct Parts {
    pub(super) id: usize,
    pub(super) settings: Arc<Settings>,
    pub(super) dimensions: Dimensions,
    pub(super) dispatch: Option<DispatchFn>,
    pub(super) control: Arc<Region>,
    pub(super) bell: OwnedFd,
    pub(super) listeners: Vec<OwnedFd>,
    /// For each listener its TLS, if it has any.
    pub(super) tls: Vec<Option<Arc<TlsListener>>>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) reports: Reports,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) working: Arc<AtomicUsize>,
    /// In thread mode.
    pub(super) spread: Option<Spread>,
    /// 0 for the first master of the server.
    pub(super) generation: u64,
}

pub(crate) struct Reactor {
    pub(super) id: usize,
    pub(super) settings: Arc<Settings>,
    pub(super) dimensions: Dimensions,
    pub(super) dispatch: Option<DispatchFn>,
    pub(super) generation: u64,
    pub(super) epoll: OwnedFd,
    pub(super) table: ConnTable,
    pub(super) reports: Reports,
    pub(super) accepting: Accepting,
    /// In thread mode: who gets new connections.
    pub(super) spread: Option<Spread>,
    pub(super) packets: Packets,
    /// The place that got the last datagram, where they go round.
    pub(super) next_place: usize,
    pub(super) tls_listeners: Vec<Option<Arc<TlsListener>>>,
    pub(super) failure_log: FailureLog,
    /// Connections of all reactors.
    pub(super) connections: Arc<AtomicUsize>,
    /// How many reactors have something left to do, when the server stops; and whether this one has.
    pub(super) working: Arc<AtomicUsize>,
    pub(super) works: bool,
    pub(super) conns: Conns,
    /// The row of a connection is its slot behind this one.
    first_row: usize,
    pub(super) links: Vec<Option<Link>>,
    /// In thread mode: what leads to the worker of this thread.
    direct: Option<Rc<Direct>>,
    pub(super) places: Vec<Place>,
    pub(super) topics: Topics,
    /// Slots by bound uid.
    pub(super) uids: HashMap<Box<str>, Vec<u32>>,
    /// Reactor 0 only.
    pub(super) desk: Option<Desk>,
    /// Where sockets are read into.
    pub(super) buffer: Vec<u8>,
    /// Where sockets with TLS are read into, before it is decrypted into the other.
    pub(super) wire: Vec<u8>,
    /// Bytes of a connection that go into one event.
    pub(super) piece: usize,
    /// Where payloads of commands are copied to.
    pub(super) payload: Vec<u8>,
    pub(super) pool: Pool,
    pub(super) compressors: Compressors,
    /// Streams of HTTP/2 in the slab, and whom the library has woken; the second is kept for its
    /// memory.
    pub(super) streams: usize,
    pub(super) woken: Woken,
    pub(super) woken_ids: Vec<ConnId>,
    /// Connections with output of this turn.
    pub(super) dirty: Vec<ConnId>,
    /// Connections whose stall may be over.
    pub(super) resume: Vec<ConnId>,
    pub(super) wheel: Wheel,
    pub(super) clock: Clock,
    pub(super) refusals: Refusals,
    /// The same for connections from proxies, and those that should have been.
    pub(super) proxy_log: Refusals,
    /// When the server stops: the time (ms) at which what is left is cut.
    pub(super) stopping: Option<u64>,
    pub(super) stopped: bool,
    /// The server stops, and what is here by now is taken.
    pub(super) closing_time: bool,
    told: bool,
    ended: bool,
    /// Of this reactor, in shared memory: others see them at once.
    counters: Words<COUNTERS>,
    bell: Doorbell,
    orders: mpsc::Receiver<Order>,
    next_check: u64,
}

/// What a wait has found.
pub(crate) struct Ready {
    events: Vec<epoll::Event>,
    /// Guests that were readable, by bit; whoever looks at them clears them.
    pub(crate) guests: u64,
}

impl Default for Ready {
    fn default() -> Self {
        Ready {
            events: Vec::with_capacity(EVENTS),
            guests: 0,
        }
    }
}

impl Ready {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// The reactor cannot go on; the master knows why.
#[derive(Debug)]
pub(crate) struct Failed;

/// Time, read once a turn.
pub(super) struct Clock {
    /// Monotonic, ms. Time in which the reactor did not run hardly counts: what came meanwhile was
    /// not looked at, so nobody can be late.
    pub(super) now: u64,
    /// The system's clock when it was last read, ms.
    read: u64,
    /// Unix time, ms.
    pub(super) unix: u64,
    /// The time as HTTP writes it, and when its second began, ms.
    date: (Date, u64),
    /// When the turn began, for the events that are written in it: see `wire::stamp`.
    stamp: Arc<AtomicU32>,
}

impl Parts {
    /// The reactor's number.
    pub(crate) fn id(&self) -> usize {
        self.id
    }
}

impl Reactor {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            id,
            settings,
            dimensions,
            control,
            ..
        } = parts;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: the counter of the eventfd is never read.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &parts.bell, epoll::EventData::new_u64(BELL), edge)?;
        let clock = Clock::new();
        let counters = Words::<COUNTERS>::attach(control.clone(), dimensions.reactor_counters(id));
        for gauge in [
            ReactorCounter::Connections,
            ReactorCounter::Http2Open,
            ReactorCounter::Parked,
            ReactorCounter::TasksQueued,
        ] {
            counters[gauge as usize].store(0, Relaxed);
        }
        let table = ConnTable::attach(control.clone(), dimensions);
        let first_row = table.first_row(id);
        let places = settings.places();
        let largest = settings
            .listeners
            .iter()
            .map(|listener| listener.max_head_size)
            .max();
        let mut reactor = Reactor {
            id,
            dimensions,
            dispatch: parts.dispatch,
            generation: parts.generation,
            epoll,
            table,
            reports: parts.reports,
            packets: Packets::new(&parts.listeners, &settings, id)?,
            next_place: 0,
            accepting: Accepting::new(parts.listeners, &settings)?,
            spread: parts.spread,
            tls_listeners: parts.tls,
            failure_log: FailureLog::default(),
            connections: parts.connections,
            working: parts.working,
            works: true,
            conns: Conns::new(id, dimensions.slots),
            first_row,
            links: Vec::new(),
            direct: (settings.mode == Mode::Thread)
                .then(|| Rc::new(Direct::new(dimensions, settings.max_parked))),
            places: (0..places).map(|_| Place::default()).collect(),
            topics: Topics::default(),
            uids: HashMap::new(),
            desk: (id == 0).then(|| Desk::new(control.clone(), dimensions, &settings)),
            buffer: vec![0; BUFFER.max(largest.unwrap_or(0) * 2)],
            wire: Vec::new(),
            piece: dimensions.inline_limit(),
            payload: Vec::new(),
            pool: Pool::default(),
            compressors: Compressors::default(),
            streams: 0,
            woken: Woken::default(),
            woken_ids: Vec::new(),
            dirty: Vec::new(),
            resume: Vec::new(),
            wheel: Wheel::new(clock.now),
            next_check: clock.now + CHECK,
            clock,
            refusals: Refusals::default(),
            proxy_log: Refusals::default(),
            stopping: None,
            stopped: false,
            closing_time: false,
            told: false,
            ended: false,
            counters,
            bell: Doorbell::attach(control, dimensions.reactor_bell(id), parts.bell),
            orders: parts.orders,
            settings,
        };
        reactor.forget_lost_connections();
        reactor.resume_accepting();
        reactor.watch_packets()?;
        Ok(reactor)
    }

    /// Runs until the process ends: when nothing is left here, the handlers of other reactors'
    /// events may still have questions. In thread mode, until the master has ended.
    pub(crate) fn run(mut self) {
        let mut ready = Ready::default();
        while !self.ended {
            let timeout = self.prepare_sleep();
            if self.wait(&mut ready, timeout).is_err() {
                return;
            }
            self.begin_turn(&mut ready);
            self.end_turn();
        }
    }

    /// Waits for whatever there is to be done, at most so many milliseconds.
    ///
    /// # Errors
    ///
    /// If that is impossible; the master was told.
    pub(crate) fn wait(&mut self, ready: &mut Ready, ms: u64) -> Result<(), Failed> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: ms as i64 * 1_000_000,
        };
        let space = rustix::buffer::spare_capacity(&mut ready.events);
        match epoll::wait(&self.epoll, space, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => {
                self.reports
                    .send(Report::Failed(format!("epoll_wait: {error}")));
                Err(Failed)
            }
        }
    }

    /// The first half of a turn: takes what the sockets have, and shows it to the workers.
    pub(crate) fn begin_turn(&mut self, ready: &mut Ready) {
        self.bell.cancel_sleep();
        self.clock.tick();
        for event in ready.events.drain(..) {
            let (key, flags) = (event.data.u64(), event.flags);
            match key {
                _ if key < GUEST => self.socket_ready(ConnId::from_u64(key), flags),
                BELL => {}
                _ if key & GUEST != 0 => ready.guests |= 1 << (key & !GUEST),
                _ if key & PACKETS != 0 => self.packets_ready((key & !PACKETS) as usize),
                _ => self.accept((key & !LISTENER) as usize),
            }
        }
        self.serve_woken();
        // Who awaits them hears of it in this turn: in thread mode handlers run right after this.
        self.desk_take_results();
        self.publish();
    }

    /// The second half: takes what workers and the master have sent, and writes all that is to go
    /// out.
    pub(crate) fn end_turn(&mut self) {
        self.take_orders();
        self.take_all_commands(COMPRESSED);
        self.resume_stalled();
        self.look_at_deadlines();
        self.sweep_topics();
        self.flush_dirty();
        self.flush_packets();
        self.desk_assign();
        self.publish();
        self.note_connections();
        self.note_turn();
        if self.stopped && !self.told {
            self.told = true;
            self.reports.send(Report::Stopped);
        }
    }

    /// Watches a descriptor that is not the reactor's, edge-triggered: when it is readable, its bit is
    /// set in [`Ready::guests`].
    pub(crate) fn watch_guest(&self, fd: impl AsFd, bit: u32) -> io::Result<()> {
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        register(&self.epoll, fd, GUEST | u64::from(bit), edge)
    }

    /// Its number.
    pub(crate) fn id(&self) -> usize {
        self.id
    }

    /// In thread mode: what leads to the worker of this thread.
    pub(crate) fn direct(&self) -> Option<Rc<Direct>> {
        self.direct.clone()
    }

    /// Tells the master that this reactor cannot go on.
    pub(crate) fn fail(&self, why: String) {
        self.reports.send(Report::Failed(why));
    }

    /// The poll set: readable when there is something to be done.
    pub(crate) fn poll_set(&self) -> &OwnedFd {
        &self.epoll
    }

    /// The row in the table of the connection in this slot.
    #[inline]
    pub(super) fn row(&self, slot: usize) -> usize {
        self.first_row + slot
    }

    #[inline]
    pub(super) fn count(&mut self, counter: ReactorCounter) {
        self.add(counter, 1);
    }

    /// Nobody else writes it.
    #[inline]
    pub(super) fn add(&mut self, counter: ReactorCounter, by: usize) {
        let word = &self.counters[counter as usize];
        word.store(word.load(Relaxed) + by as u64, Relaxed);
    }

    pub(super) fn set(&mut self, counter: ReactorCounter, to: usize) {
        self.counters[counter as usize].store(to as u64, Relaxed);
    }

    pub(super) fn count_closed(&mut self, reason: crate::CloseReason) {
        let word = &self.counters[ReactorCounter::Closed as usize + reason as usize];
        word.store(word.load(Relaxed) + 1, Relaxed);
    }

    /// The link of this incarnation.
    pub(super) fn link_of(&self, incarnation: u64) -> Option<usize> {
        self.links.iter().position(|link| {
            link.as_ref()
                .is_some_and(|link| link.incarnation == incarnation)
        })
    }

    /// Announces sleep; how long it may last, in ms.
    pub(crate) fn prepare_sleep(&mut self) -> u64 {
        self.bell.prepare_sleep();
        let commands = self.links.iter().flatten().any(Link::has_commands);
        let goes_on = !self.resume.is_empty() || !self.topics.logs.is_empty();
        if commands || goes_on || !self.woken.is_empty() {
            0
        } else if self.places.iter().any(|place| place.has_waiting()) {
            // Room can come from parking, which nobody announces.
            5
        } else if self.desk.as_ref().is_some_and(Desk::is_ahead) {
            // A task worker that has more to do does not ring for each result.
            1
        } else {
            TICK
        }
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Attach(attachment) => {
                    let (worker, incarnation) = (attachment.worker, attachment.incarnation);
                    let parked = self.settings.max_parked;
                    let stamp = self.clock.stamp.clone();
                    // In thread mode the worker of this thread has the reactor's number.
                    let own = usize::from(worker.0) == self.id;
                    self.attach(Link::attach(
                        self.id,
                        self.dimensions,
                        attachment,
                        self.direct.clone().filter(|_| own),
                        parked,
                        stamp,
                    ));
                    self.reports.send(Report::Attached(worker, incarnation));
                }
                Order::Dead {
                    worker,
                    incarnation,
                    blame,
                } => {
                    self.worker_died(worker, incarnation, blame);
                }
                Order::Stop { deadline_ms } => self.stop(deadline_ms),
                Order::Ask(question) => self.ask(&question),
                Order::Ping(number) => self.reports.send(Report::Pong(number)),
                Order::Pipe { from, to, line } => self.pipe_from(from, to.0, &line),
                Order::Tls(listeners) => self.tls_listeners = listeners,
                Order::Adopt {
                    listener,
                    socket,
                    peer,
                } => self.adopt_connection(listener, socket, peer),
                Order::End => self.ended = true,
            }
        }
    }

    /// Takes what the workers ask for; none of them may have more bytes compressed than these.
    pub(super) fn take_all_commands(&mut self, compressed: usize) {
        for index in 0..self.links.len() {
            self.take_commands(index, COMMANDS, compressed);
        }
    }

    /// Takes what task workers have sent.
    fn desk_take_results(&mut self) {
        if self.desk.as_ref().is_none_or(Desk::is_empty) {
            return;
        }
        for index in 0..self.links.len() {
            let link = self.links[index].as_ref();
            if link.is_some_and(|link| link.kind == Kind::TaskWorker && link.has_commands()) {
                self.take_commands(index, COMMANDS, COMPRESSED);
            }
        }
    }

    fn publish(&mut self) {
        for link in self.links.iter_mut().flatten() {
            link.flush_outbox();
            link.publish();
        }
    }

    fn look_at_deadlines(&mut self) {
        let now = self.clock.now;
        let mut due = Vec::new();
        self.wheel.advance(&mut self.conns, now, &mut due);
        for slot in due {
            self.deadline(slot as usize);
        }
        if now < self.next_check {
            return;
        }
        self.next_check = now + CHECK;
        self.clock.resync();
        self.check_workers();
        self.resume_accepting();
        self.desk_deadlines();
        self.check_stop();
        let parked = self
            .links
            .iter()
            .flatten()
            .map(Link::parked_bytes)
            .sum::<usize>()
            + self.places.iter().map(Place::backlog_bytes).sum::<usize>();
        self.set(ReactorCounter::Parked, parked);
    }

    /// Counts what is counted once a turn.
    fn note_turn(&mut self) {
        self.set(ReactorCounter::Connections, self.conns.len() - self.streams);
        self.set(ReactorCounter::Http2Open, self.streams);
        self.count(ReactorCounter::Turns);
        let (runs, saved) = self.compressors.take_counts();
        if runs > 0 {
            self.add(ReactorCounter::Compressed, runs);
            self.add(ReactorCounter::CompressionSaved, saved);
        }
    }
}

impl Clock {
    fn new() -> Self {
        let mut clock = Clock {
            now: millis(stamp::monotonic_nanos()),
            read: 0,
            unix: 0,
            date: (Date::at(0), 0),
            stamp: Arc::default(),
        };
        clock.read = clock.now;
        clock.resync();
        clock
    }

    fn tick(&mut self) {
        let nanos = stamp::monotonic_nanos();
        self.stamp.store(stamp::at(nanos), Relaxed);
        self.advance(millis(nanos));
    }

    fn advance(&mut self, read: u64) {
        let passed = read - self.read;
        self.read = read;
        self.unix += passed;
        self.now += passed.min(LONGEST_TURN);
    }

    /// Follows jumps of the system's clock.
    fn resync(&mut self) {
        let time = clock_gettime(ClockId::Realtime);
        self.unix = (time.tv_sec.max(0) as u64) * 1_000 + time.tv_nsec as u64 / 1_000_000;
    }

    /// For the heads of responses.
    #[inline]
    pub(super) fn date(&mut self) -> &Date {
        if self.unix.wrapping_sub(self.date.1) >= 1_000 {
            let second = self.unix / 1_000;
            self.date = (Date::at(second), second * 1_000);
        }
        &self.date.0
    }
}

/// Milliseconds; never 0.
fn millis(nanos: u64) -> u64 {
    nanos / 1_000_000 + 1
}

/// Key of the doorbell in the poll set; connections have less than 53 bits.
const BELL: u64 = 1 << 63;
/// Keys of the listeners, with their index.
pub(super) const LISTENER: u64 = 1 << 62;
/// Keys of the listeners for datagrams, with their index.
pub(super) const PACKETS: u64 = 1 << 61;
/// Keys of descriptors that are not the reactor's, with their bit. Of all these the least.
const GUEST: u64 = 1 << 60;
/// Events taken in one turn.
const EVENTS: usize = 512;
/// Commands taken from one worker in one turn.
const COMMANDS: usize = 4_096;
/// Bytes that are compressed for one worker in one turn, and one message more: some 3 ms of work.
const COMPRESSED: usize = 1 << 20;
/// Bytes read from a socket at a time.
const BUFFER: usize = 64 << 10;
/// How often workers, listeners and tasks are looked at, in ms.
const CHECK: u64 = 100;
/// What a turn counts at most, in ms. Longer ones are those of a process that was stopped.
const LONGEST_TURN: u64 = 1_000;
const COUNTERS: usize = ReactorCounter::Closed as usize + CLOSE_REASONS;

/// Puts a socket into the poll set.
pub(super) fn register(
    epoll: impl AsFd,
    socket: impl AsFd,
    key: u64,
    flags: epoll::EventFlags,
) -> io::Result<()> {
    Ok(epoll::add(
        epoll,
        socket,
        epoll::EventData::new_u64(key),
        flags,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_stopped_makes_nobody_late() {
        let mut clock = Clock::new();
        let (now, unix, read) = (clock.now, clock.unix, clock.read);
        clock.advance(read + 30);
        assert_eq!((clock.now, clock.unix), (now + 30, unix + 30));
        clock.advance(read + 30_030);
        assert_eq!(clock.now, now + 30 + LONGEST_TURN);
        assert_eq!(clock.unix, unix + 30_030, "the date goes on");
    }
}
