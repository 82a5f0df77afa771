//! One stream: a connection whose bytes are DATA frames, and whose first request came as HEADERS.

use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use gannet_proto::{
    http1::{Framing, ResponseHead},
    http2,
};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::{
    close::CloseReason,
    id::ConnId,
    master::output::{Output, Pool},
};

/// Where the bytes of a virtual connection come from and go to.
pub(in crate::master) struct Stream {
    pub(super) parent: ConnId,
    /// Its place among the streams of its parent.
    pub(super) index: usize,
    waker: Waker,
    /// `None`: it is over.
    ways: Option<Ways>,
    /// What has come of the body and is not handed over.
    pending: Bytes,
    /// Bytes of the body that were handed over.
    pub(super) received: u64,
    /// The answer is complete: what follows its last byte, and why the stream ends.
    end: Option<End>,
}

struct Ways {
    receive: RecvStream,
    send: Sending,
}

enum Sending {
    /// Nothing but interim answers has been sent.
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    /// The end has been sent.
    Done,
}

struct End {
    /// Lines.
    trailers: Vec<u8>,
    reason: CloseReason,
}

/// What a client sends on its stream.
pub(super) enum Received {
    Data(Bytes),
    /// The end, with the lines of the trailers.
    End(Vec<u8>),
    /// Nothing now.
    Nothing,
    /// The stream was reset; or must be, with this reason.
    Broken(Option<Reason>),
}

impl Stream {
    pub(super) fn new(
        parent: ConnId,
        index: usize,
        waker: Waker,
        receive: RecvStream,
        send: SendResponse<Bytes>,
    ) -> Self {
        Stream {
            parent,
            index,
            waker,
            ways: Some(Ways {
                receive,
                send: Sending::Head(send),
            }),
            pending: Bytes::new(),
            received: 0,
            end: None,
        }
    }

    /// Takes at most `most` bytes of the body.
    pub(super) fn receive(&mut self, most: usize) -> Received {
        let Some(ways) = &mut self.ways else {
            return Received::Nothing;
        };
        if self.pending.is_empty() {
            let mut cx = Context::from_waker(&self.waker);
            match ways.receive.poll_data(&mut cx) {
                Poll::Pending => return Received::Nothing,
                Poll::Ready(None) => return ways.trailers(&mut cx),
                Poll::Ready(Some(Err(_))) => return Received::Broken(None),
                Poll::Ready(Some(Ok(data))) => {
                    // It is handed over next: more may come.
                    let _ = ways.receive.flow_control().release_capacity(data.len());
                    self.pending = data;
                }
            }
        }
        let piece = self.pending.split_to(self.pending.len().min(most));
        self.received += piece.len() as u64;
        Received::Data(piece)
    }

