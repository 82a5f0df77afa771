//! The operations on a table.

use std::fmt::{self, Debug, Formatter};
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::core::plan::Rows;
use super::core::{Entry, Full, Words};
use super::error::TableError;
use super::iter::Iter;
use super::key::{Key, MAX_KEY, RawKey};
use super::raw::{Mutexes, RawTable, TableSpec, TableStats};
use super::record::Record;
use super::row::{Cell, Column, Row, ValueTooLong};
use super::schema::Schema;
use crate::region::Region;

/// A table in shared memory: rows of type `R` under keys of type `K` (`str`, `[u8]` or `u64`).
///
/// `R` is a struct with `#[derive(Row)]`, or [`Record`] for columns that are known at run time only.
/// A handle is cheap to clone and can be used by any thread.
///
/// Operations on one row are atomic: they happen one after another, in whatever process, and a
/// process that dies in the middle of one has either done it or not begun. Operations on several rows
/// are not: [`Table::iter`] sees each row at a moment of its own.
///
/// ```
/// use gannet_shm::table::{Column, Rows, Str, Table};
/// # use gannet_shm::table::{Cell, ColumnKind, ColumnSpec, Row, ValueTooLong};
/// # struct Session { user: u64, hits: i64, name: Str<16> }
/// # impl Session { const HITS: Column<Session, i64> = Column::at(1); }
/// # impl Row for Session {
/// #     const WORDS: usize = 5;
/// #     const COLUMNS: &'static [ColumnSpec] = &[
/// #         ColumnSpec { name: "user", kind: ColumnKind::U64 },
/// #         ColumnSpec { name: "hits", kind: ColumnKind::I64 },
/// #         ColumnSpec { name: "name", kind: ColumnKind::Text(16) },
/// #     ];
/// #     fn store(&self, mut put: impl FnMut(usize, u64)) -> Result<(), ValueTooLong> {
/// #         put(0, self.user);
/// #         put(1, self.hits as u64);
/// #         self.name.store(|word, value| put(2 + word, value));
/// #         Ok(())
/// #     }
/// #     fn load(word: impl Fn(usize) -> u64) -> Self {
/// #         Session { user: word(0), hits: word(1) as i64, name: Str::load(|i| word(2 + i)) }
/// #     }
/// # }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // #[derive(Row)]
/// // struct Session { user: u64, hits: i64, name: Str<16> }
/// let sessions = Table::<Session>::create("sessions", Rows::up_to(1_000_000))?;
/// sessions.set("ann", &Session { user: 7, hits: 0, name: Str::new("Ann")? })?;
///
/// assert_eq!(sessions.incr("ann", Session::HITS, 1)?, Some(1));
/// let before = sessions.update("ann", |session| std::mem::replace(&mut session.user, 8))?;
/// assert_eq!(before, Some(7));
/// assert_eq!(sessions.get("ann")?.map(|session| session.user), Some(8));
/// # Ok(())
/// # }
/// ```
pub struct Table<R: Content, K: Key + ?Sized = str> {
    pub(super) raw: RawTable,
    pub(super) shape: R::Shape,
    types: PhantomData<fn(&K) -> R>,
}

/// What rows of a table can be: a [`Row`], or a [`Record`].
pub trait Content: Sized {
    /// What is needed besides the words.
    #[doc(hidden)]
    type Shape: Clone + Debug + Send + Sync;

    #[doc(hidden)]
    fn store_row(&self, shape: &Self::Shape, put: impl FnMut(usize, u64))
    -> Result<(), StoreError>;

    #[doc(hidden)]
    fn load_row(shape: &Self::Shape, word: impl Fn(usize) -> u64) -> Self;

    /// The shape, if the schema is that of such rows; else what was expected.
    #[doc(hidden)]
    fn shape_of<K: Key + ?Sized>(schema: &Arc<Schema>) -> Result<Self::Shape, Schema>;
}

impl<R: Row> Content for R {
    type Shape = ();

