//! Commands in datagrams.

use std::{process, thread, time::Duration};

use gannet::{Bytes, PacketAddress, PacketSource, Result};

use super::{Behave, commands};

impl Behave {
    /// Does what a datagram says.
    pub(super) async fn take_packet(&self, from: PacketSource, data: Bytes) -> Result {
        if data.starts_with(b"#") {
            self.note(&data);
            return from.reply(data).await;
        }
        let text = String::from_utf8_lossy(&data).into_owned();
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let answer = match word {
            "echo" => rest.to_owned(),
            "pid" => process::id().to_string(),
            "worker" => self.worker.id().to_string(),
            "from" => format!(
                "{} local={} listener={} redelivered={}",
                from.peer(),
                from.local()
                    .map_or_else(|| "-".to_owned(), |local| local.to_string()),
                from.listener(),
                from.is_redelivered()
            ),
            "abort" => {
                self.note(&data);
                process::abort()
            }
            "abort-once" if !from.is_redelivered() => process::abort(),
            "abort-once" => format!("survived {rest}"),
            "panic" => panic!("as asked: {rest}"),
            "sleep-async" => {
                let (ms, rest) = commands::two(rest)?;
                tokio::time::sleep(Duration::from_millis(commands::number(ms)?)).await;
                rest.to_owned()
            }
            "sleep-block" => {
                let (ms, rest) = commands::two(rest)?;
                self.note(&data);
                thread::sleep(Duration::from_millis(commands::number(ms)?));
                rest.to_owned()
            }
            "big" => "x".repeat(commands::number(rest)?),
            _ => format!("unknown command: {text}"),
        };
        from.reply(answer).await
    }

    /// `LISTENER ADDRESS TEXT`: sends a datagram.
    pub(super) async fn send_packet(&self, rest: &str) -> Result<String> {
        let (listener, rest) = commands::two(rest)?;
        let (to, text) = commands::two(rest)?;
        let to = match to.strip_prefix("unixgram:") {
            Some(path) => PacketAddress::Unix(path.into()),
            None => PacketAddress::Ip(commands::number(to)?),
        };
        let listener = commands::number(listener)?;
        Ok(
            match self.worker.send_to(listener, to, text.to_owned()).await {
                Ok(()) => "sent".to_owned(),
                Err(error) => format!("error: {error}"),
            },
        )
    }
}