    /// The client has reset the stream, or the connection has ended it.
    pub(super) fn is_reset(&mut self) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        match self.ways.as_mut().map(|ways| &mut ways.send) {
            None | Some(Sending::Done) => false,
            Some(Sending::Head(send)) => send.poll_reset(&mut cx).is_ready(),
            Some(Sending::Body(send)) => send.poll_reset(&mut cx).is_ready(),
        }
    }

    /// Tells the client to send its body.
    pub(in crate::master) fn send_continue(&mut self) {
        if let Some(Ways {
            send: Sending::Head(send),
            ..
        }) = &mut self.ways
        {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::CONTINUE;
            // Where the stream is over, somebody else says so.
            let _ = send.send_informational(response);
        }
    }

    /// Sends the head of the answer; `ends`: that is all of it.
    pub(in crate::master) fn send_head(&mut self, head: &ResponseHead<'_>, ends: bool) {
        let Some(ways) = &mut self.ways else { return };
        let Sending::Head(send) = &mut ways.send else {
            return;
        };
        let mut headers = headers(head.headers);
        if let Some(Ok(date)) = head.date.map(|date| HeaderValue::from_bytes(date.value())) {
            headers.insert(http::header::DATE, date);
        }
        if let Framing::Length(length) = head.framing {
            headers.insert(http::header::CONTENT_LENGTH, length.into());
        }
        let mut response = Response::new(());
        *response.status_mut() =
            StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        // Where it fails, the stream was reset: whoever is woken by that ends it.
        if let Ok(body) = send.send_response(response, ends) {
            ways.send = match ends {
                true => Sending::Done,
                false => Sending::Body(body),
            };
        }
    }

    /// The answer ends behind what is queued.
    pub(super) fn end(&mut self, trailers: &[u8], reason: CloseReason) {
        if self.end.is_none() {
            self.end = Some(End {
                trailers: trailers.to_vec(),
                reason,
            });
            self.pending = Bytes::new();
        }
    }

    /// The answer is complete, but for what is queued.
    pub(in crate::master) fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// All of the answer is with the library: how the stream has ended.
    pub(in crate::master) fn ended(&self) -> Option<CloseReason> {
        let end = self.end.as_ref()?;
        match self.ways.as_ref()?.send {
            Sending::Done => Some(end.reason),
            _ => None,
        }
    }

    /// It is not over.
    pub(in crate::master) fn is_live(&self) -> bool {
        self.ways.is_some()
    }

    /// Gives the library what there is room for. Says how many bytes it took.
    pub(in crate::master) fn write_out(
        &mut self,
        output: Option<&mut Output>,
        pool: &mut Pool,
    ) -> usize {
        let mut total = 0;
        let Some(ways) = &mut self.ways else {
            return 0;
        };
        let Sending::Body(send) = &mut ways.send else {
            return 0;
        };
        let mut cx = Context::from_waker(&self.waker);
        let bare_end = self.end.as_ref().is_some_and(|end| end.trailers.is_empty());
        let mut left = 0;
        if let Some(output) = output {
            while output.queued() > 0 {
                send.reserve_capacity(output.queued().min(CHUNK));
                let room = send.capacity();
                if room == 0 {
                    match send.poll_capacity(&mut cx) {
                        // Where it is still nothing, only the next call has us woken.
                        Poll::Ready(Some(Ok(_))) => continue,
                        _ => break,
                    }
                }
                let len = room.min(output.queued()).min(CHUNK);
                let mut data = Vec::with_capacity(len);
                output.take(len, pool, |piece| data.extend_from_slice(piece));
                let ends = bare_end && output.queued() == 0;
                if send.send_data(data.into(), ends).is_err() {
                    // It was reset: whoever is woken by that ends it.
                    break;
                }
                total += len;
                if ends {
                    self.done();
                    return total;
                }
            }
            left = output.queued();
        }
        if left == 0
            && let Some(end) = &self.end
        {
            let sent = match end.trailers.is_empty() {
                true => send.send_data(Bytes::new(), true),
                false => send.send_trailers(headers(&end.trailers)),
            };
            if sent.is_ok() {
                self.done();
            }
        }
        total
    }

    /// Says that nothing more is sent. `false`: it has been said.
    pub(in crate::master) fn say_end(&mut self) -> bool {
        let Some(Ways {
            send: Sending::Body(send),
            ..
        }) = &mut self.ways
        else {
            return false;
        };
        let _ = send.send_data(Bytes::new(), true);
        self.done();
        true
    }

    /// Forgets the stream; where it has not ended by itself, the client is told why.
    pub(super) fn leave(&mut self, reason: Reason) {
        let Some(ways) = self.ways.take() else { return };
        self.pending = Bytes::new();
        match ways.send {
            Sending::Head(mut send) => send.send_reset(reason),
            Sending::Body(mut send) => send.send_reset(reason),
            // If the request goes on, dropping it tells the client to stop.
            Sending::Done => {}
        }
    }

    /// Lets go of what the library gave, without touching it.
    pub(super) fn forget(&mut self) {
        std::mem::forget(self.ways.take());
    }

    fn done(&mut self) {
        if let Some(ways) = &mut self.ways {
            ways.send = Sending::Done;
        }
    }
}

impl Ways {
    fn trailers(&mut self, cx: &mut Context<'_>) -> Received {
        match self.receive.poll_trailers(cx) {
            Poll::Pending => Received::Nothing,
            Poll::Ready(Err(_)) => Received::Broken(None),
            Poll::Ready(Ok(None)) => Received::End(Vec::new()),
            Poll::Ready(Ok(Some(fields))) => {
                let mut lines = Vec::new();
                let fields = fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_bytes()));
                match http2::trailers(fields, &mut lines) {
                    Ok(()) => Received::End(lines),
                    Err(_) => Received::Broken(Some(Reason::PROTOCOL_ERROR)),
                }
            }
        }
    }
}

/// From lines that the worker has made of a `HeaderMap`; what HTTP/2 does not have is left out.
fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let mut rest = Bytes::copy_from_slice(lines);
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let mut line = rest.split_to(end + 1);
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        line.advance(colon + 1);
        let value = line.slice_ref(line.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value))
            && !FORBIDDEN.contains(&name.as_str())
        {
            headers.append(name, value);
        }
    }
    headers
}

/// What says something about a connection of HTTP/1 (RFC 9113 section 8.2.2).
const FORBIDDEN: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// Bytes of a stream given to the library at a time.
const CHUNK: usize = 64 << 10;
