//! What user processes write to outputs that are redirected.
//!
//! Each redirected output is a pipe whose reading end is here. It is read without waiting, cut into
//! lines, and each line goes into the log or, through the master, to a place. Bounds: a line has at
//! most [`LINE`](crate::lines::LINE) bytes, longer ones are cut; each output has [`RATE`] bytes a second, saved up for at
//! most one; nothing is read for a place while the master has no room. Then the pipe fills, and who
//! writes to it waits. An output is done at its end of file, or when its process was reaped and the
//! pipe is empty (a program that the process left behind may hold it open).

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

use crate::{WorkerId, lines::Lines};

/// The redirected outputs that are open.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    by_number: BTreeMap<u64, Source>,
    last: u64,
}

/// Where an output comes from and goes to.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) incarnation: u64,
    pub(super) from: WorkerId,
    /// `process feed`.
    pub(super) title: String,
    pub(super) is_errors: bool,
    /// `None`: into the log.
    pub(super) to: Option<WorkerId>,
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
        let source = Source {
            pipe,
            route,
            lines: Lines::default(),
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

    /// Reads what there is and hands out whole lines. `has_room` says whether the master takes more.
    pub(super) fn pump(
        &mut self,
        now: Instant,
        has_room: impl Fn() -> bool,
        mut deliver: impl FnMut(&Route, &[u8]),
    ) {
        let mut buffer = [0; PIECE];
        self.by_number.retain(|_, source| {
            let mut turns = TURNS;
            while source.ready && turns > 0 {
                turns -= 1;
                let may = source.budget.at(now);
                if may == 0 || (source.route.to.is_some() && !has_room()) {
                    break;
                }
                let most = may.min(buffer.len());
                match read(&source.pipe, &mut buffer[..most]) {
                    Ok(0) => return source.end(&mut deliver),
                    Ok(len) => {
                        source.budget.bytes -= len;
                        let Source { lines, route, .. } = source;
                        lines.feed(&buffer[..len], |line| deliver(route, line));
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
    pub(super) fn finish(&mut self, mut deliver: impl FnMut(&Route, &[u8])) {
        let mut buffer = [0; PIECE];
        for (_, mut source) in std::mem::take(&mut self.by_number) {
            let Source {
                pipe, lines, route, ..
            } = &mut source;
            for _ in 0..LAST / PIECE {
                match read(&*pipe, &mut buffer) {
                    Ok(len @ 1..) => lines.feed(&buffer[..len], |line| deliver(route, line)),
                    Err(Errno::INTR) => {}
                    Ok(_) | Err(_) => break,
                }
            }
            source.end(&mut deliver);
        }
    }

    /// When to pump again though nothing happens: some output waits for its budget, or for the
    /// others' turn.
    pub(super) fn poll_timeout(&self, now: Instant, has_room: bool) -> Option<Instant> {
        let waiting = self.by_number.values().filter(|source| {
            // The master's channel says itself when it has room.
            source.ready && (has_room || source.route.to.is_none())
        });
        waiting
            .map(|source| match source.budget.bytes {
                0 => source.budget.at + PAUSE,
                _ => now,
            })
            .min()
    }
}

impl Source {
    /// Hands out what is left; `false`, for it is to be dropped.
    fn end(&mut self, deliver: &mut impl FnMut(&Route, &[u8])) -> bool {
        self.lines.finish(|line| deliver(&self.route, line));
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

/// Bytes of one output in a second.
const RATE: usize = 256 << 10;
/// Bytes read at once, and how often before others have their turn.
const PIECE: usize = 16 << 10;
const TURNS: usize = 4;
/// Bytes read of one output at the end: the most that a pipe holds, without privileges.
const LAST: usize = 1 << 20;
/// How long an output that has used up its budget waits.
const PAUSE: Duration = Duration::from_millis(50);
/// Low bits of the epoll tokens.
const KIND: u64 = 3;

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use rustix::{event::epoll::CreateFlags, pipe::pipe};

    use super::*;

    struct Kit {
        outputs: Outputs,
        _epoll: OwnedFd,
        writer: Option<File>,
        now: Instant,
    }

    impl Kit {
        fn new(to: Option<WorkerId>) -> Self {
            let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
            let (reader, writer) = pipe().unwrap();
            let mut outputs = Outputs::default();
            let route = Route {
                incarnation: 7,
                from: WorkerId(3),
                title: "process a".to_owned(),
                is_errors: false,
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
                || has_room,
                |_, line| lines.push(String::from_utf8_lossy(line).into_owned()),
            );
            lines
        }
    }

    #[test]
    fn lines_come_as_they_are_written_and_the_last_at_the_end() {
        let mut kit = Kit::new(None);
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
        let mut kit = Kit::new(None);
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
        assert!(kit.outputs.poll_timeout(kit.now, true) > Some(kit.now));
        kit.now += Duration::from_millis(500);
        assert_eq!(go(&mut kit), RATE + RATE / 2);
    }

    #[test]
    fn the_end_takes_what_is_left_and_no_more_than_a_pipe_holds() {
        let mut kit = Kit::new(None);
        // Its budget is used up, and it is held open.
        kit.outputs.by_number.get_mut(&1).unwrap().budget.bytes = 0;
        kit.write(&[b'\n'; 60_000]);
        kit.write(b"last words");
        let mut lines = Vec::new();
        kit.outputs.finish(|_, line| lines.push(line.to_vec()));
        assert_eq!(lines.len(), 60_001);
        assert_eq!(lines[60_000], b"last words");
        assert!(kit.outputs.by_number.is_empty());
    }

    #[test]
    fn nothing_is_read_for_a_peer_without_room() {
        let mut kit = Kit::new(Some(WorkerId(0)));
        kit.write(b"one\n");
        assert!(kit.lines(false).is_empty());
        assert_eq!(kit.outputs.poll_timeout(kit.now, false), None);
        assert_eq!(kit.lines(true), ["one"]);
    }

    #[test]
    fn a_pipe_that_others_hold_open_is_let_go_when_the_process_is_gone() {
        let mut kit = Kit::new(None);
        kit.write(b"last words");
        assert!(kit.lines(true).is_empty());
        kit.outputs.left(7);
        assert_eq!(kit.lines(true), ["last words"]);
        assert!(kit.outputs.by_number.is_empty());
    }
}
