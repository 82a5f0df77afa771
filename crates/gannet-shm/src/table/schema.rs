//! What a table's rows look like: the kind of key, and the columns.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::key::{Key, KeyKind};
use super::row::Row;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnKind {
    /// A signed integer.
    I64,
    /// An unsigned integer.
    U64,
    /// A floating-point number.
    F64,
    /// `true` or `false`.
    Bool,
    /// UTF-8 text of up to so many bytes.
    Text(usize),
    /// Up to so many bytes.
    Bytes(usize),
    /// Exactly so many bytes.
    Array(usize),
}

impl ColumnKind {
    /// 64-bit words that a value takes: texts and bytes have one for their length.
    pub const fn words(self) -> usize {
        match self {
            ColumnKind::I64 | ColumnKind::U64 | ColumnKind::F64 | ColumnKind::Bool => 1,
            ColumnKind::Text(max) | ColumnKind::Bytes(max) => 1 + max.div_ceil(8),
            ColumnKind::Array(len) => len.div_ceil(8),
        }
    }

    const fn size(self) -> Option<usize> {
        match self {
            ColumnKind::Text(size) | ColumnKind::Bytes(size) | ColumnKind::Array(size) => {
                Some(size)
            }
            _ => None,
        }
    }
}

impl Display for ColumnKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ColumnKind::I64 => f.write_str("i64"),
            ColumnKind::U64 => f.write_str("u64"),
            ColumnKind::F64 => f.write_str("f64"),
            ColumnKind::Bool => f.write_str("bool"),
            ColumnKind::Text(max) => write!(f, "text({max})"),
            ColumnKind::Bytes(max) => write!(f, "bytes({max})"),
            ColumnKind::Array(len) => write!(f, "array({len})"),
        }
    }
}

impl FromStr for ColumnKind {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let unknown = || SchemaError::Syntax(text.to_owned());
        Ok(match text {
            "i64" => ColumnKind::I64,
            "u64" => ColumnKind::U64,
            "f64" => ColumnKind::F64,
            "bool" => ColumnKind::Bool,
            sized => {
                let (name, size) = sized
                    .strip_suffix(')')
                    .and_then(|sized| sized.split_once('('))
                    .ok_or_else(unknown)?;
                let size = size.parse().map_err(|_| unknown())?;
                match name {
                    "text" => ColumnKind::Text(size),
                    "bytes" => ColumnKind::Bytes(size),
                    "array" => ColumnKind::Array(size),
                    _ => return Err(unknown()),
                }
            }
        })
    }
}

/// A column of a [`Row`] type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Name of the column.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnKind,
}

/// The kind of key and the columns of a table.
///
/// It comes from a [`Row`] type, or is put together at run time:
///
/// ```
/// use gannet_shm::table::{KeyKind, Schema};
///
/// let schema = Schema::new(KeyKind::Text).i64("hits").f64("score").text("name", 32);
/// assert_eq!(schema.to_string(), "key text, hits i64, score f64, name text(32)");
/// assert_eq!(schema.to_string().parse(), Ok(schema));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    key: KeyKind,
    columns: Vec<(String, ColumnKind)>,
}

impl Schema {
    /// Most columns of a table.
    pub const MAX_COLUMNS: usize = 256;
    /// Most bytes of one value.
    pub const MAX_VALUE: usize = 65_535;
    /// Longest name of a column, in bytes.
    pub const MAX_NAME: usize = 64;

    /// No columns yet.
    pub fn new(key: KeyKind) -> Schema {
        Schema {
            key,
            columns: Vec::new(),
        }
    }

    /// The schema of a table of `R` under keys of type `K`.
    pub fn of<R: Row, K: Key + ?Sized>() -> Schema {
        let columns = R::COLUMNS.iter();
        Schema {
            key: K::KIND,
            columns: columns
                .map(|column| (column.name.to_owned(), column.kind))
                .collect(),
        }
    }

    /// Adds a column of signed integers.
    pub fn i64(self, name: &str) -> Schema {
        self.column(name, ColumnKind::I64)
    }

    /// Adds a column of unsigned integers.
    pub fn u64(self, name: &str) -> Schema {
        self.column(name, ColumnKind::U64)
    }

    /// Adds a column of floating-point numbers.
    pub fn f64(self, name: &str) -> Schema {
        self.column(name, ColumnKind::F64)
    }

    /// Adds a column of truth values.
    pub fn bool(self, name: &str) -> Schema {
        self.column(name, ColumnKind::Bool)
    }

    /// Adds a column of texts of up to `max` bytes.
    pub fn text(self, name: &str, max: usize) -> Schema {
        self.column(name, ColumnKind::Text(max))
    }

    /// Adds a column of up to `max` bytes.
    pub fn bytes(self, name: &str, max: usize) -> Schema {
        self.column(name, ColumnKind::Bytes(max))
    }

    /// Adds a column.
    pub fn column(mut self, name: &str, kind: ColumnKind) -> Schema {
        self.columns.push((name.to_owned(), kind));
        self
    }

    /// The kind of key.
    pub fn key(&self) -> KeyKind {
        self.key
    }

