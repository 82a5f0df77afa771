//! What a run has found: for programs (JSON) and for people.

use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    record::{Faults, Record},
    server::{Memory, Usage},
};

/// The outcome of a run. The names of its fields are those of the JSON; docs/bench.md explains them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The command.
    pub what: &'static str,
    /// The server, as a URL.
    pub target: String,
    /// Connections at a time.
    pub connections: usize,
    /// Messages under way on each, at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub depth: u64,
    /// Bytes of a message; of several sizes, their mean.
    pub size: usize,
    /// All sizes, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<usize>,
    /// Threads of the generator.
    pub threads: usize,
    /// Open loop: messages a second that were due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How long was measured.
    pub seconds: f64,
    /// Right answers in this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// The same for a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<f64>,
    /// What the mode adds.
    #[serde(flatten)]
    pub more: More,
    /// All that went wrong.
    pub errors: u64,
    /// What that was.
    pub error_kinds: Faults,
    /// The first of it, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_samples: Vec<String>,
    /// With `--reconnect`: connections that came up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnects: Option<u64>,
    /// From when a message was due to its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Latency>,
    /// The longest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<WorstAnswer>,
    /// Open loop: whether the generator itself kept up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
    /// What the server's processes used, if it is known which they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerUse>,
    /// What the generator used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientUse>,
}

/// Figures that only some modes have.
#[derive(Clone, Debug, Default, Serialize)]
pub struct More {
    /// Connections that were made in a storm, and closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connects: Option<u64>,
    /// The same for a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connects_per_s: Option<f64>,
    /// TLS handshakes among them, each in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshakes: Option<u64>,
    /// The same for a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshakes_per_s: Option<f64>,
    /// Handshakes that went on with an earlier session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<u64>,
    /// User memory of the server for each idle connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection: Option<u64>,
    /// All kinds of memory for each idle connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_per_connection: Option<Memory>,
    /// How long it took to make the idle connections, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_s: Option<f64>,
    /// Connections that were idle when it was first read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_connections: Option<usize>,
    /// Connections that receive, of a broadcast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribers: Option<usize>,
    /// Connections that publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishers: Option<usize>,
    /// Messages that arrived everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<u64>,
    /// Messages that arrived at one who receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<u64>,
    /// The same for a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries_per_s: Option<f64>,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct Latency {
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub mean: f64,
}

/// The longest latency, and when.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct WorstAnswer {
    /// Microseconds.
    pub us: f64,
    /// Seconds from the beginning of the window to when the answer came.
    pub at_s: f64,
    /// On which connection.
    pub connection: u32,
}

/// How well the generator kept to its rate.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct OpenLoop {
    /// Messages that were due and found no room on their connection up to the end. They count in the
    /// latencies with the time they had waited.
    pub unsent: u64,
    /// How late the generator looked at what was due, by itself: microseconds, 99 of 100 times at most.
    pub late_p99_us: f64,
    /// At the worst.
    pub late_max_us: f64,
}

/// Processor time and memory of all the server's processes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ServerUse {
    /// Processor time in the window, in microseconds.
    pub cpu_us: f64,
    /// For each message, delivery or connection.
    pub cpu_us_per_message: f64,
    /// In the programs, of `cpu_us`.
    pub user_us: f64,
    /// The same for each message.
    pub user_us_per_message: f64,
    /// In the kernel, of `cpu_us`.
    pub system_us: f64,
    /// Context switches for each message.
    pub switches_per_message: f64,
    /// At the end of the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// Processor time of the generator.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ClientUse {
    /// In the window, in microseconds.
    pub cpu_us: f64,
    /// For each message, delivery or connection.
    pub cpu_us_per_message: f64,
    /// Part of one processor that it took: near its number of threads, the generator is what was measured.
    pub busy: f64,
}

