//! An echo server whose handler takes its time to start, as one does that loads data or connects to a
//! database. The bench runs itself as this server.

use std::{env, time::Duration};

use anyhow::anyhow;
use gannet::{Bytes, Conn, Handler, Server, Worker};

/// Environment variable that makes the bench this server: how many milliseconds a start takes.
pub(crate) const START_MS: &str = "BENCH_START_MS";

struct Slow;

impl Handler for Slow {
    async fn start(_worker: &Worker) -> gannet::Result<Self> {
        if let Some(ms) = takes() {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        Ok(Slow)
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> gannet::Result {
        conn.send(data).await
    }
}

/// How long a start takes, if this process is to be the server.
pub(crate) fn takes() -> Option<u64> {
    env::var(START_MS).ok()?.parse().ok()
}

/// Runs the server, or the command that its command line names.
pub(crate) fn serve() -> anyhow::Result<()> {
    let served = Server::tcp("127.0.0.1:0").run::<Slow>();
    served.map_err(|error| anyhow!("{error}"))
}
