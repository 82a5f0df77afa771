//! Names and addresses: who a message comes from and where it goes.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a person or program that uses the hub.
///
/// 1 to 63 bytes (what the engine's connection table holds) of letters and digits of any script
/// and `-`, `_`, `.`, `@`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User(Arc<str>);

/// The name of one of a user's devices: 1 to 64 bytes, the same characters as a [`User`].
///
/// The keys that a client gives its messages are unique within its device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device(Arc<str>);

/// The name of a channel: 1 to 64 bytes, the same characters as a [`User`].
///
/// A channel exists by being named: nobody has to create it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// Where a message goes: `user:ann` or `channel:room-1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Every connection of this user.
    User(User),
    /// Everyone who subscribed to this channel, and its history.
    Channel(Channel),
}

/// Why a text is no name or no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Empty or too long.
    #[error("a {what} has 1 to {max} bytes, this has {len}")]
    Length {
        /// What it was to be: `user`, `device`, `channel`.
        what: &'static str,
        /// Most bytes.
        max: usize,
        /// Bytes of the text.
        len: usize,
    },
    /// A character that names do not have.
    #[error("a {what} has letters, digits and - _ . @ only, this has {found:?}")]
    Character {
        /// What it was to be.
        what: &'static str,
        /// The first such character.
        found: char,
    },
    /// An address of no known kind.
    #[error("an address is user:NAME or channel:NAME")]
    Kind,
}

impl Address {
    /// The engine's topic that reaches this address.
    pub(crate) fn topic(&self) -> String {
        self.to_string()
    }
}

impl User {
    /// The topic that every connection of the user is subscribed to.
    pub(crate) fn topic(&self) -> String {
        format!("user:{self}")
    }
}

impl Channel {
    /// The topic of the channel's subscribers.
    pub(crate) fn topic(&self) -> String {
        format!("channel:{self}")
    }
}

impl FromStr for Address {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text.split_once(':') {
            Some(("user", name)) => name.parse().map(Address::User),
            Some(("channel", name)) => name.parse().map(Address::Channel),
            _ => Err(BadName::Kind),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::User(user) => write!(f, "user:{user}"),
            Address::Channel(channel) => write!(f, "channel:{channel}"),
        }
    }
}

fn checked(text: &str, what: &'static str, max: usize) -> Result<Arc<str>, BadName> {
    if text.is_empty() || text.len() > max {
        return Err(BadName::Length {
            what,
            max,
            len: text.len(),
        });
    }
    match text
        .chars()
        .find(|&c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@')))
    {
        Some(found) => Err(BadName::Character { what, found }),
        None => Ok(text.into()),
    }
}

macro_rules! name {
    ($name:ident, $what:literal, $max:literal) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                checked(text, $what, $max).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(User, "user", 63);
name!(Device, "device", 64);
name!(Channel, "channel", 64);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_of_letters_and_digits() {
        assert_eq!(
            "ann.lee@shop-1".parse::<User>().unwrap().as_str(),
            "ann.lee@shop-1"
        );
        assert_eq!("Küche_2".parse::<Channel>().unwrap().to_string(), "Küche_2");
        assert_eq!("x".repeat(63).parse::<User>().unwrap().as_str().len(), 63);
        let long = "x".repeat(64).parse::<User>().unwrap_err();
        assert_eq!(
            long,
            BadName::Length {
                what: "user",
                max: 63,
                len: 64
            }
        );
        assert!("".parse::<Device>().is_err());
        for bad in ["a b", "a/b", "a:b", "a\nb", "<b>", "a\u{202e}b"] {
            assert!(bad.parse::<Channel>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_say_their_kind() {
        let ann: Address = "user:ann".parse().unwrap();
        assert_eq!(ann, Address::User("ann".parse().unwrap()));
        assert_eq!(
            "channel:room-1".parse::<Address>().unwrap().topic(),
            "channel:room-1"
        );
        for bad in ["ann", "role:support", "user:", "user:a:b", ":x"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
