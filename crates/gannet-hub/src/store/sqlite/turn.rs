//! Turns of the processes that write.
//!
//! SQLite lets one write at a time, but who waits looks again only now and then, up to 100 ms apart,
//! and whoever looks at the right moment is next. So the writers of a store queue at a lock file
//! first, where the kernel wakes the one that has waited longest, at once. It is a matter of speed
//! alone: that there is one writer at a time is still SQLite's business.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
    sync::Arc,
};

use super::BUSY_TIMEOUT;
use crate::store::StoreError;

/// The queue of a store's writers.
pub(super) struct Turns(Arc<File>);

/// This process's turn; ends when dropped, or with the process.
pub(super) struct Turn(Arc<File>);

impl Turns {
    /// The queue at this file, which is made if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)?;
        Ok(Turns(Arc::new(file)))
    }

    /// Waits until it is this process's turn. Not for two tasks of a process at once.
    pub(super) async fn take(&self) -> Result<Turn, StoreError> {
        match self.0.try_lock() {
            Ok(()) => return Ok(Turn(Arc::clone(&self.0))),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let file = Arc::clone(&self.0);
        let queue = tokio::task::spawn_blocking(move || {
            file.lock()?;
            Ok(Turn(file))
        });
        // Given up, the thread in the queue takes its turn later and gives it back at once.
        match tokio::time::timeout(BUSY_TIMEOUT, queue).await {
            Ok(turn) => turn
                .map_err(io::Error::other)
                .flatten()
                .map_err(|error| failed(&error)),
            Err(_) => Err(StoreError::Busy),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::error!(%error, "the lock of the writers was not given back");
        }
    }
}

fn failed(error: &io::Error) -> StoreError {
    StoreError::Other(format!("the lock of the writers: {error}"))
}
