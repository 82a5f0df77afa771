//! What the models have in common.

use std::sync::atomic::Ordering;

use gannet_shm::Word;
use loom::sync::atomic::AtomicU64;

/// A word of memory whose every allowed value loom tries.
#[derive(Default)]
pub(crate) struct ModelWord(AtomicU64);

impl Word for ModelWord {
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
