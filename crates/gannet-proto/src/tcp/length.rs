//! Messages behind a header that says how long they are.

use super::{
    error::{EncodeError, FrameError, FramingError},
    framing::Found,
};

/// Every message has a header with a length field in it.
///
/// ```text
/// |<--------- header_size --------->|
/// | … offset … | length field | …   | payload … |
/// ```
///
/// The length is that of the payload, or, with `counts_header`, of header and payload. What is
/// given is the payload, or, with `keep_header`, both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LengthPrefix {
    /// How the length is written.
    pub width: Width,
    /// Whether its least significant byte comes first. Default: the most significant does.
    pub little_endian: bool,
    /// Bytes of the header in front of the length field. Default 0.
    pub offset: usize,
    /// Bytes of the header. Default 0: it ends with the length field. At most [`MAX_HEADER`].
    pub header_size: usize,
    /// Whether the length counts the header. Default false.
    pub counts_header: bool,
    /// Whether messages are given with their header. Default false.
    pub keep_header: bool,
}

/// How a length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Width {
    /// In one byte.
    One,
    /// In two bytes.
    Two,
    /// In four bytes.
    Four,
    /// In eight bytes.
    Eight,
    /// LEB128: seven bits a byte, the least significant first, the highest bit set in all but
    /// the last. Only the shortest form is accepted, and at most 64 bits.
    Varint,
}

/// A header that was read in full.
struct Header {
    len: usize,
    /// Bytes of header and payload.
    frame: u64,
}

impl LengthPrefix {
    /// A header that is nothing but the length of the payload, most significant byte first.
    pub const fn new(width: Width) -> Self {
        Self {
            width,
            little_endian: false,
            offset: 0,
            header_size: 0,
            counts_header: false,
            keep_header: false,
        }
    }

    /// [`LengthPrefix::new`] with one byte.
    pub const fn u8() -> Self {
        Self::new(Width::One)
    }

    /// [`LengthPrefix::new`] with two bytes.
    pub const fn u16() -> Self {
        Self::new(Width::Two)
    }

    /// [`LengthPrefix::new`] with four bytes.
    pub const fn u32() -> Self {
        Self::new(Width::Four)
    }

    /// [`LengthPrefix::new`] with eight bytes.
    pub const fn u64() -> Self {
        Self::new(Width::Eight)
    }

    /// [`LengthPrefix::new`] with a varint.
    pub const fn varint() -> Self {
        Self::new(Width::Varint)
    }

    /// The least significant byte of the length comes first.
    #[must_use]
    pub const fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    /// So many bytes of the header come before the length field.
    #[must_use]
    pub const fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// The header has so many bytes.
    #[must_use]
    pub const fn header_size(mut self, header_size: usize) -> Self {
        self.header_size = header_size;
        self
    }

    /// The length counts the header too.
    #[must_use]
    pub const fn counts_header(mut self) -> Self {
        self.counts_header = true;
        self
    }

    /// Messages are given with their header.
    #[must_use]
    pub const fn keep_header(mut self) -> Self {
        self.keep_header = true;
        self
    }

    pub(super) fn check(&self) -> Result<(), FramingError> {
        let Some(width) = self.width.bytes() else {
            return match self {
                _ if self.header_size != 0 => Err(FramingError::VarintHeaderSize),
                _ if self.little_endian => Err(FramingError::VarintByteOrder),
                _ if self.offset > MAX_HEADER - MAX_VARINT => {
                    Err(FramingError::LargeHeader(self.offset + MAX_VARINT))
                }
                _ => Ok(()),
            };
        };
        let field_end = self.offset.saturating_add(width);
        let header = match self.header_size {
            0 => field_end,
            size => size,
        };
        if header > MAX_HEADER {
            return Err(FramingError::LargeHeader(header));
        }
        if header < field_end {
            return Err(FramingError::FieldOutsideHeader {
                header_size: header,
                offset: self.offset,
                width,
            });
        }
        Ok(())
    }

    /// How many more bytes the header has at least, behind those that are here. They do not yet
    /// make a whole one.
    pub(super) fn header_lacks(&self, input: &[u8]) -> usize {
        let least = self.width.bytes().map_or(self.offset + 1, |width| {
            self.header_size.max(self.offset + width)
        });
        least.saturating_sub(input.len()).max(1)
    }

