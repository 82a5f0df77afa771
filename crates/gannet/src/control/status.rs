//! What a server tells about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LastReload, shared::SharedStatus};
use crate::{ConnId, Mode, Protocol, WorkerId};

/// The state of a server. Shown as a table by `Display`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Name of the server.
    pub name: String,
    /// Version of Gannet.
    pub version: String,
    /// Whether its workers are processes or threads.
    #[serde(default)]
    pub mode: Mode,
    /// Process id of the manager.
    pub manager_pid: u32,
    /// Process id of the master; none while it is being restarted. In thread mode the system's number
    /// of its thread.
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
    /// What the manager uses.
    #[serde(default)]
    pub manager: Usage,
    /// What the master uses; none while it is being restarted.
    #[serde(default)]
    pub master: Option<Usage>,
    /// How fast things go, over the last 10 seconds.
    #[serde(default)]
    pub rates: Rates,
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
    /// Connections that are open here now; of datagrams there are none.
    #[serde(default)]
    pub connections: u64,
    /// Of these, how many are open WebSockets.
    #[serde(default)]
    pub websockets: u64,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time over the last 10 seconds, or since its start if that is later: 100 is one whole
    /// processor.
    pub cpu_percent: f64,
    /// Resident memory in bytes: what it shares with others counts as a whole with each.
    pub rss: u64,
    /// Its part of the memory in bytes: what it shares is divided among those who do. Only if it was
    /// asked for ([`Client::status_with_pss`](super::Client::status_with_pss)), and if the kernel says.
    pub pss: Option<u64>,
}

/// How fast things go: each a number per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Rates {
    /// The time that they are taken over, in milliseconds: less than 10,000 after the start.
    pub over_ms: u64,
    /// Connections accepted.
    pub accepted: f64,
    /// Events given to workers.
    pub events: f64,
    /// Events whose handler ran to its end.
    pub handled: f64,
    /// HTTP requests.
    pub requests: f64,
    /// Bytes read from sockets.
    pub bytes_in: f64,
    /// Bytes written to sockets.
    pub bytes_out: f64,
    /// Tasks finished.
    pub tasks: f64,
}

/// A process of a worker, task worker or user process, or the place of one that is not there now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The worker's number.
    pub id: WorkerId,
    /// What it runs.
    pub role: Role,
    /// Name of the user process; none for workers.
    #[serde(default)]
    pub name: Option<String>,
    /// Process id; none while it waits to be restarted, and when it has ended for good. In thread mode
    /// the system's number of its thread.
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
    /// How many processes of its place in a row did not start, died within 100 ms (user processes: a second), or
    /// died although twenty had in the time before, at 3 s for each. From the third on the next try is delayed, from
    /// the second on if it did not start, and always after one death too many.
    #[serde(default)]
    pub early_deaths: u32,
    /// When the next process is started, in milliseconds from now, if that is delayed.
    #[serde(default)]
    pub retry_in_ms: Option<u64>,
    /// Events handled in a second, over the last 10.
    #[serde(default)]
    pub handled_per_s: f64,
    /// How full its fullest ring of events is, in percent: what it has not taken yet.
    #[serde(default)]
    pub events_ring_percent: u8,
    /// How full its fullest ring of commands is, in percent: what the reactor has not taken yet.
    #[serde(default)]
    pub commands_ring_percent: u8,
    /// What the process uses.
    #[serde(default)]
    pub usage: Option<Usage>,
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
    /// Times that a worker's thread made no progress for `stall_timeout_ms` (thread mode).
    pub hangs: u64,
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
