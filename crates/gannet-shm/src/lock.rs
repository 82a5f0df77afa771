//! A lock between processes, for users.
//!
//! It belongs to a *process*, not to a thread as a POSIX mutex does ([`RobustMutex`]): a handler
//! holds it over an await while other handlers of the same thread wait for it, and a guard may be
//! dropped on another thread. So the word that says who has it is our own, and what the kernel is
//! asked is only whether that process lives (`life`).
//!
//! # State
//!
//! | offset | word | written by |
//! |--------|------|------------|
//! | 0      | *holder*: 0, or the life of the process that has it | see below |
//! | 8      | the bell of those who wait: see `sleepers` | sleepers, holder |
//! | 16     | *abandoned*: 1 if the last holder panicked | holder |
//! | 24     | how many holders died or panicked | holder |
//! | 32     | process id of the holder, for people to read | holder |
//!
//! | holder | becomes | by | order |
//! |--------|---------|----|-------|
//! | 0      | me      | whoever replaces it first | Acquire |
//! | me     | 0       | drop of the guard, then a ring | Release |
//! | a dead process | me | whoever replaces it first; it is told | Acquire |
//! | another | stays  | nobody: a holder that is stopped keeps it | |
//!
//! # Invariants
//!
//! 1. Only the process whose life the word has writes 0 to it. A life is never used twice, so the
//!    word cannot become the same again between a look and the replacement.
//! 2. At most one guard of a process exists while the word has its life: within a process, too, the
//!    word goes from 0 to its life for each guard.
//! 3. What a holder wrote is seen by the next: by Release and Acquire; after a death by the kernel,
//!    which says that a process is gone only when its last step is made, and the look is ordered
//!    before the replacement (an Acquire operation on what the dead one wrote).
//! 4. Nobody is woken by a death, so who waits looks every [`Lock::PATIENCE`], which also covers a holder
//!    that dies between letting go and ringing.
//!
//! [`RobustMutex`]: crate::robust::RobustMutex

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

use crate::life::Life;
use crate::memory::Word;
use crate::region::Region;
use crate::sleepers::{Sleep, Sleepers};
use crate::watch::Watch;

/// A lock that all processes of a server know. Cheap to clone; may be used on any thread.
///
/// When a process dies with it, the next owner gets it within [`PATIENCE`](Lock::PATIENCE) and is
/// told ([`LockGuard::owner_died`]), so that it can repair what the lock guards. A process that is
/// merely stopped, or slow, keeps it: nobody can tell a slow owner from a dead one by the clock.
///
/// [`lock`](Lock::lock) leaves the thread to others and is for handlers; it may be held over an
/// await. Two handlers of one worker exclude each other as those of two workers do; a handler that
/// takes the same lock twice waits for itself. [`blocking_lock`](Lock::blocking_lock) is for task
/// workers and other threads that may sleep: on a thread whose other handlers hold the lock over an
/// await, it would stop them from ever letting go.
///
/// Nobody is first in line: who asks at the right moment gets it. If nobody waits, taking and letting
/// go cost less than 100 ns.
#[derive(Clone, Debug)]
pub struct Lock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    word: LockWord,
    life: Arc<Life>,
    watch: Arc<Watch>,
}

/// The lock is held until this is dropped. Dropped by a panic, it tells the next owner.
#[derive(Debug)]
#[must_use = "the lock is let go when this is dropped"]
pub struct LockGuard {
    lock: Lock,
    owner_died: bool,
    panicking: bool,
}

impl Lock {
    /// Bytes that it takes in the region. It has its cache lines to itself.
    pub const BYTES: usize = 128;
    /// Alignment of its offset.
    pub const ALIGN: usize = 128;
    /// How long it takes at most until a waiter sees that the holder has died: 20 ms.
    pub const PATIENCE: Duration = Duration::from_millis(20);

    /// The lock at `offset` of the region that `life` was begun in; zeroed memory is a free lock.
    /// All locks of a process may share one life.
    ///
    /// # Panics
    ///
    /// If the offset is misaligned or outside of the region.
    pub fn attach(life: Arc<Life>, offset: usize) -> Lock {
        let region = life.region().clone();
        assert!(
            offset.is_multiple_of(Self::ALIGN)
                && offset
                    .checked_add(Self::BYTES)
                    .is_some_and(|end| end <= region.len()),
            "a lock at {offset} is misaligned or outside of a region of {} bytes",
            region.len()
        );
        let word = LockWord::attach(region, offset);
        let watch = {
            let (sleepers, word, life) = (word.sleepers.clone(), word.clone(), life.clone());
            let free = move || word.holder().is_none_or(|holder| life.is_over(holder));
            Watch::new(sleepers, Self::PATIENCE, free)
        };
        Lock {
            inner: Arc::new(Inner { word, life, watch }),
        }
    }