    /// Bytes of the frame at the front of `input`, if its header is there.
    pub(super) fn frame(&self, input: &[u8], max: u32) -> Result<Option<Found>, FrameError> {
        let Some(header) = self.header(input)? else {
            return Ok(None);
        };
        let start = if self.keep_header { 0 } else { header.len };
        if header.frame - start as u64 > u64::from(max) {
            return Err(FrameError::TooLarge { limit: max });
        }
        let used = header.frame as usize;
        Ok(Some(Found {
            used,
            message: start..used,
        }))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, message: &[u8]) -> Result<(), EncodeError> {
        let too_long = EncodeError::TooLong { len: message.len() };
        // What stands around the length field, and the payload.
        let (before, after, payload) = if self.keep_header {
            let header = self.header_end(message).ok_or(EncodeError::NoHeader)?;
            let (header, payload) = message.split_at(header);
            let field_end = match self.width.bytes() {
                Some(width) => self.offset + width,
                None => header.len(),
            };
            (&header[..self.offset], &header[field_end..], payload)
        } else {
            let after = match self.width.bytes() {
                Some(width) => self.header_size.saturating_sub(self.offset + width),
                None => 0,
            };
            let zeroes = &[0; MAX_HEADER];
            (&zeroes[..self.offset], &zeroes[..after], message)
        };
        let mut field = [0; MAX_VARINT];
        let mut width = self.width.bytes().unwrap_or(1);
        loop {
            let counted = match self.counts_header {
                true => before.len() + width + after.len(),
                false => 0,
            };
            let length = (payload.len() + counted) as u64;
            let written = match self.width.bytes() {
                Some(width) => write_number(&mut field, length, width, self.little_endian),
                None => Some(write_varint(&mut field, length)),
            };
            let written = written.ok_or(too_long)?;
            // A varint that counts itself may have become longer by that.
            if written == width {
                break;
            }
            width = written;
        }
        for part in [before, &field[..width], after, payload] {
            out.extend_from_slice(part);
        }
        Ok(())
    }

    fn header(&self, input: &[u8]) -> Result<Option<Header>, FrameError> {
        let Some(field) = input.get(self.offset..) else {
            return Ok(None);
        };
        let (length, len) = match self.width.bytes() {
            Some(width) => {
                let len = self.header_size.max(self.offset + width);
                if input.len() < len {
                    return Ok(None);
                }
                (read_number(&field[..width], self.little_endian), len)
            }
            None => match read_varint(field)? {
                Some((length, width)) => (length, self.offset + width),
                None => return Ok(None),
            },
        };
        let frame = match self.counts_header {
            false => length.saturating_add(len as u64),
            true if length < len as u64 => {
                return Err(FrameError::ShortLength {
                    length,
                    header: len,
                });
            }
            true => length,
        };
        Ok(Some(Header { len, frame }))
    }

    /// Where the header of a message ends that has one, whatever length it says.
    fn header_end(&self, message: &[u8]) -> Option<usize> {
        let end = match self.width.bytes() {
            Some(width) => self.header_size.max(self.offset + width),
            None => {
                let field = message.get(self.offset..)?;
                let (_, width) = read_varint(field).ok()??;
                self.offset + width
            }
        };
        (end <= message.len()).then_some(end)
    }
}

impl Width {
    /// Bytes of the field; `None`: that depends.
    fn bytes(self) -> Option<usize> {
        match self {
            Width::One => Some(1),
            Width::Two => Some(2),
            Width::Four => Some(4),
            Width::Eight => Some(8),
            Width::Varint => None,
        }
    }
}

fn read_number(field: &[u8], little_endian: bool) -> u64 {
    let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    match little_endian {
        true => field.iter().rev().fold(0, join),
        false => field.iter().fold(0, join),
    }
}

/// `None`: the number does not fit.
fn write_number(
    field: &mut [u8; MAX_VARINT],
    number: u64,
    width: usize,
    little: bool,
) -> Option<usize> {
    let bytes = number.to_be_bytes();
    let (zeroes, digits) = bytes.split_at(bytes.len() - width);
    field[..width].copy_from_slice(digits);
    if little {
        field[..width].reverse();
    }
    zeroes.iter().all(|&byte| byte == 0).then_some(width)
}

/// The number and how many bytes it takes.
fn read_varint(field: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let mut number = 0;
    for (index, &byte) in field.iter().take(MAX_VARINT).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if index == MAX_VARINT - 1 && byte > 1 {
            return Err(FrameError::LargeVarint);
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return match (byte, index) {
                (0, 1..) => Err(FrameError::LongVarint),
                _ => Ok(Some((number, index + 1))),
            };
        }
    }
    Ok(None)
}

fn write_varint(field: &mut [u8; MAX_VARINT], mut number: u64) -> usize {
    let mut len = 0;
    while number >= 0x80 {
        field[len] = number as u8 | 0x80;
        number >>= 7;
        len += 1;
    }
    field[len] = number as u8;
    len + 1
}

/// Longest header, in bytes.
pub const MAX_HEADER: usize = 1024;
/// Longest varint, in bytes.
const MAX_VARINT: usize = 10;
