//! The key that programs show to use the HTTP interface.

use std::{
    fmt::Write,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use subtle::ConstantTimeEq;

/// A key; made of 256 random bits.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A new one.
    pub(crate) fn generate() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let mut text = String::from(PREFIX);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Ok(ApiKey(text))
    }

    /// Reads the one in a file.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let key = text.trim();
        // Somebody may choose a key; an empty or short one would be no protection.
        if key.len() < MIN_LEN || key.contains(char::is_whitespace) {
            let error = format!("a key has at least {MIN_LEN} characters and no blanks");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(ApiKey(key.to_owned()))
    }

    /// Writes it to a new file that only the owner may read.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        writeln!(file, "{}", self.0)?;
        file.sync_all()
    }

    /// Whether this is it. Takes the same time wherever the first difference is.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }

    /// The key as text, to be shown to the owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// So that a key is known as one where it does not belong.
const PREFIX: &str = "gannet_";
const MIN_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_kept_in_a_file_of_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-key");
        let key = ApiKey::generate().unwrap();
        key.write(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(ApiKey::read(&path).unwrap() == key);
        assert!(key.write(&path).is_err(), "a key is never overwritten");
        assert_ne!(ApiKey::generate().unwrap(), key);
        assert_eq!(format!("{key:?}"), "ApiKey(…)");
    }

    #[test]
    fn only_the_same_key_is_it() {
        let key = ApiKey::generate().unwrap();
        let text = key.reveal().to_owned();
        assert_eq!(text.len(), PREFIX.len() + 64);
        assert!(key.is(text.as_bytes()));
        assert!(!key.is(&text.as_bytes()[1..]));
        assert!(!key.is(b""));
        assert!(!key.is(format!("{text} ").as_bytes()));
    }

    #[test]
    fn refuse_a_key_that_protects_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-key");
        for bad in ["", "\n", "secret", "two words that are long"] {
            fs::write(&path, bad).unwrap();
            assert!(ApiKey::read(&path).is_err(), "{bad:?}");
        }
    }
}
