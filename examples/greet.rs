//! Greets who connects, answers what it is sent, and notes who leaves.
//!
//!     cargo run --release --example greet
//!     nc 127.0.0.1 9502          (or: telnet 127.0.0.1 9502)
//!
//! `nc` and `telnet` send a line when Enter is pressed and show what comes back. `telnet` ends its
//! lines with CR LF and leaves with Ctrl-] and `quit`; `nc` leaves with Ctrl-C.

use gannet::{Bytes, CloseReason, Conn, Handler, Result, Server, Worker};

struct Greet;

impl Handler for Greet {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Greet)
    }

    async fn connect(&self, conn: Conn) -> Result {
        let (id, reactor) = (conn.id(), conn.id().reactor());
        conn.send(format!("Hello fd:{id}! from_id:{reactor}\n"))
            .await
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        let line = String::from_utf8_lossy(&data);
        conn.send(format!("You said: {}\n", line.trim_end())).await
    }

    async fn close(&self, conn: Conn, reason: CloseReason) -> Result {
        println!("client {} has left ({reason})", conn.id());
        Ok(())
    }
}

fn main() -> Result {
    // The settings of the original: 8 workers, each replaced after 10,000 events.
    Server::tcp("127.0.0.1:9502")
        .workers(8)
        .settings(|settings| settings.max_requests = 10_000)
        .run::<Greet>()?;
    println!("the server has stopped");
    Ok(())
}
