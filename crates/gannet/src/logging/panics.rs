//! Panics and aborts, with a backtrace.
//!
//! A panic is an event like others. At most one in [`PAUSE`] has a backtrace, which costs milliseconds:
//! a client that has found a way to make a handler panic must not be able to keep the worker busy with
//! it.
//!
//! An abort (`std::process::abort`, `assert` of a C library, a panic while another unwinds, a heap that
//! the C library finds broken) raises a signal in the thread that aborts, which is no interruption:
//! what may be called there is what could be called in place of `abort`. A handler takes the backtrace,
//! under an alarm, in case the thread holds a lock that is needed for it (the heap's, above all). There
//! is no handler for memory faults: nothing can be trusted then. The manager tells the signal, and
//! whether there is a core dump.

use std::{
    backtrace::Backtrace,
    io::Write,
    panic::PanicHookInfo,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, ThreadId},
    time::{Duration, SystemTime},
};

use tracing::Level;

use super::{
    layer::{Scribe, Sink},
    line::Said,
};
use crate::sys;

/// Sees to it that panics and aborts of this process are in the log.
pub(super) fn tell(scribe: Arc<Scribe>) {
    if SCRIBE.set(scribe).is_err() {
        return;
    }
    let _ = FIRST.set(thread::current().id());
    let before = std::panic::take_hook();
    // The program's own hook is called as well; that of the standard library, a function without
    // anything in it, would say the same once more.
    let is_own = size_of_val(&*before) > 0;
    std::panic::set_hook(Box::new(move |info| {
        log_panic(info);
        if is_own {
            before(info);
        }
    }));
    if let Err(error) = sys::ends::before_abort(log_abort) {
        tracing::debug!("aborts will have no backtrace: {error}");
    }
}

/// This process ends: tells of the events that were counted only.
pub(super) fn finish() {
    if let Some(scribe) = SCRIBE.get() {
        scribe.repeats.tell_rest(scribe);
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let at = info.location();
    let at = at.map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
    if is_wanted() && may_now() {
        let backtrace = Backtrace::force_capture();
        tracing::error!(%backtrace, "panicked{at}: {message}");
    } else {
        tracing::error!("panicked{at}: {message}");
    }
    if let Some(Sink::Queue(queue)) = SCRIBE.get().map(|scribe| &scribe.sink)
        && FIRST.get() == Some(&thread::current().id())
    {
        // The manager: it ends, perhaps at once. In thread mode other threads go on, and must not wait
        // for a log that takes nothing.
        queue.flush();
    }
}

/// Called in place of the signal's usual effect, which follows.
fn log_abort() {
    let Some(scribe) = SCRIBE.get() else { return };
    let mut said = Said::message(scribe.style, "aborted");
    if is_wanted() {
        said.backtrace(&Backtrace::force_capture().to_string());
    }
    let (level, now) = (Level::ERROR, SystemTime::now());
    let line = said.line(&scribe.who, now, level, "gannet::abort", None);
    match &scribe.sink {
        Sink::Queue(queue) => {
            queue.push(line.as_bytes());
            queue.flush();
        }
        Sink::Pipe(pipe) if pipe.try_write(line.as_bytes()) => {}
        Sink::Pipe(_) | Sink::Errors => {
            // There is nobody else to tell.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// `RUST_BACKTRACE=0` does without.
fn is_wanted() -> bool {
    std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0")
}

/// Whether the last backtrace was long enough ago.
fn may_now() -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis() as u64;
    let last = LAST.load(Relaxed);
    let is_due = now.abs_diff(last) >= PAUSE.as_millis() as u64;
    is_due && LAST.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
}

static SCRIBE: OnceLock<Arc<Scribe>> = OnceLock::new();
/// The thread that has begun the log: in the first process, the manager's.
static FIRST: OnceLock<ThreadId> = OnceLock::new();
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_of_the_standard_library_is_told_from_others() {
        // Whatever the test runner has set is put back.
        let set = std::panic::take_hook();
        let standard = std::panic::take_hook();
        assert_eq!(size_of_val(&*standard), 0);
        std::panic::set_hook(set);
    }

    #[test]
    fn one_backtrace_in_a_while() {
        assert!(may_now());
        assert!(!may_now());
    }
}
