//! The task that writes: what several clients append at a time shares one transaction.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use sqlx::{Connection, Row, SqliteConnection, SqliteTransaction};
use tokio::sync::{mpsc, oneshot};
use ulid::Ulid;

use super::{Append, Appended, Limits, StoreError, corrupt, integer, message, offset, turn::Turns};
use crate::{address::Address, message::Message};

/// An append and who waits for it.
pub(super) struct Job {
    pub(super) append: Append,
    pub(super) reply: oneshot::Sender<Result<Appended, StoreError>>,
}

/// Starts the task; it ends when the sender is dropped and everything sent is written.
pub(super) fn start(
    connection: SqliteConnection,
    turns: Turns,
    limits: Limits,
) -> mpsc::Sender<Job> {
    let (sender, jobs) = mpsc::channel(MAX_WAITING);
    tokio::spawn(
        Writer {
            connection,
            turns,
            limits,
            keys_pruned: 0,
        }
        .run(jobs),
    );
    sender
}

struct Writer {
    connection: SqliteConnection,
    turns: Turns,
    limits: Limits,
    /// When old keys were last deleted.
    keys_pruned: u64,
}

impl Writer {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        // What arrives while a transaction waits for the disk is the next batch.
        while jobs.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let outcome = self.write(&batch).await;
            for (index, job) in batch.drain(..).enumerate() {
                let result = match &outcome {
                    Ok(results) => results[index].clone(),
                    Err(error) => Err(error.clone()),
                };
                // Who asked may be gone; the message is stored all the same.
                let _ = job.reply.send(result);
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the database was not closed well");
        }
    }

    /// Stores all of a batch or, if the database fails, nothing.
    async fn write(
        &mut self,
        batch: &[Job],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        let now = milliseconds();
        let prune_keys = now >= self.keys_pruned + KEYS_PRUNED_EVERY_MS;
        let _turn = self.turns.take().await?;
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut results = Vec::with_capacity(batch.len());
        let mut newest = BTreeMap::new();
        for job in batch {
            match append(&mut transaction, &job.append, now, &mut newest).await {
                Ok(appended) => results.push(Ok(appended)),
                // Of this message's making, not the database's.
                Err(error @ StoreError::KeyUsed { .. }) => results.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        for (channel, last) in newest {
            sqlx::query("DELETE FROM message WHERE channel = ? AND offset <= ?")
                .bind(channel)
                .bind(last - integer(self.limits.history))
                .execute(&mut *transaction)
                .await?;
        }
        if prune_keys {
            sqlx::query("DELETE FROM message_key WHERE time < ?")
                .bind(integer(now.saturating_sub(self.limits.key_ms)))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        if prune_keys {
            self.keys_pruned = now;
        }
        Ok(results)
    }
}

/// Stores one message. `newest` learns the last offset of each channel that grew.
async fn append(
    transaction: &mut SqliteTransaction<'_>,
    append: &Append,
    now: u64,
    newest: &mut BTreeMap<i64, i64>,
) -> Result<Appended, StoreError> {
    let origin = match &append.device {
        Some((user, device)) => format!("{user}/{device}"),
        None => String::new(),
    };
    let address = append.to.to_string();
    if let Some(key) = &append.key
        && let Some(appended) = repeat(transaction, &origin, key, &append.to).await?
    {
        return Ok(appended);
    }

    let id = Ulid::generate();
    let offset = match &append.to {
        Address::User(_) => None,
        Address::Channel(channel) => {
            let row = sqlx::query(
                "INSERT INTO channel (name, last, time) VALUES (?1, 1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET last = last + 1, time = ?2 RETURNING id, last",
            )
            .bind(channel.as_str())
            .bind(integer(now))
            .fetch_one(&mut **transaction)
            .await?;
            let (channel, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            sqlx::query(
                "INSERT INTO message (channel, offset, id, sender, event, data, time, key) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(channel)
            .bind(last)
            .bind(id.to_string())
            .bind(append.from.as_ref().map(|user| user.as_str()))
            .bind(&*append.event)
            .bind(append.data.get())
            .bind(integer(now))
            .bind(append.key.as_deref())
            .execute(&mut **transaction)
            .await?;
            newest.insert(channel, last);
            Some(offset(last))
        }
    };
    if let Some(key) = &append.key {
        sqlx::query(
            "INSERT INTO message_key (origin, key, address, offset, id, time) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(origin)
        .bind(&**key)
        .bind(address)
        .bind(offset.map(integer))
        .bind(id.to_string())
        .bind(integer(now))
        .execute(&mut **transaction)
        .await?;
    }
    let message = Message {
        offset,
        id,
        from: append.from.clone(),
        event: Arc::clone(&append.event),
        data: Arc::clone(&append.data),
        time: now,
        key: append.key.clone(),
    };
    Ok(Appended {
        id,
        offset,
        time: now,
        repeated: false,
        message: Some(message),
    })
}

/// What was stored under this key, if something was.
async fn repeat(
    transaction: &mut SqliteTransaction<'_>,
    origin: &str,
    key: &str,
    to: &Address,
) -> Result<Option<Appended>, StoreError> {
    let row = sqlx::query(
        "SELECT address, offset, id, time FROM message_key WHERE origin = ? AND key = ?",
    )
    .bind(origin)
    .bind(key)
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let address: String = row.try_get("address")?;
    if address != to.to_string() {
        return Err(StoreError::KeyUsed { to: address });
    }
    let place: Option<i64> = row.try_get("offset")?;
    let kept = match (place, to) {
        (Some(place), Address::Channel(channel)) => {
            sqlx::query(
                "SELECT offset, id, sender, event, data, time, key FROM message \
                 WHERE channel = (SELECT id FROM channel WHERE name = ?) AND offset = ?",
            )
            .bind(channel.as_str())
            .bind(place)
            .fetch_optional(&mut **transaction)
            .await?
        }
        _ => None,
    };
    Ok(Some(Appended {
        id: row.try_get::<&str, _>("id")?.parse().map_err(corrupt)?,
        offset: place.map(offset),
        time: offset(row.try_get("time")?),
        repeated: true,
        message: kept.as_ref().map(message).transpose()?,
    }))
}

fn milliseconds() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Appends that may wait for the writer; then `append` waits for room.
const MAX_WAITING: usize = 1024;
/// Appends in one transaction.
const MAX_BATCH: usize = 256;
const KEYS_PRUNED_EVERY_MS: u64 = 60_000;
