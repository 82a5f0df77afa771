//! Counts the instructions of the paths that every message takes, and compares them with the counts that
//! are kept beside this package (`counts.toml`).
//!
//! A clock on a machine that does other things as well is off by a tenth, and hides a path that has become
//! a tenth slower. A count is the same each time: valgrind's callgrind runs each path in a process of its
//! own, and counts from where the path is warm (`paths::pass`) for a thousand passes.
//!
//! | file | idea |
//! |---|---|
//! | `paths` | what is counted |
//! | `callgrind` | counting one of them |
//! | `kept` | the counts that are kept, and the comparison |

mod callgrind;
mod kept;
mod paths;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::{
    kept::{Kept, Verdict},
    paths::PATHS,
};

/// Counts instructions and compares them with counts.toml
#[derive(Debug, Parser)]
struct Arguments {
    /// Only paths whose name has this in it
    filter: Option<String>,
    /// Keep what is counted now
    #[arg(long)]
    accept: bool,
    /// What valgrind runs
    #[arg(long, hide = true)]
    walk: Option<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(name) = arguments.walk {
        paths::walk(&name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let mut kept = Kept::read()?;
    let (mut counted, mut grown) = (0, Vec::new());
    println!("{:<24} {:>9} {:>9}", "instructions a pass", "kept", "now");
    for path in PATHS.iter().filter(|path| path.name.contains(filter)) {
        let now = callgrind::count(path.name)?;
        let (before, verdict) = kept.judge(path.name, now);
        let before = before.map_or("-".to_owned(), |before| before.to_string());
        println!("{:<24} {before:>9} {now:>9}  {verdict}", path.name);
        counted += 1;
        if matches!(verdict, Verdict::Grown(_) | Verdict::New) {
            grown.push(path);
        }
        if arguments.accept {
            kept.keep(path.name, now);
        }
    }
    if counted == 0 {
        bail!("no path has `{filter}` in its name");
    }
    if arguments.accept {
        kept.write(filter.is_empty().then_some(PATHS))?;
        println!("kept in {}", kept::FILE);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(other) = kept.other_compiler() {
        println!(
            "the kept counts are of {other}: what is within {}% passes",
            kept.tolerance()
        );
    }
    if grown.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    for path in grown {
        println!(
            "{} takes more than {}% above what is kept: {}",
            path.name,
            kept.tolerance(),
            path.what
        );
    }
    println!(
        "where they go: valgrind --tool=callgrind, as in crates/gannet-counts/src/callgrind.rs"
    );
    println!("if it has to be so: GANNET_COUNTS=accept ./test counts, and say why in the commit");
    Ok(ExitCode::FAILURE)
}
