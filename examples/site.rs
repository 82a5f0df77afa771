//! A small site: a form that takes files, a directory of files, a JSON interface for pages of other
//! origins, a counter in a cookie, compressed answers. `docs/http.md` explains each piece.
//!
//!     cargo run --release --example site
//!     curl -i -c /tmp/jar -b /tmp/jar http://127.0.0.1:9511/
//!     curl -i --compressed http://127.0.0.1:9511/files/style.css
//!     curl -i -r 0-9 http://127.0.0.1:9511/files/style.css
//!     curl -i -r 0-9,20-29 http://127.0.0.1:9511/files/style.css
//!     curl -F file=@Cargo.lock http://127.0.0.1:9511/upload
//!     curl -i -H 'Origin: http://localhost:3000' http://127.0.0.1:9511/api/uploads
//!     curl -N --compressed http://127.0.0.1:9511/ticks
//!
//! Its environment: `SITE_FILES` (the directory that is served), `SITE_UPLOADS` (where uploads go; one
//! in the directory for temporary files), `SITE_UPLOAD_LIMIT` (bytes of one form), `SITE_ORIGIN` (whose
//! pages may use the interface).

use std::{
    convert::Infallible,
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    middleware::{from_fn, map_response},
    response::{Html, IntoResponse},
    routing::{get, post},
};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use futures_util::{StreamExt, stream};
use gannet::{Conn, Error, Handler, Request, Response, Result, Server, Worker, serve_service};
use serde::Serialize;
use tokio::{fs::File, io::AsyncWriteExt};
use tower_http::{
    CompressionLevel, compression::CompressionLayer, cors::CorsLayer, limit::RequestBodyLimitLayer,
    services::ServeDir,
};

use crate::{
    beneath::Beneath,
    form::{FILES, Form, FormError},
};

#[path = "site/beneath.rs"]
mod beneath;
#[path = "site/form.rs"]
mod form;
#[path = "site/ranges.rs"]
mod ranges;
#[path = "site/validators.rs"]
mod validators;

struct Site {
    router: Router,
}

impl Handler for Site {
    async fn start(_worker: &Worker) -> Result<Self> {
        let uploads = env::var_os("SITE_UPLOADS")
            .map_or_else(|| env::temp_dir().join("gannet-site"), PathBuf::from);
        fs::create_dir_all(&uploads)
            .map_err(|error| Error::new(format!("{}: {error}", uploads.display())))?;

        let form = Router::new()
            .route("/upload", post(upload))
            // axum's own limit of 2 MiB gives way to ours, which looks at the length first.
            .layer(DefaultBodyLimit::disable())
            .layer(RequestBodyLimitLayer::new(upload_limit()?));
        let api = Router::new()
            .route("/api/uploads", get(list))
            .layer(cors()?);
        let router = Router::new()
            .route("/", get(home))
            .route("/ticks", get(async || ticks("text/plain")))
            .route("/events", get(async || ticks("text/event-stream")))
            .merge(form)
            .merge(api)
            .with_state(Arc::new(uploads))
            .merge(files()?)
            .layer(
                CompressionLayer::new()
                    // For the memory: brotli takes 13 MiB a response otherwise.
                    .quality(CompressionLevel::Fastest)
                    .compress_when(is_worth_it),
            )
            .layer(map_response(validators::weaken_etag));
        Ok(Site { router })
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        serve_service(&mut self.router.clone(), request).await
    }
}

/// The files of a directory, below `/files`.
fn files() -> Result<Router> {
    let root = env::var("SITE_FILES").unwrap_or_else(|_| "examples/site/public".to_owned());
    let beneath =
        Beneath::new(&root).map_err(|error| Error::new(format!("SITE_FILES {root}: {error}")))?;
    let files = ServeDir::with_backend("", beneath)
        .redirect_path_prefix("/files")
        .precompressed_br()
        .precompressed_zstd()
        .precompressed_gzip()
        // Those that `several_ranges` leaves get the whole file, not an error.
        .ignore_multi_range_requests(true);
    Ok(Router::new()
        .nest_service("/files", files)
        .layer(from_fn(ranges::several_ranges))
        .layer(from_fn(validators::if_range)))
}

fn cors() -> Result<CorsLayer> {
    let origin = env::var("SITE_ORIGIN").unwrap_or_else(|_| "http://localhost:3000".to_owned());
    let origin = HeaderValue::from_str(&origin)
        .map_err(|_| Error::new(format!("SITE_ORIGIN {origin:?} is no origin")))?;
    Ok(CorsLayer::new()
        .allow_origin([origin])
        .allow_methods([Method::GET])
        .allow_headers([header::CONTENT_TYPE])
        .max_age(Duration::from_secs(3600)))
}

fn upload_limit() -> Result<usize> {
    let Ok(limit) = env::var("SITE_UPLOAD_LIMIT") else {
        return Ok(LIMIT);
    };
    let wrong = |_| Error::new(format!("SITE_UPLOAD_LIMIT {limit:?} is no number of bytes"));
    limit.parse().map_err(wrong)
}

