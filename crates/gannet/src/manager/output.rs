//! What the processes write: lines of the log, and what they print.
//!
//! Each of these outputs is a pipe whose reading end is here. It is read without waiting and cut into
//! lines. There are three kinds ([`To`]): a child's own lines for the log, which are complete; what it
//! prints, if that is captured; and the output of a user process that goes to another process, through
//! the master.
//!
//! Bounds: a printed line has at most [`LINE`](crate::lines::LINE) bytes, longer ones are cut. An output
//! for a process has [`RATE`] bytes a second, saved up for at most one. Nothing is read for a process
//! while the master has no room, or for the log while that has none. Then the pipe fills, and who
//! writes to it waits (who logs: [`crate::logging`]). Each output is read a piece at a time, so that none
//! keeps the manager from the others. An output is done at its end of file, or when its process was
//! reaped and the pipe is empty (a program that the process left behind may hold it open).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::{Errno, ioctl_fionbio, read},
};

use crate::{
    WorkerId,
    lines::Lines,
    logging::{LONGEST, Who},
};

/// The outputs that are open.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    by_number: BTreeMap<u64, Source>,
    last: u64,
}

/// Where an output comes from and goes to.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// 0: the master.
    pub(super) incarnation: u64,
    pub(super) who: Who,
    pub(super) to: To,
}

/// What becomes of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// They are lines of the log.
    Log,
    /// They are printed: to standard error or standard output.
    Captured { is_errors: bool },
    /// They are pipe messages from the one place for the other.
    Place { from: WorkerId, to: WorkerId },
}

#[derive(Debug)]
struct Source {
    pipe: OwnedFd,
    route: Route,
    lines: Lines,
    /// There may be something to read.
    ready: bool,
    /// Its process was reaped.
    left: bool,
    budget: Budget,
}

/// Bytes that may be read now, and as of when.
#[derive(Debug)]
struct Budget {
    bytes: usize,
    at: Instant,
}

impl Outputs {
    /// Takes in the reading end of a pipe.
    pub(super) fn add(
        &mut self,
        epoll: BorrowedFd<'_>,
        pipe: OwnedFd,
        route: Route,
        now: Instant,
    ) -> io::Result<()> {
        ioctl_fionbio(&pipe, true)?;
        self.last += 1;
        let token = EventData::new_u64(self.last << 2 | KIND);
        epoll::add(epoll, &pipe, token, EventFlags::IN | EventFlags::ET)?;
        let lines = match route.to {
            To::Log => Lines::up_to(LONGEST),
            To::Captured { .. } | To::Place { .. } => Lines::default(),
        };
        let source = Source {
            pipe,
            route,
            lines,
            ready: true,
            left: false,
            budget: Budget {
                bytes: RATE,
                at: now,
            },
        };
        self.by_number.insert(self.last, source);
        Ok(())
    }

    /// Which output an epoll event with this number is about.
    pub(super) fn source(token: u64) -> Option<u64> {
        (token & 3 == KIND && token >> 2 > 0).then_some(token >> 2)
    }

    /// Something happened to the pipe.
    pub(super) fn is_ready(&mut self, number: u64) {
        if let Some(source) = self.by_number.get_mut(&number) {
            source.ready = true;
        }
    }

    /// The process was reaped.
    pub(super) fn left(&mut self, incarnation: u64) {
        for source in self.by_number.values_mut() {
            if source.route.incarnation == incarnation {
                source.left = true;
                source.ready = true;
            }
        }
    }

