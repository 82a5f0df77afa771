//! Memory that belongs to the server's users: counters, locks, tables, found by name.
//!
//! `main` declares them on [`Server`](crate::Server), the same in every process. The manager makes
//! them when the server starts, and hands their descriptors to each worker, task worker and user
//! process in the bootstrap; so they outlive all of these, and the master, which has none of them.
//!
//! - `declared`: what a program declares; names and limits.
//! - `error`: why something was not found, or does not fit.
//!
//! All counters and locks lie in one region: 128 bytes for the lives of processes (see
//! `gannet_shm::Life`), then 128 for each counter or lock in the order of their declaration. A table
//! is a region of its own.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use gannet_shm::{
    Counter, Life, Lock, Region,
    table::{Content, Key, RawTable, Record, Table, TableError},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::declared::{Declaration, Declared};
pub use self::error::{ObjectKind, SharedError};
use crate::{
    Error, Result,
    control::{CounterStatus, LockStatus, SharedStatus, TableStatus},
    inherit,
};

mod declared;
mod error;
#[cfg(test)]
mod tests;

/// The counters, locks and tables of a server, by name. Cheap to clone.
///
/// [`Server::prepare`](crate::Server::prepare) gets it in the manager; elsewhere [`Worker`] has the
/// same methods. What is not found is a [`SharedError`].
///
/// [`Worker`]: crate::Worker
#[derive(Clone, Default)]
pub struct Shared {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Object>,
    /// Names in the order of their declaration.
    order: Vec<String>,
    /// Of counters and locks, if there are any.
    region: Option<Arc<Region>>,
}

enum Object {
    Counter(Counter),
    Lock(Lock),
    Table(RawTable),
}

/// What the manager tells a child of the objects that there are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Handed {
    /// Of counters and locks.
    region: Option<RawFd>,
    /// In the order of their declaration.
    objects: Vec<(String, HandedKind)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HandedKind {
    Counter,
    Lock,
    Table(RawFd),
}

impl Shared {
    /// Most counters and locks of a server, together. Each takes 128 bytes.
    pub const MAX_COUNTERS_AND_LOCKS: usize = 1024;
    /// Most tables of a server. Each takes a descriptor in every process.
    pub const MAX_TABLES: usize = 128;
    /// Longest name, in bytes. Names are of ASCII letters, digits and `.`, `_`, `-`, `:`.
    pub const MAX_NAME: usize = 64;

    /// The counter that was declared by [`Server::counter`](crate::Server::counter).
    pub fn counter(&self, name: &str) -> Result<Counter> {
        match self.find(name, ObjectKind::Counter)? {
            Object::Counter(counter) => Ok(counter.clone()),
            other => Err(other.is_no(name, ObjectKind::Counter).into()),
        }
    }

    /// The lock that was declared by [`Server::lock`](crate::Server::lock).
    pub fn lock(&self, name: &str) -> Result<Lock> {
        match self.find(name, ObjectKind::Lock)? {
            Object::Lock(lock) => Ok(lock.clone()),
            other => Err(other.is_no(name, ObjectKind::Lock).into()),
        }
    }

    /// The table that was declared by [`Server::table`](crate::Server::table), with the same types.
    pub fn table<R: Content, K: Key + ?Sized>(&self, name: &str) -> Result<Table<R, K>> {
        match self.find(name, ObjectKind::Table)? {
            Object::Table(table) => Ok(Table::from_raw(table.clone())?),
            other => Err(other.is_no(name, ObjectKind::Table).into()),
        }
    }

    /// A table whose columns are known by name: what was declared by
    /// [`Server::records`](crate::Server::records), or any other.
    pub fn records<K: Key + ?Sized>(&self, name: &str) -> Result<Table<Record, K>> {
        self.table(name)
    }

