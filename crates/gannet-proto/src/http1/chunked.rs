//! Chunked bodies (RFC 9112 section 7.1): sizes, extensions and data; not the trailers.

use std::ops::Range;

use super::{body::too_large, error::RequestError, limits::Limits};

/// Where in a chunked body the input stands. Every byte of framing is used as it
/// arrives, so none is looked at twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunked {
    phase: Phase,
    /// Bytes of the current chunk that are to come; its size while that is being read.
    left: u64,
    /// Bytes of data in the chunks before.
    total: u64,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Size { digits: u8 },
    Extension,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Size { digits: 0 }
    }
}

/// What stands after the bytes that were used.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing: more bytes are needed.
    NeedMore,
    /// The range of the input that is data.
    Data(Range<usize>),
    /// The last chunk has ended and the trailer section begins.
    Trailers,
}

impl Chunked {
    /// Goes forward to data, to the trailers or to the end of the input; says how many
    /// bytes it used.
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<(usize, Step), RequestError> {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            if let Phase::Data = self.phase {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                let end = used + left.min(input.len() - used);
                self.left -= (end - used) as u64;
                if self.left == 0 {
                    self.phase = Phase::DataCarriageReturn;
                }
                return Ok((end, Step::Data(used..end)));
            }
            used += 1;
            if self.framing_byte(byte, limits)? {
                return Ok((used, Step::Trailers));
            }
        }
        Ok((used, Step::NeedMore))
    }

    /// Takes one byte outside of data; says whether it was the end of the last chunk.
    fn framing_byte(&mut self, byte: u8, limits: &Limits) -> Result<bool, RequestError> {
        match (self.phase, byte) {
            (Phase::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(RequestError::bad("a chunk size has more than 16 digits"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = self.left << 4 | u64::from(digit);
                self.phase = Phase::Size { digits: digits + 1 };
            }
            (Phase::Size { digits: 0 }, _) => {
                return Err(RequestError::bad(
                    "a chunk does not begin with a hexadecimal size",
                ));
            }
            (Phase::Size { .. }, b';') => self.phase = Phase::Extension,
            (Phase::Size { .. } | Phase::Extension, b'\r') => {
                if self.left > limits.max_body_size.saturating_sub(self.total) {
                    return Err(too_large(limits.max_body_size));
                }
                self.phase = Phase::SizeLineFeed;
            }
            (Phase::Size { .. }, _) => {
                return Err(RequestError::bad(
                    "a chunk size is followed by something else than CR LF or an extension",
                ));
            }
            (Phase::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                if self.extensions > limits.max_chunk_extensions {
                    return Err(RequestError::bad("too many chunk extensions: send none"));
                }
            }
            (Phase::Extension, _) => {
                return Err(RequestError::bad(
                    "a chunk extension holds a control character",
                ));
            }
            (Phase::SizeLineFeed, b'\n') if self.left == 0 => return Ok(true),
            (Phase::SizeLineFeed, b'\n') => {
                self.total += self.left;
                self.phase = Phase::Data;
            }
            (Phase::DataCarriageReturn, b'\r') => self.phase = Phase::DataLineFeed,
            (Phase::DataLineFeed, b'\n') => self.phase = Phase::default(),
            (Phase::SizeLineFeed, _) => {
                return Err(RequestError::bad("a chunk size line holds CR without LF"));
            }
            (Phase::DataCarriageReturn | Phase::DataLineFeed | Phase::Data, _) => {
                return Err(RequestError::bad(
                    "the data of a chunk is not followed by CR LF",
                ));
            }
        }
        Ok(false)
    }
}

const MAX_SIZE_DIGITS: u8 = 16;
