//! From an `http::Response` to commands.
//!
//! A body that is all there and small goes with its head in one command. A longer one follows in
//! pieces, of which at most [`WINDOW`] bytes wait for the client at a time.

use std::{pin::Pin, rc::Rc, task::Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;

use super::{
    case::Case,
    local::{Local, Progress},
    shared::Command,
};
use crate::{
    Body, BodyError, ConnId, Error, Response, Result, SendError, traces,
    wire::command::{COMPLETE, CommandHeader, CommandKind},
};

/// What is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) conn: ConnId,
    /// It is a HEAD request.
    pub(crate) head_only: bool,
    /// The event, and where it came from.
    reactor: usize,
    epoch: u32,
    seq: u64,
}

impl Asked {
    /// What this event asks.
    #[inline]
    pub(crate) fn by(case: &Case, head_only: bool) -> Self {
        let header = case.header();
        Asked {
            conn: header.conn,
            head_only,
            reactor: case.reactor(),
            epoch: case.epoch(),
            seq: header.seq,
        }
    }
}

/// Sends what a handler has given, if it has: a response that is all here, and with it that its event has ended. A
/// response that is not, or for which there is no room, comes back, and nothing was sent: [`respond`] will.
///
/// The memory of its headers becomes that of the next request's.
pub(crate) fn respond_now(
    local: &Local,
    case: &Case,
    head_only: bool,
    mut given: Poll<Result<Response>>,
) -> Poll<Result<Option<Box<Response>>>> {
    let response = match &mut given {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(_)) => return given.map_ok(|_| None),
        Poll::Pending => return Poll::Pending,
    };
    if !send_whole(local, Asked::by(case, head_only), response)? {
        return given.map_ok(|response| Some(Box::new(response)));
    }
    local.keep_header_map(response.headers_mut());
    drop(std::mem::take(response.extensions_mut()));
    drop(std::mem::take(response.body_mut()));
    // Nothing that is left of it owns anything; dropping it would look once more, and at each part of each.
    std::mem::forget(given);
    Poll::Ready(Ok(None))
}

/// See [`respond_now`]. `false`: nothing was sent.
#[inline]
fn send_whole(local: &Local, asked: Asked, response: &Response) -> Result<bool> {
    let status = response.status();
    check(status)?;
    let body = match response.body().as_whole() {
        _ if has_no_body(status) => &[],
        Some(body) if !asked.head_only && body.len() <= WINDOW => body,
        _ => return Ok(false),
    };
    let mut header = CommandHeader::new(CommandKind::Response, asked.conn);
    (header.flags, header.code) = (COMPLETE, status.as_u16());
    // As for the results of tasks: behind everything that others have sent for this event.
    let is_last =
        local.shared.lanes[asked.reactor].epoch() == asked.epoch && local.may_finish(asked.reactor);
    if is_last {
        header.done = asked.seq;
    }
    let (reactor, headers) = (asked.conn.reactor(), response.headers());
    let is_text = lacks_type(status, headers, response.body());
    let sent = if headers.is_empty() {
        let front = if is_text { TEXT_ALONE } else { NO_LINES };
        local.offer_now(reactor, &header, front, body)
    } else {
        let text = if is_text { TEXT } else { b"" };
        local.offer_with(reactor, &header, body, |front| {
            write_front(text, headers, front)
        })
    };
    if sent {
        traces::answered(status);
        if is_last {
            local.set_progress(Progress::Answered);
        }
    }
    Ok(sent)
}

/// Sends a response as it is made, and as there is room for it.
pub(crate) async fn respond(local: &Rc<Local>, asked: Asked, response: Response) -> Result {
    let Asked {
        conn, head_only, ..
    } = asked;
    let (parts, mut body) = response.into_parts();
    let status = parts.status;
    check(status)?;
    traces::answered(status);
    let sender = Sender { local, conn };
    let declared = declared_length(&parts.headers);
    let own = match lacks_type(status, &parts.headers, &body) {
        true => TEXT,
        false => b"",
    };
    let lines = head_lines(own, &parts.headers);

    if has_no_body(status) {
        return sender.whole(status, lines, Bytes::new()).await;
    }
    let len = body.size_hint().exact();
    if head_only {
        sender.head(status, lines, declared.or(len)).await?;
        return sender.end(Bytes::new()).await;
    }
    let limit = WINDOW.min(local.shared.largest().saturating_sub(lines.len()));
    let ready = match body.take_whole() {
        Some(bytes) if bytes.len() <= limit => return sender.whole(status, lines, bytes).await,
        Some(bytes) => vec![Frame::data(bytes)],
        None => match gather(&mut body, limit).await? {
            Gathered::Whole(bytes) => return sender.whole(status, lines, bytes).await,
            Gathered::Beginning(frames) => frames,
        },
    };
    let len = len.or(declared);
    sender.head(status, lines, len).await?;
    let stream = Stream { local, conn };
    stream.run(&sender, body, ready, len).await
}

