//! Whom a datagram came from and goes to: the front of the payload of `Packet` and `Datagram`.
//!
//! | bytes  | what                                                                  |
//! |--------|-----------------------------------------------------------------------|
//! | 0      | kind of the peer: 0 none, 4 or 6 IP, 1 Unix                           |
//! | 1      | length of the path (Unix)                                             |
//! | 2..4   | port                                                                  |
//! | 4..8   | scope of the peer's address                                           |
//! | 8..24  | IP of the peer, as IPv6 (IPv4 mapped)                                 |
//! | 24..40 | own IP that it came to; all zeroes: not known                         |
//! | 40..44 | interface of that                                                     |
//! | 44..56 | pid, uid, gid of the sender (Unix)                                    |
//! | 56..   | the path                                                              |

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{u16_at, u32_at};
use crate::{
    packet::{PacketAddress, unix_bytes, unix_path},
    peer::{Credentials, canonical},
};

/// The way of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The other end; `None`: a Unix socket without a name.
    pub(crate) peer: Option<PacketAddress>,
    /// The address of this end, and the interface where that counts.
    pub(crate) local: Option<(IpAddr, u32)>,
    /// Who sent it, on a Unix socket.
    pub(crate) credentials: Option<Credentials>,
}

impl Route {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED);
        self.encode_into(&mut bytes);
        bytes
    }

    /// The same in place of what `bytes` holds.
    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.resize(FIXED, 0);
        match &self.peer {
            None => {}
            Some(PacketAddress::Ip(addr)) => {
                bytes[0] = if addr.is_ipv4() { 4 } else { 6 };
                bytes[2..4].copy_from_slice(&addr.port().to_le_bytes());
                if let SocketAddr::V6(addr) = addr {
                    bytes[4..8].copy_from_slice(&addr.scope_id().to_le_bytes());
                }
                bytes[8..24].copy_from_slice(&v6(addr.ip()).octets());
            }
            Some(PacketAddress::Unix(path)) => {
                // Longer ones are no address; the kernel will say so.
                let path = unix_bytes(path);
                let path = &path[..path.len().min(usize::from(u8::MAX))];
                bytes[0] = 1;
                bytes[1] = path.len() as u8;
                bytes.extend_from_slice(path);
            }
        }
        if let Some((ip, interface)) = self.local {
            bytes[24..40].copy_from_slice(&v6(ip).octets());
            bytes[40..44].copy_from_slice(&interface.to_le_bytes());
        }
        if let Some(Credentials { pid, uid, gid }) = self.credentials {
            for (at, number) in [(44, pid), (48, uid), (52, gid)] {
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// The route, and how many bytes it takes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let fixed = bytes.get(..FIXED)?;
        let ip_at = |at: usize| {
            let octets: [u8; 16] = fixed[at..at + 16].try_into().ok()?;
            Some(Ipv6Addr::from(octets))
        };
        let mut len = FIXED;
        let is_unix = matches!(fixed[0], 0 | 1);
        let peer = match fixed[0] {
            0 => None,
            4 | 6 => {
                let (port, scope) = (u16_at(fixed, 2), u32_at(fixed, 4));
                let addr = SocketAddrV6::new(ip_at(8)?, port, 0, scope);
                Some(PacketAddress::Ip(canonical(addr.into())))
            }
            1 => {
                let path = bytes.get(FIXED..FIXED + usize::from(fixed[1]))?;
                len += path.len();
                Some(unix_path(path)?)
            }
            _ => return None,
        };
        let local = ip_at(24).filter(|ip| !ip.is_unspecified());
        let route = Route {
            peer,
            local: local.map(|ip| (ip.to_canonical(), u32_at(fixed, 40))),
            credentials: is_unix.then(|| Credentials {
                pid: u32_at(fixed, 44),
                uid: u32_at(fixed, 48),
                gid: u32_at(fixed, 52),
            }),
        };
        Some((route, len))
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

const FIXED: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_come_back() {
        let credentials = Some(Credentials {
            pid: 1,
            uid: 2,
            gid: 3,
        });
        let ip = |text: &str| Some(PacketAddress::Ip(text.parse().unwrap()));
        for (peer, local, credentials) in [
            (ip("192.0.2.7:9"), Some("192.0.2.1"), None),
            (ip("[2001:db8::7]:9"), Some("2001:db8::1"), None),
            (ip("[fe80::1%7]:9"), None, None),
            (
                Some(PacketAddress::Unix("/run/a.sock".into())),
                None,
                credentials,
            ),
            (Some(PacketAddress::Unix("@a".into())), None, credentials),
            (None, None, credentials),
        ] {
            let route = Route {
                peer,
                local: local.map(|ip| (ip.parse().unwrap(), 3)),
                credentials,
            };
            let mut bytes = route.encode();
            let len = bytes.len();
            bytes.extend_from_slice(b"data");
            assert_eq!(Route::decode(&bytes), Some((route, len)));
            for short in 0..len {
                assert_eq!(Route::decode(&bytes[..short]), None);
            }
        }
    }
}
