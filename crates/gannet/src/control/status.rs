//! What a server tells about itself.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    LastReload,
    shared::SharedStatus,
    table::{Align, table},
};
use crate::{ConnId, Protocol, WorkerId};

/// The state of a server. Shown as a table by `Display`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Name of the server.
    pub name: String,
    /// Version of Gannet.
    pub version: String,
    /// Process id of the manager.
    pub manager_pid: u32,
    /// Process id of the master; none while it is being restarted.
    pub master_pid: Option<u32>,
    /// How often the master was restarted after it died.
    pub master_restarts: u64,
    /// Why the last master died.
    pub master_last_exit: Option<String>,
    /// How long the server has been running, in milliseconds.
    pub uptime_ms: u64,
    /// Reloads begun since the start.
    pub reloads: u64,
    /// The reload that has ended last.
    #[serde(default)]
    pub last_reload: Option<LastReload>,
    /// Whether it is on its way to its end.
    pub stopping: bool,
    /// What it listens on.
    pub listeners: Vec<ListenerStatus>,
    /// Where metrics and health are served (`admin_listen`), with the real port.
    #[serde(default)]
    pub admin: Option<String>,
    /// The processes of workers, task workers and user processes; in the middle of a reload a number
    /// has two.
    pub workers: Vec<WorkerStatus>,
    /// Memory that the server's code shares: counters, locks and tables.
    #[serde(default)]
    pub shared: SharedStatus,
    /// Counters of all reactors together.
    pub totals: Totals,
}

/// An address that a server listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// The address, with the real port.
    pub address: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether TLS is under it.
    #[serde(default)]
    pub tls: bool,
}

/// A process of a worker, task worker or user process, or the place of one that is not there now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The worker's number.
    pub id: WorkerId,
    /// What it runs.
    pub role: Role,
    /// Name of the user process; none for workers.
    #[serde(default)]
    pub name: Option<String>,
    /// Process id; none while it waits to be restarted, and when it has ended for good.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// Number of the process among all workers of this server.
    pub incarnation: u64,
    /// How often its place was filled by reload.
    pub generation: u64,
    /// How often a process of its place ended without being asked to.
    pub restarts: u64,
    /// How long the process has been running, in milliseconds.
    pub age_ms: u64,
    /// Events taken and not finished.
    pub in_flight: u64,
    /// Events whose handler ran to its end; as the next two, those of its predecessors included.
    pub handled: u64,
    /// Handlers and timers that returned an error.
    pub errors: u64,
    /// Handlers and timers that panicked.
    pub panics: u64,
    /// Why the last process of its place that did not end well did end.
    pub last_exit: Option<String>,
}

/// What a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// The handler of connections.
    Worker,
    /// Tasks.
    TaskWorker,
    /// A user process: see [`Server::add_process`](crate::Server::add_process).
    Process,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerState {
    /// It is not ready yet.
    Starting,
    /// It gets events.
    Ready,
    /// It was replaced and finishes what it has.
    Retiring,
    /// There is no process; the next try is delayed, because the last ones failed.
    Waiting,
    /// There is no process and there will be none: the restart policy of the user process says so.
    Ended,
}

/// Counters of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Totals {
    /// Connections now open.
    pub connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Times that accepting paused: no descriptors, or `max_connections` reached.
    pub accept_paused: u64,
    /// Connections closed, by reason (only those that happened).
    pub closed: BTreeMap<String, u64>,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Events given to workers.
    pub events: u64,
    /// Events whose handler ran to its end.
    pub handled: u64,
    /// Events given to a worker again, because the one before died.
    pub redelivered: u64,
    /// Events given up.
    pub dropped: u64,
    /// Messages of droppable topics not sent to slow subscribers.
    pub publish_dropped: u64,
    /// Times that reading paused, because a worker was behind.
    pub stalls: u64,
    /// Times that a connection or worker had had its share of a reactor's turn, and went on in the
    /// next.
    pub yields: u64,
    /// Events whose handler failed.
    pub handler_failed: u64,
    /// HTTP requests.
    pub requests: u64,
    /// Connections that have spoken HTTP/2.
    pub http2_connections: u64,
    /// Streams that they have opened.
    pub http2_streams: u64,
    /// Streams now open. They are not among `connections`.
    pub http2_open: u64,
    /// Streams refused because `max_streams` were open, or the connection was about to end.
    pub http2_refused: u64,
    /// Streams reset because their request was malformed.
    pub http2_malformed: u64,
    /// TLS handshakes that went well.
    pub tls_handshakes: u64,
    /// Of these, how many went on with an earlier session.
    pub tls_resumed: u64,
    /// TLS handshakes, or records after them, that were not what they should be.
    pub tls_failed: u64,
    /// TLS handshakes that took longer than `handshake_timeout_ms`.
    pub tls_timeouts: u64,
    /// TLS handshakes that waited for their turn (`max_handshakes_per_s`).
    pub tls_delayed: u64,
    /// TLS handshakes that would have waited for too long, and were refused.
    pub tls_refused: u64,
    /// TLS connections that ended without saying so: what came last may be missing.
    pub tls_truncated: u64,
    /// Connections that were not taken, because they came from no trusted proxy.
    pub proxy_untrusted: u64,
    /// Connections closed for want of a good PROXY header.
    pub proxy_failed: u64,
    /// Requests whose forwarding header could not be read.
    pub forwarded_malformed: u64,
    /// Tasks submitted.
    pub tasks_submitted: u64,
    /// Tasks finished.
    pub tasks_finished: u64,
    /// Tasks failed.
    pub tasks_failed: u64,
    /// Tasks refused, because the queue was full.
    pub tasks_rejected: u64,
    /// Tasks waiting now.
    pub tasks_queued: u64,
    /// Bytes of unfinished events kept outside the rings now.
    pub parked: u64,
    /// Lines of the log that were lost: it could not be written, or not fast enough.
    pub log_lost: u64,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Datagrams dropped, because a worker was behind.
    pub packets_dropped: u64,
    /// Datagrams dropped, because they were larger than `max_message_size`.
    pub packets_too_large: u64,
    /// Datagrams to others that the kernel did not take.
    pub packets_unsent: u64,
    /// Loop turns of the reactors.
    pub turns: u64,
    /// Messages compressed: once each, however many clients got it.
    pub compressed: u64,
    /// Bytes that compressing has saved, each message counted once.
    pub compression_saved: u64,
}

