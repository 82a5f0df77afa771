//! Waking a consumer only when it sleeps.
//!
//! An eventfd write costs about as much as a thousand ring records, so a producer makes it only
//! if the consumer has said that it is going to sleep.
//!
//! # State
//!
//! One shared word, `waiting`: a ticket. Odd: the consumer sleeps, or is about to; even: it is
//! awake. Each time the consumer goes to sleep it takes an odd number that was never used before.
//!
//! | who      | does                                                                           |
//! |----------|--------------------------------------------------------------------------------|
//! | consumer | swaps in the next odd ticket; fence(SeqCst); looks at every ring; sleeps if all are empty |
//! | producer | `head = …` (Release); fence(SeqCst); loads `waiting`; if odd: writes the eventfd, then replaces *this* ticket by the even number behind it |
//! | consumer | awake again: nothing if it was rung, otherwise swaps in the even number          |
//!
//! Accesses of the word itself are Relaxed: the fences order. The consumer swaps where a store
//! would do, so that all changes form one chain, each made on the one before it.
//!
//! # Why no wake-up is lost
//!
//! Lost would mean: the consumer saw the old `head` and sleeps, *and* the producer saw an even
//! ticket. The two fences are in one total order. If the producer's is first, the consumer's
//! re-check sees the new head. If the consumer's is first, the producer's load sees its ticket or
//! what came after it: an even number only if another producer has replaced that very ticket, and
//! it had written the eventfd before. Without either fence both sides may read old values: each
//! store can wait in its processor's store buffer while the load behind it is done.
//!
//! # Why it survives the death of a producer
//!
//! The producer writes the eventfd *before* it replaces the ticket. Where it dies or is stopped in
//! between, or before the write, the ticket stays odd and the next producer writes the eventfd
//! (again). Were it the other way round, a producer that dies in between would leave a sleeper
//! that everybody takes for awake. A late replacement cannot hit a later sleep, because its
//! ticket is another one. The price is that two producers at the same time may both write.
//!
//! A producer that dies between `publish` and `ring` has woken nobody: its successor rings once
//! when it has attached.
//!
//! A consumer that dies asleep leaves an odd ticket: the next ring writes the eventfd, and the
//! successor, which inherits it, finds it readable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::EventfdFlags;

use crate::memory::{Memory, Word};
use crate::region::Region;

/// Wakes one consumer (a process or a thread), which may read many rings. Each side has its own
/// value for the same word and the same eventfd.
#[derive(Debug)]
pub struct Doorbell<M: Memory = Region, B: Bell = OwnedFd> {
    memory: Arc<M>,
    /// Of the word `waiting`.
    offset: usize,
    bell: B,
}

/// What makes a sleeping consumer's descriptor readable.
pub trait Bell {
    /// Wakes the consumer.
    fn strike(&self);
}

impl Doorbell {
    /// Bytes in the region, at a multiple of 128: the word has its lines to itself.
    pub const BYTES: usize = 128;

    /// Makes the eventfd (close-on-exec, non-blocking) for the word at `offset`.
    pub fn create(region: Arc<Region>, offset: usize) -> io::Result<Doorbell> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Doorbell::attach(
            region,
            offset,
            rustix::event::eventfd(0, flags)?,
        ))
    }

    /// The eventfd: readable when rung. Registered edge-triggered it need never be drained.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Makes the eventfd unreadable again. Call it before looking at the rings, not between
    /// [`Doorbell::prepare_sleep`] and sleeping: it would swallow the ring.
    pub fn drain(&self) {
        // It fails only if there was nothing to drain.
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&self.bell, &mut [0u8; 8]));
    }
}

impl<M: Memory, B: Bell> Doorbell<M, B> {
    /// The doorbell at `offset`, with an eventfd that was inherited or passed.
    ///
    /// # Panics
    ///
    /// If the word is misaligned or not inside the region.
    pub fn attach(region: Arc<M>, offset: usize, bell: B) -> Doorbell<M, B> {
        region.word(offset);
        Doorbell {
            memory: region,
            offset,
            bell,
        }
    }

    /// Producer: call it after [`Producer::publish`](crate::Producer::publish). Says whether the
    /// consumer had to be woken.
    #[inline]
    pub fn ring(&self) -> bool {
        M::fence(Ordering::SeqCst);
        let waiting = self.memory.word(self.offset);
        let ticket = waiting.load(Ordering::Relaxed);
        if ticket.is_multiple_of(2) {
            return false;
        }
        self.bell.strike();
        waiting.replace(ticket, ticket.wrapping_add(1), Ordering::Relaxed);
        true
    }

    /// Consumer: call it, then look at every ring once more, and only then sleep.
    pub fn prepare_sleep(&self) {
        let waiting = self.memory.word(self.offset);
        let next = waiting.load(Ordering::Relaxed).wrapping_add(2) | 1;
        waiting.swap(next, Ordering::Relaxed);
        M::fence(Ordering::SeqCst);
    }

    /// Consumer: awake for another reason, or there was something to read after all. After
    /// having been rung it is not needed and does no harm.
    pub fn cancel_sleep(&self) {
        let waiting = self.memory.word(self.offset);
        let ticket = waiting.load(Ordering::Relaxed);
        if !ticket.is_multiple_of(2) {
            waiting.swap(ticket.wrapping_add(1), Ordering::Relaxed);
        }
    }
}

impl Bell for OwnedFd {
    fn strike(&self) {
        // EAGAIN means that the counter is at its maximum: the consumer has been woken 2^64
        // times and looked at none. Other errors cannot happen to an eventfd.
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(self, &1u64.to_ne_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn doorbell() -> (Doorbell, Doorbell) {
        let region = Region::create("bell", 1, Doorbell::BYTES).unwrap();
        let consumer = Doorbell::create(region.clone(), 0).unwrap();
        let fd = consumer.fd().try_clone_to_owned().unwrap();
        (Doorbell::attach(region, 0, fd), consumer)
    }

    fn readable(bell: &Doorbell) -> bool {
        let fd = bell.fd();
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&zero)).unwrap() == 1
    }

    #[test]
    fn only_a_consumer_that_sleeps_is_woken_and_once() {
        let (producer, consumer) = doorbell();
        assert!(!producer.ring() && !readable(&consumer));
        consumer.prepare_sleep();
        assert!(producer.ring() && readable(&consumer));
        assert!(!producer.ring());
        consumer.drain();
        assert!(!readable(&consumer));
        consumer.drain();
    }

    #[test]
    fn a_cancelled_sleep_is_not_rung() {
        let (producer, consumer) = doorbell();
        consumer.prepare_sleep();
        consumer.cancel_sleep();
        assert!(!producer.ring() && !readable(&consumer));
    }

    #[test]
    fn the_bell_is_closed_on_exec() {
        let flags = rustix::io::fcntl_getfd(doorbell().0.fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
