//! The pid file: says which process the manager is, and by its lock that it lives.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags};

use crate::{Error, Result, account::name_of};

/// A pid file with the lock held; removed when dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes this process's id to `path`. A file left behind by a dead server is replaced.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::usage(format!(
                "cannot write the pid file {}: {error} (choose another with --pid-file)",
                path.display()
            ))
        };
        loop {
            let file = open(path).map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    // It may be anybody's file, with anything in it.
                    let mut text = String::new();
                    let _ = (&file).take(32).read_to_string(&mut text);
                    let pid = text.trim().parse::<u32>();
                    let pid = pid.map_or_else(|_| "unknown".to_owned(), |pid| pid.to_string());
                    return Err(Error::new(format!(
                        "already running with pid {pid} (pid file {})",
                        path.display()
                    )));
                }
                Err(error) => return Err(failed(error.into())),
            }
            // Its last owner may have removed it between our open and our lock.
            if !is_at(&file, path).map_err(failed)? {
                continue;
            }
            expect_ours(&file, path)?;
            // From now on it is removed if anything fails, such as on a full disk.
            let mut pid_file = PidFile {
                path: path.to_owned(),
                file,
            };
            pid_file.write().map_err(failed)?;
            return Ok(pid_file);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Only ours is removed, and while the lock is held.
        if is_at(&self.file, &self.path).unwrap_or(false)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            // In a directory of root's it stays if the server is another user's; it says nothing then.
            let emptied = self.file.set_len(0);
            if error.kind() != io::ErrorKind::PermissionDenied || emptied.is_err() {
                tracing::warn!(
                    "cannot remove the pid file {}: {error}",
                    self.path.display()
                );
            }
        }
    }
}

/// Does not follow a symbolic link, which somebody else may have put into a shared directory.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644);
    options
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// Whoever owns the file could write another number into it. In a directory that all may write to,
/// that may be anybody.
fn expect_ours(file: &File, path: &Path) -> Result {
    let owner = file.metadata()?.uid();
    let directory = path.parent().map(Path::metadata).transpose()?;
    let here = rustix::process::geteuid().as_raw();
    let trusted = [
        Some(here),
        Some(0),
        directory.map(|directory| directory.uid()),
    ];
    if trusted.contains(&Some(owner)) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the pid file {} belongs to user {}: remove it, or choose another with --pid-file",
        path.display(),
        name_of(owner)
    )))
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("gannet-pid-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    #[test]
    fn a_live_server_is_refused_and_named() {
        let path = path("live.pid");
        let first = PidFile::create(&path).unwrap();
        let pid = std::process::id();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{pid}\n"));

        let error = PidFile::create(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "already running with pid {pid} (pid file {})",
                path.display()
            )
        );
        assert!(!error.is_usage());
        assert!(path.exists(), "the refused one leaves the file");

        drop(first);
        assert!(!path.exists());
        PidFile::create(&path).unwrap();
    }

    #[test]
    fn a_stale_file_is_replaced() {
        let path = path("stale.pid");
        std::fs::write(&path, "4000000000 and more\n").unwrap();
        let _file = PidFile::create(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
    }

    #[test]
    fn what_another_process_says_in_it_is_shown_only_if_it_is_a_number() {
        let path = path("strange.pid");
        std::fs::write(&path, "\x1b[2J not a number\n").unwrap();
        let held = File::open(&path).unwrap();
        rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
        let error = PidFile::create(&path).unwrap_err().to_string();
        assert!(
            error.starts_with("already running with pid unknown ("),
            "{error}"
        );
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_with_the_path() {
        let error = PidFile::create(Path::new("/no/such/directory/x.pid")).unwrap_err();
        assert!(error.is_usage());
        assert!(
            error.to_string().contains("/no/such/directory/x.pid"),
            "{error}"
        );
    }

    #[test]
    fn a_link_is_not_followed() {
        let (link, target) = (path("link.pid"), path("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(PidFile::create(&link).is_err());
        assert!(!target.exists());
        std::fs::remove_file(link).unwrap();
    }
}
