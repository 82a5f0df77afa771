//! The manager's queue of lines, and the thread that writes them: the only one that writes to the log
//! file, so that one decides when it is changed; a disk or a terminal that hangs stops this thread and
//! nothing else.
//!
//! Lines are pushed whole, and written in order, as many at a time as there are. At `limit` bytes lines
//! are dropped and counted. Who carries lines from elsewhere asks [`Queue::has_room`] before, which
//! says no from half of that on, but not for longer than `patience`: then a line that finds no room is
//! to be dropped rather than waited for.
//!
//! If the file cannot be written (the disk is full), lines are dropped and counted; from then on it is
//! tried once in [`PAUSE`]. When it takes lines again, the first says how many are missing, and why.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tracing::Level;

use super::{
    file::LogFile,
    line::{Said, Style, Who},
    repeats::grouped,
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Queue(Arc<Shared>);

/// See [`Queue::at_end`].
#[derive(Debug)]
pub(crate) struct AtEnd(Queue);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// The thread has done something.
    done: Condvar,
    limit: usize,
    patience: Duration,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Bytes that are being written.
    writing: usize,
    /// Lines that were dropped, by whoever; and those that the log does not tell of yet.
    lost: u64,
    untold: u64,
    full_since: Option<Instant>,
    reopen: bool,
    /// Lines are written before `push` returns: the server has ended.
    at_once: bool,
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    to: To,
    who: Who,
    style: Style,
    /// The file takes nothing: why, how many lines are missing, and when it was tried last.
    failing: Option<(io::Error, u64, Instant)>,
}

enum To {
    File(LogFile),
    Errors(io::Stderr),
}

