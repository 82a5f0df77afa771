//! What reactors make connections with, and its renewal.
//!
//! Each listener has tickets of its own: a session of one listener must not open another that asks
//! clients for certificates. They outlive new certificates, so that clients go on where they were;
//! but not a change in whom the listener lets in, because a session that is resumed is not verified
//! again.

use std::sync::Arc;

use rustls::{ServerConfig, crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

use super::{
    config,
    material::{Clients, Material},
    turns::Turns,
};
use crate::{Error, Result, Settings};

/// The TLS of one listener, as reactors use it.
#[derive(Debug)]
pub(crate) struct TlsListener {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) handshake_timeout_ms: u64,
}

/// The TLS of all listeners, in the master's main thread.
#[derive(Default)]
pub(crate) struct Serving {
    kept: Vec<Option<Kept>>,
}

/// What stays when the certificates change.
struct Kept {
    tickets: Arc<dyn ProducesTickets>,
    turns: Arc<Turns>,
    clients: Option<Clients>,
}

impl Serving {
    /// What reactors are to use from now on. After an error all is as it was.
    pub(crate) fn renew(
        &mut self,
        settings: &Settings,
        material: &Material,
    ) -> Result<Vec<Option<Arc<TlsListener>>>> {
        let mut listeners = Vec::new();
        let mut kept = Vec::new();
        for (index, listener) in settings.listeners.iter().enumerate() {
            let material = material.0.get(index).and_then(Option::as_ref);
            let (Some(tls), Some(material)) = (&listener.tls, material) else {
                listeners.push(None);
                kept.push(None);
                continue;
            };
            let before = self.kept.get(index).and_then(Option::as_ref);
            let tickets = match before.filter(|before| before.clients == material.clients) {
                Some(before) => before.tickets.clone(),
                None => Ticketer::new()
                    .map_err(|error| Error::new(format!("no keys for tickets: {error}")))?,
            };
            let turns = match before {
                Some(before) => before.turns.clone(),
                None => Arc::new(Turns::new(tls.max_handshakes_per_s)),
            };
            let mut config = config::build(listener, tls, material)?;
            config.ticketer = tickets.clone();
            listeners.push(Some(Arc::new(TlsListener {
                config: Arc::new(config),
                turns: turns.clone(),
                handshake_timeout_ms: tls.handshake_timeout_ms,
            })));
            kept.push(Some(Kept {
                tickets,
                turns,
                clients: material.clients.clone(),
            }));
        }
        self.kept = kept;
        Ok(listeners)
    }
}
