//! Files whose change is followed by a reload: the program, and what the setting `watch` names.
//!
//! Inotify says only *when* to look: something has happened in a directory under a name that is of
//! interest. After a quiet time (`watch_debounce_ms`) a look at all files says *what* is other than
//! before. So it does not matter in which steps an editor, a linker or an installer has put a file in
//! its place, and no event can be lost for good.
//!
//! # States
//!
//! ```text
//!   quiet ──event of interest──▶ due (each further event: later, ten times at most)
//!     ▲                            │ its time has come: look
//!     └── as before, or no program ┤
//!     └── other than before: `Some(what)`, which is what counts as before from now on
//! ```
//!
//! After [`Watched::failed`] the next event is followed by a reload whatever the files look like: a
//! program that was still being written (`ETXTBSY`, half a file) is tried again when it is closed.

mod files;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

use self::files::{Eyes, Found, Interest, changed, look};
use crate::{Error, Result};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Watched {
    inotify: OwnedFd,
    program: PathBuf,
    /// The program too.
    paths: Vec<PathBuf>,
    debounce: Duration,
    watches: BTreeMap<i32, Interest>,
    before: Found,
    due: Option<Due>,
    retry: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// At which it is done although there is no quiet.
    latest: Instant,
}

/// Directories that are being told to the kernel.
struct Telling<'a> {
    inotify: BorrowedFd<'a>,
    /// By directory: one may be of interest twice.
    directories: BTreeMap<PathBuf, Interest>,
    watches: BTreeMap<i32, Interest>,
}

impl Watched {
    /// Watches the program and `paths`; `None` if there are no paths.
    pub(super) fn new(
        program: &Path,
        paths: &[String],
        debounce: Duration,
        epoll: BorrowedFd<'_>,
    ) -> Result<Option<Self>> {
        if paths.is_empty() {
            return Ok(None);
        }
        let mut all = vec![program.to_owned()];
        for path in paths {
            let path = std::path::absolute(path)?;
            path.metadata().map_err(|error| {
                let path = path.display();
                Error::usage(format!("`watch`: cannot watch {path}: {error}"))
            })?;
            all.push(path);
        }
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map_err(|error| {
            Error::from(advise(error.into())).context("`watch`: cannot make an inotify instance")
        })?;
        epoll::add(
            epoll,
            &inotify,
            EventData::new_u64(TOKEN),
            EventFlags::IN | EventFlags::ET,
        )?;
        let mut watched = Watched {
            inotify,
            program: program.to_owned(),
            paths: all,
            debounce,
            watches: BTreeMap::new(),
            before: Found::new(),
            due: None,
            retry: false,
        };
        watched.before = watched
            .look()
            .map_err(|error| Error::usage(format!("`watch`: {error}")))?;
        Ok(Some(watched))
    }

    /// Takes what inotify has. Call it for events with [`TOKEN`].
    pub(super) fn take_events(&mut self, now: Instant) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.inotify.as_fd(), &mut buffer);
        let mut matters = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()));
                    let interest = self.watches.get(&event.wd());
                    matters |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                        || name.zip(interest).is_some_and(|(name, it)| it.wants(name));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    tracing::warn!("watched files: cannot read what has changed: {error}");
                    break;
                }
            }
        }
        if matters {
            let latest = match self.due {
                Some(due) => due.latest,
                None => now + self.debounce * 10,
            };
            let at = latest.min(now + self.debounce);
            self.due = Some(Due { at, latest });
        }
    }

    /// When [`Watched::handle_timeout`] is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.map(|due| due.at)
    }

    /// What is to be followed by a reload, in words.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<String> {
        self.due.take_if(|due| due.at <= now)?;
        let found = match self.look() {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("watched files: {error}");
                return None;
            }
        };
        if !found.contains_key(&self.program) {
            tracing::debug!("watched files: the program is not there now");
            return None;
        }
        let mut changes = changed(&self.before, &found);
        let what = match (changes.next(), changes.count()) {
            (Some(path), 0) => format!("{} has changed", path.display()),
            (Some(path), more) => format!("{} and {more} more files have changed", path.display()),
            (None, _) if self.retry => "once more after a failure".to_owned(),
            (None, _) => return None,
        };
        self.before = found;
        self.retry = false;
        Some(what)
    }

    /// A reload was aborted.
    pub(super) fn failed(&mut self) {
        self.retry = true;
    }

    /// Looks at everything, and watches the directories that matter now.
    fn look(&mut self) -> io::Result<Found> {
        let mut found = Found::new();
        let mut telling = Telling {
            inotify: self.inotify.as_fd(),
            directories: BTreeMap::new(),
            watches: BTreeMap::new(),
        };
        let paths = self.paths.iter();
        let looked = paths
            .into_iter()
            .try_for_each(|path| look(path, &mut telling, &mut found));
        let watches = telling.watches;
        if looked.is_ok() {
            for &gone in self
                .watches
                .keys()
                .filter(|watch| !watches.contains_key(watch))
            {
                // The kernel forgets those of directories that are no more.
                let _ = inotify::remove_watch(&self.inotify, gone);
            }
            self.watches = watches;
        } else {
            self.watches.extend(watches);
        }
        looked.map(|()| found)
    }
}

