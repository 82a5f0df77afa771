//! A worker on a thread, and the test in the place of the master: real rings, no sockets.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gannet_shm::{Arena, ArenaReader, BlockRef, Consumer, Doorbell, Position, Producer, Region};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{
    Shared,
    engine::Ended,
    run::{Parts, serve},
};
use crate::{
    ConnId, Handler, Result, Settings, WorkerId,
    admission::Admission,
    channel::{Channel, FromWorker, ToWorker},
    conn_table::{ConnTable, Row},
    control::Role as Kind,
    layout::{CONTROL_KIND, Dimensions, WORKER_KIND, WorkerCounter},
    wire::{
        ARENA, HEADER, block_bytes, block_from,
        command::{CommandHeader, CommandKind},
        event::{EventHeader, EventKind},
    },
};

pub(crate) struct Pair {
    dimensions: Dimensions,
    region: Arc<Region>,
    control: Arc<Region>,
    settings: Settings,
    pub(crate) table: ConnTable,
    reactors: Vec<Reactor>,
    /// Wakes the worker.
    bell: Doorbell,
    channel: Option<Channel>,
    thread: Option<JoinHandle<Result<Ended>>>,
}

struct Reactor {
    events: Producer,
    arena: Arena,
    commands: Consumer,
    command_arena: ArenaReader,
    bell: Doorbell,
    seq: u64,
}

/// A command as it came out of the ring.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) header: CommandHeader,
    pub(crate) payload: Vec<u8>,
    pub(crate) position: Position,
}

pub(crate) struct Options {
    pub(crate) reactors: usize,
    pub(crate) ring: usize,
    pub(crate) kind: Kind,
    pub(crate) settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        let settings = Settings {
            workers: 2,
            task_workers: 2,
            ..Settings::default()
        };
        Options {
            reactors: 1,
            ring: 64 << 10,
            kind: Kind::Worker,
            settings,
        }
    }
}

impl Pair {
    pub(crate) fn new<H: Handler>() -> Self {
        Pair::with::<H>(Options::default())
    }

    /// Starts the worker and waits until it is ready.
    pub(crate) fn with<H: Handler>(options: Options) -> Self {
        let mut pair = Pair::launch::<H>(options);
        let FromWorker::Ready { .. } = pair.hear() else {
            panic!("not ready")
        };
        pair.deadline_check();
        pair
    }

