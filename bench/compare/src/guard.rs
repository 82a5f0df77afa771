//! What stands between this program and a server: it ends the server when this program ends, in whatever way.
//!
//! This program starts itself once more as a guard for each server. The guard starts the server in a process
//! group of its own, prints its process id, and waits: for the end of its standard input, which is the end of
//! whoever started it, or of its interest; then the group is asked to end, and killed if it does not. A guard
//! that is waiting uses no processor.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

/// Runs `command` (a program and its arguments) until standard input ends. The exit code is 0 if the
/// server had to be ended, and 1 if it ended by itself.
pub(crate) fn run(command: &[OsString]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no program to guard")?;
    let mut server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .process_group(0)
        // Standard output goes on as the guard's error, which is a file: here its process id is said.
        .stdout(rustix::io::dup(rustix::stdio::stderr())?)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    println!("{}", server.id());
    io::stdout().flush()?;

    let pid = Pid::from_child(&server);
    let ended = pidfd_open(pid, PidfdFlags::empty()).context("watch the server")?;
    let input = rustix::stdio::stdin();
    let mut watched = [
        PollFd::new(&ended, PollFlags::IN),
        PollFd::new(&input, PollFlags::IN),
    ];
    while poll(&mut watched, None) == Err(rustix::io::Errno::INTR) {}
    if server.try_wait()?.is_some() {
        // Whatever it has left behind.
        let _ = kill_process_group(pid, Signal::KILL);
        return Ok(ExitCode::FAILURE);
    }
    kill_process(pid, Signal::TERM)?;
    let deadline = Instant::now() + PATIENCE;
    while server.try_wait()?.is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = kill_process_group(pid, Signal::KILL);
    server.wait()?;
    Ok(ExitCode::SUCCESS)
}

/// How long a server may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);
