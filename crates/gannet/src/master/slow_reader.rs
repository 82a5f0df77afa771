//! Clients that do not read what is sent to them.
//!
//! While the socket of a connection is full, its output has a window ([`Unread`]): it begins when a
//! write first leaves something over, it ends when all is written, and it begins anew each time that
//! the client has taken enough. So a client is measured only while it is the one that is waited
//! for, and nothing that it has read long ago lets it rest today.
//!
//! | phase | window | wants | otherwise |
//! |---|---|---|---|
//! | open | `request_timeout_ms` | `min_send_rate` | cut: `slow_reader` |
//! | open, the server stops | 5 s | `min_send_rate` | cut: `slow_reader` |
//! | closing | `request_timeout_ms` if all is in order and the client is owed what is queued, else 5 s | `min_send_rate`, a byte at least | cut, with the reason of the closing |
//! | closing, the server stops | 5 s | the same | the same |
//!
//! Who is cut gets a reset and no word more. A close frame or an error would wait behind what is
//! not read, and a part of an answer followed by a proper end may pass for all of it (HTTP/1.0).
//!
//! The output of an HTTP/2 stream is full when its client opens no window, and it is measured as any
//! other by what it gives to the library. But while the socket of its connection is full, the stream
//! waits for its turn: then it is the connection that is measured, and the stream goes with it.

use std::time::Duration;

use rustix::net::sockopt;

use super::{
    closing::LINGER,
    conn::{Closed, Conn, Phase, Speaks},
    pace::Unread,
    reactor::Reactor,
};
use crate::{close::CloseReason, sys};

impl Conn {
    /// The socket has taken so many bytes, and perhaps not all. `true`: there is another deadline.
    pub(super) fn note_unread(&mut self, now: u64, written: usize) -> bool {
        let is_full = self.unwritten() > 0;
        let Some(output) = &mut self.output else {
            // Only a handshake is sealed without output, and that has a deadline.
            return false;
        };
        match &mut output.unread {
            None if !is_full => false,
            None => {
                self.begin_unread(now);
                true
            }
            Some(unread) if is_full => {
                unread.wrote(written);
                false
            }
            unread => {
                *unread = None;
                if matches!(self.speaks, Speaks::Http(_)) {
                    // Until now it has read: only now it is idle.
                    self.last_seen = now;
                }
                true
            }
        }
    }

    /// Counts from now on, if the socket is full.
    pub(super) fn begin_unread(&mut self, now: u64) {
        let in_socket = self.in_socket();
        if self.unwritten() > 0
            && let Some(output) = &mut self.output
        {
            output.unread = Some(Unread::begin(now, in_socket));
        }
    }

    /// Closing the socket is to be a reset: what it holds is dropped.
    pub(super) fn reset_on_close(&self) {
        if let Some(socket) = &self.socket {
            // Without it the kernel would go on trying, for minutes, with what the client never reads.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }

    /// Bytes that the kernel has and the client not yet. One system call, and only about a client
    /// whose socket is full.
    fn in_socket(&self) -> usize {
        let socket = self.socket.as_ref();
        socket.map_or(0, |socket| sys::unacknowledged(socket).unwrap_or(0))
    }

    /// Its socket is full: how its client reads.
    pub(super) fn unread(&self) -> Option<Unread> {
        self.output.as_ref()?.unread
    }
}

impl Reactor {
    /// When it is to be seen whether the client reads.
    pub(super) fn unread_deadline(&self, conn: &Conn) -> Option<u64> {
        let unread = conn.unread()?;
        let rate = self.settings.listeners[usize::from(conn.listener)].min_send_rate;
        (rate > 0).then(|| unread.deadline(self.window(conn)))
    }

    /// A deadline of an open connection: cuts it if its client reads too slowly. `false`: something
    /// else is due.
    pub(super) fn is_unread_only(&mut self, slot: usize) -> bool {
        let now = self.clock.now;
        let due = |reactor: &Reactor| {
            let conn = reactor.conns.get(slot)?;
            reactor.unread_deadline(conn).filter(|&at| at <= now)
        };
        if due(self).is_none() {
            return false;
        }
        if !self.reads_on(slot) {
            self.cut_slow_reader(slot);
            return true;
        }
        let next = self
            .conns
            .get(slot)
            .and_then(|conn| self.next_deadline(conn));
        if next.is_some_and(|at| at <= now) {
            return false;
        }
        self.watch(slot);
        true
    }

    /// The deadline of a connection that closes: whether it may take longer, as its client reads.
    pub(super) fn goes_on_reading(&mut self, slot: usize) -> bool {
        if !self.reads_on(slot) {
            return false;
        }
        self.begin_closing_window(slot);
        self.watch(slot);
        true
    }

    /// From now on a connection that closes has this long to take something.
    pub(super) fn begin_closing_window(&mut self, slot: usize) {
        let now = self.clock.now;
        let window = self.conns.get(slot).map(|conn| self.window(conn));
        if let Some(conn) = self.conns.get_mut(slot)
            && let Some(window) = window
        {
            conn.rare_mut().cut_at = now + window;
            conn.begin_unread(now);
        }
    }

    /// The server stops: from now on it waits less long for who does not read.
    pub(super) fn hurry_reader(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        match conn.phase {
            Phase::Open if conn.unread().is_some() => conn.begin_unread(self.clock.now),
            Phase::Closing(_) => self.begin_closing_window(slot),
            _ => return,
        }
        self.watch(slot);
    }

    /// Cuts a client that does not read.
    pub(super) fn cut_slow_reader(&mut self, slot: usize) {
        self.leave(
            slot,
            Closed {
                reason: CloseReason::SlowReader,
                code: 1008,
            },
        );
    }

    /// Whether the client has taken enough in the window that ends; then the next one begins.
    fn reads_on(&mut self, slot: usize) -> bool {
        let Some(conn) = self.conns.get(slot) else {
            return false;
        };
        let Some(unread) = conn.unread() else {
            return false;
        };
        let rate = self.settings.listeners[usize::from(conn.listener)].min_send_rate;
        let window = self.window(conn);
        if unread.is_too_slow(conn.in_socket(), rate, window) && !self.waits_for_its_turn(conn) {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.begin_unread(self.clock.now);
        }
        true
    }

    /// Whether it is a stream of HTTP/2 whose connection has a full socket.
    fn waits_for_its_turn(&self, conn: &Conn) -> bool {
        let parent = self.parent_of(conn);
        parent.is_some_and(|parent| parent.unread().is_some())
    }

    fn window(&self, conn: &Conn) -> u64 {
        let usual = self.settings.listeners[usize::from(conn.listener)].request_timeout_ms;
        let is_owed = match conn.phase {
            Phase::Open => true,
            Phase::Closing(closed) => matches!(
                closed.reason,
                CloseReason::Complete | CloseReason::Handler | CloseReason::Client
            ),
            Phase::Lingering(_) | Phase::Gone(_) => false,
        };
        match is_owed && self.stopping.is_none() {
            true => usual,
            false => usual.min(LINGER),
        }
    }
}
