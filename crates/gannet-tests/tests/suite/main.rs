//! Black-box tests: every one starts real processes, speaks to them over sockets and sends real
//! signals. A test's name states the rule that it checks.
//!
//! Soaks are short unless `GANNET_SOAK=1` is set. What needs the whole machine takes [`heavy`].
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod administer;
mod bad_input;
mod bounds;
mod change_code;
mod check;
mod compression;
mod conformance;
mod conformance_large;
mod connection;
mod control;
mod control_socket;
mod crash;
mod daemon;
mod dispatch;
mod failure;
mod framing;
mod handshake;
mod hostile;
mod http;
mod http2;
mod http2_answers;
mod http2_frames;
mod http2_hostile;
mod http2_life;
mod http2_programs;
mod http2_websocket;
mod http2_websocket_frames;
mod http_table;
mod idle;
mod limits;
mod logs;
mod machine;
mod master;
mod metrics;
mod metrics_http;
mod news;
mod notify;
mod packets;
mod pipelining;
mod pool;
mod processes;
mod proxy;
mod proxy_nginx;
mod proxy_tls;
mod redelivery;
mod reload;
mod shared;
mod slow_readers;
mod sockets;
mod status;
mod steer;
mod stop;
mod tasks;
mod threads;
mod timers;
mod tls;
mod tls_clients;
mod tls_layers;
mod tls_load;
mod top;
mod topics;
mod users;
mod watch;
mod websocket;
mod worker_errors;

use std::fs::File;

use gannet_tests::server::Spec;
use rustix::fs::{FlockOperation, flock};

/// A server of the program that does what messages tell it.
fn behave() -> Spec {
    Spec::new(env!("CARGO_BIN_EXE_behave"))
}

/// Held by tests that need the machine for themselves, in whatever process they run.
#[must_use]
fn heavy() -> File {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("heavy.lock");
    let lock = File::create(path).expect("the lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("the lock");
    lock
}