    /// Makes what was declared.
    pub(crate) fn create(declared: &Declared) -> Result<Shared> {
        declared.check()?;
        let cells = declared.cells();
        let region = match cells {
            0 => None,
            cells => Some(Region::create("gannet-shared", KIND, (1 + cells) * CELL)?),
        };
        let cells = Cells::new(region.clone(), declared.has_locks())?;
        let mut made = Vec::new();
        for declaration in declared.iter() {
            let object = match declaration {
                Declaration::Counter(_) => cells.counter(cell_of(&made))?,
                Declaration::Lock(_) => cells.lock(cell_of(&made))?,
                Declaration::Table(spec) => {
                    Object::Table(RawTable::create(spec).map_err(Error::usage)?)
                }
            };
            made.push((declaration.name().to_owned(), object));
        }
        Ok(Shared::new(made, region))
    }

    /// What the manager has made, if it has what this program declares.
    pub(crate) fn attach(handed: Handed, declared: &Declared) -> Result<Shared> {
        let region = match handed.region {
            Some(fd) => Some(Region::attach(inherit::take(fd)?, KIND)?),
            None => None,
        };
        let has_locks = handed
            .objects
            .iter()
            .any(|(_, kind)| matches!(kind, HandedKind::Lock));
        let cells = Cells::new(region.clone(), has_locks)?;
        let mut made = Vec::new();
        for (name, kind) in handed.objects {
            let object = match kind {
                HandedKind::Counter => cells.counter(cell_of(&made))?,
                HandedKind::Lock => cells.lock(cell_of(&made))?,
                HandedKind::Table(fd) => {
                    Object::Table(RawTable::attach(&name, inherit::take(fd)?)?)
                }
            };
            made.push((name, object));
        }
        let shared = Shared::new(made, region);
        shared.fits(declared)?;
        Ok(shared)
    }

    /// What a child is to be told.
    pub(crate) fn hand(&self) -> Handed {
        let kind = |object: &Object| match object {
            Object::Counter(_) => HandedKind::Counter,
            Object::Lock(_) => HandedKind::Lock,
            Object::Table(table) => HandedKind::Table(table.fd().as_raw_fd()),
        };
        Handed {
            region: self
                .inner
                .region
                .as_ref()
                .map(|region| region.fd().as_raw_fd()),
            objects: self
                .in_order()
                .map(|(name, object)| (name.to_owned(), kind(object)))
                .collect(),
        }
    }

    /// For `status`.
    pub(crate) fn status(&self) -> SharedStatus {
        let mut status = SharedStatus::default();
        for (name, object) in self.in_order() {
            let name = name.to_owned();
            match object {
                Object::Counter(counter) => status.counters.push(CounterStatus {
                    name,
                    value: counter.load(),
                }),
                Object::Lock(lock) => status.locks.push(LockStatus {
                    name,
                    held_by: lock.holder(),
                    deaths: lock.deaths(),
                }),
                Object::Table(table) => {
                    let stats = table.stats();
                    status.tables.push(TableStatus {
                        name,
                        schema: table.schema().to_string(),
                        rows: stats.rows,
                        max_rows: stats.max_rows,
                        bytes: stats.bytes,
                        deaths: stats.deaths,
                    });
                }
            }
        }
        status
    }

    fn new(made: Vec<(String, Object)>, region: Option<Arc<Region>>) -> Shared {
        let order = made.iter().map(|(name, _)| name.clone()).collect();
        Shared {
            inner: Arc::new(Inner {
                objects: made.into_iter().collect(),
                order,
                region,
            }),
        }
    }

    /// Whether everything that a program declares is there.
    fn fits(&self, declared: &Declared) -> Result {
        for declaration in declared.iter() {
            let (name, kind) = (declaration.name(), declaration.kind());
            let Some(object) = self.inner.objects.get(name) else {
                return Err(Error::new(format!(
                    "this program declares the {kind} `{name}`, which the running server was not \
                     started with (it has {}): stop and start the server instead of reloading it",
                    self.names(None)
                )));
            };
            match (declaration, object) {
                (Declaration::Table(spec), Object::Table(table)) => {
                    if *table.schema() != spec.schema {
                        return Err(Error::new(TableError::OtherSchema {
                            table: name.to_owned(),
                            found: table.schema().to_string(),
                            declared: spec.schema.to_string(),
                        }));
                    }
                    if table.rows() != spec.rows {
                        let (has, declared) = (table.rows(), spec.rows);
                        tracing::warn!(
                            table = name,
                            ?has,
                            ?declared,
                            "a table keeps the size that it was made with: stop and start the \
                             server to change it"
                        );
                    }
                }
                _ if object.kind() == kind => {}
                _ => {
                    return Err(Error::new(format!(
                        "this program declares `{name}` as a {kind}, in the running server it is a \
                         {}: stop and start the server instead of reloading it",
                        object.kind()
                    )));
                }
            }
        }
        Ok(())
    }

