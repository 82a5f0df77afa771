//! Whatever a client sends goes to all who are connected, text as text and binary as binary.
//!
//!     cargo run --release --example broadcast
//!
//! In the consoles of two browser windows:
//!
//!     s = new WebSocket("ws://127.0.0.1:9512"); s.onmessage = m => console.log(m.data);
//!     s.send("hello, all")

use gannet::{Accept, Conn, Handler, Handshake, Message, Result, Server, Worker};

/// The topic that every connection has.
const ALL: &str = "all";

struct Broadcast {
    worker: Worker,
}

impl Handler for Broadcast {
    async fn start(worker: &Worker) -> Result<Self> {
        Ok(Broadcast {
            worker: worker.clone(),
        })
    }

    async fn open(&self, conn: Conn, _handshake: Handshake) -> Result<Accept> {
        conn.subscribe(ALL).await?;
        Ok(Accept::new())
    }

    async fn message(&self, _conn: Conn, message: Message) -> Result {
        self.worker.publish(ALL, message).await
    }
}

fn main() -> Result {
    Server::websocket("127.0.0.1:9512").run::<Broadcast>()
}
