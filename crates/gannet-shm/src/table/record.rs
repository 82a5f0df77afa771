//! Rows whose columns are known at run time only.

use std::fmt::{self, Debug, Display, Formatter};
use std::sync::Arc;

use super::key::Key;
use super::row::{Cell, ValueTooLong, cell, load_bytes, store_bytes};
use super::schema::{ColumnKind, Schema};
use super::typed::{Content, StoreError};

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of a column of signed integers.
    I64(i64),
    /// Of a column of unsigned integers.
    U64(u64),
    /// Of a column of floating-point numbers.
    F64(f64),
    /// Of a column of truth values.
    Bool(bool),
    /// Of a column of texts.
    Text(String),
    /// Of a column of bytes, of any or of one length.
    Bytes(Vec<u8>),
}

/// A row of a table whose columns were put together at run time: values by name.
///
/// ```
/// use gannet_shm::table::{KeyKind, Record, Rows, Schema, Table, Value};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let schema = Schema::new(KeyKind::U64).i64("hits").text("name", 16);
/// let table = Table::<Record, u64>::create_with("users", schema, Rows::up_to(1000))?;
///
/// let mut row = table.record();
/// row.set("name", "Ann")?;
/// table.set(&7, &row)?;
/// table.incr(&7, table.find_column::<i64>("hits")?, 2)?;
///
/// let row = table.get(&7)?.ok_or("no row")?;
/// assert_eq!(row.value("hits"), Some(&Value::I64(2)));
/// assert_eq!(row.to_string(), "hits 2, name \"Ann\"");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct Record {
    schema: Arc<Schema>,
    values: Vec<Value>,
}

impl Record {
    /// A row of zeros and empty texts. For rows of a table, [`Table::record`](super::Table::record)
    /// is faster.
    pub fn new(schema: &Schema) -> Record {
        Record::of(&Arc::new(schema.clone()))
    }

    pub(super) fn of(schema: &Arc<Schema>) -> Record {
        let empty = schema.columns().map(|(_, kind)| match kind {
            ColumnKind::I64 => Value::I64(0),
            ColumnKind::U64 => Value::U64(0),
            ColumnKind::F64 => Value::F64(0.0),
            ColumnKind::Bool => Value::Bool(false),
            ColumnKind::Text(_) => Value::Text(String::new()),
            ColumnKind::Bytes(_) => Value::Bytes(Vec::new()),
            ColumnKind::Array(len) => Value::Bytes(vec![0; len]),
        });
        Record {
            values: empty.collect(),
            schema: schema.clone(),
        }
    }

    /// The value of a column. `None`: there is no such column.
    pub fn value(&self, column: &str) -> Option<&Value> {
        let (index, ..) = self.schema.find(column)?;
        self.values.get(index)
    }

    /// Gives a column a value.
    ///
    /// # Errors
    ///
    /// There is no such column, or its values are of another type, or shorter.
    pub fn set(&mut self, column: &str, value: impl Into<Value>) -> Result<(), RecordError> {
        let value = value.into();
        let unknown = || RecordError::NoColumn {
            column: column.to_owned(),
            schema: self.schema.to_string(),
        };
        let (index, _, kind) = self.schema.find(column).ok_or_else(unknown)?;
        check(column, kind, &value)?;
        self.values[index] = value;
        Ok(())
    }

    /// Names and values, in the order of the columns.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.schema
            .columns()
            .map(|(name, _)| name)
            .zip(&self.values)
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {value}")?;
        }
        Ok(())
    }
}

impl Debug for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Content for Record {
    type Shape = Arc<Schema>;

    fn store_row(
        &self,
        shape: &Arc<Schema>,
        mut put: impl FnMut(usize, u64),
    ) -> Result<(), StoreError> {
        // Records that come from the table have its very schema.
        if !Arc::ptr_eq(shape, &self.schema) && *shape != self.schema {
            return Err(StoreError::OtherSchema(self.schema.to_string()));
        }
        let mut at = 0;
        for ((name, kind), value) in shape.columns().zip(&self.values) {
            value.store(name, kind, |word, value| put(at + word, value))?;
            at += kind.words();
        }
        Ok(())
    }

    fn load_row(shape: &Arc<Schema>, word: impl Fn(usize) -> u64) -> Self {
        let mut at = 0;
        let values = shape.columns().map(|(_, kind)| {
            let value = Value::load(kind, |index| word(at + index));
            at += kind.words();
            value
        });
        Record {
            values: values.collect(),
            schema: shape.clone(),
        }
    }

    fn shape_of<K: Key + ?Sized>(schema: &Arc<Schema>) -> Result<Arc<Schema>, Schema> {
        if schema.key() == K::KIND {
            return Ok(schema.clone());
        }
        let columns = schema.columns();
        Err(
            columns.fold(Schema::new(K::KIND), |declared, (name, kind)| {
                declared.column(name, kind)
            }),
        )
    }
}

impl Value {
    /// The type that a column of such values has; the sizes are those of this value.
    pub fn kind(&self) -> ColumnKind {
        match self {
            Value::I64(_) => ColumnKind::I64,
            Value::U64(_) => ColumnKind::U64,
            Value::F64(_) => ColumnKind::F64,
            Value::Bool(_) => ColumnKind::Bool,
            Value::Text(text) => ColumnKind::Text(text.len()),
            Value::Bytes(bytes) => ColumnKind::Bytes(bytes.len()),
        }
    }

