//! HTTP as the engine gives it: requests and responses of the `http` crate, streams both ways.
//! `axum_router` does the same with a router.
//!
//!     cargo run --release --example http
//!     curl http://127.0.0.1:9505/
//!     curl --data-binary @Cargo.toml http://127.0.0.1:9505/echo
//!     curl -N http://127.0.0.1:9505/stream

use std::{process, time::Duration};

use gannet::{
    Body, Conn, Handler, Request, Response, Result, Server, Worker,
    http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE},
};

struct Http;

impl Handler for Http {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Http)
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        Ok(match (request.method(), request.uri().path()) {
            // A string is sent as text/plain. To HEAD, the engine sends the head only.
            (&Method::GET | &Method::HEAD, "/") => Response::new("Hello from Gannet\n".into()),
            (&Method::GET | &Method::HEAD, "/pid") => {
                Response::new(format!("{}\n", process::id()).into())
            }
            (&Method::GET, "/stream") => {
                let mut response = Response::new(ticks());
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, plain);
                response
            }
            (&Method::POST, "/echo") => Response::new(request.into_body()),
            _ => {
                let mut response = Response::new("there is nothing here\n".into());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        })
    }
}

/// Ten lines, one every half second, each sent as it is made.
fn ticks() -> Body {
    let (mut sender, body) = Body::channel(1);
    tokio::task::spawn_local(async move {
        for tick in 0..10 {
            // An error: the client is gone.
            if sender.send(format!("tick {tick}\n")).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    body
}

fn main() -> Result {
    Server::http("127.0.0.1:9505").run::<Http>()
}
