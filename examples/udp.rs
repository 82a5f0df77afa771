//! A server of datagrams: answers each with where it came from.
//!
//!     cargo run --release --example udp
//!     echo hello | nc -u -w1 127.0.0.1 9509

use gannet::{Bytes, Handler, PacketSource, Result, Server, Worker};

struct Mirror;

impl Handler for Mirror {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Mirror)
    }

    async fn packet(&self, from: PacketSource, data: Bytes) -> Result {
        let text = String::from_utf8_lossy(&data);
        let answer = format!("{} said: {}\n", from.peer(), text.trim_end());
        from.reply(answer).await
    }
}

fn main() -> Result {
    Server::udp("127.0.0.1:9509").run::<Mirror>()
}
