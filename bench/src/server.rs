//! What the server's processes use, by the kernel's account: processor time, context switches, memory.
//!
//! A `--server-pid` stands for a process and all its descendants. Time is read from two places. The
//! scheduler counts the nanoseconds of every thread that lives; /proc/PID/stat has the time of the whole
//! process, ended threads and children that were waited for included, in hundredths of a second. Where
//! both tell the same, the finer one counts; where threads or children have ended, the other.
//!
//! Processes are looked for at the beginning and the end and several times a second in between
//! ([`Server::look`]), so that one which ends without its parent waiting for it, or which nobody is the
//! parent of any more, loses only what it did since.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    time::Duration,
};

use serde::Serialize;

use crate::Error;

/// The processes of the server.
#[derive(Debug)]
pub(crate) struct Server {
    roots: Vec<u32>,
    known: BTreeMap<u32, Process>,
    /// Time of processes that are gone and that no parent has taken over.
    orphaned: Usage,
}

/// Used up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) switches: u64,
}

/// Memory of all processes of a server, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident: pages that are shared count in each process.
    pub rss: u64,
    /// Resident, with shared pages divided among those that share them.
    pub pss: u64,
    /// The same without files (program text and the like): what the server has asked for.
    pub user: u64,
}

#[derive(Clone, Debug, Default)]
struct Process {
    parent: u32,
    /// In ticks since boot: tells it from another one with its number.
    started: u64,
    own: Times,
    /// Of children that have ended and were waited for.
    children: Times,
    /// Nanoseconds and switches of each thread.
    threads: HashMap<u32, (u64, u64)>,
    /// Nanoseconds and switches of threads that have ended since this process is known.
    ended: (u64, u64),
    /// Ticks when it was seen first, and what its threads had then.
    first: (Times, u64),
}

/// In ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    user: u64,
    system: u64,
}

impl Server {
    /// Looks for the processes.
    pub(crate) fn find(roots: &[u32]) -> Result<Self, Error> {
        let mut server = Server {
            roots: roots.to_vec(),
            known: BTreeMap::new(),
            orphaned: Usage::default(),
        };
        server.look();
        match roots.iter().find(|pid| !server.known.contains_key(pid)) {
            Some(&pid) => Err(Error::NoServer(pid)),
            None => Ok(server),
        }
    }

    /// Reads anew what all processes have used.
    pub(crate) fn look(&mut self) {
        let mut seen = BTreeSet::new();
        // Ticks that parents have taken over from children since the last look.
        let mut taken_over = HashMap::new();
        let mut todo: Vec<u32> = self.roots.clone();
        todo.extend(self.known.keys());
        while let Some(pid) = todo.pop() {
            if !seen.insert(pid) {
                continue;
            }
            let before = self.known.get(&pid);
            let Some(now) = Process::read(pid, before) else {
                seen.remove(&pid);
                continue;
            };
            match before {
                Some(before) if before.started != now.started => {
                    // Another process. If it is the server's too, its parent leads to it next time.
                    seen.remove(&pid);
                    continue;
                }
                Some(before) => {
                    let ticks = now.children.ticks() - before.children.ticks();
                    taken_over.insert(pid, ticks);
                }
                None => {}
            }
            self.known.insert(pid, now);
            todo.extend(children(pid));
        }
        let gone: Vec<u32> = self
            .known
            .keys()
            .filter(|pid| !seen.contains(pid))
            .copied()
            .collect();
        for pid in gone {
            self.bury(pid, &mut taken_over);
        }
    }

    /// What all processes have used since they are known, and what they had used before.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = self.orphaned;
        for process in self.known.values() {
            usage.add(process.usage());
            usage.add(process.children.usage());
        }
        usage
    }

    /// Memory of all processes; `None` if that may not be looked at.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let mut memory = Memory::default();
        for &pid in self.known.keys() {
            match Memory::of(pid) {
                Some(of_process) => memory.add(of_process),
                None if fs::exists(format!("/proc/{pid}")).unwrap_or_default() => return None,
                None => {}
            }
        }
        Some(memory)
    }

    /// A process is gone. If its parent has waited for it, the parent has its time now.
    fn bury(&mut self, pid: u32, taken_over: &mut HashMap<u32, u64>) {
        let Some(process) = self.known.remove(&pid) else {
            return;
        };
        let mut used = process.usage();
        used.add(process.children.usage());
        let ticks = process.own.ticks() + process.children.ticks();
        match taken_over.get_mut(&process.parent) {
            Some(taken) if *taken >= ticks => {
                *taken -= ticks;
                // Parents count no switches of their children.
                self.orphaned.switches += used.switches;
            }
            _ => self.orphaned.add(used),
        }
    }
}

