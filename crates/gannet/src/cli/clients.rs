//! `clients`.

use clap::Args;

use super::{print, whom::Whom};
use crate::{Result, Server, control::ClientTable};

/// List the connections of the running server
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Clients {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "clap would show it in place of what the struct says"
    )]
    pub whom: Whom,

    /// No more than so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// As JSON
    #[arg(long)]
    pub json: bool,
}

impl Clients {
    pub(super) fn run(&self, server: &Server) -> Result {
        let only = self.whom.filter(None, false);
        let limit = self.limit.unwrap_or(usize::MAX);
        let clients = server.control()?.clients_where(&only, limit)?;
        match self.json {
            true => print(&serde_json::to_string(&clients)?),
            false => print(ClientTable(&clients).to_string().trim_end()),
        }
    }
}

const EXAMPLES: &str = "\
Connections are shown to which all that is given applies.

Examples:
  {name} clients
  {name} clients --uid ann
  {name} clients --address 198.51.100.0/24 --limit 20
  {name} clients --topic news --json";
