//! TCP connections with a framing in the reactor.

use std::sync::atomic::Ordering::Relaxed;

use gannet_proto::tcp::{Decoder, FrameError};

use super::{
    conn::{Closed, Stall},
    pace::Progress,
    reactor::Reactor,
};
use crate::{close::CloseReason, conn_table::Cell, layout::ReactorCounter, wire::event::EventKind};

/// What a connection has whose listener has a framing.
pub(super) struct Framed {
    pub(super) decoder: Decoder,
    /// How the unfinished message comes on; `None` between messages.
    pub(super) progress: Option<Progress>,
}

/// Refused input is logged once a second at most: who sends it decides how often.
#[derive(Default)]
pub(super) struct Refusals {
    /// Clock of the reactor, ms; 0: never.
    logged_at: u64,
    unlogged: u64,
}

impl Refusals {
    /// Counts one; if it is to be logged, how many before it were not.
    pub(super) fn due(&mut self, now: u64) -> Option<u64> {
        if self.logged_at != 0 && now < self.logged_at + 1_000 {
            self.unlogged += 1;
            return None;
        }
        self.logged_at = now;
        Some(std::mem::take(&mut self.unlogged))
    }
}

impl Reactor {
    /// Takes messages from `input`; returns how many bytes are done with.
    pub(super) fn take_framed(
        &mut self,
        slot: usize,
        framed: &mut Framed,
        input: &mut [u8],
    ) -> usize {
        let mut used = 0;
        while let Some(conn) = self.conns.get(slot) {
            if conn.rare().ending.is_some() {
                // Where a message ends is not known any more: it is read and not kept.
                return input.len();
            }
            if conn.stall != Stall::No || !conn.is_open() {
                break;
            }
            let decoded = match framed.decoder.decode(&mut input[used..]) {
                Ok(decoded) => decoded,
                Err(error) => {
                    if used == 0 && !self.has_sent_messages(slot) {
                        self.tls_on_plain(slot, input.first());
                    }
                    self.refuse_frames(slot, error);
                    return input.len();
                }
            };
            used += decoded.used;
            let got = decoded.used;
            let Some(message) = decoded.message else {
                let waits = !framed.decoder.is_idle();
                let now = self.clock.now;
                framed.progress = waits.then(|| Progress::go_on(framed.progress, now, got));
                break;
            };
            framed.progress = None;
            self.message_in(slot);
            self.offer_or_hold(slot, EventKind::Receive, 0, 0, &[message]);
        }
        framed.decoder.give_back();
        used
    }

    /// Whether a message of the client has been handed over.
    fn has_sent_messages(&self, slot: usize) -> bool {
        let row = self
            .conns
            .get(slot)
            .and_then(|conn| self.table.row_of(conn.id));
        row.is_some_and(|row| self.table.cell(row, Cell::MessagesIn).load(Relaxed) > 0)
    }

    /// Takes nothing more from the client. The messages before were taken in full: their answers
    /// leave before the connection is closed.
    fn refuse_frames(&mut self, slot: usize, error: FrameError) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let reason = match error {
            FrameError::TooLarge { .. } => CloseReason::TooLarge,
            FrameError::Panicked | FrameError::BadCut => CloseReason::HandlerFailed,
            _ => CloseReason::Protocol,
        };
        if let Some(unlogged) = self.refusals.due(self.clock.now) {
            tracing::warn!(conn = %conn.id, peer = %self.table.peer(conn.id), %reason, unlogged, "closing: {error}");
        }
        if reason == CloseReason::HandlerFailed {
            self.count(ReactorCounter::HandlerFailed);
        }
        self.end_after_events(slot, Closed::of(reason), error.to_string());
    }
}
