//! `send`.

use clap::Args;

use super::{
    print,
    whom::{What, Whom, conn},
};
use crate::{Error, Result, Server};

/// Send a message to connections of the running server
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Send {
    /// The connection, by its number in `clients`, if no option says whom; and the text (`-`: standard
    /// input), if no option says what
    #[arg(value_names = ["CONN", "TEXT"], num_args = 0..=2)]
    pub words: Vec<String>,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "clap would show it in place of what the struct says"
    )]
    pub whom: Whom,

    /// All connections
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "clap would show it in place of what the struct says"
    )]
    pub what: What,
}

impl Send {
    pub(super) fn run(&self, server: &Server) -> Result {
        let mut words = self.words.iter().map(String::as_str);
        let conn = match self.words.len() == self.what.words() + 1 {
            true => words.next().map(conn).transpose().map_err(Error::usage)?,
            false => None,
        };
        let to = self.whom.somebody(conn, self.all)?;
        let payload = self.what.payload(words.next())?;
        if words.next().is_some() {
            return Err(Error::usage("there is more than one message: see --help"));
        }
        let count = server.control()?.send_to(to, payload)?;
        print(&format!("sent to {count} connections"))
    }
}

const EXAMPLES: &str = "\
Connections are meant to which all that is given applies. Those that speak HTTP have no messages.

Examples:
  {name} send 4503599627370497 'hello'
  {name} send --uid ann '{\"event\":\"news\"}'
  {name} send --all --file notice.json
  date | {name} send --listener 0 -
  {name} send 4503599627370497 --hex 00ff";
