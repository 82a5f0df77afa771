//! What can be wrong with a PROXY header.

use super::{MAX_LENGTH, MAX_LINE};

/// The connection does not begin with a PROXY header as it should be: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It begins with something else.
    #[error("no PROXY header: the first bytes are something else")]
    Missing,
    /// The line of version 1 does not end where it has to.
    #[error("PROXY line without CRLF in its first {MAX_LINE} bytes")]
    LineEnd,
    /// The line of version 1 does not name one of the protocols.
    #[error("PROXY line with a protocol that is neither TCP4, TCP6 nor UNKNOWN")]
    LineProtocol,
    /// The line of version 1 has too few or too many words.
    #[error("PROXY line without exactly two addresses and two ports, one space apart")]
    LineWords,
    /// An address of version 1 is none of its family.
    #[error("PROXY line with an address that is none of its protocol")]
    LineAddress,
    /// A port of version 1 is none.
    #[error("PROXY line with a port that is no number from 0 to 65535 in its shortest form")]
    LinePort,
    /// Another version than 2 behind the signature of version 2.
    #[error("PROXY header of version {0}, not 2")]
    Version(u8),
    /// A command that version 2 has not.
    #[error("PROXY header with the unknown command {0}")]
    Command(u8),
    /// A family or transport that version 2 has not.
    #[error("PROXY header with the unknown address family and transport {0:#04x}")]
    Family(u8),
    /// The header is longer than is taken.
    #[error("PROXY header of {0} bytes, more than {MAX_LENGTH}")]
    TooLong(usize),
    /// The header ends before its addresses do.
    #[error("PROXY header too short for its addresses")]
    TooShort,
    /// The extensions behind the addresses do not fill the header exactly.
    #[error("PROXY header with an extension (TLV) that is cut off")]
    Extension,
    /// The checksum is malformed, given twice, or another than that of the header.
    #[error("PROXY header with a wrong checksum (CRC-32C)")]
    Checksum,
}
