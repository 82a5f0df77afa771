//! The log file: opened, appended to, rotated. Whoever has a [`LogFile`] is the only one who writes
//! to it.
//!
//! What holds at every moment:
//!
//! - The file ends with a whole line. A line of which only a part found room is taken back.
//! - A file that is full (`log_rotate_size`) or of a past period (`log_rotate_every`) is renamed
//!   before the next line is written: `FILE.20261121T025801.197Z`, the time of the change in UTC. No
//!   file is ever replaced. Of those, the `log_keep` with the last names are kept. A name that lies
//!   more than [`WRONG`] in the future is from a time when the clock was wrong, and counts as the oldest.
//! - Nothing is closed before its successor is open: if the directory does not allow a change, the
//!   lines go on into the file that there is, and it is tried again [`PAUSE`] later.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{Access, AtFlags, CWD, OFlags, RenameFlags, accessat, renameat_with},
    io::Errno,
};

use super::calendar::Moment;
use crate::{Error, Result, Settings, settings::LogRotation};

/// A log file that is open for appending.
#[derive(Debug)]
pub(crate) struct LogFile {
    rules: Rules,
    file: File,
    len: u64,
    period: u64,
    /// Whether it is a file that can be renamed and cut, and not a device.
    is_regular: bool,
    /// Whether this process has made it.
    is_new: bool,
    /// A change has failed: not again before this.
    not_before: Option<SystemTime>,
    /// The time that the last renamed file has in its name.
    renamed: Option<SystemTime>,
}

/// What the settings say of it.
#[derive(Clone, Debug)]
struct Rules {
    path: PathBuf,
    mode: u32,
    size: u64,
    every: LogRotation,
    keep: u64,
}

/// Why lines were not written.
#[derive(Debug)]
pub(super) struct Failed {
    /// Bytes in front, of whole lines, that were.
    pub(super) written: usize,
    pub(super) error: io::Error,
}

impl LogFile {
    /// Opens the file that the settings name; `None` if they name none. They were checked.
    ///
    /// A server that root has started for another user gives him a [new](LogFile::is_new) one, and asks
    /// whether he can open it again ([`check_access`](LogFile::check_access)).
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>> {
        let Some(path) = settings.log_file.clone() else {
            return Ok(None);
        };
        let rules = Rules {
            path,
            mode: settings.log_file_mode,
            size: settings.log_rotate_size,
            every: settings.log_rotate_every,
            keep: settings.log_keep,
        };
        let opened = LogFile::with(rules, SystemTime::now());
        opened.map(Some).map_err(|error| {
            let path = settings.log_file.as_deref().unwrap_or(Path::new(""));
            let hint = match error.kind() {
                ErrorKind::NotFound => ": make its directory",
                ErrorKind::PermissionDenied => {
                    ": let the server's user write to it and its directory"
                }
                _ => "",
            };
            Error::usage(format!(
                "`log_file` = {:?} cannot be opened: {error}{hint}",
                path.display()
            ))
        })
    }

    /// Whether this process has made the file, which was not there.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether this process, as the user that it is now, could open the file again, and rotate it if
    /// it is to.
    pub(crate) fn check_access(&self) -> Result {
        let path = &self.rules.path;
        let refused = |what: &str, why: io::Error| {
            Error::usage(format!(
                "`log_file` = {:?}: {what}: {why}; let user {} do that, or name another file",
                path.display(),
                rustix::process::geteuid().as_raw()
            ))
        };
        open(&self.rules).map_err(|why| refused("it could not be opened again at HUP", why))?;
        if self.is_regular && self.rotates() {
            let directory = path.parent().unwrap_or(Path::new("/"));
            let access = Access::WRITE_OK | Access::EXEC_OK;
            accessat(CWD, directory, access, AtFlags::EACCESS)
                .map_err(|why| refused("its directory does not allow to rotate it", why.into()))?;
        }
        Ok(())
    }

