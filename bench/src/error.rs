//! What can keep a run from being one.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The target has a name that nobody knows.
    #[error("{host}: {source}; is the name right?")]
    Resolve {
        /// The name and the port.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// A connection could not be made, or was of no use.
    #[error("connect to {address}: {reason}")]
    Connect {
        /// The server.
        address: SocketAddr,
        /// Why, and what may help.
        reason: String,
    },
    /// A file for TLS cannot be used.
    #[error("{path}: {reason}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// More descriptors than this process may have.
    #[error(
        "{needed} connections need about as many descriptors, and this process may have {allowed}: raise \
         the limit (`ulimit -n {needed}`, as root if need be), or use fewer connections"
    )]
    Descriptors {
        /// Wanted.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// There is no process of the server with this id.
    #[error("--server-pid {0}: there is no such process (or it may not be looked at)")]
    NoServer(u32),
    /// The server does not do what the mode needs.
    #[error("{0}")]
    Server(String),
    /// Something of the operating system.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was being done when the operating system said no.
    pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Error::System {
            doing,
            source: error.into(),
        }
    }

    /// What the program ends with: 2 if the command line is to be changed, else 3. (0 is a run without
    /// errors, 1 one with errors.)
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            _ => 3,
        }
    }
}
