//! The protocols of the Gannet server as pure state machines: bytes in, events out.
//!
//! Nothing here reads a socket, a clock or a random number, and nothing starts a thread:
//! the caller brings bytes and takes bytes. The same code so serves every reactor, every
//! test and every fuzz target.
//!
//! # How a decoder is driven
//!
//! [`http1::Decoder`], [`websocket::Decoder`] and [`tcp::Decoder`] take events from the front of an input
//! slice, so that many connections can share one read buffer:
//!
//! 1. Call `decode` with all bytes that are there.
//! 2. It says how many bytes it `used` and gives at most one event, which borrows from
//!    the input where it can. Call it again with the rest.
//! 3. No event means that more bytes are needed: keep the unused rest and present it
//!    again, in front of what arrives next.
//!
//! How the bytes were cut into reads never changes what they mean. An error is final: the
//! decoder repeats it for whatever comes.
//!
//! ```
//! use gannet_proto::http1::{Decoder, Event, Limits};
//!
//! let mut input = *b"GET /hello HTTP/1.1\r\nHost: example.com\r\n\r\n";
//! let mut decoder = Decoder::new(Limits::default());
//!
//! let head = decoder.decode(&mut input)?;
//! assert!(matches!(head.event, Some(Event::Head(head)) if head.target == "/hello"));
//! let used = head.used;
//!
//! let end = decoder.decode(&mut input[used..])?;
//! assert!(matches!(end.event, Some(Event::End { .. })));
//! assert!(decoder.is_idle());
//! # Ok::<(), gannet_proto::http1::RequestError>(())
//! ```
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`http1`] | requests in (RFC 9112, strictly), responses out |
//! | [`http2`] | requests judged, frames counted (RFC 9113): the rest is the library's |
//! | [`websocket`] | handshake, frames in, frames out (RFC 6455) |
//! | [`proxy`] | who a client behind a proxy is: PROXY protocol, `X-Forwarded-For`, `Forwarded` |
//! | [`tcp`] | messages in a raw byte stream: by end marker, length prefix or function |
#![forbid(unsafe_code)]

pub mod http1;
pub mod http2;
pub mod proxy;
pub mod tcp;
pub mod websocket;
