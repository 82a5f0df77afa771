//! HTTP bodies.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower_service::Service;

use crate::{
    Conn, Error, peer,
    worker::{Origin, UploadReader},
};

/// A request as [`Handler::request`](crate::Handler::request) gets it.
///
/// [`Peer::of`](crate::Peer::of) tells whom it is from. A service finds that among the request's extensions, if it is
/// called by [`serve_service`], or behind [`extend_request`].
pub type Request = http::Request<Body>;

/// A response. The engine writes `content-length`, `transfer-encoding`, `connection` and `date`
/// itself; what stands there under these names is not sent.
pub type Response = http::Response<Body>;

/// The body of a request or response: nothing, bytes, or a stream.
///
/// The body of a request arrives while it is read, and the client is slowed down to the speed of
/// the reader. It is `Send`, and implements [`http_body::Body`].
///
/// A body made of a `&str` or a `String` is text: a response with such a body has `content-type: text/plain;
/// charset=utf-8` if it has no `content-type` of its own. Of bytes and of streams nothing
/// is supposed, nor of bodies of other types.
#[derive(Default)]
pub struct Body {
    inner: Inner,
    /// Of a request.
    origin: Option<Origin>,
}

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    /// In UTF-8.
    Text(Bytes),
    Upload(UploadReader),
    Channel {
        receiver: mpsc::Receiver<Result<Frame<Bytes>, BodyError>>,
        broken: Arc<AtomicBool>,
    },
    Other(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Body::default()
    }

    /// Any other body.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut body = Some(body);
        // A body that went through here before is not boxed again.
        if let Some(own) = (&mut body as &mut dyn std::any::Any).downcast_mut::<Option<Body>>() {
            return own.take().unwrap_or_default();
        }
        let Some(body) = body else {
            return Body::empty();
        };
        let body = body.map_err(|error| BodyError::from_box(error.into()));
        Inner::Other(Box::pin(body)).into()
    }

    /// A body that is written piece by piece by whoever has the sender, from any thread.
    ///
    /// `capacity` pieces, at least 1, may wait; a sender that is ahead waits.
    pub fn channel(capacity: usize) -> (BodySender, Body) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let broken = Arc::new(AtomicBool::new(false));
        let sender = BodySender {
            sender,
            broken: broken.clone(),
        };
        (sender, Inner::Channel { receiver, broken }.into())
    }

    /// The next bytes, or `None` at the end. Trailers are skipped; for them, use
    /// `http_body_util::BodyExt::frame`.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            match self.frame().await? {
                Err(error) => return Some(Err(error)),
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => {}
                },
            }
        }
    }

    /// The whole body, if it has at most `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let too_large = BodyError::TooLarge { limit };
        if http_body::Body::size_hint(&self).lower() > limit as u64 {
            return Err(too_large);
        }
        let Some(first) = self.chunk().await.transpose()? else {
            return Ok(Bytes::new());
        };
        let mut all = None;
        while let Some(next) = self.chunk().await.transpose()? {
            let all = all.get_or_insert_with(|| BytesMut::from(&first[..]));
            if all.len() + next.len() > limit {
                return Err(too_large);
            }
            all.extend_from_slice(&next);
        }
        match all {
            Some(all) => Ok(all.freeze()),
            None if first.len() > limit => Err(too_large),
            None => Ok(first),
        }
    }

    pub(crate) fn upload(reader: UploadReader) -> Self {
        Inner::Upload(reader).into()
    }

    /// Makes it the body of a request that came from there.
    #[inline]
    pub(crate) fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// The connection that it came on, as the body of a request.
    pub(crate) fn conn(&self) -> Option<Conn> {
        self.origin.as_ref()?.conn()
    }

    /// The bytes, if they are all here already.
    pub(crate) fn as_whole(&self) -> Option<&[u8]> {
        match &self.inner {
            Inner::Empty => Some(&[]),
            Inner::Full(bytes) | Inner::Text(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The same, taken out.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.inner {
            Inner::Empty => Some(Bytes::new()),
            Inner::Full(bytes) | Inner::Text(bytes) => Some(std::mem::take(bytes)),
            _ => None,
        }
    }

    /// Whether it is some text.
    pub(crate) fn is_text(&self) -> bool {
        matches!(&self.inner, Inner::Text(text) if !text.is_empty())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) | Inner::Text(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Inner::Upload(upload) => upload.poll_frame(cx),
            Inner::Channel { receiver, broken } => match ready!(receiver.poll_recv(cx)) {
                None if broken.swap(false, Ordering::Relaxed) => {
                    let why = "whoever wrote the body panicked";
                    Poll::Ready(Some(Err(BodyError::Other(why.into()))))
                }
                frame => Poll::Ready(frame),
            },
            Inner::Other(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(bytes) | Inner::Text(bytes) => bytes.is_empty(),
            Inner::Upload(upload) => upload.is_end(),
            // Whether it ended or broke off is only known when it is read.
            Inner::Channel { .. } => false,
            Inner::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) | Inner::Text(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Upload(upload) => upload.size_hint(),
            Inner::Channel { .. } => SizeHint::default(),
            Inner::Other(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = http_body::Body::size_hint(self);
        match hint.exact() {
            Some(len) => write!(f, "Body({len} bytes)"),
            None => f.write_str("Body(stream)"),
        }
    }
}

impl From<Inner> for Body {
    fn from(inner: Inner) -> Self {
        Body {
            inner,
            origin: None,
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Body::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Inner::Full(bytes).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Inner::Text(text.into()).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Inner::Text(Bytes::from_static(text.as_bytes())).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

/// Writes a [`Body::channel`]. Dropping it ends the body; dropping it in a panic breaks it off.
#[derive(Debug)]
pub struct BodySender {
    sender: mpsc::Sender<Result<Frame<Bytes>, BodyError>>,
    broken: Arc<AtomicBool>,
}

impl BodySender {
    /// Sends a piece; waits while the channel is full. `Gone`: nobody reads the body any more.
    pub async fn send(&mut self, data: impl Into<Bytes>) -> Result<(), BodyError> {
        self.frame(Ok(Frame::data(data.into()))).await
    }

    /// Ends the body with trailers.
    pub async fn trailers(mut self, trailers: HeaderMap) -> Result<(), BodyError> {
        self.frame(Ok(Frame::trailers(trailers))).await
    }

    /// Breaks the body off, so that the client sees that it is not whole.
    pub async fn abort(mut self, error: impl Into<Box<dyn StdError + Send + Sync>>) {
        let _ = self.frame(Err(BodyError::from_box(error.into()))).await;
    }

    /// Waits until nobody reads the body any more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    async fn frame(&mut self, frame: Result<Frame<Bytes>, BodyError>) -> Result<(), BodyError> {
        self.sender.send(frame).await.map_err(|_| BodyError::Gone)
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The other side is gone: the client, or whoever read the body.
    #[error("the other side of the body is gone")]
    Gone,
    /// [`Body::collect`] was told to take less.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The limit given.
        limit: usize,
    },
    /// The body that was wrapped failed.
    #[error(transparent)]
    Other(Box<dyn StdError + Send + Sync>),
}

impl BodyError {
    fn from_box(error: Box<dyn StdError + Send + Sync>) -> Self {
        match error.downcast::<BodyError>() {
            Ok(own) => *own,
            Err(other) => BodyError::Other(other),
        }
    }
}

/// Answers a request with any tower service, such as an axum `Router`.
///
/// ```
/// # use gannet::{Conn, Request, Response, Result, serve_service};
/// # struct App<S> { router: S }
/// # impl<S> App<S> where S: Clone + tower_service::Service<Request, Response = Response,
/// #     Error = std::convert::Infallible> {
/// async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
///     serve_service(&mut self.router.clone(), request).await
/// }
/// # }
/// ```
///
/// The service finds in the request's extensions what [`extend_request`] puts there. An error of the service
/// becomes the error of the handler, that is 500.
pub async fn serve_service<S, B>(service: &mut S, mut request: Request) -> crate::Result<Response>
where
    S: Service<Request, Response = http::Response<B>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    extend_request(&mut request);
    let failed = |error: S::Error| Error::from(BodyError::Other(error.into()));
    std::future::poll_fn(|cx| service.poll_ready(cx))
        .await
        .map_err(failed)?;
    let response = service.call(request).await.map_err(failed)?;
    Ok(response.map(Body::wrap))
}

/// Puts into the extensions of a request whom it is from: the [`Conn`], the [`Peer`](crate::Peer), and, on a network, the
/// peer's `std::net::SocketAddr`; behind a trusted proxy that names the client also [`ViaProxy`](crate::ViaProxy).
/// See [`Peer::of`](crate::Peer::of).
///
/// For services that are called in another way than by [`serve_service`]. It takes some memory and a third of a
/// microsecond, which a handler that has the [`Conn`] anyway need not spend. What the handler has put there
/// itself, it leaves. The request's own body knows the connection, while its worker runs: call it before that is replaced.
pub fn extend_request(request: &mut Request) {
    let conn = request.body().conn();
    let (peer, proxy) = peer::parties(request, conn.as_ref());
    let extensions = request.extensions_mut();
    conn.map(|conn| extensions.insert(conn));
    proxy.map(|proxy| extensions.insert(proxy));
    let Some(peer) = peer else { return };
    extensions.insert(peer);
    if let Some(addr) = peer.addr()
        && extensions.get::<std::net::SocketAddr>().is_none()
    {
        extensions.insert(addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;

    #[test]
    fn a_request_is_extended_by_what_is_known_and_what_is_there_stays() {
        let client: std::net::SocketAddr = "192.0.2.7:0".parse().unwrap();
        let own: std::net::SocketAddr = "192.0.2.8:9".parse().unwrap();
        // The client that a proxy has named; the body is not the one that the request came with.
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Peer::Ip(client));
        extend_request(&mut request);
        assert_eq!(request.extensions().get(), Some(&client));
        request.extensions_mut().insert(own);
        extend_request(&mut request);
        assert_eq!(request.extensions().get(), Some(&own));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn collect_has_a_limit() {
        assert_eq!(Body::from("abc").collect(3).await.unwrap(), "abc");
        assert_eq!(Body::empty().collect(0).await.unwrap(), "");
        let error = Body::from("abc").collect(2).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 2 }));

        let (mut sender, body) = Body::channel(4);
        for piece in ["a", "", "b", "c"] {
            sender.send(piece).await.unwrap();
        }
        drop(sender);
        assert!(matches!(
            body.collect(2).await,
            Err(BodyError::TooLarge { .. })
        ));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_body_that_is_broken_off_is_an_error() {
        let (sender, body) = Body::channel(1);
        sender.abort("disk on fire").await;
        assert_eq!(
            body.collect(9).await.unwrap_err().to_string(),
            "disk on fire"
        );

        let (mut sender, body) = Body::channel(1);
        drop(body);
        assert!(matches!(sender.send("x").await, Err(BodyError::Gone)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn wrapping_keeps_sizes_and_errors() {
        let body = Body::wrap(http_body_util::Full::new(Bytes::from_static(b"abc")));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
        let mut twice = Body::wrap(Body::from("abc"));
        assert_eq!(
            twice.take_whole().unwrap(),
            "abc",
            "not boxed a second time"
        );
    }
}
