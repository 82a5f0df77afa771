//! The HTTP interface. docs/http-api.md is its specification.
//!
//! [`web`] is the page; the rest is for programs that have the key.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;

use crate::{
    api_key::ApiKey,
    error::{Code, Error},
    hub::Hub,
    net::Net,
};

mod channels;
mod messages;
mod web;

/// What the handlers of requests have.
pub(crate) struct Api<N> {
    hub: Hub<N>,
    key: ApiKey,
}

/// All pages.
pub(crate) fn router<N: Net>(hub: Hub<N>, key: ApiKey) -> Router {
    let api = Router::new()
        .route("/v1/messages", post(messages::send))
        .route("/v1/channels/{channel}/history", get(channels::history))
        .route("/v1/channels/{channel}/presence", get(channels::presence))
        .route("/v1/socket", get(socket))
        .route("/healthz", get(async || "ok\n"))
        .with_state(Arc::new(Api { hub, key }));
    web::pages()
        .merge(api)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// A request that showed the key.
struct Authorized;

impl<N: Net> FromRequestParts<Arc<Api<N>>> for Authorized {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api<N>>) -> Result<Self, Error> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            let msg = "the header is missing: Authorization: Bearer KEY";
            return Err(Error::new(Code::Unauthorized, msg));
        };
        let shown = value.as_bytes().split_at_checked(BEARER.len());
        match shown {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(BEARER) => match api.key.is(key) {
                true => Ok(Authorized),
                false => Err(Error::new(Code::Unauthorized, "this is not the key")),
            },
            _ => Err(Error::new(
                Code::Unauthorized,
                "the header is to be: Authorization: Bearer KEY",
            )),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: Error,
        }
        let mut response =
            (self.code.status(), [(header::CACHE_CONTROL, "no-store")]).into_response();
        let headers = response.headers_mut();
        if self.code == Code::Unauthorized {
            headers.insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            );
        }
        if let Some(retry) = self.retry {
            let seconds = retry.as_millis().div_ceil(1000);
            headers.insert(header::RETRY_AFTER, (seconds as u64).into());
        }
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        *response.body_mut() = crate::message::to_json(&Body { error: self }).into();
        response
    }
}

/// A JSON response that nobody is to keep.
fn fresh(status: StatusCode, body: &impl Serialize) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, crate::message::to_json(body)).into_response()
}

async fn not_found(request: Request) -> Error {
    Error::new(
        Code::NotFound,
        format!("there is nothing at {}", request.uri().path()),
    )
}

async fn method_not_allowed(request: Request) -> Error {
    let (method, path) = (request.method(), request.uri().path());
    Error::new(
        Code::MethodNotAllowed,
        format!("{path} does not know {method}"),
    )
}

/// A request for the WebSocket that is no handshake; handshakes do not come here.
async fn socket<N: Net>(State(_): State<Arc<Api<N>>>) -> Response {
    let headers = [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "upgrade"),
    ];
    (
        StatusCode::UPGRADE_REQUIRED,
        headers,
        "connect with a WebSocket\n",
    )
        .into_response()
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests;
