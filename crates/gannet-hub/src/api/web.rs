//! The chat page: the files of web/chat, which are part of the program.

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// The routes of the page's files.
pub(super) fn pages() -> Router {
    FILES.iter().fold(Router::new(), |router, file| {
        let etag = etag(file.content);
        router.route(
            file.path,
            get(async move |headers: HeaderMap| file.respond(&headers, &etag)),
        )
    })
}

struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

impl File {
    fn respond(&'static self, request: &HeaderMap, etag: &HeaderValue) -> Response {
        let known = request
            .get(header::IF_NONE_MATCH)
            .is_some_and(|known| known == etag);
        let mut response = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(header::CONTENT_TYPE, self.kind)], self.content).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag.clone());
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A file's name in browsers' caches: its content's FNV-1a hash. Nobody gains by a collision.
fn etag(content: &str) -> HeaderValue {
    let hash = content
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    HeaderValue::from_str(&format!("\"{hash:016x}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

const FILES: [File; 7] = [
    File {
        path: "/",
        kind: "text/html; charset=utf-8",
        content: include_str!("../../../../web/chat/index.html"),
    },
    File {
        path: "/chat.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../../../web/chat/chat.js"),
    },
    File {
        path: "/client.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../../../web/chat/client.js"),
    },
    File {
        path: "/memory.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../../../web/chat/memory.js"),
    },
    File {
        path: "/view.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../../../web/chat/view.js"),
    },
    File {
        path: "/style.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("../../../../web/chat/style.css"),
    },
    File {
        path: "/favicon.svg",
        kind: "image/svg+xml",
        content: include_str!("../../../../web/chat/favicon.svg"),
    },
];

/// Scripts and styles only from the page's own files, connections only to its own server, no frames.
const HEADERS: [(header::HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
];
