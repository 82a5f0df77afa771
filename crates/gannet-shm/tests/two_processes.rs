//! A producer and a consumer in two processes, one of which is killed again and again.
//!
//! The test program runs itself once more as the other process (`child`, told apart by an
//! environment variable); regions and bells are inherited. `GANNET_SOAK=1` runs for minutes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gannet_shm::{Consumer, Doorbell, Layout, Position, Producer, Region, RingSpec, Slots};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

mod kit;

use kit::{Process, Random, dup};

/// A worker dies while it handles events; its successor gets the unfinished ones again, marked,
/// in order, and nothing else twice.
#[test]
fn events_survive_the_death_of_their_consumer() {
    let (total, most_kills) = size();
    let (plan, shared) = Shared::create(total);
    let mut master = Master::new(&shared, plan);
    let mut random = Random(0x1234_5678);
    let mut kills = 0;

    while !master.done() {
        let worker = shared.spawn("consumer", 0);
        // Some die before they have started, and the last one finishes the work.
        let life = random.below(total / most_kills * 2);
        let until = if kills < most_kills {
            master.next + life
        } else {
            u64::MAX
        };
        master.serve(until);
        worker.kill();
        kills += 1;
        master.recover();
    }

    let mut twice = 0;
    for seq in 0..total {
        let count = shared.deliveries(seq).load(Ordering::Relaxed);
        assert!(count >= 1, "event {seq} was lost");
        if count > 1 {
            assert!(
                master.redelivered.contains(&seq),
                "event {seq} came {count} times"
            );
            twice += 1;
        }
    }
    println!(
        "{total} events, {kills} consumers killed, {} events given again, {twice} of them had been \
         handled",
        master.redelivered.len()
    );
    assert!(kills >= most_kills / 2, "only {kills} kills");
    assert!(!master.redelivered.is_empty(), "no kill hit an event");
}

/// A producer dies between any two instructions; its successor goes on behind what was published.
#[test]
fn what_was_published_survives_the_death_of_the_producer() {
    let (total, most_kills) = size();
    let (plan, shared) = Shared::create(total);
    let (mine, producer) = (shared.bell_master(plan), shared.bell_worker(plan));
    let mut consumer = Consumer::attach(shared.region.clone(), plan.commands);
    let mut random = Random(0x8765_4321);
    let (mut next, mut kills) = (0, 0);

    while next < total {
        let mut child = Some(shared.spawn("producer", next));
        let life = random.below(total / most_kills * 2);
        let until = if kills < most_kills {
            next + life
        } else {
            u64::MAX
        };
        while child.is_some() && next < total {
            if next >= until {
                child.take().unwrap().kill();
                kills += 1;
            }
            // What the dead has published comes before the first record of its successor.
            next = receive(&mut consumer, next);
            producer.ring();
            if child.is_some() && next < total {
                sleep(&mine, || consumer.is_empty());
            }
        }
    }
    assert!(consumer.next().is_none());
    println!("{total} records, {kills} producers killed");
    assert!(kills >= most_kills / 2, "only {kills} kills");
}

/// A writer dies in the middle of a row; no reader hangs or sees it torn, and the next takes over.
#[test]
fn rows_survive_the_death_of_their_writer() {
    let (plan, shared) = Shared::create(0);
    let slots = shared.slots(plan);
    let mut random = Random(0x5eed);
    let (mut reads, mut torn, mut newest) = (0u64, 0, 0);
    let mut kills = 0;
    while kills < 25 || (torn < 3 && kills < 1_000) {
        let writer = shared.spawn("writer", newest + 1);
        let until = random.below(100);
        let (mut changes, started) = (0, Instant::now());
        while changes <= until {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "the writer does not write"
            );
            let mut row = [0; ROW];
            if slots.read(0, &mut row) {
                assert_eq!(row, [row[0]; ROW], "a torn row");
                assert!(row[0] >= newest, "an old row");
                changes += u64::from(row[0] != newest);
                newest = row[0];
                reads += 1;
            }
        }
        writer.kill();
        kills += 1;
        let mut row = [0; ROW];
        if slots.read(0, &mut row) {
            newest = row[0];
            continue;
        }
        torn += 1;
        // Every other one is left to the next writer itself.
        if torn % 2 == 0 {
            assert!(slots.repair(0) && slots.read(0, &mut row) && row == [0; ROW]);
            slots.write(0, &[newest; ROW]);
        }
    }
    println!("{reads} rows read, {kills} writers killed, {torn} of them in the middle of a write");
    assert!(torn >= 3, "no kill hit a write");
}

