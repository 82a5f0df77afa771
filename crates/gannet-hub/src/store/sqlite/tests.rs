use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
};

use super::*;
use crate::store::conformance::{self, LIMITS, say, texts};

#[tokio::test]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let files = AtomicU32::new(0);
    conformance::all(|| async {
        let name = files.fetch_add(1, Ordering::Relaxed).to_string();
        SqliteStore::open(&dir.path().join(name), LIMITS)
            .await
            .unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_file_keeps_its_epoch_and_messages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let first = SqliteStore::open(&path, LIMITS).await.unwrap();
    first.append(say("channel:a", "x", None)).await.unwrap();
    let second = SqliteStore::open(&path, LIMITS).await.unwrap();
    assert_eq!(first.epoch(), second.epoch());
    assert_eq!(
        texts(&second, "a", Part::Newest, 9).await,
        [(1, String::from("x"))]
    );
    // Both write: as two workers do.
    let (one, two) = tokio::join!(
        first.append(say("channel:a", "y", None)),
        second.append(say("channel:a", "z", None))
    );
    let mut offsets = [one.unwrap().offset, two.unwrap().offset];
    offsets.sort_unstable();
    assert_eq!(offsets, [Some(2), Some(3)]);
}

#[tokio::test]
async fn refuse_what_is_no_database_or_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    std::fs::write(
        &path,
        b"no database, but long enough for a header to be read",
    )
    .unwrap();
    assert!(SqliteStore::open(&path, LIMITS).await.is_err());

    let path = dir.path().join("newer.db");
    drop(SqliteStore::open(&path, LIMITS).await.unwrap());
    execute(&path, "PRAGMA user_version = 99").await;
    let error = SqliteStore::open(&path, LIMITS)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("version 99"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .pragma("max_page_count", "40");
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    migrate(&mut connection).await.unwrap();
    let limits = Limits {
        history: 1_000_000,
        ..LIMITS
    };
    let writer = writer::start(connection, turns(&path).unwrap(), limits);
    let append = async |append| {
        let (reply, outcome) = oneshot::channel();
        writer
            .send(writer::Job { append, reply })
            .await
            .ok()
            .unwrap();
        outcome.await.unwrap()
    };
    let text = "x".repeat(1000);
    let mut stored = 0;
    let error = loop {
        match append(say("channel:a", &text, None)).await {
            Ok(appended) => stored = appended.offset.unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, StoreError::Full);
    assert!(stored > 10);
    let store = SqliteStore::open(&path, limits).await.unwrap();
    assert_eq!(
        texts(&store, "a", Part::Since(0), 1000).await.len() as u64,
        stored
    );
}

#[tokio::test]
async fn writers_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let (one, other) = (turns(&path).unwrap(), turns(&path).unwrap());
    let turn = one.take().await.unwrap();
    let mut waiting = std::pin::pin!(other.take());
    let early =
        std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
    assert!(early, "it is the other's turn");
    drop(turn);
    drop(waiting.await.unwrap());
    one.take().await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_locked_for_long_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let store = SqliteStore::open(&path, LIMITS).await.unwrap();
    let mut stranger = SqliteConnection::connect_with(&options(&path))
        .await
        .unwrap();
    let lock = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = store
        .append(say("channel:a", "x", Some("k")))
        .await
        .unwrap_err();
    assert_eq!(error, StoreError::Busy);
    lock.rollback().await.unwrap();
    let appended = store
        .append(say("channel:a", "x", Some("k")))
        .await
        .unwrap();
    assert_eq!((appended.offset, appended.repeated), (Some(1), false));
}

#[tokio::test]
async fn a_key_is_forgotten_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let store = SqliteStore::open(&path, LIMITS).await.unwrap();
    store
        .append(say("channel:a", "x", Some("old")))
        .await
        .unwrap();
    store
        .append(say("channel:a", "x", Some("new")))
        .await
        .unwrap();
    execute(&path, "UPDATE message_key SET time = 1 WHERE key = 'old'").await;
    // A new writer prunes with its first transaction.
    let store = SqliteStore::open(&path, LIMITS).await.unwrap();
    store.append(say("channel:a", "y", None)).await.unwrap();
    assert!(
        store
            .append(say("channel:a", "x", Some("new")))
            .await
            .unwrap()
            .repeated
    );
    assert!(
        !store
            .append(say("channel:a", "x", Some("old")))
            .await
            .unwrap()
            .repeated
    );
}

/// Two processes write to one file and are killed in the middle, several times. Whatever they
/// were told is stored is there, once, and the offsets have no gaps.
#[tokio::test]
async fn what_was_accepted_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let mut accepted = Vec::new();
    for round in 0..3 {
        let mut writers: Vec<_> = (0..2)
            .map(|writer| start_writer(&path, &format!("{round}.{writer}")))
            .collect();
        for writer in &mut writers {
            let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
            let mut seen = 0;
            for line in lines.by_ref() {
                if let Some(key) = line.unwrap().strip_prefix("accepted ") {
                    accepted.push(key.to_owned());
                    seen += 1;
                }
                if seen == 50 {
                    break;
                }
            }
            assert_eq!(seen, 50, "a writer ended by itself");
            writer.kill().unwrap();
            writer.wait().unwrap();
            let rest = lines.map_while(Result::ok);
            accepted.extend(rest.filter_map(|line| Some(line.strip_prefix("accepted ")?.into())));
        }
    }
    let limits = Limits {
        history: 1_000_000,
        ..LIMITS
    };
    let store = SqliteStore::open(&path, limits).await.unwrap();
    let stored = texts(&store, "crash", Part::Since(0), 1_000_000).await;
    assert!(
        stored
            .iter()
            .map(|(offset, _)| *offset)
            .eq(1..=stored.len() as u64)
    );
    let mut texts: Vec<_> = stored.into_iter().map(|(_, text)| text).collect();
    let all = texts.len();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), all, "something was stored twice");
    for text in &accepted {
        assert!(
            texts.binary_search(text).is_ok(),
            "{text} was accepted and is not stored"
        );
    }
}

/// Not a test of its own: what [`what_was_accepted_survives_kill_9`] starts as processes.
#[tokio::test]
async fn writer_process() {
    let (Some(path), Ok(name)) = (std::env::var_os(STORE), std::env::var(WRITER)) else {
        return;
    };
    let limits = Limits {
        history: 1_000_000,
        ..LIMITS
    };
    let store = SqliteStore::open(Path::new(&path), limits).await.unwrap();
    for count in 0.. {
        let batch = (0..4).map(|part| {
            let text = format!("{name}.{count}.{part}");
            let append = say("channel:crash", &text, Some(&text));
            let store = &store;
            async move {
                store.append(append).await.unwrap();
                println!("accepted {text}");
            }
        });
        futures_util::future::join_all(batch).await;
    }
}

fn start_writer(path: &Path, name: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::sqlite::tests::writer_process",
            "--nocapture",
        ])
        .env(STORE, path)
        .env(WRITER, name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn execute(path: &Path, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

const STORE: &str = "GANNET_TEST_STORE";
const WRITER: &str = "GANNET_TEST_WRITER";
