//! `start --daemon`: a server without a terminal, and a command that returns when it serves.
//!
//! ```text
//!   what the user started ──fork, setsid, exec──▶ the daemon ──exec (its title)──▶ the manager
//!        │  passes its output on, waits                                               │
//!        └◀────────────────────────── "ready" on a pipe ──────────────────────────────┘
//! ```
//!
//! The program starts itself once more, in a session of its own, with standard input from
//! `/dev/null`; nothing of a process with threads is copied. It leads that session, and never opens
//! a terminal, so it never gets one.
//!
//! Standard output and standard error of the daemon are pipes to the process that waits, until the
//! server is ready: whatever it has to say at its start, be it the addresses, an error or a panic of
//! `main`, is on the user's terminal, and its exit code is that of the command. From then on they are
//! `/dev/null` and the log file. Standard error that is a file already stays what it is, and is the log
//! of a server without a log file. If the process that waits is killed, the server starts all the
//! same; if it is interrupted, the server is told to stop.
//!
//! The environment variable [`ENV`] is `FD:WHAT`: the pipe for "ready", and what the kernel calls it.
//! A program that a handler starts may inherit the variable, but not that pipe.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::FileType,
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use crate::{Error, Result, inherit, manager::Program, sys};

/// Environment variable of the process that is to be a daemon.
pub(crate) const ENV: &str = "GANNET_DAEMON";

/// What the daemon has of the process that waits for it.
#[derive(Debug)]
pub(crate) struct Daemon {
    ready: OwnedFd,
    log: Log,
}

/// Where the daemon's log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    File(PathBuf),
    /// Standard error is a file.
    StandardError,
}

impl Log {
    /// As the settings say, or as the process was started.
    pub(crate) fn of(log_file: Option<&Path>) -> Result<Self> {
        if let Some(path) = log_file {
            return Ok(Log::File(std::path::absolute(path)?));
        }
        let stat = rustix::fs::fstat(rustix::stdio::stderr())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Log::StandardError),
            _ => Err(Error::usage(
                "a daemon needs a file for its log: name one with --log-file or `log_file`, or \
                 redirect standard error, as in `start --daemon 2>>server.log`",
            )),
        }
    }

    /// For children that write past the log.
    fn open(&self) -> io::Result<File> {
        match self {
            Log::File(path) => OpenOptions::new().append(true).open(path),
            Log::StandardError => Ok(rustix::io::dup(rustix::stdio::stderr())?.into()),
        }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Log::File(path) => path.display().fmt(f),
            Log::StandardError => f.write_str("standard error"),
        }
    }
}

/// Whether this process was started to be a daemon.
pub(crate) fn is_one() -> bool {
    inherited().is_some()
}

impl Daemon {
    /// What was handed to this process; its life under its title must have begun.
    pub(crate) fn take(log: &Log) -> Result<Option<Self>> {
        let Some(fd) = inherited() else {
            return Ok(None);
        };
        let ready = inherit::take(fd)?;
        sys::remove_variable(ENV);
        let log = log.clone();
        Ok(Some(Daemon { ready, log }))
    }

    /// What children write to: the outputs of this process are those of the one that waits.
    pub(crate) fn output(&self) -> Result<File> {
        let opened = self.log.open();
        opened.map_err(|error| Error::new(format!("cannot write to the log {}: {error}", self.log)))
    }

    /// Lets the process that waits go: from now on nobody hears what is printed.
    pub(crate) fn ready(self) {
        let _ = io::stdout().flush();
        if let Err(error) = self.leave_terminal() {
            tracing::warn!("the daemon's standard output stays as it is: {error}");
        }
        // Nobody may be there any more.
        let _ = rustix::io::write(&self.ready, b"R");
    }

    fn leave_terminal(&self) -> io::Result<()> {
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        // What the runtime says at its end (an abort) belongs to the log.
        if self.log != Log::StandardError {
            match self.log.open() {
                Ok(log) => rustix::stdio::dup2_stderr(log)?,
                Err(_) => rustix::stdio::dup2_stderr(null)?,
            }
        }
        Ok(())
    }
}

