//! A status as people read it.

use std::fmt;

use super::{
    status::{ClientRow, Rates, Role, Status, Totals, Usage, WorkerState, WorkerStatus},
    table::{Align, table},
};
use crate::Protocol;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopping = if self.stopping { ", stopping" } else { "" };
        writeln!(
            f,
            "{} (gannet {}), up {}, {} reloads{stopping}",
            self.name,
            self.version,
            age(self.uptime_ms),
            self.reloads
        )?;
        if self.mode == crate::Mode::Thread {
            writeln!(
                f,
                "thread mode: one process, PID is the system's number of a thread"
            )?;
        }
        if let Some(last) = &self.last_reload {
            writeln!(f, "last reload {last}")?;
        }
        for listener in &self.listeners {
            let (scheme, address) = (
                listener.protocol.scheme_with(listener.tls),
                &listener.address,
            );
            write!(f, "listening on {scheme}://{address}")?;
            match (listener.protocol, listener.connections, listener.websockets) {
                (Protocol::Udp, ..) => writeln!(f)?,
                (_, all, 0) => writeln!(f, ": {all} connections")?,
                (_, all, websockets) => {
                    writeln!(f, ": {all} connections, {websockets} of them WebSockets")?
                }
            }
        }
        if let Some(admin) = &self.admin {
            writeln!(f, "metrics at http://{admin}/metrics")?;
        }
        writeln!(f)?;
        self.fmt_processes(f)?;
        writeln!(f)?;
        let seconds = self.rates.over_ms.div_ceil(1000);
        writeln!(f, "per second  {} (the last {seconds} s)", self.rates)?;
        self.shared.fmt(f)?;
        self.totals.fmt(f)
    }
}

impl Status {
    fn fmt_processes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ProcessTable(self.processes()))
    }

    /// The rows of the table of processes: manager, master, then the others.
    pub(crate) fn processes(&self) -> Vec<ProcessRow<'_>> {
        let mut rows = vec![
            ProcessRow {
                title: "manager".to_owned(),
                pid: Some(self.manager_pid),
                usage: Some(self.manager),
                ..ProcessRow::default()
            },
            ProcessRow {
                title: "master".to_owned(),
                pid: self.master_pid,
                usage: self.master,
                restarts: self.master_restarts,
                last_exit: self.master_last_exit.clone().unwrap_or_default(),
                ..ProcessRow::default()
            },
        ];
        rows.extend(self.workers.iter().map(WorkerStatus::row));
        rows
    }
}

/// Processes, to be printed as a table.
pub(crate) struct ProcessTable<'a>(pub(crate) Vec<ProcessRow<'a>>);

impl fmt::Display for ProcessTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, &ProcessRow::TITLES, self.0.iter().map(ProcessRow::cells))
    }
}

/// A process in the table.
#[derive(Default)]
pub(crate) struct ProcessRow<'a> {
    pub(crate) title: String,
    pid: Option<u32>,
    pub(crate) usage: Option<Usage>,
    restarts: u64,
    last_exit: String,
    worker: Option<&'a WorkerStatus>,
}

impl ProcessRow<'_> {
    const TITLES: [(&'static str, Align); 16] = [
        ("PROCESS", Align::Left),
        ("PID", Align::Right),
        ("STATE", Align::Left),
        ("AGE", Align::Right),
        ("GEN", Align::Right),
        ("CPU%", Align::Right),
        ("RSS", Align::Right),
        ("PSS", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("RINGS%", Align::Right),
        ("HANDLED", Align::Right),
        ("/S", Align::Right),
        ("ERRORS", Align::Right),
        ("PANICS", Align::Right),
        ("RESTARTS", Align::Right),
        ("LAST EXIT", Align::Left),
    ];

    /// Events that it handles in a second.
    pub(crate) fn handled_per_s(&self) -> f64 {
        self.worker.map_or(-1.0, |worker| worker.handled_per_s)
    }

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let usage = self.usage;
        let of_worker =
            |show: fn(&WorkerStatus) -> String| self.worker.map(show).unwrap_or_default();
        vec![
            self.title.clone(),
            or_dash(self.pid.map(|pid| pid.to_string())),
            of_worker(WorkerStatus::state_in_words),
            of_worker(|worker| age(worker.age_ms)),
            of_worker(|worker| worker.generation.to_string()),
            or_dash(usage.map(|usage| format!("{:.1}", usage.cpu_percent))),
            or_dash(usage.map(|usage| bytes(usage.rss))),
            or_dash(usage.and_then(|usage| usage.pss).map(bytes)),
            of_worker(|worker| worker.in_flight.to_string()),
            of_worker(|worker| {
                format!(
                    "{}/{}",
                    worker.events_ring_percent, worker.commands_ring_percent
                )
            }),
            of_worker(|worker| worker.handled.to_string()),
            of_worker(|worker| rate(worker.handled_per_s)),
            of_worker(|worker| worker.errors.to_string()),
            of_worker(|worker| worker.panics.to_string()),
            self.restarts.to_string(),
            self.last_exit.clone(),
        ]
    }
}

