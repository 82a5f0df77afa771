//! The machine: limits of the process, settings of the kernel, memory, control group.

use std::{fs, path::PathBuf};

use rustix::process::{Resource, getrlimit};

use super::Findings;
use crate::{Protocol, Settings, settings};

/// What is known of the machine: files below `/proc` and `/sys`, and limits.
pub(super) struct Machine {
    root: PathBuf,
    /// Hard limits; `None`: unlimited.
    files: Option<u64>,
    address_space: Option<u64>,
    processors: usize,
    /// Whether the start may raise hard limits.
    is_root: bool,
}

impl Machine {
    /// The one that this process runs on.
    pub(super) fn here() -> Self {
        Machine {
            root: PathBuf::from("/"),
            files: getrlimit(Resource::Nofile).maximum,
            address_space: getrlimit(Resource::As).current,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    pub(super) fn look(&self, findings: &mut Findings, settings: &Settings) {
        self.kernel(findings);
        self.open_files(findings, settings);
        self.backlog(findings, settings);
        self.ports(findings, settings);
        self.connection_tracking(findings, settings);
        self.memory(findings, settings);
        self.connections_in_memory(findings, settings);
        self.processors(findings, settings);
        self.processes(findings, settings);
        self.clock(findings);
        self.core_dumps(findings);
    }

    fn kernel(&self, findings: &mut Findings) {
        let Some(release) = self.read("proc/sys/kernel/osrelease") else {
            return;
        };
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|number| number.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        match version >= OLDEST_KERNEL {
            true => findings.ok("kernel", format!("Linux {release}")),
            false => findings.error(
                "kernel",
                format!("Linux {release}"),
                format!(
                    "use Linux {}.{} or later: older ones lack what processes are watched with",
                    OLDEST_KERNEL.0, OLDEST_KERNEL.1
                ),
            ),
        }
    }

    fn open_files(&self, findings: &mut Findings, settings: &Settings) {
        let limit = self.files.unwrap_or(u64::MAX);
        let shown = self
            .files
            .map_or_else(|| "unlimited".to_owned(), |files| files.to_string());
        if settings.max_connections == 0 {
            let most = settings::connections_by_files(limit);
            let found = format!("at most {shown}: enough for {most} connections");
            match most < FEW_CONNECTIONS {
                false => findings.ok("open files", found),
                true => findings.warn(
                    "open files",
                    found,
                    "ulimit -Hn 1048576 in the shell that starts it (root), or LimitNOFILE=1048576 \
                     in its unit",
                ),
            }
            return;
        }
        let needed = settings.max_connections as u64 + settings::OTHER_FILES;
        let asked = settings.max_connections;
        match limit >= needed {
            true => findings.ok(
                "open files",
                format!("at most {shown}; max_connections = {asked} needs {needed}"),
            ),
            false if self.is_root => findings.ok(
                "open files",
                format!("at most {shown}; root raises it to {needed} at the start"),
            ),
            false => findings.error(
                "open files",
                format!("at most {shown}; max_connections = {asked} needs {needed}"),
                format!(
                    "ulimit -Hn {needed} in the shell that starts it (root), LimitNOFILE={needed} \
                     in its unit, or lower max_connections"
                ),
            ),
        }
        let ceiling = self.number("proc/sys/fs/nr_open").unwrap_or(u64::MAX);
        if ceiling < needed {
            findings.error(
                "open files",
                format!("no process can have more than fs.nr_open = {ceiling}"),
                sysctl("fs.nr_open", needed),
            );
        }
    }

    fn backlog(&self, findings: &mut Findings, settings: &Settings) {
        let wanted = settings
            .listeners
            .iter()
            .filter(|l| l.protocol != Protocol::Udp);
        let wanted = wanted.map(|listener| listener.backlog).max();
        let (Some(wanted), Some(most)) = (wanted, self.number("proc/sys/net/core/somaxconn"))
        else {
            return;
        };
        let found = format!("{wanted} wanted, net.core.somaxconn = {most}");
        match most >= u64::from(wanted) {
            true => findings.ok("backlog", found),
            false => findings.warn(
                "backlog",
                format!("{found}: the kernel cuts it to that"),
                sysctl("net.core.somaxconn", wanted.into()),
            ),
        }
    }

    /// A port in the range that the kernel gives to clients may be taken when the server starts.
    fn ports(&self, findings: &mut Findings, settings: &Settings) {
        let Some(range) = self.read("proc/sys/net/ipv4/ip_local_port_range") else {
            return;
        };
        let mut bounds = range
            .split_whitespace()
            .filter_map(|n| n.parse::<u16>().ok());
        let (Some(first), Some(last)) = (bounds.next(), bounds.next()) else {
            return;
        };
        let reserved = self
            .read("proc/sys/net/ipv4/ip_local_reserved_ports")
            .unwrap_or_default();
        let is_reserved = |port: u16| {
            reserved.split(',').any(|part| {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                let number = |text: &str| text.trim().parse::<u16>().ok();
                matches!((number(from), number(to)), (Some(a), Some(b)) if a <= port && port <= b)
            })
        };
        for listener in &settings.listeners {
            let Some((_, port)) = listener.address.rsplit_once(':') else {
                continue;
            };
            let Some(port) = port.parse().ok().filter(|&port| port != 0) else {
                continue;
            };
            if (first..=last).contains(&port) && !is_reserved(port) {
                findings.warn(
                    "ports",
                    format!(
                        "{port} is one that the kernel gives to clients \
                         (net.ipv4.ip_local_port_range = {first} {last}): a start may find it taken"
                    ),
                    sysctl("net.ipv4.ip_local_reserved_ports", port.into()),
                );
            }
        }
    }

    fn connection_tracking(&self, findings: &mut Findings, settings: &Settings) {
        let name = "net.netfilter.nf_conntrack_max";
        let Some(most) = self.number("proc/sys/net/netfilter/nf_conntrack_max") else {
            return;
        };
        let connections = settings.max_connections as u64;
        match most > connections {
            true => findings.ok("firewall", format!("{name} = {most}")),
            false => findings.warn(
                "firewall",
                format!("{name} = {most}, fewer than max_connections = {connections}"),
                sysctl(name, connections * 2),
            ),
        }
    }

    /// What is reserved for rings, arenas and tables: touched only in use.
    fn memory(&self, findings: &mut Findings, settings: &Settings) {
        let dimensions = settings::dimensions(settings);
        let reserved = (settings.places() as u64)
            .saturating_mul(dimensions.worker_len() as u64)
            .saturating_add(dimensions.control_len() as u64);
        let (available, whose) = self.available_memory();
        let found = format!(
            "{} reserved for rings and arenas, touched only in use; {whose}",
            size(reserved)
        );
        match available {
            Some(available) if reserved > available => findings.warn(
                "memory",
                found,
                "lower arena_size, workers or reactors: if all of it is in use the kernel ends \
                 processes (see worker_oom_score_adj)",
            ),
            _ => findings.ok("memory", found),
        }
        if let Some(limit) = self.address_space.filter(|&limit| limit < reserved) {
            findings.error(
                "memory",
                format!("the limit of address space (ulimit -v) is {}", size(limit)),
                "ulimit -v unlimited in the shell that starts it, or LimitAS=infinity in its unit",
            );
        }
        let strict = self.number("proc/sys/vm/overcommit_memory") == Some(2);
        if let (true, Some(limit), Some(used)) = (
            strict,
            self.meminfo("CommitLimit"),
            self.meminfo("Committed_AS"),
        ) && limit.saturating_sub(used) < reserved
        {
            findings.error(
                "memory",
                format!(
                    "vm.overcommit_memory = 2 lets no more than {} be reserved",
                    size(limit.saturating_sub(used))
                ),
                format!("{}, or lower arena_size", sysctl("vm.overcommit_memory", 0)),
            );
        }
    }

    /// How many of the connections may be at their worst at once.
    fn connections_in_memory(&self, findings: &mut Findings, settings: &Settings) {
        let worst = settings
            .listeners
            .iter()
            .map(|l| (l.max_queued + l.max_message_size) as u64)
            .max();
        let (Some(worst), (Some(available), _)) = (worst, self.available_memory()) else {
            return;
        };
        findings.ok(
            "connections",
            format!(
                "one takes up to {} at worst (max_message_size and max_queued full); {} such fit \
                 into memory",
                size(worst),
                available / worst.max(1)
            ),
        );
    }

    fn processors(&self, findings: &mut Findings, settings: &Settings) {
        let busy = settings.workers + settings.reactors;
        let found = format!(
            "{} for {} workers and {} reactors",
            self.processors, settings.workers, settings.reactors
        );
        match settings.workers > 4 * self.processors {
            false => findings.ok("processors", found),
            true => findings.warn(
                "processors",
                found,
                format!(
                    "set workers = {} unless their handlers block: {busy} busy threads only wait \
                     for one another",
                    self.processors
                ),
            ),
        }
    }

    /// The control group may allow fewer processes.
    fn processes(&self, findings: &mut Findings, settings: &Settings) {
        let Some(group) = self.control_group() else {
            return;
        };
        let Some(most) = self.number(&format!("{group}/pids.max")) else {
            return;
        };
        // At a reload each may have a successor, two at a time; threads count as well.
        let needed = (settings.places() + 2 + settings.reactors + 2) as u64;
        match most >= needed {
            true => findings.ok(
                "processes",
                format!("{needed} needed, the control group allows {most}"),
            ),
            false => findings.error(
                "processes",
                format!("{needed} needed, the control group allows {most}"),
                format!("TasksMax={} in the unit, or fewer workers", needed * 2),
            ),
        }
    }

    fn clock(&self, findings: &mut Findings) {
        let directory = "sys/devices/system/clocksource/clocksource0";
        let Some(source) = self.read(&format!("{directory}/current_clocksource")) else {
            return;
        };
        match ["hpet", "acpi_pm", "jiffies", "refined-jiffies"].contains(&source.as_str()) {
            false => findings.ok("clock", source),
            true => findings.warn(
                "clock",
                format!("{source}: reading the time takes a system call"),
                format!(
                    "echo tsc > /{directory}/current_clocksource, if available_clocksource beside \
                     it has tsc"
                ),
            ),
        }
    }

    fn core_dumps(&self, findings: &mut Findings) {
        let pattern = self
            .read("proc/sys/kernel/core_pattern")
            .unwrap_or_default();
        let found = match getrlimit(Resource::Core).current {
            Some(0) if !pattern.starts_with('|') => {
                "off: what a process died of is in the log and in status only (ulimit -c unlimited, \
                 LimitCORE=infinity)"
                    .to_owned()
            }
            _ => format!("to {pattern:?} (kernel.core_pattern)"),
        };
        findings.ok("core dumps", found);
    }

    /// What may be used, and where that is from.
    fn available_memory(&self) -> (Option<u64>, String) {
        let machine = self.meminfo("MemAvailable");
        let group = self.control_group();
        let limit = group.and_then(|group| self.number(&format!("{group}/memory.max")));
        match (machine, limit) {
            (Some(machine), Some(limit)) if limit < machine => (
                Some(limit),
                format!("the control group allows {}", size(limit)),
            ),
            (Some(machine), _) => (Some(machine), format!("{} are free", size(machine))),
            (None, _) => (None, "how much is free is not known".to_owned()),
        }
    }

    /// The directory of this process's control group (version 2).
    fn control_group(&self) -> Option<String> {
        let groups = self.read("proc/self/cgroup")?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(format!("sys/fs/cgroup{}", path.trim_end_matches('/')))
    }

    /// Bytes of a line of `/proc/meminfo`.
    fn meminfo(&self, name: &str) -> Option<u64> {
        let text = self.read("proc/meminfo")?;
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(field, _)| *field == name)?;
        let kib: u64 = value.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }
}

/// The command that sets it now, and how it stays.
fn sysctl(name: &str, value: u64) -> String {
    format!(
        "sysctl -w {name}={value} (and `{name} = {value}` in /etc/sysctl.d/60-gannet.conf, so that it \
         stays)"
    )
}

fn size(bytes: u64) -> String {
    match bytes {
        0..MIB => format!("{} KiB", bytes / 1024),
        MIB..GIB => format!("{} MiB", bytes / MIB),
        _ => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

/// What watches processes (`PIDFD_NONBLOCK`) came with it.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// Fewer are worth a word, where nobody has said how many there are to be.
const FEW_CONNECTIONS: usize = 10_000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Listener, check::Level};

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> (Machine, PathBuf) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("gannet-machine-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let machine = Machine {
            root: root.clone(),
            files: Some(1024),
            address_space: None,
            processors: 2,
            is_root: false,
        };
        (machine, root)
    }