    fn find(&self, name: &str, kind: ObjectKind) -> std::result::Result<&Object, SharedError> {
        let object = self.inner.objects.get(name);
        object.ok_or_else(|| SharedError::Unknown {
            kind,
            name: name.to_owned(),
            has: self.names(Some(kind)),
        })
    }

    /// `no counter`, or `a, b, c`; of all kinds with their kinds.
    fn names(&self, only: Option<ObjectKind>) -> String {
        let objects = self.in_order();
        let names: Vec<String> = match only {
            Some(kind) => objects
                .filter(|(_, object)| object.kind() == kind)
                .map(|(name, _)| name.to_owned())
                .collect(),
            None => objects
                .map(|(name, object)| format!("{} {name}", object.kind()))
                .collect(),
        };
        match (names.is_empty(), only) {
            (true, Some(kind)) => format!("no {kind}"),
            (true, None) => "none".to_owned(),
            (false, _) => names.join(", "),
        }
    }

    fn in_order(&self) -> impl Iterator<Item = (&str, &Object)> {
        let objects = &self.inner.objects;
        self.inner
            .order
            .iter()
            .filter_map(|name| Some((name.as_str(), objects.get(name)?)))
    }
}

impl Handed {
    /// The descriptors that the child is to inherit.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let tables = self.objects.iter().filter_map(|(_, kind)| match kind {
            HandedKind::Table(fd) => Some(*fd),
            _ => None,
        });
        self.region.into_iter().chain(tables)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.names(None))
    }
}

impl Object {
    fn kind(&self) -> ObjectKind {
        match self {
            Object::Counter(_) => ObjectKind::Counter,
            Object::Lock(_) => ObjectKind::Lock,
            Object::Table(_) => ObjectKind::Table,
        }
    }

    fn is_no(&self, name: &str, wanted: ObjectKind) -> SharedError {
        SharedError::OtherKind {
            name: name.to_owned(),
            wanted,
            found: self.kind(),
        }
    }
}

/// The region of counters and locks.
struct Cells {
    region: Option<Arc<Region>>,
    life: Option<Arc<Life>>,
}

impl Cells {
    fn new(region: Option<Arc<Region>>, has_locks: bool) -> Result<Self> {
        let life = match &region {
            Some(region) if has_locks => Some(Life::begin(region.clone(), 0)?),
            _ => None,
        };
        Ok(Cells { region, life })
    }

    fn counter(&self, cell: usize) -> Result<Object> {
        let region = self.at(cell)?;
        Ok(Object::Counter(Counter::attach(
            region.clone(),
            offset(cell),
        )))
    }

    fn lock(&self, cell: usize) -> Result<Object> {
        self.at(cell)?;
        let life = self.life.as_ref().ok_or_else(strange)?;
        Ok(Object::Lock(Lock::attach(life.clone(), offset(cell))))
    }

    fn at(&self, cell: usize) -> Result<&Arc<Region>> {
        let region = self.region.as_ref().ok_or_else(strange)?;
        if offset(cell) + CELL > region.len() {
            return Err(strange());
        }
        Ok(region)
    }
}

/// How many cells those take that come before.
fn cell_of(made: &[(String, Object)]) -> usize {
    made.iter()
        .filter(|(_, object)| object.kind() != ObjectKind::Table)
        .count()
}

/// The first is that of the lives.
fn offset(cell: usize) -> usize {
    (1 + cell) * CELL
}

fn strange() -> Error {
    Error::new("the bootstrap does not fit its shared memory")
}

/// `kind` of the region of counters and locks.
const KIND: u32 = 0x4755_0001;
const CELL: usize = 128;

const _: () = assert!(
    Counter::BYTES <= CELL
        && Lock::BYTES <= CELL
        && Life::BYTES <= CELL
        && CELL.is_multiple_of(Lock::ALIGN)
);
