//! axum on one thread: HTTP hello at `/`, WebSocket echo at `/ws`.
//!
//!     compare-axum PORT

use std::{env, io};

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    routing::{any, get},
    serve::ListenerExt,
};
use tokio::net::TcpListener;

fn main() -> io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(9505))).await?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let router = Router::new()
            .route("/", get(async || "Hello from Gannet\n"))
            .route(
                "/ws",
                any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)),
            );
        axum::serve(listener, router).await
    })
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        match message {
            Message::Text(_) | Message::Binary(_) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // Pings are answered by the library.
            _ => {}
        }
    }
}
