//! The places of workers, task workers and user processes, and what happens when a worker comes, retires or
//! dies. Which of them gets an event: `routes`.
//!
//! A place has at most one current link. While it has none, or while its backlog (the unfinished
//! events of a worker that died) is not yet with the successor, no new event goes to the place, so
//! nothing overtakes. Retired links go on until they owe nothing.
//!
//! What becomes of the unfinished events of a dead worker:
//!
//! | event                         | not taken by it | taken                                          |
//! |-------------------------------|-----------------|------------------------------------------------|
//! | HTTP request                  | to successor    | to successor if idempotent and nothing is sent |
//! |                               |                 | and its body is still whole, otherwise 502     |
//! | receive, message, packet      | to successor    | to successor if the listener redelivers,       |
//! |                               |                 | otherwise the connection is closed             |
//! | task                          | to the queue    | to the front of the queue                      |
//! | connect, open, close, finish, | to successor    | to successor                                   |
//! | pipe                          |                 |                                                |
//!
//! An event that was being handled when three workers died is given up: its client is told.

use std::collections::VecDeque;

use super::{
    conn::{Closed, Conn, Stall},
    link::{Link, Orphan, redelivered},
    reactor::Reactor,
};
use crate::{
    close::CloseReason,
    control::Role as Kind,
    id::{ConnId, WorkerId},
    layout::ReactorCounter,
    settings::Mode,
    wire::event::{EventHeader, EventKind},
};

/// One worker's place.
#[derive(Default)]
pub(super) struct Place {
    /// Index of the link that gets new events.
    pub(super) current: Option<usize>,
    /// Connections assigned.
    pub(super) connections: usize,
    /// Events that a dead worker left.
    pub(super) backlog: VecDeque<(EventHeader, Vec<u8>)>,
    /// Bytes that were put into the backlog because there was no worker, since it was last empty.
    pub(super) posted: usize,
    /// Connections stalled on this place.
    waiting: VecDeque<ConnId>,
}

impl Place {
    pub(super) fn has_waiting(&self) -> bool {
        self.current.is_some() && (!self.waiting.is_empty() || !self.backlog.is_empty())
    }

    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.iter().map(|(_, payload)| payload.len()).sum()
    }
}

