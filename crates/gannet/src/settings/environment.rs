//! Settings from the environment: `GANNET_WORKERS=4`, `GANNET_LISTEN=127.0.0.1:9501,[::1]:9501`.

use std::{ffi::OsString, path::PathBuf};

use super::{
    Settings,
    address::listen,
    fields::{nearest, of_server},
    origins::{Named, of_address},
    tls::Overrides,
};
use crate::{Error, Result, control::SettingSource};

/// The variables that concern a server.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// `GANNET_CONFIG`: the settings file.
    pub(crate) config: Option<PathBuf>,
    listen: Option<String>,
    pub(super) tls: Overrides,
    /// Name of the setting, name of the variable, value.
    values: Vec<(String, String, String)>,
}

impl Environment {
    /// Picks out the variables whose names start with `GANNET_`. Those in `allowed` are the
    /// program's own.
    pub(crate) fn read(
        variables: impl Iterator<Item = (OsString, OsString)>,
        allowed: &[String],
    ) -> Result<Self> {
        let mut environment = Environment::default();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if OWN.contains(&name) || allowed.iter().any(|allowed| allowed == name) {
                continue;
            }
            let value = value.into_string().map_err(|value| {
                Error::usage(format!(
                    "the value of {name} is no text: {}",
                    value.display()
                ))
            })?;
            environment.take(name, value)?;
        }
        Ok(environment)
    }

    /// The settings that are named.
    pub(super) fn named(&self) -> Named {
        let mut named = Named::new();
        let mut name = |setting: String, variable: &str| {
            named.push((setting, SettingSource::Variable, variable.to_owned()));
        };
        for (setting, variable, _) in &self.values {
            name(setting.clone(), variable);
        }
        for (index, address) in self
            .listen
            .iter()
            .flat_map(|all| all.split(','))
            .enumerate()
        {
            for setting in of_address(index, address.trim()) {
                name(setting, "GANNET_LISTEN");
            }
        }
        for (setting, variable) in self.tls.named() {
            let setting = format!("listeners.*.tls.{setting}");
            name(setting, &format!("{PREFIX}TLS_{variable}"));
        }
        named
    }

    /// Changes `settings` by what was found.
    pub(super) fn apply(&self, settings: &mut Settings) -> Result {
        for (setting, variable, value) in &self.values {
            let mut fields = of_server(settings);
            let field = fields.iter_mut().find(|field| field.name == setting);
            if let Some(Err(wrong)) =
                field.map(|field| field.set(super::fields::Given::Word(value)))
            {
                return Err(Error::usage(format!("the variable {variable} {wrong}")));
            }
        }
        if let Some(addresses) = &self.listen {
            for (index, address) in addresses.split(',').enumerate() {
                listen(settings, index, address.trim())
                    .map_err(|error| error.context("the variable GANNET_LISTEN"))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, variable: &str, value: String) -> Result {
        match &variable[PREFIX.len()..] {
            "CONFIG" => self.config = Some(value.into()),
            "LISTEN" => self.listen = Some(value),
            "TLS_CERT" => self.tls.certificate = Some(value.into()),
            "TLS_KEY" => self.tls.key = Some(value.into()),
            "TLS_CLIENT_CA" => self.tls.client_ca = Some(value.into()),
            name => {
                let setting = name.to_ascii_lowercase();
                let mut defaults = Settings::default();
                let fields = of_server(&mut defaults);
                let known = || fields.iter().map(|field| field.name);
                let upper = name.bytes().all(|byte| !byte.is_ascii_lowercase());
                if !upper || !known().any(|known| known == setting) {
                    let known =
                        known().chain(["config", "listen", "tls_cert", "tls_key", "tls_client_ca"]);
                    let hint = match nearest(&setting, known) {
                        Some(near) => {
                            format!(": did you mean {PREFIX}{}?", near.to_ascii_uppercase())
                        }
                        None => format!(": unset it ({PREFIX}… names settings only)"),
                    };
                    return Err(Error::usage(format!(
                        "the variable {variable} names no setting{hint}"
                    )));
                }
                self.values.push((setting, variable.to_owned(), value));
            }
        }
        Ok(())
    }
}

const PREFIX: &str = "GANNET_";
/// What the processes of a server tell each other.
const OWN: [&str; 3] = [
    crate::bootstrap::ENV,
    crate::daemon::ENV,
    crate::manager::TITLED_ENV,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment> {
        let variables = variables
            .iter()
            .map(|&(name, value)| (name.into(), value.into()));
        Environment::read(variables, &["GANNET_DATA".to_owned()])
    }

    fn error(name: &str, value: &str) -> String {
        let apply = |environment: Environment| environment.apply(&mut Settings::default());
        read(&[(name, value)])
            .and_then(apply)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn variables_set_settings_and_addresses() {
        let environment = read(&[
            ("PATH", "/bin"),
            ("GANNET_DATA", "the program's own"),
            ("GANNET_BOOTSTRAP", "7"),
            ("GANNET_WORKERS", "7"),
            ("GANNET_LISTEN", "http://[::1]:80, localhost:81"),
            ("GANNET_CONFIG", "/etc/echo.toml"),
        ])
        .unwrap();
        let mut settings = Settings::default();
        environment.apply(&mut settings).unwrap();
        assert_eq!(settings.workers, 7);
        let addresses: Vec<_> = settings
            .listeners
            .iter()
            .map(|listener| listener.address.as_str())
            .collect();
        assert_eq!(addresses, ["[::1]:80", "localhost:81"]);
        assert_eq!(environment.config, Some("/etc/echo.toml".into()));
    }

    #[test]
    fn errors_name_the_variable() {
        assert_eq!(
            error("GANNET_WROKERS", "1"),
            "the variable GANNET_WROKERS names no setting: did you mean GANNET_WORKERS?"
        );
        assert_eq!(
            error("GANNET_workers", "1"),
            "the variable GANNET_workers names no setting: did you mean GANNET_WORKERS?"
        );
        assert!(error("GANNET_COLOUR", "1").contains("unset it"));
        assert_eq!(
            error("GANNET_WORKERS", "many"),
            "the variable GANNET_WORKERS must be a number from 1 to 1024, not \"many\""
        );
        assert!(error("GANNET_LISTEN", "9501").starts_with("the variable GANNET_LISTEN: "));
    }
}
