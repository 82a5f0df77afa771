//! Sleeping until something in shared memory changes.
//!
//! Who changes a word makes a system call only if somebody said that it sleeps. [`Counter`] and
//! [`Lock`] wait by it.
//!
//! # State
//!
//! One shared 32-bit word, the *bell*, that the kernel can put threads to sleep on (a futex). Odd:
//! somebody sleeps, or is about to; even: nobody. Each number stands for one stretch of sleep.
//!
//! | who     | does                                                                            |
//! |---------|---------------------------------------------------------------------------------|
//! | sleeper | sets the lowest bit, keeps the result as its *ticket*; fence(SeqCst); looks at what it waits for; sleeps if the bell still is its ticket |
//! | changer | changes the word; fence(SeqCst); loads the bell; if odd: replaces *this* number by the even one behind it, wakes all |
//!
//! Accesses of the bell are Relaxed: the fences order.
//!
//! # Invariants
//!
//! 1. The bell only moves on: odd numbers are left by a changer, even ones by a sleeper. So a bell
//!    that is another than the ticket says that there was a change.
//! 2. No wake-up is lost while all live. The two fences are in one total order. If the changer's is
//!    first, the sleeper's look sees the change. If the sleeper's is first, the changer sees the
//!    ticket, and moves the bell before it wakes; or it sees an even number behind it, and then
//!    another changer has moved the bell. Either way the kernel, which compares under its own lock,
//!    lets nobody sleep on the old number, and wakes who does.
//! 3. A changer that dies between its change and the end of the wake-up may leave sleepers behind.
//!    A futex is not sticky, as a doorbell's eventfd is; so nobody sleeps for longer than a limit
//!    that whoever calls [`Sleepers::sleep`] states, and looks again.
//! 4. A sleeper that dies leaves an odd number: the next change makes one system call too many.
//!
//! [`Counter`]: crate::Counter
//! [`Lock`]: crate::Lock

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::futex;

use crate::memory::Memory;
use crate::region::Region;

/// Memory with words to sleep on.
pub trait Sleep: Memory {
    /// A 32-bit word.
    type Futex: Futex;

    /// The word at `offset`, a multiple of 4. It is never accessed as [`Memory::word`].
    fn futex(&self, offset: usize) -> &Self::Futex;
}

/// A word that threads of several processes can sleep on. All accesses are relaxed.
pub trait Futex {
    /// The value.
    fn load(&self) -> u32;
    /// Sets bits; returns the value before.
    fn set(&self, bits: u32) -> u32;
    /// Stores `new` if the value is `current`.
    fn replace(&self, current: u32, new: u32);
    /// Sleeps if the value is `expected`, until it is woken or the time is over, or for less.
    fn sleep(&self, expected: u32, at_most: Duration);
    /// Wakes all who sleep.
    fn wake(&self);
}

/// Those who sleep until something changes. See the module's comment.
#[derive(Debug)]
pub struct Sleepers<M: Sleep = Region> {
    memory: Arc<M>,
    /// Of the bell.
    offset: usize,
}

/// What the bell was when somebody decided to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

impl<M: Sleep> Sleepers<M> {
    /// The bell at `offset`, a word that was 0 at first.
    ///
    /// # Panics
    ///
    /// If the word is misaligned or not inside the memory.
    pub fn attach(memory: Arc<M>, offset: usize) -> Self {
        memory.futex(offset);
        Sleepers { memory, offset }
    }

    /// Sleeper: call it, then look at what is waited for, and only then [`Sleepers::sleep`].
    pub fn announce(&self) -> Ticket {
        let ticket = Ticket(self.bell().set(1) | 1);
        M::fence(Ordering::SeqCst);
        ticket
    }

    /// Sleeper: sleeps until there was a change since the ticket was taken, or for less.
    pub fn sleep(&self, ticket: Ticket, at_most: Duration) {
        self.bell().sleep(ticket.0, at_most);
    }

    /// Changer: call it after every change.
    #[inline]
    pub fn ring(&self) {
        M::fence(Ordering::SeqCst);
        let bell = self.bell().load();
        if !bell.is_multiple_of(2) {
            self.wake(bell);
        }
    }

    #[cold]
    fn wake(&self, bell: u32) {
        self.bell().replace(bell, bell.wrapping_add(1));
        // Also if another was faster: it may die before it wakes them.
        self.bell().wake();
    }

    #[inline]
    fn bell(&self) -> &M::Futex {
        self.memory.futex(self.offset)
    }
}

impl<M: Sleep> Clone for Sleepers<M> {
    fn clone(&self) -> Self {
        Sleepers {
            memory: self.memory.clone(),
            offset: self.offset,
        }
    }
}

impl Sleep for Region {
    type Futex = AtomicU32;

    #[inline]
    fn futex(&self, offset: usize) -> &AtomicU32 {
        self.word32(offset)
    }
}

impl Futex for AtomicU32 {
    #[inline]
    fn load(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }

    fn set(&self, bits: u32) -> u32 {
        self.fetch_or(bits, Ordering::Relaxed)
    }

    fn replace(&self, current: u32, new: u32) {
        // If it was another by now, somebody else has done it.
        let _ = self.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn sleep(&self, expected: u32, at_most: Duration) {
        let at_most = futex::Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // Not private: others map the word elsewhere. However it ends, the caller looks again.
        let _ = futex::wait(self, futex::Flags::empty(), expected, Some(&at_most));
    }

    fn wake(&self) {
        // It fails only for addresses that are none.
        let _ = futex::wake(self, futex::Flags::empty(), i32::MAX as u32);
    }
}
