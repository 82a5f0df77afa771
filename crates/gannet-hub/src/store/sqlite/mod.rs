//! A store in one SQLite file.
//!
//! The file is in WAL mode: readers never wait. Writers of all processes take turns
//! (`turn`); those of one process share a transaction (`writer`).
//!
//! `synchronous = FULL`: a commit waits for the disk, so what was accepted survives a power
//! failure too. That costs one fsync a transaction, not one a message, because messages that
//! arrive during an fsync share the next. `NORMAL` would be faster for a lone sender, and would
//! forget the last moments when the power fails, which is not what "accepted" means.

use std::{path::Path, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::{
    Connection, Row, SqliteConnection, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};
use tokio::sync::{mpsc, oneshot};
use ulid::Ulid;

use super::{Append, Appended, Limits, Page, Part, Store, StoreError};
use crate::{address::Channel, message::Message};

mod turn;
mod writer;

/// A store in one SQLite file.
pub struct SqliteStore {
    epoch: Ulid,
    readers: SqlitePool,
    writer: mpsc::Sender<writer::Job>,
}

impl SqliteStore {
    /// Opens the file, makes it or brings it up to date where needed.
    ///
    /// Needs a tokio runtime, on which a task writes from then on.
    pub async fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let turns = turns(path)?;
        let (connection, epoch) = connect(path, &turns).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_lazy_with(options(path).pragma("query_only", "ON"));
        Ok(SqliteStore {
            epoch,
            readers,
            writer: writer::start(connection, turns, limits),
        })
    }

    async fn read_page(
        &self,
        channel: &Channel,
        part: Part,
        limit: usize,
    ) -> Result<Page, StoreError> {
        // One transaction: nothing is pruned between the queries.
        let mut snapshot = self.readers.begin().await?;
        let row = sqlx::query(
            "SELECT id, last, (SELECT min(offset) FROM message WHERE channel = channel.id) \
             FROM channel WHERE name = ?",
        )
        .bind(channel.as_str())
        .fetch_optional(&mut *snapshot)
        .await?;
        let Some(row) = row else {
            return Ok(Page {
                messages: Vec::new(),
                last: 0,
                first: 1,
            });
        };
        let id: i64 = row.try_get(0)?;
        let last = offset(row.try_get(1)?);
        let first = row.try_get::<Option<i64>, _>(2)?.map_or(last + 1, offset);

        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = match part {
            Part::Newest => sqlx::query(NEWEST).bind(id).bind(i64::MAX).bind(limit),
            Part::Before(before) => sqlx::query(NEWEST)
                .bind(id)
                .bind(integer(before))
                .bind(limit),
            Part::Since(since) => sqlx::query(SINCE).bind(id).bind(integer(since)).bind(limit),
        };
        let rows = query.fetch_all(&mut *snapshot).await?;
        let mut messages = rows.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        if !matches!(part, Part::Since(_)) {
            messages.reverse();
        }
        Ok(Page {
            messages,
            last,
            first,
        })
    }

    async fn read_recent(
        &self,
        since: u64,
        limit: usize,
    ) -> Result<Vec<(Channel, Message)>, StoreError> {
        let rows = sqlx::query(RECENT)
            .bind(integer(since))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let name: &str = row.try_get("name")?;
                Ok((name.parse().map_err(corrupt)?, message(row)?))
            })
            .collect()
    }
}

impl Store for SqliteStore {
    fn epoch(&self) -> Ulid {
        self.epoch
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, StoreError>> {
        async move {
            let (reply, outcome) = oneshot::channel();
            let gone = || StoreError::Other(String::from("the task that writes has ended"));
            self.writer
                .send(writer::Job { append, reply })
                .await
                .map_err(|_| gone())?;
            outcome.await.map_err(|_| gone())?
        }
        .boxed()
    }

    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        part: Part,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.read_page(channel, part, limit).boxed()
    }

