//! What a thread has seen: latencies, the worst of them, and what went wrong.

use hdrhistogram::Histogram;

/// Collected by one thread; those of all threads are added up at the end.
#[derive(Debug)]
pub(crate) struct Record {
    /// Nanoseconds from when a message was due to its answer (each delivery of it; in a storm, to when the
    /// connection was of use), of those that were due in the window.
    pub(crate) latencies: Histogram<u64>,
    /// Open loop: nanoseconds by which the generator itself was late.
    pub(crate) lateness: Histogram<u64>,
    pub(crate) worst: Option<Worst>,
    pub(crate) faults: Faults,
    /// Connections that came up again.
    pub(crate) reconnects: u64,
    /// Handshakes that went on with an earlier session.
    pub(crate) resumed: u64,
    /// Open loop: messages that were due, and had no place on their connection up to the end.
    pub(crate) unsent: u64,
    /// Broadcast: messages that have arrived everywhere.
    pub(crate) published: u64,
    /// The first things that went wrong, in words.
    pub(crate) samples: Vec<String>,
}

/// The longest that a message took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worst {
    pub(crate) nanoseconds: u64,
    /// When the answer came, by the clock of the run.
    pub(crate) at: u64,
    pub(crate) connection: u32,
}

/// How often what went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Answers with other bytes, or bytes that are not the protocol, or that nobody asked for.
    pub wrong: u64,
    /// Whole answers with another status.
    pub status: u64,
    /// Messages that had no answer in time.
    pub timeout: u64,
    /// Messages without an answer on connections that ended.
    pub lost_messages: u64,
    /// Connections that the server closed or reset.
    pub lost_connections: u64,
    /// Connections that could not be made.
    pub failed_connects: u64,
}

impl Record {
    pub(crate) fn new() -> Self {
        Record {
            latencies: histogram(),
            lateness: histogram(),
            worst: None,
            faults: Faults::default(),
            reconnects: 0,
            resumed: 0,
            unsent: 0,
            published: 0,
            samples: Vec::new(),
        }
    }

    pub(crate) fn latency(&mut self, nanoseconds: u64, at: u64, connection: u32) {
        self.latencies(nanoseconds, 1, at, connection);
    }

    /// The same latency of so many messages.
    pub(crate) fn latencies(&mut self, nanoseconds: u64, count: u64, at: u64, connection: u32) {
        self.latencies.saturating_record_n(nanoseconds, count);
        if self
            .worst
            .is_none_or(|worst| worst.nanoseconds < nanoseconds)
        {
            self.worst = Some(Worst {
                nanoseconds,
                at,
                connection,
            });
        }
    }

    /// Keeps what went wrong in words, if it is among the first.
    pub(crate) fn sample(&mut self, text: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES {
            self.samples.push(text());
        }
    }

    pub(crate) fn add(&mut self, other: &Record) {
        for (mine, others) in [
            (&mut self.latencies, &other.latencies),
            (&mut self.lateness, &other.lateness),
        ] {
            // Both have the same bounds, which is all that could be wrong.
            let _ = mine.add(others);
        }
        self.worst = [self.worst, other.worst]
            .into_iter()
            .flatten()
            .max_by_key(|worst| worst.nanoseconds);
        self.faults.add(&other.faults);
        self.reconnects += other.reconnects;
        self.resumed += other.resumed;
        self.unsent += other.unsent;
        self.published += other.published;
        let room = SAMPLES - self.samples.len().min(SAMPLES);
        self.samples
            .extend(other.samples.iter().take(room).cloned());
    }
}

impl Faults {
    fn add(&mut self, other: &Faults) {
        self.wrong += other.wrong;
        self.status += other.status;
        self.timeout += other.timeout;
        self.lost_messages += other.lost_messages;
        self.lost_connections += other.lost_connections;
        self.failed_connects += other.failed_connects;
    }

    /// How many of them are errors of the run. Where connections are to come up again (`reconnect`), one
    /// that ends without owing an answer is none.
    pub fn errors(&self, reconnect: bool) -> u64 {
        let connections = match reconnect {
            true => 0,
            false => self.lost_connections + self.failed_connects,
        };
        self.wrong + self.status + self.timeout + self.lost_messages + connections
    }
}

/// From a nanosecond to an hour, within a thousandth.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are sound"))
}

/// Words of so many faults are kept.
const SAMPLES: usize = 10;
