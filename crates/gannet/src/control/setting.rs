//! What a server tells about its settings.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{Align, table};

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Setting {
    /// Its name: `workers`, `listeners.0.idle_timeout_ms`.
    pub name: String,
    /// Its value; of secrets only that there is one.
    pub value: serde_json::Value,
    /// Who has said so.
    pub source: SettingSource,
    /// Where that stands: `/etc/echo.toml:3`, `GANNET_WORKERS`, `--workers`.
    pub at: Option<String>,
    /// Whether the server has made something else of it, as of port 0 or a limit that the system
    /// does not allow.
    pub adjusted: bool,
}

/// Who has said what a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SettingSource {
    /// Nobody.
    Default,
    /// The program.
    Code,
    /// The settings file.
    File,
    /// The environment.
    Variable,
    /// The command line.
    Flag,
}

/// Settings, to be printed as a table.
pub struct SettingTable<'a>(pub &'a [Setting]);

impl fmt::Display for SettingTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = [
            ("SETTING", Align::Left),
            ("VALUE", Align::Left),
            ("FROM", Align::Left),
        ];
        let cells = |setting: &Setting| {
            let value = match &setting.value {
                serde_json::Value::String(text) if text.is_empty() => "\"\"".to_owned(),
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Null => "-".to_owned(),
                value => value.to_string(),
            };
            vec![setting.name.clone(), value, setting.from()]
        };
        table(f, &titles, self.0.iter().map(cells))
    }
}

impl Setting {
    fn from(&self) -> String {
        let source = match (self.source, &self.at) {
            (_, Some(at)) => at.as_str(),
            (SettingSource::Default, None) => "default",
            (_, None) => "code",
        };
        match self.adjusted {
            true => format!("{source}, adjusted at the start"),
            false => source.to_owned(),
        }
    }
}