fn receive(consumer: &mut Consumer, mut next: u64) -> u64 {
    let mut payload = Vec::new();
    while let Some(record) = consumer.next() {
        payload.clear();
        record.append_to(.., &mut payload).unwrap();
        assert_eq!(Event::parse(&payload).seq, next, "a gap or a repetition");
        next += 1;
        // Not after each, so that the producer finds the ring full and half read.
        if next.is_multiple_of(64) {
            consumer.commit();
        }
    }
    assert!(!consumer.corrupt());
    consumer.commit();
    next
}

/// The other process. As a test of its own it does nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var("GANNET_SHM_CHILD") else {
        return;
    };
    let mut words = role.split(' ');
    let role = words.next().unwrap();
    let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    let [total, first, region, bell_master, bell_worker] = numbers[..] else {
        panic!("bad child arguments")
    };
    let (plan, shared) = Shared::inherit(total, [region, bell_master, bell_worker]);
    match role {
        "consumer" => handle_events(&shared, plan),
        "producer" => produce(&shared, plan, first, total),
        "writer" => write_rows(&shared.slots(plan), first),
        role => panic!("no role {role}"),
    }
    std::process::exit(0);
}

/// The worker: copies a batch out, commits it, handles it, says so.
fn handle_events(shared: &Shared, plan: Plan) {
    let mut events = Consumer::attach(shared.region.clone(), plan.events);
    let mut commands = Producer::attach(shared.region.clone(), plan.commands);
    let (mine, master) = (shared.bell_worker(plan), shared.bell_master(plan));
    let mut random = Random(u64::from(std::process::id()));
    let mut previous: Option<u64> = None;
    let mut payload = Vec::new();
    loop {
        let mut batch = Vec::new();
        while batch.len() < 50
            && let Some(record) = events.next()
        {
            payload.clear();
            record.append_to(.., &mut payload).unwrap();
            batch.push((record.position(), Event::parse(&payload)));
        }
        events.commit();
        if batch.is_empty() {
            assert!(!events.corrupt());
            sleep(&mine, || events.is_empty());
            continue;
        }
        for (_, event) in &batch {
            // In order, without a gap, whatever is given again included; and a successor does
            // not begin behind what its predecessor has not handled.
            if let Some(previous) = previous {
                assert_eq!(event.seq, previous + 1, "not in order");
            } else {
                assert!(
                    event.seq <= shared.handled().load(Ordering::Relaxed),
                    "a gap"
                );
            }
            previous = Some(event.seq);
        }
        batch.retain(|(_, event)| event.flags & FINISHED == 0);
        // Events finish out of order: they await different things.
        for at in (1..batch.len()).rev() {
            batch.swap(at, random.below(at as u64 + 1) as usize);
        }
        for (position, event) in &batch {
            // Leaves the processor now and then, so that kills find events half done.
            if random.below(32) == 0 {
                std::thread::yield_now();
            }
            let times = shared.deliveries(event.seq).fetch_add(1, Ordering::Relaxed);
            assert!(
                times == 0 || event.flags & REDELIVERED != 0,
                "{} again, unmarked",
                event.seq
            );
            shared.handled().fetch_max(event.seq + 1, Ordering::Relaxed);
            let ack = [position.0.to_ne_bytes(), event.seq.to_ne_bytes()];
            while commands.push(&[&ack[0], &ack[1]]).is_err() {
                assert!(!commands.is_corrupt());
                commands.publish();
                master.ring();
                std::thread::yield_now();
            }
        }
        commands.publish();
        master.ring();
    }
}

fn produce(shared: &Shared, plan: Plan, first: u64, total: u64) {
    let mut ring = Producer::attach(shared.region.clone(), plan.commands);
    let (mine, master) = (shared.bell_worker(plan), shared.bell_master(plan));
    let mut payload = Vec::new();
    for seq in first..total {
        Event { seq, flags: 0 }.compose(&mut payload);
        let (head, body) = payload.split_at(8);
        while ring.push(&[head, body]).is_err() {
            assert!(!ring.is_corrupt());
            ring.publish();
            master.ring();
            let needed = RingSpec::record_bytes(payload.len());
            sleep(&mine, || ring.free() < needed);
        }
        if seq % 7 == 0 {
            ring.publish();
            master.ring();
        }
    }
    ring.publish();
    master.ring();
    // The end of every child is a kill.
    std::thread::sleep(Duration::from_secs(60));
}

fn write_rows(slots: &Slots, first: u64) {
    for n in first.. {
        let start = Instant::now();
        slots.write(0, &[n; ROW]);
        // A row that is written all the time cannot be read; a fifth of it leaves both a chance,
        // the reader and the kill.
        let pause = Instant::now() + start.elapsed() * 4;
        while Instant::now() < pause {
            std::hint::spin_loop();
        }
    }
}

