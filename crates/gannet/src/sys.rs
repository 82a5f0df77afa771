//! The few system calls that neither std nor rustix offers as safe functions.
#![allow(
    unsafe_code,
    reason = "signals, fork, the environment, peer credentials, clocks of processes, the queue of a \
              socket and batches of datagrams have no safe interface"
)]

pub(crate) mod ends;
pub(crate) mod packets;

use std::{
    ffi::{CString, c_int},
    fmt, io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::atomic::{AtomicI32, Ordering::Relaxed},
    time::Duration,
};

use rustix::{io::FdFlags, process::Signal};

use crate::peer::Credentials;

/// The signals that steer a server. They reach the manager only.
pub(crate) const STEERING: [Signal; 5] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
];

/// The steering signals, taken out of the usual delivery until this is dropped; there is one at a
/// time.
///
/// They are blocked on the thread that makes it, and read there. Other threads, which `main` may have
/// started before or a library at any time, need not block them: what the kernel gives to one of
/// those, a handler passes on to the thread that reads. Without that, such a signal would end the
/// process.
pub(crate) struct SignalFd {
    fd: OwnedFd,
    before: libc::sigset_t,
    /// In the order of [`STEERING`].
    actions: [libc::sigaction; STEERING.len()],
}

impl SignalFd {
    /// Blocks the steering signals on this thread; children inherit that.
    pub(crate) fn steering() -> io::Result<Self> {
        let set = steering_set();
        let before = change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is an initialised signal set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        READER.store(rustix::thread::gettid().as_raw_pid(), Relaxed);
        let mut actions = [no_action(); STEERING.len()];
        for (signal, before) in STEERING.into_iter().zip(&mut actions) {
            *before = handle(signal, pass_on)?;
        }
        Ok(SignalFd {
            fd,
            before,
            actions,
        })
    }

    /// The next signal that has arrived.
    pub(crate) fn next(&self) -> Option<Signal> {
        Some(self.next_with_sender()?.0)
    }

    /// The next signal that has arrived, and whether a process sent it to this one: not the
    /// terminal to all that belong to it.
    pub(crate) fn next_with_sender(&self) -> Option<(Signal, bool)> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut info)).ok()?;
        let number = info.first_chunk().filter(|_| read == info.len())?;
        // signalfd(2): `ssi_code` is the third 32-bit field.
        let code = info[8..]
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code));
        Some((
            Signal::from_named_raw(i32::from_ne_bytes(*number))?,
            code != libc::SI_KERNEL,
        ))
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }
}

impl fmt::Debug for SignalFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignalFd").field(&self.fd).finish()
    }
}

impl Drop for SignalFd {
    fn drop(&mut self) {
        // Whatever still waits was for the server, not for the program after it.
        while self.next().is_some() {}
        for (signal, action) in STEERING.into_iter().zip(&self.actions) {
            // SAFETY: it is the action that the kernel gave out; the new one is not asked for.
            let code = unsafe { libc::sigaction(signal.as_raw(), action, std::ptr::null_mut()) };
            debug_assert_eq!(code, 0);
        }
        READER.store(0, Relaxed);
        let restored = change_mask(libc::SIG_SETMASK, &self.before);
        debug_assert!(restored.is_ok());
    }
}

/// Makes the child that `command` starts one that dies with this process, keeps `inherit` open
/// and does not take steering signals yet (a Ctrl-C goes to the whole process group). It begins in
/// `directory`, if there is one.
///
/// The death signal comes when the calling *thread* ends: spawn from one that lives as long as
/// the child is to live.
pub(crate) fn as_child(command: &mut Command, inherit: Vec<RawFd>, directory: Option<CString>) {
    let parent = rustix::process::getpid();
    let set = steering_set();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        change_mask(libc::SIG_SETMASK, &set)?;
        for &fd in &inherit {
            // SAFETY: the borrow ends with the call, which fails if the descriptor is not open.
            rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::empty())?;
        }
        if let Some(directory) = &directory {
            // It may be gone, or closed to this user: then `main` begins where the manager is.
            let _ = rustix::process::chdir(directory);
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls: it takes no lock and
    // allocates nothing (its errors are numbers).
    unsafe { command.pre_exec(prepare) };
}

/// Makes the child that `command` starts the leader of a session of its own, without a terminal, that
/// has `keep` open and takes signals as usual.
pub(crate) fn in_own_session(command: &mut Command, keep: RawFd) {
    let set = steering_set();
    let prepare = move || {
        rustix::process::setsid()?;
        change_mask(libc::SIG_UNBLOCK, &set)?;
        // SAFETY: the borrow ends with the call, which fails if the descriptor is not open.
        rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(keep) }, FdFlags::empty())?;
        Ok(())
    };
    // SAFETY: as in `as_child`: system calls only.
    unsafe { command.pre_exec(prepare) };
}