/// A connection, as `clients` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientRow {
    /// The connection.
    pub id: ConnId,
    /// Address of the client.
    pub peer: String,
    /// The proxy that has named the client, if one has.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Index of the listener that it came from.
    pub listener: usize,
    /// The worker that gets its events.
    pub worker: WorkerId,
    /// The uid bound to it.
    pub uid: Option<String>,
    /// Whether it is an open WebSocket.
    pub websocket: bool,
    /// Whether it is encrypted.
    #[serde(default)]
    pub tls: bool,
    /// How long it has been open, in milliseconds.
    pub age_ms: u64,
    /// How long nothing has come from it, in milliseconds.
    pub idle_ms: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Messages from the client.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// Bytes waiting for the client to read.
    pub queued: u64,
}

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
        if let Some(last) = &self.last_reload {
            writeln!(f, "last reload {last}")?;
        }
        for listener in &self.listeners {
            writeln!(
                f,
                "listening on {}://{}",
                listener.protocol.scheme_with(listener.tls),
                listener.address
            )?;
        }
        if let Some(admin) = &self.admin {
            writeln!(f, "metrics at http://{admin}/metrics")?;
        }
        let master = self
            .master_pid
            .map_or("being restarted".to_owned(), |pid| pid.to_string());
        writeln!(f, "manager {}, master {master}", self.manager_pid)?;
        if let Some(last_exit) = &self.master_last_exit {
            writeln!(
                f,
                "master restarted {} times, last: {last_exit}",
                self.master_restarts
            )?;
        }
        writeln!(f)?;
        self.fmt_workers(f)?;
        writeln!(f)?;
        self.shared.fmt(f)?;
        self.totals.fmt(f)
    }
}

impl Status {
    fn fmt_workers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = [
            ("WORKER", Align::Left),
            ("PID", Align::Right),
            ("STATE", Align::Left),
            ("AGE", Align::Right),
            ("GEN", Align::Right),
            ("RESTARTS", Align::Right),
            ("IN FLIGHT", Align::Right),
            ("HANDLED", Align::Right),
            ("ERRORS", Align::Right),
            ("PANICS", Align::Right),
            ("LAST EXIT", Align::Left),
        ];
        table(f, &titles, self.workers.iter().map(WorkerStatus::cells))
    }
}

impl WorkerStatus {
    fn cells(&self) -> Vec<String> {
        let title = match (self.role, &self.name) {
            (Role::Process, Some(name)) => format!("process {name}"),
            (Role::Process, None) => format!("process {}", self.id),
            (Role::TaskWorker, _) => format!("task {}", self.id),
            (Role::Worker, _) => self.id.to_string(),
        };
        let state = match self.state {
            WorkerState::Starting => "starting",
            WorkerState::Ready => "ready",
            WorkerState::Retiring => "retiring",
            WorkerState::Waiting => "waiting",
            WorkerState::Ended => "ended",
        };
        vec![
            title,
            self.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            state.to_owned(),
            age(self.age_ms),
            self.generation.to_string(),
            self.restarts.to_string(),
            self.in_flight.to_string(),
            self.handled.to_string(),
            self.errors.to_string(),
            self.panics.to_string(),
            self.last_exit.clone().unwrap_or_default(),
        ]
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
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_as_a_table() {
        let status = Status {
            name: "echo".to_owned(),
            version: "0.1.0".to_owned(),
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
            }],
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
        assert!(text.contains("listening on ws://127.0.0.1:9501\nmanager 10, master 11\n"));
        let row = text.lines().find(|line| line.contains("SIGKILL")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells[..7], ["0", "12", "ready", "1m", "1s", "1", "2"]);
        assert!(text.contains("closed      client 7\n"));
    }
}
