//! A server that runs: on the first processor, with files of its own.

use std::{
    env, fs,
    fs::File,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    peers::{Peer, Place},
    processors::{self, Processor},
    scenario::{Disturbance, Scenario},
    tools::Tools,
};

/// A running server; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    guard: Child,
    pid: u32,
    pub(crate) address: SocketAddr,
    home: TempDir,
}

impl Server {
    /// Starts it and waits until it accepts connections.
    pub(crate) fn start(peer: &dyn Peer, scenario: Scenario, tools: &Tools) -> Result<Self> {
        // Somebody may take the port that was free a moment ago: then it is another's turn.
        for _ in 0..TRIES {
            match Self::try_start(peer, scenario, tools) {
                Err(error) if error.to_string().to_lowercase().contains("in use") => {}
                outcome => return outcome,
            }
        }
        Self::try_start(peer, scenario, tools)
    }

    fn try_start(peer: &dyn Peer, scenario: Scenario, tools: &Tools) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("gannet-compare-")
            .tempdir()
            .context("a directory for the server")?;
        let address = free_address()?;
        let place = Place {
            home: home.path(),
            port: address.port(),
        };
        let launch = peer.launch(scenario, &place, tools)?;
        let said = File::create(home.path().join(SAID))?;

        processors::keep_to(Processor::Servers);
        let guard = Command::new(env::current_exe()?)
            .arg("guard")
            .arg("--")
            .arg(&launch.program)
            .args(&launch.arguments)
            .current_dir(home.path())
            // What ends this program's group (Ctrl-C, a time limit) must not end the guard before the server.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn();
        processors::keep_to(Processor::Load);
        let mut guard = guard.context("start a guard")?;

        let mut line = String::new();
        if let Some(output) = guard.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let mut server = Server {
            guard,
            pid: line.trim().parse().unwrap_or(0),
            address,
            home,
        };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    /// The process that all others of the server descend from.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Does this to the server, once.
    pub(crate) fn disturb(&self, disturbance: Disturbance) -> Result<()> {
        match disturbance {
            // Both Gannet and Swoole take it for «replace the workers».
            Disturbance::Reload => signal(self.pid, Signal::USR1),
            Disturbance::KillWorker => match self.worker() {
                Some(pid) => signal(pid, Signal::KILL),
                // It is being started again.
                None => Ok(()),
            },
        }
    }

    /// The last lines of what it has printed.
    pub(crate) fn said(&self) -> String {
        let said = fs::read(self.home.path().join(SAID)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if self.guard.try_wait()?.is_some() {
                bail!("it does not start: {}", self.said());
            }
            if begin.elapsed() > PATIENCE {
                bail!(
                    "it does not listen on {} after {PATIENCE:?}: {}",
                    self.address,
                    self.said()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The process of the worker: Gannet's by its title, Swoole's as what the manager has started.
    ///
    /// It looks at these processes only: to go through all of the machine would take milliseconds of the
    /// load generator's processor, right when the worst answer is measured.
    fn worker(&self) -> Option<u32> {
        let below = children(self.pid);
        let is_worker = |pid: &u32| {
            let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            title.starts_with(b"gannet: worker 0")
        };
        let of_gannet = below.iter().copied().find(is_worker);
        of_gannet.or_else(|| below.into_iter().flat_map(children).next())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its standard input is the end of the server.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let pids = children.iter().flat_map(|pids| pids.split_whitespace());
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process id")?, signal).context("signal the server")
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?)
}

/// What the server prints.
const SAID: &str = "said";
/// For a server to listen.
const PATIENCE: Duration = Duration::from_secs(30);
/// With ports that others have taken.
const TRIES: usize = 3;
