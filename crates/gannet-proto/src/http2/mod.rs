//! HTTP/2 for a server, RFC 9113: what a library for frames, HPACK and flow control leaves to its user.
//!
//! - [`request_head`] judges a request as strictly as [`http1`](crate::http1) does, and turns it into
//!   the same [`RequestHead`](crate::http1::RequestHead);
//! - [`trailers`] does so with trailers;
//! - [`Scan`] sees the frames of a client pass by, so that they can be counted, and
//! - [`Rules`] judges them where the library does not say what the standard demands.

mod hpack;
mod request;
mod rules;
mod scan;

pub use self::{
    hpack::Blocks,
    request::{Fault, Pseudo, request_head, trailers},
    rules::{Rules, Violation},
    scan::{Frame, Kind, PREFACE, Scan},
};
