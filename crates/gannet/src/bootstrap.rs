//! What the manager tells a process that it starts.
//!
//! Every process is the same program, started by exec. The environment variable [`ENV`] names a
//! descriptor: a sealed memfd with a [`Bootstrap`] as JSON. `Server::run` looks for it first and
//! becomes what it says. The settings in it are final: a child reads no file and no flag.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{OwnedFd, RawFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use crate::{
    control::Role as Kind,
    id::WorkerId,
    inherit,
    layout::Dimensions,
    logging,
    objects::{Declared, Handed},
    settings::Settings,
};

/// Environment variable with the number of the bootstrap descriptor.
pub(crate) const ENV: &str = "GANNET_BOOTSTRAP";
/// Name of the memfd.
pub(crate) const MEMFD: &str = "gannet-bootstrap";

/// All that a child needs to begin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bootstrap {
    /// [`crate::wire::ABI`] of the manager.
    pub(crate) abi: u32,
    pub(crate) manager_pid: u32,
    pub(crate) settings: Settings,
    pub(crate) log: logging::Handed,
    pub(crate) dimensions: Dimensions,
    /// Seqpacket socket to the manager: see `channel`. Its end of file means: exit at once.
    pub(crate) channel: RawFd,
    /// The control region.
    pub(crate) control: RawFd,
    /// The reactors' eventfds, one each; they outlive the master.
    pub(crate) reactor_bells: Vec<RawFd>,
    /// Counters, locks and tables; none for a master.
    pub(crate) objects: Handed,
    /// What the program declares of them; the child puts it in itself.
    #[serde(skip)]
    pub(crate) declared: Declared,
    pub(crate) role: Role,
}

/// What the child is to be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Master {
        /// Bound, listening sockets, in the order of `settings.listeners`.
        listeners: Vec<RawFd>,
        /// 0 for the first master, then counted up.
        generation: u64,
        /// Memfd with what TLS needs ([`crate::tls::Material`]), if any listener has TLS.
        tls: Option<RawFd>,
    },
    Worker {
        /// Workers are `0..workers`, task workers follow, then user processes.
        id: WorkerId,
        kind: Kind,
        /// Counted up over all workers of the server; names this process and its region.
        incarnation: u64,
        /// How often this place was filled by reload, from 0.
        generation: u64,
        region: RawFd,
        /// The worker's eventfd.
        bell: RawFd,
    },
}

/// A memfd of this name, with these bytes, that nobody can change.
pub(crate) fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

/// The bytes of the memfd of this name whose number stands in the environment variable. `None` if
/// there is none: a program that was started by a child may have inherited the variable, but not the
/// descriptor.
pub(crate) fn inherited(variable: &str, name: &str) -> Option<Vec<u8>> {
    let fd = std::env::var(variable).ok()?.parse().ok()?;
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    if !path.to_string_lossy().contains(name) {
        return None;
    }
    let file = File::from(inherit::take(fd).ok()?);
    let mut bytes = vec![0; file.metadata().ok()?.len() as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}
