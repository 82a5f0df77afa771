//! Counting one path: this very program under callgrind, which counts inside of `paths::pass` only.
//!
//! The environment is empty, and all memory is where it was the last time: so the count is the same.

use std::{env, fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::paths::PASSES;

/// Instructions of one pass.
pub(crate) fn count(path: &str) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("counts");
    let program = env::current_exe()?;
    let output = Command::new("valgrind")
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .args([
            "--tool=callgrind",
            "--toggle-collect=gannet_counts::paths::pass*",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["--walk", path])
        .output()
        .context("valgrind does not start: is it installed?")?;
    if !output.status.success() {
        bail!(
            "{path} ended with {} under valgrind:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let profile = fs::read_to_string(&out).context("what callgrind has written")?;
    let total = total(&profile).with_context(|| format!("callgrind gave no count for {path}"))?;
    if total == 0 {
        bail!("callgrind has not seen `paths::pass`: the count would be that of nothing");
    }
    Ok((total + u64::from(PASSES) / 2) / u64::from(PASSES))
}

fn total(profile: &str) -> Option<u64> {
    let lines = || profile.lines();
    let line = lines().find_map(|line| line.strip_prefix("summary: "));
    let line = line.or_else(|| lines().find_map(|line| line.strip_prefix("totals: ")));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_in_the_summary() {
        let profile = "version: 1\nevents: Ir\nfn=(1) x\n4 7\nsummary: 7123\n\ntotals: 7123\n";
        assert_eq!(total(profile), Some(7123));
        assert_eq!(total("events: Ir\n\ntotals: 12\n"), Some(12));
        assert_eq!(total("events: Ir\n"), None);
    }
}
