//! Counters of the program that are metrics of their own.

use super::text::{Family, Kind};
use crate::{Error, Result};

/// A counter, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) help: String,
    /// It only ever grows.
    pub(crate) is_counter: bool,
}

impl Export {
    /// Refuses names that Prometheus would, or that mislead.
    pub(crate) fn check(exports: &[Export]) -> Result {
        for (index, export) in exports.iter().enumerate() {
            export.check_one()?;
            let mut before = exports[..index].iter();
            if let Some(other) = before.find(|other| other.bare() == export.bare()) {
                return Err(Error::usage(format!(
                    "the metrics `{}` and `{}` have one name in the format of OpenMetrics, which \
                     leaves `_total` out: choose another for one of them",
                    other.name, export.name
                )));
            }
        }
        Ok(())
    }

    fn bare(&self) -> &str {
        self.name.strip_suffix("_total").unwrap_or(&self.name)
    }

    fn check_one(&self) -> Result {
        let name = &self.name;
        let wrong = |what: &str| Err(Error::usage(format!("the metric `{name}` {what}")));
        let mut bytes = name.bytes();
        let begins = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        if !bytes.next().is_some_and(begins) || !bytes.all(|b| begins(b) || b.is_ascii_digit()) {
            return wrong("must have letters, digits and `_` only, and not begin with a digit");
        }
        if name.starts_with("gannet_") {
            return wrong("must not begin with `gannet_`: these names are the engine's");
        }
        match (self.is_counter, name.ends_with("_total")) {
            (true, false) => wrong("is a counter: let its name end in `_total`"),
            (false, true) => wrong("is a gauge: only the name of a counter ends in `_total`"),
            _ if ["_bucket", "_count", "_sum", "_info", "_created"]
                .iter()
                .any(|suffix| name.ends_with(suffix)) =>
            {
                wrong("has an ending that stands for a part of another metric: choose another name")
            }
            _ if self.help.trim().is_empty() => wrong("has no text that says what it is"),
            _ => Ok(()),
        }
    }

    pub(super) fn family(&self) -> Family<'_> {
        Family {
            name: &self.name,
            kind: match self.is_counter {
                true => Kind::Counter,
                false => Kind::Gauge,
            },
            help: &self.help,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mislead_are_refused() {
        let check = |name: &str, is_counter, help: &str| {
            let export = Export {
                name: name.to_owned(),
                help: help.to_owned(),
                is_counter,
            };
            Export::check(&[export]).map_err(|error| error.to_string())
        };
        assert_eq!(check("shop_orders_total", true, "Orders."), Ok(()));
        assert_eq!(check("shop_baskets", false, "Baskets."), Ok(()));
        for (name, is_counter, help, says) in [
            ("", false, "A.", "must have letters"),
            ("1st", false, "A.", "must have letters"),
            ("a.b", false, "A.", "must have letters"),
            ("gannet_x", false, "A.", "the engine's"),
            ("orders", true, "A.", "end in `_total`"),
            ("orders_total", false, "A.", "is a gauge"),
            ("orders_sum", false, "A.", "choose another"),
            ("orders", false, " ", "no text"),
        ] {
            let error = check(name, is_counter, help).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
        let both = [("orders_total", true), ("orders", false)].map(|(name, is_counter)| Export {
            name: name.to_owned(),
            help: "Orders.".to_owned(),
            is_counter,
        });
        let error = Export::check(&both).unwrap_err().to_string();
        assert!(error.contains("`orders_total` and `orders`"), "{error}");
    }
}
