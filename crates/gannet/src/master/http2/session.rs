//! One HTTP/2 connection: the library's state, what it has accepted, and what it is allowed to do.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use gannet_proto::http2::{Frame, Kind, Rules, Scan, Violation};
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, Handshake, SendResponse},
};
use http::Request;

use super::pipe::Pipe;
use crate::{
    close::CloseReason,
    id::ConnId,
    master::pace::ControlRate,
    settings::{Listener, Protocol},
};

/// See the module's documentation.
pub(in crate::master) struct Session {
    pub(super) pipe: Pipe,
    library: Library,
    pub(super) waker: Waker,
    /// The streams that are open, as connections.
    pub(in crate::master) streams: Vec<ConnId>,
    scan: Scan,
    rules: Rules,
    /// The code of the rule that the client broke, if `rules` told.
    pub(super) broken: Option<Reason>,
    /// Bytes at the front of the connection's input that `scan` has seen before.
    pub(super) scanned: usize,
    control: ControlRate,
    resets: ControlRate,
    updates: ControlRate,
    /// Bytes that were sent to the client, and how many of them it had opened windows for before.
    pub(super) sent: u64,
    answered: u64,
    /// What the client owes: its SETTINGS first, then the answer to ours.
    owes: Owes,
    began: u64,
    /// Since when there is no stream, ms.
    pub(super) idle_since: u64,
    /// Since when a header block is on its way, ms; 0: none is.
    pub(super) block_since: u64,
    /// GOAWAY was sent, and no new stream is taken from then on, ms; 0: it was not.
    pub(super) drains: u64,
    /// The library wants to write more than the connection has room for.
    pub(super) is_full: bool,
}

/// What the client has to send before its connection counts as one of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owes {
    Settings,
    Ack,
    Nothing,
}

enum Library {
    Shaking(Box<Handshake<Pipe, Bytes>>),
    Open(Box<Connection<Pipe, Bytes>>),
    Over,
}

/// A request, with the two ways of its stream.
pub(super) type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// What came of a call of the library.
#[derive(Default)]
pub(super) struct Polled {
    pub(super) accepted: Vec<Accepted>,
    /// Nothing follows.
    pub(super) over: Option<CloseReason>,
    pub(super) panicked: bool,
}

impl Session {
    pub(super) fn new(listener: &Listener, waker: Waker, now: u64) -> Self {
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(listener.http2_max_streams)
            .initial_window_size(listener.http2_stream_window)
            .initial_connection_window_size(listener.http2_connection_window)
            .max_frame_size(listener.http2_max_frame_size)
            .max_header_list_size(listener.max_head_size as u32)
            .max_send_buffer_size(SEND_BUFFER)
            // `look` has counted them before: what is within the rate may come in one read.
            .max_pending_accept_reset_streams(match listener.http2_max_reset_rate {
                0 => usize::MAX,
                rate => rate as usize,
            })
            .max_concurrent_reset_streams(REMEMBERED_RESETS);
        if listener.protocol == Protocol::Websocket {
            builder.enable_connect_protocol();
        }
        let pipe = Pipe::default();
        Session {
            library: Library::Shaking(Box::new(builder.handshake(pipe.clone()))),
            pipe,
            waker,
            streams: Vec::new(),
            scan: Scan::default(),
            rules: Rules::new(2 * listener.max_head_size + MORE_OF_BLOCK),
            broken: None,
            scanned: 0,
            control: ControlRate::default(),
            resets: ControlRate::default(),
            updates: ControlRate::default(),
            sent: 0,
            answered: 0,
            owes: Owes::Settings,
            began: now,
            idle_since: now,
            block_since: 0,
            drains: 0,
            is_full: false,
        }
    }

