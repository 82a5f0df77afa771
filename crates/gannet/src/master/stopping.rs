//! A stop of the server: what is here is finished, and nothing new is taken. `docs/internals/reactor.md` has the
//! steps.

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::{
    conn::{Closed, Stall},
    reactor::Reactor,
};
use crate::{close::CloseReason, id::WorkerId, layout::ReactorCounter};

impl Reactor {
    /// The server stops: no new connections; those that are here finish what they have.
    pub(super) fn stop(&mut self, deadline_ms: u64) {
        if self.stopping.is_some() {
            return;
        }
        // Who has connected, and what they have sent by now, is still taken.
        self.closing_time = true;
        self.accept_backlog();
        self.stop_packets();
        for slot in self.conns.slots() {
            self.read_once_more(slot);
        }
        self.stopping = Some(self.clock.now + deadline_ms);
        self.stop_accepting();
        for slot in self.conns.slots() {
            self.read_no_more(slot);
        }
        self.check_stop();
    }

    /// A connection that another reactor has accepted before it heard of the stop.
    pub(super) fn wind_down(&mut self, slot: usize) {
        self.read_once_more(slot);
        self.read_no_more(slot);
    }

    fn read_once_more(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get(slot)
            && conn.is_open()
            && conn.stall == Stall::No
            && !conn.eof
        {
            self.readable(slot);
        }
    }

    fn read_no_more(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get(slot)
            && conn.is_open()
        {
            let (reads, writing) = (conn.reading && conn.reads_on(), conn.writing);
            self.interest(slot, reads, writing);
            self.settle(slot);
        }
        self.hurry_reader(slot);
    }

    /// Whether the stop is complete; at its deadline, what is left is cut.
    pub(super) fn check_stop(&mut self) {
        let Some(deadline) = self.stopping else {
            return;
        };
        if self.clock.now >= deadline {
            for slot in self.conns.slots() {
                self.leave(slot, Closed::of(CloseReason::Stopping));
            }
        }
        let late = self.clock.now >= deadline;
        if !late {
            self.update_works();
            // A handler may use any reactor, whichever its event came from.
            if self.working.load(Acquire) > 0 {
                return;
            }
            // What the last handler of another reactor has asked of this one is here by now.
            self.take_all_commands(usize::MAX);
            self.update_works();
            if self.works {
                return;
            }
        }
        self.drop_mail_of_processes();
        for place in &mut self.places {
            place.current = None;
        }
        for link in self.links.iter_mut().flatten() {
            link.retiring = true;
        }
        self.check_retiring();
        let retired = self.links.iter().flatten().all(|link| link.retired);
        self.stopped = retired || late;
    }

    /// A user process that has ended before the others is not followed when the server stops:
    /// nobody will handle what it has left.
    fn drop_mail_of_processes(&mut self) {
        for place in self.settings.first_process()..self.places.len() {
            let left = std::mem::take(&mut self.places[place].backlog);
            if left.is_empty() {
                continue;
            }
            let worker = WorkerId(place as u16);
            let name = self.settings.process_name(worker).unwrap_or_default();
            tracing::warn!(
                "{} messages to the process {name} were not handled",
                left.len()
            );
            left.iter()
                .for_each(|_| self.count(ReactorCounter::Dropped));
        }
    }

    /// Says whether anything is left to do here.
    pub(super) fn update_works(&mut self) {
        let works = self.conns.len() > 0
            || self.places[..self.settings.first_process()]
                .iter()
                .any(|place| !place.backlog.is_empty())
            || self.links.iter().flatten().any(|link| !link.is_idle())
            || self.desk.as_ref().is_some_and(|desk| !desk.is_empty());
        if works && !self.works {
            self.working.fetch_add(1, AcqRel);
        } else if !works && self.works {
            self.working.fetch_sub(1, AcqRel);
        }
        self.works = works;
    }
}
