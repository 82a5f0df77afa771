//! How a TCP listener cuts its stream into messages, as settings say it.

use gannet_proto::tcp::{self, Custom, Cut, LengthPrefix, Marker, Width};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a message ends on a TCP connection.
///
/// With a framing, [`Handler::receive`](crate::Handler::receive) gets exactly one whole message,
/// and [`Conn::send_framed`](crate::Conn::send_framed) sends one. A message over
/// `max_message_size` closes the connection
/// ([`CloseReason::TooLarge`](crate::CloseReason::TooLarge)), one that breaks the framing too
/// ([`CloseReason::Protocol`](crate::CloseReason::Protocol)), both when the messages before it have
/// been handled, so that their answers leave first. An incomplete message when the client
/// ends its stream is dropped ([`CloseReason::Reset`](crate::CloseReason::Reset)).
///
/// ```
/// use gannet::{Listener, framing::{Framing, LengthPrefix}};
///
/// Listener::tcp("127.0.0.1:9501").framing(Framing::lines());
/// Listener::tcp("127.0.0.1:9501").framing(Framing::marker(b"\r\n\r\n"));
/// Listener::tcp("127.0.0.1:9501").framing(Framing::length(LengthPrefix::u32()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Framing {
    /// There is none: `receive` gets bytes as they come.
    #[default]
    None,
    /// A message ends with these bytes.
    Marker {
        /// 1 to 64 bytes.
        marker: Vec<u8>,
        /// Whether `receive` gets them too. Default false.
        keep: bool,
    },
    /// A message is a line; its LF is left away.
    Lines {
        /// Whether a CR in front of the LF is left away too. Default true.
        strip_cr: bool,
    },
    /// A message has a header that says how long it is.
    Length(LengthPrefix),
    /// A function of the program finds the messages: see [`Framing::custom`].
    Custom(CustomFraming),
}

/// The functions of a [`Framing::custom`]. Settings that were read from somewhere else than the
/// program have none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CustomFraming(Option<Custom>);

impl Framing {
    /// A message ends with these bytes, 1 to 64, and is given without them.
    pub fn marker(marker: impl Into<Vec<u8>>) -> Self {
        Framing::Marker {
            marker: marker.into(),
            keep: false,
        }
    }

    /// A message ends with these bytes, and is given with them.
    pub fn kept_marker(marker: impl Into<Vec<u8>>) -> Self {
        Framing::Marker {
            marker: marker.into(),
            keep: true,
        }
    }

    /// A message is a line, ended by LF or CR LF, and is given without its end.
    pub fn lines() -> Self {
        Framing::Lines { strip_cr: true }
    }

    /// A message has a header that says how long it is.
    pub fn length(prefix: LengthPrefix) -> Self {
        Framing::Length(prefix)
    }

    /// `cut` finds the messages: it gets the bytes that have arrived and are not yet a message, at
    /// least one, and says whether the first message is whole. What it says must depend on that
    /// message's bytes alone.
    ///
    /// It runs in the reactors, for every message: it must be quick and must not block. A panic in
    /// it closes the connection
    /// ([`CloseReason::HandlerFailed`](crate::CloseReason::HandlerFailed)) and is counted. It is
    /// the master's code: a reload does not change it. With it
    /// [`Conn::send_framed`](crate::Conn::send_framed) fails; what is published goes out as it is.
    pub fn custom(cut: impl Fn(&[u8]) -> Cut + Send + Sync + 'static) -> Self {
        Framing::Custom(CustomFraming(Some(Custom::new(cut))))
    }

