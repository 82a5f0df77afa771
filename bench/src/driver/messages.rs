//! Messages: what arrives, and what goes out because of it.

use std::ops::Range;

use super::Driver;
use crate::{
    connection::{Connection, Fault},
    payload::MessageId,
    plan::Traffic,
    protocol::{Protocol, Step, Wrong},
};

impl<P: Protocol> Driver<'_, P> {
    /// Bytes have arrived.
    pub(super) fn arrived(&mut self, index: usize, mut input: &[u8]) -> Result<(), Fault> {
        let now = self.control.now();
        let (generation, mut finished) = (self.connections[index].generation, 0);
        self.out.clear();
        while !input.is_empty() {
            let connection = &mut self.connections[index];
            let expected = connection.expected();
            let (used, step) = self
                .protocol
                .decode(
                    &mut connection.state,
                    input,
                    expected,
                    &self.plan.payloads,
                    &mut self.out,
                )
                .map_err(Fault::Wrong)?;
            input = &input[used..];
            match step {
                Step::More => {}
                Step::Opened => {
                    // Ready at once; what it sends is in its own write.
                    self.opened(index)?;
                    self.out.clear();
                    if self.connections[index].generation != generation {
                        return Ok(());
                    }
                }
                Step::Answered | Step::Refused(_) => {
                    self.answered(index, now, step);
                    finished += 1;
                }
                Step::Delivered { first, count } => self.delivered(first, count, now)?,
            }
        }
        let connection = &mut self.connections[index];
        connection.active = now;
        if finished > 0 && matches!(self.plan.traffic, Traffic::Connects { .. }) {
            self.stormed(index, now);
            return Ok(());
        }
        if finished > 0 {
            self.fill(index, now, now);
        }
        if !self.out.is_empty() {
            self.connections[index].send(&self.out)?;
        }
        while let Some(publisher) = self.freed.pop() {
            self.out.clear();
            self.fill(publisher, now, now);
            let outcome = self.connections[publisher].send(&self.out);
            match publisher == index {
                true => outcome?,
                false => self.settle(publisher, outcome),
            }
        }
        Ok(())
    }

    /// Messages of a publisher have arrived at one of those that receive them: `first` and those behind it.
    pub(super) fn delivered(
        &mut self,
        first: MessageId,
        count: u64,
        now: u64,
    ) -> Result<(), Fault> {
        let Traffic::Broadcast { receivers, .. } = self.plan.traffic else {
            return Ok(());
        };
        let publisher = first.connection as usize;
        let connection = &mut self.connections[publisher];
        let Some(under_way) = under_way(connection, first.number, count) else {
            return Err(Fault::Wrong(Wrong::Protocol(format!(
                "message {} of publisher {publisher} arrived at more than {receivers} connections (is \
                 --exclude-publisher right for this server?)",
                first.number
            ))));
        };
        let arrivals = &mut self.arrivals[publisher];
        for arrived in arrivals.range_mut(under_way.clone()) {
            *arrived += 1;
        }
        self.done += count;
        let (begin, end) = self.window;
        let mut dues = connection.due.range(under_way).copied().peekable();
        while let Some(due) = dues.next() {
            // Messages that left together are due at the same time, and have arrived together.
            let mut together = 1;
            while dues.next_if_eq(&due).is_some() {
                together += 1;
            }
            let took = now.saturating_sub(due);
            self.worst = self.worst.max(took);
            if begin <= due && due < end {
                self.record.latencies(took, together, now, first.connection);
            }
        }
        while arrivals.front().is_some_and(|&count| count >= receivers) {
            arrivals.pop_front();
            connection.due.pop_front();
            connection.answered += 1;
            connection.active = now;
            self.record.published += 1;
            if self.freed.last() != Some(&publisher) {
                self.freed.push(publisher);
            }
        }
        Ok(())
    }

    /// The oldest message of a connection has its answer.
    pub(super) fn answered(&mut self, index: usize, now: u64, step: Step) {
        let connection = &mut self.connections[index];
        let (number, message) = (connection.number, connection.answered);
        let due = connection.due.pop_front().unwrap_or(now);
        connection.answered += 1;
        if let Step::Refused(status) = step {
            self.record.faults.status += 1;
            self.record
                .sample(|| format!("connection {number}, message {message}: status {status}"));
            return;
        }
        if matches!(self.plan.traffic, Traffic::Connects { .. }) {
            return;
        }
        self.done += 1;
        let took = now.saturating_sub(due);
        self.worst = self.worst.max(took);
        let (begin, end) = self.window;
        if begin <= due && due < end {
            self.record.latency(took, now, number);
        }
    }

    /// Appends the messages that the connection may send now to what goes out. In a closed loop, they
    /// are due since `due`.
    pub(super) fn fill(&mut self, index: usize, now: u64, due: u64) {
        let over = self.is_over();
        let connection = &mut self.connections[index];
        let (depth, rate) = match self.plan.traffic {
            Traffic::Messages | Traffic::Broadcast { .. } => (self.plan.depth, self.plan.rate),
            Traffic::Connects { exchange } => (u64::from(exchange), None),
            Traffic::Idle => return,
        };
        if over || index >= self.senders {
            return;
        }
        let (number, all) = (connection.number, self.plan.senders() as u64);
        while connection.under_way() < depth {
            let due = match rate {
                None => due,
                Some(_) if connection.sent >= connection.released => break,
                Some(rate) => self.start + rate.due(connection.sent, u64::from(number), all),
            };
            if connection.under_way() == 0 {
                connection.active = now;
            }
            let id = MessageId {
                connection: number,
                number: connection.sent,
            };
            self.protocol.encode(&mut self.out, &self.plan.payloads, id);
            connection.due.push_back(due);
            connection.sent += 1;
            if let Some(arrivals) = self.arrivals.get_mut(index) {
                arrivals.push_back(0);
            }
        }
    }
}

/// Which of a connection's messages under way these are, if all of them are.
fn under_way<S>(connection: &Connection<S>, first: u64, count: u64) -> Option<Range<usize>> {
    let begin = usize::try_from(first.checked_sub(connection.answered)?).ok()?;
    let end = begin.checked_add(usize::try_from(count).ok()?)?;
    (end <= connection.due.len()).then_some(begin..end)
}