/// Whether a handler may give it.
fn check(status: StatusCode) -> Result {
    match status.is_informational() {
        true => Err(Error::new(format!(
            "{status} is no response that a handler can give"
        ))),
        false => Ok(()),
    }
}

fn has_no_body(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Whether the engine is to say what the body is.
#[inline]
fn lacks_type(status: StatusCode, headers: &HeaderMap, body: &Body) -> bool {
    body.is_text() && !has_no_body(status) && !headers.contains_key(header::CONTENT_TYPE)
}

/// What of a body is there when it is first looked at.
enum Gathered {
    /// All of it, and no more than may be sent as a whole.
    Whole(Bytes),
    Beginning(Vec<Frame<Bytes>>),
}

/// Collects what of a body is there now.
async fn gather(body: &mut Body, limit: usize) -> std::result::Result<Gathered, BodyError> {
    let mut ready = Vec::new();
    let mut total = 0;
    std::future::poll_fn(|cx| {
        loop {
            let frame = match Pin::new(&mut *body).poll_frame(cx)? {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    return Poll::Ready(Ok(Gathered::Whole(join(std::mem::take(&mut ready)))));
                }
                Poll::Ready(Some(frame)) => frame,
            };
            total += frame.data_ref().map_or(0, Bytes::len);
            if total > limit || frame.is_trailers() {
                ready.push(frame);
                break;
            }
            if ready.is_empty() && body.is_end_stream() {
                let bytes = frame.into_data().unwrap_or_default();
                return Poll::Ready(Ok(Gathered::Whole(bytes)));
            }
            ready.push(frame);
        }
        Poll::Ready(Ok(Gathered::Beginning(std::mem::take(&mut ready))))
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
    async fn whole(&self, status: StatusCode, lines: Bytes, body: Bytes) -> Result {
        let mut header = CommandHeader::new(CommandKind::Response, self.conn);
        (header.flags, header.code) = (COMPLETE, status.as_u16());
        Ok(self
            .push(Command {
                header,
                head: lines,
                payload: body,
            })
            .await?)
    }

    async fn head(&self, status: StatusCode, lines: Bytes, len: Option<u64>) -> Result {
        let mut header = CommandHeader::new(CommandKind::Response, self.conn);
        (header.code, header.aux) = (status.as_u16(), len.unwrap_or(u64::MAX));
        self.push(Command::new(header, lines)).await?;
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
                        let mut lines = Vec::new();
                        write_lines(&map, &mut lines);
                        trailers = lines.into();
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

/// The front of a `Response` payload; `own` are the engine's own lines.
fn head_lines(own: &[u8], headers: &HeaderMap) -> Bytes {
    let lines = sent_lines(headers).map(|(name, value)| line_len(name, value));
    // Exactly as much as is needed becomes `Bytes` without another allocation.
    let mut out = Vec::with_capacity(NO_LINES.len() + own.len() + lines.sum::<usize>());
    write_front(own, headers, &mut out);
    Bytes::from(out)
}

/// Writes it to `out`, which is empty.
fn write_front(own: &[u8], headers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; LEN]);
    out.extend_from_slice(own);
    write_lines(headers, out);
    let len = (out.len() - LEN) as u32;
    out[..LEN].copy_from_slice(&len.to_le_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `name: value\r\n` for each header that is not the engine's own.
pub(crate) fn write_lines(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in sent_lines(headers) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn sent_lines(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| !is_own(name))
}

/// Whether the engine writes this header. Most names are told apart by their length.
#[inline]
fn is_own(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.len() {
        4 => name == "date",
        7 => name == "upgrade",
        10 => matches!(name, "connection" | "keep-alive"),
        14 => name == "content-length",
        17 => name == "transfer-encoding",
        _ => false,
    }
}

fn line_len(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + ": \r\n".len()
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
/// What a body of text is.
const TEXT: &[u8] = b"content-type: text/plain; charset=utf-8\r\n";
/// Bytes in front of the lines, which say how long those are.
const LEN: usize = 4;
/// The front of a payload without header lines.
const NO_LINES: &[u8] = b"\0\0\0\0\r\n";
/// The front with only that line.
const TEXT_ALONE: &[u8] = &{
    let mut front = [0; NO_LINES.len() + TEXT.len()];
    let (len, rest) = front.split_at_mut(LEN);
    len.copy_from_slice(&(TEXT.len() as u32).to_le_bytes());
    let (line, end) = rest.split_at_mut(TEXT.len());
    line.copy_from_slice(TEXT);
    end.copy_from_slice(b"\r\n");
    front
};
