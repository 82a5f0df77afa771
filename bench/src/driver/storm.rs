//! Connections that are made to be closed.

use super::Driver;
use crate::protocol::Protocol;

impl<P: Protocol> Driver<'_, P> {
    /// Puts down when the next connection of a storm is due.
    pub(super) fn make_again(&mut self, index: usize, now: u64) {
        let connection = &mut self.connections[index];
        let due = match self.plan.rate {
            None => now,
            Some(rate) => {
                let (number, all) = (u64::from(connection.number), self.plan.connections as u64);
                let due = self.start + rate.due(connection.released, number, all);
                connection.released += 1;
                due
            }
        };
        connection.since = due;
        self.make_at(index, due);
    }

    pub(super) fn make_at(&mut self, index: usize, when: u64) {
        let at = self.to_make.partition_point(|&(other, _)| other <= when);
        self.to_make.insert(at, (when, index as u32));
    }

    /// A connection of a storm has done what it was made for.
    pub(super) fn stormed(&mut self, index: usize, now: u64) {
        let connection = &mut self.connections[index];
        let (begin, end) = self.window;
        if begin <= connection.since && connection.since < end {
            let took = now.saturating_sub(connection.since);
            self.record.latency(took, now, connection.number);
            self.worst = self.worst.max(took);
        }
        self.done += 1;
        self.ready -= 1;
        connection.reset();
        self.make_again(index, now);
    }
}
