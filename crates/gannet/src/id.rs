//! Names of things that cross process borders: connections, workers, tasks.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Number of a connection, unique for the life of the server and never used again.
///
/// It fits in 53 bits, so JSON and JavaScript carry it without loss. Inside it is a
/// generation (27 bits), a reactor (6 bits) and a slot of that reactor (20 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnId(u64);

impl ConnId {
    /// Most connections that one reactor can hold at a time.
    pub(crate) const MAX_SLOTS: usize = 1 << SLOT_BITS;
    /// Most reactors of a server.
    pub(crate) const MAX_REACTORS: usize = 1 << REACTOR_BITS;
    /// A slot whose generation reached this is not used again.
    pub(crate) const MAX_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

    pub(crate) fn new(generation: u32, reactor: usize, slot: usize) -> Self {
        debug_assert!(generation <= Self::MAX_GENERATION);
        debug_assert!(reactor < Self::MAX_REACTORS && slot < Self::MAX_SLOTS);
        ConnId(
            (u64::from(generation) << (REACTOR_BITS + SLOT_BITS))
                | ((reactor as u64) << SLOT_BITS)
                | slot as u64,
        )
    }

    /// Number of the reactor that owns the connection.
    pub fn reactor(self) -> usize {
        (self.0 >> SLOT_BITS) as usize & (Self::MAX_REACTORS - 1)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> (REACTOR_BITS + SLOT_BITS)) as u32
    }

    pub(crate) fn slot(self) -> usize {
        self.0 as usize & (Self::MAX_SLOTS - 1)
    }

    /// The number as such, for logs, JSON and tables.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The connection with this number; it need not exist (any more).
    pub const fn from_u64(number: u64) -> Self {
        ConnId(number)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({})", self.0)
    }
}

impl FromStr for ConnId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(ConnId)
    }
}

/// Number of a worker, task worker or user process: workers are `0..workers`, task workers follow,
/// then user processes in the order in which they were added.
///
/// The number names a place, not a process: the process that holds it may crash or be
/// reloaded, its successor has the same number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub u16);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerId({})", self.0)
    }
}

/// Number of a task, drawn when it is submitted: tasks of one server count up from 1. No two have the same, also
/// if the master dies; a number may be left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({})", self.0)
    }
}

const SLOT_BITS: u32 = 20;
const REACTOR_BITS: u32 = 6;
const GENERATION_BITS: u32 = 27;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_fit_in_53_bits_and_keep_their_parts() {
        let id = ConnId::new(
            ConnId::MAX_GENERATION,
            ConnId::MAX_REACTORS - 1,
            ConnId::MAX_SLOTS - 1,
        );
        assert_eq!(id.as_u64(), (1 << 53) - 1);
        assert_eq!((id.reactor(), id.slot()), (63, (1 << 20) - 1));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