impl Process {
    /// As /proc has it now; `None` if it is gone or a zombie whose time its parent has.
    fn read(pid: u32, before: Option<&Process>) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may contain anything.
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let times = |user, system| {
            Some(Times {
                user: field(user)?,
                system: field(system)?,
            })
        };
        let (own, started) = (times(14, 15)?, field(22)?);
        let mut process = Process {
            parent: field(4)? as u32,
            started,
            own,
            children: times(16, 17)?,
            threads: threads(pid),
            ..Process::default()
        };
        match before.filter(|before| before.started == started) {
            Some(before) => {
                process.first = before.first;
                process.ended = before.ended;
                for (thread, (time, switches)) in &before.threads {
                    if !process.threads.contains_key(thread) {
                        process.ended.0 += time;
                        process.ended.1 += switches;
                    }
                }
            }
            None => process.first = (own, process.threads.values().map(|(time, _)| time).sum()),
        }
        Some(process)
    }

    fn usage(&self) -> Usage {
        let (mut nanoseconds, mut switches) = self.ended;
        for (time, count) in self.threads.values() {
            nanoseconds += time;
            switches += count;
        }
        // Threads that came and went between two looks are in the ticks only.
        let (first, of_threads) = self.first;
        let ticks = self.own.ticks() - first.ticks();
        let by_ticks = of_threads + ticks * TICK.as_nanos() as u64;
        if by_ticks > nanoseconds + 3 * TICK.as_nanos() as u64 {
            nanoseconds = by_ticks;
        }
        let usage = self.own.usage();
        Usage {
            cpu: Duration::from_nanos(nanoseconds),
            switches,
            ..usage
        }
    }
}

impl Times {
    fn ticks(self) -> u64 {
        self.user + self.system
    }

    fn usage(self) -> Usage {
        let time = |ticks: u64| TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        Usage {
            cpu: time(self.ticks()),
            user: time(self.user),
            system: time(self.system),
            switches: 0,
        }
    }
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.user += other.user;
        self.system += other.system;
        self.switches += other.switches;
    }

    /// What was used between `before` and this. User and system time are parts of the finer whole.
    pub(crate) fn since(self, before: Usage) -> Usage {
        let cpu = self.cpu.saturating_sub(before.cpu);
        let user = self.user.saturating_sub(before.user).as_secs_f64();
        let system = self.system.saturating_sub(before.system).as_secs_f64();
        let share = match user + system {
            0.0 => 0.0,
            both => user / both,
        };
        let user = cpu.mul_f64(share);
        Usage {
            cpu,
            user,
            system: cpu - user.min(cpu),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

impl Memory {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.unwrap_or_default() << 10
        };
        let pss = bytes("Pss:");
        Some(Memory {
            rss: bytes("Rss:"),
            pss,
            user: pss.saturating_sub(bytes("Pss_File:")),
        })
    }

    /// What each of so many things has of the difference.
    pub(crate) fn each(self, before: Memory, number: usize) -> Memory {
        let each = |after: u64, before: u64| after.saturating_sub(before) / number.max(1) as u64;
        Memory {
            rss: each(self.rss, before.rss),
            pss: each(self.pss, before.pss),
            user: each(self.user, before.user),
        }
    }

    fn add(&mut self, other: Memory) {
        self.rss += other.rss;
        self.pss += other.pss;
        self.user += other.user;
    }
}

/// Nanoseconds and switches of all threads of a process.
fn threads(pid: u32) -> HashMap<u32, (u64, u64)> {
    let read = |thread: u32| {
        let directory = format!("/proc/{pid}/task/{thread}");
        let time = fs::read_to_string(format!("{directory}/schedstat")).ok()?;
        let status = fs::read_to_string(format!("{directory}/status")).unwrap_or_default();
        let switches = status
            .lines()
            .filter(|line| line.contains("ctxt_switches:"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        let time = time.split_whitespace().next()?.parse().ok()?;
        Some((thread, (time, switches)))
    };
    numbers(&format!("/proc/{pid}/task"))
        .into_iter()
        .filter_map(read)
        .collect()
}

fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in numbers(&format!("/proc/{pid}/task")) {
        let path = format!("/proc/{pid}/task/{thread}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    found
}

/// Entries of a directory whose names are numbers.
fn numbers(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Fixed by the Linux ABI (USER_HZ) on every architecture in use.
const TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use super::*;

    /// A shell's script that uses so much processor time itself, and starts nothing.
    fn burn(milliseconds: u64) -> String {
        format!(
            "while :; do read -r stat </proc/$$/stat; set -- $stat; [ ${{14}} -lt {} ] || break; done",
            milliseconds / 10
        )
    }

    #[test]
    fn a_child_that_has_ended_is_not_lost() {
        // A shell that waits for its child, and lives on.
        let script = format!("sleep 0.2; sh -c '{}'; exec sleep 60", burn(100));
        let mut shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let mut server = Server::find(&[shell.id()]).unwrap();
        let before = server.usage();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            std::thread::sleep(Duration::from_millis(20));
            server.look();
            let name = fs::read_to_string(format!("/proc/{}/comm", shell.id())).unwrap();
            if name.trim() == "sleep" {
                break;
            }
            assert!(Instant::now() < deadline, "it did not end");
        }
        let used = server.usage().since(before);
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(used.cpu >= Duration::from_millis(90), "{used:?}");
    }

    #[test]
    fn who_is_gone_keeps_what_was_seen() {
        let script = format!("{}; exec sleep 60", burn(50));
        let mut shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let mut server = Server::find(&[shell.id()]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.usage().cpu < Duration::from_millis(40) {
            std::thread::sleep(Duration::from_millis(20));
            server.look();
            assert!(Instant::now() < deadline, "{:?}", server.usage());
        }
        let used = server.usage();
        shell.kill().unwrap();
        shell.wait().unwrap();
        server.look();
        assert!(server.usage().cpu >= used.cpu);
        assert!(server.memory().is_some());
    }

    #[test]
    fn nobody_is_no_server() {
        let error = Server::find(&[4_194_304]).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("4194304"), "{error}");
    }
}
