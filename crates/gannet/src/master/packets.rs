//! Datagrams: from UDP and Unix datagram sockets to workers, and back.
//!
//! Each listener is read by one reactor (its number modulo theirs), so that what a sender sends
//! stays in order as far as the network keeps it; every reactor can send. A datagram has no
//! connection, and nobody can be slowed down: what finds no room is dropped and counted.
//!
//! A datagram that was given to a worker is in the ledger, as every other event: it is handled
//! again if the worker dies, unless the listener says otherwise. It costs nothing more, as the
//! bytes are in the ring anyway; and who speaks UDP has to cope with the same datagram twice, but
//! waits for a time-out when it is lost.

use std::{io, net::SocketAddr, ops::Range, os::fd::OwnedFd};

use rustix::{
    event::epoll,
    net::{AddressFamily, SocketAddrAny},
};

use super::reactor::{PACKETS, Reactor, register};
use crate::{
    ConnId,
    layout::ReactorCounter,
    packet::PacketAddress,
    peer::Peer,
    settings::{Dispatch, Protocol, Settings},
    sys::packets::{self, BATCH, Family, Inbox, Letter, Received},
    wire::{
        HEADER,
        event::{EventHeader, EventKind},
        route::Route,
    },
};

/// The datagram sockets of a reactor.
pub(super) struct Packets {
    /// By listener; `None`: it has connections.
    sockets: Vec<Option<Socket>>,
    /// `None`: no listener is read here.
    inbox: Option<Inbox>,
    /// What leaves at the end of the turn.
    outbox: Vec<Outgoing>,
    bytes: Vec<u8>,
    /// The route of the datagram that is being handed over.
    route: Vec<u8>,
}

struct Socket {
    fd: OwnedFd,
    family: Family,
    /// It is on all addresses: answers are told where to leave from.
    wildcard: bool,
    /// This reactor reads it.
    reads: bool,
}

struct Outgoing {
    listener: usize,
    to: PacketAddress,
    local: Option<(std::net::IpAddr, u32)>,
    data: Range<usize>,
}

impl Packets {
    pub(super) fn new(
        descriptors: &[OwnedFd],
        settings: &Settings,
        reactor: usize,
    ) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (index, (fd, listener)) in descriptors.iter().zip(&settings.listeners).enumerate() {
            sockets.push(match listener.protocol {
                Protocol::Udp => {
                    let reads = index % settings.reactors == reactor;
                    Some(Socket::new(fd.try_clone()?, reads)?)
                }
                _ => None,
            });
        }
        let reads = sockets.iter().flatten().any(|socket| socket.reads);
        Ok(Packets {
            sockets,
            inbox: reads.then(Inbox::new),
            outbox: Vec::new(),
            bytes: Vec::new(),
            route: Vec::new(),
        })
    }
}

impl Socket {
    fn new(fd: OwnedFd, reads: bool) -> io::Result<Self> {
        let local: SocketAddrAny = rustix::net::getsockname(&fd)?;
        let family = match local.address_family() {
            AddressFamily::INET => Family::V4,
            AddressFamily::INET6 => Family::V6,
            _ => Family::Unix,
        };
        let wildcard =
            SocketAddr::try_from(local).is_ok_and(|address| address.ip().is_unspecified());
        if wildcard || family == Family::Unix {
            packets::prepare(&fd, family)?;
        }
        Ok(Socket {
            fd,
            family,
            wildcard,
            reads,
        })
    }
}

impl Reactor {
    /// Begins to read the listeners of this reactor.
    pub(super) fn watch_packets(&self) -> io::Result<()> {
        for (index, socket) in self.packets.sockets.iter().enumerate() {
            if let Some(socket) = socket.as_ref().filter(|socket| socket.reads) {
                let key = PACKETS | index as u64;
                register(&self.epoll, &socket.fd, key, epoll::EventFlags::IN)?;
            }
        }
        Ok(())
    }

    /// Reads no more, after what is there; answers can still be sent.
    pub(super) fn stop_packets(&mut self) {
        for index in 0..self.packets.sockets.len() {
            let Some(Some(socket)) = self.packets.sockets.get(index) else {
                continue;
            };
            if socket.reads {
                // Not there: nothing to remove.
                let _ = epoll::delete(&self.epoll, &socket.fd);
                self.read_packets(index, LAST_BATCHES);
            }
        }
    }

    /// Takes what a socket has, up to a bound.
    pub(super) fn packets_ready(&mut self, listener: usize) {
        self.read_packets(listener, BATCHES);
    }

