//! Taking new connections.
//!
//! Accepting pauses, and the kernel's backlog holds who comes meanwhile, while `max_connections`
//! are open or the process has no descriptors left. It is tried again ten times a second.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use gannet_proto::{http1, tcp};
use rustix::{
    event::epoll,
    io::Errno,
    net::{SocketAddrAny, SocketFlags, sockopt},
};

use super::{
    conn::{Conn, Speaks},
    exchange::Http,
    framed::Framed,
    interest,
    reactor::{LISTENER, Reactor, register},
};
use crate::{
    conn_table::{Cell, Row},
    id::WorkerId,
    layout::ReactorCounter,
    peer::{Peer, canonical},
    settings::{Protocol, ProxyProtocol, Settings, Trust},
    sys,
    wire::event::EventKind,
};

/// The listening sockets of a reactor.
pub(super) struct Accepting {
    listeners: Vec<Listening>,
    /// By listener, the proxies that are believed. Stays when the listeners are closed.
    pub(super) trust: Vec<Trust>,
    active: bool,
    /// Connections taken from the listeners so far, those that were refused included.
    taken: u64,
}

struct Listening {
    /// `None`: closed.
    socket: Option<OwnedFd>,
    /// `None`: a Unix socket.
    local: Option<SocketAddr>,
    framing: Option<Arc<tcp::Framing>>,
    /// Not for datagrams, which `packets` reads.
    accepts: bool,
}

impl Accepting {
    pub(super) fn new(sockets: Vec<OwnedFd>, settings: &Settings) -> io::Result<Self> {
        let listeners = sockets
            .into_iter()
            .zip(&settings.listeners)
            .map(|(socket, listener)| {
                let local = rustix::net::getsockname(&socket)?;
                let local = SocketAddr::try_from(local).ok();
                let framing = listener.framing.rule().map_err(io::Error::other)?;
                Ok(Listening {
                    socket: Some(socket),
                    local,
                    framing: framing.map(Arc::new),
                    accepts: listener.protocol != Protocol::Udp,
                })
            })
            .collect::<io::Result<_>>()?;
        let trust = settings
            .listeners
            .iter()
            .map(|listener| Trust::parse(&listener.trusted_proxies).map_err(io::Error::other))
            .collect::<io::Result<_>>()?;
        Ok(Accepting {
            listeners,
            trust,
            active: false,
            taken: 0,
        })
    }

    /// Whether connections come over the network, and not by a Unix socket.
    pub(super) fn is_network(&self, listener: usize) -> bool {
        self.listeners[listener].local.is_some()
    }

    /// Notes that a connection was taken from a listener.
    pub(super) fn took_one(&mut self) {
        self.taken += 1;
    }

    fn sockets(&self) -> impl Iterator<Item = &OwnedFd> {
        self.listeners
            .iter()
            .filter_map(|listening| listening.socket.as_ref())
    }
}

