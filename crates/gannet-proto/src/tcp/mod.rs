//! Framing of raw TCP: where one message of a byte stream ends and the next begins.
//!
//! - [`Framing`] is the rule: an end [`Marker`], a [`LengthPrefix`], or a function
//!   ([`Custom`]);
//! - [`Decoder`] turns bytes into whole messages by it;
//! - [`Framing::encode`] is the other direction: what a decoder with the same framing gives
//!   back is what was encoded.
//!
//! Every limit is kept while bytes arrive, and what a connection may make the decoder hold is
//! one message at most.
//!
//! Layout: `marker`, `length` and `custom` are a rule each; `framing` is one of them;
//! `decode` keeps what is incomplete.

mod custom;
mod decode;
mod error;
mod framing;
mod length;
mod marker;

pub use self::{
    custom::{Custom, Cut},
    decode::{Decoded, Decoder},
    error::{EncodeError, FrameError, FramingError},
    framing::Framing,
    length::{LengthPrefix, MAX_HEADER, Width},
    marker::{MAX_MARKER, Marker},
};