    /// Takes the lock if it is free or its holder has died. `None`: it is held.
    pub fn try_lock(&self) -> Option<LockGuard> {
        let Inner { word, life, .. } = &*self.inner;
        let taken = word.try_take(life.number(), |holder| life.is_over(holder))?;
        word.set_pid(life.pid());
        Some(LockGuard {
            lock: self.clone(),
            owner_died: taken.owner_died,
            panicking: thread::panicking(),
        })
    }

    /// Waits until the lock is free, or its holder has died, and takes it. To wait for a limited
    /// time, drop the future: `tokio::time::timeout(limit, lock.lock())`.
    pub async fn lock(&self) -> LockGuard {
        self.inner.watch.until(|| self.try_lock()).await
    }

    /// As [`lock`](Lock::lock), but blocks the thread.
    pub fn blocking_lock(&self) -> LockGuard {
        loop {
            if let Some(guard) = self.blocking_wait(None) {
                return guard;
            }
        }
    }

    /// As [`blocking_lock`](Lock::blocking_lock), for at most `timeout`. `None`: it is over.
    pub fn blocking_lock_for(&self, timeout: Duration) -> Option<LockGuard> {
        self.blocking_wait(Some(timeout))
    }

    /// The process that has it, by its process id. It may be another by the time that this returns.
    pub fn holder(&self) -> Option<u32> {
        let Inner { word, life, .. } = &*self.inner;
        word.holder()
            .filter(|holder| !life.is_over(*holder))
            .map(|_| word.pid())
    }

    /// How many owners have died, or panicked, with it; seen when the next one takes it.
    pub fn deaths(&self) -> u64 {
        self.inner.word.deaths()
    }

    fn blocking_wait(&self, timeout: Option<Duration>) -> Option<LockGuard> {
        let sleepers = &self.inner.word.sleepers;
        sleepers.blocking_until(|| self.try_lock(), timeout, Self::PATIENCE)
    }
}

impl LockGuard {
    /// The last owner did not let go: its process died with the lock, or its code panicked. What the
    /// lock guards may be half changed. Who is told and dies before it lets go leaves the same word
    /// to the next.
    pub fn owner_died(&self) -> bool {
        self.owner_died
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if thread::panicking() && !self.panicking {
            self.lock.inner.word.abandon();
        }
        self.lock.inner.word.release();
    }
}

/// The words of a lock, and who may change them when: see the module's comment. [`Lock`] is what
/// is to be used; this is apart from it so that a model can be explored.
#[derive(Debug)]
pub struct LockWord<M: Sleep = Region> {
    memory: Arc<M>,
    offset: usize,
    sleepers: Sleepers<M>,
}

/// The lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its last holder has died or panicked.
    pub owner_died: bool,
}

impl<M: Sleep> LockWord<M> {
    /// The words at `offset`.
    pub fn attach(memory: Arc<M>, offset: usize) -> Self {
        let sleepers = Sleepers::attach(memory.clone(), offset + BELL);
        LockWord {
            memory,
            offset,
            sleepers,
        }
    }

    /// Takes it for the life `me`, if it is free or `is_over` says that its holder is dead.
    pub fn try_take(&self, me: u64, is_over: impl FnOnce(u64) -> bool) -> Option<Taken> {
        let word = self.word(HOLDER);
        let holder = word.load(Relaxed);
        let died = holder != 0;
        if died && (holder == me || !is_over(holder)) {
            return None;
        }
        if !word.replace(holder, me, Acquire) {
            return None;
        }
        if died {
            self.count_death();
        }
        let abandoned = self.word(ABANDONED);
        let panicked = abandoned.load(Relaxed) != 0;
        if panicked {
            abandoned.store(0, Relaxed);
        }
        Some(Taken {
            owner_died: died || panicked,
        })
    }

    /// Holder: lets it go, and wakes who waits.
    pub fn release(&self) {
        self.word(HOLDER).store(0, Release);
        self.sleepers.ring();
    }

    /// Those who wait for it.
    pub fn sleepers(&self) -> &Sleepers<M> {
        &self.sleepers
    }

    /// Holder: the next one is to be told.
    fn abandon(&self) {
        self.word(ABANDONED).store(1, Relaxed);
        self.count_death();
    }

