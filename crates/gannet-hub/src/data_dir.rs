//! The directory with all that a hub keeps.
//!
//! | file             | what it is                                                             |
//! |------------------|------------------------------------------------------------------------|
//! | `hub.db`         | messages (SQLite; `-wal`, `-shm` and `-lock` beside it belong to it) |
//! | `sessions.db`    | who is connected; begun anew at every start                            |
//! | `api-key`        | the key of the HTTP interface                                          |
//! | `api-key.unseen` | there until the key has been shown                                     |
//! | `lock`           | locked while a server uses the directory                               |

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{
    api_key::ApiKey,
    session,
    store::{StoreError, sqlite},
};

/// A data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// It is not there and cannot be made, or a file in it cannot be made.
    #[error(
        "the data directory {path} cannot be used: {error}: make it writable, or choose another with --data"
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// Another server uses it.
    #[error(
        "another gannet uses the data directory {0}: stop it, or choose another directory with --data"
    )]
    InUse(PathBuf),
    /// The key file cannot be read or is no key.
    #[error("the key file {path} cannot be used: {error}: mend it, or remove it to get a new key")]
    Key {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The database cannot be opened or is damaged.
    #[error(
        "the database {path} cannot be used: {error}: put a good copy in its place, or move it away to begin anew"
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: StoreError,
    },
}

impl DataDir {
    /// The directory at this path; nothing is made yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataDir(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file with the key of the HTTP interface.
    pub fn key_file(&self) -> PathBuf {
        self.0.join("api-key")
    }

    /// Where the engine's pid file is, unless the user wants it elsewhere.
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("gannet.pid")
    }

    /// The key, if nobody has been shown it yet; it counts as shown from now on.
    pub fn show_new_key(&self) -> io::Result<Option<ApiKey>> {
        match fs::remove_file(self.unseen()) {
            Ok(()) => ApiKey::read(&self.key_file()).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes all that is not there yet. The directory is this process's own as long as it lives.
    ///
    /// To be called once for each start of a server, before its workers.
    pub(crate) fn prepare(&self) -> Result<DataLock, DataError> {
        let unusable = |error| DataError::Directory {
            path: self.0.clone(),
            error,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.0.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataError::InUse(self.0.clone())),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        if !self.key_file().try_exists().map_err(unusable)? {
            // The mark first: a key that nobody has seen is worse than one shown twice.
            File::create(self.unseen()).map_err(unusable)?;
            ApiKey::generate()
                .and_then(|key| key.write(&self.key_file()))
                .map_err(unusable)?;
        }
        self.key()?;
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.sessions().into_os_string();
            path.push(suffix);
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unusable(error));
                }
                _ => {}
            }
        }
        // A runtime of its own: the connections' threads end with it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(unusable)?;
        let (database, sessions) = (self.database(), self.sessions());
        runtime
            .block_on(sqlite::prepare(&database))
            .map_err(|error| DataError::Database {
                path: database,
                error,
            })?;
        runtime
            .block_on(session::prepare(&sessions))
            .map_err(|error| DataError::Database {
                path: sessions,
                error,
            })?;
        Ok(DataLock { _file: lock })
    }

    pub(crate) fn key(&self) -> Result<ApiKey, DataError> {
        let path = self.key_file();
        ApiKey::read(&path).map_err(|error| DataError::Key { path, error })
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("hub.db")
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.0.join("sessions.db")
    }

    fn unseen(&self) -> PathBuf {
        self.0.join("api-key.unseen")
    }
}

/// Keeps other servers out of a data directory until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct DataLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_start_makes_everything_and_shows_the_key_once() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::new(parent.path().join("a/b"));
        let lock = dir.prepare().unwrap();
        assert_eq!(
            fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(matches!(dir.prepare(), Err(DataError::InUse(_))));
        let shown = dir.show_new_key().unwrap().unwrap();
        assert_eq!(shown, dir.key().unwrap());
        drop(lock);

        fs::write(dir.sessions(), "of an earlier life").unwrap();
        let _lock = dir.prepare().unwrap();
        assert!(dir.show_new_key().unwrap().is_none());
        assert_eq!(dir.key().unwrap(), shown);
        let sessions = fs::read(dir.sessions()).unwrap();
        assert!(
            sessions.starts_with(b"SQLite format 3"),
            "it was begun anew"
        );
    }

    #[test]
    fn a_key_that_was_not_shown_is_shown_at_the_next_start() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::new(parent.path());
        drop(dir.prepare().unwrap());
        drop(dir.prepare().unwrap());
        assert!(dir.show_new_key().unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("file"), "").unwrap();
        let error = DataDir::new(parent.path().join("file/data"))
            .prepare()
            .unwrap_err();
        assert!(error.to_string().contains("--data"), "{error}");

        let dir = DataDir::new(parent.path());
        fs::write(dir.database(), "this was a database before the disk broke").unwrap();
        let error = dir.prepare().unwrap_err().to_string();
        assert!(
            error.contains("hub.db") && error.contains("not a database"),
            "{error}"
        );
        fs::remove_file(dir.database()).unwrap();
        fs::write(dir.key_file(), "").unwrap();
        let error = dir.prepare().unwrap_err().to_string();
        assert!(error.contains("api-key cannot be used"), "{error}");
    }
}
