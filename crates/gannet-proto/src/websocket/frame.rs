//! Frame headers: 2 to 14 bytes that say what follows (RFC 6455 section 5.2).

use super::{encode::MessageKind, error::ProtocolError, mask::Mask};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of the message before it.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The end of the conversation.
    Close = 0x8,
    /// "Are you there?"
    Ping = 0x9,
    /// The answer to a ping.
    Pong = 0xA,
}

impl Opcode {
    /// Whether this is a close, ping or pong frame.
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    /// The kind of message that a frame with this opcode begins.
    pub(super) fn message_kind(self) -> Option<MessageKind> {
        match self {
            Self::Text => Some(MessageKind::Text),
            Self::Binary => Some(MessageKind::Binary),
            _ => None,
        }
    }

    fn from_bits(bits: u8) -> Result<Self, ProtocolError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            _ => Err(ProtocolError::ReservedOpcode(bits)),
        }
    }
}

/// Which end of the connection reads the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Reads masked frames only.
    Server,
    /// Reads unmasked frames only.
    Client,
}

/// The bit that RFC 7692 gives a meaning: the message is compressed.
pub(super) const RSV1: u8 = 0x40;

/// The largest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// A parsed frame header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// The frame begins a compressed message.
    pub(super) compressed: bool,
    pub(super) payload_len: u64,
    pub(super) mask: Mask,
    /// Bytes that the header itself takes.
    pub(super) len: usize,
}

impl Header {
    /// Reads a header from the front of `input`; `None` when more bytes are needed.
    ///
    /// Each byte is judged as soon as it is there, in order: the error never depends
    /// on how the input was cut.
    ///
    /// With `deflate` the first frame of a message may say that it is compressed.
    #[inline]
    pub(super) fn parse(
        input: &[u8],
        role: Role,
        deflate: bool,
    ) -> Result<Option<Self>, ProtocolError> {
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        let allowed = if deflate { RSV1 } else { 0 };
        if first & 0x70 & !allowed != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f)?;
        let compressed = first & RSV1 != 0;
        if compressed && opcode.message_kind().is_none() {
            return Err(ProtocolError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(ProtocolError::FragmentedControl);
        }

        let Some(&second) = input.get(1) else {
            return Ok(None);
        };
        let masked = second & 0x80 != 0;
        match role {
            Role::Server if !masked => return Err(ProtocolError::Unmasked),
            Role::Client if masked => return Err(ProtocolError::Masked),
            _ => {}
        }
        let short_len = second & 0x7f;
        if opcode.is_control() && usize::from(short_len) > MAX_CONTROL_PAYLOAD {
            return Err(ProtocolError::LargeControl);
        }

        let Some((payload_len, len_end)) = parse_length(input, short_len)? else {
            return Ok(None);
        };
        if !masked {
            let mask = Mask::new([0; 4]);
            return Ok(Some(Self {
                opcode,
                fin,
                compressed,
                payload_len,
                mask,
                len: len_end,
            }));
        }
        let Some(key) = input[len_end..].first_chunk::<4>() else {
            return Ok(None);
        };
        Ok(Some(Self {
            opcode,
            fin,
            compressed,
            payload_len,
            mask: Mask::new(*key),
            len: len_end + 4,
        }))
    }
}

/// The payload length and where its field ends.
#[inline]
fn parse_length(input: &[u8], short_len: u8) -> Result<Option<(u64, usize)>, ProtocolError> {
    let (len, end, smallest) = match short_len {
        126 => match input[2..].first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 4, 126),
            None => return Ok(None),
        },
        127 => match input[2..].first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 10, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), 2, 0),
    };
    if len >> 63 != 0 {
        return Err(ProtocolError::LengthHighBit);
    }
    if len < smallest {
        return Err(ProtocolError::LongLength);
    }
    Ok(Some((len, end)))
}
