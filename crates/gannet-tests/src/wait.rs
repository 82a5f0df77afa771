//! Waiting for conditions.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take. Generous: the machine may be slow and busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
///
/// # Panics
///
/// After [`DEADLINE`], saying what was waited for.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, condition)
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// After [`DEADLINE`], saying what was waited for.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until `condition` gives a value, for at most `limit`.
///
/// # Panics
///
/// After `limit`, saying what was waited for.
pub fn wait_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            begin.elapsed() < limit,
            "waited {limit:?} in vain for: {what}"
        );
        thread::sleep(POLL);
    }
}

/// Length of a soak: short, or with `GANNET_SOAK=1` the full 30 seconds.
pub fn soak(short: Duration) -> Duration {
    match std::env::var(SOAK) {
        Ok(on) if on != "0" => Duration::from_secs(30),
        _ => short,
    }
}

/// Environment variable that asks for soaks of full length.
pub const SOAK: &str = "GANNET_SOAK";

const POLL: Duration = Duration::from_millis(3);
