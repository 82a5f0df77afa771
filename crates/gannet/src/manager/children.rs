//! The processes that live, and the channels to them.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use gannet_shm::Region;
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    process::Signal,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    places::{End, Who},
    spawn::Spawned,
};
use crate::{
    channel::{Channel, ToMaster, ToWorker},
    layout::{Dimensions, WorkerCounter},
};

/// The living children by their key: 0 for the master, the incarnation for a worker.
#[derive(Debug, Default)]
pub(super) struct Children {
    by_key: BTreeMap<u64, Child>,
}

/// What a worker shares with the master.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) region: Arc<Region>,
    pub(super) bell: Arc<OwnedFd>,
}

/// What travels with a message.
#[derive(Clone, Debug)]
pub(super) enum Enclosed {
    Nothing,
    Shared(Shared),
    File(Arc<OwnedFd>),
}

#[derive(Debug)]
pub(super) struct Child {
    spawned: Spawned,
    /// Of workers.
    shared: Option<Shared>,
    /// Messages that the channel had no room for. With what is to travel with them.
    outbox: VecDeque<(Outgoing, Enclosed)>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Outgoing {
    Master(ToMaster),
    Worker(ToWorker),
}

/// Counters of a worker process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) handled: u64,
    pub(super) in_flight: u64,
    pub(super) errors: u64,
    pub(super) panics: u64,
    pub(super) hangs: u64,
    pub(super) spans_lost: u64,
}

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Process(Who),
    Channel(Who),
}

impl Children {
    /// Takes a child into the books and watches it.
    pub(super) fn add(
        &mut self,
        epoll: BorrowedFd<'_>,
        who: Who,
        spawned: Spawned,
        shared: Option<Shared>,
    ) -> io::Result<()> {
        let key = key(who);
        epoll::add(
            epoll,
            &spawned,
            EventData::new_u64(key << 2),
            EventFlags::IN,
        )?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(
            epoll,
            &spawned.channel,
            EventData::new_u64(key << 2 | 1),
            flags,
        )?;
        self.by_key.insert(
            key,
            Child {
                spawned,
                shared,
                outbox: VecDeque::new(),
            },
        );
        Ok(())
    }

    /// What an event with this number is about, if it is about a child.
    pub(super) fn source(token: u64) -> Option<Source> {
        let who = match token >> 2 {
            0 => Who::Master,
            incarnation => Who::Worker(incarnation),
        };
        match token & 3 {
            0 => Some(Source::Process(who)),
            1 => Some(Source::Channel(who)),
            _ => None,
        }
    }

    pub(super) fn pid(&self, who: Who) -> Option<u32> {
        self.by_key.get(&key(who)).map(|child| child.spawned.id())
    }

    pub(super) fn shared(&self, who: Who) -> Option<&Shared> {
        self.by_key.get(&key(who))?.shared.as_ref()
    }

    /// The next message of a child. `None`: there is none now.
    pub(super) fn recv<T: DeserializeOwned>(&self, who: Who) -> Option<T> {
        Some(self.recv_with_files(who)?.0)
    }

    /// The same, with the descriptors that came with it.
    pub(super) fn recv_with_files<T: DeserializeOwned>(
        &self,
        who: Who,
    ) -> Option<(T, Vec<OwnedFd>)> {
        let child = self.by_key.get(&key(who))?;
        loop {
            match child.spawned.channel.recv() {
                Ok(message) => return message,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!("a message of {who:?} is not understood: {error}");
                }
                Err(error) => {
                    tracing::warn!("the channel of {who:?} failed: {error}");
                    return None;
                }
            }
        }
    }

    /// Whether the master would get something at once.
    pub(super) fn master_has_room(&self) -> bool {
        let master = self.by_key.get(&key(Who::Master));
        master.is_some_and(|master| master.outbox.is_empty())
    }

    /// Says something to the master, if there is one; `enclosed` travels with it.
    pub(super) fn tell_master(&mut self, message: ToMaster, enclosed: Enclosed) {
        self.tell(Who::Master, Outgoing::Master(message), enclosed);
    }

    /// Says something to a worker, if it lives.
    pub(super) fn tell_worker(&mut self, incarnation: u64, message: ToWorker) {
        let who = Who::Worker(incarnation);
        self.tell(who, Outgoing::Worker(message), Enclosed::Nothing);
    }

    /// Tells every child what is to be logged from now on.
    pub(super) fn log_level(&mut self, level: &str) {
        let keys: Vec<u64> = self.by_key.keys().copied().collect();
        for key in keys {
            let level = level.to_owned();
            match key {
                0 => self.tell_master(ToMaster::LogLevel { level }, Enclosed::Nothing),
                _ => self.tell_worker(key, ToWorker::LogLevel { level }),
            }
        }
    }

    /// Sends what waits for room.
    pub(super) fn flush(&mut self, who: Who) {
        let Some(child) = self.by_key.get_mut(&key(who)) else {
            return;
        };
        while let Some((message, enclosed)) = child.outbox.front() {
            if send(&child.spawned.channel, message, enclosed) {
                child.outbox.pop_front();
            } else {
                return;
            }
        }
    }

    pub(super) fn kill(&self, who: Who) {
        if let Some(child) = self.by_key.get(&key(who))
            && let Err(error) = child.spawned.kill()
        {
            tracing::debug!("cannot kill {who:?}: {error}");
        }
    }

    /// Reaps the child if it has ended. Its descriptors are closed.
    pub(super) fn reap(&mut self, who: Who) -> Option<(Child, End)> {
        let how = match self.by_key.get_mut(&key(who))?.spawned.try_wait() {
            Ok(how) => how?,
            Err(error) => {
                tracing::error!("cannot wait for {who:?}: {error}");
                return None;
            }
        };
        let child = self.by_key.remove(&key(who))?;
        let end = end(child.spawned.id(), how);
        Some((child, end))
    }

    fn tell(&mut self, who: Who, message: Outgoing, enclosed: Enclosed) {
        if let Some(child) = self.by_key.get_mut(&key(who)) {
            child.outbox.push_back((message, enclosed));
            self.flush(who);
        }
    }
}

