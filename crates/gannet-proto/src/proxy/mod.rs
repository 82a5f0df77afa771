//! What proxies say about the client they speak for: the PROXY protocol, versions 1 and 2, in
//! front of everything else on a connection, and the HTTP headers `X-Forwarded-For` and
//! `Forwarded` (RFC 7239).
//!
//! Anybody can say these things. Whoever uses this module decides first that the other end of the
//! connection is a proxy that may be believed.
//!
//! - [`decode`] takes a PROXY header from the front of a connection.
//! - [`client`] finds the client in the values of a forwarding header.

mod error;
mod forwarded;
mod v1;
mod v2;

use std::net::SocketAddr;

pub use self::{
    error::ProxyError,
    forwarded::{Client, Header, client},
    v1::MAX_LINE,
    v2::{MAX_LENGTH, SIGNATURE},
};

/// A PROXY header, and how many bytes of the input it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Whom the connection is for.
    pub origin: Origin,
    /// Bytes of the header: what follows them is the client's.
    pub used: usize,
}

/// Whom a proxied connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client on a network.
    Network {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// The proxy itself, for a health check.
    Local,
    /// Somebody whom the proxy does not name by an IP address: a client on a Unix socket, or one
    /// that it knows nothing of.
    Unnamed,
}

/// Takes a PROXY header, of either version, from the front of `input`: everything that has come on
/// the connection. `None`: more is needed; call again with all that is there then.
///
/// The cuts between reads mean nothing, and an error is final. No call keeps or copies anything,
/// and none asks for more than [`MAX_LENGTH`] bytes.
pub fn decode(input: &[u8]) -> Result<Option<Decoded>, ProxyError> {
    match input.first() {
        None => Ok(None),
        Some(b'P') => v1::decode(input),
        Some(_) => v2::decode(input),
    }
}
