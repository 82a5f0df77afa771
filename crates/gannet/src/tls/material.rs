//! The contents of the files that TLS needs.

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::config;
use crate::{
    Error, Listener, Result, Settings,
    settings::{CertificateFiles, Tls},
};

/// For each listener of the settings what its TLS needs; `None`: it has no TLS.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Material(pub(super) Vec<Option<ListenerMaterial>>);

/// PEM texts.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ListenerMaterial {
    /// The default certificate first.
    pub(super) pairs: Vec<Pair>,
    pub(super) clients: Option<Clients>,
}

/// A chain of certificates and its key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) certificate: Pem,
    pub(super) key: Pem,
}

/// Whose clients are let in. As long as this stays the same, clients may resume old sessions.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Clients {
    pub(super) authorities: Pem,
    pub(super) revoked: Option<Pem>,
}

/// A file's text, and its path for errors.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pem {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Material {
    /// Reads the files that the settings name, and checks that a server can be made of them.
    pub(crate) fn read(settings: &Settings) -> Result<Self> {
        let mut material = Vec::new();
        for (index, listener) in settings.listeners.iter().enumerate() {
            let whose = || {
                let scheme = listener.scheme();
                format!("listener {index} ({scheme}://{})", listener.address)
            };
            let read = match &listener.tls {
                Some(tls) => Some(checked(listener, tls).map_err(|e| e.context(whose()))?),
                None => None,
            };
            material.push(read);
        }
        Ok(Material(material))
    }

    /// Whether any listener has TLS.
    pub(crate) fn is_needed(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }
}

/// No key in a log.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material")
    }
}

impl Pem {
    fn read(what: &str, path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            Error::usage(format!("the {what} file {}: {error}", path.display()))
        })?;
        Ok(Pem {
            path: path.to_owned(),
            text,
        })
    }

    /// An error about what stands in the file.
    pub(super) fn error(&self, what: impl fmt::Display) -> Error {
        Error::usage(format!("{}: {what}", self.path.display()))
    }
}

fn checked(listener: &Listener, tls: &Tls) -> Result<ListenerMaterial> {
    let pairs = tls.pairs().map(|files| read_pair(&files));
    let clients = match &tls.client_ca {
        Some(path) => Some(Clients {
            authorities: Pem::read("client authority", path)?,
            revoked: match &tls.client_crl {
                Some(path) => Some(Pem::read("revocation list", path)?),
                None => None,
            },
        }),
        None => None,
    };
    let material = ListenerMaterial {
        pairs: pairs.collect::<Result<_>>()?,
        clients,
    };
    config::build(listener, tls, &material)?;
    config::warn_of_dates(&material);
    Ok(material)
}

fn read_pair(files: &CertificateFiles) -> Result<Pair> {
    // `settings::check` has seen to it that both are there.
    let path = |file: &Option<PathBuf>| file.clone().unwrap_or_default();
    let key = path(&files.key);
    let pair = Pair {
        certificate: Pem::read("certificate", &path(&files.certificate))?,
        key: Pem::read("key", &key)?,
    };
    if let Ok(meta) = fs::metadata(&key)
        && meta.permissions().mode() & 0o007 != 0
    {
        tracing::warn!(
            "the private key {} is open to every user of this machine: chmod o= {0}",
            key.display()
        );
    }
    Ok(pair)
}
