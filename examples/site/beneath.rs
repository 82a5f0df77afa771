//! Files of one directory and of what lies below it, and no others.
//!
//! `ServeDir` refuses `..` in a path, but it follows symbolic links wherever they lead, and it
//! opens whatever it finds. Here the kernel resolves each path below an open directory
//! (`openat2` with `RESOLVE_BENEATH`): the file that was checked is the file that is read, also
//! when somebody renames things meanwhile. A link that leads out of the directory is "not found",
//! and so is what is no regular file: opening a FIFO would hold a thread until somebody writes.
//!
//! The directory is opened once. If another takes its name, the old one is served until the worker
//! is reloaded.

use std::{
    fs::{File as StdFile, Metadata},
    future::Future,
    io::{self, SeekFrom},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use tokio::{
    fs::File as TokioFile,
    io::{AsyncRead, AsyncSeek, ReadBuf},
    task::spawn_blocking,
};
use tower_http::services::fs::{Backend, File};

/// A directory whose files `ServeDir::with_backend("", …)` may serve.
#[derive(Clone, Debug)]
pub(crate) struct Beneath {
    root: Arc<OwnedFd>,
    resolve: ResolveFlags,
}

/// An open file that is a regular one.
#[derive(Debug)]
pub(crate) struct RegularFile(TokioFile);

impl Beneath {
    /// This directory. Symbolic links are followed as long as they are relative and stay in it.
    ///
    /// Needs Linux 5.6; on an older one, or where a filter forbids `openat2`, this is an error.
    pub(crate) fn new(root: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root.as_ref(), flags, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, ".", flags, Mode::empty(), resolve)?;
        Ok(Beneath {
            root: Arc::new(root),
            resolve,
        })
    }

    /// Follows no symbolic link at all.
    #[allow(dead_code, reason = "for who copies this file")]
    pub(crate) fn without_links(mut self) -> Self {
        self.resolve |= ResolveFlags::NO_SYMLINKS;
        self
    }

    /// Blocks as long as the disk does.
    fn open_now(&self, path: &Path, flags: OFlags) -> io::Result<StdFile> {
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flags = flags | OFlags::CLOEXEC;
        let mut tries = TRIES;
        loop {
            match openat2(&self.root, path, flags, Mode::empty(), self.resolve) {
                Ok(file) => return Ok(StdFile::from(file)),
                // Something was renamed while the kernel walked: it could not tell whether the
                // path stayed inside.
                Err(Errno::AGAIN | Errno::INTR) if tries > 0 => tries -= 1,
                Err(error) if NOT_THERE.contains(&error) => {
                    return Err(io::ErrorKind::NotFound.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Backend for Beneath {
    type File = RegularFile;
    type Metadata = Metadata;
    type OpenFuture = Later<RegularFile>;
    type MetadataFuture = Later<Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let beneath = self.clone();
        Box::pin(off_the_worker(move || {
            // Without NONBLOCK a FIFO would wait here for its writer.
            let file =
                beneath.open_now(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            if !file.metadata()?.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(RegularFile(TokioFile::from_std(file)))
        }))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let beneath = self.clone();
        Box::pin(off_the_worker(move || {
            let metadata = beneath.open_now(&path, OFlags::PATH)?.metadata()?;
            if !metadata.is_file() && !metadata.is_dir() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(metadata)
        }))
    }
}

impl File for RegularFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Metadata>> + Send + 'a>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(self.0.metadata())
    }
}

impl AsyncRead for RegularFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncSeek for RegularFile {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(cx)
    }
}

/// On a thread that may wait for the disk: the worker's own has other requests to serve.
async fn off_the_worker<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

type Later<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// What a path may meet that is no file of ours: it leads out, in circles, is too long, or is a
/// socket or a device without a driver.
const NOT_THERE: [Errno; 5] = [
    Errno::XDEV,
    Errno::LOOP,
    Errno::NAMETOOLONG,
    Errno::NXIO,
    Errno::NODEV,
];
/// How often a path is walked anew while others rename directories above it.
const TRIES: u32 = 16;
