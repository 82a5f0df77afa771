//! An axum router as the handler: `http` with routes and extractors. Any tower service would do.
//!
//!     cargo run --release --example axum_router
//!     curl http://127.0.0.1:9514/
//!     curl --data-binary @Cargo.toml http://127.0.0.1:9514/echo
//!     curl -N http://127.0.0.1:9514/stream

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use futures_util::stream;
use gannet::{Conn, Handler, Request, Response, Result, Server, Worker, serve_service};

struct Http {
    router: Router,
}

impl Handler for Http {
    async fn start(_worker: &Worker) -> Result<Self> {
        let router = Router::new()
            .route("/", get(async || "Hello from Gannet\n"))
            .route("/pid", get(async || format!("{}\n", std::process::id())))
            .route("/echo", post(async |body: Body| body))
            .route("/stream", get(ticks));
        Ok(Http { router })
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        serve_service(&mut self.router.clone(), request).await
    }
}

/// Ten lines, one every half second, each sent as it is made.
async fn ticks() -> Body {
    Body::from_stream(stream::unfold(0, async |tick| {
        if tick == 10 {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Some((Ok::<_, Infallible>(format!("tick {tick}\n")), tick + 1))
    }))
}

fn main() -> Result {
    Server::http("127.0.0.1:9514").run::<Http>()
}
