//! The kit of the black-box tests: real processes, real sockets, real signals.
//!
//! - [`server`] starts a server program, asks for its status, reloads and stops it, and ends
//!   everything it started when the test ends, however that ends.
//! - [`process`] reads /proc: who runs, what they use.
//! - [`tcp`], [`udp`], [`http`], [`websocket`] are scripted clients. They are strict: an answer that breaks
//!   its protocol fails the test.
//! - [`frames`] is a client of HTTP/2 that sends any frames, right or wrong, and plays the rows of a table.
//! - [`deflate`] is what a client of [`websocket`] compresses with.
//! - [`script`] plays conversations frame by frame.
//! - [`tls`] makes certificates, and speaks TLS for the others.
//! - [`load`] sends numbered messages over many connections and checks every answer.
//! - [`gate`] keeps a handler until the test has looked.
//! - [`metrics`] reads the pages of the admin listener.
//! - [`wait`] waits for conditions, never for a time.
//! - [`behave`] is the handler of the test servers (`src/bin`), which does what messages tell it.
#![forbid(unsafe_code)]
// A test kit fails by panicking: that is how a test says what went wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod behave;
pub mod deflate;
pub mod frames;
pub mod gate;
pub mod http;
pub mod http2;
pub mod load;
pub mod metrics;
pub mod process;
pub mod script;
pub mod server;
pub mod tcp;
pub mod tls;
pub mod udp;
pub mod wait;
pub mod websocket;
