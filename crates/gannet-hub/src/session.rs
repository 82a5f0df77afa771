//! Sessions: what the hub knows of a connection beyond the engine's connection table.
//!
//! A worker keeps those of its own connections in memory. It may be reloaded or killed at any
//! time, and then another gets the next event of the connection: so each change is also written
//! to a file that all workers share. The file lives as long as the server runs, no longer, hence
//! it never waits for the disk.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gannet::ConnId;
use sqlx::{
    Connection, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    address::{Channel, Device, User},
    store::StoreError,
};

/// Who a connection is and what it has subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) user: User,
    pub(crate) device: Device,
    pub(crate) channels: BTreeSet<Channel>,
}

/// The sessions of a server.
#[derive(Clone)]
pub(crate) struct Sessions {
    file: SqlitePool,
    own: Arc<Mutex<HashMap<ConnId, Session>>>,
}

impl Sessions {
    /// Opens the file; makes it where it is not there.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let file = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options(path))
            .await?;
        sqlx::query(TABLE).execute(&file).await?;
        Ok(Sessions {
            file,
            own: Arc::default(),
        })
    }

    /// The session of a connection, whichever worker it was with when it began.
    pub(crate) async fn find(&self, conn: ConnId) -> Result<Option<Session>, StoreError> {
        if let Some(session) = self.own().get(&conn) {
            return Ok(Some(session.clone()));
        }
        let row = sqlx::query("SELECT user, device, channels FROM session WHERE conn = ?")
            .bind(number(conn))
            .fetch_optional(&self.file)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let bad = |error: &dyn std::fmt::Display| StoreError::Other(format!("session: {error}"));
        let channels: &str = row.try_get("channels")?;
        let session = Session {
            user: row
                .try_get::<&str, _>("user")?
                .parse()
                .map_err(|error| bad(&error))?,
            device: row
                .try_get::<&str, _>("device")?
                .parse()
                .map_err(|error| bad(&error))?,
            channels: serde_json::from_str(channels).map_err(|error| bad(&error))?,
        };
        self.own().insert(conn, session.clone());
        Ok(Some(session))
    }

    /// Begins or changes a session.
    pub(crate) async fn save(&self, conn: ConnId, session: Session) -> Result<(), StoreError> {
        if self.own().get(&conn) == Some(&session) {
            return Ok(());
        }
        let channels = serde_json::to_string(&session.channels)
            .map_err(|error| StoreError::Other(error.to_string()))?;
        sqlx::query(
            "INSERT OR REPLACE INTO session (conn, user, device, channels) VALUES (?, ?, ?, ?)",
        )
        .bind(number(conn))
        .bind(session.user.as_str())
        .bind(session.device.as_str())
        .bind(channels)
        .execute(&self.file)
        .await?;
        self.own().insert(conn, session);
        Ok(())
    }

    /// Ends a session.
    pub(crate) async fn end(&self, conn: ConnId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM session WHERE conn = ?")
            .bind(number(conn))
            .execute(&self.file)
            .await?;
        self.own().remove(&conn);
        Ok(())
    }

    fn own(&self) -> std::sync::MutexGuard<'_, HashMap<ConnId, Session>> {
        // A map is whole after any of its methods, so a panic elsewhere does not spoil it.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the file. Workers that start together would be in each other's way.
pub(crate) async fn prepare(path: &Path) -> Result<(), StoreError> {
    let mut connection = SqliteConnection::connect_with(&options(path)).await?;
    sqlx::query(TABLE).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Off)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Connection numbers have 53 bits.
fn number(conn: ConnId) -> i64 {
    i64::try_from(conn.as_u64()).unwrap_or(i64::MAX)
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS session (conn INTEGER PRIMARY KEY, \
     user TEXT NOT NULL, device TEXT NOT NULL, channels TEXT NOT NULL)";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_successor_finds_the_sessions_of_its_predecessor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        let conn = ConnId::from_u64(7);
        let before = Sessions::open(&path).await.unwrap();
        assert_eq!(before.find(conn).await.unwrap(), None);
        let mut session = Session {
            user: "ann".parse().unwrap(),
            device: "phone".parse().unwrap(),
            channels: BTreeSet::new(),
        };
        before.save(conn, session.clone()).await.unwrap();
        session.channels.insert("a".parse().unwrap());
        before.save(conn, session.clone()).await.unwrap();

        let after = Sessions::open(&path).await.unwrap();
        assert_eq!(after.find(conn).await.unwrap(), Some(session));
        after.end(conn).await.unwrap();
        assert_eq!(after.find(conn).await.unwrap(), None);
        assert_eq!(
            Sessions::open(&path)
                .await
                .unwrap()
                .find(conn)
                .await
                .unwrap(),
            None
        );
    }
}
