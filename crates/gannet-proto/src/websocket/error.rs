//! What can be wrong with the frames of a peer.

use super::close::CloseCode;

/// The peer broke RFC 6455, or a limit: answer with a close frame that carries
/// [`code`](Self::code), then close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Section 5.2: a bit is set that no negotiated extension has given a meaning in this frame.
    #[error("reserved bit set in a frame header: no negotiated extension uses it there")]
    ReservedBits,
    /// Section 5.2: opcodes 3-7 and 11-15 have no meaning.
    #[error("frame with the reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    /// Section 5.1: a client masks every frame.
    #[error("frame from a client is not masked")]
    Unmasked,
    /// Section 5.1: a server masks no frame.
    #[error("frame from a server is masked")]
    Masked,
    /// Section 5.5: control frames are never fragmented.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// Section 5.5: control frames carry at most 125 bytes.
    #[error("control frame with more than 125 bytes of payload")]
    LargeControl,
    /// Section 5.2: the most significant bit of a 64-bit length is 0.
    #[error("frame length with its highest bit set")]
    LengthHighBit,
    /// Section 5.2: a length takes the shortest form that can hold it.
    #[error("frame length not written in its shortest form")]
    LongLength,
    /// Section 5.4: a continuation follows a message that was begun.
    #[error("continuation frame without a message to continue")]
    UnexpectedContinuation,
    /// Section 5.4: a message ends before the next one begins.
    #[error("new message begun inside a fragmented message")]
    UnfinishedMessage,
    /// The message is larger than [`Limits::max_message_size`](super::Limits).
    #[error("message larger than {limit} bytes: send smaller messages")]
    MessageTooBig {
        /// The limit in bytes.
        limit: u32,
    },
    /// The message has more frames than [`Limits::max_fragments`](super::Limits).
    #[error("message in more than {limit} frames: send larger fragments")]
    TooManyFragments {
        /// The limit.
        limit: u32,
    },
    /// RFC 7692 section 7.2.2: the payload of a compressed message is DEFLATE.
    #[error("compressed message that cannot be inflated")]
    InvalidCompression,
    /// Section 8.1: text is UTF-8.
    #[error("text message is not valid UTF-8")]
    InvalidText,
    /// Section 5.5.1: a close payload is empty or begins with a two-byte code.
    #[error("close frame with one byte of payload")]
    TruncatedCloseCode,
    /// Section 7.4: the code must not stand in a frame.
    #[error("close frame with the invalid code {0}")]
    InvalidCloseCode(u16),
    /// Section 5.5.1: the close reason is UTF-8.
    #[error("close reason is not valid UTF-8")]
    InvalidCloseReason,
}

impl ProtocolError {
    /// The close code to answer with: 1002, 1007, 1008 or 1009.
    pub const fn code(&self) -> CloseCode {
        match self {
            Self::InvalidText | Self::InvalidCloseReason | Self::InvalidCompression => {
                CloseCode::INVALID_DATA
            }
            Self::TooManyFragments { .. } => CloseCode::POLICY,
            Self::MessageTooBig { .. } => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}
