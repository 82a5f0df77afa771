//! The certificates: read at the start, and again when somebody asks for it.
//!
//! The manager keeps what was good last. A master that is started later gets that, whatever lies on
//! disk by then.

use std::{collections::HashMap, os::fd::OwnedFd};

use crate::{Error, Result, Settings, bootstrap::sealed, tls::Material};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Certificates {
    material: Material,
    /// By control connection: why its `reload` did not read new ones.
    refusals: HashMap<u64, String>,
}

impl Certificates {
    /// Reads the files that the settings name.
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        Ok(Certificates {
            material: Material::read(settings)?,
            refusals: HashMap::new(),
        })
    }

    /// Reads them again. A file for the master if they are good, and not those of before.
    pub(super) fn reread(&mut self, settings: &Settings) -> Result<Option<OwnedFd>> {
        let material = Material::read(settings)?;
        if material == self.material {
            return Ok(None);
        }
        self.material = material;
        self.file()
    }

    /// For a master: a memfd that nobody can change; `None` if no listener has TLS.
    pub(super) fn file(&self) -> Result<Option<OwnedFd>> {
        if !self.material.is_needed() {
            return Ok(None);
        }
        let bytes = serde_json::to_vec(&self.material)?;
        Ok(Some(sealed("gannet-certificates", &bytes)?))
    }

    /// The outcome of this connection's `reload` is to say why the certificates stay.
    pub(super) fn note_refusal(&mut self, connection: u64, why: &Error) {
        self.refusals.insert(connection, why.to_string());
    }

    pub(super) fn refusal(&mut self, connection: u64) -> Option<String> {
        self.refusals.remove(&connection)
    }
}