    /// Names and types of the columns, in order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, ColumnKind)> {
        self.columns
            .iter()
            .map(|(name, kind)| (name.as_str(), *kind))
    }

    /// Number, first word and type of the column with this name.
    pub fn find(&self, name: &str) -> Option<(usize, usize, ColumnKind)> {
        let mut word = 0;
        for (index, (column, kind)) in self.columns.iter().enumerate() {
            if column == name {
                return Some((index, word, *kind));
            }
            word += kind.words();
        }
        None
    }

    /// 64-bit words of the values of a row.
    pub fn words(&self) -> usize {
        self.columns.iter().map(|(_, kind)| kind.words()).sum()
    }

    /// Whether a table can be made of it.
    ///
    /// # Errors
    ///
    /// No column, too many, a name that is empty, too long, given twice or has characters other
    /// than letters, digits and `_`, or a value of no or too many bytes.
    pub fn check(&self) -> Result<(), SchemaError> {
        if self.columns.is_empty() {
            return Err(SchemaError::NoColumns);
        }
        if self.columns.len() > Self::MAX_COLUMNS {
            return Err(SchemaError::TooManyColumns(self.columns.len()));
        }
        for (index, (name, kind)) in self.columns.iter().enumerate() {
            let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
            if name.is_empty() || name.len() > Self::MAX_NAME || !name.bytes().all(plain) {
                return Err(SchemaError::Name(name.clone()));
            }
            if self.columns[..index].iter().any(|(other, _)| other == name) {
                return Err(SchemaError::Twice(name.clone()));
            }
            if let Some(size) = kind.size()
                && !(1..=Self::MAX_VALUE).contains(&size)
            {
                return Err(SchemaError::Size {
                    column: name.clone(),
                    size,
                });
            }
        }
        Ok(())
    }
}

impl Display for Schema {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.key)?;
        for (name, kind) in &self.columns {
            write!(f, ", {name} {kind}")?;
        }
        Ok(())
    }
}

impl FromStr for Schema {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let unknown = || SchemaError::Syntax(text.to_owned());
        let mut parts = text.split(", ");
        let key = parts.next().and_then(|key| key.strip_prefix("key "));
        let mut schema = Schema::new(key.ok_or_else(unknown)?.parse()?);
        for part in parts {
            let (name, kind) = part.split_once(' ').ok_or_else(unknown)?;
            schema = schema.column(name, kind.parse()?);
        }
        schema.check()?;
        Ok(schema)
    }
}

/// Why no table can have such columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There are none.
    #[error("a table needs at least one column")]
    NoColumns,
    /// There are more than [`Schema::MAX_COLUMNS`].
    #[error("{0} columns are too many: a table can have {max}", max = Schema::MAX_COLUMNS)]
    TooManyColumns(usize),
    /// A name cannot be a column's.
    #[error(
        "`{0}` cannot be the name of a column: 1 to {max} letters, digits and `_` can",
        max = Schema::MAX_NAME
    )]
    Name(String),
    /// Two columns have one name.
    #[error("two columns are called `{0}`")]
    Twice(String),
    /// A value of no bytes, or of too many.
    #[error(
        "column `{column}` cannot hold {size} bytes: 1 to {max} are possible",
        max = Schema::MAX_VALUE
    )]
    Size {
        /// The column.
        column: String,
        /// What it was to hold.
        size: usize,
    },
    /// The text is no schema.
    #[error("`{0}` is not understood: expected `key text, NAME i64, NAME text(32), ...`")]
    Syntax(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::new(KeyKind::U64).i64("a").text("b", 9).bool("c")
    }

    #[test]
    fn columns_lie_one_behind_the_other() {
        assert_eq!(schema().find("a"), Some((0, 0, ColumnKind::I64)));
        assert_eq!(schema().find("c"), Some((2, 4, ColumnKind::Bool)));
        assert_eq!(schema().find("d"), None);
        assert_eq!(schema().words(), 5);
    }

    #[test]
    fn a_schema_is_read_as_it_was_written() {
        let all = schema()
            .u64("d")
            .f64("e")
            .bytes("f", 1)
            .column("g", ColumnKind::Array(20));
        assert_eq!(all.to_string().parse(), Ok(all));
        for broken in [
            "",
            "key",
            "key blob, a i64",
            "key text",
            "key text, a",
            "key text, a i63",
        ] {
            assert!(broken.parse::<Schema>().is_err(), "{broken}");
        }
        assert!("key text, a text(0)".parse::<Schema>().is_err());
        assert!("key text, a text(70000)".parse::<Schema>().is_err());
    }

    #[test]
    fn refuse_what_cannot_be_a_table() {
        assert_eq!(
            Schema::new(KeyKind::Text).check(),
            Err(SchemaError::NoColumns)
        );
        assert_eq!(
            schema().i64("a").check(),
            Err(SchemaError::Twice("a".into()))
        );
        for name in ["", "a b", "a,b", "ä", &"x".repeat(65)] {
            assert_eq!(
                schema().i64(name).check(),
                Err(SchemaError::Name(name.into()))
            );
        }
        let many = (0..257).fold(Schema::new(KeyKind::Text), |schema, n| {
            schema.i64(&format!("c{n}"))
        });
        assert_eq!(many.check(), Err(SchemaError::TooManyColumns(257)));
    }
}
