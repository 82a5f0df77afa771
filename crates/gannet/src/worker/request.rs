//! From an event to an `http::Request`.

use http::{Method, Uri, Version};

use super::{case::Case, fields, local::Local, origin::Origin};
use crate::{
    Body, Peer, Request, ViaProxy,
    wire::{event::REDELIVERED, head::Head},
};

/// Why a head cannot be given to the handler; the client gets 400.
#[derive(Debug, thiserror::Error)]
#[error("the request has {0} that the `http` crate does not accept")]
pub(crate) struct BadRequest(&'static str);

/// A request that is new.
///
/// As a call it is made where its caller wants it. Inlined it would be made elsewhere, and copied there.
#[inline(never)]
pub(crate) fn fresh() -> Request {
    Request::new(Body::empty())
}

/// Makes `request`, which is new, the one of this event. Target, values and body share its payload.
///
/// Only what a proxy has said of its client stands among the extensions: all else the connection of the
/// body tells.
pub(crate) fn build(request: &mut Request, case: &Case, local: &Local) -> Result<(), BadRequest> {
    let payload = case.payload();
    let (head, rest) = Head::split(&payload).ok_or(BadRequest("a head"))?;
    let body = request.body_mut();
    if let Some(upload) = case.upload() {
        *body = Body::upload(upload.reader());
    } else if !rest.is_empty() {
        *body = Body::from(payload.slice_ref(rest));
    }
    let redelivered = case.has(REDELIVERED);
    body.set_origin(Origin::new(&local.shared, case.conn(), redelivered));
    // It is GET from the beginning.
    if !head.is_get() {
        *request.method_mut() =
            Method::from_bytes(head.method()).map_err(|_| BadRequest("a method"))?;
    }
    let target = head.target_range();
    if payload[target.clone()] != *ROOT {
        *request.uri_mut() =
            Uri::from_maybe_shared(payload.slice(target)).map_err(|_| BadRequest("a target"))?;
    }
    // And HTTP/1.1.
    match head.version() {
        0 => *request.version_mut() = Version::HTTP_10,
        1 => {}
        _ => *request.version_mut() = Version::HTTP_2,
    }
    if let Some(client) = head.client()
        && let Some(row) = local.shared.table().get(case.conn())
    {
        let extensions = request.extensions_mut();
        extensions.insert(Peer::Ip(client));
        extensions.insert(ViaProxy(row.proxy.unwrap_or(row.peer)));
    }
    let (headers, count) = (request.headers_mut(), head.count());
    if let Some(memory) = local.lend_header_map() {
        put(headers, memory);
    }
    // What the first header makes room for by itself is enough for most.
    if count > headers.capacity().max(FIRST_ROOM) {
        headers.reserve(count.min(MAX_HEADERS));
    }
    let lines = head.lines();
    fields::append(headers, payload, lines).ok_or(BadRequest("a header"))
}

/// Puts a value where one is that is new and owns nothing: to drop that would cost as much as to make it.
#[inline]
fn put<T>(place: &mut T, value: T) {
    std::mem::forget(std::mem::replace(place, value));
}

/// The target that a request has from the beginning.
const ROOT: &[u8] = b"/";
/// The capacity of a map that makes room for its first header.
const FIRST_ROOM: usize = 6;
/// Room is made at once for as many headers as a parser accepts.
const MAX_HEADERS: usize = 128;
