//! Files of Unix sockets: made, replaced if nobody listens, removed.
//!
//! A file outlives the process that made it, so one that is there says nothing. Who can connect to
//! it finds somebody; who is refused finds that nobody listens, and may remove it. From that look
//! to the new socket the directory is locked, so that of two servers that start at once the second
//! sees the first.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{self, FileType, FlockOperation, Mode, OFlags},
    io::{Errno, Result},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

/// The file of a socket that this process has bound. Dropping it removes the file, if it is still
/// that of this socket.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl File {
    /// Binds the socket to `path`, in place of a socket that nobody listens on, and lets `listen`
    /// make it reachable.
    pub(super) fn bind(
        socket: &OwnedFd,
        path: &Path,
        mode: u32,
        listen: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("/"),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(directory, flags, Mode::empty())?;
        // It ends with the descriptor.
        lock(&directory)?;
        let address = SocketAddrUnix::new(path)?;
        let mode = Mode::from_raw_mode(mode);
        // The file is never more open than it is to be, not even for a moment.
        fs::fchmod(socket, mode)?;
        match rustix::net::bind(socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_if_stale(socket, path, &address)?;
                rustix::net::bind(socket, &address)?;
            }
            other => other?,
        }
        let stat = fs::stat(path)?;
        let file = File {
            path: path.to_owned(),
            device: stat.st_dev,
            inode: stat.st_ino,
        };
        // What the umask took away.
        fs::chmod(path, mode)?;
        listen()?;
        Ok(file)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let is_ours = |stat: fs::Stat| (stat.st_dev, stat.st_ino) == (self.device, self.inode);
        if fs::lstat(&self.path).is_ok_and(is_ours)
            && let Err(error) = fs::unlink(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Locks a directory against other servers that start. Whoever else can read it could hold the lock
/// for ever, and is not waited for that long.
fn lock(directory: &OwnedFd) -> Result<()> {
    for _ in 0..PATIENCE {
        match fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    Ok(())
}

/// The address of a socket without a file.
pub(super) fn abstract_address(name: &str) -> Result<SocketAddrUnix> {
    SocketAddrUnix::new_abstract_name(name.as_bytes())
}

fn remove_if_stale(socket: &OwnedFd, path: &Path, address: &SocketAddrUnix) -> Result<()> {
    let stat = fs::lstat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Errno::EXIST);
    }
    let kind: SocketType = sockopt::socket_type(socket)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::unlink(path),
        // Somebody is there, or one cannot know.
        _ => Err(Errno::ADDRINUSE),
    }
}

/// Hundredths of a second.
const PATIENCE: u32 = 100;

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::PathBuf};

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gannet-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn bind(path: &Path, mode: u32) -> Result<(OwnedFd, File)> {
        let kind = SocketType::STREAM;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let file = File::bind(&socket, path, mode, || rustix::net::listen(&socket, 1))?;
        Ok((socket, file))
    }

    fn mode(path: &Path) -> u32 {
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777
    }

    #[test]
    fn the_file_has_its_mode_and_goes_with_the_socket() {
        let directory = Directory::new("socket-mode");
        let path = directory.0.join("a.sock");
        for wanted in [0o600, 0o666, 0o660] {
            let bound = bind(&path, wanted).unwrap();
            assert_eq!(mode(&path), wanted);
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_file_that_nobody_listens_on_is_replaced_and_no_other() {
        let directory = Directory::new("socket-stale");
        let path = directory.0.join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = bind(&path, 0o600).unwrap();

        assert_eq!(bind(&path, 0o600).unwrap_err(), Errno::ADDRINUSE);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(first);

        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err(), Errno::EXIST);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_that_somebody_keeps_locked_stops_nobody() {
        let directory = Directory::new("socket-locked");
        let held = std::fs::File::open(&directory.0).unwrap();
        fs::flock(&held, FlockOperation::LockExclusive).unwrap();
        assert!(bind(&directory.0.join("a.sock"), 0o600).is_ok());
    }

    #[test]
    fn a_file_that_is_another_s_by_now_stays() {
        let directory = Directory::new("socket-other");
        let path = directory.0.join("a.sock");
        let bound = bind(&path, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
