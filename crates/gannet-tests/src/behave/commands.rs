//! Commands over TCP and WebSocket.

use std::{process, thread, time::Duration};

use bytes::Bytes;
use gannet::{Conn, ConnId, Error, Result, TaskError, TaskOptions, WorkerId};

use super::{Behave, gates, logs, shared, timers};

impl Behave {
    /// Does what `text` says; the answer, if it has one.
    pub(super) async fn command(&self, conn: &Conn, text: &str) -> Result<Option<String>> {
        if text.starts_with('#') {
            self.note(text.as_bytes());
            return Ok(Some(text.to_owned()));
        }
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let worker = &self.worker;
        let answer = match word {
            "echo" => rest.to_owned(),
            "pid" => process::id().to_string(),
            "version" => self.variant.version.to_owned(),
            "worker" => worker.id().to_string(),
            "generation" => worker.generation().to_string(),
            "redelivered" => conn.is_redelivered().to_string(),
            "mark" => {
                self.note(text.as_bytes());
                "marked".to_owned()
            }

            "abort" => {
                self.note(text.as_bytes());
                process::abort()
            }
            "abort-once" if !conn.is_redelivered() => process::abort(),
            "abort-once" => format!("survived {rest}"),
            "panic" => panic!("as asked: {rest}"),
            "error" => return Err(Error::new(format!("as asked: {rest}"))),
            "exit" => process::exit(number(rest)?),

            "sleep-async" => {
                let (ms, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                tokio::time::sleep(Duration::from_millis(number(ms)?)).await;
                rest.to_owned()
            }
            "sleep-block" => {
                let (ms, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                thread::sleep(Duration::from_millis(number(ms)?));
                rest.to_owned()
            }
            // `gate FILE X`: answers when the test has opened it.
            "gate" => {
                let (gate, rest) = two(rest)?;
                gates::wait_at(gate).await;
                rest.to_owned()
            }
            "gate-block" => {
                let (gate, rest) = two(rest)?;
                gates::block_at(gate);
                rest.to_owned()
            }
            // `eat MS PADDING`: takes its time and says nothing.
            "eat" => {
                let ms = rest.split_once(' ').map_or(rest, |(ms, _)| ms);
                tokio::time::sleep(Duration::from_millis(number(ms)?)).await;
                return Ok(None);
            }
            "later" => {
                let (ms, rest) = two(rest)?;
                let (ms, rest) = (Duration::from_millis(number(ms)?), rest.to_owned());
                let conn = conn.clone();
                worker.spawn_local(async move {
                    tokio::time::sleep(ms).await;
                    // The connection may be gone by then.
                    let _ = conn.send(rest).await;
                });
                "soon".to_owned()
            }

            "big" => "x".repeat(number(rest)?),
            "flood" => {
                let (count, size) = two(rest)?;
                let message = Bytes::from(vec![b'f'; number(size)?]);
                for _ in 0..number::<usize>(count)? {
                    conn.send(message.clone()).await?;
                }
                return Ok(None);
            }
            // `fill COUNT SIZE`: as flood, but waits for the client to read.
            "fill" => {
                let (count, size) = two(rest)?;
                let message = Bytes::from(vec![b'f'; number(size)?]);
                for _ in 0..number::<usize>(count)? {
                    conn.send(message.clone()).await?;
                    conn.drained(1 << 20).await?;
                }
                "filled".to_owned()
            }

            "sub" => {
                conn.subscribe(rest).await?;
                "ok".to_owned()
            }
            "unsub" => {
                conn.unsubscribe(rest).await?;
                "ok".to_owned()
            }
            "pub" => {
                let (topic, rest) = two(rest)?;
                worker.publish(topic, rest.to_owned()).await?;
                return Ok(None);
            }
            "pub-droppable" => {
                let (topic, rest) = two(rest)?;
                worker.publish_droppable(topic, rest.to_owned()).await?;
                return Ok(None);
            }
            "pub-others" => {
                let (topic, rest) = two(rest)?;
                worker
                    .publish_except(topic, rest.to_owned(), conn.id())
                    .await?;
                return Ok(None);
            }
            // `pub-many TOPIC COUNT SIZE`
            "pub-many" => {
                let (topic, rest) = two(rest)?;
                let (count, size) = two(rest)?;
                let padding = "p".repeat(number(size)?);
                for n in 0..number::<usize>(count)? {
                    worker.publish(topic, format!("{n} {padding}")).await?;
                }
                "published".to_owned()
            }
            "pub-many-droppable" => {
                let (topic, rest) = two(rest)?;
                let (count, size) = two(rest)?;
                let padding = "p".repeat(number(size)?);
                for n in 0..number::<usize>(count)? {
                    worker
                        .publish_droppable(topic, format!("{n} {padding}"))
                        .await?;
                }
                "published".to_owned()
            }
            "count" => worker.topic_count(rest).await?.to_string(),
            "members" => ids(worker.topic_members(rest).await?),

            "id" => conn.id().to_string(),
            "bind" => {
                conn.bind(rest).await?;
                "ok".to_owned()
            }
            "bound" => ids(worker.bound_to(rest).await?),
            "info" => describe(conn),
            "credentials" => match conn.info().and_then(|info| info.peer.credentials()) {
                Some(of) => format!("{} {} {}", of.pid, of.uid, of.gid),
                None => "none".to_owned(),
            },
            "tls" => describe_tls(conn),
            "tls-of" => describe_tls(&worker.conn(number(rest)?)),
            "info-of" => describe(&worker.conn(number(rest)?)),
            "open" => worker.conn(number(rest)?).is_open().to_string(),
            "connections" => ids(worker.connections().map(|info| info.id).collect()),
            "send" => {
                let (to, rest) = two(rest)?;
                worker.send(number(to)?, rest.to_owned()).await?;
                "sent".to_owned()
            }

            "packet" => self.send_packet(rest).await?,

            "close" => {
                conn.close().await?;
                return Ok(None);
            }
            "close-with" => {
                let (code, reason) = two(rest)?;
                conn.close_with(number(code)?, reason).await?;
                return Ok(None);
            }
            "close-after" => {
                conn.send(rest.to_owned()).await?;
                conn.close().await?;
                return Ok(None);
            }
            "abort-conn" => {
                conn.abort().await?;
                return Ok(None);
            }
            "close-of" => {
                worker.conn(number(rest)?).close().await?;
                "closed".to_owned()
            }

            "task" => outcome(worker.task(rest.to_owned()).await),
            "task-on" => {
                let (on, rest) = two(rest)?;
                let options = TaskOptions {
                    worker: Some(number(on)?),
                    ..TaskOptions::default()
                };
                outcome(worker.task_with(rest.to_owned(), options).await)
            }
            "task-timeout" => {
                let (ms, rest) = two(rest)?;
                let timeout = Some(Duration::from_millis(number(ms)?));
                let options = TaskOptions {
                    timeout,
                    ..TaskOptions::default()
                };
                outcome(worker.task_with(rest.to_owned(), options).await)
            }
            "task-detach" => match worker.detach_task(rest.to_owned()).await {
                Ok(task) => {
                    self.detached.borrow_mut().insert(task, conn.clone());
                    format!("submitted {task}")
                }
                Err(error) => format!("error: {error}"),
            },
            "shared" => shared::command(worker, rest).await?,
            "timer" => timers::set(worker, conn, rest)?,
            // `tell NAME COMMAND`: to a user process, which answers by itself.
            "tell" => {
                let (name, rest) = two(rest)?;
                let message = format!("{} {rest}", conn.id());
                worker.pipe(worker.process(name)?, message).await?;
                return Ok(None);
            }
            "pipe" => {
                let (to, rest) = two(rest)?;
                worker.pipe(WorkerId(number(to)?), rest.to_owned()).await?;
                "piped".to_owned()
            }
            _ => match logs::command(word, rest)? {
                Some(answer) => answer,
                None => format!("unknown command: {text}"),
            },
        };
        Ok(Some(answer))
    }
}

/// What is known of the connection's TLS.
fn describe_tls(conn: &Conn) -> String {
    let Some(tls) = conn.info().and_then(|info| info.tls) else {
        return "none".to_owned();
    };
    let peer = tls.peer.as_ref().map_or("-".to_owned(), |peer| {
        format!(
            "[{}] cn={} serial={} names={} fingerprint={}",
            peer.subject,
            peer.common_name().unwrap_or("-"),
            peer.serial,
            peer.names.join(","),
            peer.fingerprint_hex()
        )
    });
    format!(
        "version={} cipher={} alpn={} name={} resumed={} peer={peer}",
        tls.version.name(),
        tls.cipher,
        tls.alpn.as_deref().unwrap_or("-"),
        tls.server_name.as_deref().unwrap_or("-"),
        tls.resumed,
    )
}

/// A row of the connection table as text.
fn describe(conn: &Conn) -> String {
    match conn.info() {
        None => "gone".to_owned(),
        Some(info) => format!(
            "id={} peer={} local={} listener={} worker={} uid={} bytes_in={} bytes_out={} \
             messages_in={} messages_out={} websocket={} proxy={}",
            info.id,
            info.peer,
            info.local
                .map_or_else(|| "-".to_owned(), |local| local.to_string()),
            info.listener,
            info.worker,
            info.uid.as_deref().unwrap_or("-"),
            info.bytes_in,
            info.bytes_out,
            info.messages_in,
            info.messages_out,
            info.websocket,
            info.proxy
                .map_or_else(|| "-".to_owned(), |proxy| proxy.to_string()),
        ),
    }
}

fn outcome(result: std::result::Result<Bytes, TaskError>) -> String {
    match result {
        Ok(data) => String::from_utf8_lossy(&data).into_owned(),
        Err(error) => format!("error: {error}"),
    }
}

fn ids(mut ids: Vec<ConnId>) -> String {
    ids.sort_unstable();
    ids.iter()
        .map(ConnId::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

pub(super) fn two(text: &str) -> Result<(&str, &str)> {
    text.split_once(' ')
        .ok_or_else(|| Error::new(format!("two arguments, not {text:?}")))
}

pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| Error::new(format!("not a number: {text:?}")))
}
