//! Messages in raw TCP: lines on one port, a length in front of each message on another. A message
//! is sent back as one, in capitals.
//!
//!     cargo run --release --example frames
//!     printf 'hello\nworld\n' | nc -q1 127.0.0.1 9507
//!     printf '\0\005hello\0\005world' | nc -q1 127.0.0.1 9508 | od -c

use gannet::{
    Bytes, Conn, Framing, Handler, Listener, Result, Server, Settings, Worker,
    framing::LengthPrefix,
};

struct Capitals;

impl Handler for Capitals {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Capitals)
    }

    /// Gets one whole message, on both ports, however the client's writes were cut.
    async fn receive(&self, conn: Conn, message: Bytes) -> Result {
        conn.send_framed(message.to_ascii_uppercase()).await
    }
}

fn main() -> Result {
    let mut lines = Listener::tcp("127.0.0.1:9507").framing(Framing::lines());
    // A client that sends more without an end is cut.
    lines.max_message_size = 4 << 10;
    let lengths = Framing::length(LengthPrefix::u16());
    Server::new(Settings::default())
        .listen(lines)
        .listen(Listener::tcp("127.0.0.1:9508").framing(lengths))
        .run::<Capitals>()
}