/// The reactor's half: pushes events, keeps a ledger of those not finished.
struct Master<'a> {
    shared: &'a Shared,
    plan: Plan,
    events: Producer,
    commands: Consumer,
    bell: Doorbell,
    worker: Doorbell,
    /// Events pushed, oldest first; `true`: finished, but something older is not.
    ledger: VecDeque<(Position, u64, bool)>,
    next: u64,
    redelivered: HashSet<u64>,
    payload: Vec<u8>,
}

impl<'a> Master<'a> {
    fn new(shared: &'a Shared, plan: Plan) -> Master<'a> {
        Master {
            shared,
            plan,
            events: Producer::attach(shared.region.clone(), plan.events),
            commands: Consumer::attach(shared.region.clone(), plan.commands),
            bell: shared.bell_master(plan),
            worker: shared.bell_worker(plan),
            ledger: VecDeque::new(),
            next: 0,
            redelivered: HashSet::new(),
            payload: Vec::new(),
        }
    }

    /// Works until everything is done or that many events have been pushed.
    fn serve(&mut self, until: u64) {
        loop {
            self.take_acks();
            let mut full = false;
            for _ in 0..64 {
                if self.next == self.shared.total {
                    break;
                }
                Event {
                    seq: self.next,
                    flags: 0,
                }
                .compose(&mut self.payload);
                let (head, body) = self.payload.split_at(20);
                let Ok(at) = self.events.push(&[head, body]) else {
                    full = true;
                    break;
                };
                self.ledger.push_back((at, self.next, false));
                self.hold();
                self.next += 1;
            }
            if self.events.publish() {
                self.worker.ring();
            }
            if self.done() || self.next >= until {
                return;
            }
            if full || self.next == self.shared.total {
                sleep(&self.bell, || self.commands.is_empty());
            }
        }
    }

    fn done(&self) -> bool {
        self.next == self.shared.total && self.ledger.is_empty()
    }

    /// The consumer is dead: everything from the oldest unfinished event on is given again.
    fn recover(&mut self) {
        // What it has published still counts.
        self.take_acks();
        let Some(&(oldest, ..)) = self.ledger.front() else {
            return;
        };
        let read = self.events.consumer_position();
        assert!(self.events.take_back(oldest));
        for &(at, seq, finished) in &self.ledger {
            if finished {
                assert!(self.events.amend(at, 8, &FINISHED.to_ne_bytes()));
            } else if at < read {
                assert!(self.events.amend(at, 8, &REDELIVERED.to_ne_bytes()));
                self.redelivered.insert(seq);
            }
            let mut back = Vec::new();
            assert!(self.events.read_back(at, &mut back));
            assert_eq!(Event::parse(&back).seq, seq);
        }
        self.events.publish();
        // Of the commands only the published count; the ring itself goes on.
        self.commands = Consumer::attach(self.shared.region.clone(), self.plan.commands);
    }

    fn take_acks(&mut self) {
        while let Some(record) = self.commands.next() {
            let at = Position(u64::from_ne_bytes(record.array(0).unwrap()));
            let seq = u64::from_ne_bytes(record.array(8).unwrap());
            let entry = self.ledger.binary_search_by_key(&at, |&(at, ..)| at);
            let entry = &mut self.ledger[entry.expect("an event in the ledger")];
            assert!(entry.1 == seq && !entry.2, "event {seq} finished twice");
            entry.2 = true;
        }
        assert!(!self.commands.corrupt());
        self.commands.commit();
        while self.ledger.front().is_some_and(|&(.., finished)| finished) {
            self.ledger.pop_front();
        }
        self.hold();
    }

    fn hold(&mut self) {
        self.events
            .hold_from(self.ledger.front().map(|&(at, ..)| at));
    }
}

/// A record: sequence number, flags, checksum, and a body made from the number.
struct Event {
    seq: u64,
    flags: u64,
}

impl Event {
    fn compose(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.seq.to_ne_bytes());
        out.extend_from_slice(&self.flags.to_ne_bytes());
        let mut random = Random(self.seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let words = random.next() % 16;
        let mut sum = self.seq;
        out.extend_from_slice(&[0; 8]);
        for _ in 0..words {
            let word = random.next();
            sum = sum.rotate_left(7) ^ word;
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out[16..24].copy_from_slice(&sum.to_ne_bytes());
        // An odd end, so that records are padded.
        out.extend_from_slice(&[0xAB; 8][..self.seq as usize % 8]);
    }

    fn parse(bytes: &[u8]) -> Event {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let event = Event {
            seq: word(0),
            flags: word(8),
        };
        let body = &bytes[24..bytes.len() - event.seq as usize % 8];
        let sum = body.chunks_exact(8).fold(event.seq, |sum, word| {
            sum.rotate_left(7) ^ u64::from_ne_bytes(word.try_into().unwrap())
        });
        assert_eq!(sum, word(16), "event {} is not intact", event.seq);
        event
    }
}

const REDELIVERED: u64 = 1;
/// Handled already; in the way only because something older is given again.
const FINISHED: u64 = 2;

#[derive(Clone, Copy)]
struct Plan {
    bell_master: usize,
    bell_worker: usize,
    events: RingSpec,
    commands: RingSpec,
    handled: usize,
    slots: usize,
    deliveries: usize,
    bytes: usize,
}

impl Plan {
    fn of(total: u64) -> Plan {
        let mut layout = Layout::new();
        let mut ring = |capacity| RingSpec {
            offset: layout.take(RingSpec::bytes(capacity), RingSpec::ALIGN),
            capacity,
        };
        let (events, commands) = (ring(64 << 10), ring(16 << 10));
        Plan {
            events,
            commands,
            bell_master: layout.take(Doorbell::BYTES, 128),
            bell_worker: layout.take(Doorbell::BYTES, 128),
            handled: layout.take(8, 128),
            slots: layout.take(Slots::bytes(1, ROW), Slots::ALIGN),
            deliveries: layout.take(total as usize * 4, 8),
            bytes: layout.total(),
        }
    }
}

struct Shared {
    region: Arc<Region>,
    bell_master: OwnedFd,
    bell_worker: OwnedFd,
    total: u64,
    plan: Plan,
}

impl Shared {
    fn create(total: u64) -> (Plan, Shared) {
        let plan = Plan::of(total);
        let region = Region::create("two processes", KIND, plan.bytes).unwrap();
        let bell = |offset| dup(&Doorbell::create(region.clone(), offset).unwrap().fd());
        let (bell_master, bell_worker) = (bell(plan.bell_master), bell(plan.bell_worker));
        (
            plan,
            Shared {
                region,
                bell_master,
                bell_worker,
                total,
                plan,
            },
        )
    }

