//! From an `http::Response` to commands.
//!
//! A body that is all there and small goes with its head in one command. A longer one follows in
//! pieces, of which at most [`WINDOW`] bytes wait for the client at a time.

use std::{pin::Pin, rc::Rc, task::Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;

use super::{
    local::{Local, Progress},
    shared::Command,
};
use crate::{
    Body, BodyError, ConnId, Error, Response, Result, SendError, traces,
    wire::command::{COMPLETE, CommandHeader, CommandKind},
};

/// Sends a response. `head_only`: to a HEAD request.
pub(crate) async fn respond(
    local: &Rc<Local>,
    conn: ConnId,
    response: Response,
    head_only: bool,
) -> Result {
    let (parts, mut body) = response.into_parts();
    let status = parts.status;
    if status.is_informational() {
        return Err(Error::new(format!(
            "{status} is no response that a handler can give"
        )));
    }
    traces::answered(status);
    let sender = Sender { local, conn };
    let declared = declared_length(&parts.headers);
    let lines = head_lines(&parts.headers);

    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return sender.whole(status, lines, Bytes::new()).await;
    }
    let len = body.size_hint().exact();
    if head_only {
        sender.head(status, lines, declared.or(len)).await?;
        return sender.end(Bytes::new()).await;
    }
    let limit = WINDOW.min(local.shared.largest().saturating_sub(lines.len()));
    let mut ready = Vec::new();
    match body.take_whole() {
        Some(bytes) if bytes.len() <= limit => return sender.whole(status, lines, bytes).await,
        Some(bytes) => ready.push(Frame::data(bytes)),
        None => {
            if gather(&mut body, &mut ready, limit).await? {
                return sender.whole(status, lines, join(ready)).await;
            }
        }
    }
    let len = len.or(declared);
    sender.head(status, lines, len).await?;
    let stream = Stream { local, conn };
    stream.run(&sender, body, ready, len).await
}

/// Collects what of a body is there now. Says whether that was all of it.
async fn gather(
    body: &mut Body,
    ready: &mut Vec<Frame<Bytes>>,
    limit: usize,
) -> std::result::Result<bool, BodyError> {
    let mut total = 0;
    std::future::poll_fn(|cx| {
        loop {
            match Pin::new(&mut *body).poll_frame(cx)? {
                Poll::Pending => return Poll::Ready(Ok(false)),
                Poll::Ready(None) => return Poll::Ready(Ok(true)),
                Poll::Ready(Some(frame)) => {
                    total += frame.data_ref().map_or(0, Bytes::len);
                    let streamed = total > limit || frame.is_trailers();
                    ready.push(frame);
                    if streamed {
                        return Poll::Ready(Ok(false));
                    }
                }
            }
        }
    })
    .await
}

fn join(frames: Vec<Frame<Bytes>>) -> Bytes {
    let mut pieces = frames
        .into_iter()
        .filter_map(|frame| frame.into_data().ok());
    let first = pieces.next().unwrap_or_default();
    let mut all = None;
    for piece in pieces {
        all.get_or_insert_with(|| BytesMut::from(&first[..]))
            .extend_from_slice(&piece);
    }
    all.map_or(first, BytesMut::freeze)
}

/// Writes the commands of one response.
struct Sender<'a> {
    local: &'a Rc<Local>,
    conn: ConnId,
}

impl Sender<'_> {
    async fn whole(&self, status: StatusCode, lines: BytesMut, body: Bytes) -> Result {
        let mut header = CommandHeader::new(CommandKind::Response, self.conn);
        (header.flags, header.code) = (COMPLETE, status.as_u16());
        Ok(self
            .push(Command {
                header,
                head: lines.freeze(),
                payload: body,
            })
            .await?)
    }

    async fn head(&self, status: StatusCode, lines: BytesMut, len: Option<u64>) -> Result {
        let mut header = CommandHeader::new(CommandKind::Response, self.conn);
        (header.code, header.aux) = (status.as_u16(), len.unwrap_or(u64::MAX));
        self.push(Command::new(header, lines.freeze())).await?;
        self.local.set_progress(Progress::HeadSent);
        Ok(())
    }

    async fn end(&self, trailers: Bytes) -> Result {
        let header = CommandHeader::new(CommandKind::ResponseEnd, self.conn);
        Ok(self.push(Command::new(header, trailers)).await?)
    }

    async fn push(&self, command: Command) -> std::result::Result<(), SendError> {
        self.local.shared.push(self.conn.reactor(), command).await
    }
}

/// A body that is sent in pieces, while somebody wants it.
struct Stream<'a> {
    local: &'a Rc<Local>,
    conn: ConnId,
}

impl Stream<'_> {
    async fn run(
        &self,
        sender: &Sender<'_>,
        mut body: Body,
        ready: Vec<Frame<Bytes>>,
        len: Option<u64>,
    ) -> Result {
        let gone = self.local.stream(self.conn);
        if !self.local.shared.table().is_open(self.conn) {
            // It went before this was noted, while a request in front was answered.
            return Ok(());
        }
        let (mut sent, mut since_asked) = (0u64, 0);
        let mut trailers = Bytes::new();
        let mut ready = ready.into_iter();
        loop {
            let frame = match ready.next() {
                Some(frame) => frame,
                None => {
                    let next = tokio::select! {
                        biased;
                        () = gone.notified() => return Ok(()),
                        next = body.frame() => next,
                    };
                    let Some(frame) = next.transpose()? else {
                        break;
                    };
                    frame
                }
            };
            let mut data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    if let Ok(map) = frame.into_trailers() {
                        let mut lines = BytesMut::new();
                        write_lines(&map, &mut lines);
                        trailers = lines.freeze();
                    }
                    continue;
                }
            };
            sent += data.len() as u64;
            if let Some(len) = len.filter(|len| sent > *len) {
                return Err(Error::new(format!(
                    "the body has more than the {len} bytes promised"
                )));
            }
            while !data.is_empty() {
                if !self.local.shared.table().is_open(self.conn) {
                    return Ok(());
                }
                let piece = data.split_to(data.len().min(self.local.shared.inline_limit()));
                since_asked += piece.len();
                let header = CommandHeader::new(CommandKind::ResponseBody, self.conn);
                sender.push(Command::new(header, piece)).await?;
                if since_asked >= WINDOW / 2 {
                    since_asked = 0;
                    // A master that died took the client with it.
                    if self
                        .local
                        .shared
                        .drained(self.conn, WINDOW / 2)
                        .await
                        .is_err()
                    {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(len) = len.filter(|len| *len != sent) {
            return Err(Error::new(format!(
                "the body has {sent} bytes, {len} were promised"
            )));
        }
        sender.end(trailers).await
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.local.end_stream(self.conn);
    }
}

/// The front of a `Response` payload.
fn head_lines(headers: &HeaderMap) -> BytesMut {
    let mut out = BytesMut::with_capacity(4 + headers.len() * 48);
    out.put_u32_le(0);
    write_lines(headers, &mut out);
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_le_bytes());
    out
}

/// `name: value\r\n` for each header that is not the engine's own.
pub(crate) fn write_lines(headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        if OWN.contains(name) {
            continue;
        }
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Most bytes of a streamed body that wait for the client.
const WINDOW: usize = 256 << 10;

/// Headers that the engine writes.
const OWN: [header::HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::DATE,
    header::HeaderName::from_static("keep-alive"),
];
