//! Every interleaving, and every reordering that the memory model allows, of the protocols.
//!
//! The code under test is the crate's own, over a [`Model`] memory: words are loom's atomics, and
//! each eight payload bytes are guarded by one of loom's race-detecting cells, so that a read
//! that is not ordered behind the write, or a write not ordered behind the read, fails the test
//! even if the values happen to be right.
//!
//! Models that are too large for all interleavings bound the preemptions, so that the whole runs
//! in seconds. `LOOM_MAX_PREEMPTIONS=5 cargo test -p gannet-shm --release --test loom` explores
//! more, for minutes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use gannet_shm::{Bell, Consumer, Doorbell, Memory, Position, Producer, RingSpec, Slots, Word};
use loom::cell::UnsafeCell;
use loom::sync::Notify;
use loom::thread;

mod model;

use model::ModelWord;

#[test]
fn no_wake_up_is_lost() {
    explore(Some(4), || {
        let memory = Model::new(&[RING_A], &[BELL]);
        let bell = Arc::new(Notify::new());
        let producer = producer_thread(&memory, RING_A, &bell, 2);
        let mut consumer = Consumer::attach(memory.clone(), RING_A);
        let doorbell = Doorbell::attach(memory, BELL, ModelBell(bell.clone()));

        let mut seen = 0;
        while seen < 2 {
            doorbell.prepare_sleep();
            if consumer.is_empty() {
                // A lost wake-up is a deadlock here, which loom reports.
                bell.wait();
            } else {
                doorbell.cancel_sleep();
            }
            seen += take_all(&mut consumer, seen);
        }
        producer.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_with_two_producers_on_one_bell() {
    explore(Some(2), || {
        let memory = Model::new(&[RING_A, RING_B], &[BELL]);
        let bell = Arc::new(Notify::new());
        let first = producer_thread(&memory, RING_A, &bell, 1);
        let second = producer_thread(&memory, RING_B, &bell, 1);
        let mut consumers = [RING_A, RING_B].map(|ring| Consumer::attach(memory.clone(), ring));
        let doorbell = Doorbell::attach(memory, BELL, ModelBell(bell.clone()));

        let mut seen = 0;
        while seen < 2 {
            doorbell.prepare_sleep();
            if consumers.iter().all(Consumer::is_empty) {
                bell.wait();
            } else {
                doorbell.cancel_sleep();
            }
            seen += consumers
                .iter_mut()
                .map(|ring| take_all(ring, 0))
                .sum::<u64>();
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn a_producer_that_dies_while_it_rings_takes_nobodys_wake_up_along() {
    explore(Some(2), || {
        let memory = Model::new(&[RING_A, RING_B], &[BELL]);
        let bell = Arc::new(Notify::new());
        let mut victim = Producer::attach(memory.clone(), RING_A);
        let doorbell = Doorbell::attach(memory.clone(), BELL, DeadlyBell);
        let victim = thread::spawn(move || {
            push(&mut victim, 0);
            victim.publish();
            // Unwinding, so that it does nothing more.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| doorbell.ring()));
        });
        let producer = producer_thread(&memory, RING_B, &bell, 1);
        let mut consumer = Consumer::attach(memory.clone(), RING_B);
        let doorbell = Doorbell::attach(memory, BELL, ModelBell(bell.clone()));

        let mut seen = 0;
        while seen < 1 {
            doorbell.prepare_sleep();
            if consumer.is_empty() {
                bell.wait();
            } else {
                doorbell.cancel_sleep();
            }
            seen += take_all(&mut consumer, seen);
        }
        victim.join().unwrap();
        producer.join().unwrap();
    });
}

#[test]
fn no_byte_is_read_unpublished_or_overwritten() {
    explore(Some(2), || {
        let memory = Model::new(&[RING_A], &[]);
        // Three of four places are taken when the threads start, and the ring is about to wrap.
        let mut producer = Producer::attach(memory.clone(), RING_A);
        let mut consumer = Consumer::attach(memory, RING_A);
        push(&mut producer, 0);
        producer.publish();
        assert_eq!(take_all(&mut consumer, 0), 1);
        for n in 1..4 {
            push(&mut producer, n);
        }
        producer.publish();

        let writer = thread::spawn(move || {
            for n in 4..7 {
                while producer.push(&[&value(n)]).is_err() {
                    thread::yield_now();
                }
                producer.publish();
            }
            assert!(!producer.is_corrupt());
        });
        let mut next = 1;
        while next < 7 {
            if let Some(record) = consumer.next() {
                assert_eq!(record.array(0), Some(value(next)));
                next += 1;
                consumer.commit();
            } else {
                thread::yield_now();
            }
        }
        assert!(!consumer.corrupt());
        writer.join().unwrap();
    });
}

#[test]
fn an_unpublished_record_may_be_amended() {
    explore(None, || {
        let memory = Model::new(&[RING_A], &[]);
        let mut producer = Producer::attach(memory.clone(), RING_A);
        let mut consumer = Consumer::attach(memory, RING_A);
        let writer = thread::spawn(move || {
            for n in 0..2 {
                let at = push(&mut producer, 99);
                assert!(producer.amend(at, 0, &value(n)));
                producer.publish();
                assert!(!producer.amend(at, 0, &value(99)));
            }
        });
        let mut next = 0;
        next += take_all(&mut consumer, next);
        next += take_all(&mut consumer, next);
        writer.join().unwrap();
        next += take_all(&mut consumer, next);
        assert_eq!(next, 2);
    });
}

#[test]
fn held_records_outlive_their_consumption() {
    explore(Some(3), || {
        let memory = Model::new(&[RING_A], &[]);
        let mut producer = Producer::attach(memory.clone(), RING_A);
        let mut consumer = Consumer::attach(memory, RING_A);
        let reader = thread::spawn(move || {
            let seen = take_all(&mut consumer, 0);
            (consumer, seen)
        });

        let held = push(&mut producer, 0);
        producer.hold_from(Some(held));
        producer.publish();
        for n in 1..4 {
            push(&mut producer, n);
        }
        producer.publish();
        // Whatever the consumer has read, the ring is full of held records ...
        assert!(producer.push(&[&value(4)]).is_err());
        let mut back = Vec::new();
        assert!(producer.read_back(held, &mut back));
        assert_eq!(back, value(0));

        // ... and with the hold gone, what was read makes room, and only that.
        producer.hold_from(Some(Position(held.0 + 16)));
        let consumed = producer.consumer_position() > held;
        let pushed = producer.push(&[&value(4)]).is_ok();
        assert!(pushed || !consumed);
        producer.publish();
        let (mut consumer, seen) = reader.join().unwrap();
        let rest = take_all(&mut consumer, seen);
        assert_eq!(seen + rest, if pushed { 5 } else { 4 });
    });
}

#[test]
fn a_successor_gets_what_was_held_and_what_was_not_read() {
    explore(Some(3), || {
        let memory = Model::new(&[RING_A], &[]);
        let mut producer = Producer::attach(memory.clone(), RING_A);
        let mut consumer = Consumer::attach(memory.clone(), RING_A);
        let victim = thread::spawn(move || {
            // Reads up to two records, and dies before or after the commit of the second.
            for _ in 0..2 {
                let Some(record) = consumer.next() else {
                    return;
                };
                record.array::<8>(0).unwrap();
                if record.position() == Position(0) {
                    consumer.commit();
                }
            }
        });
        let oldest = push(&mut producer, 0);
        producer.hold_from(Some(oldest));
        producer.publish();
        push(&mut producer, 1);
        producer.publish();
        victim.join().unwrap();

        let read = producer.consumer_position();
        assert!(producer.take_back(oldest));
        if oldest < read {
            assert!(producer.amend(oldest, 0, &value(77)));
        }
        producer.publish();
        let mut successor = Consumer::attach(memory, RING_A);
        let first = successor.next().and_then(|record| record.array(0));
        assert_eq!(first, Some(value(if oldest < read { 77 } else { 0 })));
        assert_eq!(take_all(&mut successor, 1), 1);
    });
}

#[test]
fn no_row_is_torn() {
    explore(Some(4), || {
        let memory = Model::new(&[], &row_words());
        let slots = Slots::attach(memory.clone(), ROW, 1, 2);
        let writer = thread::spawn(move || {
            slots.write(0, &[1, 1]);
            slots.write(0, &[2, 2]);
        });
        let slots = Slots::attach(memory, ROW, 1, 2);
        let mut newest = 0;
        for _ in 0..2 {
            let mut row = [u64::MAX; 2];
            if slots.try_read(0, &mut row) {
                assert_eq!(row[0], row[1], "torn");
                assert!(row[0] >= newest, "went back");
                newest = row[0];
            }
        }
        writer.join().unwrap();
        let mut row = [0; 2];
        assert!(slots.try_read(0, &mut row) && row == [2, 2]);
    });
}

#[test]
fn a_row_whose_writer_died_is_taken_over_untorn() {
    for repair in [false, true] {
        explore(None, move || {
            let memory = Model::new(&[], &row_words());
            let slots = Slots::attach(memory.clone(), ROW, 1, 2);
            slots.write(0, &[1, 1]);
            // What a second write leaves that was killed after its first value.
            memory.word(ROW).store(3, Ordering::Relaxed);
            memory.word(ROW + 8).store(9, Ordering::Relaxed);
            assert!(!slots.try_read(0, &mut [0; 2]));

            let successor = thread::spawn(move || {
                if repair {
                    assert!(slots.repair(0));
                    assert!(!slots.repair(0));
                }
                slots.write(0, &[2, 2]);
            });
            let slots = Slots::attach(memory, ROW, 1, 2);
            let mut row = [u64::MAX; 2];
            if slots.try_read(0, &mut row) {
                assert!(row == [2, 2] || (repair && row == [0, 0]), "{row:?}");
            }
            successor.join().unwrap();
            assert!(slots.try_read(0, &mut row) && row == [2, 2]);
        });
    }
}

/// Runs the model; `preemptions` bounds those that are too large to explore in full.
fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.check(model);
}

fn producer_thread(
    memory: &Arc<Model>,
    ring: RingSpec,
    bell: &Arc<Notify>,
    records: u64,
) -> thread::JoinHandle<()> {
    let mut producer = Producer::attach(memory.clone(), ring);
    let doorbell = Doorbell::attach(memory.clone(), BELL, ModelBell(bell.clone()));
    thread::spawn(move || {
        for n in 0..records {
            push(&mut producer, n);
            producer.publish();
            doorbell.ring();
        }
    })
}

fn push(producer: &mut Producer<Model>, n: u64) -> Position {
    producer.push(&[&value(n)]).unwrap()
}

/// Takes all records there are, the first being `next`; returns how many.
fn take_all(consumer: &mut Consumer<Model>, next: u64) -> u64 {
    let mut taken = 0;
    while let Some(record) = consumer.next() {
        assert_eq!(record.array(0), Some(value(next + taken)));
        taken += 1;
        consumer.commit();
    }
    assert!(!consumer.corrupt());
    taken
}

fn value(n: u64) -> [u8; 8] {
    (n + 1).to_ne_bytes()
}

struct ModelBell(Arc<Notify>);

impl Bell for ModelBell {
    fn strike(&self) {
        self.0.notify();
    }
}

/// Kills the producer in front of the write.
struct DeadlyBell;

impl Bell for DeadlyBell {
    fn strike(&self) {
        std::panic::resume_unwind(Box::new("dead"));
    }
}

/// Memory of two small rings and a few words.
struct Model {
    words: Vec<(usize, ModelWord)>,
    /// From offset [`BASE`] on, eight bytes each: the race detector and the bytes.
    cells: Vec<(UnsafeCell<()>, [AtomicU8; 8])>,
}

// SAFETY: the cells hold nothing; they only detect accesses that are not ordered.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    fn new(rings: &[RingSpec], words: &[usize]) -> Arc<Model> {
        let cursors = rings
            .iter()
            .flat_map(|ring| [ring.offset, ring.offset + 128]);
        let offsets = cursors.chain(words.iter().copied());
        let bytes = rings
            .iter()
            .map(|ring| ring.offset + RingSpec::bytes(ring.capacity))
            .max();
        Arc::new(Model {
            words: offsets
                .map(|offset| (offset, ModelWord::default()))
                .collect(),
            cells: (0..bytes.unwrap_or(0) / 8)
                .map(|_| (UnsafeCell::new(()), Default::default()))
                .collect(),
        })
    }
}

// SAFETY: `copy_out` writes every element.
unsafe impl Memory for Model {
    type Word = ModelWord;

    fn word(&self, offset: usize) -> &ModelWord {
        &self
            .words
            .iter()
            .find(|(at, _)| *at == offset)
            .expect("a word of the model")
            .1
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            let (cell, values) = &self.cells[at / 8];
            cell.with_mut(|_| values[at % 8].store(*byte, Ordering::Relaxed));
        }
    }

    fn copy_out(&self, offset: usize, into: &mut [MaybeUninit<u8>]) {
        for (at, byte) in (offset..).zip(into) {
            let (cell, values) = &self.cells[at / 8];
            byte.write(cell.with(|_| values[at % 8].load(Ordering::Relaxed)));
        }
    }

    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

fn row_words() -> [usize; 3] {
    [ROW, ROW + 8, ROW + 16]
}

/// Four records of eight bytes.
const RING_A: RingSpec = RingSpec {
    offset: 0,
    capacity: 64,
};
const RING_B: RingSpec = RingSpec {
    offset: 384,
    capacity: 64,
};
const BELL: usize = 4096;
const ROW: usize = 8192;