    /// Reads what there is and hands out lines, and whether they were whole. `has_room` says whether the
    /// other side takes more.
    pub(super) fn pump(
        &mut self,
        now: Instant,
        has_room: impl Fn(To) -> bool,
        mut deliver: impl FnMut(&Route, &[u8], bool),
    ) {
        let mut buffer = [0; PIECE];
        self.by_number.retain(|_, source| {
            let mut turns = TURNS;
            while source.ready && turns > 0 {
                turns -= 1;
                let most = source.may_read(now).min(buffer.len());
                if most == 0 || !has_room(source.route.to) {
                    break;
                }
                match read(&source.pipe, &mut buffer[..most]) {
                    Ok(0) => return source.end(&mut deliver),
                    Ok(len) => {
                        source.budget.bytes = source.budget.bytes.saturating_sub(len);
                        let Source { lines, route, .. } = source;
                        lines.feed(&buffer[..len], |line| deliver(route, line, true));
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) if !source.left => source.ready = false,
                    // It is empty and nobody who matters writes to it.
                    Err(_) => return source.end(&mut deliver),
                }
            }
            true
        });
    }

    /// Hands out what is left when no process is, whatever the budget; the programs that processes
    /// have started and that still write are not waited for.
    pub(super) fn finish(&mut self, mut deliver: impl FnMut(&Route, &[u8], bool)) {
        let mut buffer = [0; PIECE];
        for (_, mut source) in std::mem::take(&mut self.by_number) {
            let Source {
                pipe, lines, route, ..
            } = &mut source;
            for _ in 0..LAST / PIECE {
                match read(&*pipe, &mut buffer) {
                    Ok(len @ 1..) => lines.feed(&buffer[..len], |line| deliver(route, line, true)),
                    Err(Errno::INTR) => {}
                    Ok(_) | Err(_) => break,
                }
            }
            source.end(&mut deliver);
        }
    }

    /// When to pump again though nothing happens: some output waits for its budget, for room in the
    /// log, or for the others' turn.
    pub(super) fn poll_timeout(
        &self,
        now: Instant,
        has_room: impl Fn(To) -> bool,
    ) -> Option<Instant> {
        let ready = self.by_number.values().filter(|source| source.ready);
        let next = ready.filter_map(|source| match source.route.to {
            // The master's channel says itself when it has room.
            to @ To::Place { .. } if !has_room(to) => None,
            To::Place { .. } if source.budget.bytes == 0 => Some(source.budget.at + PAUSE),
            To::Log | To::Captured { .. } if !has_room(source.route.to) => Some(now + LOG_PAUSE),
            _ => Some(now),
        });
        next.min()
    }
}

impl Source {
    /// Bytes that may be read now.
    fn may_read(&mut self, now: Instant) -> usize {
        match self.route.to {
            To::Log | To::Captured { .. } => usize::MAX,
            To::Place { .. } => self.budget.at(now),
        }
    }

    /// Hands out what is left; `false`, for it is to be dropped.
    fn end(&mut self, deliver: &mut impl FnMut(&Route, &[u8], bool)) -> bool {
        self.lines.finish(|line| deliver(&self.route, line, false));
        false
    }
}

impl Budget {
    /// What may be read at `now`.
    fn at(&mut self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.at);
        // In steps, so that not every byte is a turn of the loop.
        if since >= PAUSE {
            let earned = (RATE as u128 * since.as_millis() / 1000) as usize;
            self.bytes = RATE.min(self.bytes + earned);
            self.at = now;
        }
        self.bytes
    }
}