impl Eyes for Telling<'_> {
    fn look_at(&mut self, directory: &Path, interest: &Interest) -> io::Result<()> {
        let all = self.directories.entry(directory.to_owned()).or_default();
        all.merge(interest);
        let mut flags = WatchFlags::ONLYDIR
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        if all.content {
            flags |= WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        }
        let watch = inotify::add_watch(self.inotify, directory, flags)
            .map_err(|error| advise(error.into()))?;
        self.watches.insert(watch, all.clone());
        Ok(())
    }
}

/// Says which limit of the system was reached.
fn advise(error: io::Error) -> io::Error {
    let limit = match Errno::from_io_error(&error) {
        Some(Errno::NOSPC) => "fs.inotify.max_user_watches",
        Some(Errno::MFILE) => "fs.inotify.max_user_instances",
        _ => return error,
    };
    io::Error::other(format!("{error} (see the sysctl {limit})"))
}

/// Epoll token that is no child's, no output's and no control connection's.
pub(super) const TOKEN: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Kit {
        home: PathBuf,
        now: Instant,
        watched: Watched,
        _epoll: OwnedFd,
    }

    impl Kit {
        fn new(name: &str) -> Self {
            let home = std::env::temp_dir().join(format!("gannet-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&home);
            fs::create_dir_all(home.join("conf")).unwrap();
            let home = home.canonicalize().unwrap();
            fs::write(home.join("echo"), "1").unwrap();
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            let paths = [home.join("conf").display().to_string()];
            let debounce = Duration::from_millis(100);
            let watched = Watched::new(&home.join("echo"), &paths, debounce, epoll.as_fd());
            Kit {
                watched: watched.unwrap().unwrap(),
                now: Instant::now(),
                _epoll: epoll,
                home,
            }
        }

        /// What a quiet time after now leads to.
        fn settle(&mut self) -> Option<String> {
            self.watched.take_events(self.now);
            self.now += Duration::from_millis(100);
            self.watched.handle_timeout(self.now)
        }
    }

    impl Drop for Kit {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.home);
        }
    }

    #[test]
    fn files_in_place_of_others_files_written_and_new_directories_are_changes() {
        let mut kit = Kit::new("changes");
        let home = kit.home.clone();
        let path = |name: &str| home.join(name);
        let (echo, new, conf) = (path("echo"), path("echo.new"), path("conf"));
        fs::write(&new, "2").unwrap();
        assert_eq!(kit.settle(), None, "another name is not of interest");
        fs::rename(&new, &echo).unwrap();
        assert!(kit.settle().unwrap().contains("echo has changed"));
        assert_eq!(kit.settle(), None);

        fs::create_dir(conf.join("sub")).unwrap();
        kit.settle();
        fs::write(conf.join("sub/one"), "1").unwrap();
        assert!(kit.settle().unwrap().contains("sub/one"));
        fs::rename(&conf, path("conf.old")).unwrap();
        fs::create_dir(&conf).unwrap();
        assert!(kit.settle().unwrap().contains("sub/one"), "it is gone");
        fs::write(conf.join("two"), "2").unwrap();
        assert!(
            kit.settle().unwrap().contains("two"),
            "the new directory is watched"
        );
    }

    #[test]
    fn a_program_that_is_gone_is_waited_for_and_a_failure_is_tried_again() {
        let mut kit = Kit::new("gone");
        let echo = kit.home.join("echo");
        fs::remove_file(&echo).unwrap();
        assert_eq!(kit.settle(), None);
        fs::write(&echo, "22").unwrap();
        assert!(kit.settle().is_some());
        // Nothing but the end of the writing is seen of it.
        kit.watched.failed();
        assert_eq!(kit.settle(), None, "nothing has happened");
        drop(fs::OpenOptions::new().append(true).open(&echo).unwrap());
        assert_eq!(kit.settle().as_deref(), Some("once more after a failure"));
    }

    #[test]
    fn the_quiet_is_waited_for_but_not_for_ever() {
        let mut kit = Kit::new("quiet");
        let (echo, begin) = (kit.home.join("echo"), kit.now);
        let mut content = String::new();
        while kit.now < begin + Duration::from_millis(990) {
            content.push('x');
            fs::write(&echo, &content).unwrap();
            kit.watched.take_events(kit.now);
            assert_eq!(kit.watched.handle_timeout(kit.now), None);
            kit.now += Duration::from_millis(90);
        }
        kit.now = kit.watched.poll_timeout().unwrap();
        assert_eq!(kit.now, begin + Duration::from_secs(1));
        assert!(kit.watched.handle_timeout(kit.now).is_some());
    }

    #[test]
    fn a_path_that_is_not_there_is_refused_at_the_start() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let paths = ["/nonexistent/path".to_owned()];
        let program = std::env::current_exe().unwrap();
        let watched = Watched::new(&program, &paths, Duration::ZERO, epoll.as_fd());
        let error = watched.unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("/nonexistent/path"));
    }
}
