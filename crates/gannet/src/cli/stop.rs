//! `stop`.

use clap::Args;

use crate::{Result, Server};

/// Stop the running server gracefully, and wait until it has ended
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Stop {}

impl Stop {
    pub(super) fn run(&self, server: &Server) -> Result {
        server.control()?.stop()
    }
}

const EXAMPLES: &str = "\
Example:
  {name} stop --pid-file /run/example.pid";
