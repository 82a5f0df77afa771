//! Messages between the manager and its children: JSON, one a packet, on a seqpacket socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    control::{Filter, Role as Kind},
    id::{ConnId, WorkerId},
};

/// One end of a seqpacket socket. Never blocks: poll it for reading with epoll or `AsyncFd`.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Channel { socket }
    }

    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel::new(one), Channel::new(other)))
    }

    /// The same end once more.
    pub(crate) fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel::new(self.socket.try_clone()?))
    }

    /// Sends one message with copies of `fds`, at most [`MAX_FDS`].
    ///
    /// `WouldBlock`: the other side has not read for a long time. `BrokenPipe`: it is gone.
    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_PACKET || fds.len() > MAX_FDS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a channel message of {} bytes, {} descriptors",
                    bytes.len(),
                    fds.len()
                ),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags)
        })?;
        Ok(())
    }

    /// The next message and its descriptors (close-on-exec). `Ok(None)`: the other side is gone.
    /// `WouldBlock`: no message now. `InvalidData`: not a `T`; the next call has the next message.
    pub(crate) fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                flags,
            )
        });
        let received = match received {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a channel message was cut",
            ));
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        Ok(Some((
            serde_json::from_slice(&bytes[..received.bytes])?,
            fds,
        )))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// From the manager to the master. Descriptors travel with the message (SCM_RIGHTS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(crate) enum ToMaster {
    /// A worker has said that it is ready: from now on it gets the events of place `worker`.
    /// Whoever held the place before is retired: it finishes what it has and gets no more.
    /// Descriptors: region, bell.
    Attach {
        worker: WorkerId,
        kind: Kind,
        incarnation: u64,
    },
    /// The process has ended and was reaped; nothing more comes from it. Its unfinished events go
    /// to the one that holds the place, at once or as soon as there is one. `blame`: the event that
    /// it was handling counts as a suspect.
    Dead {
        worker: WorkerId,
        incarnation: u64,
        blame: bool,
    },
    /// Close the listeners, finish what is in flight, close the connections, retire the workers,
    /// exit with 0. At `deadline_ms` from now what is left is cut.
    Stop { deadline_ms: u64 },
    /// Make new connections with these certificates. Descriptor: a memfd with
    /// [`crate::tls::Material`].
    Certificates,
    /// Do this with the connections that are meant, and say how many they were (administrator).
    /// Descriptor, with `send`: a memfd with the message.
    Ask { id: u64, to: Filter, what: Ask },
    /// Answer when every reactor has taken its orders up to here.
    Ping { number: u64 },
    /// What is to be logged from now on.
    LogLevel { level: String },
    /// What user process `from` has written to a redirected output: a pipe message for place `to`.
    Output {
        from: WorkerId,
        to: WorkerId,
        line: Vec<u8>,
    },
}

/// From the master to the manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub(crate) enum FromMaster {
    /// The reactors run; listeners are being accepted from.
    Ready,
    /// Cannot start or go on; the reason.
    Failed { error: String },
    /// Every reactor gives new events of the place to this worker.
    Attached { worker: WorkerId, incarnation: u64 },
    /// This worker has made no progress for `stall_timeout` and is to be killed.
    Stalled { worker: WorkerId, incarnation: u64 },
    /// Every reactor has taken the retired worker's last answer; it will now exit by itself.
    Retired { worker: WorkerId, incarnation: u64 },
    /// Every reactor has come to this `Ping`.
    Pong { number: u64 },
    /// An event has killed its worker too often; it is given up.
    GaveUp {
        worker: WorkerId,
        conn: Option<ConnId>,
        event: String,
    },
    /// What `Ask` has come to. Descriptor, with `members`: a memfd with the numbers of the
    /// connections, 8 bytes each, the lowest first.
    Answer { id: u64, count: u64 },
    /// After `Stop`: no connection is left and the workers were retired.
    Stopped,
}

/// What is done with connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Nothing: who are they?
    Members,
    Kick {
        code: u16,
        reason: String,
    },
    Send {
        text: bool,
    },
}

/// From a worker or task worker to the manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub(crate) enum FromWorker {
    /// `Handler::start` has returned; what the handler implements.
    Ready { implements: Implements },
    /// `Handler::start` failed or panicked, or the start-up checks did; the reason.
    Failed { error: String },
    /// `max_requests` is reached: a successor is wanted.
    Retire,
}

/// From the manager to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(crate) enum ToWorker {
    /// No reactor will tell you: call `stop` and exit.
    Exit,
    /// Your successor is ready. Finish what you have; `Retire` comes from the reactors.
    Replaced,
    /// To a user process: it is your turn, run the function.
    Begin,
    /// To a user process: tell the function that it is to end.
    Stop,
    /// What is to be logged from now on.
    LogLevel { level: String },
}

/// Which methods of the trait a handler has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Implements {
    pub(crate) connect: bool,
    pub(crate) receive: bool,
    #[serde(default)]
    pub(crate) packet: bool,
    pub(crate) request: bool,
    pub(crate) open: bool,
    pub(crate) message: bool,
    pub(crate) close: bool,
    pub(crate) task: bool,
    pub(crate) finish: bool,
    pub(crate) pipe_message: bool,
}

/// Most descriptors in one message.
pub(crate) const MAX_FDS: usize = 8;
/// Longest message in bytes; error texts are cut long before.
const MAX_PACKET: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_in_order_and_with_their_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let worker = WorkerId(3);
        let attach = ToMaster::Attach {
            worker,
            kind: Kind::Worker,
            incarnation: 7,
        };
        let kick = ToMaster::Ask {
            id: 1,
            to: Filter::conn(crate::ConnId::from_u64(9)),
            what: Ask::Members,
        };
        one.send(&attach, &[one.as_fd(), other.as_fd()]).unwrap();
        one.send(&kick, &[]).unwrap();

        let (message, fds) = other.recv::<ToMaster>().unwrap().unwrap();
        assert_eq!((message, fds.len()), (attach, 2));
        drop(fds);
        assert_eq!(other.recv::<ToMaster>().unwrap().unwrap().0, kick);
        let nothing = other.recv::<ToMaster>().unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_closed_end_is_an_end_not_an_error() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&FromWorker::Retire, &[]).unwrap();
        drop(one);
        assert!(other.recv::<FromWorker>().unwrap().is_some());
        assert!(other.recv::<FromWorker>().unwrap().is_none());
        assert_eq!(
            other.send(&ToWorker::Exit, &[]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&"something else", &[]).unwrap();
        one.send(&ToWorker::Exit, &[]).unwrap();
        let strange = other.recv::<ToWorker>().unwrap_err();
        assert_eq!(strange.kind(), io::ErrorKind::InvalidData);
        assert_eq!(other.recv::<ToWorker>().unwrap().unwrap().0, ToWorker::Exit);
    }
}