    /// As [`Framing::custom`], with the other direction: `encode` appends a message to the output
    /// as `cut` finds it, or says why it cannot be sent. It runs in workers, and for what is
    /// published in the reactors.
    pub fn custom_with(
        cut: impl Fn(&[u8]) -> Cut + Send + Sync + 'static,
        encode: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), &'static str> + Send + Sync + 'static,
    ) -> Self {
        Framing::Custom(CustomFraming(Some(Custom::new(cut).encoder(encode))))
    }

    /// The rule for a decoder, if there is a framing; or why it cannot be.
    pub(crate) fn rule(&self) -> Result<Option<tcp::Framing>, String> {
        let text = |error: tcp::FramingError| error.to_string();
        Ok(Some(match self {
            Framing::None => return Ok(None),
            Framing::Marker { marker, keep } => {
                tcp::Framing::marker(Marker::new(marker).map_err(text)?.keep(*keep))
            }
            Framing::Lines { strip_cr } => tcp::Framing::marker(Marker::lines(*strip_cr)),
            Framing::Length(prefix) => tcp::Framing::length(*prefix).map_err(text)?,
            Framing::Custom(CustomFraming(Some(custom))) => tcp::Framing::custom(custom.clone()),
            Framing::Custom(CustomFraming(None)) => {
                return Err("the program has no function for it: see Framing::custom".to_owned());
            }
        }))
    }

    /// A function cannot be told to another process: takes that of the program, where there is to
    /// be one.
    pub(crate) fn take_function(&mut self, of: &Framing) {
        if let (Framing::Custom(CustomFraming(mine @ None)), Framing::Custom(theirs)) = (self, of) {
            mine.clone_from(&theirs.0);
        }
    }
}

impl Serialize for CustomFraming {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for CustomFraming {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| CustomFraming(None))
    }
}

/// A framing as a table in a file, key by key.
pub(super) struct Draft {
    pub(super) marker: String,
    pub(super) keep: bool,
    pub(super) strip_cr: bool,
    pub(super) width: Width,
    pub(super) little_endian: bool,
    pub(super) offset: usize,
    pub(super) header_size: usize,
    pub(super) counts_header: bool,
    pub(super) keep_header: bool,
}

/// The kinds that a file can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    None,
    Marker,
    Lines,
    Length,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            marker: String::new(),
            keep: false,
            strip_cr: true,
            width: Width::Four,
            little_endian: false,
            offset: 0,
            header_size: 0,
            counts_header: false,
            keep_header: false,
        }
    }
}

impl Draft {
    pub(super) fn finish(self, kind: Kind) -> Result<Framing, String> {
        let framing = match kind {
            Kind::None => Framing::None,
            Kind::Marker => Framing::Marker {
                marker: unescape(&self.marker)?,
                keep: self.keep,
            },
            Kind::Lines => Framing::Lines {
                strip_cr: self.strip_cr,
            },
            Kind::Length => {
                let mut prefix = LengthPrefix::new(self.width)
                    .offset(self.offset)
                    .header_size(self.header_size);
                prefix.little_endian = self.little_endian;
                prefix.counts_header = self.counts_header;
                prefix.keep_header = self.keep_header;
                Framing::Length(prefix)
            }
        };
        framing.rule()?;
        Ok(framing)
    }
}

/// Text with `\xNN`, `\r`, `\n`, `\t`, `\0` and `\\` as bytes: not every marker is text.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
                    let byte = str::from_utf8(&digits).ok();
                    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
                    byte.filter(|_| is_hex)
                        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                        .ok_or("`marker`: behind \\x stand two hexadecimal digits")?
                }
                _ => {
                    return Err(
                        "`marker`: behind \\ stands r, n, t, 0, \\ or x and two hexadecimal digits"
                            .to_owned(),
                    );
                }
            },
            byte => byte,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_does_not_travel_and_is_taken_from_the_program() {
        let own = Framing::custom(|_| Cut::Incomplete { until: 0 });
        let mut travelled: Framing =
            serde_json::from_str(&serde_json::to_string(&own).unwrap()).unwrap();
        assert!(travelled.rule().unwrap_err().contains("Framing::custom"));
        travelled.take_function(&own);
        assert_eq!(travelled, own);

        let mut lines = Framing::lines();
        lines.take_function(&own);
        assert_eq!(lines, Framing::lines());
    }

    #[test]
    fn all_others_travel() {
        for framing in [
            Framing::None,
            Framing::marker(b"\xff\0"),
            Framing::lines(),
            Framing::length(LengthPrefix::varint().offset(1).keep_header()),
        ] {
            let json = serde_json::to_string(&framing).unwrap();
            assert_eq!(serde_json::from_str::<Framing>(&json).unwrap(), framing);
        }
    }

    #[test]
    fn markers_in_files_can_be_any_bytes() {
        assert_eq!(unescape(r"\r\n\xff\0\\\tx").unwrap(), b"\r\n\xff\0\\\tx");
        for wrong in [r"\", r"\q", r"\x", r"\x1", r"\x+1", r"\xgg"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }
}