/// Bytes of one output for a process in a second.
const RATE: usize = 256 << 10;
/// Bytes read at once, and how often before others have their turn.
const PIECE: usize = 16 << 10;
const TURNS: usize = 4;
/// Bytes read of one output at the end: the most that a pipe holds, without privileges.
const LAST: usize = 1 << 20;
/// How long an output that has used up its budget waits.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one waits for room in the log.
const LOG_PAUSE: Duration = Duration::from_millis(5);
/// Low bits of the epoll tokens.
const KIND: u64 = 3;

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use rustix::{event::epoll::CreateFlags, pipe::pipe};

    use super::*;

    const PRINTED: To = To::Captured { is_errors: false };
    const PLACE: To = To::Place {
        from: WorkerId(3),
        to: WorkerId(0),
    };

    struct Kit {
        outputs: Outputs,
        _epoll: OwnedFd,
        writer: Option<File>,
        now: Instant,
    }

    impl Kit {
        fn new(to: To) -> Self {
            let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
            let (reader, writer) = pipe().unwrap();
            let mut outputs = Outputs::default();
            let route = Route {
                incarnation: 7,
                who: Who::master(),
                to,
            };
            let now = Instant::now();
            outputs
                .add(std::os::fd::AsFd::as_fd(&epoll), reader, route, now)
                .unwrap();
            Kit {
                outputs,
                _epoll: epoll,
                writer: Some(writer.into()),
                now,
            }
        }

        fn write(&mut self, bytes: &[u8]) {
            self.writer.as_mut().unwrap().write_all(bytes).unwrap();
            self.outputs.is_ready(1);
        }

        fn lines(&mut self, has_room: bool) -> Vec<String> {
            let mut lines = Vec::new();
            self.outputs.pump(
                self.now,
                |_| has_room,
                |_, line, _| lines.push(String::from_utf8_lossy(line).into_owned()),
            );
            lines
        }
    }

    #[test]
    fn lines_come_as_they_are_written_and_the_last_at_the_end() {
        let mut kit = Kit::new(PRINTED);
        kit.write(b"one\ntw");
        assert_eq!(kit.lines(true), ["one"]);
        kit.write(b"o\n\nthree");
        assert_eq!(kit.lines(true), ["two", ""]);
        kit.writer = None;
        kit.outputs.is_ready(1);
        assert_eq!(kit.lines(true), ["three"]);
        assert!(kit.outputs.by_number.is_empty());
    }

    #[test]
    fn an_output_that_floods_has_its_rate() {
        let mut kit = Kit::new(PLACE);
        let (mut written, mut read) = (0, 0);
        let mut go = |kit: &mut Kit| {
            for _ in 0..1000 {
                if written - read < 32 << 10 {
                    kit.write(&[b'\n'; 16 << 10]);
                    written += 16 << 10;
                }
                read += kit.lines(true).len();
            }
            read
        };
        assert_eq!(go(&mut kit), RATE);
        assert!(kit.outputs.poll_timeout(kit.now, |_| true) > Some(kit.now));
        kit.now += Duration::from_millis(500);
        assert_eq!(go(&mut kit), RATE + RATE / 2);
    }

    #[test]
    fn the_end_takes_what_is_left_and_no_more_than_a_pipe_holds() {
        let mut kit = Kit::new(PRINTED);
        // Its budget is used up, and it is held open.
        kit.outputs.by_number.get_mut(&1).unwrap().budget.bytes = 0;
        kit.write(&[b'\n'; 60_000]);
        kit.write(b"last words");
        let mut lines = Vec::new();
        kit.outputs.finish(|_, line, _| lines.push(line.to_vec()));
        assert_eq!(lines.len(), 60_001);
        assert_eq!(lines[60_000], b"last words");
        assert!(kit.outputs.by_number.is_empty());
    }

    #[test]
    fn nothing_is_read_for_a_peer_without_room() {
        let mut kit = Kit::new(PLACE);
        kit.write(b"one\n");
        assert!(kit.lines(false).is_empty());
        assert_eq!(kit.outputs.poll_timeout(kit.now, |_| false), None);
        assert_eq!(kit.lines(true), ["one"]);
    }

    #[test]
    fn what_is_printed_waits_for_room_in_the_log_and_has_no_rate() {
        let mut kit = Kit::new(PRINTED);
        kit.outputs.by_number.get_mut(&1).unwrap().budget.bytes = 0;
        kit.write(b"one\n");
        assert!(kit.lines(false).is_empty());
        let again = kit.outputs.poll_timeout(kit.now, |_| false);
        assert_eq!(again, Some(kit.now + LOG_PAUSE));
        assert_eq!(kit.lines(true), ["one"]);
    }

    #[test]
    fn a_pipe_that_others_hold_open_is_let_go_when_the_process_is_gone() {
        let mut kit = Kit::new(PRINTED);
        kit.write(b"last words");
        assert!(kit.lines(true).is_empty());
        kit.outputs.left(7);
        assert_eq!(kit.lines(true), ["last words"]);
        assert!(kit.outputs.by_number.is_empty());
    }
}
