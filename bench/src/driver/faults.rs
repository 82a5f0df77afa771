//! What goes wrong with a connection, and what becomes of it.

use std::{io::ErrorKind, time::Duration};

use super::Driver;
use crate::{
    Error,
    connection::{Fault, Phase},
    control::NEVER,
    plan::Traffic,
    protocol::{Protocol, Wrong},
};

impl<P: Protocol> Driver<'_, P> {
    pub(super) fn check_timeouts(&mut self, now: u64) {
        let patience = self.plan.timeout.as_nanos() as u64;
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            let waits = connection.is_coming() || connection.under_way() > 0;
            if waits && now.saturating_sub(connection.active) > patience {
                let fault = match connection.phase {
                    Phase::Connecting => Fault::Connect(ErrorKind::TimedOut.into()),
                    _ => Fault::Timeout,
                };
                self.settle(index, Err(fault));
            }
        }
    }

    /// Counts what went wrong with a connection, if it did, and sees to what becomes of it.
    pub(super) fn settle(&mut self, index: usize, outcome: Result<(), Fault>) {
        let Err(fault) = outcome else {
            return;
        };
        let now = self.control.now();
        let connection = &mut self.connections[index];
        let (number, message) = (connection.number, connection.answered);
        let coming = connection.is_coming();
        match coming {
            true => self.coming -= 1,
            false => self.ready -= 1,
        }
        let lost = connection.reset();
        let arrived = self
            .arrivals
            .get_mut(index)
            .and_then(|arrivals| std::mem::take(arrivals).pop_front());
        let faults = &mut self.record.faults;
        // What ends once the load is over, and owes nothing, is no fault.
        let over = self.window.1 != NEVER && lost == 0;
        match &fault {
            _ if over => {}
            _ if coming => faults.failed_connects += 1,
            Fault::Timeout => faults.timeout += lost,
            Fault::Wrong(Wrong::Goodbye(_)) | Fault::Closed | Fault::Io(_) | Fault::Connect(_) => {
                faults.lost_connections += 1;
                faults.lost_messages += lost;
            }
            Fault::Wrong(_) => {
                faults.wrong += 1;
                faults.lost_messages += lost.saturating_sub(1);
            }
        }
        if self.start == NEVER && coming && !self.plan.reconnect {
            self.control.abort();
            self.fatal.get_or_insert(Error::Connect {
                address: self.plan.to,
                reason: fault.text(),
            });
        }
        if !over {
            self.record.sample(|| match (coming, lost) {
                (true, _) => format!("connection {number} could not be made: {}", fault.text()),
                (false, 0) => format!("connection {number}: {}", fault.text()),
                (false, _) if let Some(count) = arrived => format!(
                    "publisher {number}, message {message}: {}; it has arrived at {count} connections",
                    fault.text()
                ),
                (false, 1) => format!("connection {number}, message {message}: {}", fault.text()),
                (false, lost) => format!(
                    "connection {number}, message {message}: {}; {} behind it had no answer either",
                    fault.text(),
                    lost - 1
                ),
            });
        }
        let connection = &mut self.connections[index];
        if !self.plan.reconnect && !matches!(self.plan.traffic, Traffic::Connects { .. }) {
            connection.phase = Phase::Dead;
            self.dead += 1;
            return;
        }
        connection.lost_at.get_or_insert(now);
        match (coming, self.plan.traffic) {
            // Not at once again: nobody may listen there for a while.
            (true, _) => {
                connection.since = connection.since.max(now);
                self.make_at(index, now + AGAIN);
            }
            (false, Traffic::Connects { .. }) => self.make_again(index, now),
            (false, _) => self.make_at(index, now),
        }
    }
}

/// Before a connection is tried again that could not be made.
const AGAIN: u64 = Duration::from_millis(10).as_nanos() as u64;
