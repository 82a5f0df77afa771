//! A mutex in shared memory that survives its holder.
//!
//! It is the system's own: a process-shared, robust POSIX mutex. When a thread that holds it dies,
//! with or without its process and at any instruction, the kernel hands it to the next who asks,
//! and says so ([`Locked::owner_died`]). A holder that is merely stopped keeps it: nobody can tell
//! a slow owner from a dead one by the clock, so nobody tries.
//!
//! # States
//!
//! | state  | left by | to |
//! |--------|---------|----|
//! | free   | [`RobustMutex::lock`], [`RobustMutex::try_lock`] | held |
//! | held   | drop of [`Locked`] | free |
//! | held   | death of the holder | orphaned |
//! | orphaned | the next `lock` or `try_lock`, which says `owner_died` | held |
//!
//! Who gets an orphaned mutex repairs what it guards *before* it lets go; if it dies over that, the
//! next one is told again.
//!
//! The same thread cannot lock it twice: that is an error, not a deadlock.
//!
//! # Rules for the rest of the crate
//!
//! The C library keeps a list of the mutexes that a thread holds, through the mutexes themselves. So
//! this is not for users of the crate:
//!
//! 1. `create` comes once for an offset, before anybody else knows the region; `attach` is for offsets
//!    that it was called for. No word of the mutex is accessed otherwise.
//! 2. A [`Locked`] is dropped by the thread that has it, and before the region is unmapped. Whoever
//!    leaks one (`mem::forget`) and then lets the region go leaves a hole in that list, into which the
//!    thread's next lock writes. So no guard ever leaves the table, which gives closures to users.

#![allow(
    unsafe_code,
    reason = "POSIX mutexes have no safe interface, in rustix or elsewhere"
)]

use std::cell::UnsafeCell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::region::Region;

/// A robust mutex at an offset of a region.
#[derive(Clone, Debug)]
pub(crate) struct RobustMutex {
    region: Arc<Region>,
    offset: usize,
}

/// The mutex is held by this thread until this is dropped.
#[derive(Debug)]
#[must_use = "the mutex is let go when this is dropped"]
pub(crate) struct Locked<'a> {
    mutex: &'a RobustMutex,
    owner_died: bool,
    /// A POSIX mutex is unlocked by the thread that locked it: not `Send`.
    thread: PhantomData<*mut ()>,
}

/// Why a mutex could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The calling thread holds it already.
    #[error("this thread holds the lock already: a second time would wait for itself")]
    Reentrant,
    /// The system refused: the memory is not that of a lock, or was overwritten.
    #[error("the lock cannot be taken: {0}")]
    System(io::Error),
}

impl RobustMutex {
    /// Bytes that it takes in the region. What is behind them in its cache line is for words that
    /// its holders need: who takes the lock has that line.
    pub(crate) const BYTES: usize = 48;
    /// Alignment of its offset.
    pub(crate) const ALIGN: usize = 64;

    /// Makes a mutex at `offset`, once, before any other process knows the region.
    ///
    /// # Errors
    ///
    /// If the system does not have robust mutexes that processes share.
    ///
    /// # Panics
    ///
    /// If the offset is misaligned or outside of the region.
    pub(crate) fn create(region: Arc<Region>, offset: usize) -> io::Result<RobustMutex> {
        let mutex = RobustMutex::attach(region, offset);
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised by the first call before the others see them, and
        // destroyed after the last. The mutex is inside the mapping and aligned (`attach` has seen
        // to that), and nobody else knows the region yet.
        unsafe {
            done(libc::pthread_mutexattr_init(attributes))?;
            let made = done(libc::pthread_mutexattr_setpshared(
                attributes,
                libc::PTHREAD_PROCESS_SHARED,
            ))
            .and_then(|()| {
                done(libc::pthread_mutexattr_setrobust(
                    attributes,
                    libc::PTHREAD_MUTEX_ROBUST,
                ))
            })
            .and_then(|()| {
                done(libc::pthread_mutexattr_settype(
                    attributes,
                    libc::PTHREAD_MUTEX_ERRORCHECK,
                ))
            })
            .and_then(|()| done(libc::pthread_mutex_init(mutex.raw(), attributes)));
            libc::pthread_mutexattr_destroy(attributes);
            made?;
        }
        Ok(mutex)
    }

