//! Who runs where: servers on the first processor, the load and this program on the second.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A processor by its use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Processor {
    Servers = 0,
    Load = 1,
}

/// Whether the processors are there and allowed.
pub(crate) fn are_two() -> bool {
    sched_getaffinity(None).is_ok_and(|set| set.is_set(0) && set.is_set(1))
}

/// Keeps this thread, and what it starts from now on, on that processor, if there are two.
pub(crate) fn keep_to(processor: Processor) {
    let mut set = CpuSet::new();
    set.set(processor as usize);
    // On a machine with one processor there is nothing to choose; the results say how many there were.
    let _ = sched_setaffinity(None, &set);
}

/// Processor time of the whole machine until now: what others on the same host took from it (the
/// hypervisor's account), and all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stolen {
    stolen: u64,
    all: u64,
}

impl Stolen {
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        Stolen {
            stolen: ticks.get(7).copied().unwrap_or(0),
            all: ticks.iter().take(8).sum(),
        }
    }

    /// The share that was stolen since then, in percent.
    pub(crate) fn percent_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let stolen = self.stolen.saturating_sub(before.stolen);
        if all == 0 {
            0.0
        } else {
            100.0 * stolen as f64 / all as f64
        }
    }
}
