//! Every interleaving of readers and writers, and every order that the memory model allows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;

use super::*;

#[derive(Debug)]
struct Modelled(AtomicU64);

impl Word for Modelled {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.0.swap(value, order)
    }

    fn replace(&self, current: u64, new: u64, order: Ordering) -> bool {
        self.0
            .compare_exchange(current, new, order, Ordering::Relaxed)
            .is_ok()
    }
}

impl WithFence for Modelled {
    fn fence(order: Ordering) {
        fence(order);
    }
}

/// Loom's mutexes: what they order is what the system's order.
#[derive(Debug)]
struct ModelledLocks(Vec<loom::sync::Mutex<()>>);

struct ModelledGuard<'a>(#[expect(dead_code, reason = "held")] loom::sync::MutexGuard<'a, ()>);

impl Locks for ModelledLocks {
    type Guard<'a> = ModelledGuard<'a>;

    fn lock(&self, stripe: usize) -> Result<ModelledGuard<'_>, LockError> {
        Ok(ModelledGuard(self.0[stripe].lock().unwrap()))
    }

    fn try_lock(&self, stripe: usize) -> Result<Option<ModelledGuard<'_>>, LockError> {
        self.lock(stripe).map(Some)
    }
}

impl Guard for ModelledGuard<'_> {
    fn owner_died(&self) -> bool {
        false
    }
}

type Modelleds = Core<Cells<Modelled>, ModelledLocks>;

/// One stripe, so that everybody meets.
fn modelled(first: usize, max: usize) -> Arc<Modelleds> {
    let plan = Plan::with_stripes(KeyKind::U64, 2, Rows { first, max }, 0, 1);
    // Only the words that the table uses: every one costs.
    let used = |at: &usize| plan.uses(*at);
    let words = (0..plan.total).step_by(8).filter(used);
    let memory = Cells {
        words: words.map(|at| (at, Modelled(AtomicU64::new(0)))).collect(),
    };
    let locks = ModelledLocks(vec![loom::sync::Mutex::new(())]);
    let core = Core::new(Arc::new(memory), locks, plan, [1, 2]);
    core.format();
    Arc::new(core)
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 100_000;
    builder.check(model);
}

#[test]
fn no_torn_row_is_read_while_it_is_replaced() {
    explore(2, || {
        let table = modelled(1, 1);
        table.set(7, 0).unwrap();
        let writer = {
            let table = table.clone();
            thread::spawn(move || (1..=3).for_each(|value| table.set(7, value).unwrap()))
        };
        // `get` compares the two words.
        let first = table.get(7).unwrap();
        let second = table.get(7).unwrap();
        assert!(first <= second && second <= 3, "{first} and then {second}");
        writer.join().unwrap();
        assert_eq!(table.get(7), Some(3));
    });
}

#[test]
fn words_that_change_in_place_change_in_order() {
    explore(2, || {
        let table = modelled(1, 1);
        table.set(7, 0).unwrap();
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                for value in 1..=2 {
                    for word in 0..2 {
                        table
                            .entry(RawKey::U64(7), |entry| entry.put_word(word, value))
                            .unwrap();
                    }
                }
            })
        };
        let both = |words: super::super::Words<'_, _>| (words.load(0), words.load(1));
        let (first, second) = table.read(RawKey::U64(7), both).unwrap().unwrap();
        // The second word starts as the complement of 0.
        let second = if second == u64::MAX { 0 } else { second };
        assert!(first == second || first == second + 1, "{first} {second}");
        writer.join().unwrap();
    });
}

/// The other row goes, and its slot is another's, while somebody stands on it.
fn a_row_stays(order: [u64; 2], look: fn(&Modelleds)) {
    explore(2, move || {
        let table = modelled(1, 2);
        for key in order {
            table.set(key, key).unwrap();
        }
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                table.delete(1);
                table.set(3, 3).unwrap();
            })
        };
        look(&table);
        writer.join().unwrap();
        assert_eq!((table.get(1), table.get(2)), (None, Some(2)));
    });
}

#[test]
fn a_row_is_found_behind_one_that_goes() {
    a_row_stays([2, 1], |table| assert_eq!(table.get(2), Some(2)));
}

#[test]
fn a_row_is_found_in_front_of_one_that_goes() {
    a_row_stays([1, 2], |table| assert_eq!(table.get(2), Some(2)));
}

#[test]
fn a_row_that_stays_is_iterated_once() {
    a_row_stays([1, 2], |table| assert_eq!(table.all().get(&2), Some(&2)));
}

#[test]
fn a_row_that_goes_is_there_or_not() {
    a_row_stays([1, 2], |table| {
        let seen = table.get(1);
        assert!(matches!(seen, None | Some(1)));
        if seen.is_none() {
            assert_eq!(table.get(1), None);
        }
    });
}

#[test]
fn a_row_is_found_while_its_bucket_is_split() {
    explore(2, || {
        let table = modelled(1, 4);
        table.set(1, 1).unwrap();
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                table.set(2, 2).unwrap();
                table.set(3, 3).unwrap();
            })
        };
        assert_eq!(table.get(1), Some(1));
        assert_eq!(table.get(9), None);
        writer.join().unwrap();
        assert_eq!(table.all().len(), 3);
    });
}

#[test]
fn two_writers_take_turns_and_never_the_same_slot() {
    explore(2, || {
        let table = modelled(2, 2);
        let writers = [1, 2].map(|key| {
            let table = table.clone();
            thread::spawn(move || table.set(key, key).unwrap())
        });
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(table.all().len(), 2);
        assert_eq!(table.set(3, 3), Err(Full));
    });
}