/// Makes steering signals do nothing in this process: they are for the manager. Programs that the
/// process starts have them as usual, which they would not if the signals were blocked or ignored.
pub(crate) fn leave_steering_to_the_manager() -> io::Result<()> {
    extern "C" fn nothing(_: c_int) {}
    for signal in STEERING {
        handle(signal, nothing)?;
    }
    change_mask(libc::SIG_UNBLOCK, &steering_set())?;
    Ok(())
}

/// Removes a variable from the environment, so that programs started from here do not see it.
/// Does nothing if that could be unsound.
pub(crate) fn remove_variable(name: &str) {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads == 1 {
        // SAFETY: this is the only thread of the process, so no other reads the environment.
        unsafe { std::env::remove_var(name) };
    }
}

/// The process that has connected to this Unix socket. Its number is 0 if it is in another PID
/// namespace.
pub(crate) fn peer_credentials(socket: &OwnedFd) -> io::Result<Credentials> {
    let mut peer = MaybeUninit::<libc::ucred>::uninit();
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` is room for `len` bytes, and both outlive the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            peer.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so the kernel has written it, and it is three numbers.
    let peer = unsafe { peer.assume_init() };
    Ok(Credentials {
        pid: peer.pid.cast_unsigned(),
        uid: peer.uid,
        gid: peer.gid,
    })
}

/// Bytes written to this stream socket that its peer has not acknowledged. On a Unix socket it is
/// memory of the kernel: more than the bytes, and less when the peer has read some.
pub(crate) fn unacknowledged(socket: &OwnedFd) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: this request writes one `int`, and `bytes` outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) } {
        0 => Ok(bytes.max(0).cast_unsigned() as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The thread that reads the [`SignalFd`]; 0: none.
static READER: AtomicI32 = AtomicI32::new(0);
/// Of a clock of a process: what its threads have used, to the nanosecond.
const CPUCLOCK_SCHED: libc::clockid_t = 2;
/// No process has a number so high or higher (PID_MAX_LIMIT of the kernel).
const PID_MAX: u32 = 1 << 22;

/// A signal handler: sends the signal to the thread that reads them, where it is blocked and waits.
extern "C" fn pass_on(signal: c_int) {
    let (reader, this) = (READER.load(Relaxed), rustix::thread::gettid());
    if reader == 0 || reader == this.as_raw_pid() {
        return;
    }
    // SAFETY: a system call that may be made in a handler. What it interrupts may be about to look
    // at `errno`, which belongs to this thread and is put back. If the reader is gone, it fails.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::syscall(libc::SYS_tgkill, libc::getpid(), reader, signal);
        *errno = before;
    }
}

/// Has a function of this module handle a signal, which has to be safe at any time; returns what did
/// before.
fn handle(signal: Signal, handler: extern "C" fn(c_int)) -> io::Result<libc::sigaction> {
    let (mut action, mut before) = (no_action(), no_action());
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: all handlers there are make no more than system calls; both actions are initialised.
    match unsafe { libc::sigaction(signal.as_raw(), &action, &mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The default action.
fn no_action() -> libc::sigaction {
    // SAFETY: all zeroes is a valid `sigaction`: default action, empty mask, no flags.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// The processor time that a process has used, if there is such a process. One system call.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    if pid == 0 || pid >= PID_MAX {
        return None;
    }
    // As clock_getcpuclockid(3) makes it, without its look whether there is such a process.
    let clock = (!(pid as libc::clockid_t) << 3) | CPUCLOCK_SCHED;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing; a clock that does not exist is an error and no harm.
    let code = unsafe { libc::clock_gettime(clock, &mut time) };
    (code == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn steering_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in STEERING {
        // SAFETY: the set is initialised and the number is that of a signal.
        unsafe { libc::sigaddset(&mut set, signal.as_raw()) };
    }
    set
}

/// Changes the signal mask of this thread and returns the one before.
fn change_mask(how: c_int, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: `set` is initialised, `before` is room for a set.
    match unsafe { libc::pthread_sigmask(how, set, before.as_mut_ptr()) } {
        // SAFETY: the call has succeeded, so it has written `before`.
        0 => Ok(unsafe { before.assume_init() }),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_of_a_process_grows_and_that_of_none_is_none() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        let mut sum = 0_u64;
        while cpu_time(own).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_time(own).unwrap() > before);
        for nobody in [0, PID_MAX, i32::MAX as u32, u32::MAX] {
            assert_eq!(cpu_time(nobody), None, "{nobody}");
        }
    }
}