impl WorkerStatus {
    fn row(&self) -> ProcessRow<'_> {
        let title = match (self.role, &self.name) {
            (Role::Process, Some(name)) => format!("process {name}"),
            (Role::Process, None) => format!("process {}", self.id),
            (Role::TaskWorker, _) => format!("task worker {}", self.id),
            (Role::Worker, _) => format!("worker {}", self.id),
        };
        let last_exit = self.last_exit.clone().unwrap_or_default();
        ProcessRow {
            title,
            pid: self.pid,
            usage: self.usage,
            restarts: self.restarts,
            last_exit: match self.early_deaths {
                0 | 1 => last_exit,
                deaths => format!("{last_exit} ({deaths} early deaths in a row)"),
            },
            worker: Some(self),
        }
    }

    fn state_in_words(&self) -> String {
        match (self.state, self.retry_in_ms) {
            (WorkerState::Waiting, Some(ms)) => {
                format!("waiting {}.{} s", ms / 1000, ms % 1000 / 100)
            }
            (WorkerState::Starting, _) => "starting".to_owned(),
            (WorkerState::Ready, _) => "ready".to_owned(),
            (WorkerState::Retiring, _) => "retiring".to_owned(),
            (WorkerState::Waiting, None) => "waiting".to_owned(),
            (WorkerState::Ended, _) => "ended".to_owned(),
        }
    }
}

/// `12.3 events/s, …`
impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} accepted, {} events, {} handled, {} requests, {} tasks, {} in, {} out",
            rate(self.accepted),
            rate(self.events),
            rate(self.handled),
            rate(self.requests),
            rate(self.tasks),
            bytes(self.bytes_in as u64),
            bytes(self.bytes_out as u64),
        )
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connections {} open, {} accepted, accepting paused {} times",
            self.connections, self.accepted, self.accept_paused
        )?;
        let closed: Vec<_> = self
            .closed
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        if !closed.is_empty() {
            writeln!(f, "closed      {}", closed.join(", "))?;
        }
        writeln!(
            f,
            "bytes       {} in, {} out",
            self.bytes_in, self.bytes_out
        )?;
        writeln!(
            f,
            "events      {} given, {} handled, {} failed, {} redelivered, {} dropped, {} requests",
            self.events,
            self.handled,
            self.handler_failed,
            self.redelivered,
            self.dropped,
            self.requests
        )?;
        if self.http2_connections > 0 {
            writeln!(
                f,
                "http/2      {} connections, {} streams, {} open, {} refused, {} malformed",
                self.http2_connections,
                self.http2_streams,
                self.http2_open,
                self.http2_refused,
                self.http2_malformed
            )?;
        }
        writeln!(
            f,
            "pressure    {} stalls, {} yields, {} bytes parked, {} publishes dropped",
            self.stalls, self.yields, self.parked, self.publish_dropped
        )?;
        if self.hangs > 0 {
            writeln!(f, "hangs       {} of workers' threads", self.hangs)?;
        }
        if self.proxy_untrusted + self.proxy_failed + self.forwarded_malformed > 0 {
            writeln!(
                f,
                "proxies     {} untrusted, {} without a PROXY header, {} forwarding headers malformed",
                self.proxy_untrusted, self.proxy_failed, self.forwarded_malformed
            )?;
        }
        if self.packets_in + self.packets_out + self.packets_unsent > 0 {
            writeln!(
                f,
                "packets     {} in, {} out, {} dropped, {} too large, {} unsent",
                self.packets_in,
                self.packets_out,
                self.packets_dropped,
                self.packets_too_large,
                self.packets_unsent
            )?;
        }
        if self.tls_handshakes + self.tls_failed + self.tls_timeouts + self.tls_refused > 0 {
            writeln!(
                f,
                "TLS         {} handshakes, {} resumed, {} failed, {} too slow, {} delayed, \
                 {} refused, {} truncated",
                self.tls_handshakes,
                self.tls_resumed,
                self.tls_failed,
                self.tls_timeouts,
                self.tls_delayed,
                self.tls_refused,
                self.tls_truncated
            )?;
        }
        writeln!(
            f,
            "tasks       {} submitted, {} finished, {} failed, {} rejected, {} queued",
            self.tasks_submitted,
            self.tasks_finished,
            self.tasks_failed,
            self.tasks_rejected,
            self.tasks_queued
        )?;
        if self.log_lost > 0 {
            writeln!(f, "log         {} lines lost", self.log_lost)?;
        }
        if self.compressed > 0 {
            writeln!(
                f,
                "compression {} messages, {} bytes saved",
                self.compressed, self.compression_saved
            )?;
        }
        Ok(())
    }
}

