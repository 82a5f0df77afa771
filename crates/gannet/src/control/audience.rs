//! Whom a request is about, and what is sent to them.

use serde::{Deserialize, Serialize};

use crate::{ConnId, settings::Trust};

/// Connections: those to which all that is given applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// This connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn: Option<ConnId>,
    /// Those of the listener with this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<usize>,
    /// Those from this address or network (`10.0.0.1`, `10.0.0.0/8`, `fd00::/8`), or on Unix sockets
    /// (`unix`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Those that are bound to this uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Those that have subscribed to this topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// All, if nothing else is given; what closes connections or sends to them wants it said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// What is sent to connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// For WebSockets a text message.
    Text(String),
    /// For WebSockets a binary message.
    Binary(Vec<u8>),
}

/// A [`Payload`] in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Data {
    Text(String),
    /// Two digits for each byte.
    Hex(String),
}

/// How many connections a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) count: u64,
}

impl Filter {
    /// One connection.
    pub fn conn(conn: ConnId) -> Self {
        Filter {
            conn: Some(conn),
            ..Filter::default()
        }
    }

    /// Whether nothing was said at all.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// The addresses that are meant; the error says what is wrong with them.
    pub(crate) fn addresses(&self) -> Result<Option<Trust>, String> {
        let one = |address: &String| Trust::parse(std::slice::from_ref(address));
        self.address.as_ref().map(one).transpose()
    }
}

impl Payload {
    pub(crate) fn into_data(self) -> Data {
        match self {
            Payload::Text(text) => Data::Text(text),
            Payload::Binary(bytes) => Data::Hex(to_hex(&bytes)),
        }
    }
}

impl Data {
    /// Whether it is text, and the bytes; the error says what is wrong.
    pub(crate) fn into_bytes(self) -> Result<(bool, Vec<u8>), String> {
        let (text, bytes) = match self {
            Data::Text(text) => (true, text.into_bytes()),
            Data::Hex(digits) => {
                let bytes = from_hex(&digits);
                (
                    false,
                    bytes.ok_or("`hex` has two hexadecimal digits for each byte")?,
                )
            }
        };
        match bytes.len() {
            len if len > MAX_DATA => Err(format!("{len} bytes are too many: at most {MAX_DATA}")),
            _ => Ok((text, bytes)),
        }
    }
}

/// The bytes that are written so: `00ff`, `00 FF`.
pub(crate) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let mut halves = digits.chars().filter(|char| !char.is_whitespace());
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    while let Some(high) = halves.next() {
        let byte = high.to_digit(16)? << 4 | halves.next()?.to_digit(16)?;
        bytes.push(byte as u8);
    }
    Some(bytes)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that can be sent with one request.
pub(crate) const MAX_DATA: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_text_or_hexadecimal() {
        let data = |json: &str| serde_json::from_str::<Data>(json).unwrap().into_bytes();
        assert_eq!(data(r#"{"text":"hi"}"#), Ok((true, b"hi".to_vec())));
        assert_eq!(data(r#"{"hex":"00 fF"}"#), Ok((false, vec![0, 255])));
        for wrong in [r#"{"hex":"0"}"#, r#"{"hex":"0x"}"#] {
            assert!(data(wrong).unwrap_err().contains("two hexadecimal digits"));
        }
        let bytes = vec![1, 0xab];
        let sent = Payload::Binary(bytes.clone()).into_data();
        assert_eq!(sent.into_bytes(), Ok((false, bytes)));
        let long = Data::Text("x".repeat(MAX_DATA + 1)).into_bytes();
        assert!(long.unwrap_err().contains("at most 1048576"));
    }

    #[test]
    fn a_filter_has_only_what_was_said() {
        let filter = Filter {
            uid: Some("ann".to_owned()),
            ..Filter::default()
        };
        assert_eq!(serde_json::to_string(&filter).unwrap(), r#"{"uid":"ann"}"#);
        assert!(!filter.is_empty() && Filter::default().is_empty());
        assert!(serde_json::from_str::<Filter>(r#"{"user":"ann"}"#).is_err());
        let strange = Filter {
            address: Some("here".to_owned()),
            ..Filter::default()
        };
        assert!(strange.addresses().unwrap_err().contains("10.0.0.0/8"));
    }
}
