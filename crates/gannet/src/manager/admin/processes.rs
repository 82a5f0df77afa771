//! What the kernel knows of a process.

use std::fs;

/// What a process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::manager) struct Usage {
    /// Processor time, user and system, in clock ticks.
    pub(super) ticks: u64,
    /// Resident memory, in pages.
    pub(super) pages: u64,
}

impl Usage {
    /// Of a process that lives, or has ended and was not reaped; or, in thread mode, of a thread of this
    /// one. Its memory is that of the process, which is counted once.
    pub(in crate::manager) fn of(pid: u32) -> Option<Self> {
        if pid != std::process::id()
            && let Ok(stat) = fs::read_to_string(format!("/proc/self/task/{pid}/stat"))
        {
            let usage = Self::parse(&stat)?;
            return Some(Usage { pages: 0, ..usage });
        }
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The line of `/proc/PID/stat`.
    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may have blanks and parentheses in it.
        let (_, rest) = stat.rsplit_once(')')?;
        // From field 3, the state, on.
        let mut fields = rest.split_ascii_whitespace();
        let mut number = |skip| fields.nth(skip)?.parse::<u64>().ok();
        let (user, system) = (number(11)?, number(0)?);
        let pages = number(8)?;
        Some(Usage {
            ticks: user + system,
            pages,
        })
    }
}

/// Clock ticks as seconds.
pub(super) fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Pages as bytes.
pub(super) fn bytes(pages: u64) -> u64 {
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 70 30 5 6 20 0 1 0 900 1000000 \
                    512 18446744073709551615 1 1 0";
        let expected = Usage {
            ticks: 100,
            pages: 512,
        };
        assert_eq!(Usage::parse(stat), Some(expected));
        assert_eq!(Usage::parse("42 (cut off) S 1"), None);
    }

    #[test]
    fn this_process_takes_memory() {
        assert!(Usage::of(std::process::id()).unwrap().pages > 0);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