    pub(crate) fn launch<H: Handler>(options: Options) -> Self {
        let (reactors, settings) = (options.reactors, options.settings.clone());
        let dimensions = Dimensions {
            tls_words: 0,
            reactors,
            slots: 16,
            ring: options.ring,
            arena: 4 << 20,
        };
        let control = Region::create("control", CONTROL_KIND, dimensions.control_len()).unwrap();
        let region = Region::create("worker", WORKER_KIND, dimensions.worker_len()).unwrap();
        let fd = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
        let bells: Vec<OwnedFd> = (0..reactors).map(|_| fd()).collect();
        let bell = fd();
        let (channel, other) = Channel::pair().unwrap();
        let shared = Shared::new(
            WorkerId(1),
            options.kind,
            INCARNATION,
            0,
            options.settings,
            crate::Shared::default(),
            dimensions,
            region.clone(),
            control.clone(),
        );
        let parts = Parts {
            shared,
            control: control.clone(),
            reactor_bells: bells.iter().map(copy).collect(),
            bell: copy(&bell),
            channel: other,
        };
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder
                .enable_all()
                .build_local(Default::default())
                .unwrap();
            let served = serve::<H>(parts, None);
            let served = runtime.block_on(tokio::task::coop::unconstrained(served));
            served.map(|(ended, _)| ended)
        });
        let ends = bells
            .into_iter()
            .enumerate()
            .map(|(reactor, bell)| Reactor {
                events: Producer::attach(region.clone(), dimensions.event_ring(reactor)),
                arena: Arena::attach(region.clone(), dimensions.event_arena(reactor)),
                commands: Consumer::attach(region.clone(), dimensions.command_ring(reactor)),
                command_arena: ArenaReader::attach(
                    region.clone(),
                    dimensions.command_arena(reactor),
                ),
                bell: Doorbell::attach(control.clone(), dimensions.reactor_bell(reactor), bell),
                seq: 0,
            });
        Pair {
            reactors: ends.collect(),
            bell: Doorbell::attach(region.clone(), dimensions.worker_bell(), bell),
            dimensions,
            table: ConnTable::attach(control.clone(), dimensions),
            region,
            control,
            settings,
            channel: Some(channel),
            thread: Some(thread),
        }
    }

    /// A connection that is open in the table.
    pub(crate) fn connect(&self, reactor: usize, slot: usize) -> ConnId {
        let id = ConnId::new(1, reactor, slot);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let row = Row {
            id,
            listener: 0,
            worker: WorkerId(1),
            websocket: false,
            tls: false,
            unheard: false,
            closed: false,
            peer: crate::Peer::Ip("192.0.2.1:5000".parse().unwrap()),
            proxy: None,
            local: Some("192.0.2.2:80".parse().unwrap()),
            uid: String::new(),
            opened: now.as_millis() as u64,
        };
        self.table.open(self.table.row_of(id).unwrap(), &row);
        id
    }

    pub(crate) fn disconnect(&self, id: ConnId) {
        self.table.clear(self.table.row_of(id).unwrap());
    }

    /// An event with an outcome, on the reactor of its connection; its number.
    pub(crate) fn event(&mut self, kind: EventKind, conn: ConnId, payload: &[u8]) -> u64 {
        self.event_with(EventHeader::new(kind, conn), payload)
    }

    pub(crate) fn event_with(&mut self, mut header: EventHeader, payload: &[u8]) -> u64 {
        let reactor = &mut self.reactors[header.conn.reactor()];
        reactor.seq += 1;
        header.seq = reactor.seq;
        self.write(header.conn.reactor(), header, payload);
        header.seq
    }

    /// An event without outcome.
    pub(crate) fn tell(&mut self, reactor: usize, kind: EventKind, aux: u64, payload: &[u8]) {
        let header = EventHeader {
            aux,
            ..EventHeader::new(kind, ConnId::from_u64(0))
        };
        self.write(reactor, header, payload);
    }

    pub(crate) fn write(&mut self, reactor: usize, mut header: EventHeader, payload: &[u8]) {
        let Reactor { events, arena, .. } = &mut self.reactors[reactor];
        if payload.len() > events.max_record() - HEADER {
            let block = arena.alloc(payload.len()).unwrap();
            arena.write(&block, &[payload]).unwrap();
            header.flags |= ARENA;
            let reference = block_bytes(block.offset(), block.len());
            events.push(&[&header.encode(), &reference]).unwrap();
        } else {
            events.push(&[&header.encode(), payload]).unwrap();
        }
        events.publish();
        self.bell.ring();
    }

    /// Several events that the worker sees at once.
    pub(crate) fn batch(&mut self, conn: ConnId, events: &[(EventKind, &[u8])]) -> Vec<u64> {
        let reactor = &mut self.reactors[conn.reactor()];
        let mut numbers = Vec::new();
        for (kind, payload) in events {
            reactor.seq += 1;
            let header = EventHeader {
                seq: reactor.seq,
                ..EventHeader::new(*kind, conn)
            };
            reactor.events.push(&[&header.encode(), payload]).unwrap();
            numbers.push(reactor.seq);
        }
        reactor.events.publish();
        self.bell.ring();
        numbers
    }

    /// The next command of reactor 0.
    pub(crate) fn expect(&mut self) -> Got {
        self.expect_on(0)
    }

    pub(crate) fn expect_on(&mut self, reactor: usize) -> Got {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(got) = self.try_next(reactor) {
                return got;
            }
            let bell = &self.reactors[reactor].bell;
            bell.prepare_sleep();
            if self.reactors[reactor].commands.is_empty() {
                wait(bell, deadline, "a command");
                bell.drain();
            }
            bell.cancel_sleep();
        }
    }

    /// The next command if there is one.
    pub(crate) fn try_next(&mut self, reactor: usize) -> Option<Got> {
        let Reactor {
            commands,
            command_arena,
            ..
        } = &mut self.reactors[reactor];
        let record = commands.next()?;
        let header = CommandHeader::decode(&record.array(0).unwrap()).unwrap();
        let position = record.position();
        let mut payload = Vec::new();
        if header.has(ARENA) {
            let (offset, len) = block_from(record.array(HEADER).unwrap());
            command_arena
                .append_to(BlockRef { offset, len }, &mut payload)
                .unwrap();
        } else {
            record.append_to(HEADER.., &mut payload).unwrap();
        }
        commands.commit();
        std::sync::atomic::fence(SeqCst);
        let blocked = self.counter_word(WorkerCounter::CommandsBlocked);
        if blocked.load(Relaxed) == 1 && blocked.swap(0, Relaxed) == 1 {
            self.bell.ring();
        }
        Some(Got {
            header,
            payload,
            position,
        })
    }

    /// Takes commands until this event is done; those before it and it.
    pub(crate) fn until_done(&mut self, reactor: usize, seq: u64) -> Vec<Got> {
        let mut all = Vec::new();
        loop {
            all.push(self.expect_on(reactor));
            if all.last().unwrap().header.done == seq {
                return all;
            }
        }
    }

    pub(crate) fn counter(&self, counter: WorkerCounter) -> u64 {
        self.counter_word(counter).load(Relaxed)
    }

    /// What the desk says about tasks, with the worker's settings.
    pub(crate) fn admission(&self) -> Admission {
        Admission::attach(self.control.clone(), self.dimensions, &self.settings)
    }

    pub(crate) fn current(&self, reactor: usize) -> u64 {
        self.region
            .word(self.dimensions.current(reactor))
            .load(Relaxed)
    }

    /// What the worker says to the manager.
    pub(crate) fn hear(&mut self) -> FromWorker {
        let channel = self.channel.as_ref().unwrap();
        wait(channel, Instant::now() + PATIENCE, "the worker to speak");
        channel
            .recv::<FromWorker>()
            .unwrap()
            .expect("the worker is there")
            .0
    }

    pub(crate) fn order(&self, order: &ToWorker) {
        self.channel.as_ref().unwrap().send(order, &[]).unwrap();
    }

    /// The manager dies.
    pub(crate) fn hang_up(&mut self) {
        self.channel = None;
    }

    pub(crate) fn retire(&mut self) {
        for reactor in 0..self.reactors.len() {
            self.tell(reactor, EventKind::Retire, 0, b"");
        }
    }

    /// Takes whatever commands of reactor 0 come before the worker ends.
    pub(crate) fn take_all_until_it_ends(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.thread.as_ref().is_some_and(|it| !it.is_finished()) {
            assert!(Instant::now() < deadline, "the worker does not end");
            if self.try_next(0).is_none() {
                std::thread::yield_now();
            }
        }
    }

    /// How the worker ended.
    pub(crate) fn join(&mut self) -> Result<Ended> {
        let thread = self.thread.take().expect("joined once");
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "the worker does not end");
            std::thread::yield_now();
        }
        thread.join().unwrap()
    }

    fn deadline_check(&mut self) {
        assert!(
            self.reactors
                .iter()
                .all(|reactor| reactor.commands.is_empty())
        );
    }

    fn counter_word(&self, counter: WorkerCounter) -> &std::sync::atomic::AtomicU64 {
        self.region
            .word(self.dimensions.worker_counters() + 8 * counter as usize)
    }
}

impl Got {
    pub(crate) fn kind(&self) -> CommandKind {
        self.header.kind
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

fn wait(fd: &impl AsPoll, deadline: Instant, what: &str) {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::from_borrowed_fd(fd.descriptor(), PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec::try_from(left).unwrap())).unwrap();
    assert!(ready > 0, "waited in vain for {what}");
}

trait AsPoll {
    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl AsPoll for Doorbell {
    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd()
    }
}

impl AsPoll for Channel {
    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(self)
    }
}

pub(crate) const INCARNATION: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(10);
