//! `status`.

use clap::Args;

use super::print;
use crate::{Result, Server};

/// Show the state of the running server
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Status {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

impl Status {
    pub(super) fn run(&self, server: &Server) -> Result {
        let status = server.control()?.status_with_pss()?;
        match self.json {
            true => print(&serde_json::to_string(&status)?),
            false => print(status.to_string().trim_end()),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  {name} status
  {name} status --json";
