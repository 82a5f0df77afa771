//! The counts that are kept, by the architecture that they are of.
//!
//! A path may grow by [`TOLERANCE`] percent, since a change elsewhere may move what is inlined where; and
//! by [`OTHER`] percent if the compiler is another than that of the kept counts, because then all of them
//! move. What shrinks passes, and is told: accept it, or the next growth hides behind it.

use std::{collections::BTreeMap, env::consts::ARCH, fmt, fs, io::ErrorKind};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::paths::Path;

pub(crate) const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.toml");
const RUSTC: &str = env!("COUNTS_RUSTC");
/// Percent.
const TOLERANCE: u64 = 3;
const OTHER: u64 = 10;
/// Instructions that never matter.
const FEW: u64 = 2;

/// What stands in the file.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    all: BTreeMap<String, Counts>,
    /// What is counted now.
    counts: BTreeMap<String, u64>,
}

/// Counts of one architecture.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Counts {
    rustc: String,
    counts: BTreeMap<String, u64>,
}

/// How a count compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    /// By so many percent.
    Grown(u64),
    Shrunk(u64),
    /// None is kept.
    New,
}

impl Kept {
    pub(crate) fn read() -> Result<Self> {
        let all = match fs::read_to_string(FILE) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{FILE} cannot be read"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| FILE.to_owned()),
        };
        Ok(Kept {
            all,
            counts: BTreeMap::new(),
        })
    }

    /// The kept count of a path, and how this one compares.
    pub(crate) fn judge(&self, path: &str, now: u64) -> (Option<u64>, Verdict) {
        let kept = self.here().and_then(|kept| kept.counts.get(path)).copied();
        let verdict = kept.map_or(Verdict::New, |kept| judge(kept, now, self.tolerance()));
        (kept, verdict)
    }

    pub(crate) fn keep(&mut self, path: &str, now: u64) {
        self.counts.insert(path.to_owned(), now);
    }

    /// Writes what was kept; what is none of `all` any more is left out.
    pub(crate) fn write(&mut self, all: Option<&[Path]>) -> Result<()> {
        let here = self.all.entry(ARCH.to_owned()).or_default();
        here.rustc = RUSTC.to_owned();
        here.counts.append(&mut self.counts);
        if let Some(all) = all {
            here.counts
                .retain(|name, _| all.iter().any(|path| path.name == name));
        }
        let text = format!("{HEAD}\n{}", toml::to_string(&self.all)?);
        fs::write(FILE, text).with_context(|| FILE.to_owned())
    }

    /// The compiler that the kept counts are of, if it is another.
    pub(crate) fn other_compiler(&self) -> Option<&str> {
        let rustc = &self.here()?.rustc;
        (rustc != RUSTC).then_some(rustc)
    }

    /// Percent that a path may grow.
    pub(crate) fn tolerance(&self) -> u64 {
        match self.other_compiler() {
            None => TOLERANCE,
            Some(_) => OTHER,
        }
    }

    fn here(&self) -> Option<&Counts> {
        self.all.get(ARCH)
    }
}

fn judge(kept: u64, now: u64, tolerance: u64) -> Verdict {
    let difference = kept.abs_diff(now);
    if difference <= FEW.max(kept * tolerance / 100) {
        return Verdict::Same;
    }
    let percent = (difference * 100 / kept.max(1)).max(1);
    match now > kept {
        true => Verdict::Grown(percent),
        false => Verdict::Shrunk(percent),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Same => Ok(()),
            Verdict::Grown(percent) => write!(f, "+{percent}%"),
            Verdict::Shrunk(percent) => write!(f, "-{percent}%: accept it"),
            Verdict::New => write!(f, "none is kept: accept it"),
        }
    }
}

const HEAD: &str = "\
# Instructions of one pass of each path, by callgrind: see src/paths.rs. Written by
# `GANNET_COUNTS=accept ./test counts`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_grow_by_the_tolerance_and_no_more() {
        assert_eq!(judge(1_000, 1_030, TOLERANCE), Verdict::Same);
        assert_eq!(judge(1_000, 1_031, TOLERANCE), Verdict::Grown(3));
        assert_eq!(judge(1_000, 1_100, OTHER), Verdict::Same);
        assert_eq!(judge(1_000, 500, TOLERANCE), Verdict::Shrunk(50));
        assert_eq!(judge(10, 12, TOLERANCE), Verdict::Same, "a few are nothing");
        assert_eq!(judge(10, 13, TOLERANCE), Verdict::Grown(30));
    }

    #[test]
    fn what_is_kept_is_of_this_architecture_and_read_as_it_was_written() {
        let mut kept = Kept::default();
        assert_eq!(kept.judge("a", 5), (None, Verdict::New));
        let counts = Counts {
            rustc: RUSTC.to_owned(),
            counts: [("a".to_owned(), 5)].into(),
        };
        kept.all.insert(ARCH.to_owned(), counts);
        assert_eq!(kept.judge("a", 5), (Some(5), Verdict::Same));
        assert_eq!(kept.tolerance(), TOLERANCE);
        let text = toml::to_string(&kept.all).unwrap();
        let mut again: BTreeMap<String, Counts> = toml::from_str(&text).unwrap();
        assert_eq!(again[ARCH].counts, kept.all[ARCH].counts);

        again.get_mut(ARCH).unwrap().rustc = "another".to_owned();
        kept.all = again;
        assert_eq!(kept.other_compiler(), Some("another"));
        assert_eq!(kept.tolerance(), OTHER);
    }
}