impl Report {
    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        // Nothing in it can fail: no map with odd keys, no writer.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn take(&mut self, record: &Record, begin: u64, reconnect: bool) {
        self.errors = record.faults.errors(reconnect);
        self.error_kinds = record.faults;
        self.error_samples.clone_from(&record.samples);
        self.reconnects = reconnect.then_some(record.reconnects);
        self.latency_us = Latency::of(record);
        self.worst = record.worst.map(|worst| WorstAnswer {
            us: micros(worst.nanoseconds),
            at_s: round(worst.at.saturating_sub(begin) as f64 / 1e9),
            connection: worst.connection,
        });
        self.open_loop = self.rate.map(|_| OpenLoop {
            unsent: record.unsent,
            late_p99_us: micros(record.lateness.value_at_quantile(0.99)),
            late_max_us: micros(record.lateness.max()),
        });
    }

    /// How many things were done, which processor time is divided by.
    pub(crate) fn units(&self) -> u64 {
        self.more
            .deliveries
            .or(self.more.connects)
            .or(self.messages)
            .unwrap_or_default()
    }
}

impl Latency {
    fn of(record: &Record) -> Option<Self> {
        let latencies: &Histogram<u64> = &record.latencies;
        let at = |quantile| micros(latencies.value_at_quantile(quantile));
        (!latencies.is_empty()).then(|| Latency {
            min: micros(latencies.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            // The histogram knows it within a thousandth.
            max: micros(record.worst.map_or(0, |worst| worst.nanoseconds)),
            mean: round(latencies.mean() / 1e3),
        })
    }
}

impl ServerUse {
    pub(crate) fn new(used: Usage, units: u64, memory: Option<Memory>) -> Self {
        let us = |time: std::time::Duration| round(time.as_secs_f64() * 1e6);
        ServerUse {
            cpu_us: us(used.cpu),
            cpu_us_per_message: each(used.cpu.as_secs_f64() * 1e6, units),
            user_us: us(used.user),
            user_us_per_message: each(used.user.as_secs_f64() * 1e6, units),
            system_us: us(used.system),
            switches_per_message: each(used.switches as f64, units),
            memory,
        }
    }
}

impl ClientUse {
    pub(crate) fn new(cpu: std::time::Duration, seconds: f64, units: u64) -> Self {
        let us = cpu.as_secs_f64() * 1e6;
        ClientUse {
            cpu_us: round(us),
            cpu_us_per_message: each(us, units),
            busy: round(cpu.as_secs_f64() / seconds.max(1e-9)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.sizes.as_slice() {
            [] => self.size.to_string(),
            sizes => sizes
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
        write!(
            f,
            "{} {}: {}",
            self.what,
            self.target,
            count(self.connections as u64)
        )?;
        write!(f, " connections")?;
        if self.depth > 0 {
            write!(f, ", depth {}, {size} B", self.depth)?;
        }
        if let Some(rate) = self.rate {
            write!(f, ", {} due a second", count(rate as u64))?;
        }
        writeln!(f, ", {:.1} s", self.seconds)?;
        let more = &self.more;
        if let (Some(all), Some(rate)) = (self.messages, self.messages_per_s) {
            line(
                f,
                "messages",
                &format!("{} ({} a second)", count(all), count(rate as u64)),
            )?;
        }
        if let (Some(all), Some(rate)) = (more.deliveries, more.deliveries_per_s) {
            line(
                f,
                "deliveries",
                &format!("{} ({} a second)", count(all), count(rate as u64)),
            )?;
        }
        if let (Some(all), Some(rate)) = (more.connects, more.connects_per_s) {
            let mut text = format!("{} ({} a second)", count(all), count(rate as u64));
            if let (Some(full), Some(resumed)) = (more.handshakes, more.resumed) {
                let _ = write!(
                    text,
                    "; TLS: {} in full, {} resumed",
                    count(full),
                    count(resumed)
                );
            }
            line(f, "connects", &text)?;
        }
        if let Some(seconds) = more.connect_s {
            line(f, "connected", &format!("in {seconds:.2} s"))?;
        }
        if let Some(memory) = more.memory_per_connection {
            let text = format!(
                "{} B of user memory for each connection (resident: {} B)",
                count(memory.user),
                count(memory.rss)
            );
            line(f, "idle", &text)?;
        }
        if let Some(latency) = &self.latency_us {
            let text = format!(
                "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
                time(latency.p50),
                time(latency.p90),
                time(latency.p99),
                time(latency.p999),
                time(latency.max)
            );
            line(f, "latency", &text)?;
        }
        if let Some(worst) = &self.worst {
            let text = format!(
                "{} on connection {}, {:.3} s after the beginning",
                time(worst.us),
                worst.connection,
                worst.at_s
            );
            line(f, "worst", &text)?;
        }
        self.meaning(f)?;
        if let Some(server) = &self.server {
            let mut text = format!("{:.2} s of processor time", server.cpu_us / 1e6);
            if self.units() > 0 {
                text = format!(
                    "{:.2} µs of processor time each ({:.0} % in the kernel), {:.3} switches",
                    server.cpu_us_per_message,
                    100.0 * server.system_us / server.cpu_us.max(1e-9),
                    server.switches_per_message
                );
            }
            if let Some(memory) = server.memory {
                let _ = write!(text, "; {} KiB of user memory", count(memory.user >> 10));
            }
            line(f, "server", &text)?;
        }
        if let Some(client) = &self.client
            && self.units() > 0
        {
            let text = format!(
                "{:.2} µs of processor time each; {:.0} % of a processor",
                client.cpu_us_per_message,
                client.busy * 100.0
            );
            line(f, "generator", &text)?;
        }
        if let Some(reconnects) = self.reconnects {
            let text = format!(
                "{}; {} messages without an answer",
                count(reconnects),
                count(self.error_kinds.lost_messages)
            );
            line(f, "reconnects", &text)?;
        }
        self.errors(f)
    }
}

impl Report {
    /// What the latencies are, which nobody should have to guess.
    fn meaning(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.latency_us.is_none() {
            return Ok(());
        }
        if self.more.deliveries.is_some() {
            line(
                f,
                "",
                "from when a message was published to each of its deliveries",
            )?;
        }
        if self.more.connects.is_some() {
            line(
                f,
                "",
                "from when a connection was due to when it was of use, or had its answer",
            )?;
        }
        match &self.open_loop {
            Some(open) => {
                line(
                    f,
                    "",
                    "open loop: from when a message was due, whether or not it could be sent then",
                )?;
                if open.unsent > 0 {
                    let text = format!(
                        "{} messages were due and could not be sent up to the end: the server did not \
                         keep up",
                        count(open.unsent)
                    );
                    line(f, "", &text)?;
                }
                if open.late_p99_us > 1000.0 {
                    let text = format!(
                        "the generator was late by itself: {} for one message in a hundred",
                        time(open.late_p99_us)
                    );
                    line(f, "", &text)?;
                }
                Ok(())
            }
            None if self.messages.is_none() => Ok(()),
            None => line(
                f,
                "",
                "closed loop: a connection sends again when it is answered, so a stall delays few \
                 messages; --rate counts what it really costs",
            ),
        }
    }

    fn errors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = &self.error_kinds;
        let named = [
            (kinds.wrong, "wrong answers"),
            (kinds.status, "other statuses"),
            (kinds.timeout, "without an answer in time"),
            (kinds.lost_messages, "lost with their connection"),
            (kinds.lost_connections, "connections ended by the server"),
            (kinds.failed_connects, "connections could not be made"),
        ];
        let named: Vec<_> = named
            .iter()
            .filter(|(how_many, _)| *how_many > 0)
            .map(|(how_many, what)| format!("{} {what}", count(*how_many)))
            .collect();
        match named.is_empty() {
            true => line(f, "errors", "none")?,
            false => line(
                f,
                "errors",
                &format!("{}: {}", count(self.errors), named.join(", ")),
            )?,
        }
        for sample in &self.error_samples {
            line(f, "", sample)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {name:<11} {text}")
}

/// `12,345`
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as people read them.
pub(crate) fn time(micros: f64) -> String {
    match micros {
        ..10.0 => format!("{micros:.1} µs"),
        ..1000.0 => format!("{micros:.0} µs"),
        ..10_000.0 => format!("{:.2} ms", micros / 1e3),
        ..1_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

fn micros(nanoseconds: u64) -> f64 {
    round(nanoseconds as f64 / 1e3)
}

/// To three digits behind the point.
pub(crate) fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn each(all: f64, units: u64) -> f64 {
    match units {
        0 => 0.0,
        units => round(all / units as f64),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(time(3.64), "3.6 µs");
        assert_eq!(time(123.4), "123 µs");
        assert_eq!(time(1234.0), "1.23 ms");
        assert_eq!(time(25_000.0), "25 ms");
        assert_eq!(time(2_500_000.0), "2.50 s");
    }
}