    #[inline]
    fn store_row(&self, (): &(), put: impl FnMut(usize, u64)) -> Result<(), StoreError> {
        Ok(self.store(put)?)
    }

    #[inline]
    fn load_row((): &(), word: impl Fn(usize) -> u64) -> Self {
        R::load(word)
    }

    fn shape_of<K: Key + ?Sized>(schema: &Arc<Schema>) -> Result<(), Schema> {
        let declared = Schema::of::<R, K>();
        if **schema == declared {
            Ok(())
        } else {
            Err(declared)
        }
    }
}

impl<R: Row, K: Key + ?Sized> Table<R, K> {
    /// Makes an empty table.
    ///
    /// # Errors
    ///
    /// Columns or rows that are not possible, or no memory.
    pub fn create(name: &str, rows: Rows) -> Result<Self, TableError> {
        Self::from_raw(RawTable::create(&TableSpec {
            name: name.to_owned(),
            schema: Schema::of::<R, K>(),
            rows,
        })?)
    }
}

impl<R: Content, K: Key + ?Sized> Table<R, K> {
    /// The table that another process made, by its descriptor.
    ///
    /// # Errors
    ///
    /// The descriptor is not that of a table, or of one with other columns or keys.
    pub fn attach(name: &str, fd: OwnedFd) -> Result<Self, TableError> {
        Self::from_raw(RawTable::attach(name, fd)?)
    }

    /// A table that was made or attached to without its types.
    ///
    /// # Errors
    ///
    /// It has other columns or keys.
    pub fn from_raw(raw: RawTable) -> Result<Self, TableError> {
        match R::shape_of::<K>(&raw.schema) {
            Ok(shape) => Ok(Table {
                raw,
                shape,
                types: PhantomData,
            }),
            Err(declared) => Err(TableError::OtherSchema {
                table: raw.name.to_string(),
                found: raw.schema.to_string(),
                declared: declared.to_string(),
            }),
        }
    }

    /// The row under a key.
    #[inline]
    pub fn get(&self, key: &K) -> Result<Option<R>, TableError> {
        self.read(key, |words| self.load(&words))
    }

    /// Whether there is a row under a key.
    pub fn contains(&self, key: &K) -> Result<bool, TableError> {
        Ok(self.read(key, |_| ())?.is_some())
    }

    /// The value of one column.
    pub fn column<T: Cell>(&self, key: &K, column: Column<R, T>) -> Result<Option<T>, TableError> {
        self.read(key, |words| T::load(|word| words.load(column.word + word)))
    }

    /// Puts a row under a key, in the place of the one that is there.
    #[inline]
    pub fn set(&self, key: &K, row: &R) -> Result<(), TableError> {
        self.change_or_add(key, |entry| self.put(entry, row))
    }

    /// Puts a row under a key if there is none; `false`: there is one, which stays as it is.
    pub fn insert(&self, key: &K, row: &R) -> Result<bool, TableError> {
        self.change_or_add(key, |entry| {
            if entry.is_present() {
                return Ok(false);
            }
            self.put(entry, row).map(|()| true)
        })
    }

    /// Lets `change` change the row under a key, while nobody else can, and returns what it returned;
    /// `None`: there is no row.
    ///
    /// Others wait meanwhile who write rows of the same stripe (about one in a thousand of a large
    /// table), so be quick, and do not write to this table: that fails, or waits for another who
    /// waits for this. To write to another table is possible if everybody does so in one order: two
    /// who do it crosswise wait for each other for ever. If `change` panics, the row stays as it was.
    pub fn update<T>(
        &self,
        key: &K,
        change: impl FnOnce(&mut R) -> T,
    ) -> Result<Option<T>, TableError> {
        self.change(key, |entry| {
            let Some(mut row) = self.present(entry) else {
                return Ok(None);
            };
            let result = change(&mut row);
            self.put(entry, &row)?;
            Ok(Some(result))
        })
    }