    fn inherit(total: u64, fds: [u64; 3]) -> (Plan, Shared) {
        let plan = Plan::of(total);
        let [region, bell_master, bell_worker] = fds.map(kit::inherited);
        let region = Region::attach(region, KIND).unwrap();
        (
            plan,
            Shared {
                region,
                bell_master,
                bell_worker,
                total,
                plan,
            },
        )
    }

    /// Runs this program once more, as `role`.
    fn spawn(&self, role: &str, first: u64) -> Process {
        let region = self.region.fd();
        let inherited: [&dyn AsFd; 3] = [&region, &self.bell_master, &self.bell_worker];
        let arguments = format!("{role} {} {first}", self.total);
        Process::spawn("GANNET_SHM_CHILD", &arguments, &inherited)
    }

    fn bell_master(&self, plan: Plan) -> Doorbell {
        Doorbell::attach(
            self.region.clone(),
            plan.bell_master,
            dup(&self.bell_master),
        )
    }

    fn bell_worker(&self, plan: Plan) -> Doorbell {
        Doorbell::attach(
            self.region.clone(),
            plan.bell_worker,
            dup(&self.bell_worker),
        )
    }

    fn slots(&self, plan: Plan) -> Slots {
        Slots::attach(self.region.clone(), plan.slots, 1, ROW)
    }

    /// How often an event has been handled.
    fn deliveries(&self, seq: u64) -> &AtomicU32 {
        self.region.word32(self.plan.deliveries + seq as usize * 4)
    }

    /// One more than the largest number of an event that was handled.
    fn handled(&self) -> &AtomicU64 {
        self.region.word(self.plan.handled)
    }
}

/// Sleeps on the bell, if there is nothing to do.
fn sleep(bell: &Doorbell, nothing_to_do: impl Fn() -> bool) {
    bell.prepare_sleep();
    if nothing_to_do() {
        let fd = bell.fd();
        let timeout = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        let woken = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(
            woken, 1,
            "a wake-up was lost, or the other process has ended"
        );
    }
    bell.cancel_sleep();
    bell.drain();
}

/// Records, and kills.
fn size() -> (u64, u64) {
    match std::env::var_os("GANNET_SOAK") {
        Some(_) => (50_000_000, 5_000),
        None => (1_000_000, 100),
    }
}

const ROW: usize = 200;
const KIND: u32 = 0x7e57;
