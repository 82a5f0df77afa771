//! Open loop: what is due by the clock.

use super::Driver;
use crate::{connection::Phase, control::NEVER, plan::Traffic, protocol::Protocol};

impl<P: Protocol> Driver<'_, P> {
    /// Open loop: lets the messages go that are due by now. When the next one is.
    pub(super) fn release_due(&mut self, now: u64) -> u64 {
        let Some(rate) = self.plan.rate else {
            return NEVER;
        };
        let storm = matches!(self.plan.traffic, Traffic::Connects { .. });
        if self.start == NEVER || storm || self.is_over() || self.senders == 0 {
            return NEVER;
        }
        let all = self.plan.senders() as u64;
        loop {
            let index = self.turn;
            let number = u64::from(self.connections[index].number);
            let due = self.start + rate.due(self.round, number, all);
            if due > now {
                return due;
            }
            self.turn += 1;
            if self.turn == self.senders {
                (self.turn, self.round) = (0, self.round + 1);
            }
            if due >= self.window.0 {
                self.record.lateness.saturating_record(now - due);
            }
            let connection = &mut self.connections[index];
            connection.released += 1;
            if connection.phase == Phase::Ready && connection.under_way() < self.plan.depth {
                self.out.clear();
                self.fill(index, now, now);
                let outcome = self.connections[index].send(&self.out);
                self.settle(index, outcome);
            }
        }
    }

    /// Open loop: what was due and could not go out has waited at least until now.
    pub(super) fn count_unsent(&mut self) {
        let Some(rate) = self.plan.rate else {
            return;
        };
        let ((begin, end), now) = (self.window, self.control.now());
        let storm = matches!(self.plan.traffic, Traffic::Connects { .. });
        if storm || end == NEVER {
            return;
        }
        let all = self.plan.senders() as u64;
        for connection in &self.connections[..self.senders] {
            let number = u64::from(connection.number);
            let due = rate.due_within(end.saturating_sub(self.start), number, all);
            for message in connection.sent..due {
                let due = self.start + rate.due(message, number, all);
                if due >= begin {
                    self.record.unsent += 1;
                    self.record
                        .latency(now.saturating_sub(due), now, connection.number);
                }
            }
        }
    }
}
