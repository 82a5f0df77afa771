//! From an event to an `http::Request`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use crate::{Conn, Peer, ViaProxy, wire::head::Head};

/// Why a head cannot be given to the handler; the client gets 400.
#[derive(Debug, thiserror::Error)]
#[error("the request has {0} that the `http` crate does not accept")]
pub(crate) struct BadRequest(&'static str);

/// The request in this payload, and what follows its head. Target and values share its buffer.
pub(crate) fn build(conn: &Conn, payload: &Bytes) -> Result<http::Request<Bytes>, BadRequest> {
    let (head, body) = Head::split(payload).ok_or(BadRequest("a head"))?;
    let mut request = http::Request::new(payload.slice_ref(body));
    *request.method_mut() =
        Method::from_bytes(head.method()).map_err(|_| BadRequest("a method"))?;
    *request.uri_mut() = Uri::from_maybe_shared(payload.slice_ref(head.target()))
        .map_err(|_| BadRequest("a target"))?;
    *request.version_mut() = match head.version() {
        0 => Version::HTTP_10,
        1 => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    let mut headers = HeaderMap::with_capacity(head.count());
    for (name, value) in head.headers() {
        let name = HeaderName::from_bytes(name).map_err(|_| BadRequest("a header name"))?;
        let value = HeaderValue::from_maybe_shared(payload.slice_ref(value))
            .map_err(|_| BadRequest("a header value"))?;
        headers.append(name, value);
    }
    *request.headers_mut() = headers;
    if let Some(row) = conn.worker().shared().table().get(conn.id()) {
        let (peer, proxy) = match head.client() {
            Some(client) => (Peer::Ip(client), Some(row.proxy.unwrap_or(row.peer))),
            None => (row.peer, row.proxy),
        };
        if let Peer::Ip(addr) = peer {
            request.extensions_mut().insert(addr);
        }
        request.extensions_mut().insert(peer);
        if let Some(proxy) = proxy {
            request.extensions_mut().insert(ViaProxy(proxy));
        }
    }
    request.extensions_mut().insert(conn.clone());
    Ok(request)
}
