//! What can go wrong with a table.

use super::row::ValueTooLong;
use super::schema::SchemaError;
use crate::region::RegionError;
use crate::robust::LockError;

/// Why an operation on a table failed. It has changed nothing then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// There are as many rows as the table can have.
    #[error("table `{table}` is full: it has the {max} rows that it was made for at most")]
    Full {
        /// Name of the table.
        table: String,
        /// Its [`Rows::max`](super::Rows::max).
        max: usize,
    },
    /// A key is too long.
    #[error("a key of {len} bytes is too long for table `{table}`: 64 are possible")]
    KeyTooLong {
        /// Name of the table.
        table: String,
        /// Bytes of the key.
        len: usize,
    },
    /// A value is too long for its column. Nothing is ever cut.
    #[error("table `{table}`: {source}")]
    ValueTooLong {
        /// Name of the table.
        table: String,
        /// Which column, and how long.
        source: ValueTooLong,
    },
    /// A number would leave the range of its type.
    #[error("table `{table}`: the number would leave the range of its column")]
    Overflow {
        /// Name of the table.
        table: String,
    },
    /// The table has other columns, or other keys.
    #[error(
        "table `{table}` is not what this program declares. It has: {found}. Declared: {declared}. \
         A table keeps its columns while the server runs: stop and start it instead of reloading"
    )]
    OtherSchema {
        /// Name of the table.
        table: String,
        /// What the table has.
        found: String,
        /// What it was expected to have.
        declared: String,
    },
    /// There is no such column, or it has another type.
    #[error("table `{table}` has no column `{column}` of type {wanted}: it has {schema}")]
    NoColumn {
        /// Name of the table.
        table: String,
        /// The name that was asked for.
        column: String,
        /// The type that was asked for.
        wanted: String,
        /// What the table has.
        schema: String,
    },
    /// The columns cannot be those of a table.
    #[error("table `{table}`: {source}")]
    Schema {
        /// Name of the table.
        table: String,
        /// What is wrong.
        source: SchemaError,
    },
    /// The number of rows is out of range.
    #[error(
        "table `{table}` cannot be made for {first} rows at first and {max} at most: between 1 and \
         {most} are possible, and no more at first than at most", most = super::Rows::MAX
    )]
    Rows {
        /// Name of the table.
        table: String,
        /// [`Rows::first`](super::Rows::first).
        first: usize,
        /// [`Rows::max`](super::Rows::max).
        max: usize,
    },
    /// The table was used from inside of a function that one of its operations called: from
    /// [`Table::update`](super::Table::update), say. That would wait for itself.
    #[error("table `{table}` cannot be written by a function that it has called itself")]
    Reentrant {
        /// Name of the table.
        table: String,
    },
    /// The rows need more than a process can map.
    #[error(
        "table `{table}`: {rows} rows of these columns need {bytes} bytes of address space, 2^46 are \
         possible: declare fewer rows, or shorter columns"
    )]
    TooLarge {
        /// Name of the table.
        table: String,
        /// Most rows.
        rows: usize,
        /// Bytes that all of them would need.
        bytes: usize,
    },
    /// The shared memory cannot be made or attached to, or is not a table.
    #[error("table `{table}`: {source}")]
    Memory {
        /// Name of the table.
        table: String,
        /// What the system said.
        source: RegionError,
    },
    /// The lock of a row failed: the memory was overwritten.
    #[error("table `{table}`: {source}")]
    Lock {
        /// Name of the table.
        table: String,
        /// What the system said.
        source: LockError,
    },
    /// The header is not one that this version writes.
    #[error(
        "table `{table}` was made by another version, or overwritten: its header is not understood"
    )]
    Header {
        /// Name of the table.
        table: String,
    },
}
