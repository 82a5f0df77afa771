//! Keys: text, bytes, or numbers.

use std::borrow::Borrow;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::schema::SchemaError;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 64;

/// What the keys of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// UTF-8 text of up to 64 bytes.
    Text,
    /// Up to 64 bytes.
    Bytes,
    /// A number.
    U64,
}

impl Display for KeyKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyKind::Text => "text",
            KeyKind::Bytes => "bytes",
            KeyKind::U64 => "u64",
        })
    }
}

impl FromStr for KeyKind {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        match text {
            "text" => Ok(KeyKind::Text),
            "bytes" => Ok(KeyKind::Bytes),
            "u64" => Ok(KeyKind::U64),
            other => Err(SchemaError::Syntax(other.to_owned())),
        }
    }
}

/// A type of keys: `str`, `[u8]` or `u64`.
pub trait Key: sealed::Sealed {
    /// Its name in a [`Schema`](super::Schema).
    const KIND: KeyKind;
    /// What iterating gives.
    type Owned: Borrow<Self>;

    #[doc(hidden)]
    fn as_raw(&self) -> RawKey<'_>;
    /// A key out of a row. The bytes are those of an earlier `as_raw`.
    #[doc(hidden)]
    fn from_stored(stored: StoredKey) -> Self::Owned;
}

/// A key as the table sees it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKey<'a> {
    Bytes(&'a [u8]),
    U64(u64),
}

/// A key that was read from a row.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct StoredKey {
    /// Of keys that are numbers, the number.
    pub(super) number: u64,
    pub(super) bytes: [u8; MAX_KEY],
}

impl StoredKey {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..(self.number as usize).min(MAX_KEY)]
    }
}

impl Key for str {
    const KIND: KeyKind = KeyKind::Text;
    type Owned = String;

    #[inline]
    fn as_raw(&self) -> RawKey<'_> {
        RawKey::Bytes(self.as_bytes())
    }

    fn from_stored(stored: StoredKey) -> String {
        String::from_utf8_lossy(stored.bytes()).into_owned()
    }
}

impl Key for [u8] {
    const KIND: KeyKind = KeyKind::Bytes;
    type Owned = Vec<u8>;

    #[inline]
    fn as_raw(&self) -> RawKey<'_> {
        RawKey::Bytes(self)
    }

    fn from_stored(stored: StoredKey) -> Vec<u8> {
        stored.bytes().to_vec()
    }
}

impl Key for u64 {
    const KIND: KeyKind = KeyKind::U64;
    type Owned = u64;

    #[inline]
    fn as_raw(&self) -> RawKey<'_> {
        RawKey::U64(*self)
    }

    fn from_stored(stored: StoredKey) -> u64 {
        stored.number
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for str {}
    impl Sealed for [u8] {}
    impl Sealed for u64 {}
}
