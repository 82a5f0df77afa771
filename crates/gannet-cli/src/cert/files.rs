//! The directory of the certificates: what is there stays, what is new is there whole or not at all.
//!
//! Whoever changes more than one file, or a file by what was in it, holds the [`Lock`] meanwhile.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use gannet::{Error, Result};
use rcgen::{Issuer, KeyPair};

use super::{failed, make};

/// See the module's documentation.
pub(super) struct Directory(PathBuf);

/// The directory is this process's alone, until this is dropped or the process ends.
pub(super) struct Lock {
    _file: File,
}

/// A key, and whether it was there before.
pub(super) struct Pair {
    pub(super) key: KeyPair,
    kept: bool,
}

impl Pair {
    /// What was done with it.
    pub(super) fn verb(&self) -> &'static str {
        match self.kept {
            true => "kept",
            false => "made",
        }
    }
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Directory(path.to_owned())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn display(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    pub(super) fn show(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes the directory, for its owner only, if it is not there.
    pub(super) fn make(&self) -> Result {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|error| failed(&format!("make {}", self.0.display()), error))
    }

    /// Waits until nobody else changes the directory.
    pub(super) fn lock(&self) -> Result<Lock> {
        let locked = || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.path(LOCK))?;
            file.lock()?;
            Ok(Lock { _file: file })
        };
        locked().map_err(|error: io::Error| failed(&format!("lock {}", self.show(LOCK)), error))
    }

    pub(super) fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if name == "ca.pem" || name == "ca.key" => Error::usage(format!(
                "there is no {}: make an authority first (gannet cert ca --dir {}), or name the \
                 directory where it is with --dir",
                self.show(name),
                self.0.display()
            )),
            _ => Error::usage(format!("{}: {error}", self.show(name))),
        })
    }

    /// The authority, to sign with.
    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        let (certificate, key) = (self.read("ca.pem")?, self.read("ca.key")?);
        let key =
            KeyPair::from_pem(&key).map_err(|error| self.bad("ca.key", &error.to_string()))?;
        make::check_pair(&certificate, &key).map_err(|what| self.bad("ca.key", &what))?;
        Issuer::from_ca_cert_pem(&certificate, key)
            .map_err(|error| self.bad("ca.pem", &error.to_string()))
    }

    /// A new key in this file; or, to renew its certificate, the one that is there.
    pub(super) fn key(&self, name: &str, renew: bool) -> Result<Pair> {
        if renew {
            let key = KeyPair::from_pem(&self.read(name)?)
                .map_err(|error| self.bad(name, &error.to_string()))?;
            return Ok(Pair { key, kept: true });
        }
        let key = make::key()?;
        self.write_key(name, &key.serialize_pem())?;
        Ok(Pair { key, kept: false })
    }

    /// Writes a private key, which must not be there.
    pub(super) fn write_key(&self, name: &str, text: &str) -> Result {
        let new = self.new_name(name)?;
        // Unlike a rename, a link does not take the place of what is there.
        let linked = write_new(&new, text.as_bytes(), 0o600)
            .and_then(|()| fs::hard_link(&new, self.path(name)));
        // It may not be there; what went wrong before is said.
        let _ = fs::remove_file(&new);
        match linked {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(self.taken(name)),
            Err(error) => Err(failed(&format!("write {}", self.show(name)), error)),
        }
    }

    /// Writes what all may read, in the place of what was there.
    pub(super) fn write(&self, name: &str, text: &str) -> Result {
        self.replace(name, text.as_bytes(), 0o644)
    }

    /// Writes what has a key in it but can be made again.
    pub(super) fn write_secret(&self, name: &str, bytes: &[u8]) -> Result {
        self.replace(name, bytes, 0o600)
    }

    pub(super) fn taken(&self, name: &str) -> Error {
        let hint = match name {
            "ca.key" | "ca.pem" => {
                "an authority is made once; a second one goes into another directory (--dir)"
            }
            _ => {
                "--renew makes a new certificate for it; another one takes another name, or remove \
                 it yourself if nobody uses it"
            }
        };
        Error::usage(format!(
            "{} is there, and no key is overwritten: {hint}",
            self.show(name)
        ))
    }

    pub(super) fn bad(&self, name: &str, what: &str) -> Error {
        Error::usage(format!("{}: {what}", self.show(name)))
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result {
        let new = self.new_name(name)?;
        let written = write_new(&new, bytes, mode).and_then(|()| fs::rename(&new, self.path(name)));
        written.map_err(|error| {
            // It may not be there; what went wrong before is said.
            let _ = fs::remove_file(&new);
            failed(&format!("write {}", self.show(name)), error)
        })
    }

    /// Where a file is written before it has its name: nobody else writes there.
    fn new_name(&self, name: &str) -> Result<PathBuf> {
        let unique = make::hex(&make::random::<8>()?);
        Ok(self.path(&format!(".{name}.{unique}.new")))
    }
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// A name that becomes that of a file.
pub(super) fn check_name(name: &str) -> Result {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '+');
    if name.is_empty() || name.starts_with('.') || name.len() > 60 || !name.chars().all(fine) {
        return Err(Error::usage(format!(
            "{name:?} is to be the name of files: take 1 to 60 letters, digits, and any of . - _ @ +"
        )));
    }
    if name == "ca" || name == "revoked" {
        return Err(Error::usage(format!(
            "the name {name:?} is taken: {name}.pem has another meaning"
        )));
    }
    Ok(())
}

/// The first line of a file.
pub(super) fn first_line(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)
        .map_err(|error| Error::usage(format!("{}: {error}", path.display())))?;
    match text.lines().next().unwrap_or_default() {
        "" => Err(Error::usage(format!(
            "{}: the first line is empty, and is to be the password",
            path.display()
        ))),
        line => Ok(line.to_owned()),
    }
}

/// The file that is locked; there is nothing in it.
const LOCK: &str = ".lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_and_nothing_else() {
        for good in [
            "ann",
            "till-1",
            "chat.example.org",
            "ann@example.org",
            "zoë",
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".ann",
            "a/b",
            "a b",
            "ca",
            "revoked",
            "a\n",
            &"a".repeat(61),
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_never_overwritten_and_its_owners_alone() {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::new(&home.path().join("certs"));
        directory.make().unwrap();
        directory.write_key("a.key", "one").unwrap();
        let error = directory.write_key("a.key", "two").unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("--renew"));
        assert_eq!(directory.read("a.key").unwrap(), "one");
        let mode = |name: &str| {
            fs::metadata(directory.path(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("a.key") & 0o777, 0o600);
        directory.write("a.pem", "x").unwrap();
        directory.write("a.pem", "y").unwrap();
        directory.write_secret("a.p12", b"z").unwrap();
        assert_eq!(
            (mode("a.pem") & 0o777, mode("a.p12") & 0o777),
            (0o644, 0o600)
        );
        assert_eq!(directory.read("a.pem").unwrap(), "y");
    }
}
