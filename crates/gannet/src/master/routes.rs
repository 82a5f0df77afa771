//! Which worker gets an event of a connection, and the way there.
//!
//! A connection has a place. While it has events in flight they all go to one link, that of the worker that
//! had the place when the first of them was given; only without any may it change place, where the mode of
//! dispatch says so, or go on with the successor in its own.
//!
//! Nearly every event finds its connection where it was and nothing in the way: [`straight`] sees that with one
//! look. [`Reactor::route`] is the whole truth, for the others.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::LazyLock,
};

use super::{
    conn::{Conn, Stall},
    link::Link,
    places::Place,
    rare::Held,
    reactor::Reactor,
};
use crate::{
    id::ConnId,
    layout::ReactorCounter,
    peer::Peer,
    server::DispatchRequest,
    settings::{Dispatch, Forwarded, Mode, Settings},
    wire::{
        event::{EventHeader, EventKind},
        head::Head,
    },
};

impl Reactor {
    /// Gives an event of a connection to its worker. `false`: there is no room, or it is not its
    /// turn; the connection is stalled now.
    pub(super) fn offer(
        &mut self,
        slot: usize,
        kind: EventKind,
        flags: u8,
        aux: u64,
        payload: &[&[u8]],
    ) -> bool {
        let is_plain = !matches!(kind, EventKind::RequestBody | EventKind::Close);
        if is_plain
            && let Some(conn) = self.conns.get_mut(slot)
            && let Some(link) = straight(conn, &self.places, &mut self.links, &self.settings)
        {
            let given = give(conn, link, kind, flags, aux, payload);
            return self.note_given(slot, given);
        }
        self.offer_where_it_may_go(slot, kind, flags, aux, payload)
    }

    /// As [`Reactor::offer`], where a look at the connection and its place is not enough.
    #[inline(never)]
    fn offer_where_it_may_go(
        &mut self,
        slot: usize,
        kind: EventKind,
        flags: u8,
        aux: u64,
        payload: &[&[u8]],
    ) -> bool {
        let index = match self.route(slot, kind, payload) {
            Ok(index) => index,
            Err(stall) => {
                self.stall(slot, stall);
                return false;
            }
        };
        let Some(conn) = self.conns.get_mut(slot) else {
            return true;
        };
        let Some(link) = self.links[index].as_mut() else {
            return false;
        };
        let given = give(conn, link, kind, flags, aux, payload);
        self.note_given(slot, given)
    }

    /// An event was handed over, or there was no room.
    #[inline]
    fn note_given(&mut self, slot: usize, given: bool) -> bool {
        match given {
            true => self.count(ReactorCounter::Events),
            false => self.stall(slot, Stall::Place),
        }
        given
    }

    /// What a connection without a protocol has sent, as one event, if it can be handed over at once. `false`:
    /// nothing was done.
    #[inline]
    pub(super) fn offer_received(&mut self, slot: usize, len: usize) -> bool {
        let Some(conn) = self.conns.get_mut(slot) else {
            return false;
        };
        let link = straight(conn, &self.places, &mut self.links, &self.settings);
        let data = &self.buffer[..len];
        if link.is_none_or(|link| !give(conn, link, EventKind::Receive, 0, 0, &[data])) {
            return false;
        }
        conn.input.release();
        self.count(ReactorCounter::Events);
        self.message_in(slot);
        true
    }

    /// As [`Reactor::offer`], but keeps the event with the connection until it can be handed over.
    pub(super) fn offer_or_hold(
        &mut self,
        slot: usize,
        kind: EventKind,
        flags: u8,
        aux: u64,
        payload: &[&[u8]],
    ) -> bool {
        if self.offer(slot, kind, flags, aux, payload) {
            return true;
        }
        if let Some(conn) = self.conns.get_mut(slot) {
            debug_assert!(conn.rare().held.is_none());
            conn.rare_mut().held = Some(Held {
                kind,
                flags,
                aux,
                payload: payload.concat(),
            });
        }
        false
    }