impl Queue {
    /// Starts the thread. Without a file lines go to standard error.
    pub(super) fn start(
        file: Option<LogFile>,
        who: Who,
        style: Style,
        limit: usize,
        patience: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            limit,
            patience,
        });
        let mut writer = Writer {
            shared: shared.clone(),
            to: file.map_or_else(|| To::Errors(io::stderr()), To::File),
            who,
            style,
            failing: None,
        };
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || {
            loop {
                writer.turn();
            }
        })?;
        Ok(Queue(shared))
    }

    /// Takes whole lines, or drops and counts them.
    pub(super) fn push(&self, lines: &[u8]) {
        let at_once = {
            let mut state = self.0.state();
            if state.held() + lines.len() > self.0.limit {
                let count = count(lines);
                state.lost += count;
                state.untold += count;
                return;
            }
            state.lines.extend_from_slice(lines);
            self.0.work.notify_one();
            state.at_once
        };
        if at_once {
            self.flush();
        }
    }

    /// Whether lines from elsewhere may be pushed now.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        let mut state = self.0.state();
        if state.held() < self.0.limit / 2 {
            state.full_since = None;
            return true;
        }
        let since = *state.full_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.0.patience
    }

    /// Counts lines that others have dropped, and told of.
    pub(super) fn lost_elsewhere(&self, lines: u64) {
        self.0.state().lost += lines;
    }

    /// Lines that were dropped since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.0.state().lost
    }

    /// The file of that name is opened again before more is written.
    pub(crate) fn reopen(&self) {
        self.0.state().reopen = true;
        self.0.work.notify_one();
    }

    /// Waits until everything is written, but not for ever; `false`: not all is.
    pub(crate) fn flush(&self) -> bool {
        let deadline = Instant::now() + FLUSH;
        let mut state = self.0.state();
        while state.held() > 0 || state.reopen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// When the result is dropped, all is written: the server has ended, and the process may at any
    /// time. What it says from then on is written at once.
    #[must_use]
    pub(crate) fn at_end(&self) -> AtEnd {
        AtEnd(self.clone())
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        super::finish();
        self.0.0.state().at_once = true;
        self.0.flush();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held(&self) -> usize {
        self.lines.len() + self.writing
    }
}

impl Writer {
    /// Waits for something to do, and does it.
    fn turn(&mut self) {
        let (mut lines, untold, reopen) = {
            let mut state = self.shared.state();
            while state.lines.is_empty() && !state.reopen {
                let waited = self.shared.work.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
            let lines = std::mem::take(&mut state.lines);
            state.writing = lines.len();
            let untold = std::mem::take(&mut state.untold);
            (lines, untold, std::mem::take(&mut state.reopen))
        };
        if reopen && let To::File(file) = &mut self.to {
            match file.reopen() {
                Ok(()) => self.failing_may_be_over(),
                Err(error) => {
                    let path = file.path().display();
                    let text = format!("cannot open {path} again, the old file goes on: {error}");
                    lines.extend(self.line(Level::ERROR, &text));
                }
            }
        }
        if untold > 0 {
            let text = format!(
                "{} lines were lost: they came faster than the log could be written",
                grouped(untold)
            );
            lines.extend(self.line(Level::ERROR, &text));
        }
        let lost = self.write(&lines);
        let mut state = self.shared.state();
        state.writing = 0;
        state.lost += lost;
        drop(state);
        self.shared.done.notify_all();
    }

    /// Writes lines; how many were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        match self.to {
            To::File(_) => self.write_file(lines),
            To::Errors(ref errors) => match write_all(errors, lines) {
                Ok(()) => 0,
                // Nobody reads it any more.
                Err(_) => count(lines),
            },
        }
    }

    fn write_file(&mut self, lines: &[u8]) -> u64 {
        let To::File(file) = &mut self.to else {
            return 0;
        };
        let all = count(lines);
        let mut whole = Vec::new();
        if let Some((why, missing, tried)) = &mut self.failing {
            if tried.elapsed() < PAUSE {
                *missing += all;
                return all;
            }
            let text = format!(
                "{} lines are missing here: the log file could not be written: {why}",
                grouped(*missing)
            );
            let said = Said::message(self.style, &text);
            let line = said.line(&self.who, SystemTime::now(), Level::ERROR, TARGET, None);
            whole.extend_from_slice(line.as_bytes());
        }
        let head = whole.len();
        whole.extend_from_slice(lines);
        let mut troubles = Vec::new();
        let written = file.append(&whole, SystemTime::now(), |trouble| troubles.push(trouble));
        let lost = match written {
            Ok(()) => {
                self.failing = None;
                0
            }
            Err(failed) => {
                let missing = count(&lines[failed.written.saturating_sub(head)..]);
                let before = match self.failing.take() {
                    Some((_, before, _)) if failed.written < head => before,
                    Some(_) => 0,
                    None => {
                        let path = file.path().display();
                        let error = &failed.error;
                        troubles.push(format!("cannot write the log file {path}: {error}"));
                        0
                    }
                };
                self.failing = Some((failed.error, before + missing, Instant::now()));
                missing
            }
        };
        for trouble in troubles {
            let line = self.line(Level::ERROR, &trouble);
            match (&mut self.to, &self.failing) {
                (To::File(file), None) => {
                    // Told already: this time it is the same.
                    let _ = file.append(&line, SystemTime::now(), drop);
                }
                _ => tell_if_somebody_reads(&line),
            }
        }
        lost
    }

    /// A file that was just opened may take lines again.
    fn failing_may_be_over(&mut self) {
        if let Some((_, _, tried)) = &mut self.failing
            && let Some(before) = Instant::now().checked_sub(PAUSE)
        {
            *tried = before;
        }
    }

    fn line(&self, level: Level, text: &str) -> Vec<u8> {
        let said = Said::message(self.style, text);
        let line = said.line(&self.who, SystemTime::now(), level, TARGET, None);
        line.into_bytes()
    }
}

/// Whether lines on standard error are for a person.
pub(super) fn errors_are_for_people() -> bool {
    io::stderr().is_terminal()
}

/// Writes to a stream that others may have made one that does not wait.
fn write_all(stream: &io::Stderr, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut room = [PollFd::new(stream, PollFlags::OUT)];
                // The next write tells what there is.
                let _ = poll(&mut room, None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Tells on standard error what the log cannot: if that would wait, nobody is told.
fn tell_if_somebody_reads(line: &[u8]) {
    let mut errors = io::stderr();
    let mut room = [PollFd::from_borrowed_fd(errors.as_fd(), PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if matches!(poll(&mut room, Some(&at_once)), Ok(1)) {
        // There is nobody else to tell.
        let _ = errors.write_all(line);
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// How long a file that has taken nothing is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an end waits for the log.
const FLUSH: Duration = Duration::from_secs(2);
/// What lines about the log itself have as their target.
const TARGET: &str = "gannet::log";
