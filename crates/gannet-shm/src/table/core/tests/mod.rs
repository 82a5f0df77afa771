//! The table over memory that tests are in command of.

mod deaths;
mod interleavings;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::iter;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain::{chain, links};
use super::plan::{Plan, RowWord, Rows, StripeWord};
use super::{Core, Full, Guard, Locks};
use crate::memory::{Contiguous, Memory, Word};
use crate::robust::LockError;
use crate::table::key::{KeyKind, RawKey};

/// Words whose stores end when the thread has died: see [`dying_after`].
#[derive(Debug)]
struct Mortal(AtomicU64);

thread_local! {
    /// How many stores the thread does before it dies.
    static STORES_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `what` in a process that is killed in front of its store of this number. It goes on to its
/// end, but nothing of it is seen any more. `true`: it died.
fn dying_after(stores: u64, what: impl FnOnce()) -> bool {
    STORES_LEFT.set(Some(stores));
    what();
    STORES_LEFT.take() == Some(0)
}

fn is_dead() -> bool {
    STORES_LEFT.get() == Some(0)
}

/// Counts a store; `false`: it does not happen.
fn store_happens() -> bool {
    match STORES_LEFT.get() {
        None => true,
        Some(0) => false,
        Some(left) => {
            STORES_LEFT.set(Some(left - 1));
            true
        }
    }
}

impl Word for Mortal {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        if store_happens() {
            self.0.store(value, order);
        }
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        if store_happens() {
            self.0.swap(value, order)
        } else {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn replace(&self, current: u64, new: u64, order: Ordering) -> bool {
        !store_happens() || Word::replace(&self.0, current, new, order)
    }
}

/// Memory of words of any kind.
#[derive(Debug)]
struct Cells<W> {
    words: Vec<W>,
}

impl<W> Cells<W> {
    fn new(plan: &Plan, word: impl FnMut() -> W) -> Cells<W> {
        let words = iter::repeat_with(word).take(plan.total / 8);
        Cells {
            words: words.collect(),
        }
    }
}

// SAFETY: `copy_out` does not return.
unsafe impl<W: Word + WithFence> Memory for Cells<W> {
    type Word = W;

    fn word(&self, offset: usize) -> &W {
        &self.words[offset / 8]
    }

    fn copy_in(&self, _offset: usize, _bytes: &[u8]) {
        unreachable!("a table uses words only");
    }

    fn copy_out(&self, _offset: usize, _into: &mut [MaybeUninit<u8>]) {
        unreachable!("a table uses words only");
    }

    fn fence(order: Ordering) {
        W::fence(order);
    }
}

impl<W: Word + WithFence> Contiguous for Cells<W> {
    fn words(&self, offset: usize, count: usize) -> &[W] {
        &self.words[offset / 8..][..count]
    }
}

trait WithFence {
    fn fence(order: Ordering);
}

impl WithFence for Mortal {
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// Locks that know who died.
#[derive(Debug, Default)]
struct TestLocks(Vec<(Mutex<()>, AtomicBool)>);

struct TestGuard<'a> {
    _held: MutexGuard<'a, ()>,
    died: &'a AtomicBool,
    owner_died: bool,
}

impl Locks for TestLocks {
    type Guard<'a> = TestGuard<'a>;

    fn lock(&self, stripe: usize) -> Result<TestGuard<'_>, LockError> {
        let (mutex, died) = &self.0[stripe];
        let held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(TestGuard {
            _held: held,
            died,
            owner_died: died.swap(false, Ordering::Relaxed),
        })
    }

    fn try_lock(&self, stripe: usize) -> Result<Option<TestGuard<'_>>, LockError> {
        self.lock(stripe).map(Some)
    }
}

impl Guard for TestGuard<'_> {
    fn owner_died(&self) -> bool {
        self.owner_died
    }
}

impl Drop for TestGuard<'_> {
    fn drop(&mut self) {
        if is_dead() {
            self.died.store(true, Ordering::Relaxed);
        }
    }
}

type Mortals = Core<Cells<Mortal>, TestLocks>;

/// A table of rows of two words, under numbers.
fn table(stripes: usize, first: usize, max: usize) -> Mortals {
    let plan = Plan::with_stripes(KeyKind::U64, 2, Rows { first, max }, 0, stripes);
    let memory = Cells::new(&plan, || Mortal(AtomicU64::new(0)));
    let locks = TestLocks((0..stripes).map(|_| Default::default()).collect());
    let core = Core::new(Arc::new(memory), locks, plan, [1, 2]);
    core.format();
    core
}

impl<M: Contiguous, L: Locks> Core<M, L> {
    fn set(&self, key: u64, value: u64) -> Result<(), Full> {
        self.entry(RawKey::U64(key), |entry| {
            entry.put(|room| {
                room.put(0, value);
                room.put(1, !value);
                Ok(())
            })
        })
        .unwrap()
    }

    /// The value; the second word must be its complement.
    fn get(&self, key: u64) -> Option<u64> {
        self.read(RawKey::U64(key), |words| (words.load(0), words.load(1)))
            .unwrap()
            .map(|(value, complement)| {
                assert_eq!(value, !complement, "a torn row");
                value
            })
    }

    /// Keys of the only stripe that belong to this bucket when there are so many.
    fn keys<const N: usize>(&self, bucket: usize, buckets: u64) -> [u64; N] {
        let belongs = |key: &u64| self.bucket(self.hash(RawKey::U64(*key)), buckets) == bucket;
        let mut keys = (1..).filter(belongs);
        std::array::from_fn(|_| keys.next().unwrap())
    }

    /// Adds rows without adding buckets: the first have links, the others are in a chain.
    fn crowd(&self, keys: &[u64]) {
        let live = |live| self.stripe(0)[StripeWord::Live as usize].store(live, Ordering::Relaxed);
        for key in keys {
            live(0);
            self.set(*key, *key).unwrap();
        }
        live(keys.len() as u64);
    }

    /// Every row has one link, and readers are not told to look again.
    fn assert_links(&self) {
        let mut linked = Vec::new();
        for stripe in 0..self.plan.stripes {
            let version = self.stripe(stripe)[StripeWord::Version as usize].load(Ordering::Relaxed);
            assert!(version.is_multiple_of(2), "links of {stripe} are changing");
            let stripe = self.lock(stripe).unwrap();
            for bucket in 0..stripe.buckets() {
                let bucket = self.plan.bucket(stripe.index, bucket);
                linked.extend(links(bucket).filter_map(|at| self.link(at).slot(&self.plan)));
                let mut at = chain(bucket);
                while let Some(slot) = self.link(at).slot(&self.plan) {
                    linked.push(slot);
                    assert!(linked.len() <= self.plan.max_rows, "too many links");
                    at = self.plan.row(slot, RowWord::Next);
                }
            }
        }
        linked.sort_unstable();
        let owned = (0..self.plan.max_rows).filter(|slot| self.owner(*slot) != 0);
        assert_eq!(linked, owned.collect::<Vec<_>>());
    }

    fn delete(&self, key: u64) {
        self.entry(RawKey::U64(key), |entry| entry.remove())
            .unwrap();
    }

    fn all(&self) -> BTreeMap<u64, u64> {
        let mut all = BTreeMap::new();
        let mut from = 0;
        while let Some(slot) = self.next_owned(from) {
            from = slot + 1;
            let row = self.row_in(slot, |words| words.load(0)).unwrap();
            if let Some((key, value)) = row {
                assert_eq!(all.insert(key.number, value), None, "a row came twice");
            }
        }
        all
    }
}
