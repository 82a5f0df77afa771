//! Multipart forms whose heads have a limit.
//!
//! axum's `Multipart` streams the content of each part, and the length of the whole form is limited
//! by a layer. But what stands before the first part, and the head of each part, it collects until
//! it ends: a form that is nothing else would be held in memory up to the limit of the whole. Here
//! at most [`UNREAD`] bytes, and the piece that exceeds them, are with the parser at a time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError, MultipartRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use http_body::{Frame, SizeHint};

/// An extractor: a form that comes in.
pub(crate) struct Form {
    parts: Multipart,
    unread: Arc<Unread>,
}

/// A part of the form. It has to be read to its end before the next one is asked for.
pub(crate) struct Part<'a> {
    pub(crate) field: Field<'a>,
    unread: Arc<Unread>,
}

/// Why a form was not taken.
#[derive(Debug)]
pub(crate) enum FormError {
    /// Neither the end of a head nor a piece of content in so many bytes.
    HeadTooLarge,
    /// More files than one form may bring.
    TooMany,
    /// It is no form, breaks off, or is larger than the layer allows.
    Bad(MultipartError),
    /// The file could not be written.
    Disk(io::Error),
}

/// Bytes that the parser has got since it last gave something.
#[derive(Debug, Default)]
struct Unread {
    bytes: AtomicUsize,
    refused: AtomicUsize,
}

impl Form {
    /// The next part.
    pub(crate) async fn part(&mut self) -> Result<Option<Part<'_>>, FormError> {
        self.unread.bytes.store(0, Relaxed);
        let unread = self.unread.clone();
        match self.parts.next_field().await {
            Ok(field) => Ok(field.map(|field| Part { field, unread })),
            Err(error) => Err(unread.explain(error)),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = MultipartRejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let unread = Arc::new(Unread::default());
        let request = request.map(|body| {
            Body::new(Watched {
                body,
                unread: unread.clone(),
                held_back: false,
            })
        });
        let parts = Multipart::from_request(request, state).await?;
        Ok(Form { parts, unread })
    }
}

impl Part<'_> {
    /// The next piece of its content.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, FormError> {
        self.unread.bytes.store(0, Relaxed);
        let chunk = self.field.chunk().await;
        chunk.map_err(|error| self.unread.explain(error))
    }
}

impl Unread {
    fn explain(&self, error: MultipartError) -> FormError {
        match self.refused.load(Relaxed) {
            0 => FormError::Bad(error),
            _ => FormError::HeadTooLarge,
        }
    }
}

impl From<io::Error> for FormError {
    fn from(error: io::Error) -> Self {
        FormError::Disk(error)
    }
}

impl IntoResponse for FormError {
    fn into_response(self) -> Response {
        match self {
            FormError::HeadTooLarge => {
                let why = format!("the head of a part has more than {UNREAD} bytes\n");
                (StatusCode::PAYLOAD_TOO_LARGE, why).into_response()
            }
            FormError::TooMany => {
                let why = format!("a form may have {FILES} files\n");
                (StatusCode::PAYLOAD_TOO_LARGE, why).into_response()
            }
            FormError::Bad(error) => error.into_response(),
            FormError::Disk(error) => {
                let why = format!("the upload could not be stored: {error}\n");
                (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
            }
        }
    }
}

/// The body of the request, on its way to the parser.
struct Watched {
    body: Body,
    unread: Arc<Unread>,
    held_back: bool,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.unread.bytes.load(Relaxed) >= UNREAD {
            // The parser takes what is there before it looks at it: it may do so now. If it comes
            // back with nothing given to its caller, that is not enough for it.
            if !std::mem::replace(&mut self.held_back, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.unread.refused.store(1, Relaxed);
            return Poll::Ready(Some(Err("the head of a part is too large".into())));
        }
        self.held_back = false;
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            // As it was: axum looks into it for the limit of the whole.
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into_inner()))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            self.unread.bytes.fetch_add(data.len(), Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Most bytes that may come without a head that ends or a piece of content, in bytes.
pub(crate) const UNREAD: usize = 64 << 10;
/// Most files in one form.
pub(crate) const FILES: usize = 16;