impl Reactor {
    /// Takes what a listener has, up to a bound.
    pub(super) fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPTS {
            if !self.accepting.active {
                return;
            }
            if self.connections.load(Relaxed) >= self.settings.max_connections {
                return self.pause_accepting("max_connections is reached");
            }
            let listening = self.accepting.listeners.get(listener);
            let listening = listening.filter(|listening| listening.accepts);
            let Some(socket) = listening.and_then(|listening| listening.socket.as_ref()) else {
                return;
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::acceptfrom_with(socket, flags) {
                Ok((socket, peer)) => match self.spread.is_some() {
                    true => self.spread_connection(listener, socket, peer),
                    false => drop(self.accepted(listener, socket, peer)),
                },
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    return self.pause_accepting("no descriptors are left (raise `ulimit -n`)");
                }
                // The client gave up, or the network did: accept(2) tells of the next one.
                Err(_) => {}
            }
        }
    }

    /// Listens (again) if it may.
    pub(super) fn resume_accepting(&mut self) {
        if self.accepting.active
            || self.stopping.is_some()
            || self.connections.load(Relaxed) >= self.settings.max_connections
        {
            return;
        }
        self.accepting.active = true;
        for (index, listening) in self.accepting.listeners.iter().enumerate() {
            let Some(socket) = listening.socket.as_ref().filter(|_| listening.accepts) else {
                continue;
            };
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            if let Err(error) = register(&self.epoll, socket, LISTENER | index as u64, flags) {
                tracing::error!(%error, "cannot listen");
            }
        }
    }

    /// Takes everyone who waits to be accepted.
    pub(super) fn accept_backlog(&mut self) {
        for listener in 0..self.accepting.listeners.len() {
            let mut before = u64::MAX;
            while self.accepting.active && before != self.accepting.taken {
                before = self.accepting.taken;
                self.accept(listener);
            }
        }
    }

    /// Closes the listening sockets for good.
    pub(super) fn stop_accepting(&mut self) {
        self.unwatch_listeners();
        for listening in &mut self.accepting.listeners {
            listening.socket = None;
        }
    }

    fn pause_accepting(&mut self, why: &str) {
        tracing::warn!(connections = self.conns.len(), "accepting pauses: {why}");
        self.count(ReactorCounter::AcceptPaused);
        self.unwatch_listeners();
    }

    /// Closing the sockets would not do: the manager has them too, so the poll set would go on
    /// reporting them.
    fn unwatch_listeners(&mut self) {
        self.accepting.active = false;
        for socket in self.accepting.sockets() {
            // Not there: nothing to remove.
            let _ = epoll::delete(&self.epoll, socket);
        }
    }

    /// Takes a connection in. Its slot, if it stays.
    pub(super) fn accepted(
        &mut self,
        listener: usize,
        socket: OwnedFd,
        peer: Option<SocketAddrAny>,
    ) -> Option<usize> {
        let mut local = self.accepting.listeners[listener].local;
        let peer = match local {
            Some(_) => peer
                .and_then(|peer| SocketAddr::try_from(peer).ok())
                .map(Peer::on_network),
            None => sys::peer_credentials(&socket).ok().map(Peer::Unix),
        };
        let peer = peer?;
        let proxied = self.settings.listeners[listener].proxy_protocol == ProxyProtocol::Required;
        if proxied && !self.admits(listener, peer) {
            self.accepting.taken += 1;
            return None;
        }
        if let Some(local) = &mut local {
            let _ = sockopt::set_tcp_nodelay(&socket, true);
            if local.ip().is_unspecified()
                && let Ok(own) = rustix::net::getsockname(&socket)
                && let Ok(own) = SocketAddr::try_from(own)
            {
                *local = canonical(own);
            }
        }
        let table = &self.table;
        let reactor = self.id;
        let Some(id) = self.conns.next_id(|slot| table.generation(reactor, slot)) else {
            self.pause_accepting("no connection number is left");
            return None;
        };
        if let Err(error) = register(
            &self.epoll,
            socket.as_fd(),
            id.as_u64(),
            interest::flags(local.is_some(), true, false),
        ) {
            tracing::error!(%error, "cannot watch a connection");
            self.conns.give_back(id);
            return None;
        }
        let settings = &self.settings.listeners[listener];
        let speaks = match settings.protocol {
            Protocol::Tcp | Protocol::Udp => match &self.accepting.listeners[listener].framing {
                Some(framing) => {
                    let largest = settings.max_message_size;
                    Speaks::Framed(Box::new(Framed {
                        decoder: tcp::Decoder::new(framing.clone(), largest),
                        progress: None,
                    }))
                }
                None => Speaks::Tcp,
            },
            Protocol::Http | Protocol::Websocket => {
                Speaks::Http(Box::new(Http::new(http1::Limits {
                    max_head_size: settings.max_head_size,
                    max_body_size: settings.max_body_size,
                    ..http1::Limits::default()
                })))
            }
        };
        // Behind a proxy, TLS begins when the client is known, and it is told no sooner.
        let (header_due, tls) = match proxied {
            true => (self.clock.now + settings.request_timeout_ms, None),
            false => (0, self.new_tls(listener)),
        };
        // With TLS it is told when the handshake is done.
        let connects = settings.protocol == Protocol::Tcp && !proxied && tls.is_none();
        let place = self.first_place(id, listener, peer);
        self.places[place].connections += 1;
        self.connections.fetch_add(1, Relaxed);
        self.accepting.taken += 1;
        self.count(ReactorCounter::Accepted);
        if let Some(row) = self.table.row_of(id) {
            self.table.open(
                row,
                &Row {
                    id,
                    listener: listener as u16,
                    worker: WorkerId(place as u16),
                    websocket: false,
                    tls: false,
                    unheard: proxied,
                    closed: false,
                    peer,
                    proxy: None,
                    local,
                    uid: String::new(),
                    opened: self.clock.unix,
                },
            );
            self.table
                .cell(row, Cell::LastSeen)
                .store(self.clock.unix, Relaxed);
        }
        let mut conn = Conn::new(id, listener as u16, place as u16, speaks, self.clock.now);
        conn.socket = Some(socket);
        conn.tls = tls;
        if header_due > 0 {
            conn.rare_mut().header_due = header_due;
        }
        self.conns.insert(conn);
        let slot = id.slot();
        self.watch(slot);
        if connects {
            self.offer_or_hold(slot, EventKind::Connect, 0, 0, &[]);
        }
        Some(slot)
    }
}

/// Connections taken from a listener in one turn.
const ACCEPTS: usize = 64;
