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
        // SAFETY: system calls. From here on the process dies in any case: if the thread holds a
        // lock that `tell` needs, of the alarm.
        unsafe {
            libc::sigaction(libc::SIGALRM, &no_action(), std::ptr::null_mut());
            let mut alarm = MaybeUninit::zeroed().assume_init();
            libc::sigemptyset(&mut alarm);
            libc::sigaddset(&mut alarm, libc::SIGALRM);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &alarm, std::ptr::null_mut());
            libc::alarm(LAST_WORDS);
        }
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

static TELL: OnceLock<fn()> = OnceLock::new();
/// Seconds that a process has to tell of its abort.
const LAST_WORDS: u32 = 2;