    /// Puts the row that `make` makes of the one that is there, if there is one; returns it. What
    /// is said of [`Table::update`] holds.
    pub fn upsert(&self, key: &K, make: impl FnOnce(Option<R>) -> R) -> Result<R, TableError> {
        let mut make = Some(make);
        let mut made = None;
        self.change_or_add(key, |entry| {
            // Called a second time if there was no room the first time.
            let row = match (made.take(), make.take()) {
                (Some(row), _) => row,
                (None, Some(make)) => make(self.present(entry)),
                (None, None) => return Ok(()),
            };
            let put = self.put(entry, &row);
            made = Some(row);
            put
        })?;
        made.ok_or_else(|| self.raw.full())
    }

    /// Puts `new` under a key if the row there equals `current`; says whether it did.
    pub fn compare_set(&self, key: &K, current: &R, new: &R) -> Result<bool, TableError> {
        self.change(key, |entry| {
            let Some(words) = entry.values() else {
                return Ok(false);
            };
            let mut same = true;
            current
                .store_row(&self.shape, |word, value| same &= words.load(word) == value)
                .map_err(|error| self.not_stored(error))?;
            if same {
                self.put(entry, new)?;
            }
            Ok(same)
        })
    }

    /// Adds to a number of a row and returns the sum; `None`: there is no row.
    ///
    /// # Errors
    ///
    /// [`TableError::Overflow`] if the sum is out of range; the number stays as it was.
    #[inline]
    pub fn incr<T: Number>(
        &self,
        key: &K,
        column: Column<R, T>,
        by: T,
    ) -> Result<Option<T>, TableError> {
        self.calculate(key, column, |number| number.plus(by))
    }

    /// Subtracts from a number of a row. As [`Table::incr`].
    #[inline]
    pub fn decr<T: Number>(
        &self,
        key: &K,
        column: Column<R, T>,
        by: T,
    ) -> Result<Option<T>, TableError> {
        self.calculate(key, column, |number| number.minus(by))
    }

    /// Sets one column of a row; `false`: there is no row.
    pub fn set_column<T: Cell>(
        &self,
        key: &K,
        column: Column<R, T>,
        value: &T,
    ) -> Result<bool, TableError> {
        self.change(key, |entry| Ok(self.put_column(entry, column, value)))
    }

    /// Sets one column of a row to `new` if it is `current`; says whether it did.
    pub fn compare_exchange<T: Cell + PartialEq>(
        &self,
        key: &K,
        column: Column<R, T>,
        current: &T,
        new: &T,
    ) -> Result<bool, TableError> {
        self.change(key, |entry| {
            let now = entry
                .values()
                .map(|words| T::load(|word| words.load(column.word + word)));
            Ok(now.as_ref() == Some(current) && self.put_column(entry, column, new))
        })
    }

    /// Takes the row under a key away and returns it.
    pub fn remove(&self, key: &K) -> Result<Option<R>, TableError> {
        self.remove_if(key, |_| true)
    }

    /// Takes the row under a key away if `condition` holds for it; returns it if so. What is said
    /// of [`Table::update`] holds.
    pub fn remove_if(
        &self,
        key: &K,
        condition: impl FnOnce(&R) -> bool,
    ) -> Result<Option<R>, TableError> {
        self.change(key, |entry| {
            let row = self.present(entry).filter(condition);
            if row.is_some() {
                entry.remove();
            }
            Ok(row)
        })
    }

    /// Takes all rows away for which `keep` does not hold.
    pub fn retain(&self, mut keep: impl FnMut(&K, &R) -> bool) -> Result<(), TableError> {
        use std::borrow::Borrow;

        for row in self.iter() {
            let (key, row) = row?;
            let key: &K = key.borrow();
            if !keep(key, &row) {
                // It may have changed since.
                self.remove_if(key, |row| !keep(key, row))?;
            }
        }
        Ok(())
    }

    /// Takes all rows away that are there when it begins.
    pub fn clear(&self) -> Result<(), TableError> {
        let cleared = self.raw.core.clear();
        cleared.map_err(|error| self.raw.lock_failed(error))
    }

