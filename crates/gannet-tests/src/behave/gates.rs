//! Waiting at a gate (`crate::gate`) until the test opens it.

use std::{path::Path, thread, time::Duration};

/// Lets the thread do other things meanwhile.
pub(super) async fn wait_at(gate: &str) {
    while !Path::new(gate).exists() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Blocks the thread.
pub(super) fn block_at(gate: &str) {
    while !Path::new(gate).exists() {
        thread::sleep(LOOK);
    }
}

const LOOK: Duration = Duration::from_millis(2);
