//! Group chat: one page, one server; what one types, all see.
//!
//!     cargo run --release --example chat
//!
//! Then open <http://127.0.0.1:9506> in two windows of a browser.

use gannet::{
    Accept, CloseReason, Conn, Handler, Handshake, Message, Request, Response, Result, Server,
    Worker,
    http::{HeaderValue, StatusCode, header},
};

/// The room that everyone is in.
const ROOM: &str = "room";

struct Chat {
    worker: Worker,
}

impl Handler for Chat {
    async fn start(worker: &Worker) -> Result<Self> {
        Ok(Chat {
            worker: worker.clone(),
        })
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        let mut response = Response::default();
        match request.uri().path() {
            "/" => {
                let html = HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                *response.body_mut() = include_str!("chat.html").into();
            }
            _ => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        Ok(response)
    }

    async fn open(&self, conn: Conn, handshake: Handshake) -> Result<Accept> {
        if handshake.path() != "/chat" {
            return Ok(Accept::refuse_with(
                StatusCode::NOT_FOUND,
                "the chat is at /chat\n",
            ));
        }
        self.worker
            .publish(ROOM, format!("{} has come in", conn.id()))
            .await?;
        conn.subscribe(ROOM).await?;
        conn.send(format!("welcome, you are {}", conn.id())).await?;
        Ok(Accept::new())
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        let said = String::from_utf8_lossy(message.as_bytes());
        self.worker
            .publish(ROOM, format!("{}: {said}", conn.id()))
            .await
    }

    async fn close(&self, conn: Conn, _reason: CloseReason) -> Result {
        self.worker
            .publish(ROOM, format!("{} has left", conn.id()))
            .await
    }
}

fn main() -> Result {
    Server::websocket("127.0.0.1:9506").run::<Chat>()
}
