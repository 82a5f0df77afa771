//! The hub as a program of the engine: its events to the hub's operations.

use std::sync::{Arc, OnceLock};

use axum::Router;
use gannet::{
    Accept, CloseReason, Conn, Handler, Handshake, Message, Request, Response, Result, Server,
    Worker, http::StatusCode, serve_service,
};

use crate::{
    api,
    data_dir::DataDir,
    hub::Hub,
    metrics,
    session::Sessions,
    settings::Settings,
    store::{Limits, sqlite::SqliteStore},
};

/// Runs a hub on this server until it is stopped.
///
/// Call it in `main`, as [`Server::serve`]: it runs in every process of the server.
///
/// # Panics
///
/// If it is called a second time in a process.
pub fn serve(settings: Settings, server: Server) -> Result {
    let dir = DataDir::new(&settings.data);
    if SETTINGS.set(settings).is_err() {
        panic!("a process serves one hub");
    }
    metrics::declare(server)
        .prepare(move |_| {
            let lock = dir.prepare()?;
            // Held until the process ends.
            let _ = LOCK.set(lock);
            Ok(())
        })
        .serve::<HubHandler>()
}

/// One worker's part of a hub.
pub(crate) struct HubHandler {
    hub: Hub<Worker>,
    router: Router,
}

impl Handler for HubHandler {
    async fn start(worker: &Worker) -> Result<Self> {
        let settings = SETTINGS.get().cloned().unwrap_or_default();
        let dir = DataDir::new(&settings.data);
        let limits = Limits {
            history: settings.history,
            key_ms: settings.key_hours.saturating_mul(3_600_000),
        };
        let hub = Hub {
            net: worker.clone(),
            store: Arc::new(SqliteStore::open(&dir.database(), limits).await?),
            sessions: Sessions::open(&dir.sessions()).await?,
            settings: Arc::new(settings),
        };
        let router = api::router(hub.clone(), dir.key()?);
        let successor = hub.clone();
        worker.spawn_local(async move {
            if let Err(error) = successor.push_recent().await {
                tracing::warn!(%error, "what was stored last is not pushed again");
            }
        });
        Ok(HubHandler { hub, router })
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        serve_service(&mut self.router.clone(), request).await
    }

    async fn open(&self, _conn: Conn, handshake: Handshake) -> Result<Accept> {
        if handshake.path() != SOCKET {
            let text = format!("the WebSocket is at {SOCKET}\n");
            return Ok(Accept::refuse_with(StatusCode::NOT_FOUND, text));
        }
        let (origin, host) = (handshake.header("origin"), handshake.header("host"));
        if !may_connect(origin, host, &self.hub.settings.origins) {
            let text = "pages of this origin may not connect: see --allow-origin\n";
            return Ok(Accept::refuse_with(StatusCode::FORBIDDEN, text));
        }
        Ok(Accept::new())
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        match message.as_text() {
            Some(text) => self.hub.frame(conn.id(), text).await?,
            None => self.hub.binary(conn.id()).await?,
        }
        Ok(())
    }

    async fn close(&self, conn: Conn, _reason: CloseReason) -> Result {
        Ok(self.hub.closed(conn.id()).await?)
    }
}

/// Whether a page of this origin may connect: one of the host that it connects to, or one that is
/// allowed. Browsers let any site's page open a WebSocket to any server, this one on the same
/// machine too, and always say which site it is; other programs say none.
fn may_connect(origin: Option<&str>, host: Option<&str>, allowed: &[String]) -> bool {
    let Some(origin) = origin else {
        return true;
    };
    let same = origin
        .split_once("://")
        .zip(host)
        .is_some_and(|((_, site), host)| site.eq_ignore_ascii_case(host));
    same || allowed
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();
static LOCK: OnceLock<crate::data_dir::DataLock> = OnceLock::new();
/// Where the WebSocket is.
const SOCKET: &str = "/v1/socket";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_may_not_connect() {
        let host = Some("127.0.0.1:9500");
        let allowed = [String::from("https://shop.example")];
        assert!(may_connect(None, host, &[]));
        assert!(may_connect(Some("http://127.0.0.1:9500"), host, &[]));
        assert!(may_connect(
            Some("https://chat.example"),
            Some("Chat.example"),
            &[]
        ));
        assert!(may_connect(Some("https://shop.example"), host, &allowed));
        for origin in [
            "https://evil.example",
            "http://127.0.0.1:9501",
            "null",
            "",
            "file://",
        ] {
            assert!(!may_connect(Some(origin), host, &allowed), "{origin}");
        }
        assert!(!may_connect(Some("https://evil.example"), None, &allowed));
    }
}