    /// Opens the file of that name again: somebody may have moved this one away. If that fails, this
    /// one stays.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let new = LogFile::with(self.rules.clone(), SystemTime::now())?;
        *self = LogFile {
            is_new: self.is_new,
            renamed: self.renamed,
            ..new
        };
        Ok(())
    }

    /// Appends whole lines. The error of a change of files does not hinder that: it is told by
    /// `trouble`.
    pub(super) fn append(
        &mut self,
        mut lines: &[u8],
        now: SystemTime,
        mut trouble: impl FnMut(String),
    ) -> std::result::Result<(), Failed> {
        let all = lines.len();
        while !lines.is_empty() {
            if self.is_over(lines, now) && self.may_change(now) {
                match self.rotate(now) {
                    Ok(()) => {
                        if let Err(error) = self.remove_old(now) {
                            trouble(self.cannot("remove old files of", &error));
                        }
                    }
                    Err(error) => {
                        self.not_before = Some(now + PAUSE);
                        trouble(self.cannot("rotate", &error));
                    }
                }
            }
            let piece = self.fitting(lines, now);
            if let Err(failed) = self.write(&lines[..piece]) {
                return Err(Failed {
                    written: all - lines.len() + failed.written,
                    error: failed.error,
                });
            }
            lines = &lines[piece..];
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.rules.path
    }

    fn with(rules: Rules, now: SystemTime) -> io::Result<Self> {
        let (file, is_new) = open(&rules)?;
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_char_device() {
            let what = if kind.is_fifo() { "a pipe" } else { "no file" };
            return Err(io::Error::other(format!("it is {what}")));
        }
        let since = match metadata.len() {
            0 => now,
            _ => metadata.modified().unwrap_or(now),
        };
        Ok(LogFile {
            period: Moment::of(since).period(rules.every),
            rules,
            file,
            len: metadata.len(),
            is_regular: kind.is_file(),
            is_new,
            not_before: None,
            renamed: None,
        })
    }

    fn rotates(&self) -> bool {
        self.rules.size > 0 || self.rules.every != LogRotation::Never
    }

    /// Whether `lines` want a new file: the first of them finds no room, or the period has ended.
    fn is_over(&mut self, lines: &[u8], now: SystemTime) -> bool {
        if !self.is_regular || !self.rotates() {
            return false;
        }
        let period = Moment::of(now).period(self.rules.every);
        if self.len == 0 {
            self.period = period;
            return false;
        }
        period != self.period || (self.rules.size > 0 && self.room() < first_line(lines) as u64)
    }

    fn may_change(&self, now: SystemTime) -> bool {
        // A clock that was set back is no reason to wait for ever.
        self.not_before
            .is_none_or(|at| now >= at || at.duration_since(now).is_ok_and(|wait| wait > PAUSE))
    }

    fn room(&self) -> u64 {
        self.rules.size.saturating_sub(self.len)
    }

    /// Length of the lines in front that belong into the file as it is; at least one.
    fn fitting(&self, lines: &[u8], now: SystemTime) -> usize {
        let limited = self.is_regular && self.rules.size > 0 && self.may_change(now);
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        if !limited || lines.len() <= room {
            return lines.len();
        }
        let whole = lines[..room].iter().rposition(|&byte| byte == b'\n');
        whole.map_or_else(|| first_line(lines), |end| end + 1)
    }

    /// Renames the file and begins the next one.
    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let path = self.rules.path.clone();
        // Names that were removed are not used again either: the last is the newest.
        let last = self.renamed.filter(|&last| last <= now + WRONG);
        let next = last.map(|last| last + Duration::from_millis(1));
        let mut at = next.map_or(now, |next| next.max(now));
        let old = loop {
            let old = with_suffix(&path, &Moment::of(at).stamp());
            match rename(&path, &old) {
                Ok(()) => break old,
                // The name is taken: the next one.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    at += Duration::from_millis(1);
                }
                // Somebody has moved it away: there is nothing to rename.
                Err(error) if error.kind() == ErrorKind::NotFound => return self.reopen(),
                Err(error) => return Err(error),
            }
        };
        let rules = self.rules.clone();
        match LogFile::with(rules, now) {
            Ok(new) => {
                *self = LogFile {
                    renamed: Some(at),
                    ..new
                };
                Ok(())
            }
            Err(error) => {
                // What is written goes where people look for it.
                let _ = rename(&old, &path);
                Err(error)
            }
        }
    }

    /// Removes rotated files but the last.
    fn remove_old(&self, now: SystemTime) -> io::Result<()> {
        if self.rules.keep == 0 {
            return Ok(());
        }
        let mut old = rotated(&self.rules.path)?;
        let present = with_suffix(&self.rules.path, &Moment::of(now + WRONG).stamp());
        old.sort_unstable_by(|a, b| (*a <= present, a).cmp(&(*b <= present, b)));
        let keep = usize::try_from(self.rules.keep).unwrap_or(usize::MAX);
        let superfluous = old.len().saturating_sub(keep);
        for path in &old[..superfluous] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Writes whole lines, or takes back the part of one.
    fn write(&mut self, lines: &[u8]) -> std::result::Result<(), Failed> {
        let mut written = 0;
        while written < lines.len() {
            match rustix::io::write(&self.file, &lines[written..]) {
                Ok(0) => return Err(self.cut(lines, written, ErrorKind::WriteZero.into())),
                Ok(len) => written += len,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.cut(lines, written, error.into())),
            }
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    fn cut(&mut self, lines: &[u8], written: usize, error: io::Error) -> Failed {
        let whole = lines[..written].iter().rposition(|&byte| byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        if self.is_regular && written > whole {
            // Others may have cut the file meanwhile: its length now is what counts.
            let now = self.file.metadata().map_or(0, |metadata| metadata.len());
            let _ = self
                .file
                .set_len(now.saturating_sub((written - whole) as u64));
        }
        self.len += whole as u64;
        Failed {
            written: whole,
            error,
        }
    }

    fn cannot(&self, what: &str, error: &io::Error) -> String {
        format!("cannot {what} {}: {error}", self.rules.path.display())
    }
}

/// The file, and whether it was made.
fn open(rules: &Rules) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // Without NONBLOCK a pipe would wait for a reader.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options
        .append(true)
        .mode(rules.mode)
        .custom_flags(flags.bits().cast_signed());
    loop {
        match options.open(&rules.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => {
                let file = other?;
                if file.metadata()?.file_type().is_char_device() {
                    rustix::io::ioctl_fionbio(&file, false)?;
                }
                return Ok((file, false));
            }
        }
        match options.clone().create_new(true).open(&rules.path) {
            // Somebody else has made it at this moment.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && rules.path.exists() => {}
            // A link to a file that is not there yet.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Ok((options.clone().create(true).open(&rules.path)?, true));
            }
            other => return Ok((other?, true)),
        }
    }
}

