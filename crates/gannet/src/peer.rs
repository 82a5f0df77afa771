//! Who is at the other end of a connection.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::{Conn, Request, conn_table::Row};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// On a network: its address. An IPv4 client of an IPv6 listener has its IPv4 address.
    Ip(SocketAddr),
    /// On a Unix socket: the process that connected.
    Unix(Credentials),
}

/// The process that connected to a Unix socket, as the kernel knew it at that moment.
///
/// The process may have ended since, and its number may be another's: decide by user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// Its process id; 0 if it is in another PID namespace.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// The proxy that a request came through, if it is one that is trusted and has named the client. See
/// [`ViaProxy::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViaProxy(pub Peer);

impl Peer {
    /// Whom a request is from: the client that a trusted proxy has named, with port 0 if it told none, or
    /// else the other end of the connection. `None`: that is gone, its worker has ended, or the request has another body
    /// than it came with, which alone knows the connection.
    ///
    /// ```
    /// # use gannet::{Body, Conn, Peer, Request, Response, Result};
    /// async fn request(_conn: Conn, request: Request) -> Result<Response> {
    ///     let peer = Peer::of(&request).map_or("nobody".to_owned(), |peer| peer.to_string());
    ///     Ok(Response::new(peer.into()))
    /// }
    /// ```
    pub fn of(request: &Request) -> Option<Self> {
        let named = request.extensions().get().copied();
        named.or_else(|| Some(row_of(&request.body().conn()?)?.peer))
    }

    /// Its address on a network.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Peer::Ip(addr) => Some(*addr),
            Peer::Unix(_) => None,
        }
    }

    /// Its IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.addr().map(|addr| addr.ip())
    }

    /// Its port.
    pub fn port(&self) -> Option<u16> {
        self.addr().map(|addr| addr.port())
    }

    /// The process, on a Unix socket.
    pub fn credentials(&self) -> Option<Credentials> {
        match self {
            Peer::Ip(_) => None,
            Peer::Unix(credentials) => Some(*credentials),
        }
    }

    /// From an address as the kernel tells it.
    pub(crate) fn on_network(addr: SocketAddr) -> Self {
        Peer::Ip(canonical(addr))
    }
}

impl ViaProxy {
    /// The proxy that this request came through, if a trusted one has named the client.
    pub fn of(request: &Request) -> Option<Self> {
        let named = request.extensions().get().copied();
        named.or_else(|| row_of(&request.body().conn()?)?.proxy.map(ViaProxy))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(addr) => addr.fmt(f),
            Peer::Unix(Credentials { pid, uid, .. }) => write!(f, "unix:pid={pid},uid={uid}"),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        Peer::on_network(addr)
    }
}

/// Both of a request that came on this connection: its row is read once.
pub(crate) fn parties(request: &Request, conn: Option<&Conn>) -> (Option<Peer>, Option<ViaProxy>) {
    let extensions = request.extensions();
    match (extensions.get().copied(), extensions.get().copied()) {
        (peer @ Some(_), proxy @ Some(_)) => (peer, proxy),
        (peer, proxy) => {
            let row = conn.and_then(row_of);
            let peer = peer.or(row.as_ref().map(|row| row.peer));
            (peer, proxy.or(row.and_then(|row| row.proxy).map(ViaProxy)))
        }
    }
}

/// What the table has of a connection.
fn row_of(conn: &Conn) -> Option<Row> {
    conn.worker().shared().table().get(conn.id())
}

/// An IPv4 address in its own form.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        // A link-local address keeps its scope.
        IpAddr::V6(_) => addr,
    }
}