    /// The rows, in no order. Every row that is there from the beginning to the end comes exactly
    /// once; one that comes or goes meanwhile, perhaps. Takes no lock.
    pub fn iter(&self) -> Iter<'_, R, K> {
        Iter::new(self)
    }

    /// Number of rows. While others write: of no one moment.
    pub fn len(&self) -> usize {
        self.raw.core.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether writers of two keys wait for one another: whether they are of one stripe.
    pub fn share_lock(&self, one: &K, other: &K) -> Result<bool, TableError> {
        let (one, other) = (self.key(one)?, self.key(other)?);
        let core = &self.raw.core;
        Ok(core.stripe_of(one) == core.stripe_of(other))
    }

    /// How the table is doing.
    pub fn stats(&self) -> TableStats {
        self.raw.stats()
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        self.raw.name()
    }

    /// Keys and columns.
    pub fn schema(&self) -> &Schema {
        self.raw.schema()
    }

    /// The descriptor to hand to other processes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.raw.fd()
    }

    fn calculate<T: Number>(
        &self,
        key: &K,
        column: Column<R, T>,
        calculate: impl FnOnce(T) -> Option<T>,
    ) -> Result<Option<T>, TableError> {
        self.change(key, |entry| {
            let Some(words) = entry.values() else {
                return Ok(None);
            };
            let number = T::load(|word| words.load(column.word + word));
            let Some(result) = calculate(number) else {
                return Err(TableError::Overflow {
                    table: self.raw.name.to_string(),
                });
            };
            result.store(|word, value| entry.put_word(column.word + word, value));
            Ok(Some(result))
        })
    }

    fn put_column<T: Cell>(
        &self,
        entry: &mut RowEntry<'_, '_>,
        column: Column<R, T>,
        new: &T,
    ) -> bool {
        if !entry.is_present() {
            return false;
        }
        if T::KIND.words() == 1 {
            new.store(|word, value| entry.put_word(column.word + word, value));
            return true;
        }
        entry.patch(|room| new.store(|word, value| room.put(column.word + word, value)));
        true
    }

    #[inline]
    fn read<T>(
        &self,
        key: &K,
        load: impl Fn(Words<'_, Region>) -> T,
    ) -> Result<Option<T>, TableError> {
        let key = self.key(key)?;
        let read = self.raw.core.read(key, load);
        read.map_err(|error| self.raw.lock_failed(error))
    }

    #[inline]
    fn change<T>(
        &self,
        key: &K,
        change: impl FnOnce(&mut RowEntry<'_, '_>) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        let entry = self.raw.core.entry(self.key(key)?, change);
        entry.map_err(|error| self.raw.lock_failed(error))?
    }

    /// As [`Table::change`], for what may add a row: it is done again if the table is full, and
    /// slots of processes that died have become free.
    #[inline]
    fn change_or_add<T>(
        &self,
        key: &K,
        mut change: impl FnMut(&mut RowEntry<'_, '_>) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        match self.change(key, &mut change) {
            Err(TableError::Full { .. }) if self.swept()? => self.change(key, change),
            result => result,
        }
    }

    fn swept(&self) -> Result<bool, TableError> {
        let swept = self.raw.core.sweep();
        swept.map_err(|error| self.raw.lock_failed(error))
    }

    #[inline]
    fn key<'k>(&self, key: &'k K) -> Result<RawKey<'k>, TableError> {
        match key.as_raw() {
            RawKey::Bytes(bytes) if bytes.len() > MAX_KEY => Err(TableError::KeyTooLong {
                table: self.raw.name.to_string(),
                len: bytes.len(),
            }),
            key => Ok(key),
        }
    }

    #[inline]
    fn put(&self, entry: &mut RowEntry<'_, '_>, row: &R) -> Result<(), TableError> {
        entry
            .put(|room| row.store_row(&self.shape, |word, value| room.put(word, value)))
            .map_err(|error| self.not_stored(error))
    }

    fn present(&self, entry: &RowEntry<'_, '_>) -> Option<R> {
        entry.values().map(|words| self.load(&words))
    }

    #[inline]
    pub(super) fn load(&self, words: &Words<'_, Region>) -> R {
        R::load_row(&self.shape, |word| words.load(word))
    }

    fn not_stored(&self, error: StoreError) -> TableError {
        let table = self.raw.name.to_string();
        match error {
            StoreError::Full => self.raw.full(),
            StoreError::TooLong(source) => TableError::ValueTooLong { table, source },
            StoreError::OtherSchema(declared) => TableError::OtherSchema {
                table,
                found: self.raw.schema.to_string(),
                declared,
            },
        }
    }
}

