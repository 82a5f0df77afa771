//! `start`.

use clap::Args;

use crate::{Server, Settings, control::SettingSource};

/// Run the server, in the foreground without --daemon (this is what happens without a command)
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Start {
    /// In the background: returns when the server serves, or says why it does not
    #[arg(long)]
    pub daemon: bool,

    /// Run as this user, by name or number; root only [setting: user]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// And as this group [default: that of the user] [setting: group]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Reload when the program, or one of these files or directories, has changed
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub watch: Vec<String>,
}

impl Start {
    /// The server that is started as the arguments say.
    pub fn apply(&self, mut server: Server) -> Server {
        server.start.clone_from(self);
        server
    }

    /// The settings that are named.
    pub(crate) fn named(&self) -> Vec<(String, SettingSource, String)> {
        let given = [
            ("user", self.user.is_some()),
            ("group", self.group.is_some()),
            ("watch", !self.watch.is_empty()),
        ];
        let named = given.into_iter().filter(|(_, given)| *given);
        named
            .map(|(name, _)| (name.to_owned(), SettingSource::Flag, format!("--{name}")))
            .collect()
    }

    /// What the flags of the command say wins, as flags do.
    pub(crate) fn set(&self, settings: &mut Settings) {
        if let Some(user) = &self.user {
            settings.user.clone_from(user);
        }
        if let Some(group) = &self.group {
            settings.group.clone_from(group);
        }
        if !self.watch.is_empty() {
            settings.watch.clone_from(&self.watch);
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  {name} {command}
  {name} {command} --pid-file /run/example.pid
  {name} {command} --user www-data
  {name} {command} --daemon --log-file /var/log/example.log
  {name} {command} --watch templates certs/server.pem";
