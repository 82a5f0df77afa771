//! What the poll set waits for, connection by connection.
//!
//! Sockets of the network are watched *edge-triggered*: the poll set tells once that something has come, and
//! not again until more comes. So a connection whose message was read is not looked at a second time, as it
//! would be at the next wait if it were watched level-triggered; under load that is one look for each message.
//! What comes between the news and the read is news again, so nothing is missed as long as these hold:
//!
//! 1. A read that may have left something in the socket *asks again* ([`Reactor::ask_again`]): changing the
//!    interest, to what it was too, has the poll set look at the socket now. A read left nothing if it brought
//!    less than there was room for, and nothing was said with the news that stands behind the bytes: the
//!    end (`RDHUP`, `HUP`), an error, or urgent data (`PRI`), at which a read stops short.
//! 2. News about a connection that is not read now takes it out of the poll set's care; the interest that is
//!    declared when it is read again brings what has come meanwhile.
//! 3. A write goes on until all has left or the socket is full, which is what the next news of room needs.
//!    TLS may stop before, for the sake of the others: then it asks again.
//!
//! Sockets of the same machine (`unix:`) are watched level-triggered: a read from one may end before a message
//! with which a descriptor was passed, and leave what is behind it.

use rustix::event::epoll::{self, EventFlags};

use super::{conn::Conn, reactor::Reactor};

/// What stands behind the bytes that are read next, or keeps a read from reaching all of them.
pub(super) const BEHIND: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR)
    .union(EventFlags::PRI);

/// What the poll set is to tell.
pub(super) fn flags(edge: bool, reading: bool, writing: bool) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, reading);
    flags.set(EventFlags::RDHUP | EventFlags::PRI, reading && edge);
    flags.set(EventFlags::OUT, writing);
    flags.set(EventFlags::ET, edge);
    flags
}

impl Reactor {
    /// Changes what the poll set waits for.
    pub(super) fn interest(&mut self, slot: usize, reading: bool, writing: bool) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let is_watched = conn.socket.is_some() && !conn.hup;
        if is_watched && (conn.reading, conn.writing) != (reading, writing) {
            conn.reading = reading;
            conn.writing = writing;
            self.declare(slot);
        }
    }

    /// Has the poll set tell of what is in the socket, or of its room, although it has told before.
    pub(super) fn ask_again(&self, slot: usize) {
        if let Some(conn) = self.conns.get(slot)
            && self.is_edge(conn)
            && !conn.hup
        {
            // Of an end in both directions, or an error, it tells whatever it is to wait for.
            self.declare(slot);
        }
    }

    fn declare(&self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let Some(socket) = &conn.socket else { return };
        let flags = flags(self.is_edge(conn), conn.reading, conn.writing);
        let key = epoll::EventData::new_u64(conn.id.as_u64());
        if let Err(error) = epoll::modify(&self.epoll, socket, key, flags) {
            tracing::error!(%error, conn = %conn.id, "cannot change the poll set");
        }
    }

    fn is_edge(&self, conn: &Conn) -> bool {
        self.accepting.is_network(usize::from(conn.listener))
    }
}