/// Renames, and replaces nothing.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not know how.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        other => Ok(other?),
    }
}

/// The files that this one was renamed to.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?.file_name();
        let suffix = entry
            .as_bytes()
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(b"."));
        if suffix.is_some_and(is_stamp) {
            found.push(directory.join(entry));
        }
    }
    Ok(found)
}

/// Whether it is such as [`Moment::stamp`] makes.
fn is_stamp(text: &[u8]) -> bool {
    let like = b"00000000T000000.000Z";
    let alike = |(&byte, &like): (&u8, &u8)| match like {
        b'0' => byte.is_ascii_digit(),
        _ => byte == like,
    };
    text.len() == like.len() && text.iter().zip(like).all(alike)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Length of the first line, its end included.
fn first_line(lines: &[u8]) -> usize {
    let end = lines.iter().position(|&byte| byte == b'\n');
    end.map_or(lines.len(), |end| end + 1)
}

impl AsFd for LogFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How long a change of files that has failed is not tried again.
const PAUSE: Duration = Duration::from_secs(10);
/// A clock that was set back by less is no reason to take the last files for old ones.
const WRONG: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    struct Kit {
        directory: PathBuf,
        settings: Settings,
        now: SystemTime,
    }

    impl Kit {
        fn new(name: &str, change: impl FnOnce(&mut Settings)) -> Self {
            let directory =
                std::env::temp_dir().join(format!("gannet-log-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            let mut settings = Settings {
                log_file: Some(directory.join("log")),
                ..Settings::default()
            };
            change(&mut settings);
            Kit {
                directory,
                settings,
                now: SystemTime::now(),
            }
        }

        fn open(&self) -> LogFile {
            LogFile::open(&self.settings).unwrap().unwrap()
        }

        fn append(&self, file: &mut LogFile, lines: &str) {
            file.append(lines.as_bytes(), self.now, |trouble| panic!("{trouble}"))
                .unwrap();
        }

        /// What is in the files, the oldest first.
        fn contents(&self) -> Vec<String> {
            let path = self.settings.log_file.as_ref().unwrap();
            let mut paths = rotated(path).unwrap();
            paths.sort();
            paths.push(path.clone());
            let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
            paths.iter().map(read).collect()
        }
    }

    impl Drop for Kit {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn no_file_is_larger_than_it_may_be_and_no_line_is_cut() {
        let kit = Kit::new("size", |settings| settings.log_rotate_size = 10);
        let mut file = kit.open();
        kit.append(&mut file, "one\ntwo\nthree\nfour\n");
        kit.append(&mut file, "a line that is too long\nx\n");
        let expected = [
            "one\ntwo\n",
            "three\n",
            "four\n",
            "a line that is too long\n",
            "x\n",
        ];
        assert_eq!(kit.contents(), expected);
    }

    #[test]
    fn the_oldest_files_are_removed_and_strange_ones_are_not() {
        let kit = Kit::new("keep", |settings| {
            settings.log_rotate_size = 4;
            settings.log_keep = 2;
        });
        let strange = kit.directory.join("log.1");
        fs::write(&strange, "somebody else's").unwrap();
        let mut file = kit.open();
        for line in ["1\n", "22\n", "333\n", "444\n", "555\n"] {
            kit.append(&mut file, line);
        }
        assert_eq!(kit.contents(), ["333\n", "444\n", "555\n"]);
        assert!(strange.exists());
    }

    #[test]
    fn files_of_a_clock_that_was_wrong_do_not_push_out_those_of_now() {
        let mut kit = Kit::new("clock", |settings| {
            settings.log_rotate_size = 4;
            settings.log_keep = 2;
        });
        let right = kit.now;
        kit.now += 1000 * WRONG;
        let mut file = kit.open();
        for line in ["1\n", "22\n", "333\n", "444\n"] {
            kit.append(&mut file, line);
        }
        assert_eq!(kit.contents(), ["22\n", "333\n", "444\n"][..]);
        kit.now = right;
        for line in ["555\n", "666\n"] {
            kit.append(&mut file, line);
        }
        assert_eq!(kit.contents(), ["444\n", "555\n", "666\n"]);
        // Set back by a little, their order is that of the lines.
        kit.now = right - WRONG / 2;
        for line in ["777\n", "888\n"] {
            kit.append(&mut file, line);
        }
        assert_eq!(kit.contents(), ["666\n", "777\n", "888\n"]);
    }

    #[test]
    fn a_clock_that_goes_back_over_a_period_begins_a_file_and_loses_nothing() {
        let mut kit = Kit::new("back", |settings| {
            settings.log_rotate_every = LogRotation::Hour
        });
        let mut file = kit.open();
        kit.append(&mut file, "one\n");
        for line in ["two\n", "three\n"] {
            kit.now -= Duration::from_secs(3600);
            kit.append(&mut file, line);
        }
        kit.append(&mut file, "four\n");
        assert_eq!(kit.contents(), ["one\n", "two\n", "three\nfour\n"]);
    }

    #[test]
    fn a_new_period_begins_a_new_file_also_after_a_restart() {
        let mut kit = Kit::new("period", |settings| {
            settings.log_rotate_every = LogRotation::Hour
        });
        let mut file = kit.open();
        kit.append(&mut file, "before\n");
        kit.now += Duration::from_secs(3600);
        kit.append(&mut file, "after\n");
        assert_eq!(kit.contents(), ["before\n", "after\n"]);
        // Its last line was written now, by the clock of the file system.
        let mut file = kit.open();
        kit.now = SystemTime::now() + Duration::from_secs(7200);
        kit.append(&mut file, "later\n");
        assert_eq!(kit.contents().len(), 3);
    }

    #[test]
    fn a_file_that_was_moved_away_is_followed_until_it_is_opened_again() {
        let kit = Kit::new("reopen", |_| {});
        let mut file = kit.open();
        let moved = kit.directory.join("moved");
        fs::rename(file.path(), &moved).unwrap();
        kit.append(&mut file, "one\n");
        file.reopen().unwrap();
        kit.append(&mut file, "two\n");
        assert_eq!(fs::read_to_string(moved).unwrap(), "one\n");
        assert_eq!(kit.contents(), ["two\n"]);
    }

    #[test]
    fn a_directory_that_is_gone_stops_nothing() {
        let kit = Kit::new("gone", |settings| settings.log_rotate_size = 4);
        let mut file = kit.open();
        kit.append(&mut file, "1\n");
        fs::remove_dir_all(&kit.directory).unwrap();
        assert!(file.reopen().is_err());
        let mut troubles = Vec::new();
        for _ in 0..2 {
            file.append(b"4444\n5555\n", kit.now, |trouble| troubles.push(trouble))
                .unwrap();
        }
        assert_eq!(troubles.len(), 1, "tried again at once: {troubles:?}");
        assert!(troubles[0].contains("cannot rotate"));
        fs::create_dir_all(&kit.directory).unwrap();
        let later = kit.now + PAUSE;
        file.append(b"new\n", later, |trouble| panic!("{trouble}"))
            .unwrap();
        assert_eq!(kit.contents(), ["new\n"]);
    }

    #[test]
    fn what_is_no_file_is_refused_and_a_full_disk_is_told() {
        let kit = Kit::new("kinds", |_| {});
        let with = |path: &str| {
            let settings = Settings {
                log_file: Some(path.into()),
                ..Settings::default()
            };
            LogFile::open(&settings)
        };
        assert!(with("/proc").is_err() && with("/no/such/directory/log").is_err());
        let error = with("/no/such/directory/log").unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("make its directory"));
        let mut full = with("/dev/full").unwrap().unwrap();
        let failed = full.append(b"one\n", kit.now, |trouble| panic!("{trouble}"));
        assert_eq!(failed.unwrap_err().written, 0);
    }

    #[test]
    fn the_mode_is_that_of_the_settings_and_access_is_checked() {
        use std::os::unix::fs::PermissionsExt;
        let kit = Kit::new("mode", |settings| settings.log_file_mode = 0o600);
        let file = kit.open();
        let mode = file.file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.check_access().unwrap();
        assert!(file.is_new() && !kit.open().is_new());
        fs::remove_dir_all(&kit.directory).unwrap();
        let error = file.check_access().unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("at HUP"));
    }
}
