//! `settings`.

use clap::Args;

use super::print;
use crate::{
    Result, Server,
    control::{ControlError, SettingSource, SettingTable},
};

/// Show the settings in force, and where each comes from
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
#[non_exhaustive]
pub struct Settings {
    /// Only those that somebody has set
    #[arg(long)]
    pub changed: bool,

    /// Those that a start would use, also if a server runs
    #[arg(long)]
    pub planned: bool,

    /// As JSON
    #[arg(long)]
    pub json: bool,
}

impl Settings {
    pub(super) fn run(&self, server: &Server) -> Result {
        let running = match self.planned {
            true => None,
            false => match server.control() {
                Ok(mut client) => Some(client.settings()?),
                Err(error) => match error.downcast_ref() {
                    Some(ControlError::NotRunning { .. }) => None,
                    _ => return Err(error),
                },
            },
        };
        let is_running = running.is_some();
        let mut settings = match running {
            Some(settings) => settings,
            None => server.planned_settings()?,
        };
        if self.changed {
            settings.retain(|setting| setting.source != SettingSource::Default);
        }
        if self.json {
            return print(&serde_json::to_string(&settings)?);
        }
        let whose = match (is_running, self.planned) {
            (true, _) => "of the running server",
            (false, true) => "as a start would use them",
            (false, false) => "as a start would use them (no server runs)",
        };
        print(&format!("Settings {whose}:\n"))?;
        print(SettingTable(&settings).to_string().trim_end())
    }
}

const EXAMPLES: &str = "\
Shown are the settings of the running server or, without one, those that a start would use.

Examples:
  {name} settings
  {name} settings --changed
  {name} settings --planned --config new.toml --json";