    fn read_packets(&mut self, listener: usize, batches: usize) {
        let Some(mut inbox) = self.packets.inbox.take() else {
            return;
        };
        for _ in 0..batches {
            let Some(Some(socket)) = self.packets.sockets.get(listener) else {
                break;
            };
            let tells_local = socket.wildcard;
            let count = match inbox.receive(&socket.fd, socket.family) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(listener, %error, "cannot read datagrams");
                    break;
                }
            };
            for index in 0..count {
                if let Some((received, data)) = inbox.get(index) {
                    self.take_packet(listener, received, tells_local, data);
                }
            }
            if count < BATCH {
                break;
            }
        }
        self.packets.inbox = Some(inbox);
    }

    /// Queues a datagram that a worker sends: a route, and the data behind it.
    pub(super) fn send_packet(&mut self, listener: usize, payload: &[u8]) {
        let is_ours = matches!(self.packets.sockets.get(listener), Some(Some(_)));
        let Some((
            Route {
                peer: Some(to),
                local,
                ..
            },
            len,
        )) = Route::decode(payload).filter(|_| is_ours)
        else {
            return self.count(ReactorCounter::PacketsUnsent);
        };
        let start = self.packets.bytes.len();
        self.packets.bytes.extend_from_slice(&payload[len..]);
        self.packets.outbox.push(Outgoing {
            listener,
            to,
            local,
            data: start..self.packets.bytes.len(),
        });
        if self.packets.bytes.len() > QUEUED {
            self.flush_packets();
        }
    }

    /// Sends what was queued in this turn.
    pub(super) fn flush_packets(&mut self) {
        if self.packets.outbox.is_empty() {
            return;
        }
        let outbox = std::mem::take(&mut self.packets.outbox);
        let bytes = std::mem::take(&mut self.packets.bytes);
        for letters in outbox.chunk_by(|one, other| one.listener == other.listener) {
            self.send_packets(letters, &bytes);
        }
        self.packets.outbox = outbox;
        self.packets.bytes = bytes;
        self.packets.outbox.clear();
        self.packets.bytes.clear();
        self.packets.bytes.shrink_to(QUEUED);
    }

    /// Sends datagrams of one listener.
    fn send_packets(&mut self, mut letters: &[Outgoing], bytes: &[u8]) {
        while let Some(first) = letters.first() {
            let Some(Some(socket)) = self.packets.sockets.get(first.listener) else {
                return;
            };
            let batch: Vec<_> = letters
                .iter()
                .take(BATCH)
                .map(|letter| Letter {
                    to: &letter.to,
                    local: letter.local,
                    data: &bytes[letter.data.clone()],
                })
                .collect();
            let (sent, unsent) = match packets::send(&socket.fd, socket.family, &batch) {
                Ok(sent) => (sent.max(1).min(batch.len()), usize::from(sent == 0)),
                // The socket is full, and nobody can be asked to wait. A Unix socket says so of
                // the one that does not read.
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && socket.family != Family::Unix =>
                {
                    self.add(ReactorCounter::PacketsUnsent, letters.len());
                    return;
                }
                // It is the first that cannot be sent; the others may.
                Err(error) => {
                    tracing::debug!(to = %first.to, %error, "a datagram was not sent");
                    (1, 1)
                }
            };
            let left: usize = letters[..sent].iter().map(|letter| letter.data.len()).sum();
            if unsent == 0 {
                self.add(ReactorCounter::PacketsOut, sent);
                self.add(ReactorCounter::BytesOut, left);
            }
            self.add(ReactorCounter::PacketsUnsent, unsent);
            letters = &letters[sent..];
        }
    }

    fn take_packet(
        &mut self,
        listener: usize,
        received: &Received,
        tells_local: bool,
        data: &[u8],
    ) {
        self.count(ReactorCounter::PacketsIn);
        self.add(ReactorCounter::BytesIn, data.len());
        let settings = &self.settings.listeners[listener];
        if received.truncated || data.len() > settings.max_message_size {
            return self.count(ReactorCounter::PacketsTooLarge);
        }
        let route = Route {
            peer: received.from.clone(),
            local: received.local.filter(|_| tells_local),
            credentials: received.credentials,
        };
        let place = self.place_of_packet(listener, &route, data);
        let header = EventHeader {
            origin: listener as u16,
            ..EventHeader::new(EventKind::Packet, ConnId::from_u64(0))
        };
        let mut bytes = std::mem::take(&mut self.packets.route);
        route.encode_into(&mut bytes);
        let given = self.offer_packet(place, header, &bytes, data);
        self.packets.route = bytes;
        self.count(match given {
            true => ReactorCounter::Events,
            false => ReactorCounter::PacketsDropped,
        });
    }

    /// `false`: there is no room.
    fn offer_packet(
        &mut self,
        place: usize,
        header: EventHeader,
        route: &[u8],
        data: &[u8],
    ) -> bool {
        let max_packets = self.settings.max_packets;
        let target = &mut self.places[place];
        let link = target.current.and_then(|index| self.links[index].as_mut());
        match link {
            Some(link) if target.backlog.is_empty() => {
                // Connections that wait for room come first: they are owed an answer.
                !target.has_waiting()
                    && link.packets() < max_packets
                    && link.push(header, &[route, data]).is_ok()
            }
            // Its worker has died: the successor will have it.
            _ => {
                let len = HEADER + route.len() + data.len();
                let has_room = target.posted + len <= self.settings.max_parked;
                if has_room {
                    target.posted += len;
                    target.backlog.push_back((header, [route, data].concat()));
                }
                has_room
            }
        }
    }

    fn place_of_packet(&mut self, listener: usize, route: &Route, data: &[u8]) -> usize {
        let peer = match (&route.peer, route.credentials) {
            (Some(PacketAddress::Ip(addr)), _) => Peer::Ip(*addr),
            (_, Some(credentials)) => Peer::Unix(credentials),
            _ => return 0,
        };
        match self.settings.dispatch {
            Dispatch::Connection | Dispatch::PeerAddress | Dispatch::Uid => {
                super::routes::by_address(peer, self.settings.workers)
            }
            Dispatch::RoundRobin => {
                self.next_place = (self.next_place + 1) % self.settings.workers;
                self.next_place
            }
            Dispatch::LeastBusy => self.idlest(),
            Dispatch::Custom => {
                let nobody = ConnId::from_u64(0);
                self.custom(nobody, listener, peer, None, data)
            }
        }
    }
}

/// Batches taken from a socket in one turn.
const BATCHES: usize = 8;
/// The same when the server stops: more than a socket's buffer holds as it comes.
const LAST_BATCHES: usize = 256;
/// Bytes queued before they are sent without waiting for the end of the turn.
const QUEUED: usize = 1 << 20;
