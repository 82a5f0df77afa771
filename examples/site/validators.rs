//! What has to be right about `ETag` and ranges when files are served and compressed, and is left
//! to the program by the libraries. Both are layers: `axum::middleware::from_fn(if_range)`.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};

/// Honours `If-Range`, which `ServeDir` does not read: a range of a file that has changed would be
/// glued to the old half. Such a request gets the whole file (RFC 9110 section 13.1.5).
///
/// Goes right around the files, within what compresses.
pub(crate) async fn if_range(mut request: Request, next: Next) -> Response {
    let Some(condition) = request.headers_mut().remove(header::IF_RANGE) else {
        return next.run(request).await;
    };
    if !request.headers().contains_key(header::RANGE)
        || !matches!(*request.method(), Method::GET | Method::HEAD)
    {
        return next.run(request).await;
    }
    let (parts, _) = request.into_parts();
    let mut whole = parts.clone();
    whole.headers.remove(header::RANGE);
    let partial = Request::from_parts(parts, Body::empty());
    let response = next.clone().run(partial).await;
    if is_current(response.headers(), &condition) {
        return response;
    }
    next.run(Request::from_parts(whole, Body::empty())).await
}

/// Makes the `ETag` of what was compressed on its way a weak one: the compressed bytes are not those
/// that the strong one names.
///
/// Goes around what compresses. Files that lie there compressed have tags of their own.
pub(crate) async fn weaken_etag(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // What compresses takes `accept-ranges` away; files always have it.
    if headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::ACCEPT_RANGES)
        && let Some(tag) = headers.get(header::ETAG)
        && tag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
    response
}

/// Whether the file is still the one of which the client has a part.
fn is_current(headers: &HeaderMap, condition: &HeaderValue) -> bool {
    let condition = condition.as_bytes();
    let name = match condition {
        // A weak tag says nothing about single bytes.
        [b'W', b'/', ..] => return false,
        [b'"', ..] => header::ETAG,
        _ => header::LAST_MODIFIED,
    };
    headers
        .get(name)
        .is_some_and(|ours| ours.as_bytes() == condition)
}
