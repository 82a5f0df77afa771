//! Datagrams, as handlers see them.

use std::{
    ffi::OsStr,
    fmt,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    ConnId, Credentials, Error, Peer, Protocol, Result, Worker,
    wire::{
        command::{CommandHeader, CommandKind},
        route::Route,
    },
    worker::Command,
};

/// Who sent a datagram, and how to answer.
///
/// Cheap to clone, and may be kept: an answer can be sent at any time, from any thread.
#[derive(Clone)]
pub struct PacketSource {
    worker: Worker,
    reactor: usize,
    listener: u16,
    route: Route,
    redelivered: bool,
}

/// Where a datagram can be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PacketAddress {
    /// On a network.
    Ip(SocketAddr),
    /// A Unix datagram socket; a path that begins with `@` is a name in the abstract namespace.
    Unix(PathBuf),
}

impl PacketSource {
    pub(crate) fn new(
        worker: Worker,
        reactor: usize,
        listener: u16,
        route: Route,
        redelivered: bool,
    ) -> Self {
        PacketSource {
            worker,
            reactor,
            listener,
            route,
            redelivered,
        }
    }

    /// Who sent it. On a Unix socket the process, as the kernel knows it.
    pub fn peer(&self) -> Peer {
        match &self.route.peer {
            Some(PacketAddress::Ip(addr)) => Peer::Ip(*addr),
            _ => Peer::Unix(self.route.credentials.unwrap_or(NOBODY)),
        }
    }

    /// Where an answer goes, to be kept for [`Worker::send_to`]; `None` for a Unix socket without
    /// a name, which cannot be answered.
    pub fn address(&self) -> Option<&PacketAddress> {
        self.route.peer.as_ref()
    }

    /// The address that the datagram came to, where it came over a network to a listener on all
    /// addresses. An answer leaves from it.
    pub fn local(&self) -> Option<IpAddr> {
        self.route.local.map(|(ip, _)| ip)
    }

    /// Which of `settings.listeners` it came to.
    pub fn listener(&self) -> usize {
        self.listener.into()
    }

    /// Whether the datagram was given to a worker before, which died with it.
    pub fn is_redelivered(&self) -> bool {
        self.redelivered
    }

    /// The worker that this is running in.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Sends a datagram back, from the address that was asked. As [`Worker::send_to`].
    pub async fn reply(&self, data: impl Into<Bytes>) -> Result {
        if self.route.peer.is_none() {
            return Err(Error::new(
                "the sender's socket has no name, so it cannot be answered: clients of `unixgram:` \
                 must bind theirs",
            ));
        }
        let listener = usize::from(self.listener);
        self.worker
            .send_packet(self.reactor, listener, &self.route, data.into())
            .await
    }
}

impl fmt::Debug for PacketSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketSource({})", self.peer())
    }
}

impl Worker {
    /// Sends a datagram of at most 65,507 bytes from the socket of a UDP listener.
    ///
    /// Waits only while the ring to the reactor is full. `Ok` means that it is on its way to the
    /// master. If the kernel does not take it (no route, a full socket, a Unix socket that nobody
    /// has), it is dropped and counted (`packets_unsent`), as on any network.
    pub async fn send_to(
        &self,
        listener: usize,
        to: impl Into<PacketAddress>,
        data: impl Into<Bytes>,
    ) -> Result {
        let route = Route {
            peer: Some(to.into()),
            local: None,
            credentials: None,
        };
        let reactor = listener % self.settings().reactors;
        self.send_packet(reactor, listener, &route, data.into())
            .await
    }

    async fn send_packet(
        &self,
        reactor: usize,
        listener: usize,
        route: &Route,
        data: Bytes,
    ) -> Result {
        let settings = self.settings().listeners.get(listener);
        let Some(settings) = settings.filter(|settings| settings.protocol == Protocol::Udp) else {
            return Err(Error::new(format!(
                "listener {listener} is no UDP listener: datagrams leave from the socket of one"
            )));
        };
        let is_unix = settings.address.starts_with("unixgram:");
        match &route.peer {
            Some(PacketAddress::Ip(to)) if is_unix => {
                return Err(Error::new(format!(
                    "listener {listener} is on a Unix socket: it cannot send to {to}"
                )));
            }
            Some(PacketAddress::Unix(to)) if !is_unix => {
                return Err(Error::new(format!(
                    "listener {listener} is on a network: it cannot send to {}",
                    to.display()
                )));
            }
            _ => {}
        }
        if data.len() > MAX_DATAGRAM {
            let len = data.len();
            return Err(Error::new(format!(
                "a datagram has at most {MAX_DATAGRAM} bytes, this one has {len}"
            )));
        }
        let header = CommandHeader {
            code: listener as u16,
            ..CommandHeader::new(CommandKind::Datagram, ConnId::from_u64(0))
        };
        let mut command = Command::new(header, data);
        command.head = route.encode().into();
        Ok(self.shared().push(reactor, command).await?)
    }
}

impl fmt::Display for PacketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PacketAddress::Ip(addr) => addr.fmt(f),
            PacketAddress::Unix(path) => write!(f, "unixgram:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for PacketAddress {
    fn from(addr: SocketAddr) -> Self {
        PacketAddress::Ip(addr)
    }
}

impl From<PathBuf> for PacketAddress {
    fn from(path: PathBuf) -> Self {
        PacketAddress::Unix(path)
    }
}

impl From<&PacketAddress> for PacketAddress {
    fn from(address: &PacketAddress) -> Self {
        address.clone()
    }
}

/// A Unix socket's name as the kernel writes it; `None`: it has none.
pub(crate) fn unix_path(bytes: &[u8]) -> Option<PacketAddress> {
    let path = match bytes.split_first()? {
        (0, []) => return None,
        (0, name) => {
            let mut path = b"@".to_vec();
            path.extend_from_slice(name);
            path
        }
        _ => {
            let end = bytes.iter().position(|&byte| byte == 0);
            bytes[..end.unwrap_or(bytes.len())].to_vec()
        }
    };
    Some(PacketAddress::Unix(PathBuf::from(OsStr::from_bytes(&path))))
}

/// The other direction.
pub(crate) fn unix_bytes(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if let Some(b'@') = bytes.first() {
        bytes[0] = 0;
    }
    bytes
}

/// Largest datagram: what IPv4 has room for.
pub(crate) const MAX_DATAGRAM: usize = 65_507;
/// Where the kernel did not tell.
const NOBODY: Credentials = Credentials {
    pid: 0,
    uid: u32::MAX,
    gid: u32::MAX,
};
