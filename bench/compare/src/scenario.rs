//! What is measured: one scenario for each row of the tables.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One kind of load, and the figure that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// TCP echo
    Tcp,
    /// HTTP/1.1 hello on kept connections
    Http,
    /// WebSocket echo
    Websocket,
    /// TCP echo, 16 messages under way on each connection
    TcpDepth16,
    /// HTTP/1.1 hello, 16 requests pipelined on each connection
    HttpDepth16,
    /// What one WebSocket sends goes to 1,000, 16 messages under way
    Broadcast,
    /// TCP: receive, task, finish, reply; two task workers
    Tasks,
    /// Memory of idle WebSockets
    Idle,
    /// The worst answer while workers are reloaded twice a second under load
    Reload,
    /// The worst answer while the worker is killed twice a second under load
    Kill,
    /// Full TLS 1.3 handshakes
    TlsHandshakes,
    /// Echo over TLS 1.3
    TlsEcho,
}

/// The figure that servers are compared by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// What a column and an axis are called.
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Where the generator's report has it, and what it is multiplied by.
    pointer: &'static str,
    factor: f64,
    /// Whether less is better.
    pub(crate) less: bool,
}

/// What is done to the server while it is under load, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Reload,
    KillWorker,
}

impl Scenario {
    /// As it is written on the command line, in results and in names of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Tcp => "tcp",
            Scenario::Http => "http",
            Scenario::Websocket => "websocket",
            Scenario::TcpDepth16 => "tcp-depth16",
            Scenario::HttpDepth16 => "http-depth16",
            Scenario::Broadcast => "broadcast",
            Scenario::Tasks => "tasks",
            Scenario::Idle => "idle",
            Scenario::Reload => "reload",
            Scenario::Kill => "kill",
            Scenario::TlsHandshakes => "tls-handshakes",
            Scenario::TlsEcho => "tls-echo",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Scenario::Tcp => "TCP echo",
            Scenario::Http => "HTTP hello",
            Scenario::Websocket => "WebSocket echo",
            Scenario::TcpDepth16 => "TCP echo, depth 16",
            Scenario::HttpDepth16 => "HTTP hello, depth 16",
            Scenario::Broadcast => "Broadcast to 1,000 WebSockets",
            Scenario::Tasks => "Task round trips",
            Scenario::Idle => "Memory of an idle WebSocket",
            Scenario::Reload => "Worst answer during reloads",
            Scenario::Kill => "Worst answer when the worker is killed",
            Scenario::TlsHandshakes => "TLS 1.3 handshakes",
            Scenario::TlsEcho => "Echo over TLS 1.3",
        }
    }

    /// What exactly is done, in a sentence.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Scenario::Tcp => "64 connections, 64 B, one message under way on each.",
            Scenario::Http => {
                "64 kept connections, `GET /`, a body of 18 B, one request at a time on each."
            }
            Scenario::Websocket => {
                "64 connections, 64 B in binary frames, one message under way on each."
            }
            Scenario::TcpDepth16 => "64 connections, 64 B, 16 messages under way on each.",
            Scenario::HttpDepth16 => "64 kept connections, `GET /`, 16 requests pipelined on each.",
            Scenario::Broadcast => {
                "1,000 subscribers, 128 B, one publisher with 16 messages under way."
            }
            Scenario::Tasks => {
                "64 connections, 64 B: the worker makes each message a task, one of two task workers \
                 gives it back, the answer goes out when the task has ended."
            }
            Scenario::Idle => {
                "User memory of the server's processes for each WebSocket that only is there."
            }
            Scenario::Reload => {
                "64 connections, 64 B TCP echo, the workers replaced twice a second. To those that are undisturbed \
                 nothing happens in the same rounds: their worst answer is the machine's doing."
            }
            Scenario::Kill => {
                "64 connections, 64 B TCP echo, `kill -9` of the worker twice a second. An error is an answer \
                 that has not come within a second. To those that are undisturbed nothing happens in the same \
                 rounds: their worst answer is the machine's doing."
            }
            Scenario::TlsHandshakes => {
                "Connections that do a full handshake (ECDSA P-256) and leave."
            }
            Scenario::TlsEcho => "64 connections, 64 B, one message under way on each.",
        }
    }

    pub(crate) fn metric(self) -> Metric {
        let cpu = Metric {
            title: "server CPU a message",
            unit: "µs",
            pointer: "/server/cpu_us_per_message",
            factor: 1.0,
            less: true,
        };
        match self {
            Scenario::Tcp | Scenario::Websocket | Scenario::TcpDepth16 | Scenario::TlsEcho => cpu,
            Scenario::Http | Scenario::HttpDepth16 => Metric {
                title: "server CPU a request",
                ..cpu
            },
            Scenario::TlsHandshakes => Metric {
                title: "server CPU a handshake",
                ..cpu
            },
            Scenario::Broadcast => Metric {
                title: "deliveries",
                unit: "/s",
                pointer: "/deliveries_per_s",
                less: false,
                ..cpu
            },
            Scenario::Tasks => Metric {
                title: "tasks",
                unit: "/s",
                pointer: "/messages_per_s",
                less: false,
                ..cpu
            },
            Scenario::Idle => Metric {
                title: "memory a connection",
                unit: "B",
                pointer: "/bytes_per_connection",
                ..cpu
            },
            Scenario::Reload | Scenario::Kill => Metric {
                title: "worst answer",
                unit: "ms",
                pointer: "/latency_us/max",
                factor: 0.001,
                ..cpu
            },
        }
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Scenario::TlsHandshakes | Scenario::TlsEcho)
    }

    pub(crate) fn disturbance(self) -> Option<Disturbance> {
        match self {
            Scenario::Reload => Some(Disturbance::Reload),
            Scenario::Kill => Some(Disturbance::KillWorker),
            _ => None,
        }
    }
}

impl Metric {
    /// The figure in a report of the generator.
    pub(crate) fn of(&self, report: &Value) -> Option<f64> {
        Some(report.pointer(self.pointer)?.as_f64()? * self.factor)
    }
}
