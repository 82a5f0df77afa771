//! What a run is to do: the same for all its threads.

use std::{net::SocketAddr, time::Duration};

use crate::{payload::Payloads, target::Sources, tls::TlsSetup};

/// Made from the command line.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) to: SocketAddr,
    pub(crate) sources: Sources,
    pub(crate) tls: Option<TlsSetup>,
    pub(crate) payloads: Payloads,
    pub(crate) traffic: Traffic,
    /// Over all threads.
    pub(crate) connections: usize,
    /// The number of the first of them.
    pub(crate) first: usize,
    pub(crate) threads: usize,
    /// Messages under way on a connection, at most.
    pub(crate) depth: u64,
    pub(crate) rate: Option<Rate>,
    pub(crate) timeout: Duration,
    pub(crate) reconnect: bool,
}

/// What is done on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Messages, each of which is answered.
    Messages,
    /// They are made and closed, with one message in between if `exchange`.
    Connects { exchange: bool },
    /// Nothing.
    Idle,
    /// Messages of the first connections, the publishers, each of which arrives at so many connections.
    Broadcast { publishers: usize, receivers: u32 },
}

impl Plan {
    /// How many of the connections send by themselves: the first ones.
    pub(crate) fn senders(&self) -> usize {
        match self.traffic {
            Traffic::Broadcast { publishers, .. } => publishers,
            Traffic::Idle => 0,
            Traffic::Messages | Traffic::Connects { .. } => self.connections,
        }
    }
}

/// Open loop: so many a second, over all connections, at even distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
}

impl Rate {
    /// How long after the beginning something is due: the `round`th on the connection with this number.
    pub(crate) fn due(self, round: u64, connection: u64, connections: u64) -> u64 {
        ((round * connections + connection) as f64 * (1e9 / self.per_second)) as u64
    }

    /// How many are due on that connection in so many nanoseconds.
    pub(crate) fn due_within(self, nanoseconds: u64, connection: u64, connections: u64) -> u64 {
        let all = (nanoseconds as f64 * self.per_second / 1e9) as u64;
        // Off by one at most, by rounding: settled by asking.
        let mut rounds = all.saturating_sub(connection) / connections;
        while self.due(rounds, connection, connections) < nanoseconds {
            rounds += 1;
        }
        while rounds > 0 && self.due(rounds - 1, connection, connections) >= nanoseconds {
            rounds -= 1;
        }
        rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_spread_evenly_over_time_and_connections() {
        let rate = Rate { per_second: 1000.0 };
        assert_eq!(rate.due(0, 0, 4), 0);
        assert_eq!(rate.due(0, 3, 4), 3_000_000);
        assert_eq!(rate.due(2, 1, 4), 9_000_000);
        let all: u64 = (0..4).map(|n| rate.due_within(1_000_000_000, n, 4)).sum();
        assert_eq!(all, 1000);
        assert_eq!(rate.due_within(0, 0, 4), 0);
        assert_eq!(rate.due_within(1, 0, 4), 1);
    }
}
