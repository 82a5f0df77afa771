//! Connections that come through proxies: who the client is.
//!
//! Two sayings are believed, both from trusted addresses only, one on top of the other:
//!
//! 1. A **PROXY header** in front of everything else names the client of the connection. Until it is
//!    here (`header_due` is not 0) nothing is known of the connection but the proxy: no event of it
//!    is given to anybody, `Connect` and `Close` included, and what has come is kept in `input`. Then
//!    the connection is as if its client had come directly: its place is chosen by its address, and
//!    what follows the header is taken as the first bytes, of TLS if the listener has it.
//! 2. A **forwarding header** names the client of one request, if the other end, as the PROXY header
//!    has named it or as it is, is trusted itself. The request carries it to the worker. The
//!    connection takes it over only if the request is a WebSocket handshake, after which it belongs
//!    to that client alone.

use gannet_proto::{
    http1::RequestHead,
    proxy::{self, Client, Header, Origin},
};

use super::{
    conn::{Closed, Conn, Stall},
    reactor::Reactor,
};
use crate::{
    close::CloseReason,
    id::WorkerId,
    layout::ReactorCounter,
    peer::Peer,
    settings::{Dispatch, Forwarded, Protocol},
    wire::event::EventKind,
};

impl Conn {
    /// Nothing but a PROXY header is taken from the connection yet.
    pub(super) fn awaits_header(&self) -> bool {
        // Asked of every read and every message.
        self.rare.as_ref().is_some_and(|rare| rare.header_due != 0)
    }
}

impl Reactor {
    /// The client of the request that a connection is in, as far as it is known.
    pub(super) fn client_of(&self, conn: &Conn) -> Peer {
        match conn.rare().forwarded {
            Some(client) => Peer::Ip(client),
            None => self.table.peer(conn.id),
        }
    }

    /// Takes the PROXY header, if one is awaited, from the first `len` bytes of the buffer. Says how
    /// many bytes for the protocol above are at its front then; `None`: there is nothing to be taken
    /// now.
    pub(super) fn take_header(&mut self, slot: usize, len: usize) -> Option<usize> {
        let conn = self.conns.get_mut(slot)?;
        if !conn.awaits_header() {
            return Some(len);
        }
        let decoded = match proxy::decode(&self.buffer[..len]) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => {
                conn.input.extend_from_slice(&self.buffer[..len]);
                return None;
            }
            Err(error) => {
                self.fail_header(slot, CloseReason::Protocol, &error.to_string());
                return None;
            }
        };
        conn.rare_mut().header_due = 0;
        conn.tidy();
        conn.input.release();
        let listener = usize::from(conn.listener);
        self.name_client(slot, decoded.origin);
        if let Some(tls) = self.new_tls(listener) {
            // It is told when the handshake is done, which begins behind the header.
            self.conns.get_mut(slot)?.tls = Some(tls);
            self.watch(slot);
            let hello = self.buffer[decoded.used..len].to_vec();
            if !hello.is_empty() {
                self.take_encrypted(slot, &hello);
            }
            return None;
        }
        self.watch(slot);
        if self.settings.listeners[listener].protocol == Protocol::Tcp {
            self.offer_or_hold(slot, EventKind::Connect, 0, 0, &[]);
        }
        let rest = decoded.used..len;
        let conn = self.conns.get_mut(slot)?;
        if conn.stall != Stall::No {
            conn.input.extend_from_slice(&self.buffer[rest]);
            return None;
        }
        let len = rest.len();
        self.buffer.copy_within(rest, 0);
        (len > 0).then_some(len)
    }

    /// Closes a connection whose PROXY header is not what it has to be.
    pub(super) fn fail_header(&mut self, slot: usize, reason: CloseReason, why: &str) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        if let Some(unlogged) = self.proxy_log.due(self.clock.now) {
            tracing::warn!(conn = %conn.id, proxy = %self.table.peer(conn.id), unlogged, "closing: {why}");
        }
        self.count(ReactorCounter::ProxyFailed);
        self.leave(slot, Closed::of(reason));
    }

    /// Whether a connection may come from there.
    pub(super) fn admits(&mut self, listener: usize, peer: Peer) -> bool {
        if self.accepting.trust[listener].has(peer) {
            return true;
        }
        if let Some(unlogged) = self.proxy_log.due(self.clock.now) {
            tracing::warn!(
                listener, %peer, unlogged,
                "refusing a connection: `trusted_proxies` does not have its address"
            );
        }
        self.count(ReactorCounter::ProxyUntrusted);
        false
    }

    /// Notes the client that a request of a proxy is for, as its forwarding header names it.
    pub(super) fn note_client(&mut self, slot: usize, request: &RequestHead<'_>) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let listener = usize::from(conn.listener);
        let header = match self.settings.listeners[listener].forwarded {
            Forwarded::Off => return,
            Forwarded::XForwardedFor => Header::XForwardedFor,
            Forwarded::Forwarded => Header::Forwarded,
        };
        if let Some(rare) = &mut conn.rare {
            rare.forwarded = None;
        }
        let trust = &self.accepting.trust[listener];
        if !trust.has(self.table.peer(conn.id)) {
            return;
        }
        let mut lines: Vec<_> = request.headers.all(header.name()).collect();
        lines.reverse();
        match proxy::client(header, lines.into_iter(), |ip| trust.has_ip(ip)) {
            Client::Address(client) => conn.rare_mut().forwarded = Some(client),
            Client::Unnamed => {}
            Client::Malformed => self.count(ReactorCounter::ForwardedMalformed),
        }
    }

    /// The connection is its current client's alone from now on.
    pub(super) fn keep_client(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(client) = conn.rare.as_mut().and_then(|rare| rare.forwarded.take()) else {
            return;
        };
        conn.tidy();
        if let Some(at) = self.table.row_of(conn.id)
            && let Some(row) = self.table.row(at)
        {
            let proxy = row.proxy.or(Some(row.peer));
            self.table
                .set_client(at, Peer::Ip(client), proxy, row.local, row.worker);
        }
    }

    /// The PROXY header is here: workers may hear of the connection.
    fn name_client(&mut self, slot: usize, origin: Origin) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let (id, before) = (conn.id, usize::from(conn.place));
        let end = self.table.peer(id);
        let (peer, proxy, destination) = match origin {
            Origin::Network {
                source,
                destination,
            } => (Peer::Ip(source), Some(end), Some(destination)),
            // The proxy itself, or somebody whom only the proxy knows.
            Origin::Local | Origin::Unnamed => (end, None, None),
        };
        let listener = usize::from(conn.listener);
        let place = match self.settings.dispatch {
            Dispatch::PeerAddress | Dispatch::Custom => self.first_place(id, listener, peer),
            _ => before,
        };
        self.places[before].connections -= 1;
        self.places[place].connections += 1;
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.place = place as u16;
        }
        if let Some(at) = self.table.row_of(id)
            && let Some(row) = self.table.row(at)
        {
            let worker = WorkerId(place as u16);
            let local = destination.or(row.local);
            self.table.set_client(at, peer, proxy, local, worker);
        }
    }
}
