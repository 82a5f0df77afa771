//! The body of a request while it comes in.
//!
//! Pieces arrive as events on the worker's thread and are read wherever the body was taken to. A
//! piece counts as finished when it is read: that is what slows the client down to the speed of
//! the reader. A body that nobody reads any more finishes its pieces as they come.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::shared::{Command, Shared};
use crate::{BodyError, ConnId, wire::command::CommandKind};

/// The worker's side.
pub(crate) struct Upload {
    shared: Arc<Shared>,
    reactor: usize,
    conn: ConnId,
    epoch: u32,
    state: Mutex<State>,
}

struct State {
    /// With their numbers as events.
    pieces: VecDeque<(Bytes, u64)>,
    trailers: Option<HeaderMap>,
    end: End,
    /// Nobody reads.
    abandoned: bool,
    /// The client waits for 100 (Continue).
    continue_due: bool,
    /// Bytes that were not read yet, if the length is known.
    remaining: Option<u64>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Ended,
    Failed,
}

impl Upload {
    pub(crate) fn new(
        shared: Arc<Shared>,
        reactor: usize,
        conn: ConnId,
        len: Option<u64>,
        expects_continue: bool,
    ) -> Arc<Self> {
        let epoch = shared.lanes.get(reactor).map_or(0, |lane| lane.epoch());
        let state = State {
            pieces: VecDeque::new(),
            trailers: None,
            end: End::Open,
            abandoned: false,
            continue_due: expects_continue,
            remaining: len,
            waker: None,
        };
        Arc::new(Upload {
            shared,
            reactor,
            conn,
            epoch,
            state: Mutex::new(state),
        })
    }

    /// The reading side. There is one.
    pub(crate) fn reader(self: &Arc<Self>) -> UploadReader {
        UploadReader {
            upload: self.clone(),
        }
    }

    /// A piece came; `seq` is 0 if it came with the head, and is finished with the request.
    pub(crate) fn feed(&self, piece: Bytes, seq: u64) {
        let mut state = self.lock();
        if state.abandoned || piece.is_empty() {
            drop(state);
            self.finish(seq);
            return;
        }
        state.pieces.push_back((piece, seq));
        state.wake();
    }

    /// The last piece has come.
    pub(crate) fn end(&self, trailers: &[u8], seq: u64) {
        let mut state = self.lock();
        state.end = End::Ended;
        state.trailers = (!trailers.is_empty()).then(|| parse_trailers(trailers));
        state.wake();
        drop(state);
        self.finish(seq);
    }

    /// The client is gone. What it sent can still be read; then comes an error.
    pub(crate) fn fail(&self) {
        let mut state = self.lock();
        state.end = End::Failed;
        state.wake();
    }

    /// Nobody will read.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.wake();
        let pieces = std::mem::take(&mut state.pieces);
        drop(state);
        for (_, seq) in pieces {
            self.finish(seq);
        }
    }

    fn finish(&self, seq: u64) {
        if seq == 0 {
            return;
        }
        self.shared.finish(self.reactor, self.conn, seq, self.epoch);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The application's side, in a [`Body`](crate::Body). Dropping it lets the rest go.
pub(crate) struct UploadReader {
    upload: Arc<Upload>,
}

impl UploadReader {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.upload.lock();
        if std::mem::take(&mut state.continue_due) {
            let command = Command::bare(CommandKind::Continue, self.upload.conn);
            self.upload.shared.post(self.upload.reactor, command);
        }
        if let Some((piece, seq)) = state.pieces.pop_front() {
            state.remaining = state
                .remaining
                .map(|len| len.saturating_sub(piece.len() as u64));
            drop(state);
            self.upload.finish(seq);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if state.abandoned {
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        match state.end {
            End::Ended => Poll::Ready(state.trailers.take().map(|map| Ok(Frame::trailers(map)))),
            End::Failed => Poll::Ready(Some(Err(BodyError::Gone))),
            End::Open => {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        let state = self.upload.lock();
        state.end == End::Ended && state.pieces.is_empty() && state.trailers.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.upload
            .lock()
            .remaining
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for UploadReader {
    fn drop(&mut self) {
        self.upload.abandon();
    }
}

/// Trailer lines, checked by the parser before. What is no header is left out.
fn parse_trailers(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&line[..colon]),
            HeaderValue::from_bytes(value),
        ) {
            trailers.append(name, value);
        }
    }
    trailers
}
