//! `start`.

use clap::Args;

use crate::Server;

/// Run the server in the foreground (this is what happens without a command)
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Start {}

impl Start {
    /// The server that is started as the arguments say.
    pub fn apply(&self, server: Server) -> Server {
        server
    }
}

const EXAMPLES: &str = "\
Examples:
  {name} {command}
  {name} {command} --pid-file /run/example.pid";
