//! HTTP/1.1 and HTTP/1.0 for a server, RFC 9110 and RFC 9112: requests in, responses out.
//!
//! - [`Decoder`] turns the bytes of a connection into [`Event`]s, request after request;
//! - [`encode_response_head`], [`encode_chunk`] and [`encode_last_chunk`] append a
//!   response to an output buffer, [`encode_error`] a whole error response;
//! - [`date`] formats the `Date` header.
//!
//! # Strict
//!
//! Request smuggling lives on two parsers that read one request differently. This one
//! refuses whatever two parsers could read differently, also where RFC 9112 would let a
//! server be lenient, and closes the connection. Stricter than the RFC asks for are:
//!
//! - a `Content-Length` that is repeated, even with the same value;
//! - white space between a chunk size and its extension;
//! - an empty `Host`, and a `Host` other than the authority of an absolute target;
//! - host names with characters beyond letters, digits, `-._~` and percent-encodings;
//! - more than one empty line before a request line;
//! - bare CR and bare LF, anywhere.
//!
//! # Layout
//!
//! | file | idea |
//! |---|---|
//! | `limits`, `error`, `status` | what is allowed, what went wrong, what a status is called |
//! | `scan` | finds line ends, wherever the input was cut |
//! | `bytes` | what a byte may be a part of |
//! | `headers` | a checked header section, iterated in place |
//! | `target` | the four forms of a request target, and `Host` |
//! | `head` | request line and headers to [`RequestHead`] |
//! | `plain` | the same in one pass, for heads of the usual form |
//! | `body` | how a body is framed |
//! | `chunked` | chunk sizes, extensions and data |
//! | `decode` | the states of a connection |
//! | `encode`, `date` | responses |

mod body;
mod bytes;
mod chunked;
pub mod date;
mod decode;
mod encode;
mod error;
mod head;
mod headers;
mod limits;
mod plain;
mod scan;
mod status;
mod target;

pub use self::{
    body::BodyLength,
    decode::{Decoded, Decoder, Event},
    encode::{
        Asked, CONTINUE, Date, Framing, ResponseHead, encode_chunk, encode_error,
        encode_last_chunk, encode_response_head, encode_usual, is_engine_header,
    },
    error::RequestError,
    head::{RequestHead, Version},
    headers::{Headers, HeadersIter, Line, has_token, is_token, split_line},
    limits::Limits,
    plain::PlainHead,
    status::reason_phrase,
};
pub(crate) use self::{
    headers::is_trailer,
    target::{is_host, same_authority, target_fault},
};
