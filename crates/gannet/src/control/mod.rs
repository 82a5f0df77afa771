//! Steering a running server from another process, through the socket beside its pid file.
//!
//! The command line of [`Server::run`](crate::Server::run) is made with this; programs that have a
//! command line of their own use it themselves:
//!
//! ```no_run
//! # fn main() -> gannet::Result {
//! let mut client = gannet::control::Client::connect("/run/echo.pid")?;
//! client.reload(false)?;
//! println!("{}", client.status()?);
//! # Ok(())
//! # }
//! ```
//!
//! The protocol is one line of JSON for a request and one for its reply, with lines that tell of
//! events before it if they are wanted; see `docs/internals/control.md`.

mod audience;
mod client;
mod reload;
mod setting;
mod shared;
mod show;
mod status;
mod table;

use serde::{Deserialize, Serialize};

pub use self::{
    audience::{Filter, Payload},
    client::{Client, ControlError, ReloadOptions},
    reload::{
        LastReload, ReloadCause, ReloadEvent, ReloadOutcome, Reloaded, ReloadedWorker,
        ReloadingWorker,
    },
    setting::{Setting, SettingSource, SettingTable},
    shared::{CounterStatus, LockStatus, SharedStatus, TableStatus},
    show::ClientTable,
    status::{
        ClientRow, ListenerStatus, Rates, Role, Status, Totals, Usage, WorkerState, WorkerStatus,
    },
};

pub(crate) use self::{
    audience::{Count, Data, MAX_DATA, from_hex},
    show::{ProcessRow, ProcessTable, age},
};

/// Version of the protocol; it stands in each reply.
pub(crate) const VERSION: u32 = 1;

/// A request, as it stands on its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cmd", deny_unknown_fields)]
pub(crate) enum Request {
    Status {
        /// With the memory of each process as `pss`, which takes the kernel a while to count.
        #[serde(default)]
        pss: bool,
    },
    /// Rows of the connection table, from row `from` on, at most `limit`.
    Clients {
        #[serde(default)]
        from: usize,
        #[serde(default = "default_limit")]
        limit: usize,
        #[serde(default)]
        only: Filter,
    },
    /// Answered when the reload has ended; with `progress` events come before.
    Reload {
        #[serde(default)]
        tasks_only: bool,
        #[serde(default)]
        progress: bool,
    },
    /// Answered at once; the connection is closed when the server has stopped.
    Stop {},
    /// The settings in force, and where they come from.
    Settings {},
    /// Closes connections, WebSockets with this code and reason.
    Kick {
        to: Filter,
        #[serde(default)]
        code: Option<u16>,
        #[serde(default)]
        reason: Option<String>,
    },
    /// Sends a message to connections.
    Send { to: Filter, data: Data },
    /// Sends a message to the subscribers of a topic.
    Publish { topic: String, data: Data },
}

/// A reply, as it stands on its line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply<T> {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) result: ReplyResult<T>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplyResult<T> {
    Ok(T),
    Error(Refusal),
    /// Not the reply yet.
    Event(ReloadEvent),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// A piece of the connection table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientPage {
    pub(crate) clients: Vec<ClientRow>,
    /// `from` of the next page; `None` after the last.
    pub(crate) next: Option<usize>,
}

impl<T> Reply<T> {
    pub(crate) fn ok(value: T) -> Self {
        Reply {
            version: VERSION,
            result: ReplyResult::Ok(value),
        }
    }
}

impl Reply<()> {
    pub(crate) fn event(event: ReloadEvent) -> Self {
        Reply {
            version: VERSION,
            result: ReplyResult::Event(event),
        }
    }

    pub(crate) fn error(code: &str, message: impl std::fmt::Display) -> Self {
        let refusal = Refusal {
            code: code.to_owned(),
            message: message.to_string(),
        };
        Reply {
            version: VERSION,
            result: ReplyResult::Error(refusal),
        }
    }
}

/// Where the socket of the server with this pid file is.
pub(crate) fn socket_path(pid_file: &std::path::Path) -> std::path::PathBuf {
    let mut path = pid_file.as_os_str().to_owned();
    path.push(".sock");
    path.into()
}

fn default_limit() -> usize {
    1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnId;

    fn request(line: &str) -> Request {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn requests_are_one_object_with_defaults() {
        assert_eq!(
            request(r#"{"cmd":"status"}"#),
            Request::Status { pss: false }
        );
        assert_eq!(
            request(r#"{"cmd":"clients"}"#),
            Request::Clients {
                from: 0,
                limit: 1000,
                only: Filter::default(),
            }
        );
        assert_eq!(
            request(r#"{"cmd":"reload"}"#),
            Request::Reload {
                tasks_only: false,
                progress: false
            }
        );
        assert_eq!(
            request(r#"{"cmd":"kick","to":{"conn":7}}"#),
            Request::Kick {
                to: Filter::conn(ConnId::from_u64(7)),
                code: None,
                reason: None
            }
        );
        assert!(serde_json::from_str::<Request>(r#"{"cmd":"stop","now":true}"#).is_err());
    }

    #[test]
    fn replies_are_ok_or_error_with_a_version() {
        let line = serde_json::to_string(&Reply::ok(1)).unwrap();
        assert_eq!(line, r#"{"version":1,"ok":1}"#);
        let waits = serde_json::to_string(&Reply::event(ReloadEvent::Waits)).unwrap();
        assert_eq!(waits, r#"{"version":1,"event":{"reload":"waits"}}"#);
        let line = serde_json::to_string(&Reply::error("bad_request", "what?")).unwrap();
        assert_eq!(
            line,
            r#"{"version":1,"error":{"code":"bad_request","message":"what?"}}"#
        );
        let reply: Reply<u32> = serde_json::from_str(&line).unwrap();
        assert!(matches!(reply.result, ReplyResult::Error(refusal) if refusal.message == "what?"));
    }

    #[test]
    fn the_socket_is_beside_the_pid_file() {
        let path = socket_path(std::path::Path::new("/run/echo.pid"));
        assert_eq!(path, std::path::Path::new("/run/echo.pid.sock"));
    }
}
