//! Gannet, a network server engine whose connections outlive the code that serves them.
//!
//! A server is several processes of one program: a *master* owns every socket, *workers* run your
//! code, *task workers* run what is long or blocks, and a *manager* watches over all. What a client
//! sent stays with the master until a handler has ended. So a worker may crash, hang, be killed, or
//! be replaced by a new build of the program: no connection drops, and its successor gets what was
//! not finished.
//!
//! # Example
//!
//! ```no_run
//! use gannet::{Bytes, Conn, Handler, Result, Server, Worker};
//!
//! /// Sends every message back to whoever sent it.
//! struct Echo;
//!
//! impl Handler for Echo {
//!     async fn start(_worker: &Worker) -> Result<Self> {
//!         Ok(Echo)
//!     }
//!
//!     async fn receive(&self, conn: Conn, data: Bytes) -> Result {
//!         conn.send(data).await
//!     }
//! }
//!
//! fn main() -> Result {
//!     Server::tcp("127.0.0.1:9501").workers(2).run::<Echo>()
//! }
//! ```
//!
//! That is a whole program, with `start`, `stop`, `reload`, `status`, `top`, `clients` and more on its
//! command line. `docs/guide.md` teaches how to write servers, `docs/operations.md` how to run them.
//!
//! # Main types
//!
//! - [`Handler`]: what you implement; one method for each kind of event.
//! - [`Server`]: what `main` puts together and runs. [`Settings`] and [`Listener`] have every setting
//!   with its default and what it costs; [`Framing`] cuts raw TCP into messages.
//! - [`Conn`]: a connection: send, close, subscribe, bind. Its [`ConnId`] is never used again.
//! - [`Worker`]: the process that the handler runs in: publish, tasks, all connections.
//! - HTTP: [`Request`], [`Response`], [`Body`]; [`serve_service`] for an axum router. WebSocket:
//!   [`Handshake`], [`Accept`], [`Message`].
//! - Datagrams: [`PacketSource`] answers, [`PacketAddress`] is for later. [`Peer`]: who a client is.
//! - [`Task`], [`TaskOptions`], [`TaskError`]: work for task workers.
//! - [`Counter`], [`Lock`], [`Table`]: memory that all processes share, found by name. The rows of a
//!   table are structs with `#[derive(Row)]`; the rest of it is in [`table`].
//! - [`Timer`], [`TimerOptions`]: what is to be done later, or again and again.
//! - [`Process`], [`ProcessOptions`]: processes of the server's own. [`Pool`], [`Child`]: processes
//!   without a server.
//! - [`control`]: steering a running server from another program. [`cli`]: the command line of servers.
//!
//! # Features
//!
//! | feature | what |
//! |---|---|
//! | `opentelemetry` | a span for each event that a handler handles, sent to an OpenTelemetry collector: `docs/tracing.md`. Off by default: without it nothing of it is built. |
//!
//! # Layout
//!
//! | module | idea |
//! |---|---|
//! | `server`, `cli` | the program: settings from all sides, the command line, the role of a process |
//! | `manager` | the process that supervises; `manager/places` decides, without I/O |
//! | `master` | the process that owns the sockets: reactors, ledger, topics, task queue |
//! | `worker` | the process that runs the handler, or a user process |
//! | `thread` | the same as threads of one process |
//! | `process` | what is said of a user process, and what its function has |
//! | `pool` | child processes without a server |
//! | `bootstrap`, `channel` | what the manager tells a process at its start, and later |
//! | `wire`, `layout`, `conn_table` | what reactors and workers tell each other in shared memory |
//! | `handler`, `conn`, `packet`, `message`, `body`, `task` and others | what handlers see |
//! | `objects` | counters, locks and tables by name |
//! | `table` | tables, and the derive of their rows |
//! | `tls` | certificates, and what is known of a connection's TLS |
//! | `settings`, `control`, `logging` | settings, control socket, log |
//! | `check` | whether the settings and the machine are fit for a start |
//! | `daemon` | servers in the background |
//! | `traces` | spans of events, sent to a collector |
//! | `account`, `affinity` | which user the server runs as, which processors reactors and workers run on |
//! | `backoff`, `lines` | delays between tries; cutting output into lines |
//! | `sys`, `inherit`, `watch` | system calls that have no safe interface elsewhere |
//!
//! `docs/internals/` says what cannot be seen in one file.
#![deny(unsafe_code)]

pub use bytes::Bytes;
pub use gannet_shm::{Counter, Lock, LockGuard};
pub use http;

pub use crate::{
    body::{Body, BodyError, BodySender, Request, Response, extend_request, serve_service},
    close::CloseReason,
    conn::{Conn, ConnInfo},
    error::{Error, Result},
    handler::Handler,
    id::{ConnId, TaskId, WorkerId},
    message::{Accept, Handshake, Message},
    objects::{ObjectKind, Shared, SharedError},
    packet::{PacketAddress, PacketSource},
    peer::{Credentials, Peer, ViaProxy},
    pool::{Child, Pool, PoolEvent, PoolOptions, PoolSender},
    process::{Output, Process, ProcessMessage, ProcessOptions, Restart},
    send::SendError,
    server::{DispatchFn, DispatchRequest, Server},
    settings::{
        CaptureOutput, CertificateFiles, ClientAuth, Dispatch, Forwarded, Listener, LogFormat,
        LogRotation, Mode, Protocol, ProxyProtocol, Settings, Tls, TlsVersion, framing::Framing,
    },
    table::{Bin, Record, Row, Rows, Schema, Str, Table, TableError},
    task::{Task, TaskError, TaskOptions},
    text::Text,
    tls::{PeerCertificate, TlsInfo},
    worker::{Missed, Timer, TimerOptions, Worker},
    worker_error::{WorkerError, WorkerTrouble},
};

mod account;
mod admission;
mod affinity;
mod backoff;
mod body;
mod bootstrap;
mod channel;
mod check;
mod claim;
pub mod cli;
mod close;
mod conn;
mod conn_table;
pub mod control;
mod daemon;
mod direct;
mod error;
mod handler;
mod histogram;
mod id;
mod inherit;
mod layout;
mod lines;
mod logging;
mod manager;
mod master;
mod message;
mod objects;
mod packet;
mod peer;
mod pool;
mod process;
mod send;
mod server;
mod settings;
mod sys;
pub mod table;
mod task;
mod text;
mod thread;
mod tls;
#[cfg(feature = "opentelemetry")]
mod traces;
#[cfg(not(feature = "opentelemetry"))]
#[path = "traces/off.rs"]
mod traces;
mod watch;
mod wire;
mod worker;
mod worker_error;

#[doc(hidden)]
pub use crate::master::counts;

/// How a TCP listener cuts its stream into messages.
pub mod framing {
    pub use gannet_proto::tcp::{Cut, EncodeError, LengthPrefix, Width};

    pub use crate::settings::framing::{CustomFraming, Framing};
}

/// The code in the documents is compiled.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    struct Readme;

    #[doc = include_str!("../../../docs/guide.md")]
    struct Guide;

    #[doc = include_str!("../../../docs/metrics.md")]
    struct Metrics;

    #[doc = include_str!("../../../docs/tracing.md")]
    struct Tracing;

    #[doc = include_str!("../../../docs/table.md")]
    struct Tables;
    #[doc = include_str!("../../../docs/shared-memory.md")]
    struct SharedMemory;

    #[doc = include_str!("../../../docs/timers.md")]
    struct Timers;

    #[doc = include_str!("../../../docs/processes.md")]
    struct Processes;

    #[doc = include_str!("../../../docs/tls.md")]
    struct Tls;
}
