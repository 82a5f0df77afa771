//! Processes, as /proc shows them.

use std::{fs, time::Duration};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Sends a signal. `false` if there is no such process.
pub fn signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, signal).is_ok()
}

/// `kill -9`. `false` if there is no such process.
pub fn kill(pid: u32) -> bool {
    signal(pid, Signal::KILL)
}

/// Whether the process runs (a zombie does not).
pub fn alive(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// The title in `ps`, without the arguments behind it.
pub fn title(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = line.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(title).into_owned())
}

/// Every running process whose environment has this variable with this value.
pub fn with_environment(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}").into_bytes();
    let mut found: Vec<u32> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| all.split(|&b| b == 0).any(|one| one == wanted))
                && alive(pid)
        })
        .collect();
    found.sort_unstable();
    found
}

/// User memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Everything resident, shared pages included.
    pub resident: u64,
    /// Its share of what is resident: shared pages count in parts. Those of files do not count at
    /// all: the share of the program's text grows when another that runs it ends.
    pub proportional: u64,
}

impl Memory {
    /// Of a running process; zeros if it is gone.
    pub fn of(pid: u32) -> Self {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
            return Memory::default();
        };
        let kib = |name: &str| -> u64 {
            text.lines()
                .find_map(|line| {
                    line.strip_prefix(name)?
                        .trim()
                        .strip_suffix(" kB")?
                        .parse()
                        .ok()
                })
                .unwrap_or(0)
        };
        Memory {
            resident: kib("Rss:") << 10,
            proportional: kib("Pss:").saturating_sub(kib("Pss_File:")) << 10,
        }
    }
}

/// What /proc/PID/stat says.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// `R`, `S`, `Z`, ...
    pub state: char,
    /// The parent.
    pub parent: u32,
    /// Processor time used, user and system.
    pub cpu: Duration,
}

impl Stat {
    /// Of a process; `None` if it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may contain anything.
        let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let mut ticks = fields
            .skip(9)
            .map(|field| field.parse::<u64>().unwrap_or(0));
        let used = ticks.next()? + ticks.next()?;
        Some(Stat {
            state,
            parent,
            cpu: Duration::from_millis(used * 1000 / TICKS_PER_SECOND),
        })
    }
}

/// Processor time of a process from the scheduler's own account: nanoseconds, all threads.
pub fn cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let nanoseconds = threads
        .filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    Duration::from_nanos(nanoseconds)
}

/// How often the threads of a process were switched to another, by their own will or not.
pub fn context_switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let of_thread = |status: String| -> u64 {
        let lines = status
            .lines()
            .filter(|line| line.contains("ctxt_switches:"));
        lines
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum()
    };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok())
        .map(of_thread)
        .sum()
}

/// What /proc says of a process, or of a thread (`PID/task/TID`), under this name: `Uid`,
/// `Cpus_allowed_list`.
pub fn status(process: impl std::fmt::Display, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let line = lines.find(|(field, _)| *field == name);
    line.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// Descriptors that the process has open, as what they point to.
pub fn descriptors(pid: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(
                fs::read_link(entry.ok()?.path())
                    .ok()?
                    .display()
                    .to_string(),
            )
        })
        .collect()
}

// Fixed by the Linux ABI (USER_HZ) on every architecture in use.
const TICKS_PER_SECOND: u64 = 100;
