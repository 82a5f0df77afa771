//! Tables that every process of a server reads and writes.
//!
//! A [`Table`] maps keys (text, bytes or numbers) to rows of typed columns. It lies in one region
//! that is reserved for the most rows and filled as they come; it grows without a pause. Reading
//! takes no lock. A row is never seen half written, whoever dies while writing it: how, stands in
//! `core`.
//!
//! | module | idea |
//! |---|---|
//! | `key`, `row`, `record`, `schema` | what is in a table: keys, rows that are structs, rows by name of column |
//! | `raw` | a table in a region, whatever its rows are: making it, attaching to it, refusing a stranger |
//! | `typed`, `iter` | the operations |
//! | `core` | slots, stripes, buckets and locks: words in shared memory, and no types |

mod core;
mod error;
mod iter;
mod key;
mod raw;
mod record;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod typed;

pub use self::core::plan::Rows;
pub use error::TableError;
pub use iter::Iter;
pub use key::{Key, KeyKind, MAX_KEY};
pub use raw::{RawTable, TableSpec, TableStats};
pub use record::{Record, RecordError, Value};
pub use row::{Bin, Cell, Column, Row, Str, TooLong, ValueTooLong, cell};
pub use schema::{ColumnKind, ColumnSpec, Schema, SchemaError};
pub use typed::{Content, Number, Table};
