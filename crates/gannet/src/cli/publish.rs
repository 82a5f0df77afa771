//! `publish`.

use clap::Args;

use super::{print, whom::What};
use crate::{Error, Result, Server};

/// Send a message to all who have subscribed to a topic
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Publish {
    /// The topic
    pub topic: String,

    /// The message; `-`: standard input
    pub text: Option<String>,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "clap would show it in place of what the struct says"
    )]
    pub what: What,
}

impl Publish {
    pub(super) fn run(&self, server: &Server) -> Result {
        if self.text.is_some() && self.what.words() == 0 {
            return Err(Error::usage("there is more than one message: see --help"));
        }
        let payload = self.what.payload(self.text.as_deref())?;
        let count = server.control()?.publish(&self.topic, payload)?;
        print(&format!("sent to {count} connections"))
    }
}

const EXAMPLES: &str = "\
Examples:
  {name} publish news 'back in five minutes'
  {name} publish prices --file prices.json
  date | {name} publish clock -";
