//! Every interleaving of readers and writers, and every order that the memory model allows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;

use super::super::plan::LINKS;
use super::*;

/// A word, and one that all share: every access takes part in one order of all accesses (which
/// synchronises nothing). Loom would otherwise miss interleavings: it remembers only the last access
/// to a word, and a writer that loads the word before it stores hides the reader in front of it.
#[derive(Debug)]
struct Modelled {
    word: AtomicU64,
    turn: Arc<AtomicU64>,
}

impl Modelled {
    fn turn(&self) -> &AtomicU64 {
        self.turn.fetch_add(1, Ordering::Relaxed);
        &self.word
    }
}

impl Word for Modelled {
    fn load(&self, order: Ordering) -> u64 {
        self.turn().load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.turn().store(value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.turn().swap(value, order)
    }

    fn replace(&self, current: u64, new: u64, order: Ordering) -> bool {
        self.turn()
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
    let turn = Arc::new(AtomicU64::new(0));
    let memory = Cells::new(&plan, || {
        let (word, turn) = (AtomicU64::new(0), turn.clone());
        Modelled { word, turn }
    });
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

/// Two rows in one bucket, in its links or behind them in its chain. The second, which is the first
/// of the chain, goes, and its slot is that of a row of another bucket, while somebody stands on it.
fn one_goes(chained: bool, look: fn(&Modelleds, stays: u64, goes: u64)) {
    explore(2, move || {
        let before = if chained { LINKS } else { 0 };
        let table = modelled(4, before + 2);
        let keys: [u64; LINKS + 2] = table.keys(0, 4);
        let keys = &keys[..before + 2];
        let [comes] = table.keys(1, 4);
        table.crowd(keys);
        let (stays, goes) = (keys[before], keys[before + 1]);
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                table.delete(goes);
                table.set(comes, comes).unwrap();
            })
        };
        look(&table, stays, goes);
        writer.join().unwrap();
        let rows = [stays, goes, comes].map(|key| table.get(key));
        assert_eq!(rows, [Some(stays), None, Some(comes)]);
        assert_eq!(table.buckets(), 4);
    });
}

#[test]
fn a_row_is_found_beside_one_that_goes() {
    one_goes(false, |table, stays, _| {
        assert_eq!(table.get(stays), Some(stays))
    });
}

#[test]
fn a_row_is_found_behind_one_that_goes() {
    one_goes(true, |table, stays, _| {
        assert_eq!(table.get(stays), Some(stays))
    });
}

#[test]
fn a_row_that_stays_is_iterated_once() {
    one_goes(false, |table, stays, _| {
        assert_eq!(table.all().get(&stays), Some(&stays))
    });
}

#[test]
fn a_row_that_goes_is_there_and_then_not() {
    for chained in [false, true] {
        one_goes(chained, |table, _, goes| {
            let seen = table.get(goes);
            assert!(matches!(seen, None | Some(_)));
            if seen.is_none() {
                assert_eq!(table.get(goes), None);
            }
        });
    }
}

/// Rows of one bucket, in the order in which they came: those that `moves` says move to a new bucket
/// while somebody looks for the one with the number `look`.
fn found_in_a_split(moves: &'static [bool], look: usize) {
    explore(2, move || {
        let table = modelled(1, moves.len() + 1);
        let [staying, moving]: [[u64; 5]; 2] = [table.keys(0, 2), table.keys(1, 2)];
        let key = |(row, moves): (usize, &bool)| [&staying, &moving][usize::from(*moves)][row];
        let keys: Vec<_> = moves.iter().enumerate().map(key).collect();
        let comes = staying[4];
        table.crowd(&keys);
        let writer = {
            let table = table.clone();
            thread::spawn(move || table.set(comes, comes).unwrap())
        };
        assert_eq!(table.get(keys[look]), Some(keys[look]));
        writer.join().unwrap();
        for key in keys.into_iter().chain([comes]) {
            assert_eq!(table.get(key), Some(key));
        }
        assert_eq!(table.buckets(), 2);
    });
}

#[test]
fn a_row_is_found_while_it_moves_from_link_to_link() {
    found_in_a_split(&[true], 0);
}

#[test]
fn a_row_is_found_while_it_moves_from_a_chain_to_a_link() {
    found_in_a_split(&[false, false, true], 2);
}

#[test]
fn a_row_is_found_while_it_moves_from_a_chain_to_a_chain() {
    found_in_a_split(&[true, true, true], 2);
}

#[test]
fn a_row_is_found_behind_one_that_moves() {
    found_in_a_split(&[false, false, false, true], 2);
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
