//! Thread mode: which reactor, and so which thread, has a new connection.
//!
//! The kernel wakes whichever thread it likes for a new connection, mostly the same one. So who
//! accepts a connection gives it to the reactor that is to have it, as an order: to the one with
//! the fewest connections, or by the client's address where `dispatch` says so.
//!
//! # Invariants
//!
//! - `here` of a reactor is stored by that reactor alone; `coming` is counted up by whoever hands a
//!   connection over and down by the reactor when it has it. Their sum is what the choice goes by.
//! - A connection on its way counts as open (`max_connections`), and as something that is left to do:
//!   a server that stops waits for it, and serves it as one that was accepted before.
//! - Who stops hands nothing over any more: it keeps what it still takes from the backlog.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
        mpsc,
    },
};

use rustix::net::SocketAddrAny;

use super::{
    reactor::{Order, Reactor},
    ring,
    routes::by_address,
};
use crate::{
    peer::Peer,
    settings::{Dispatch, Forwarded, ProxyProtocol},
};

/// The reactors as each of them sees the others.
#[derive(Clone)]
pub(crate) struct Spread {
    seats: Arc<Vec<Seat>>,
}

/// A reactor, from outside.
pub(super) struct Seat {
    here: AtomicUsize,
    coming: AtomicUsize,
    orders: mpsc::Sender<Order>,
    bell: OwnedFd,
}

impl Seat {
    pub(super) fn new(orders: mpsc::Sender<Order>, bell: OwnedFd) -> Self {
        Seat {
            here: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            orders,
            bell,
        }
    }

    fn load(&self) -> usize {
        self.here.load(Relaxed) + self.coming.load(Relaxed)
    }
}

impl Spread {
    pub(super) fn new(seats: Vec<Seat>) -> Self {
        Spread {
            seats: Arc::new(seats),
        }
    }

    /// Notes how many connections a reactor has.
    pub(super) fn note(&self, reactor: usize, connections: usize) {
        if let Some(seat) = self.seats.get(reactor) {
            seat.here.store(connections, Relaxed);
        }
    }

    /// The reactor with the fewest connections: `own` if it has hardly more.
    fn emptiest(&self, own: usize) -> usize {
        let loads = self.seats.iter().map(Seat::load).enumerate();
        let Some((least, fewest)) = loads.min_by_key(|&(_, load)| load) else {
            return own;
        };
        let keeps = self
            .seats
            .get(own)
            .is_some_and(|seat| seat.load() <= fewest + fewest / SLACK);
        if keeps { own } else { least }
    }
}

impl Reactor {
    /// Keeps a connection that was accepted, or gives it to another reactor.
    pub(super) fn spread_connection(
        &mut self,
        listener: usize,
        socket: OwnedFd,
        peer: Option<SocketAddrAny>,
    ) {
        let to = self.seat_for(listener, peer.as_ref());
        let seat = self.spread.as_ref().and_then(|spread| {
            let others = to != self.id && !self.closing_time;
            spread.seats.get(to).filter(|_| others)
        });
        let Some(seat) = seat else {
            self.accepted(listener, socket, peer);
            self.note_connections();
            return;
        };
        seat.coming.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        self.working.fetch_add(1, AcqRel);
        let order = Order::Adopt {
            listener,
            socket,
            peer,
        };
        // It fails only when that reactor has failed, and the server is about to end.
        let _ = seat.orders.send(order);
        ring(&seat.bell);
        self.accepting.took_one();
    }

    /// Takes a connection that another reactor has accepted.
    pub(super) fn adopt_connection(
        &mut self,
        listener: usize,
        socket: OwnedFd,
        peer: Option<SocketAddrAny>,
    ) {
        self.connections.fetch_sub(1, Relaxed);
        let slot = self.accepted(listener, socket, peer);
        if let Some(slot) = slot
            && self.stopping.is_some()
        {
            self.wind_down(slot);
        }
        if let Some(seat) = self.seat() {
            seat.coming.fetch_sub(1, Relaxed);
        }
        self.note_connections();
        self.update_works();
        self.working.fetch_sub(1, AcqRel);
    }

    /// Tells the others how many connections are here.
    pub(super) fn note_connections(&self) {
        if let Some(spread) = &self.spread {
            spread.note(self.id, self.conns.len());
        }
    }

    fn seat(&self) -> Option<&Seat> {
        self.spread.as_ref()?.seats.get(self.id)
    }

    fn seat_for(&self, listener: usize, peer: Option<&SocketAddrAny>) -> usize {
        let Some(spread) = &self.spread else {
            return self.id;
        };
        let settings = &self.settings.listeners[listener];
        // Behind a proxy the address is not known yet.
        let is_direct =
            settings.proxy_protocol == ProxyProtocol::Off && settings.forwarded == Forwarded::Off;
        if self.settings.dispatch == Dispatch::PeerAddress
            && is_direct
            && let Some(peer) =
                peer.and_then(|peer| std::net::SocketAddr::try_from(peer.clone()).ok())
        {
            return by_address(Peer::on_network(peer), self.settings.workers);
        }
        spread.emptiest(self.id)
    }
}

/// A reactor keeps a connection if it has at most this part more of them than another: handing one
/// over costs a wake-up.
const SLACK: usize = 8;
