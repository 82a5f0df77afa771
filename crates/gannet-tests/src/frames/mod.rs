//! A scripted HTTP/2 client: it sends any frames, right or wrong, and is strict with what comes back.
//!
//! - [`frame`] makes frames, malformed ones too.
//! - [`hpack`] makes field blocks, and reads the server's.
//! - [`RawHttp2`] is a connection. Every frame of the server is checked against what the standard lets a
//!   server send: states of streams, windows, sizes, field blocks, headers.
//! - [`row`] plays rows of a table: what is sent, and the outcomes that are allowed.
//!
//! TLS is carried by a tunnel: see [`crate::tls::Client::tunnel`].

mod answer;
mod client;
pub mod frame;
pub mod hpack;
pub mod row;

pub use answer::Response;
pub use client::{Event, RawHttp2};
