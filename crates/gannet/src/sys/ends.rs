//! Signals by which a process ends itself: aborts, and files that are too large.

use std::{ffi::c_int, io, mem::MaybeUninit, sync::OnceLock};

use rustix::process::Signal;

use super::{handle, no_action};

/// Has `tell` called when this process aborts, on the thread that does; then it dies of it as always. It
/// has [`LAST_WORDS`] seconds. A program that handles SIGABRT itself goes on doing so.
pub(crate) fn before_abort(tell: fn()) -> io::Result<()> {
    let mut before = no_action();
    // SAFETY: without a new action the call only writes the present one, for which there is room.
    let known = unsafe { libc::sigaction(libc::SIGABRT, std::ptr::null(), &mut before) };
    if known != 0 {
        return Err(io::Error::last_os_error());
    }
    if before.sa_sigaction != libc::SIG_DFL || TELL.set(tell).is_err() {
        return Ok(());
    }
    let mut action = no_action();
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void) = aborted;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for; what it does is said there.
    match unsafe { libc::sigaction(libc::SIGABRT, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a file that reaches the limit of file sizes (RLIMIT_FSIZE) an error of the write, and not the
/// end of this process. Programs that it starts have the limit as usual.
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    extern "C" fn nothing(_: c_int) {}
    handle(Signal::XFSZ, nothing).map(drop)
}

/// The handler of [`before_abort`].
extern "C" fn aborted(signal: c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes the signal's information, which has a sender for this signal.
    let sender = unsafe { (*info).si_pid() };
    let mut stack = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: without a new stack the call only writes the present one, for which there is room;
    // all zeroes is a valid `stack_t`.
    let stack = unsafe {
        libc::sigaltstack(std::ptr::null(), stack.as_mut_ptr());
        stack.assume_init()
    };
    // The stack of signal handlers, after an overflow of the usual one, is too small to do much.
    let is_cramped = stack.ss_flags & libc::SS_ONSTACK != 0;
    if sender == std::process::id().cast_signed() && !is_cramped {
        let mut action = no_action();
        let handler: extern "C" fn(c_int) = overdue;
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: system calls; the handler has the signature that is asked for without SA_SIGINFO.
        // From here on the process dies in any case: if the thread holds a lock that `tell` needs,
        // when the alarm comes.
        unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
        unblock(libc::SIGALRM);
        // SAFETY: a system call.
        unsafe { libc::alarm(LAST_WORDS) };
        if let Some(tell) = TELL.get() {
            // The process itself has raised the signal, by `abort` or `raise`: that is no
            // interruption, and any function may be called.
            tell();
        }
    }
    // SAFETY: a system call. The action is the default one again, and the signal is blocked until this
    // handler returns: then the process dies of it.
    unsafe { libc::raise(signal) };
}

/// The handler of the alarm: what is told takes too long. The process dies of what it began with, so
/// that nobody looks for an alarm, and a core dump is made as always.
extern "C" fn overdue(_: c_int) {
    // By now its action is the default one.
    unblock(libc::SIGABRT);
    // SAFETY: a system call.
    unsafe { libc::raise(libc::SIGABRT) };
}

/// Lets this thread have the signal. It may be called by a handler.
fn unblock(signal: c_int) {
    let mut signals = MaybeUninit::zeroed();
    // SAFETY: the set is made empty before it is used, and all are system calls or write to it alone.
    unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, signals.as_ptr(), std::ptr::null_mut());
    }
}

static TELL: OnceLock<fn()> = OnceLock::new();
/// Seconds that a process has to tell of its abort. To look up the names for a backtrace takes some
/// tenths of a second, and many times that on a machine where much else runs; only a process whose
/// heap is locked needs them all.
const LAST_WORDS: u32 = 10;

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
        time::Duration,
    };

    use super::*;

    /// The test runs itself, in a process that may die.
    #[test]
    fn an_abort_that_cannot_be_told_is_an_abort_all_the_same() {
        const DIES: &str = "GANNET_TEST_DIES";
        if std::env::var_os(DIES).is_some() {
            before_abort(|| std::thread::sleep(Duration::from_secs(60))).unwrap();
            std::process::abort();
        }
        let name = std::thread::current().name().unwrap().to_owned();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name])
            .env(DIES, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGABRT));
    }
}
