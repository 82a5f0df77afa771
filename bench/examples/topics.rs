//! What the tests of the generator measure, and what can be measured by hand: bytes and text messages
//! come back, a request's body too, and a binary message goes to everybody.
//!
//!     cargo run --release -p gannet-bench --example topics
//!     gannet bench broadcast ws://127.0.0.1:9510/

use gannet::{
    Accept, Bytes, Conn, Handler, Handshake, Message, Request, Response, Result, Server, Worker,
};

/// The topic of everybody.
const ALL: &str = "all";

struct Topics {
    worker: Worker,
}

impl Handler for Topics {
    async fn start(worker: &Worker) -> Result<Self> {
        Ok(Topics {
            worker: worker.clone(),
        })
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        conn.send(data).await
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        Ok(Response::new(request.into_body()))
    }

    async fn open(&self, conn: Conn, _handshake: Handshake) -> Result<Accept> {
        conn.subscribe(ALL).await?;
        Ok(Accept::new())
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        match message {
            Message::Text(_) => conn.send(message).await,
            Message::Binary(_) => self.worker.publish(ALL, message).await,
        }
    }
}

fn main() -> Result {
    Server::websocket("127.0.0.1:9510").run::<Topics>()
}
