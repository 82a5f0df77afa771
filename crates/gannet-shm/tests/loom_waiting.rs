//! Every interleaving of those who wait for shared memory and those who change it.
//!
//! The code under test is the crate's own, as in `loom.rs`. Nobody's sleep ends by itself here, so
//! that a wake-up that is lost is a deadlock, which loom reports. What locks guard is one of loom's
//! race-detecting cells.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gannet_shm::{Futex, LockWord, Memory, Sleep, Sleepers, Taken, Word};
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU32;
use loom::sync::{Condvar, Mutex};
use loom::thread;

mod model;

use model::ModelWord;

#[test]
fn no_change_is_slept_through() {
    explore(None, || {
        let memory = Model::new();
        let changer = changer(&memory);
        wait_for(&memory, 1);
        changer.join().unwrap();
    });
}

#[test]
fn no_change_is_slept_through_with_two_changers() {
    explore(Some(3), || {
        let memory = Model::new();
        let changers = [changer(&memory), changer(&memory)];
        wait_for(&memory, 2);
        for changer in changers {
            changer.join().unwrap();
        }
    });
}

#[test]
fn no_change_is_slept_through_by_either_of_two_sleepers() {
    explore(Some(3), || {
        let memory = Model::new();
        let other = {
            let memory = memory.clone();
            thread::spawn(move || wait_for(&memory, 1))
        };
        let changer = changer(&memory);
        wait_for(&memory, 1);
        other.join().unwrap();
        changer.join().unwrap();
    });
}

#[test]
fn a_lock_has_one_holder_and_who_waits_for_it_gets_it() {
    explore(Some(3), || {
        let memory = Model::new();
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    assert_eq!(hold(&memory, 2, 0), Taken { owner_died: false });
                }
            })
        };
        assert_eq!(hold(&memory, 1, 0), Taken { owner_died: false });
        other.join().unwrap();
        assert_eq!(memory.guarded(), 3);
    });
}

#[test]
fn the_lock_of_a_dead_process_goes_to_one_who_is_told() {
    explore(Some(3), || {
        let memory = Model::new();
        // The dead one's last step is before anybody can see that it is dead.
        let victim = {
            let memory = memory.clone();
            thread::spawn(move || {
                let lock = LockWord::attach(memory.clone(), LOCK);
                let taken = lock.try_take(DEAD, |_| false);
                memory.change();
                taken
            })
        };
        assert!(victim.join().unwrap().is_some());

        let other = {
            let memory = memory.clone();
            thread::spawn(move || hold(&memory, 2, DEAD).owner_died)
        };
        let mine = hold(&memory, 1, DEAD).owner_died;
        let others = other.join().unwrap();
        assert!(mine != others, "one is told, and only one");
        assert_eq!(memory.guarded(), 3);
    });
}

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.check(model);
}

/// Counts the value up by one, and rings.
fn changer(memory: &Arc<Model>) -> thread::JoinHandle<()> {
    let memory = memory.clone();
    thread::spawn(move || {
        let sleepers = Sleepers::attach(memory.clone(), BELL);
        let word = memory.word(VALUE);
        loop {
            let value = word.load(Ordering::Relaxed);
            if word.replace(value, value + 1, Ordering::Relaxed) {
                break;
            }
        }
        sleepers.ring();
    })
}

fn wait_for(memory: &Arc<Model>, value: u64) {
    let sleepers = Sleepers::attach(memory.clone(), BELL);
    loop {
        let ticket = sleepers.announce();
        if memory.word(VALUE).load(Ordering::Relaxed) >= value {
            return;
        }
        sleepers.sleep(ticket, Duration::MAX);
    }
}

/// Takes the lock, changes what it guards, and lets go.
fn hold(memory: &Arc<Model>, me: u64, dead: u64) -> Taken {
    let lock = LockWord::attach(memory.clone(), LOCK);
    let taken = loop {
        let ticket = lock.sleepers().announce();
        match lock.try_take(me, |holder| holder == dead) {
            Some(taken) => break taken,
            None => lock.sleepers().sleep(ticket, Duration::MAX),
        }
    };
    memory.change();
    lock.release();
    taken
}

struct Model {
    words: Vec<(usize, ModelWord)>,
    futexes: Vec<(usize, ModelFutex)>,
    guarded: UnsafeCell<u64>,
}

// SAFETY: loom sees to it that the cell is never accessed by two threads at a time.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

struct ModelFutex {
    value: AtomicU32,
    kernel: Mutex<()>,
    woken: Condvar,
}

impl Model {
    fn new() -> Arc<Model> {
        let words = [VALUE, LOCK, LOCK + 16, LOCK + 24];
        let futex = || ModelFutex {
            value: AtomicU32::new(0),
            kernel: Mutex::new(()),
            woken: Condvar::new(),
        };
        Arc::new(Model {
            words: words
                .map(|at| (at, ModelWord::default()))
                .into_iter()
                .collect(),
            futexes: [BELL, LOCK + 8]
                .map(|at| (at, futex()))
                .into_iter()
                .collect(),
            guarded: UnsafeCell::new(0),
        })
    }

    fn change(&self) {
        // SAFETY: loom fails the test if two threads are in here at a time.
        self.guarded.with_mut(|value| unsafe { *value += 1 });
    }

    fn guarded(&self) -> u64 {
        // SAFETY: as in `change`.
        self.guarded.with(|value| unsafe { *value })
    }
}

// SAFETY: no bytes are ever copied.
unsafe impl Memory for Model {
    type Word = ModelWord;

    fn word(&self, offset: usize) -> &ModelWord {
        let found = self.words.iter().find(|(at, _)| *at == offset);
        &found.expect("a word of the model").1
    }

    fn copy_in(&self, _: usize, _: &[u8]) {
        unreachable!("these protocols have no payload");
    }

    fn copy_out(&self, _: usize, _: &mut [MaybeUninit<u8>]) {
        unreachable!("these protocols have no payload");
    }

    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

impl Sleep for Model {
    type Futex = ModelFutex;

    fn futex(&self, offset: usize) -> &ModelFutex {
        let found = self.futexes.iter().find(|(at, _)| *at == offset);
        &found.expect("a futex of the model").1
    }
}

impl Futex for ModelFutex {
    fn load(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }

    fn set(&self, bits: u32) -> u32 {
        self.value.fetch_or(bits, Ordering::Relaxed)
    }

    fn replace(&self, current: u32, new: u32) {
        let _ = self
            .value
            .compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The kernel compares and goes to sleep under a lock that a waker takes, too.
    fn sleep(&self, expected: u32, _: Duration) {
        let kernel = self.kernel.lock().unwrap();
        if self.value.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(kernel).unwrap());
        }
    }

    fn wake(&self) {
        let _kernel = self.kernel.lock().unwrap();
        self.woken.notify_all();
    }
}

const VALUE: usize = 0;
const BELL: usize = 8;
const LOCK: usize = 128;
/// The life of a process that is dead.
const DEAD: u64 = 9;