    fn settings() -> Settings {
        Settings {
            listeners: vec![Listener::tcp("0.0.0.0:40000")],
            workers: 2,
            ..Settings::default()
        }
    }

    /// The level and the advice of what is said of a subject.
    fn said(
        files: &[(&str, &str)],
        settings: &Settings,
        change: impl FnOnce(&mut Machine),
        subject: &str,
    ) -> Vec<(Level, String)> {
        let (mut machine, root) = machine(files);
        change(&mut machine);
        let mut findings = Findings::default();
        machine.look(&mut findings, settings);
        let _ = fs::remove_dir_all(root);
        findings
            .findings
            .into_iter()
            .filter(|finding| finding.subject == subject)
            .map(|finding| (finding.level, finding.advice.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn each_shortage_is_found_with_what_to_do() {
        let mut many = settings();
        many.max_connections = 5000;
        many.listeners[0].backlog = 4096;
        let none = |_: &mut Machine| {};
        let one = |found: Vec<(Level, String)>| {
            assert_eq!(found.len(), 1, "{found:?}");
            found.into_iter().next().unwrap()
        };

        let (level, advice) = one(said(&[], &many, none, "open files"));
        assert_eq!(level, Level::Error);
        assert!(advice.contains("LimitNOFILE=5256"), "{advice}");
        let enough = |machine: &mut Machine| machine.files = None;
        assert_eq!(one(said(&[], &many, enough, "open files")).0, Level::Ok);
        assert_eq!(
            one(said(&[], &settings(), none, "open files")).0,
            Level::Warn
        );

        let somaxconn = "proc/sys/net/core/somaxconn";
        let (level, advice) = one(said(&[(somaxconn, "128\n")], &many, none, "backlog"));
        assert_eq!(level, Level::Warn);
        assert!(
            advice.starts_with("sysctl -w net.core.somaxconn=4096"),
            "{advice}"
        );
        assert_eq!(
            one(said(&[(somaxconn, "4096")], &many, none, "backlog")).0,
            Level::Ok
        );

        let range = ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        let reserved = ("proc/sys/net/ipv4/ip_local_reserved_ports", "39999-40001\n");
        assert_eq!(one(said(&[range], &many, none, "ports")).0, Level::Warn);
        assert!(said(&[range, reserved], &many, none, "ports").is_empty());

        let kernel = |release| {
            one(said(
                &[("proc/sys/kernel/osrelease", release)],
                &many,
                none,
                "kernel",
            ))
        };
        assert_eq!(kernel("5.4.0-150-generic").0, Level::Error);
        assert_eq!(kernel("5.10.0").0, Level::Ok);
        assert_eq!(kernel("6.1.0-18-amd64").0, Level::Ok);

        let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        assert_eq!(
            one(said(&[(clock, "hpet\n")], &many, none, "clock")).0,
            Level::Warn
        );
        assert_eq!(
            one(said(&[(clock, "tsc\n")], &many, none, "clock")).0,
            Level::Ok
        );

        let table = ("proc/sys/net/netfilter/nf_conntrack_max", "4096");
        let (level, advice) = one(said(&[table], &many, none, "firewall"));
        assert!(
            level == Level::Warn && advice.contains("nf_conntrack_max=10000"),
            "{advice}"
        );

        many.workers = 100;
        assert_eq!(one(said(&[], &many, none, "processors")).0, Level::Warn);
    }

    #[test]
    fn control_groups_count() {
        let group = ("proc/self/cgroup", "0::/system.slice/echo.service\n");
        let pids = ("sys/fs/cgroup/system.slice/echo.service/pids.max", "4\n");
        let memory = (
            "sys/fs/cgroup/system.slice/echo.service/memory.max",
            "67108864\n",
        );
        let free = (
            "proc/meminfo",
            "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n",
        );
        let all = [group, pids, memory, free];
        let none = |_: &mut Machine| {};
        let processes = said(&all, &settings(), none, "processes");
        assert_eq!(processes[0].0, Level::Error);
        let memory = said(&all, &settings(), none, "memory");
        assert_eq!(memory[0].0, Level::Warn, "{memory:?}");
        assert_eq!(said(&[free], &settings(), none, "memory")[0].0, Level::Ok);
    }

    #[test]
    fn strict_overcommit_and_little_address_space_are_errors() {
        let strict = [
            ("proc/sys/vm/overcommit_memory", "2\n"),
            (
                "proc/meminfo",
                "MemAvailable: 4000000 kB\nCommitLimit: 9000 kB\nCommitted_AS: 1 kB\n",
            ),
        ];
        let found = said(
            &strict,
            &settings(),
            |m| m.address_space = Some(1 << 20),
            "memory",
        );
        let levels: Vec<_> = found.iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::Ok, Level::Error, Level::Error], "{found:?}");
    }
}