    /// Whether the worker that has the request could take a piece of its body now; if not, the
    /// connection is stalled.
    pub(super) fn body_has_room(&mut self, slot: usize, bytes: usize) -> bool {
        let stall = match self.route(slot, EventKind::RequestBody, &[]) {
            Ok(link) => {
                if self.links[link]
                    .as_mut()
                    .is_some_and(|link| link.has_room(bytes))
                {
                    return true;
                }
                Stall::Place
            }
            Err(stall) => stall,
        };
        self.stall(slot, stall);
        false
    }

    /// The place of a new connection.
    pub(super) fn first_place(&self, id: ConnId, listener: usize, peer: Peer) -> usize {
        match self.settings.dispatch {
            Dispatch::PeerAddress => by_address(peer, self.settings.workers),
            Dispatch::Custom => self.custom(id, listener, peer, None, &[]),
            _ => self.emptiest(),
        }
    }

    /// The link that gets this event, or why there is none now.
    fn route(&mut self, slot: usize, kind: EventKind, payload: &[&[u8]]) -> Result<usize, Stall> {
        let Some(conn) = self.conns.get(slot) else {
            return Err(Stall::Own);
        };
        let belongs_to_request = kind == EventKind::RequestBody;
        if conn.in_flight > 0 && (belongs_to_request || kind == EventKind::Close) {
            if belongs_to_request && conn.in_flight > BODY_IN_FLIGHT {
                return Err(Stall::Own);
            }
            let place = usize::from(conn.place);
            if self.places[place].backlog.is_empty() {
                // A retiring worker finishes what it began.
                return self.link_of(conn.link).ok_or(Stall::Place);
            }
            return Err(Stall::Place);
        }
        if conn.in_flight as usize >= self.settings.max_in_flight && kind != EventKind::Close {
            return Err(Stall::Own);
        }
        if conn.in_flight == 0 {
            self.choose_place(slot, kind, payload);
        }
        let Some(conn) = self.conns.get(slot) else {
            return Err(Stall::Own);
        };
        let place = &self.places[usize::from(conn.place)];
        if !place.backlog.is_empty() {
            return Err(Stall::Place);
        }
        let index = place.current.ok_or(Stall::Place)?;
        let link = self.links[index].as_ref().ok_or(Stall::Place)?;
        if conn.in_flight > 0 && conn.link != link.incarnation {
            // The predecessor finishes first.
            return Err(Stall::Own);
        }
        Ok(index)
    }

    /// Chooses anew for a connection that has nothing in flight, where the mode says so.
    fn choose_place(&mut self, slot: usize, kind: EventKind, payload: &[&[u8]]) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        if conn.is_gone() {
            // No place counts it any more; what is left of it goes where it was last.
            return;
        }
        let before = usize::from(conn.place);
        let place = match self.settings.dispatch {
            // Each request of a proxy may be another client's.
            Dispatch::PeerAddress
                if self.settings.listeners[usize::from(conn.listener)].forwarded
                    != Forwarded::Off =>
            {
                by_address(self.client_of(conn), self.settings.workers)
            }
            Dispatch::Connection | Dispatch::PeerAddress => return,
            Dispatch::RoundRobin => (before + 1) % self.settings.workers,
            Dispatch::LeastBusy => self.idlest(),
            Dispatch::Uid => match &conn.ties().uid {
                Some(uid) => hashed(uid, self.settings.workers),
                None => return,
            },
            Dispatch::Custom => {
                let data = payload.first().copied().unwrap_or_default();
                let data = match kind {
                    EventKind::Request | EventKind::Open => target_of(data),
                    _ => data,
                };
                self.custom(
                    conn.id,
                    usize::from(conn.listener),
                    self.client_of(conn),
                    conn.ties().uid.as_deref(),
                    data,
                )
            }
        };
        if place != before {
            self.places[before].connections -= 1;
            self.places[place].connections += 1;
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.place = place as u16;
            }
        }
    }

    pub(super) fn custom(
        &self,
        conn: ConnId,
        listener: usize,
        peer: Peer,
        uid: Option<&str>,
        data: &[u8],
    ) -> usize {
        let workers = self.settings.workers;
        match &self.dispatch {
            Some(choose) => {
                let request = DispatchRequest {
                    conn,
                    listener,
                    peer,
                    uid,
                    data,
                    workers,
                };
                choose(&request) % workers
            }
            None => self.emptiest(),
        }
    }

    /// The worker with the fewest connections, of those that are there.
    fn emptiest(&self) -> usize {
        if self.settings.mode == Mode::Thread {
            // The one of this thread: connections were shared out before.
            return self.id;
        }
        (0..self.settings.workers)
            .min_by_key(|&place| {
                let Place {
                    current,
                    connections,
                    ..
                } = &self.places[place];
                (current.is_none(), *connections)
            })
            .unwrap_or(0)
    }

    /// The worker with the fewest events in flight.
    pub(super) fn idlest(&self) -> usize {
        let workers = self.settings.workers;
        // In thread mode, of several that are idle the one of this thread.
        let first = match self.settings.mode {
            Mode::Process => 0,
            Mode::Thread => self.id,
        };
        (0..workers)
            .map(|place| (place + first) % workers)
            .min_by_key(|&place| {
                let link = self.places[place]
                    .current
                    .and_then(|index| self.links[index].as_ref());
                link.map_or(usize::MAX, Link::owed)
            })
            .unwrap_or(0)
    }
}

