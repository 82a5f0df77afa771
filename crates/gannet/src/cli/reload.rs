//! `reload`.

use clap::Args;

use super::print;
use crate::{Error, Result, Server, control::Reloaded};

/// Replace the workers by new processes of the program on disk; no connection drops
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Reload {
    /// Replace task workers only
    #[arg(long)]
    pub tasks: bool,
}

impl Reload {
    pub(super) fn run(&self, server: &Server) -> Result {
        outcome(&server.control()?.reload(self.tasks)?)
    }
}

fn outcome(reloaded: &Reloaded) -> Result {
    if let Some(error) = &reloaded.certificates {
        return Err(Error::new(format!(
            "the certificates stay as they are: {error} (workers: {})",
            reloaded.error.as_deref().unwrap_or("reloaded")
        )));
    }
    match &reloaded.error {
        None => print(&format!("reloaded {} workers", reloaded.workers.len())),
        Some(error) => Err(Error::new(format!("reload aborted: {error}"))),
    }
}

const EXAMPLES: &str = "\
Examples:
  {name} reload
  {name} reload --tasks";
