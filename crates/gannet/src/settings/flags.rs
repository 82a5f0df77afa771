//! Settings from the command line.

use std::path::PathBuf;

use super::{
    Settings,
    address::listen,
    fields::{Given, of_server},
    origins::{Named, of_address},
    tls::Overrides,
};
use crate::{Error, Result, control::SettingSource};

/// The flags that set something.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Address of the first listener (again: of the next): 127.0.0.1:9501, ws://[::]:80,
    /// unix:/run/echo.sock, udp://127.0.0.1:9501
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Vec<String>,

    /// Certificate (PEM) of the listeners that speak TLS: --listen wss://, https://, tls://
    #[arg(long, global = true, value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Private key of that certificate
    #[arg(long, global = true, value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Let in only clients whose certificate is from an authority in this file
    #[arg(long, global = true, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    /// Whether workers are processes (the default) or threads: process, thread
    #[arg(long, global = true, value_name = "MODE")]
    mode: Option<String>,

    /// Worker processes
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true)]
    workers: Option<String>,

    /// Reactor threads, which own the connections
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true)]
    reactors: Option<String>,

    /// Task worker processes
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true)]
    task_workers: Option<String>,

    /// File with the process id of the running server
    #[arg(long, global = true, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// File with settings, in TOML
    #[arg(long, global = true, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, trace, or info,my_app=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,

    /// File that the log is appended to, in place of standard error
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// How lines of the log are written: auto (text on a terminal, else JSON), text, json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Flags {
    /// The files for TLS that were given.
    pub(super) fn tls(&self) -> Overrides {
        Overrides {
            certificate: self.tls_cert.clone(),
            key: self.tls_key.clone(),
            client_ca: self.tls_client_ca.clone(),
        }
    }

    /// The settings that are named.
    pub(super) fn named(&self) -> Named {
        let mut named = Named::new();
        let mut name = |setting: String, flag: String| {
            named.push((setting, SettingSource::Flag, flag));
        };
        let given = [
            ("workers", self.workers.is_some()),
            ("reactors", self.reactors.is_some()),
            ("task_workers", self.task_workers.is_some()),
            ("log_level", self.log_level.is_some()),
            ("pid_file", self.pid_file.is_some()),
            ("log_format", self.log_format.is_some()),
            ("log_file", self.log_file.is_some()),
        ];
        for (setting, _) in given.into_iter().filter(|(_, given)| *given) {
            name(
                setting.to_owned(),
                format!("--{}", setting.replace('_', "-")),
            );
        }
        for (index, address) in self.listen.iter().enumerate() {
            for setting in of_address(index, address) {
                name(setting, "--listen".to_owned());
            }
        }
        for (setting, variable) in self.tls().named() {
            let flag = variable.to_ascii_lowercase().replace('_', "-");
            name(
                format!("listeners.*.tls.{setting}"),
                format!("--tls-{flag}"),
            );
        }
        named
    }

    /// Changes `settings` by the flags that were given.
    pub(super) fn apply(&self, settings: &mut Settings) -> Result {
        let values = [
            ("--mode", "mode", &self.mode),
            ("--workers", "workers", &self.workers),
            ("--reactors", "reactors", &self.reactors),
            ("--task-workers", "task_workers", &self.task_workers),
            ("--log-level", "log_level", &self.log_level),
            ("--log-format", "log_format", &self.log_format),
        ];
        for (flag, setting, value) in values {
            let Some(value) = value else { continue };
            let mut fields = of_server(settings);
            let field = fields.iter_mut().find(|field| field.name == setting);
            if let Some(Err(wrong)) = field.map(|field| field.set(Given::Word(value))) {
                return Err(Error::usage(format!("{flag} {wrong}")));
            }
        }
        if let Some(path) = &self.pid_file {
            settings.pid_file = Some(path.clone());
        }
        if let Some(path) = &self.log_file {
            settings.log_file = Some(path.clone());
        }
        for (index, address) in self.listen.iter().enumerate() {
            listen(settings, index, address).map_err(|error| error.context("--listen"))?;
        }
        Ok(())
    }
}
