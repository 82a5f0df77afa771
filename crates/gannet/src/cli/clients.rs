//! `clients`.

use clap::Args;

use super::print;
use crate::{Result, Server, control::ClientTable};

/// List the connections of the running server
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Clients {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

impl Clients {
    pub(super) fn run(&self, server: &Server) -> Result {
        let clients = server.control()?.clients()?;
        match self.json {
            true => print(&serde_json::to_string(&clients)?),
            false => print(ClientTable(&clients).to_string().trim_end()),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  {name} clients
  {name} clients --json";