    fn recent(
        &self,
        since: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Channel, Message)>, StoreError>> {
        self.read_recent(since, limit).boxed()
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<SqliteError>())
            .and_then(|error| sqlx::error::DatabaseError::code(error)?.parse::<i32>().ok());
        // The low byte is the primary result code: sqlite.org/rescode.html.
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => StoreError::Busy,
            Some(13) => StoreError::Full,
            _ => StoreError::Other(error.to_string()),
        }
    }
}

/// Makes the file, or brings it up to date, for those that will open it.
pub(crate) async fn prepare(path: &Path) -> Result<(), StoreError> {
    let (connection, _) = connect(path, &turns(path)?).await?;
    Ok(connection.close().await?)
}

/// Opens the file, with its schema up to date, and tells its epoch.
///
/// In turn, like a write: while another process makes the same file a WAL database, or recovers it
/// after a crash, SQLite does not wait as it does elsewhere but says that it is busy.
async fn connect(path: &Path, turns: &turn::Turns) -> Result<(SqliteConnection, Ulid), StoreError> {
    let _turn = turns.take().await?;
    let mut connection = SqliteConnection::connect_with(&options(path)).await?;
    let epoch = migrate(&mut connection).await?;
    Ok((connection, epoch))
}

/// The queue of the file's writers, in a file beside it.
fn turns(path: &Path) -> Result<turn::Turns, StoreError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push("-lock");
    turn::Turns::open(Path::new(&lock)).map_err(|error| StoreError::Other(error.to_string()))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Brings the schema up to date and returns the epoch.
async fn migrate(connection: &mut SqliteConnection) -> Result<Ulid, StoreError> {
    // Several processes may be here at once: the first that gets the lock does the work.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *transaction)
        .await?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(StoreError::Other(format!(
            "the database has version {version}, this program knows versions up to {}: \
             use a newer gannet",
            MIGRATIONS.len()
        )));
    }
    for migration in &MIGRATIONS[done..] {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
    }
    sqlx::query("INSERT INTO meta (name, value) VALUES ('epoch', ?) ON CONFLICT DO NOTHING")
        .bind(Ulid::generate().to_string())
        .execute(&mut *transaction)
        .await?;
    let epoch: String = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'epoch'")
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    epoch.parse().map_err(corrupt)
}

/// A row of `message`, by column names.
fn message(row: &SqliteRow) -> Result<Message, StoreError> {
    let sender: Option<&str> = row.try_get("sender")?;
    let data: String = row.try_get("data")?;
    Ok(Message {
        offset: Some(offset(row.try_get("offset")?)),
        id: row.try_get::<&str, _>("id")?.parse().map_err(corrupt)?,
        from: sender.map(str::parse).transpose().map_err(corrupt)?,
        event: row.try_get::<&str, _>("event")?.into(),
        data: serde_json::value::RawValue::from_string(data)
            .map_err(corrupt)?
            .into(),
        time: offset(row.try_get("time")?),
        key: row.try_get::<Option<&str>, _>("key")?.map(Into::into),
    })
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Other(format!(
        "the database has a row that the hub did not write: {error}"
    ))
}

/// SQLite's integers are signed; what the hub stores never is negative.
fn offset(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

const NEWEST: &str = "SELECT offset, id, sender, event, data, time, key FROM message \
     WHERE channel = ? AND offset < ? ORDER BY offset DESC LIMIT ?";
const SINCE: &str = "SELECT offset, id, sender, event, data, time, key FROM message \
     WHERE channel = ? AND offset > ? ORDER BY offset LIMIT ?";
const RECENT: &str = "SELECT c.name, m.offset, m.id, m.sender, m.event, m.data, m.time, m.key \
     FROM channel c JOIN message m ON m.channel = c.id \
     WHERE c.time >= ?1 AND m.time >= ?1 AND m.offset > c.last - ?2 \
     ORDER BY c.id, m.offset LIMIT ?2";

/// How long a transaction waits for those of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that read at once, in each process; each is a thread of its own while it reads.
const MAX_READERS: u32 = 2;

#[cfg(test)]
mod tests;