impl<K: Key + ?Sized> Table<Record, K> {
    /// Makes an empty table with columns that are known at run time.
    ///
    /// # Errors
    ///
    /// Columns or rows that are not possible, keys that are not `K`, or no memory.
    pub fn create_with(name: &str, schema: Schema, rows: Rows) -> Result<Self, TableError> {
        Self::from_raw(RawTable::create(&TableSpec {
            name: name.to_owned(),
            schema,
            rows,
        })?)
    }

    /// A row of zeros and empty texts.
    pub fn record(&self) -> Record {
        Record::of(&self.raw.schema)
    }

    /// The column of this name, for [`Table::incr`] and others.
    ///
    /// # Errors
    ///
    /// There is no such column, or it is not of this type.
    pub fn find_column<T: Cell>(&self, name: &str) -> Result<Column<Record, T>, TableError> {
        match self.raw.schema.find(name) {
            Some((_, word, kind)) if kind == T::KIND => Ok(Column::at(word)),
            _ => Err(TableError::NoColumn {
                table: self.raw.name.to_string(),
                column: name.to_owned(),
                wanted: T::KIND.to_string(),
                schema: self.raw.schema.to_string(),
            }),
        }
    }
}

impl<R: Content, K: Key + ?Sized> Clone for Table<R, K> {
    fn clone(&self) -> Self {
        Table {
            raw: self.raw.clone(),
            shape: self.shape.clone(),
            types: PhantomData,
        }
    }
}

impl<R: Content, K: Key + ?Sized> Debug for Table<R, K> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.raw.name)
            .field("schema", &self.raw.schema)
            .finish_non_exhaustive()
    }
}

/// A number that a column can be.
pub trait Number: Cell + Copy {
    #[doc(hidden)]
    fn plus(self, by: Self) -> Option<Self>;
    #[doc(hidden)]
    fn minus(self, by: Self) -> Option<Self>;
}

impl Number for i64 {
    fn plus(self, by: i64) -> Option<i64> {
        self.checked_add(by)
    }

    fn minus(self, by: i64) -> Option<i64> {
        self.checked_sub(by)
    }
}

impl Number for u64 {
    fn plus(self, by: u64) -> Option<u64> {
        self.checked_add(by)
    }

    fn minus(self, by: u64) -> Option<u64> {
        self.checked_sub(by)
    }
}

/// Never out of range: the result may be infinite.
impl Number for f64 {
    fn plus(self, by: f64) -> Option<f64> {
        Some(self + by)
    }

    fn minus(self, by: f64) -> Option<f64> {
        Some(self - by)
    }
}

type RowEntry<'e, 'a> = Entry<'e, 'a, Region, Mutexes>;

/// Why a row was not stored.
#[doc(hidden)]
#[derive(Debug)]
pub enum StoreError {
    Full,
    TooLong(ValueTooLong),
    /// It has these columns.
    OtherSchema(String),
}

impl From<Full> for StoreError {
    fn from(_: Full) -> Self {
        StoreError::Full
    }
}

impl From<ValueTooLong> for StoreError {
    fn from(error: ValueTooLong) -> Self {
        StoreError::TooLong(error)
    }
}