/// Connections, to be printed as a table.
pub struct ClientTable<'a>(pub &'a [ClientRow]);

impl fmt::Display for ClientTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = [
            ("CONNECTION", Align::Right),
            ("PEER", Align::Left),
            ("LISTENER", Align::Right),
            ("WORKER", Align::Right),
            ("UID", Align::Left),
            ("AGE", Align::Right),
            ("IDLE", Align::Right),
            ("IN", Align::Right),
            ("OUT", Align::Right),
            ("QUEUED", Align::Right),
        ];
        let cells = |client: &ClientRow| {
            vec![
                client.id.to_string(),
                client.peer.clone(),
                client.listener.to_string(),
                client.worker.to_string(),
                client.uid.clone().unwrap_or_default(),
                age(client.age_ms),
                age(client.idle_ms),
                client.bytes_in.to_string(),
                client.bytes_out.to_string(),
                client.queued.to_string(),
            ]
        };
        table(f, &titles, self.0.iter().map(cells))
    }
}

/// `850ms`, `12s`, `3m 5s`, `2h 10m`, `9d 4h`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `0`, `7.5`, `1234`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        0.0..10.0 => format!("{per_second:.1}"),
        _ => format!("{per_second:.0}"),
    }
}

/// `512 B`, `9.8 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match (unit, value) {
        (0, _) => format!("{count} B"),
        (_, 0.0..100.0) => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        WorkerId,
        control::{ListenerStatus, SharedStatus},
    };

    #[test]
    fn a_status_is_shown_as_a_table() {
        let status = Status {
            name: "echo".to_owned(),
            version: "0.1.0".to_owned(),
            mode: crate::Mode::Process,
            manager_pid: 10,
            master_pid: Some(11),
            master_restarts: 0,
            master_last_exit: None,
            uptime_ms: 3_725_000,
            reloads: 1,
            last_reload: None,
            stopping: false,
            admin: None,
            listeners: vec![ListenerStatus {
                address: "127.0.0.1:9501".to_owned(),
                protocol: Protocol::Websocket,
                tls: false,
                connections: 3,
                websockets: 2,
            }],
            manager: Usage {
                cpu_percent: 0.25,
                rss: 5 << 20,
                pss: Some(3 << 20),
            },
            master: Some(Usage::default()),
            rates: Rates {
                over_ms: 10_000,
                events: 1234.5,
                ..Rates::default()
            },
            workers: vec![WorkerStatus {
                id: WorkerId(0),
                role: Role::Worker,
                name: None,
                pid: Some(12),
                state: WorkerState::Ready,
                incarnation: 3,
                generation: 1,
                restarts: 2,
                age_ms: 61_000,
                in_flight: 4,
                handled: 1234,
                errors: 5,
                panics: 6,
                last_exit: Some("signal 9 (SIGKILL)".to_owned()),
                early_deaths: 5,
                retry_in_ms: None,
                handled_per_s: 7.25,
                events_ring_percent: 30,
                commands_ring_percent: 0,
                usage: None,
            }],
            shared: SharedStatus::default(),
            totals: Totals {
                closed: [("client".to_owned(), 7)].into(),
                ..Totals::default()
            },
        };
        let text = status.to_string();
        assert!(
            text.starts_with("echo (gannet 0.1.0), up 1h 2m, 1 reloads\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "listening on ws://127.0.0.1:9501: 3 connections, 2 of them WebSockets\n"
            )
        );
        assert!(
            text.contains("per second  0 accepted, 1234 events, "),
            "{text}"
        );
        let cells = |name: &str| -> Vec<_> {
            let row = text.lines().find(|line| line.starts_with(name)).unwrap();
            row.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(
            cells("manager")[1..],
            ["10", "0.2", "5.0", "MiB", "3.0", "MiB", "0"]
        );
        assert_eq!(
            cells("worker 0")[..7],
            ["worker", "0", "12", "ready", "1m", "1s", "1"]
        );
        assert!(text.contains("signal 9 (SIGKILL) (5 early deaths in a row)\n"));
        assert!(text.contains("closed      client 7\n"));
    }

    #[test]
    fn a_place_that_waits_says_for_how_long() {
        let mut worker: WorkerStatus = serde_json::from_value(serde_json::json!({
            "id": 1, "role": "worker", "pid": null, "state": "waiting", "incarnation": 0,
            "generation": 0, "restarts": 5, "age_ms": 0, "in_flight": 0, "handled": 0, "errors": 0,
            "panics": 0, "last_exit": "signal 6 (SIGABRT)"
        }))
        .unwrap();
        worker.retry_in_ms = Some(3_240);
        assert_eq!(worker.state_in_words(), "waiting 3.2 s");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(10 << 20), "10.0 MiB");
        assert_eq!(bytes(300 << 30), "300 GiB");
        assert_eq!([rate(0.0), rate(7.25), rate(1234.5)], ["0", "7.2", "1234"]);
    }
}
