//! Putting things on their way to clients.
//!
//! Nothing is written at once: what a turn queues for a connection leaves in one system call at its
//! end. A connection that does not read is cut when `max_queued` is reached, or when it takes less
//! than `min_send_rate` (see `slow_reader`).

use std::sync::atomic::Ordering::Relaxed;

use super::{
    broadcast::Broadcast,
    conn::{Closed, Conn, Phase, Speaks, Stall},
    output::Output,
    reactor::Reactor,
    websocket::queue_message,
};
use crate::{
    close::CloseReason,
    conn_table::Cell,
    id::ConnId,
    layout::ReactorCounter,
    settings::Listener,
    wire::event::{EventHeader, EventKind},
};

impl Reactor {
    /// Queues what `write` appends.
    pub(super) fn write(&mut self, slot: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.catch_up(slot);
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if !conn.has_outlet() {
            return;
        }
        let output = self.pool.queue(&mut conn.output);
        output.append(&mut self.pool, write);
        mark(conn, &mut self.dirty);
    }

    /// Queues one message for a connection.
    #[inline(never)]
    pub(super) fn send(&mut self, id: ConnId, text: bool, data: &[u8]) {
        if !self.topics.logs.is_empty()
            && let Some(slot) = self.conns.find(id)
        {
            self.catch_up(slot);
        }
        let Some((slot, conn)) = self.conns.find_mut(id) else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        if !listener.has_room(conn.queued(), data.len()) {
            return self.cut_slow_reader(slot);
        }
        let (pool, compressors) = (&mut self.pool, &mut self.compressors);
        if conn.is_open() && queue_message(conn, pool, compressors, listener, text, data) {
            mark(conn, &mut self.dirty);
            self.table.add(self.row(slot), Cell::MessagesOut, 1);
        }
    }

    /// Queues a published message; a slow reader is cut, or goes without if the message is droppable.
    /// `false`: it was not queued.
    pub(super) fn send_shared(
        &mut self,
        slot: usize,
        message: &mut Broadcast,
        droppable: bool,
    ) -> bool {
        let Some(conn) = self.conns.get_mut(slot) else {
            return false;
        };
        if !conn.is_open() {
            return false;
        }
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        if conn.queued() + message.len() > listener.max_queued {
            if droppable {
                self.count(ReactorCounter::PublishDropped);
            } else {
                self.cut_slow_reader(slot);
            }
            return false;
        }
        if !message.queue(conn, &mut self.pool, &mut self.compressors, listener) {
            self.count(ReactorCounter::PublishDropped);
            return false;
        }
        mark(conn, &mut self.dirty);
        self.table.add(self.row(slot), Cell::MessagesOut, 1);
        true
    }

    /// Whether so much more may be queued; if not, the connection is cut.
    pub(super) fn has_output_room(&mut self, slot: usize, bytes: usize) -> bool {
        let Some(conn) = self.conns.get(slot) else {
            return false;
        };
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        if listener.has_room(conn.queued(), bytes) {
            return true;
        }
        self.cut_slow_reader(slot);
        false
    }

    /// Writes what was queued in this turn.
    pub(super) fn flush_dirty(&mut self) {
        self.flush_streams();
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some((slot, conn)) = self.conns.find_mut(id) {
                conn.dirty = false;
                // If it is waited for, the poll set says when there is room.
                if !conn.writing {
                    self.flush(slot);
                }
            }
        }
        // Flushing can queue (a close frame of the next connection): that leaves next turn.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Gives what was queued for streams to the connections that carry them, which are written with
    /// all others.
    fn flush_streams(&mut self) {
        if self.streams > 0 {
            let mut dirty = std::mem::take(&mut self.dirty);
            let conns = &mut self.conns;
            let is_stream = |id: &mut ConnId| {
                let slot = conns.find(*id);
                let conn = slot.and_then(|slot| conns.get_mut(slot));
                conn.filter(|conn| conn.stream.is_some())
                    .map(|conn| conn.dirty = false)
                    .is_some()
            };
            let streams: Vec<ConnId> = dirty.extract_if(.., is_stream).collect();
            dirty.append(&mut self.dirty);
            self.dirty = dirty;
            for id in streams {
                if let Some(slot) = self.conns.find(id) {
                    self.flush(slot);
                }
            }
        }
        self.serve_woken();
    }

    /// Writes what is queued for one connection, as far as the socket takes it. Nearly always that is all of it,
    /// and nothing else is to be done.
    pub(super) fn flush(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let written = match conn.write_out(&mut self.pool) {
            None => return self.shut_if_flushed(slot),
            Some(Ok(written)) => written,
            Some(Err(_)) => return self.leave(slot, Closed::of(CloseReason::Reset)),
        };
        if !conn.is_all_out() {
            return self.written(slot, written);
        }
        if let Some(output) = conn.output.take() {
            output.recycle(&mut self.pool);
        }
        self.table.add(self.row(slot), Cell::BytesOut, written);
        self.add(ReactorCounter::BytesOut, written);
    }

