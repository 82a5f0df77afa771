//! `kick`.

use clap::Args;

use super::{
    print,
    whom::{Whom, conn},
};
use crate::{ConnId, Result, Server};

/// Close connections of the running server
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Kick {
    /// The connection, by its number in `clients`
    #[arg(value_parser = conn)]
    pub conn: Option<ConnId>,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "clap would show it in place of what the struct says"
    )]
    pub whom: Whom,

    /// All connections
    #[arg(long)]
    pub all: bool,

    /// Close code for WebSockets: 1000, or 4000 to 4999 [default: 1008]
    #[arg(long)]
    pub code: Option<u16>,

    /// Reason for WebSockets, at most 123 bytes
    #[arg(long, requires = "code")]
    pub reason: Option<String>,
}

impl Kick {
    pub(super) fn run(&self, server: &Server) -> Result {
        let to = self.whom.somebody(self.conn, self.all)?;
        let reason = self.reason.as_deref().unwrap_or_default();
        let close = self.code.map(|code| (code, reason));
        let count = server.control()?.kick_where(to, close)?;
        print(&format!("kicked {count} connections"))
    }
}

const EXAMPLES: &str = "\
Connections are meant to which all that is given applies.

Examples:
  {name} kick 4503599627370497
  {name} kick --uid ann --code 4001 --reason 'signed in elsewhere'
  {name} kick --address 198.51.100.0/24 --listener 0";
