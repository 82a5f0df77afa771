//! The smallest server: sends every byte back.
//!
//!     cargo run --release --example echo
//!     nc 127.0.0.1 9501

use gannet::{Bytes, Conn, Handler, Result, Server, Worker};

/// Sends every message back to whoever sent it.
struct Echo;

impl Handler for Echo {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Echo)
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        conn.send(data).await
    }
}

fn main() -> Result {
    Server::tcp("127.0.0.1:9501").run::<Echo>()
}