    /// So much was written for a connection, and that is not all that is to be done.
    #[inline(never)]
    fn written(&mut self, slot: usize, written: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let now = self.clock.now;
        let to_watch = conn.note_unread(now, written);
        let (queued, unwritten) = (conn.queued(), conn.unwritten());
        let mut told = Vec::new();
        if let Some(output) = &mut conn.output {
            output.waiters.retain(|&(limit, incarnation, token)| {
                let due = queued <= limit;
                if due {
                    told.push((incarnation, token));
                }
                !due
            });
        }
        let is_stream = conn.stream.is_some();
        if let Speaks::Http2(session) = &conn.speaks {
            session.written(queued);
        }
        if written > 0 && is_stream {
            // Its client reads: see `is_ending`.
            conn.last_seen = self.clock.now;
        }
        let (reading, is_encrypted) = (conn.reading, conn.tls.is_some());
        let limit = self.settings.listeners[usize::from(conn.listener)].max_queued;
        let asks_on = conn.stall == Stall::Own
            && queued <= limit
            && matches!(&conn.speaks, Speaks::Http(http) if !http.exchange.is_busy());
        let is_done = |output: &mut Box<Output>| queued == 0 && output.waiters.is_empty();
        if let Some(output) = conn.output.take_if(is_done) {
            output.recycle(&mut self.pool);
        }
        let row = self.row(slot);
        self.table.add(row, Cell::BytesOut, written);
        self.table
            .cell(row, Cell::Queued)
            .store(queued as u64, Relaxed);
        if !is_stream {
            self.add(ReactorCounter::BytesOut, written);
        }
        self.interest(slot, reading, unwritten > 0);
        if unwritten > 0 && is_encrypted {
            // It may have stopped before the socket was full.
            self.ask_again(slot);
        }
        if to_watch {
            self.watch(slot);
        }
        if asks_on {
            self.wake(slot);
        }
        for (incarnation, token) in told {
            self.reply(incarnation, token, &[]);
        }
        self.shut_if_flushed(slot);
    }

    /// Answers when at most `limit` bytes are queued for the connection, or it is gone.
    pub(super) fn tell_when_drained(&mut self, id: ConnId, limit: usize, link: u64, token: u64) {
        let slot = self.conns.find(id);
        if let Some(slot) = slot {
            self.catch_up(slot);
        }
        if let Some(slot) = slot
            && let Some(conn) = self.conns.get_mut(slot)
            && conn.has_outlet()
            && conn.queued() > limit
        {
            let output = self.pool.queue(&mut conn.output);
            output.waiters.push((limit, link, token));
            return;
        }
        self.reply(link, token, &[]);
    }

    /// The answer to a worker's question.
    pub(super) fn reply(&mut self, incarnation: u64, token: u64, payload: &[u8]) {
        if let Some(index) = self.link_of(incarnation)
            && let Some(link) = self.links[index].as_mut()
        {
            let header = EventHeader {
                aux: token,
                ..EventHeader::new(EventKind::Reply, ConnId::from_u64(0))
            };
            if !link.post(header, payload, false) {
                tracing::error!(worker = %link.worker, "a reply was dropped: too much waits");
                self.count(ReactorCounter::Dropped);
            }
        }
    }
}

impl Listener {
    /// Whether so many bytes more may be queued for a connection. One message larger than the limit may
    /// pass when nothing else waits.
    #[inline]
    fn has_room(&self, queued: usize, bytes: usize) -> bool {
        queued == 0 || queued + bytes <= self.max_queued
    }
}

impl Conn {
    /// All that was queued has left at once, and nobody waits for that.
    #[inline]
    fn is_all_out(&self) -> bool {
        let plain = self.tls.is_none() && self.stream.is_none() && !self.writing;
        let goes_on = self.is_open() && self.stall != Stall::Own;
        let carries = matches!(self.speaks, Speaks::Http2(_));
        let done = self.output.as_ref().is_some_and(|output| output.is_done());
        plain && goes_on && !carries && done
    }
}

impl Reactor {
    /// Puts the connection on the list of those to flush at the end of the turn.
    pub(super) fn mark_dirty(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get_mut(slot) {
            mark(conn, &mut self.dirty);
        }
    }
}

/// Has the connection written at the end of the turn.
#[inline(always)]
pub(super) fn mark(conn: &mut Conn, dirty: &mut Vec<ConnId>) {
    if !conn.dirty && !matches!(conn.phase, Phase::Gone(_)) {
        conn.dirty = true;
        dirty.push(conn.id);
    }
}
