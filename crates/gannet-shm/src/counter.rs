//! A number that all processes change and wait for.
//!
//! # State
//!
//! | offset | word | written by |
//! |--------|------|------------|
//! | 0      | the value, an `i64` | anybody, by one atomic operation |
//! | 8      | the bell of those who sleep: see `sleepers` | sleepers and changers |
//!
//! Every operation on the value is one instruction, so that no death can leave it half done.
//! They are `SeqCst`: what a process did before it changed a counter is seen by whoever sees the
//! change, and all processes see the changes of several counters in one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::region::Region;
use crate::sleepers::Sleepers;
use crate::watch::Watch;

/// A number in shared memory. Cheap to clone; may be used on any thread.
///
/// Sums wrap around at the ends of `i64`. Every change of the value wakes those who wait for it;
/// while nobody waits, that costs one memory fence.
///
/// Waiting has two forms. The `async` one leaves the thread to others and is for handlers. It
/// takes one thread for each counter that this process waits for, and ends when its future is
/// dropped (`tokio::time::timeout` gives it a time limit). The one that begins with `blocking` is for
/// task workers and other threads that may sleep.
///
/// Who waits sees *a* value that it waited for, not each: two changes that come close together
/// may be seen as one. A wake-up takes 10 to 50 µs; if the process that made the change is killed
/// in the middle of it, up to a second.
#[derive(Clone, Debug)]
pub struct Counter {
    region: Arc<Region>,
    offset: usize,
    sleepers: Sleepers,
    watch: Arc<Watch>,
}

impl Counter {
    /// Bytes that it takes in the region. It has its cache lines to itself.
    pub const BYTES: usize = 128;
    /// Alignment of its offset.
    pub const ALIGN: usize = 128;

    /// The counter at `offset`; zeroed memory is a counter with value 0.
    ///
    /// # Panics
    ///
    /// If the offset is misaligned or outside of the region.
    pub fn attach(region: Arc<Region>, offset: usize) -> Counter {
        assert!(
            offset.is_multiple_of(Self::ALIGN)
                && offset
                    .checked_add(Self::BYTES)
                    .is_some_and(|end| end <= region.len()),
            "a counter at {offset} is misaligned or outside of a region of {} bytes",
            region.len()
        );
        let sleepers = Sleepers::attach(region.clone(), offset + BELL);
        Counter {
            region,
            offset,
            watch: Watch::new(sleepers.clone(), PATIENCE, || true),
            sleepers,
        }
    }

    /// The value.
    #[inline]
    pub fn load(&self) -> i64 {
        self.value().load(SeqCst).cast_signed()
    }

    /// Sets the value.
    pub fn store(&self, value: i64) {
        self.swap(value);
    }

    /// Sets the value; returns the one before.
    pub fn swap(&self, value: i64) -> i64 {
        let before = self.value().swap(value.cast_unsigned(), SeqCst);
        self.changed(before.cast_signed(), value)
    }

    /// Adds; returns the sum.
    #[inline]
    pub fn add(&self, amount: i64) -> i64 {
        let before = self.value().fetch_add(amount.cast_unsigned(), SeqCst);
        let before = before.cast_signed();
        let after = before.wrapping_add(amount);
        self.changed(before, after);
        after
    }

    /// Subtracts; returns the difference.
    #[inline]
    pub fn sub(&self, amount: i64) -> i64 {
        self.add(amount.wrapping_neg())
    }

    /// Sets the value to `new` if it is `current`. `Err` has the value if it is another.
    pub fn compare_exchange(&self, current: i64, new: i64) -> Result<i64, i64> {
        let (from, to) = (current.cast_unsigned(), new.cast_unsigned());
        match self.value().compare_exchange(from, to, SeqCst, SeqCst) {
            Ok(_) => Ok(self.changed(current, new)),
            Err(other) => Err(other.cast_signed()),
        }
    }

    /// Sets the value to what `change` makes of it, which is called again if another process was
    /// faster; returns the one before. `Err` has the value if `change` returned `None`.
    pub fn fetch_update(&self, mut change: impl FnMut(i64) -> Option<i64>) -> Result<i64, i64> {
        let mut value = self.load();
        while let Some(new) = change(value) {
            match self.compare_exchange(value, new) {
                Ok(before) => return Ok(before),
                Err(other) => value = other,
            }
        }
        Err(value)
    }

    /// Raises the value to `value` if it is below; returns the one before.
    pub fn fetch_max(&self, value: i64) -> i64 {
        self.fetch_update(|before| (before < value).then_some(value))
            .unwrap_or_else(|before| before)
    }

    /// Lowers the value to `value` if it is above; returns the one before.
    pub fn fetch_min(&self, value: i64) -> i64 {
        self.fetch_update(|before| (before > value).then_some(value))
            .unwrap_or_else(|before| before)
    }

    /// Waits while the value is `value`; returns the other one.
    pub async fn wait_while(&self, value: i64) -> i64 {
        self.wait_for(|now| now != value).await
    }

    /// Waits until `wanted` likes the value, and returns that.
    pub async fn wait_for(&self, mut wanted: impl FnMut(i64) -> bool) -> i64 {
        // A future looks through a reference that need not be pinned.
        let wanted = &mut wanted;
        self.watch
            .until(|| Some(self.load()).filter(|value| wanted(*value)))
            .await
    }

    /// Blocks the thread while the value is `value`; returns the other one. `None`: `timeout` has
    /// passed. Without a timeout it waits for ever.
    pub fn blocking_wait_while(&self, value: i64, timeout: Option<Duration>) -> Option<i64> {
        self.blocking_wait_for(|now| now != value, timeout)
    }