    fn count_death(&self) {
        let deaths = self.word(DEATHS);
        deaths.store(deaths.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn deaths(&self) -> u64 {
        self.word(DEATHS).load(Relaxed)
    }

    fn holder(&self) -> Option<u64> {
        Some(self.word(HOLDER).load(Relaxed)).filter(|holder| *holder != 0)
    }

    fn set_pid(&self, pid: u32) {
        self.word(PID).store(pid.into(), Relaxed);
    }

    fn pid(&self) -> u32 {
        self.word(PID).load(Relaxed) as u32
    }

    fn word(&self, at: usize) -> &M::Word {
        self.memory.word(self.offset + at)
    }
}

impl<M: Sleep> Clone for LockWord<M> {
    fn clone(&self) -> Self {
        LockWord {
            memory: self.memory.clone(),
            offset: self.offset,
            sleepers: self.sleepers.clone(),
        }
    }
}

// Offsets of the words.
const HOLDER: usize = 0;
const BELL: usize = 8;
const ABANDONED: usize = 16;
const DEATHS: usize = 24;
const PID: usize = 32;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const LIVES: usize = 0;
    const LOCK: usize = 128;

    /// The same lock, as two processes have it.
    fn locks() -> (Lock, Lock) {
        let region = Region::create("lock", 1, 4096).unwrap();
        let other = Region::attach(region.fd().try_clone_to_owned().unwrap(), 1).unwrap();
        let lock = |region| Lock::attach(Life::begin(region, LIVES).unwrap(), LOCK);
        (lock(region), lock(other))
    }

    /// As if the process had died with it.
    fn die_with(lock: Lock) {
        let taken = lock
            .inner
            .word
            .try_take(lock.inner.life.number(), |_| false);
        assert!(taken.is_some());
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_holder_at_a_time_between_processes_and_within_one() {
        let (one, other) = locks();
        let held = one.try_lock().unwrap();
        assert!(!held.owner_died());
        assert!(one.try_lock().is_none() && other.try_lock().is_none());
        assert_eq!(other.holder(), Some(std::process::id()));
        drop(held);
        assert_eq!(one.holder(), None);
        assert!(!other.try_lock().unwrap().owner_died());
    }
    #[test]
    fn the_next_owner_is_told_once_that_the_last_one_died() {
        let (one, other) = locks();
        die_with(other);
        assert_eq!(one.holder(), None, "a dead process holds nothing");
        assert!(one.try_lock().unwrap().owner_died());
        assert!(!one.try_lock().unwrap().owner_died());
        assert_eq!(one.deaths(), 1);
    }

    #[test]
    fn who_waits_gets_it_from_the_dead() {
        let (one, other) = locks();
        die_with(other);
        assert!(one.blocking_lock().owner_died());
        let (one, other) = locks();
        thread::scope(|scope| {
            let held = one.blocking_lock();
            let waiter = scope.spawn(|| other.blocking_lock().owner_died());
            drop(held);
            assert!(!waiter.join().unwrap());
        });
    }

    #[test]
    fn a_panic_with_the_lock_is_told_to_the_next_owner() {
        let (one, other) = locks();
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let _held = one.blocking_lock();
            panic!("with the lock");
        }));
        assert!(other.try_lock().unwrap().owner_died());
        assert!(!other.try_lock().unwrap().owner_died());
        assert_eq!(other.deaths(), 1);
    }

    #[test]
    fn waiting_ends_with_its_time() {
        let (one, other) = locks();
        let held = one.blocking_lock();
        let short = Duration::from_millis(10);
        assert!(other.blocking_lock_for(short).is_none());
        drop(held);
        assert!(other.blocking_lock_for(Duration::ZERO).is_some());
    }

    #[test]
    fn handlers_of_one_thread_wait_for_one_another_without_blocking_it() {
        let (one, _) = locks();
        let held = one.try_lock().unwrap();
        let mut first = pin!(one.lock());
        let mut second = pin!(one.lock());
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        drop(held);
        let Poll::Ready(held) = poll(second.as_mut()) else {
            panic!("it is free")
        };
        assert!(poll(first.as_mut()).is_pending());
        drop(held);
        assert!(poll(first.as_mut()).is_ready());
    }

    #[test]
    fn a_future_that_is_dropped_has_taken_nothing() {
        let (one, other) = locks();
        let held = other.try_lock().unwrap();
        {
            let mut given_up = pin!(one.lock());
            assert!(poll(given_up.as_mut()).is_pending());
        }
        drop(held);
        assert!(other.try_lock().is_some());
    }

    #[test]
    fn guards_may_go_to_other_threads() {
        fn is_send<T: Send>(_: &T) {}
        let (one, _) = locks();
        is_send(&one.lock());
        let guard = one.try_lock().unwrap();
        thread::spawn(move || drop(guard)).join().unwrap();
        assert!(one.try_lock().is_some());
    }
}