/// What gets smaller when it is compressed, but for events: a browser waits for each of them.
///
/// The length is that of the header: the answer to HEAD has it too, and has to be compressed on
/// paper as the answer to GET is in fact.
fn is_worth_it(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length < SMALL) {
        return false;
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        "text/event-stream" => false,
        "application/json" | "application/wasm" | "image/svg+xml" => true,
        kind => kind.starts_with("text/"),
    }
}

/// The form, and how often it was seen. A cookie is what its client says it is: it counts visits, it
/// proves nothing.
async fn home(jar: CookieJar) -> impl IntoResponse {
    let seen = jar
        .get("visits")
        .and_then(|cookie| cookie.value().parse().ok());
    let visits = seen.unwrap_or(0u32).saturating_add(1);
    let cookie = Cookie::build(("visits", visits.to_string()))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax);
    (jar.add(cookie), Html(page(visits)))
}

fn page(visits: u32) -> String {
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Gannet site</title>
<link rel="stylesheet" href="/files/style.css">
<h1>Gannet site</h1>
<p>Visit {visits}.</p>
<form action="/upload" method="post" enctype="multipart/form-data">
<input type="file" name="file" multiple>
<input type="submit" value="Upload">
</form>
<p><a href="/files/">Files</a>, <a href="/api/uploads">uploads</a></p>
</html>
"#
    )
}

/// A file that has come.
#[derive(Serialize)]
struct Stored {
    /// As the client calls it: to be shown, never to be a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    stored: String,
    bytes: u64,
}

async fn upload(
    State(uploads): State<Arc<PathBuf>>,
    mut form: Form,
) -> std::result::Result<Json<Vec<Stored>>, FormError> {
    let mut all = Vec::new();
    while let Some(mut part) = form.part().await? {
        let name = part.field.file_name().filter(|name| !name.is_empty());
        let Some(name) = name.map(str::to_owned) else {
            // A field that is no file, or a file input in which nothing was chosen.
            while part.chunk().await?.is_some() {}
            continue;
        };
        if all.len() == FILES {
            return Err(FormError::TooMany);
        }
        let stored = unused_name();
        let partial = Partial(uploads.join(format!("{stored}.part")));
        let mut file = File::create_new(&partial.0).await?;
        let mut bytes = 0;
        while let Some(chunk) = part.chunk().await? {
            file.write_all(&chunk).await?;
            bytes += chunk.len() as u64;
        }
        file.flush().await?;
        tokio::fs::rename(&partial.0, uploads.join(&stored)).await?;
        all.push(Stored {
            name: Some(name),
            stored,
            bytes,
        });
    }
    Ok(Json(all))
}

/// The newest uploads, at most a hundred.
async fn list(
    State(uploads): State<Arc<PathBuf>>,
) -> std::result::Result<Json<Vec<Stored>>, FormError> {
    let listed = tokio::task::spawn_blocking(move || stored_in(&uploads)).await;
    Ok(Json(listed.map_err(std::io::Error::other)??))
}

fn stored_in(uploads: &Path) -> std::io::Result<Vec<Stored>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(uploads)? {
        let entry = entry?;
        let stored = entry.file_name().to_string_lossy().into_owned();
        // One that was removed meanwhile has no metadata.
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
            && !stored.ends_with(".part")
        {
            let bytes = metadata.len();
            all.push(Stored {
                name: None,
                stored,
                bytes,
            });
        }
    }
    all.sort_by(|a, b| b.stored.cmp(&a.stored));
    all.truncate(100);
    Ok(all)
}

/// A file that is being written: gone if the client goes before it is whole.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Under its final name it is out of reach.
        let _ = fs::remove_file(&self.0);
    }
}

/// Names sort by time, and differ between processes and uploads.
fn unused_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.map_or(0, |now| now.as_millis());
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{millis:014}-{}-{next}", std::process::id())
}

/// A line every half second, each sent as it is made: compression does not hold it back.
fn ticks(kind: &'static str) -> impl IntoResponse {
    let lines = stream::unfold(0, move |tick| async move {
        if tick == 10 {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let line = match kind {
            "text/event-stream" => format!("data: tick {tick}\n\n"),
            _ => format!("tick {tick}\n"),
        };
        Some((Ok::<_, Infallible>(line), tick + 1))
    });
    // Fused, because the compressing layer asks once more after the end.
    let lines = Body::from_stream(lines.fuse());
    ([(header::CONTENT_TYPE, kind)], lines)
}

fn main() -> Result {
    Server::http("127.0.0.1:9511")
        // The engine's limit is for all requests of the listener; the layers' are for single routes.
        .settings(|settings| settings.listeners[0].max_body_size = 4 << 30)
        .run::<Site>()
}

/// Bytes of one form, unless `SITE_UPLOAD_LIMIT` says otherwise.
const LIMIT: usize = 2 << 30;
/// Bytes below which compressing gains nothing: they fit into one packet anyway.
const SMALL: u64 = 256;
