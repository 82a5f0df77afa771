//! What a handler's future holds is let go before the response leaves: whoever has the response finds free
//! what the handler had taken, also while the body is still being streamed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use super::http::request;
use crate::{
    Body, Conn, Handler, Request, Response, Result, Worker, wire::command::CommandKind,
    worker::pair::Pair,
};

struct Holder;

impl Handler for Holder {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Holder)
    }

    fn request(&self, conn: Conn, request: Request) -> impl Future<Output = Result<Response>> {
        let body = match request.uri().path() {
            "/whole" => Body::from("whole"),
            _ => {
                let (mut sender, body) = Body::channel(1);
                tokio::task::spawn_local(async move {
                    let _ = sender.send("piece").await;
                });
                body
            }
        };
        Held {
            conn,
            response: Some(Response::new(body)),
        }
    }
}

/// A future that says when it is let go.
struct Held {
    conn: Conn,
    response: Option<Response>,
}

impl Future for Held {
    type Output = Result<Response>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.response.take() {
            Some(response) => Poll::Ready(Ok(response)),
            None => Poll::Pending,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.conn.try_send("let go").unwrap();
    }
}

#[test]
fn the_future_of_a_handler_is_dropped_before_its_response_leaves() {
    let mut pair = Pair::new::<Holder>();
    let conn = pair.connect(0, 1);
    for path in ["/whole", "/stream"] {
        request(&mut pair, conn, "GET", path, b"");
        let first = pair.expect();
        assert_eq!(first.kind(), CommandKind::Send, "{path}");
        assert_eq!(first.text(), "let go");
        assert_eq!(pair.expect().kind(), CommandKind::Response, "{path}");
        if path == "/stream" {
            assert_eq!(pair.expect().text(), "piece");
            assert_eq!(pair.expect().kind(), CommandKind::ResponseEnd);
        }
    }
}
