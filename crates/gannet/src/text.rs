//! Text that shares its buffer.

use std::{fmt, ops::Deref, str::Utf8Error};

use bytes::Bytes;

/// UTF-8 text; cheap to clone. Derefs to `str`.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// The text as `str`.
    #[allow(
        unsafe_code,
        reason = "checking the bytes again at each look would cost a pass"
    )]
    pub fn as_str(&self) -> &str {
        // SAFETY: the field is private and every constructor takes a `str` or checks the bytes;
        // `Bytes` cannot be changed.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The same bytes, without the promise.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

/// Checks the bytes and keeps their buffer.
impl TryFrom<Bytes> for Text {
    type Error = Utf8Error;

    fn try_from(bytes: Bytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Text(bytes))
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Bytes {
        text.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_always_utf8() {
        assert!(Text::try_from(Bytes::from_static(b"\xff")).is_err());
        let text = Text::try_from(Bytes::from_static("gr\u{fc}n".as_bytes())).unwrap();
        assert_eq!((text.len(), text.as_str()), (5, "gr\u{fc}n"));
    }
}
