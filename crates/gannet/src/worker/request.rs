//! From an event to an `http::Request`.

use http::{HeaderName, HeaderValue, Method, Uri, Version};

use super::{case::Case, local::Local};
use crate::{Body, Conn, Peer, Request, ViaProxy, wire::head::Head};

/// Why a head cannot be given to the handler; the client gets 400.
#[derive(Debug, thiserror::Error)]
#[error("the request has {0} that the `http` crate does not accept")]
pub(crate) struct BadRequest(&'static str);

/// Makes `request`, which is empty, the one of this event. Target, values and body share its payload.
///
/// Only what a proxy has said of its client stands among the extensions: all else the connection of the
/// body tells.
pub(crate) fn build(
    request: &mut Request,
    conn: &Conn,
    case: &Case,
    local: &Local,
) -> Result<(), BadRequest> {
    let payload = case.payload();
    let (head, rest) = Head::split(&payload).ok_or(BadRequest("a head"))?;
    let body = match case.upload() {
        Some(upload) => Body::upload(upload.reader()),
        None => Body::from(payload.slice_ref(rest)),
    };
    *request.body_mut() = body.on(conn.clone());
    *request.method_mut() =
        Method::from_bytes(head.method()).map_err(|_| BadRequest("a method"))?;
    *request.uri_mut() = Uri::from_maybe_shared(payload.slice_ref(head.target()))
        .map_err(|_| BadRequest("a target"))?;
    *request.version_mut() = match head.version() {
        0 => Version::HTTP_10,
        1 => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    let headers = request.headers_mut();
    *headers = local.header_map();
    headers.reserve(head.count());
    for (name, value) in head.headers() {
        let name = HeaderName::from_bytes(name).map_err(|_| BadRequest("a header name"))?;
        let value = HeaderValue::from_maybe_shared(payload.slice_ref(value))
            .map_err(|_| BadRequest("a header value"))?;
        headers.append(name, value);
    }
    if let Some(client) = head.client()
        && let Some(row) = conn.worker().shared().table().get(conn.id())
    {
        let extensions = request.extensions_mut();
        extensions.insert(Peer::Ip(client));
        extensions.insert(ViaProxy(row.proxy.unwrap_or(row.peer)));
    }
    Ok(())
}
