//! From an event to an `http::Request`.

use bytes::Buf;
use http::{Method, Uri, Version};

use super::{case::Case, fields, local::Local};
use crate::{Body, Conn, Peer, Request, ViaProxy, wire::head::Head};

/// Why a head cannot be given to the handler; the client gets 400.
#[derive(Debug, thiserror::Error)]
#[error("the request has {0} that the `http` crate does not accept")]
pub(crate) struct BadRequest(&'static str);

/// Makes `request`, which is new, the one of this event. Target, values and body share its payload.
///
/// Only what a proxy has said of its client stands among the extensions: all else the connection of the
/// body tells.
pub(crate) fn build(
    request: &mut Request,
    conn: &Conn,
    case: &Case,
    local: &Local,
) -> Result<(), BadRequest> {
    let mut payload = case.payload();
    let (head, rest) = Head::split(&payload).ok_or(BadRequest("a head"))?;
    let body = match case.upload() {
        Some(upload) => Body::upload(upload.reader()),
        None if rest.is_empty() => Body::empty(),
        None => Body::from(payload.slice_ref(rest)),
    };
    *request.body_mut() = body.on(conn.clone());
    // It is GET from the beginning.
    if !head.is_get() {
        *request.method_mut() =
            Method::from_bytes(head.method()).map_err(|_| BadRequest("a method"))?;
    }
    if head.target() != ROOT {
        *request.uri_mut() = Uri::from_maybe_shared(payload.slice(head.target_range()))
            .map_err(|_| BadRequest("a target"))?;
    }
    *request.version_mut() = match head.version() {
        0 => Version::HTTP_10,
        1 => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    if let Some(client) = head.client()
        && let Some(row) = conn.worker().shared().table().get(conn.id())
    {
        let extensions = request.extensions_mut();
        extensions.insert(Peer::Ip(client));
        extensions.insert(ViaProxy(row.proxy.unwrap_or(row.peer)));
    }
    let headers = request.headers_mut();
    local.lend_header_map(headers);
    if headers.capacity() < head.count() {
        headers.reserve(head.count().min(MAX_HEADERS));
    }
    let lines = head.lines();
    payload.truncate(lines.end);
    payload.advance(lines.start);
    fields::append(headers, payload).ok_or(BadRequest("a header"))
}

/// The target that a request has from the beginning.
const ROOT: &[u8] = b"/";
/// Room is made at once for as many headers as a parser accepts.
const MAX_HEADERS: usize = 128;