impl Reactor {
    /// Takes a worker in; whoever had its place retires.
    pub(super) fn attach(&mut self, link: Link) {
        let place = usize::from(link.worker.0);
        let index = match self.links.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.links.push(None);
                self.links.len() - 1
            }
        };
        self.links[index] = Some(link);
        if let Some(before) = self.places[place].current.replace(index)
            && let Some(link) = &mut self.links[before]
        {
            link.retiring = true;
            self.desk_recall(before);
        }
        self.flush_backlog(place);
        self.serve_waiting(place);
        self.desk_worker_ready(index);
        self.check_retiring();
    }

    /// A worker's process has ended.
    pub(super) fn worker_died(&mut self, worker: WorkerId, incarnation: u64, blame: bool) {
        let Some(index) = self.link_of(incarnation) else {
            return;
        };
        // What it published counts.
        self.take_commands(index, usize::MAX, usize::MAX);
        let Some(mut link) = self.links[index].take() else {
            return;
        };
        let place = usize::from(worker.0);
        if self.places[place].current == Some(index) {
            self.places[place].current = None;
        }
        let mut orphans = link.orphans();
        if !blame {
            orphans.iter_mut().for_each(|orphan| orphan.current = false);
        }
        for orphan in orphans {
            self.adopt(place, orphan);
        }
        self.desk_submitter_gone(incarnation);
        self.flush_backlog(place);
        self.check_stop();
    }

    /// What a master that died left in the table: its connections are gone, and their workers are
    /// told.
    pub(super) fn forget_lost_connections(&mut self) {
        if self.generation == 0 {
            return;
        }
        for row in self.table.rows_ever_used(self.id) {
            self.table.repair(row);
            let Some(lost) = self.table.row(row) else {
                continue;
            };
            self.table.clear(row);
            let listener = self.settings.listeners.get(usize::from(lost.listener));
            let known = listener.is_some_and(|listener| {
                let told = listener.protocol == crate::Protocol::Tcp || lost.websocket;
                // No handler knows a connection before its PROXY header and its TLS handshake.
                told && !lost.unheard && (listener.tls.is_none() || lost.tls)
            });
            if !known {
                continue;
            }
            let header = EventHeader {
                origin: lost.listener,
                aux: Closed::of(CloseReason::MasterDied).aux(),
                ..EventHeader::new(EventKind::Close, lost.id)
            };
            if let Some(place) = self.places.get_mut(usize::from(lost.worker.0)) {
                place.backlog.push_back((header, Vec::new()));
            }
            self.count_closed(CloseReason::MasterDied);
        }
    }

    /// Hands the backlog of a place to its worker, as far as there is room.
    pub(super) fn flush_backlog(&mut self, place: usize) {
        let Some(index) = self.places[place].current else {
            return;
        };
        while let Some((header, payload)) = self.places[place].backlog.pop_front() {
            let Some(link) = self.links[index].as_mut() else {
                return;
            };
            if link.push(header, &[&payload]).is_err() {
                self.places[place].backlog.push_front((header, payload));
                return;
            }
            let incarnation = link.incarnation;
            if self.places[place].backlog.is_empty() {
                self.places[place].posted = 0;
            }
            if let Some(conn) = self
                .conns
                .find(header.conn)
                .and_then(|slot| self.conns.get_mut(slot))
            {
                conn.link = incarnation;
            }
        }
    }

    /// Takes nothing more from a connection until that is over.
    pub(super) fn stall(&mut self, slot: usize, stall: Stall) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if stall == Stall::Place && conn.stall != Stall::Place {
            self.places[usize::from(conn.place)]
                .waiting
                .push_back(conn.id);
        }
        conn.stall = stall;
        self.count(ReactorCounter::Stalls);
    }

    /// Resumes the connections that waited for room at this place, until one finds none.
    pub(super) fn serve_waiting(&mut self, place: usize) {
        self.flush_backlog(place);
        for _ in 0..self.places[place].waiting.len() {
            let place = &mut self.places[place];
            if place.current.is_none() || !place.backlog.is_empty() {
                return;
            }
            let Some(id) = place.waiting.pop_front() else {
                return;
            };
            let Some(slot) = self.conns.find(id) else {
                continue;
            };
            self.resume_slot(slot);
            let Some(conn) = self.conns.get(slot) else {
                continue;
            };
            if conn.stall != Stall::Place {
                continue;
            }
            // It went to the back of the queue. Where it waits for a worker that retires, that says
            // nothing about the others; else its turn is still the first.
            let home = usize::from(conn.place);
            if conn.in_flight == 0 || self.is_current(home, conn.link) {
                if let Some(id) = self.places[home].waiting.pop_back() {
                    self.places[home].waiting.push_front(id);
                }
                return;
            }
        }
    }

    /// Everything that may go on after commands were taken.
    pub(super) fn resume_stalled(&mut self) {
        for place in 0..self.places.len() {
            if self.places[place].has_waiting() {
                self.serve_waiting(place);
            }
        }
        // Who asks to be resumed from here on has had its turn.
        for id in std::mem::take(&mut self.resume) {
            if let Some(slot) = self.conns.find(id) {
                if let Some(conn) = self.conns.get_mut(slot) {
                    conn.resuming = false;
                }
                self.resume_slot(slot);
            }
        }
        self.check_retiring();
    }

    /// Tells retired workers that nothing more comes, when they owe nothing.
    pub(super) fn check_retiring(&mut self) {
        for link in self.links.iter_mut().flatten() {
            if link.retiring && !link.retired && link.is_idle() && link.hand.is_empty() {
                link.retired = link.post(
                    EventHeader::new(EventKind::Retire, ConnId::from_u64(0)),
                    &[],
                    false,
                );
                self.reports
                    .send(super::Report::Retired(link.worker, link.incarnation));
            }
        }
    }

    /// Looks for workers that make no progress.
    pub(super) fn check_workers(&mut self) {
        let limit = self.settings.stall_timeout_ms;
        let now = self.clock.now;
        for link in self.links.iter_mut().flatten() {
            // Tasks and user processes may block their thread for as long as they like.
            // A thread cannot be killed: `thread::watchdog` tells of it.
            let never =
                limit == 0 || link.kind != Kind::Worker || self.settings.mode == Mode::Thread;
            if link.has_stalled(now, if never { u64::MAX } else { limit }) {
                self.reports
                    .send(super::Report::Stalled(link.worker, link.incarnation));
            }
        }
    }

    /// Whether this incarnation holds the place.
    fn is_current(&self, place: usize, incarnation: u64) -> bool {
        self.places[place]
            .current
            .and_then(|index| self.links[index].as_ref())
            .is_some_and(|link| link.incarnation == incarnation)
    }

    /// Decides about an event without outcome of a worker that has died.
    fn adopt(&mut self, place: usize, orphan: Orphan) {
        let header = redelivered(&orphan);
        if header.attempts >= MAX_ATTEMPTS {
            tracing::error!(
                conn = %header.conn, kind = ?header.kind, workers = header.attempts,
                "an event has killed its worker again and again; it is given up"
            );
            self.reports.send(super::Report::GaveUp {
                worker: WorkerId(place as u16),
                conn: (header.conn.as_u64() != 0).then_some(header.conn),
                event: format!("{:?}", header.kind).to_ascii_lowercase(),
            });
            return self.give_up(header);
        }
        let accepted = match header.kind {
            EventKind::Task => {
                self.desk_take_back(header, orphan.payload);
                return;
            }
            EventKind::Request => !orphan.read || self.may_repeat(&header),
            // A piece of a body goes where its request went.
            EventKind::RequestBody => self.places[place]
                .backlog
                .iter()
                .any(|(before, _)| before.kind == EventKind::Request && before.conn == header.conn),
            EventKind::Receive | EventKind::Message | EventKind::Packet if orphan.read => self
                .settings
                .listeners
                .get(usize::from(header.origin))
                .is_none_or(|listener| listener.redeliver),
            _ => true,
        };
        if !accepted {
            return self.give_up(header);
        }
        if orphan.read {
            self.count(ReactorCounter::Redelivered);
        }
        self.places[place]
            .backlog
            .push_back((header, orphan.payload));
    }

    /// An event is lost; its client is told.
    fn give_up(&mut self, header: EventHeader) {
        self.count(ReactorCounter::Dropped);
        if header.kind == EventKind::Task {
            return self.desk_give_up(header);
        }
        let Some(slot) = self.conns.find(header.conn) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.in_flight = conn.in_flight.saturating_sub(1);
        }
        match header.kind {
            EventKind::Request | EventKind::RequestBody | EventKind::Open => {
                self.fail_request(slot, 502, "the worker died while it handled the request");
            }
            EventKind::Close => {}
            _ => self.begin_close(
                slot,
                Closed::of(CloseReason::WorkerDied),
                "a message was lost",
            ),
        }
        self.event_done(slot);
    }

    /// Whether the request that this event belongs to can begin again at another worker.
    fn may_repeat(&self, header: &EventHeader) -> bool {
        let redeliver = self
            .settings
            .listeners
            .get(usize::from(header.origin))
            .is_none_or(|listener| listener.redeliver);
        // Without a connection nobody waits for the answer.
        redeliver
            && self
                .conns
                .find(header.conn)
                .and_then(|slot| self.conns.get(slot))
                .is_some_and(Conn::may_repeat_request)
    }
}

/// Workers that may die of one event.
const MAX_ATTEMPTS: u8 = 3;
