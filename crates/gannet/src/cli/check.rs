//! `check`.

use clap::Args;

use super::{Start, print};
use crate::{Result, Server, check::Findings};

/// Look at the settings and at the machine as a start would, and say what to change
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Check {
    /// As JSON
    #[arg(long)]
    pub json: bool,

    /// The user that the server is to run as, as for the start
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// And the group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

impl Check {
    pub(super) fn run(&self, server: &Server) -> Result {
        let start = Start {
            user: self.user.clone(),
            group: self.group.clone(),
            ..Start::default()
        };
        let findings = match start.apply(server.clone()).look() {
            Ok(findings) => findings,
            Err(error) => {
                if self.json {
                    print(&Findings::of_wrong_settings(&error).json()?)?;
                }
                return Err(error);
            }
        };
        match self.json {
            true => print(&findings.json()?)?,
            false => print(&findings.to_string())?,
        }
        findings.verdict()
    }
}

const EXAMPLES: &str = "\
What is wrong with the settings is one line, as at the start, with exit code 2. Exit code 1:
something else is in the way of a start. Warnings are about what a busy server needs.

Examples:
  {name} check
  {name} check --json";
