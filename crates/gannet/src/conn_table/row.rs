//! What a row of the connection table says, as words.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::{
    id::{ConnId, WorkerId},
    peer::{Credentials, Peer},
};

/// What is known of a connection and seldom changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: ConnId,
    pub(crate) listener: u16,
    pub(crate) worker: WorkerId,
    pub(crate) websocket: bool,
    /// There is a row about its TLS.
    pub(crate) tls: bool,
    /// Its PROXY header is not here: no worker has heard of it.
    pub(crate) unheard: bool,
    /// It is closed, and its last event is not done.
    pub(crate) closed: bool,
    pub(crate) peer: Peer,
    /// The other end of the socket, if that has named the peer.
    pub(crate) proxy: Option<Peer>,
    /// `None` on a Unix socket.
    pub(crate) local: Option<SocketAddr>,
    /// At most [`MAX_UID`](crate::wire::command::MAX_UID) bytes; empty: none is bound. What is
    /// longer is cut.
    pub(crate) uid: String,
    /// Unix time in ms.
    pub(crate) opened: u64,
}

/// Words of the row that every connection has; its cells stand behind them.
pub(super) const ROW: usize = 8;
/// Words of the row that only those have who are bound to a uid or came through a proxy.
pub(super) const ASIDE: usize = UID + UID_WORDS;

/// Flags of word 1: it is a WebSocket; it is on a Unix socket; it has a local address; no worker has
/// heard of it; it is closed; there is a row aside; there is a row about its TLS.
pub(super) const WEBSOCKET: u64 = 1 << 32;
const UNIX: u64 = 1 << 33;
const LOCAL: u64 = 1 << 34;
const UNHEARD: u64 = 1 << 35;
pub(super) const CLOSED: u64 = 1 << 36;
const HAS_ASIDE: u64 = 1 << 37;
const TLS: u64 = 1 << 38;

/// First word of the proxy in the row aside, and of the uid.
const PROXY: usize = 2;
const UID: usize = 4;
const UID_WORDS: usize = 8;
/// Flags of its word 1: there is a proxy; it is on a Unix socket.
const PROXIED: u64 = 1 << 32;
const UNIX_PROXY: u64 = 1 << 33;

const _: () = assert!(UID_WORDS * 8 >= crate::wire::command::MAX_UID);

