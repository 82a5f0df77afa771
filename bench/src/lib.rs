//! A load generator for TCP, HTTP/1.1 and WebSocket servers: Gannet's and others.
//!
//! It is the command `gannet bench`, and a program of its own, `gannet-bench`, with the same command
//! line: [`Bench`]. `docs/bench.md` is the manual.
//!
//! What may import what, from the bottom:
//!
//! - `payload`, `protocol`: what is sent and what must come back. No I/O, no clock.
//! - `target`, `tls`, `transport`: sockets that do not block.
//! - `connection`, `driver`: one thread with an epoll and many connections; `plan` says what it is to do,
//!   `record` is what it has seen, `control` is how threads know of each other.
//! - `server`: what the server's processes use.
//! - `run`: threads and the window that is measured; `report`: what is told in the end.
//! - `command`: the command line, a file for each command.
#![forbid(unsafe_code)]

mod command;
mod connection;
mod control;
mod driver;
mod error;
mod payload;
mod plan;
mod protocol;
mod record;
mod report;
mod run;
mod server;
mod target;
mod tls;
mod transport;

pub use self::{
    command::Bench,
    error::Error,
    record::Faults,
    report::{ClientUse, Latency, More, OpenLoop, Report, ServerUse, WorstAnswer},
    server::Memory,
    target::Target,
    tls::TlsOptions,
};