    fn store(
        &self,
        column: &str,
        kind: ColumnKind,
        mut put: impl FnMut(usize, u64),
    ) -> Result<(), ValueTooLong> {
        match (self, kind) {
            (Value::I64(number), _) => number.store(put),
            (Value::U64(number), _) => number.store(put),
            (Value::F64(number), _) => number.store(put),
            (Value::Bool(truth), _) => truth.store(put),
            (Value::Text(text), ColumnKind::Text(max)) => {
                cell::store_text(column, max, text, put)?;
            }
            (Value::Bytes(bytes), ColumnKind::Bytes(max)) => {
                cell::store_bytes(column, max, bytes, put)?;
            }
            (Value::Bytes(bytes), _) => store_bytes(bytes, &mut put),
            // `Record::set` has compared the types.
            (Value::Text(_), _) => {}
        }
        Ok(())
    }

    fn load(kind: ColumnKind, word: impl Fn(usize) -> u64) -> Value {
        match kind {
            ColumnKind::I64 => Value::I64(Cell::load(word)),
            ColumnKind::U64 => Value::U64(Cell::load(word)),
            ColumnKind::F64 => Value::F64(Cell::load(word)),
            ColumnKind::Bool => Value::Bool(Cell::load(word)),
            ColumnKind::Text(max) => Value::Text(cell::load_text(max, word)),
            ColumnKind::Bytes(max) => Value::Bytes(cell::load_bytes(max, word)),
            ColumnKind::Array(len) => {
                let mut bytes = vec![0; len];
                load_bytes(&mut bytes, word);
                Value::Bytes(bytes)
            }
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Value::I64(number) => Display::fmt(number, f),
            Value::U64(number) => Display::fmt(number, f),
            Value::F64(number) => Display::fmt(number, f),
            Value::Bool(truth) => Display::fmt(truth, f),
            Value::Text(text) => Debug::fmt(text, f),
            Value::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
        }
    }
}

macro_rules! values {
    ($($from:ty => $variant:ident;)*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Value {
                Value::$variant(value.into())
            }
        }
    )*};
}

values! {
    i64 => I64;
    u64 => U64;
    f64 => F64;
    bool => Bool;
    &str => Text;
    String => Text;
    &[u8] => Bytes;
    Vec<u8> => Bytes;
}

/// Why a value cannot be that of a column of a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is no such column.
    #[error("there is no column `{column}`: there are {schema}")]
    NoColumn {
        /// The name that was asked for.
        column: String,
        /// The columns.
        schema: String,
    },
    /// The column's values are of another type, or of another length.
    #[error("column `{column}` is {kind}: a value that is {value} is none of its")]
    Kind {
        /// The column.
        column: String,
        /// Its type.
        kind: ColumnKind,
        /// That of the value.
        value: ColumnKind,
    },
    /// The value is too long.
    #[error(transparent)]
    TooLong(#[from] ValueTooLong),
}

fn check(column: &str, kind: ColumnKind, value: &Value) -> Result<(), RecordError> {
    let (len, max) = match (value.kind(), kind) {
        (ColumnKind::Text(len), ColumnKind::Text(max))
        | (ColumnKind::Bytes(len), ColumnKind::Bytes(max)) => (len, max),
        (ColumnKind::Bytes(len), ColumnKind::Array(exact)) if len == exact => return Ok(()),
        (value, kind) if value == kind => return Ok(()),
        (value, kind) => {
            return Err(RecordError::Kind {
                column: column.to_owned(),
                kind,
                value,
            });
        }
    };
    if len > max {
        let column = column.to_owned();
        return Err(ValueTooLong { column, len, max }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{KeyKind, Rows, Table, TableError};

    fn schema() -> Schema {
        Schema::new(KeyKind::Text)
            .i64("i")
            .u64("u")
            .f64("f")
            .bool("b")
            .text("t", 5)
            .bytes("y", 3)
            .column("a", ColumnKind::Array(9))
    }

    #[test]
    fn values_of_all_types_come_back() {
        let table = Table::<Record>::create_with("t", schema(), Rows::up_to(4)).unwrap();
        let mut row = table.record();
        row.set("i", -1_i64).unwrap();
        row.set("u", u64::MAX).unwrap();
        row.set("f", 0.5).unwrap();
        row.set("b", true).unwrap();
        row.set("t", "hällo").unwrap_err();
        row.set("t", "hallo").unwrap();
        row.set("y", vec![0, 1, 2]).unwrap();
        row.set("a", &b"123456789"[..]).unwrap();
        table.set("k", &row).unwrap();
        assert_eq!(table.get("k").unwrap(), Some(row));
    }

    #[test]
    fn refuse_values_of_another_type() {
        let mut row = Record::new(&schema());
        for (column, value) in [
            ("i", Value::U64(1)),
            ("t", Value::Bytes(vec![])),
            ("a", Value::Bytes(vec![1])),
        ] {
            let refused = row.set(column, value);
            assert!(matches!(refused, Err(RecordError::Kind { .. })), "{column}");
        }
        let refused = row.set("x", 1_i64).unwrap_err();
        assert!(matches!(refused, RecordError::NoColumn { .. }));
    }

    #[test]
    fn refuse_a_record_of_another_table() {
        let table = Table::<Record>::create_with("t", schema(), Rows::up_to(4)).unwrap();
        let other = Record::new(&Schema::new(KeyKind::Text).i64("i"));
        let refused = table.set("k", &other);
        assert!(matches!(refused, Err(TableError::OtherSchema { .. })));
        assert!(table.is_empty());
    }
}
