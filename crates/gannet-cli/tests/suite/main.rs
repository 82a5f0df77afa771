//! The real program, started as its users start it: on a free port, with a data directory of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may fail like this"
)]

mod kit;

mod bench;
mod cert;
mod chat;
mod compression;
mod push;
mod start;
mod survive;