    /// Blocks the thread until `wanted` likes the value, and returns that. `None`: `timeout` has
    /// passed. Without a timeout it waits for ever.
    pub fn blocking_wait_for(
        &self,
        mut wanted: impl FnMut(i64) -> bool,
        timeout: Option<Duration>,
    ) -> Option<i64> {
        let look = || Some(self.load()).filter(|value| wanted(*value));
        self.sleepers.blocking_until(look, timeout, PATIENCE)
    }

    /// Lets all who wait look at the value once more: for conditions that other things are part of.
    pub fn notify(&self) {
        self.sleepers.ring();
    }

    /// Returns `before`.
    #[inline]
    fn changed(&self, before: i64, after: i64) -> i64 {
        if before != after {
            self.sleepers.ring();
        }
        before
    }

    #[inline]
    fn value(&self) -> &AtomicU64 {
        self.region.word(self.offset)
    }
}

impl Sleepers {
    /// Blocks the thread until `look` has found something, or `timeout` has passed. It is called at
    /// least once, after every change, and at least every `pause`.
    pub(crate) fn blocking_until<T>(
        &self,
        mut look: impl FnMut() -> Option<T>,
        timeout: Option<Duration>,
        pause: Duration,
    ) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        // A time that the clock cannot hold is as good as none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let ticket = self.announce();
            if let Some(found) = look() {
                return Some(found);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            self.sleep(ticket, left.map_or(pause, |left| left.min(pause)));
        }
    }
}

/// Offset of the bell.
const BELL: usize = 8;
/// How long anyone sleeps without looking: the one who made the change may have died before it
/// woke those who wait.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Wake, Waker};
    use std::thread;

    use super::*;

    fn counters() -> (Counter, Counter) {
        let region = Region::create("counter", 1, 4096).unwrap();
        let fd = region.fd().try_clone_to_owned().unwrap();
        let other = Region::attach(fd, 1).unwrap();
        (Counter::attach(region, 128), Counter::attach(other, 128))
    }

    /// A runtime of one future: parks the thread between polls.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        struct Unpark(thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = pin!(future);
        loop {
            if let std::task::Poll::Ready(value) =
                future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return value;
            }
            thread::park();
        }
    }

    #[test]
    fn both_sides_see_one_number() {
        let (one, other) = counters();
        assert_eq!(one.add(5), 5);
        assert_eq!(other.sub(7), -2);
        assert_eq!(one.load(), -2);
        assert_eq!(one.swap(3), -2);
        assert_eq!(other.compare_exchange(3, 4), Ok(3));
        assert_eq!(other.compare_exchange(3, 5), Err(4));
        assert_eq!((one.fetch_max(9), one.fetch_max(2)), (4, 9));
        assert_eq!((one.fetch_min(20), one.fetch_min(-1)), (9, 9));
        assert_eq!(other.load(), -1);
        assert_eq!(other.fetch_update(|_| None), Err(-1));
    }

    #[test]
    fn sums_wrap_around() {
        let (one, _) = counters();
        one.store(i64::MAX);
        assert_eq!(one.add(1), i64::MIN);
        assert_eq!(one.sub(i64::MIN), 0);
    }

    #[test]
    fn a_blocked_thread_is_woken_by_a_change() {
        let (one, other) = counters();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| one.blocking_wait_for(|value| value >= 3, None));
            for _ in 0..3 {
                other.add(1);
            }
            assert_eq!(waiter.join().unwrap(), Some(3));
        });
    }

    #[test]
    fn waiting_ends_with_its_time() {
        let (one, _) = counters();
        let short = Some(Duration::from_millis(10));
        assert_eq!(one.blocking_wait_while(0, short), None);
        assert_eq!(one.blocking_wait_while(1, short), Some(0));
        assert_eq!(
            one.blocking_wait_while(1, Some(Duration::MAX)),
            Some(0),
            "a time without an end"
        );
    }

    #[test]
    fn a_future_is_woken_by_each_change_until_it_is_content() {
        let (one, other) = counters();
        let changer = thread::spawn(move || {
            for _ in 0..1_000 {
                other.add(1);
            }
        });
        assert_eq!(block_on(one.wait_for(|value| value == 1_000)), 1_000);
        changer.join().unwrap();
    }

    #[test]
    fn many_futures_wait_for_one_counter_and_one_of_them_gives_up() {
        let (one, other) = counters();
        thread::scope(|scope| {
            let waiters: Vec<_> = (1..5)
                .map(|wanted| scope.spawn(move || wanted))
                .map(|wanted| wanted.join().unwrap())
                .map(|wanted| {
                    let one = one.clone();
                    scope.spawn(move || block_on(one.wait_for(move |value| value >= wanted)))
                })
                .collect();
            {
                let mut given_up = pin!(one.wait_while(0));
                let polled = given_up
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
            }
            for _ in 0..4 {
                other.add(1);
            }
            for waiter in waiters {
                assert!(waiter.join().unwrap() >= 1);
            }
        });
    }

    #[test]
    fn notify_lets_a_waiter_look_again() {
        let (one, other) = counters();
        let open = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| one.blocking_wait_for(|_| open.load(SeqCst), None));
            open.store(true, SeqCst);
            other.notify();
            assert_eq!(waiter.join().unwrap(), Some(0));
        });
    }

    #[test]
    #[should_panic(expected = "outside of a region")]
    fn refuse_a_counter_outside_of_the_region() {
        let region = Region::create("counter", 1, 4096).unwrap();
        Counter::attach(region, 4096);
    }
}
