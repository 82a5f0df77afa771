//! How much memory a process has, as the kernel counts it.

use std::fs;

/// Resident bytes, shared ones included.
pub(super) fn rss(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Resident bytes, each shared one divided among those who share it. The kernel walks through the
/// whole memory for it; it may refuse.
pub(super) fn pss(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = pss.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_no_more_of_its_own_than_it_has() {
        let own = std::process::id();
        let (rss, pss) = (rss(own).unwrap(), pss(own).unwrap());
        assert!(
            rss > 100_000 && (1..=rss + (1 << 20)).contains(&pss),
            "{rss} {pss}"
        );
        assert_eq!(super::rss(u32::MAX), None);
    }
}
