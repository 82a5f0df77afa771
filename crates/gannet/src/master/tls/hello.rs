//! The client's hello: gathered and read first, answered when its turn has come.
//!
//! What costs a handshake's time (keys, a signature) begins with the answer. So a turn is asked for
//! when the hello is there as a whole and makes sense: who sends less uses up none of
//! `max_handshakes_per_s`.

use std::sync::Arc;

use rustls::{
    InvalidMessage, ServerConfig,
    server::{Accepted, AcceptedAlert, Acceptor},
};

use super::{State, session::Session};
use crate::{
    close::CloseReason,
    layout::ReactorCounter,
    master::{conn::Closed, reactor::Reactor},
    tls::Turn,
};

/// A hello under way. It takes 64 KiB at most, the limit of rustls for a handshake's message.
pub(super) struct Gathering(Box<Acceptor>);

/// A hello that can be answered.
pub(super) struct Hello {
    accepted: Box<Accepted>,
    /// What came with it and is not read yet.
    behind: Vec<u8>,
}

/// A hello that cannot be answered but by an alert.
pub(super) struct Refused {
    pub(super) error: rustls::Error,
    alert: Vec<u8>,
}

impl Gathering {
    pub(super) fn new() -> Self {
        Gathering(Box::default())
    }

    /// Takes bytes of the wire, until they are a hello.
    pub(super) fn receive(&mut self, mut wire: &[u8]) -> Result<Option<Hello>, Refused> {
        while !wire.is_empty() {
            if !matches!(self.0.read_tls(&mut wire), Ok(1..)) {
                return Err(Refused {
                    error: InvalidMessage::MessageTooLarge.into(),
                    alert: Vec::new(),
                });
            }
            if let Some(accepted) = self.0.accept().map_err(Refused::of)? {
                return Ok(Some(Hello {
                    accepted: Box::new(accepted),
                    behind: wire.to_vec(),
                }));
            }
        }
        Ok(None)
    }
}

impl Hello {
    /// Keeps bytes of the wire that came behind it.
    pub(super) fn push(&mut self, wire: &[u8]) {
        self.behind.extend_from_slice(wire);
    }

    /// Answers it, and gives the bytes that the session is to read first.
    pub(super) fn answer(self, config: Arc<ServerConfig>) -> Result<(Session, Vec<u8>), Refused> {
        let connection = self.accepted.into_connection(config);
        let connection = connection.map_err(Refused::of)?;
        Ok((Session::new(connection), self.behind))
    }
}

impl Refused {
    fn of((error, mut told): (rustls::Error, AcceptedAlert)) -> Self {
        let mut alert = Vec::new();
        // Writing into memory does not fail.
        let _ = told.write_all(&mut alert);
        Refused { error, alert }
    }
}

impl Reactor {
    /// The first bytes of a connection.
    pub(super) fn first_bytes(&mut self, slot: usize, wire: &[u8]) {
        if wire.first() != Some(&super::HANDSHAKE) {
            return self.not_tls(slot, wire);
        }
        if let Some(conn) = self.conns.get_mut(slot)
            && let Some(tls) = &mut conn.tls
        {
            tls.state = State::Hello(Gathering::new());
            self.gather(slot, wire);
        }
    }

    /// Bytes of a hello.
    pub(super) fn gather(&mut self, slot: usize, wire: &[u8]) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let (Some(tls), Some(listener)) = (
            &mut conn.tls,
            &self.tls_listeners[usize::from(conn.listener)],
        ) else {
            return;
        };
        let State::Hello(gathering) = &mut tls.state else {
            return;
        };
        let hello = match gathering.receive(wire) {
            Ok(Some(hello)) => hello,
            Ok(None) => return,
            Err(refused) => return self.refuse(slot, &refused),
        };
        match listener.turns.take(tls.deadline.saturating_sub(now)) {
            Turn::Now => self.begin_session(slot, hello),
            Turn::In(wait, place) => {
                tls.state = State::Waiting {
                    hello,
                    until: now + wait,
                    place,
                };
                let writing = conn.writing;
                self.count(ReactorCounter::TlsDelayed);
                self.interest(slot, false, writing);
                self.watch(slot);
            }
            Turn::Never => {
                self.count(ReactorCounter::TlsRefused);
                self.leave(slot, Closed::of(CloseReason::TlsFailed));
            }
        }
    }

    /// The hello's turn has come.
    pub(super) fn begin_session(&mut self, slot: usize, hello: Hello) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let (Some(tls), Some(listener)) = (
            &mut conn.tls,
            &self.tls_listeners[usize::from(conn.listener)],
        ) else {
            return;
        };
        match hello.answer(listener.config.clone()) {
            Ok((session, behind)) => {
                tls.state = State::Session(session);
                self.feed(slot, &behind);
            }
            Err(refused) => self.refuse(slot, &refused),
        }
    }

    fn refuse(&mut self, slot: usize, refused: &Refused) {
        if let Some(conn) = self.conns.get_mut(slot)
            && let Some(tls) = &mut conn.tls
            && !refused.alert.is_empty()
        {
            let sealed = self.pool.queue(&mut tls.sealed);
            sealed.append(&mut self.pool, |out| out.extend_from_slice(&refused.alert));
        }
        self.tls_fails(slot, &refused.error);
    }
}
