//! What can be wrong with a framing, with what a peer sends by it, and with what is to be sent.

use super::{length::MAX_HEADER, marker::MAX_MARKER};

/// A framing that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The end marker is empty or too long.
    #[error("an end marker has 1 to {MAX_MARKER} bytes, this one has {0}")]
    MarkerLength(usize),
    /// The length field does not lie in the header.
    #[error(
        "a header of {header_size} bytes ends before its length field does, which takes \
         {width} bytes from offset {offset}"
    )]
    FieldOutsideHeader {
        /// Bytes of the header.
        header_size: usize,
        /// Where the field begins.
        offset: usize,
        /// Bytes of the field.
        width: usize,
    },
    /// The header is too long.
    #[error("a header has at most {MAX_HEADER} bytes, this one has {0}")]
    LargeHeader(usize),
    /// A varint says itself how long it is.
    #[error("the header ends with its varint: leave the header size away")]
    VarintHeaderSize,
    /// A varint has one byte order.
    #[error("a varint has no byte order of its own: leave it away")]
    VarintByteOrder,
}

/// The peer broke the framing or a limit: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The message is larger than the decoder was told to take.
    #[error("message larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u32,
    },
    /// The length counts the header and is smaller than it.
    #[error("length field says {length}, less than the header of {header} bytes that it counts")]
    ShortLength {
        /// What the field says.
        length: u64,
        /// Bytes of the header.
        header: usize,
    },
    /// A varint over 64 bits.
    #[error("varint with more than 64 bits")]
    LargeVarint,
    /// A varint with needless bytes: the same number would have several forms.
    #[error("varint not written in its shortest form")]
    LongVarint,
    /// The function of a custom framing refuses the input.
    #[error("{0}")]
    Refused(&'static str),
    /// The function of a custom framing gave a cut that is none.
    #[error("the framing function cut outside its input")]
    BadCut,
    /// The function of a custom framing panicked.
    #[error("the framing function panicked")]
    Panicked,
}

/// What cannot be sent by this framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The receiver would see the end too early.
    #[error("the message has the end marker in it: the receiver would take it for the end")]
    ContainsMarker,
    /// The length does not fit the length field.
    #[error("a message of {len} bytes is too long for its length field")]
    TooLong {
        /// Bytes of the message.
        len: usize,
    },
    /// The framing keeps the header in the message, and the message is shorter than it.
    #[error("the message must begin with its header, and is shorter than one")]
    NoHeader,
    /// A custom framing without an encoder.
    #[error("the custom framing has no encoder: give it one, or send the bytes as they are")]
    NoEncoder,
    /// The encoder of a custom framing refuses the message.
    #[error("{0}")]
    Refused(&'static str),
}