/// Starts the daemon, and ends this process when it serves or has ended.
pub(crate) fn start(program: &Program, log: &Log) -> Result {
    for variable in ["LISTEN_FDS", "LISTEN_PID"] {
        if std::env::var_os(variable).is_some() {
            return Err(Error::usage(format!(
                "a daemon cannot take the sockets that a service manager passes ({variable}): \
                 leave --daemon out, the service manager has the server in the background anyway"
            )));
        }
    }
    let signals = sys::SignalFd::steering()?;
    let (ready, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let name = std::fs::read_link(format!("/proc/self/fd/{}", theirs.as_raw_fd()))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(&program.path)
        .args(&program.arguments)
        .env(ENV, format!("{}:{}", theirs.as_raw_fd(), name.display()))
        // The server does not speak to a service manager that knows another process.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(match log {
            Log::File(_) => Stdio::piped(),
            Log::StandardError => Stdio::inherit(),
        });
    sys::in_own_session(&mut command, theirs.as_raw_fd());
    let child = command
        .spawn()
        .map_err(|error| Error::new(format!("cannot start the daemon: {error}")))?;
    drop(theirs);

    let mut waiting = Waiting::new(child, ready)?;
    let pid = waiting.child.id();
    match waiting.wait(&signals)? {
        End::Ready => {
            crate::cli::print(&format!("running in the background: pid {pid}, log {log}"))?;
            std::process::exit(0)
        }
        // It has said why.
        End::Exited(status) if status.code().is_some_and(|code| code != 0) => {
            std::process::exit(status.code().unwrap_or(1))
        }
        End::Exited(status) => {
            let (_, how) = crate::manager::how_it_ended(status);
            Err(Error::new(match status.signal() {
                Some(_) => {
                    format!("the server was ended by {how} before it was ready; the log is {log}")
                }
                None => "the server was stopped before it was ready".to_owned(),
            }))
        }
    }
}

/// The process that was started, as long as this one waits for it.
struct Waiting {
    child: Child,
    pidfd: OwnedFd,
    /// Until it is closed.
    ready: Option<OwnedFd>,
    outputs: Vec<Output>,
}

/// One of its outputs, and where it goes.
struct Output {
    from: OwnedFd,
    is_errors: bool,
}

enum End {
    Ready,
    Exited(ExitStatus),
}

impl Waiting {
    fn new(mut child: Child, ready: OwnedFd) -> Result<Self> {
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        let outputs =
            [(stdout, false), (stderr, true)]
                .into_iter()
                .filter_map(|(from, is_errors)| {
                    Some(Output {
                        from: from?,
                        is_errors,
                    })
                });
        let outputs: Vec<_> = outputs.collect();
        for output in &outputs {
            rustix::io::ioctl_fionbio(&output.from, true)?;
        }
        Ok(Waiting {
            child,
            pidfd,
            ready: Some(ready),
            outputs,
        })
    }

    fn wait(&mut self, signals: &sys::SignalFd) -> Result<End> {
        loop {
            let mut sources = vec![
                PollFd::new(&self.pidfd, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            let pipes = self.outputs.iter().map(|output| &output.from);
            sources.extend(
                pipes
                    .chain(&self.ready)
                    .map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)),
            );
            match poll(&mut sources, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_ready_for = |source: &PollFd<'_>| !source.revents().is_empty();
            let exited = is_ready_for(&sources[0]);
            let spoke = self.ready.is_some() && sources.last().is_some_and(is_ready_for);
            drop(sources);
            while let Some(signal) = signals.next() {
                self.interrupt(signal);
            }
            let ready = self.ready.as_ref().filter(|_| spoke);
            let said = ready.map(|pipe| rustix::io::read(pipe, &mut [0; 1]));
            // What was printed before counts.
            self.outputs.retain_mut(Output::pass_on);
            match said {
                Some(Ok(1)) => return Ok(End::Ready),
                // Closed: now it can only end.
                Some(_) => self.ready = None,
                None => {}
            }
            if exited {
                return Ok(End::Exited(self.child.wait()?));
            }
        }
    }

    /// The user has changed his mind.
    fn interrupt(&self, signal: Signal) {
        if matches!(signal, Signal::INT | Signal::TERM | Signal::HUP) {
            // It may have ended by now.
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }
}

impl Output {
    /// Writes what has come to this process's own output. `false`: nothing more will come.
    fn pass_on(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.from, &mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    // If nobody reads it, the exit code still says how it went.
                    let _ = match self.is_errors {
                        true => io::stderr().write_all(&buffer[..length]),
                        false => io::stdout().write_all(&buffer[..length]),
                    };
                }
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }
}

/// The descriptor in the variable, if it is the one that was meant.
fn inherited() -> Option<RawFd> {
    let value = std::env::var(ENV).ok()?;
    let (fd, name) = value.split_once(':')?;
    let there = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    (there == Path::new(name)).then_some(fd.parse().ok()?)
}
