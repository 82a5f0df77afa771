//! A WebSocket server that sends every message back, text as text and binary as binary.
//!
//!     cargo run --release --example wsecho
//!
//! In the console of a browser:
//!
//!     s = new WebSocket("ws://127.0.0.1:9504"); s.onmessage = m => console.log(m.data);
//!     s.send("hello")

use gannet::{Conn, Handler, Message, Request, Response, Result, Server, Worker};

struct Echo;

impl Handler for Echo {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Echo)
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        conn.send(message).await
    }

    async fn request(&self, _conn: Conn, _request: Request) -> Result<Response> {
        Ok(Response::new("This is a WebSocket server.\n".into()))
    }
}

fn main() -> Result {
    Server::websocket("127.0.0.1:9504").run::<Echo>()
}
