//! A table in a region, whatever its rows are.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::core::plan::{Plan, Rows};
use super::core::{Core, Guard, Locks};
use super::error::TableError;
use super::row::{load_bytes, store_bytes};
use super::schema::Schema;
use crate::region::{MAX_LEN, Region, RegionError};
use crate::robust::{LockError, Locked, RobustMutex};

/// A table that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name, for errors and `/proc/PID/maps`.
    pub name: String,
    /// Keys and columns.
    pub schema: Schema,
    /// How many rows it is for.
    pub rows: Rows,
}

/// A table of which nothing is known but its schema: to be made by one process, handed to others,
/// and looked at. [`Table`](super::Table) reads and writes it.
#[derive(Clone, Debug)]
pub struct RawTable {
    pub(super) name: Arc<str>,
    pub(super) schema: Arc<Schema>,
    pub(super) core: Arc<Core<Region, Mutexes>>,
    region: Arc<Region>,
    first_rows: usize,
}

/// Numbers of a table, each of a moment of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableStats {
    /// Rows in it.
    pub rows: usize,
    /// Rows that it can have.
    pub max_rows: usize,
    /// Buckets of its index: one for four rows, of as many as it has had at most, about.
    pub buckets: usize,
    /// Memory that a row takes, with its share of the index.
    pub bytes_per_row: usize,
    /// Memory that it takes now.
    pub bytes: u64,
    /// How often a process died while it wrote here, and was cleaned up after.
    pub deaths: u64,
    /// How often a writer waited for another.
    pub waits: u64,
}

impl RawTable {
    /// Makes an empty table.
    ///
    /// # Errors
    ///
    /// Columns or rows that are not possible, or no memory.
    pub fn create(spec: &TableSpec) -> Result<RawTable, TableError> {
        let TableSpec { name, schema, rows } = spec;
        schema.check().map_err(|source| TableError::Schema {
            table: name.clone(),
            source,
        })?;
        if !(1..=Rows::MAX).contains(&rows.max) || !(1..=rows.max).contains(&rows.first) {
            return Err(TableError::Rows {
                table: name.clone(),
                first: rows.first,
                max: rows.max,
            });
        }
        let memory = memory(name);
        let text = schema.to_string();
        let plan = Plan::new(schema.key(), schema.words(), *rows, HEADER + text.len());
        if plan.total > MAX_LEN {
            return Err(TableError::TooLarge {
                table: name.clone(),
                rows: rows.max,
                bytes: plan.total,
            });
        }
        let region =
            Region::create(&format!("gannet-table-{name}"), KIND, plan.total).map_err(&memory)?;
        let seed = [random(), random()];
        let numbers = [rows.first, rows.max, text.len()].map(|number| number as u64);
        let header = numbers.into_iter().chain(seed);
        for (index, value) in header.enumerate() {
            region.word(index * 8).store(value, Relaxed);
        }
        store_bytes(text.as_bytes(), |word, value| {
            region.word(HEADER + word * 8).store(value, Relaxed);
        });
        let locks = Mutexes::create(&region, &plan).map_err(|source| {
            memory(RegionError::Create {
                name: name.clone(),
                call: "pthread_mutex_init",
                source,
            })
        })?;
        let core = Core::new(region.clone(), locks, plan, seed);
        core.format();
        Ok(RawTable {
            name: name.as_str().into(),
            schema: Arc::new(schema.clone()),
            core: Arc::new(core),
            region,
            first_rows: rows.first,
        })
    }