/// What [`Reactor::route`] says of nearly every event, found sooner: its connection stays where it is, and
/// nothing is in the way. `None`: that has to be looked at.
#[inline]
pub(super) fn straight<'a>(
    conn: &Conn,
    places: &[Place],
    links: &'a mut [Option<Link>],
    settings: &Settings,
) -> Option<&'a mut Link> {
    let place = places.get(usize::from(conn.place))?;
    let link = links.get_mut(place.current?)?.as_mut()?;
    let may = match conn.in_flight {
        0 => settings.dispatch == Dispatch::Connection,
        some => (some as usize) < settings.max_in_flight && conn.link == link.incarnation,
    };
    (may && place.backlog.is_empty()).then_some(link)
}

/// Hands an event over. `false`: there is no room.
#[inline]
pub(super) fn give(
    conn: &mut Conn,
    link: &mut Link,
    kind: EventKind,
    flags: u8,
    aux: u64,
    payload: &[&[u8]],
) -> bool {
    let header = EventHeader {
        flags,
        origin: conn.listener,
        aux,
        ..EventHeader::new(kind, conn.id)
    };
    if link.push(header, payload).is_err() {
        return false;
    }
    conn.in_flight += 1;
    conn.link = link.incarnation;
    true
}

/// What the user's function sees of a request: the rest of its head is not there to be read by others.
fn target_of(payload: &[u8]) -> &[u8] {
    Head::split(payload).map_or(&[], |(head, _)| head.target())
}

/// Clients of one address go to one worker; on a Unix socket, those of one process.
pub(super) fn by_address(peer: Peer, workers: usize) -> usize {
    match peer {
        Peer::Ip(addr) => hashed(addr.ip(), workers),
        Peer::Unix(credentials) => hashed(credentials.pid, workers),
    }
}

/// A stable choice among `count`, the same in all reactors of this process.
fn hashed(value: impl Hash, count: usize) -> usize {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    (STATE.hash_one(value) % count as u64) as usize
}

/// Pieces of a request body that may be in flight: 32 KiB each.
pub(super) const BODY_IN_FLIGHT: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::head;

    #[test]
    fn of_a_request_its_target_is_shown() {
        let mut payload = Vec::new();
        let lines = b"Host: a\r\n";
        head::encode(&mut payload, 1, "GET", "/room/7?a=b", (lines, 1), None);
        payload.extend_from_slice(b"body");
        assert_eq!(target_of(&payload), b"/room/7?a=b");
        assert_eq!(target_of(b"no head"), b"");
    }
}