impl Child {
    pub(super) fn into_shared(self) -> Option<Shared> {
        self.shared
    }
}

impl Shared {
    pub(super) fn counts(&self, dimensions: &Dimensions) -> Counts {
        let count = |counter: WorkerCounter| {
            self.region
                .word(dimensions.worker_counters() + counter as usize * 8)
                .load(Relaxed)
        };
        Counts {
            handled: count(WorkerCounter::Handled),
            in_flight: count(WorkerCounter::InFlight),
            errors: count(WorkerCounter::Errors),
            panics: count(WorkerCounter::Panics),
            hangs: count(WorkerCounter::Hangs),
            spans_lost: count(WorkerCounter::SpansLost),
        }
    }
}

/// `false`: there is no room. A channel whose other end is gone takes everything: the end of the
/// process is told by its pidfd.
fn send(channel: &Channel, message: &Outgoing, enclosed: &Enclosed) -> bool {
    let fds: Vec<BorrowedFd<'_>> = match enclosed {
        Enclosed::Nothing => Vec::new(),
        Enclosed::Shared(shared) => vec![shared.region.fd(), shared.bell.as_fd()],
        Enclosed::File(file) => vec![file.as_fd()],
    };
    match channel.send(message, &fds) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::error!("cannot send {message:?}: {error}");
            }
            true
        }
    }
}

fn key(who: Who) -> u64 {
    match who {
        Who::Master => 0,
        Who::Worker(incarnation) => incarnation,
    }
}

fn end(pid: u32, (clean, how): (bool, String)) -> End {
    End {
        pid: Some(pid),
        clean,
        how,
    }
}

/// Whether a process ended well, and how: `exit code 101`, `signal 9 (SIGKILL)`.
pub(crate) fn how_it_ended(status: ExitStatus) -> (bool, String) {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            let dumped = if status.core_dumped() {
                ", core dumped"
            } else {
                ""
            };
            match signal_name(signal) {
                Some(name) => format!("signal {signal} ({name}){dumped}"),
                None => format!("signal {signal}{dumped}"),
            }
        }
        (None, None) => status.to_string(),
    };
    (status.success(), how)
}

/// Of the signals that processes die of.
fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
    ];
    names
        .iter()
        .find(|(known, _)| known.as_raw() == signal)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        let ended = |status| how_it_ended(ExitStatus::from_raw(status));
        assert_eq!(ended(0), (true, "exit code 0".to_owned()));
        assert_eq!(ended(101 << 8), (false, "exit code 101".to_owned()));
        assert_eq!(ended(9), (false, "signal 9 (SIGKILL)".to_owned()));
        let dumped = ended(0x80 | 11);
        assert_eq!(
            dumped,
            (false, "signal 11 (SIGSEGV), core dumped".to_owned())
        );
    }

    #[test]
    fn a_process_that_cannot_be_watched_is_not_left_alone() {
        let mut command = std::process::Command::new("sleep");
        let process = command.arg("1000").spawn().unwrap();
        let path = format!("/proc/{}", process.id());
        let spawned = Spawned::new(process, Channel::pair().unwrap().0).unwrap();
        let no_epoll = std::fs::File::open("/dev/null").unwrap();
        let mut children = Children::default();
        let added = children.add(no_epoll.as_fd(), Who::Worker(1), spawned, None);
        assert!(added.is_err());
        assert!(
            !std::fs::exists(path).unwrap(),
            "it lives, or was not reaped"
        );
    }

    #[test]
    fn tokens_and_sources_agree() {
        assert_eq!(Children::source(0), Some(Source::Process(Who::Master)));
        assert_eq!(Children::source(1), Some(Source::Channel(Who::Master)));
        assert_eq!(
            Children::source(7 << 2 | 1),
            Some(Source::Channel(Who::Worker(7)))
        );
        assert_eq!(Children::source(7 << 2 | 2), None);
    }
}