    /// The table that another process made, by its descriptor.
    ///
    /// # Errors
    ///
    /// The descriptor is not that of a table of this version.
    pub fn attach(name: &str, fd: OwnedFd) -> Result<RawTable, TableError> {
        let region = Region::attach(fd, KIND).map_err(memory(name))?;
        let header = || TableError::Header {
            table: name.to_owned(),
        };
        let number = |index: usize| region.word(index * 8).load(Relaxed);
        let [first, max, len] = [0, 1, 2].map(|index| number(index) as usize);
        if len > MAX_SCHEMA || HEADER + len.next_multiple_of(8) > region.len() {
            return Err(header());
        }
        if !(1..=Rows::MAX).contains(&max) || !(1..=max).contains(&first) {
            return Err(header());
        }
        let mut text = vec![0; len];
        load_bytes(&mut text, |word| {
            region.word(HEADER + word * 8).load(Relaxed)
        });
        let text = String::from_utf8(text).map_err(|_| header())?;
        let schema: Schema = text.parse().map_err(|_| header())?;
        let rows = Rows { first, max };
        let plan = Plan::new(schema.key(), schema.words(), rows, HEADER + len);
        if plan.total > region.len() {
            return Err(header());
        }
        let locks = Mutexes::attach(&region, &plan);
        let core = Core::new(region.clone(), locks, plan, [number(3), number(4)]);
        Ok(RawTable {
            name: name.into(),
            schema: Arc::new(schema),
            core: Arc::new(core),
            region,
            first_rows: first,
        })
    }

    /// The descriptor to hand to other processes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    /// The name it was made or attached with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keys and columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How many rows it was made for.
    pub fn rows(&self) -> Rows {
        Rows {
            first: self.first_rows,
            max: self.core.max_rows(),
        }
    }

    /// How it is doing.
    pub fn stats(&self) -> TableStats {
        let (deaths, waits) = self.core.deaths_and_waits();
        TableStats {
            rows: self.core.len(),
            max_rows: self.core.max_rows(),
            buckets: self.core.buckets(),
            bytes_per_row: self.core.plan().bytes_per_row(),
            bytes: self.region.resident(),
            deaths,
            waits,
        }
    }

    pub(super) fn full(&self) -> TableError {
        TableError::Full {
            table: self.name.to_string(),
            max: self.core.max_rows(),
        }
    }

    pub(super) fn lock_failed(&self, error: LockError) -> TableError {
        let table = self.name.to_string();
        match error {
            LockError::Reentrant => TableError::Reentrant { table },
            source => TableError::Lock { table, source },
        }
    }
}

fn memory(name: &str) -> impl Fn(RegionError) -> TableError {
    move |source| TableError::Memory {
        table: name.to_owned(),
        source,
    }
}

/// The stripes' locks in the region.
#[derive(Debug)]
pub(super) struct Mutexes(Vec<RobustMutex>);

impl Mutexes {
    fn create(region: &Arc<Region>, plan: &Plan) -> std::io::Result<Mutexes> {
        let offsets = plan.mutexes();
        let mutexes = offsets.map(|offset| RobustMutex::create(region.clone(), offset));
        mutexes.collect::<Result<_, _>>().map(Mutexes)
    }

    fn attach(region: &Arc<Region>, plan: &Plan) -> Mutexes {
        let offsets = plan.mutexes();
        Mutexes(
            offsets
                .map(|offset| RobustMutex::attach(region.clone(), offset))
                .collect(),
        )
    }
}

impl Locks for Mutexes {
    type Guard<'a> = Locked<'a>;

    #[inline]
    fn lock(&self, stripe: usize) -> Result<Locked<'_>, LockError> {
        self.0[stripe].lock()
    }

    #[inline]
    fn try_lock(&self, stripe: usize) -> Result<Option<Locked<'_>>, LockError> {
        self.0[stripe].try_lock()
    }
}

impl Guard for Locked<'_> {
    #[inline]
    fn owner_died(&self) -> bool {
        self.owner_died()
    }
}

fn random() -> u64 {
    // Every `RandomState` has keys of its own, of the system's random numbers.
    RandomState::new().build_hasher().finish()
}

/// "table", and the version of what is written in it.
const KIND: u32 = 0x7ab1_e002;
/// Bytes of the numbers in front of the schema's text.
const HEADER: usize = 64;
/// Longest text of a schema: the most columns with the longest names.
const MAX_SCHEMA: usize = 64 + Schema::MAX_COLUMNS * (Schema::MAX_NAME + 16);
