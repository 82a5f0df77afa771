//! Sockets that the service manager has opened and passes on (systemd's socket activation).
//!
//! `LISTEN_PID` says for which process they are, `LISTEN_FDS` how many there are, from descriptor
//! 3, and `LISTEN_FDNAMES` how they are called. A listener takes the one with its `fd_name`, or
//! with its address. One that nobody takes is an error: somebody would wait there in vain.

use std::{
    ffi::OsString,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use rustix::{
    fs::OFlags,
    net::{SocketAddrUnix, SocketType, sockopt},
};

use crate::{
    Error, Listener, Protocol, Result, Settings, inherit,
    settings::{Endpoint, UnixName},
};

/// What says which sockets were passed to this process, and not to its children.
pub(super) const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What was passed and is not taken yet.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Whether anything was passed at all.
    any: bool,
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    number: i32,
    name: String,
    kind: SocketType,
    endpoint: Endpoint,
    fd: OwnedFd,
}

impl Passed {
    /// Takes what the environment says was passed to this process.
    pub(super) fn to_this_process() -> Result<Self> {
        let [pid, fds, names] = VARIABLES.map(std::env::var_os);
        Self::read(pid, fds, names)
    }

    /// The socket for this listener, if one was passed.
    pub(super) fn take(
        &mut self,
        listener: &Listener,
        endpoint: &Endpoint,
    ) -> Result<Option<OwnedFd>> {
        let by_name = !listener.fd_name.is_empty();
        let place = self.sockets.iter().position(|socket| match by_name {
            true => socket.name == listener.fd_name,
            false => socket.endpoint == *endpoint && socket.kind == kind_for(listener),
        });
        let Some(place) = place else {
            if by_name && self.any {
                return Err(Error::usage(format!(
                    "listener {}: no socket of the name {:?} (`fd_name`) was passed, but {}",
                    listener.address,
                    listener.fd_name,
                    self.list()
                )));
            }
            return Ok(None);
        };
        let socket = self.sockets.remove(place);
        socket.check(listener, endpoint)?;
        Ok(Some(socket.fd))
    }

    /// Refuses sockets that no listener has taken.
    pub(super) fn expect_none_left(&self, settings: &Settings) -> Result {
        if self.sockets.is_empty() {
            return Ok(());
        }
        let listeners: Vec<_> = settings
            .listeners
            .iter()
            .map(|listener| listener.address.as_str())
            .collect();
        Err(Error::usage(format!(
            "the service manager passes sockets (LISTEN_FDS) that no listener wants: {}; the \
             listeners are {}: give them the same addresses, or an `fd_name`",
            self.list(),
            listeners.join(", ")
        )))
    }

    fn read(
        pid: Option<OsString>,
        count: Option<OsString>,
        names: Option<OsString>,
    ) -> Result<Self> {
        let number = |text: OsString| text.to_str().and_then(|text| text.parse::<u32>().ok());
        // Meant for another process, that this one has the variables from.
        if pid.and_then(number) != Some(std::process::id()) {
            return Ok(Passed::default());
        }
        let Some(count) = count else {
            return Ok(Passed::default());
        };
        let wrong = |why: &str| Error::usage(format!("the variable LISTEN_FDS {why}"));
        let count = number(count.clone())
            .filter(|&count| count <= MOST)
            .ok_or_else(|| wrong(&format!("must be a number up to {MOST}, not {count:?}")))?;
        let names = names.unwrap_or_default();
        let names: Vec<_> = names.as_bytes().split(|&byte| byte == b':').collect();
        let mut sockets = Vec::new();
        for index in 0..count as usize {
            let number = FIRST + index as i32;
            let fd = inherit::take(number)
                .map_err(|error| wrong(&format!("promises descriptor {number}: {error}")))?;
            let name = names.get(index).copied().unwrap_or_default();
            sockets.push(Socket::new(number, name, fd)?);
        }
        Ok(Passed {
            any: count > 0,
            sockets,
        })
    }

    fn list(&self) -> String {
        let sockets: Vec<_> = self.sockets.iter().map(Socket::describe).collect();
        sockets.join(", ")
    }
}

impl Socket {
    fn new(number: i32, name: &[u8], fd: OwnedFd) -> Result<Self> {
        let wrong = |why: &str| {
            let name = String::from_utf8_lossy(name);
            Error::usage(format!(
                "the service manager passes descriptor {number} ({name:?}), which {why}"
            ))
        };
        let kind = sockopt::socket_type(&fd).map_err(|_| wrong("is no socket"))?;
        let address = rustix::net::getsockname(&fd)?;
        let endpoint = match SocketAddr::try_from(address.clone()) {
            Ok(address) => Endpoint::Ip(address),
            Err(_) => match SocketAddrUnix::try_from(address) {
                Ok(address) => Endpoint::Unix(unix_name(&address).ok_or_else(|| {
                    wrong("is a Unix socket without a name, or one that is no text")
                })?),
                Err(_) => return Err(wrong("is neither on a network nor a Unix socket")),
            },
        };
        // Who passed it may have left it blocking: one client that goes away again would stop all.
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Socket {
            number,
            name: String::from_utf8_lossy(name).into_owned(),
            kind,
            endpoint,
            fd,
        })
    }

    /// Whether it can be what the listener says.
    fn check(&self, listener: &Listener, wanted: &Endpoint) -> Result {
        let wrong = |why: String| Err(Error::usage(format!("{}: {why}", self.describe())));
        let kind = kind_for(listener);
        if self.kind != kind {
            return wrong(match kind {
                SocketType::DGRAM => "the listener wants datagrams (ListenDatagram=)".to_owned(),
                _ => "the listener wants a stream socket (ListenStream=)".to_owned(),
            });
        }
        if kind == SocketType::STREAM && !sockopt::socket_acceptconn(&self.fd)? {
            return wrong("it does not listen: pass the listening socket (Accept=no)".to_owned());
        }
        let same_kind = matches!(
            (&self.endpoint, wanted),
            (Endpoint::Ip(_), Endpoint::Ip(_)) | (Endpoint::Unix(_), Endpoint::Unix(_))
        );
        if !same_kind {
            return wrong(format!(
                "the listener of that name is for {wanted}: give both the same kind of address"
            ));
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let kind = match self.kind {
            SocketType::STREAM => "stream",
            SocketType::DGRAM => "datagram",
            _ => "other",
        };
        let (number, name, endpoint) = (self.number, &self.name, &self.endpoint);
        format!("descriptor {number} ({kind} {endpoint}, name {name:?})")
    }
}

fn kind_for(listener: &Listener) -> SocketType {
    match listener.protocol {
        Protocol::Udp => SocketType::DGRAM,
        _ => SocketType::STREAM,
    }
}

fn unix_name(address: &SocketAddrUnix) -> Option<UnixName> {
    if let Some(name) = address.abstract_name() {
        return Some(UnixName::Abstract(String::from_utf8(name.to_vec()).ok()?));
    }
    let path = address.path()?;
    Some(UnixName::Path(PathBuf::from(path.to_str().ok()?)))
}

/// The first descriptor that is passed.
const FIRST: i32 = 3;
/// More than anybody passes.
const MOST: u32 = 1024;
