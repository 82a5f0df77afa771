//! Where each setting comes from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Listener, Settings, Tls};
use crate::control::{Setting, SettingSource};

/// What one layer says: names of settings, each with its source and where that is. `*` in a name
/// stands for any listener; a name stands for all that is below it.
pub(crate) type Named = Vec<(String, SettingSource, String)>;

/// Where the settings of a server come from, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    /// As they were put together.
    gathered: BTreeMap<String, Value>,
    by_name: BTreeMap<String, (SettingSource, Option<String>)>,
}

impl Origins {
    /// `layers`: the first wins.
    pub(crate) fn new(settings: &Settings, layers: &[Named]) -> Self {
        let gathered = flat(settings);
        let by_name = gathered.iter().map(|(name, value)| {
            let named = layers.iter().flatten();
            let named = named.filter(|(pattern, ..)| stands_for(pattern, name));
            let origin = named
                .map(|(_, source, at)| (*source, Some(at.clone())))
                .next();
            let origin = origin.unwrap_or_else(|| match default_of(name).as_ref() == Some(value) {
                true => (SettingSource::Default, None),
                false => (SettingSource::Code, None),
            });
            (name.clone(), origin)
        });
        let by_name = by_name.collect();
        Origins { gathered, by_name }
    }

    /// The settings in force, with their origins.
    pub(crate) fn show(&self, settings: &Settings) -> Vec<Setting> {
        let shown = flat(settings).into_iter().map(|(name, value)| {
            let (source, at) = self
                .by_name
                .get(&name)
                .cloned()
                .unwrap_or((SettingSource::Code, None));
            Setting {
                adjusted: self.gathered.get(&name) != Some(&value),
                value: match is_secret(&name) && value.as_str() != Some("") {
                    true => Value::from("(not shown)"),
                    false => value,
                },
                name,
                source,
                at,
            }
        });
        shown.collect()
    }
}

/// Each value under its name: `workers`, `listeners.0.tls.certificate`.
fn flat(settings: &Settings) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(settings) {
        for (name, value) in fields {
            // Those are the code's alone.
            if name != "processes" {
                flatten(name, value, &mut values);
            }
        }
    }
    values
}

fn flatten(name: String, value: Value, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (field, value) in fields {
                flatten(format!("{name}.{field}"), value, values);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, value) in items.into_iter().enumerate() {
                flatten(format!("{name}.{index}"), value, values);
            }
        }
        value => drop(values.insert(name, value)),
    }
}

/// What the setting is if nobody says anything.
fn default_of(name: &str) -> Option<Value> {
    let (whole, rest) = match name.split('.').collect::<Vec<_>>()[..] {
        ["listeners", _, "tls", ref rest @ ..] => {
            (serde_json::to_value(Tls::default()), rest.join("."))
        }
        // There is none.
        ["listeners", _, "address"] => return None,
        ["listeners", _, ref rest @ ..] => {
            (serde_json::to_value(Listener::default()), rest.join("."))
        }
        _ => (serde_json::to_value(Settings::default()), name.to_owned()),
    };
    let mut value = whole.ok()?;
    for part in rest.split('.') {
        value = value.get_mut(part)?.take();
    }
    Some(value)
}

/// Whether a name in a layer stands for this setting.
fn stands_for(pattern: &str, name: &str) -> bool {
    let mut parts = name.split('.');
    pattern.split('.').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| wanted == "*" || wanted == part)
    })
}

fn is_secret(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    ["password", "passphrase", "secret", "token"]
        .iter()
        .any(|word| last.contains(word))
}

/// The names in an address: with a scheme it says the protocol too.
pub(super) fn of_address(index: usize, address: &str) -> Vec<String> {
    let mut names = vec![format!("listeners.{index}.address")];
    if let Some((scheme, _)) = address.split_once("://") {
        names.push(format!("listeners.{index}.protocol"));
        if ["tls", "https", "wss"].contains(&scheme) {
            names.push(format!("listeners.{index}.tls"));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(names: &[&str], source: SettingSource, at: &str) -> Named {
        let named = names
            .iter()
            .map(|name| ((*name).to_owned(), source, at.to_owned()));
        named.collect()
    }

    #[test]
    fn the_first_layer_that_names_a_setting_has_it() {
        let settings = Settings {
            workers: 3,
            max_in_flight: 9,
            listeners: vec![Listener::tcp("a:1").with_tls(Tls::new("cert", "key"))],
            ..Settings::default()
        };
        let flags = layer(&["workers"], SettingSource::Flag, "--workers");
        let tls = layer(
            &["listeners.*.tls.key"],
            SettingSource::Variable,
            "GANNET_TLS_KEY",
        );
        let names = ["workers", "listeners.0.tls", "task_workers"];
        let file = layer(&names, SettingSource::File, "x.toml:1");
        let origins = Origins::new(&settings, &[flags, tls, file]);
        let mut effective = settings.clone();
        effective.max_connections = 77;
        let shown = origins.show(&effective);
        let of = |name: &str| {
            let setting = shown.iter().find(|setting| setting.name == name).unwrap();
            (setting.source, setting.at.as_deref(), setting.adjusted)
        };
        assert_eq!(
            of("workers"),
            (SettingSource::Flag, Some("--workers"), false)
        );
        assert_eq!(
            of("task_workers"),
            (SettingSource::File, Some("x.toml:1"), false)
        );
        assert_eq!(of("listeners.0.tls.key").0, SettingSource::Variable);
        assert_eq!(of("listeners.0.tls.certificate").0, SettingSource::File);
        assert_eq!(
            of("listeners.0.address"),
            (SettingSource::Code, None, false)
        );
        assert_eq!(
            of("listeners.0.backlog"),
            (SettingSource::Default, None, false)
        );
        assert_eq!(of("max_in_flight"), (SettingSource::Code, None, false));
        assert_eq!(of("max_connections"), (SettingSource::Default, None, true));
    }

    #[test]
    fn secrets_are_not_shown() {
        for name in ["admin_token", "listeners.0.tls.key_password", "secret"] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("listeners.0.tls.key") && !is_secret("max_queued"));
    }

    #[test]
    fn an_address_names_what_its_scheme_says() {
        assert_eq!(of_address(0, "a:1"), ["listeners.0.address"]);
        let names = of_address(1, "wss://a:1");
        assert_eq!(
            names,
            [
                "listeners.1.address",
                "listeners.1.protocol",
                "listeners.1.tls"
            ]
        );
    }
}
