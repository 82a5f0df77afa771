//! A child's end of the pipe by which its lines go to the manager.
//!
//! Writing never waits long: if the pipe is full, the line waits up to `patience` for room. If there
//! is none, it is dropped and counted, and the next ones are not waited for at all until one has got
//! through. The first that does has a [record](LOST) in front that tells the manager how many were
//! dropped. A line of which a part is in the pipe is never given up: the rest goes before the next.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    fd: OwnedFd,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is left of a line of which a part was written.
    rest: Vec<u8>,
    /// Lines dropped, of which the manager does not know.
    lost: u64,
    /// The last line found no room.
    is_stuck: bool,
}

impl Pipe {
    pub(super) fn new(fd: OwnedFd, patience: Duration) -> io::Result<Self> {
        ioctl_fionbio(&fd, true)?;
        Ok(Pipe {
            fd,
            patience,
            state: Mutex::default(),
        })
    }

    /// Writes a line, or several of one event.
    pub(super) fn write(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_locked(&mut state, line);
    }

    /// The same, if no other line is being written just now; `false` otherwise. For a process that
    /// dies, perhaps in the middle of it.
    pub(super) fn try_write(&self, line: &[u8]) -> bool {
        match self.state.try_lock() {
            Ok(mut state) => {
                self.write_locked(&mut state, line);
                true
            }
            Err(_) => false,
        }
    }

    fn write_locked(&self, state: &mut State, line: &[u8]) {
        let patience = if state.is_stuck {
            Duration::ZERO
        } else {
            self.patience
        };
        let deadline = Instant::now() + patience;
        if !self.finish_rest(state, deadline) {
            state.lost += 1;
            state.is_stuck = true;
            return;
        }
        let record = match state.lost {
            0 => Vec::new(),
            lost => format!("{LOST}{lost}\n").into_bytes(),
        };
        let whole = match record.is_empty() {
            true => line,
            false => &[&record, line].concat(),
        };
        let written = self.fill(whole, deadline);
        state.is_stuck = written < whole.len();
        if written == 0 {
            state.lost += 1;
            return;
        }
        state.lost = 0;
        state.rest.extend_from_slice(&whole[written..]);
    }

    /// Writes what is left of the line before; `false`: not all.
    fn finish_rest(&self, state: &mut State, deadline: Instant) -> bool {
        if state.rest.is_empty() {
            return true;
        }
        let written = self.fill(&state.rest, deadline);
        state.rest.drain(..written);
        state.rest.is_empty()
    }

    /// Writes as much as finds room by then; how much that was.
    fn fill(&self, bytes: &[u8], deadline: Instant) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::write(&self.fd, &bytes[written..]) {
                Ok(len) => written += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.wait(deadline) => {}
                Err(Errno::AGAIN) => break,
                // The manager is gone; so is this process, in a moment.
                Err(_) => return bytes.len(),
            }
        }
        written
    }

    /// Waits for room; `false`: there is none, and the time is over.
    fn wait(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut room = [PollFd::new(&self.fd, PollFlags::OUT)];
        // Whatever it says: the next write tells more.
        let _ = poll(&mut room, Some(&left));
        true
    }
}

/// Begins a record that is no line: how many lines were lost.
pub(crate) const LOST: &str = "\u{1}lost ";

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    fn pair() -> (File, Pipe) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        ioctl_fionbio(&reader, true).unwrap();
        let pipe = Pipe::new(writer, Duration::from_millis(1)).unwrap();
        (reader.into(), pipe)
    }

    fn read(reader: &mut File) -> String {
        let mut bytes = Vec::new();
        let end = reader.read_to_end(&mut bytes);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_without_room_are_counted_and_the_count_is_told() {
        let (mut reader, pipe) = pair();
        let mut number = 0;
        let mut write = |size: usize| {
            number += 1;
            pipe.write(format!("{number:.>size$}\n").as_bytes());
            pipe.state.lock().unwrap().lost
        };
        while write(1000) == 0 {}
        assert_eq!(write(1000), 2);
        let before = read(&mut reader);
        assert_eq!(write(1000), 0);
        let after = read(&mut reader);
        let mut lines = after.lines();
        assert_eq!(lines.next(), Some("\u{1}lost 2"));
        assert_eq!(lines.count(), 1);
        assert!(before.ends_with('\n') && before.lines().all(|line| line.len() == 1000));
    }

    #[test]
    fn a_line_that_has_begun_is_finished_before_the_next() {
        let (mut reader, pipe) = pair();
        // More than a pipe holds.
        let long = format!("{}\n", "x".repeat(100_000));
        pipe.write(long.as_bytes());
        pipe.write(b"dropped\n");
        let mut all = read(&mut reader);
        assert!(all.len() < long.len());
        pipe.write(b"next\n");
        all.push_str(&read(&mut reader));
        assert_eq!(all, format!("{long}\u{1}lost 1\nnext\n"));
    }

    #[test]
    fn a_manager_that_is_gone_is_no_reason_to_wait() {
        let (reader, pipe) = pair();
        drop(reader);
        pipe.write(b"line\n");
        assert!(pipe.try_write(b"line\n"));
        let guard = pipe.state.lock().unwrap();
        assert!(!pipe.try_write(b"line\n"));
        drop(guard);
    }
}