impl Row {
    /// The words of the row; what does not stand in them is [aside](Row::encode_aside).
    pub(crate) fn encode(&self) -> [u64; ROW] {
        let (peer, port, is_unix) = peer_words(self.peer);
        let scope = match self.peer {
            Peer::Ip(SocketAddr::V6(v6)) => v6.scope_id(),
            _ => 0,
        };
        let mut flags = 0;
        for (flag, is_set) in [
            (WEBSOCKET, self.websocket),
            (UNIX, is_unix),
            (LOCAL, self.local.is_some()),
            (UNHEARD, self.unheard),
            (CLOSED, self.closed),
            (HAS_ASIDE, self.has_aside()),
            (TLS, self.tls),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        let local_ip = self.local.map_or([0; 2], |local| ip_words(local.ip()));
        let local_port = self.local.map_or(0, |local| local.port());
        [
            self.id.as_u64(),
            u64::from(self.listener) | u64::from(self.worker.0) << 16 | flags,
            peer[0],
            peer[1],
            u64::from(port) | u64::from(local_port) << 16 | u64::from(scope) << 32,
            local_ip[0],
            local_ip[1],
            self.opened,
        ]
    }

    /// From its words, and from those aside as `aside` reads them; `None` for a free row.
    pub(crate) fn decode(
        words: &[u64; ROW],
        aside: impl FnOnce() -> Option<[u64; ASIDE]>,
    ) -> Option<Self> {
        if words[0] == 0 {
            return None;
        }
        let flags = words[1];
        let local_port = (words[4] >> 16) as u16;
        let mut row = Row {
            id: ConnId::from_u64(words[0]),
            listener: flags as u16,
            worker: WorkerId((flags >> 16) as u16),
            websocket: flags & WEBSOCKET != 0,
            tls: flags & TLS != 0,
            unheard: flags & UNHEARD != 0,
            closed: flags & CLOSED != 0,
            peer: peer(|word| words[word]),
            proxy: None,
            local: (flags & LOCAL != 0)
                .then(|| SocketAddr::new(ip_from(words[5], words[6]), local_port)),
            uid: String::new(),
            opened: words[7],
        };
        if flags & HAS_ASIDE != 0
            && let Some(aside) = aside()
            // Else it is of the connection that has the slot next.
            && aside[0] == words[0]
        {
            row.decode_aside(&aside);
        }
        Some(row)
    }

    /// What few connections have.
    pub(super) fn has_aside(&self) -> bool {
        !self.uid.is_empty() || self.proxy.is_some()
    }

    pub(super) fn encode_aside(&self) -> [u64; ASIDE] {
        let mut words = [0; ASIDE];
        let uid = cut(&self.uid);
        words[0] = self.id.as_u64();
        words[1] = uid.len() as u64;
        if let Some(proxy) = self.proxy {
            let (ip, port, is_unix) = peer_words(proxy);
            words[PROXY..UID].copy_from_slice(&ip);
            words[1] |= u64::from(port) << 16 | PROXIED | if is_unix { UNIX_PROXY } else { 0 };
        }
        for (word, bytes) in words[UID..].iter_mut().zip(uid.chunks(8)) {
            let mut full = [0; 8];
            full[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(full);
        }
        words
    }

    fn decode_aside(&mut self, words: &[u64; ASIDE]) {
        let flags = words[1];
        self.proxy = (flags & PROXIED != 0).then(|| {
            let ip = [words[PROXY], words[PROXY + 1]];
            peer_from(ip, (flags >> 16) as u16, flags & UNIX_PROXY != 0)
        });
        let mut uid = [0; UID_WORDS * 8];
        for (bytes, word) in uid.as_chunks_mut::<8>().0.iter_mut().zip(&words[UID..]) {
            *bytes = word.to_le_bytes();
        }
        let uid = &uid[..usize::from(flags as u16).min(uid.len())];
        self.uid = String::from_utf8_lossy(uid).into_owned();
    }
}

/// The peer in a row with these words.
pub(super) fn peer(word: impl Fn(usize) -> u64) -> Peer {
    let (ip, last) = ([word(2), word(3)], word(4));
    let mut peer = peer_from(ip, last as u16, word(1) & UNIX != 0);
    if let Peer::Ip(SocketAddr::V6(v6)) = &mut peer {
        v6.set_scope_id((last >> 32) as u32);
    }
    peer
}

/// The longest beginning of a uid that fits and is whole characters.
fn cut(uid: &str) -> &[u8] {
    &uid.as_bytes()[..uid.floor_char_boundary(crate::wire::command::MAX_UID)]
}

/// Its words, its port, and whether it is on a Unix socket.
fn peer_words(peer: Peer) -> ([u64; 2], u16, bool) {
    match peer {
        Peer::Ip(addr) => (ip_words(addr.ip()), addr.port(), false),
        Peer::Unix(Credentials { pid, uid, gid }) => {
            let words = [u64::from(pid), u64::from(uid) | u64::from(gid) << 32];
            (words, 0, true)
        }
    }
}

fn peer_from(words: [u64; 2], port: u16, is_unix: bool) -> Peer {
    match is_unix {
        false => Peer::Ip(SocketAddr::new(ip_from(words[0], words[1]), port)),
        true => Peer::Unix(Credentials {
            pid: words[0] as u32,
            uid: words[1] as u32,
            gid: (words[1] >> 32) as u32,
        }),
    }
}

fn ip_words(ip: IpAddr) -> [u64; 2] {
    let v6 = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = v6.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

fn ip_from(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).to_canonical()
}
