//! Why a counter, lock or table was not found.

use std::fmt;

use gannet_shm::table::TableError;

/// What a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A counter.
    Counter,
    /// A lock.
    Lock,
    /// A table.
    Table,
}

/// Why there is no such counter, lock or table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// The server was not started with it.
    #[error(
        "there is no {kind} `{name}` (the server has {has}): declare it by `Server::{}` in `main`, and \
         stop and start the server; a reload cannot add it", kind.method()
    )]
    Unknown {
        /// What was asked for.
        kind: ObjectKind,
        /// Under this name.
        name: String,
        /// The names that there are.
        has: String,
    },
    /// The name stands for something else.
    #[error("`{name}` is a {found}, not a {wanted}")]
    OtherKind {
        /// The name.
        name: String,
        /// What was asked for.
        wanted: ObjectKind,
        /// What it is.
        found: ObjectKind,
    },
    /// The table has other columns or keys.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl ObjectKind {
    fn method(self) -> &'static str {
        match self {
            ObjectKind::Counter => "counter",
            ObjectKind::Lock => "lock",
            ObjectKind::Table => "table",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method())
    }
}