    /// Lets the library go on with what is in the pipe.
    pub(super) fn poll(&mut self) -> Polled {
        let mut polled = Polled::default();
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        // A panic of the library costs this connection and no other.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            if let Library::Shaking(shaking) = &mut self.library {
                match Pin::new(&mut **shaking).poll(&mut cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(open)) => self.library = Library::Open(Box::new(open)),
                    Poll::Ready(Err(_)) => polled.over = Some(CloseReason::Protocol),
                }
            }
            let Library::Open(open) = &mut self.library else {
                return;
            };
            loop {
                match open.poll_accept(&mut cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(accepted))) => polled.accepted.push(accepted),
                    Poll::Ready(Some(Err(error))) => {
                        polled.over = Some(reason_of(&error));
                        return;
                    }
                    Poll::Ready(None) => {
                        polled.over = Some(CloseReason::Complete);
                        return;
                    }
                }
            }
        }));
        if ran.is_err() {
            // Its locks are poisoned: what is left of it cannot even be dropped.
            std::mem::forget(std::mem::replace(&mut self.library, Library::Over));
            polled.accepted.drain(..).for_each(std::mem::forget);
            polled.over = Some(CloseReason::Protocol);
            polled.panicked = true;
        }
        if polled.over.is_some() {
            self.library = Library::Over;
        }
        polled
    }

    /// Looks at what the client sends, before the library does. If that ends the connection, the library
    /// may still have what is in front of it.
    pub(super) fn look(
        &mut self,
        mut input: &[u8],
        now: u64,
        listener: &Listener,
    ) -> Result<(), Stop> {
        let len = input.len();
        loop {
            let at = len - input.len();
            let judged = self.rules.payload(self.scan.payload(&mut input));
            judged.map_err(|it| Stop::broken(it, at))?;
            let at = len - input.len();
            let Some(frame) = self.scan.next(&mut input) else {
                return Ok(());
            };
            self.note(frame, now);
            let flood = |why| Stop {
                why,
                code: None,
                at,
            };
            if frame.kind == Kind::ResetStream
                && !self.resets.admits(now, listener.http2_max_reset_rate)
            {
                return Err(flood("too many streams were reset in a second"));
            }
            if frame.kind == Kind::WindowUpdate && !self.admits_update(now, listener) {
                return Err(flood("too many window updates in a second"));
            }
            if is_control(frame) && !self.control.admits(now, listener.max_control_rate) {
                return Err(flood("too many control frames in a second"));
            }
            let judged = self.rules.frame(frame);
            judged.map_err(|it| Stop::broken(it, at))?;
        }
    }

    /// Counts a stream that the server had to reset; `false`: there were too many.
    pub(super) fn admits_fault(&mut self, now: u64, listener: &Listener) -> bool {
        self.resets.admits(now, listener.http2_max_reset_rate)
    }

    /// Since when the client owes its SETTINGS or the answer to ours, ms; 0: it does not.
    pub(super) fn owes_since(&self) -> u64 {
        match self.owes {
            Owes::Nothing => 0,
            Owes::Settings | Owes::Ack => self.began,
        }
    }

    /// Says that no stream is taken from now on, in two steps.
    pub(super) fn drain(&mut self, now: u64) {
        if self.drains != 0 {
            return;
        }
        self.drains = now;
        match &mut self.library {
            Library::Open(open) => open.graceful_shutdown(),
            Library::Shaking(_) | Library::Over => {}
        }
        self.waker.wake_by_ref();
    }

    /// Says why nothing more is taken, and forgets all streams. `Some`: where the library cannot say
    /// it yet, the frame that does.
    pub(super) fn abandon(&mut self, reason: Reason) -> Option<[u8; 17]> {
        match &mut self.library {
            Library::Open(open) => {
                open.abrupt_shutdown(reason);
                None
            }
            Library::Shaking(_) => {
                let mut goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                goaway[13..].copy_from_slice(&u32::from(reason).to_be_bytes());
                self.library = Library::Over;
                Some(goaway)
            }
            Library::Over => None,
        }
    }

    /// So many bytes still wait for the socket: there may be room for more.
    pub(in crate::master) fn written(&self, queued: usize) {
        if self.is_full && queued < ROOM {
            self.waker.wake_by_ref();
        }
    }

    /// There is something that could be drained.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.library, Library::Open(_))
    }

    /// A client opens windows for what it was sent: what goes beyond, it may do now and then.
    fn admits_update(&mut self, now: u64, listener: &Listener) -> bool {
        if self.answered + PER_UPDATE <= self.sent {
            self.answered += PER_UPDATE;
            return true;
        }
        self.updates.admits(now, listener.max_control_rate)
    }

    fn note(&mut self, frame: Frame, now: u64) {
        match frame.kind {
            Kind::Settings => {
                self.owes = match (self.owes, frame.is_first_flag()) {
                    (Owes::Settings, false) => Owes::Ack,
                    (Owes::Ack, true) => Owes::Nothing,
                    (owes, _) => owes,
                };
            }
            Kind::Headers | Kind::Continuation => {
                self.block_since = match frame.ends_headers() {
                    true => 0,
                    false if self.block_since == 0 => now,
                    false => self.block_since,
                };
            }
            _ => {}
        }
    }
}

/// Why a connection ends by what its client sent.
pub(super) struct Stop {
    pub(super) why: &'static str,
    /// The rule that was broken; `None`: it was too much of something.
    pub(super) code: Option<Reason>,
    /// Bytes in front of it.
    pub(super) at: usize,
}

impl Stop {
    fn broken(violation: Violation, at: usize) -> Self {
        Stop {
            why: violation.message,
            code: Some(violation.code.into()),
            at,
        }
    }
}

/// Frames that ask for an answer, or carry nothing.
fn is_control(frame: Frame) -> bool {
    match frame.kind {
        Kind::Ping | Kind::Settings | Kind::Priority | Kind::Unknown => true,
        Kind::Data => frame.len == 0 && !frame.is_first_flag(),
        Kind::Continuation => frame.len == 0,
        _ => false,
    }
}

fn reason_of(error: &h2::Error) -> CloseReason {
    match error.reason() {
        Some(Reason::NO_ERROR) => CloseReason::Client,
        Some(Reason::ENHANCE_YOUR_CALM) => CloseReason::Flood,
        Some(_) if error.is_remote() => CloseReason::Client,
        _ => CloseReason::Protocol,
    }
}

/// Bytes that wait for the socket of a connection before its streams do.
pub(super) const ROOM: usize = 128 << 10;
/// Bytes sent for which a client may open its windows once.
const PER_UPDATE: u64 = 256;
/// Bytes of one stream that the library may have: what it cannot send waits with the stream.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes of a field block that the library may take to see that it is too large.
const MORE_OF_BLOCK: usize = 128 << 10;
/// Streams reset by the server whose late frames are ignored.
const REMEMBERED_RESETS: usize = 50;
