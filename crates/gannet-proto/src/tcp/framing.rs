//! One of the rules.

use std::ops::Range;

use super::{
    custom::Custom,
    error::{EncodeError, FramingError},
    length::LengthPrefix,
    marker::Marker,
};

/// Where the messages of a stream end.
///
/// ```
/// use gannet_proto::tcp::{Framing, LengthPrefix, Width};
///
/// let framing = Framing::length(LengthPrefix::new(Width::Two))?;
/// let mut out = Vec::new();
/// framing.encode(&mut out, b"hello")?;
/// assert_eq!(out, b"\0\x05hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing(pub(super) Rule);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Marker(Box<Marker>),
    Length(LengthPrefix),
    Custom(Custom),
}

/// A whole message in a piece of the stream.
#[derive(Debug)]
pub(super) struct Found {
    /// Bytes that it takes there.
    pub(super) used: usize,
    /// What of them is given.
    pub(super) message: Range<usize>,
}

impl Framing {
    /// Each message ends with a marker.
    pub fn marker(marker: Marker) -> Self {
        Self(Rule::Marker(Box::new(marker)))
    }

    /// Each message has a header that says how long it is.
    ///
    /// # Errors
    ///
    /// The header cannot be as it is described.
    pub fn length(prefix: LengthPrefix) -> Result<Self, FramingError> {
        prefix.check()?;
        Ok(Self(Rule::Length(prefix)))
    }

    /// A function finds the messages.
    pub fn custom(custom: Custom) -> Self {
        Self(Rule::Custom(custom))
    }

    /// Appends one message as a decoder with this framing takes it; appends nothing if that
    /// fails.
    ///
    /// What a decoder gives can be encoded as it is: a marker that it keeps need not be, and may
    /// be, at the end; a header that it keeps must be in front, and only its length field is
    /// written anew. A header that it does not keep is zeroes around the length field.
    ///
    /// # Errors
    ///
    /// No decoder would give this message back.
    pub fn encode(&self, out: &mut Vec<u8>, message: &[u8]) -> Result<(), EncodeError> {
        match &self.0 {
            Rule::Marker(marker) => marker.encode(out, message),
            Rule::Length(prefix) => prefix.encode(out, message),
            Rule::Custom(custom) => custom.encode(out, message),
        }
    }
}
