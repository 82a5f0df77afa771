//! HTTP/2 for a server, RFC 9113: what a library for frames, HPACK and flow control leaves to its user.
//!
//! - [`request_head`] judges a request as strictly as [`http1`](crate::http1) does, and turns it into
//!   the same [`RequestHead`](crate::http1::RequestHead);
//! - [`trailers`] does so with trailers;
//! - [`Scan`] sees the frames of a client pass by, so that they can be counted.

mod request;
mod scan;

pub use self::{
    request::{Fault, Pseudo, request_head, trailers},
    scan::{Frame, Kind, PREFACE, Scan},
};