    /// The mutex that [`RobustMutex::create`] made at `offset`.
    ///
    /// # Panics
    ///
    /// If the offset is misaligned or outside of the region.
    pub(crate) fn attach(region: Arc<Region>, offset: usize) -> RobustMutex {
        assert!(
            offset.is_multiple_of(Self::ALIGN) && offset + Self::BYTES <= region.len(),
            "a mutex at {offset} is misaligned or outside of a region of {} bytes",
            region.len()
        );
        RobustMutex { region, offset }
    }

    /// Waits until the mutex is free, or its holder has died, and takes it.
    #[inline]
    pub(crate) fn lock(&self) -> Result<Locked<'_>, LockError> {
        // SAFETY: the mutex was made by `create` (rule 1); the region lives as long as `self`, and so
        // as long as the guard, which nobody leaks (rule 2).
        self.locked(unsafe { libc::pthread_mutex_lock(self.raw()) })
    }

    /// Takes the mutex if it is free or its holder has died. `None`: it is held.
    #[inline]
    pub(crate) fn try_lock(&self) -> Result<Option<Locked<'_>>, LockError> {
        // SAFETY: as in `lock`.
        match unsafe { libc::pthread_mutex_trylock(self.raw()) } {
            libc::EBUSY => Ok(None),
            code => self.locked(code).map(Some),
        }
    }

    #[inline]
    fn locked(&self, code: i32) -> Result<Locked<'_>, LockError> {
        let owner_died = code != 0;
        if owner_died {
            self.inherited(code)?;
        }
        Ok(Locked {
            mutex: self,
            owner_died,
            thread: PhantomData,
        })
    }

    /// It was taken from a holder that died, or could not be taken.
    #[cold]
    fn inherited(&self, code: i32) -> Result<(), LockError> {
        match code {
            libc::EOWNERDEAD => {
                // SAFETY: this thread has the mutex, as EOWNERDEAD says.
                done(unsafe { libc::pthread_mutex_consistent(self.raw()) })
                    .map_err(LockError::System)
            }
            libc::EDEADLK => Err(LockError::Reentrant),
            code => Err(LockError::System(io::Error::from_raw_os_error(code))),
        }
    }

    #[inline]
    fn raw(&self) -> *mut libc::pthread_mutex_t {
        self.region.cells(self.offset, Self::BYTES).cast()
    }
}

impl Locked<'_> {
    /// The last holder died with the mutex: what it guards may be half changed.
    #[inline]
    pub(crate) fn owner_died(&self) -> bool {
        self.owner_died
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this thread locked it (the guard is not `Send`), and the region lives as long
        // as the mutex that the guard borrows.
        let code = unsafe { libc::pthread_mutex_unlock(self.mutex.raw()) };
        debug_assert_eq!(code, 0, "unlock of a mutex that is not held");
    }
}

fn done(code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

const _: () = assert!(
    size_of::<libc::pthread_mutex_t>() <= RobustMutex::BYTES
        && align_of::<UnsafeCell<libc::pthread_mutex_t>>() <= RobustMutex::ALIGN
);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn mutex() -> RobustMutex {
        let region = Region::create("mutex", 1, 4096).unwrap();
        RobustMutex::create(region, 64).unwrap()
    }

    #[test]
    fn one_holder_at_a_time() {
        let mutex = mutex();
        let held = mutex.lock().unwrap();
        thread::scope(|scope| {
            let other = scope.spawn(|| mutex.try_lock().unwrap().is_none());
            assert!(other.join().unwrap());
        });
        drop(held);
        assert!(!mutex.try_lock().unwrap().unwrap().owner_died());
    }

    #[test]
    fn a_thread_that_holds_it_is_told_instead_of_waiting_for_itself() {
        let mutex = mutex();
        let held = mutex.lock().unwrap();
        assert!(matches!(mutex.lock(), Err(LockError::Reentrant)));
        drop(held);
        assert!(mutex.lock().is_ok());
    }

    #[test]
    fn the_next_owner_is_told_once_that_the_last_one_died() {
        let mutex = mutex();
        thread::scope(|scope| {
            scope.spawn(|| std::mem::forget(mutex.lock().unwrap()));
        });
        assert!(mutex.lock().unwrap().owner_died());
        assert!(!mutex.lock().unwrap().owner_died());
    }

    #[test]
    fn who_waits_gets_it_when_the_holder_dies() {
        let mutex = mutex();
        let (held, holds) = mpsc::channel();
        thread::scope(|scope| {
            let holder = scope.spawn(|| {
                std::mem::forget(mutex.lock().unwrap());
                held.send(()).unwrap();
            });
            holds.recv().unwrap();
            assert!(mutex.lock().unwrap().owner_died());
            holder.join().unwrap();
        });
    }
}
