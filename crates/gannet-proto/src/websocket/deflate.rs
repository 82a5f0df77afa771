//! The payload of compressed messages: DEFLATE without a header (RFC 7692 section 7.2).
//!
//! A message is compressed, flushed to a byte boundary, and sent without the four bytes that
//! such a flush ends with; who inflates it puts them back. Between two messages an end either
//! keeps its window ("context takeover") or begins anew.
//!
//! | what | heap memory | how long |
//! |---|---|---|
//! | [`Compressor`] | 250 KiB to 370 KiB, by window bits | as its owner likes: one serves any number of connections that do not keep their window |
//! | [`Inflater`] | 47 KiB, whatever the window | while a compressed message arrives; with takeover as long as the connection |

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use super::{
    encode::{FrameHeader, MessageKind},
    error::ProtocolError,
};

/// Compresses messages, one after another.
pub struct Compressor {
    deflate: Deflate,
    /// Payloads are compressed into this before their length is known.
    scratch: Vec<u8>,
    takeover: bool,
    /// What the window has is not to be referred to: it goes before the next message.
    stale: bool,
}

/// Inflates messages, one after another.
pub(super) struct Inflater {
    inflate: Inflate,
    /// Bytes of room that were filled with zeros.
    #[cfg(test)]
    zeroed: usize,
}

impl Compressor {
    /// A compressor with a window of 2 to the `window_bits` bytes.
    ///
    /// `level` is 1 (fast) to 9 (small), `window_bits` 9 to 15; what is outside counts as the
    /// nearest. With `takeover` a message may refer to those before it: the compressor then
    /// belongs to one connection, which must get every message that is encoded here.
    pub fn new(level: u8, window_bits: u8, takeover: bool) -> Self {
        let level = i32::from(level.clamp(1, 9));
        let window_bits = window_bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS);
        Self {
            deflate: Deflate::new(level, false, window_bits),
            scratch: Vec::new(),
            takeover,
            stale: false,
        }
    }

    /// Appends a whole message as one unmasked frame: compressed if that makes it smaller, as it
    /// is otherwise. Text must be UTF-8. Whether it was compressed.
    pub fn encode_message(&mut self, out: &mut Vec<u8>, kind: MessageKind, payload: &[u8]) -> bool {
        match self.compress(payload) {
            Some(compressed) => {
                let header = FrameHeader::new(kind.into(), true, compressed.len()).compressed();
                out.reserve(header.len() + compressed.len());
                out.extend_from_slice(&header);
                out.extend_from_slice(compressed);
                true
            }
            None => {
                super::encode::encode_message(out, kind, payload);
                false
            }
        }
    }

    /// The payload of a whole message, compressed; `None` if that does not make it smaller, and it
    /// has to be sent as it is.
    pub fn compress(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if self.scratch.capacity() > KEEP {
            self.scratch = Vec::new();
        }
        self.shrink(payload).then_some(&*self.scratch)
    }

    /// Forgets the messages before: to be called when the connection got one from elsewhere, for
    /// then the other end's window is no longer this one. It costs nothing before the next message.
    pub fn forget(&mut self) {
        self.stale = true;
    }

    /// Compresses into the scratch buffer; `false`: it does not become smaller.
    fn shrink(&mut self, mut payload: &[u8]) -> bool {
        let len = payload.len();
        if std::mem::replace(&mut self.stale, !self.takeover) {
            self.deflate.reset();
        }
        self.scratch.clear();
        loop {
            let start = self.scratch.len();
            // Four bytes go again. One more that stays free says that all has come out.
            if start > len + FLUSH.len() {
                break;
            }
            let room = (len / 2)
                .clamp(256, KEEP)
                .min(len + FLUSH.len() + 1 - start);
            self.scratch.resize(start + room, 0);
            let before = (self.deflate.total_in(), self.deflate.total_out());
            let room_left = &mut self.scratch[start..];
            let status = self
                .deflate
                .compress(payload, room_left, DeflateFlush::SyncFlush);
            let taken = (self.deflate.total_in() - before.0) as usize;
            let made = (self.deflate.total_out() - before.1) as usize;
            self.scratch.truncate(start + made);
            payload = &payload[taken..];
            if status.is_err() {
                break;
            }
            if made < room {
                if payload.is_empty() && self.scratch.ends_with(&FLUSH) {
                    let end = self.scratch.len() - FLUSH.len();
                    if end < len {
                        self.scratch.truncate(end);
                        return true;
                    }
                }
                break;
            }
        }
        // What was begun is in no window but ours.
        self.stale = true;
        false
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor")
            .field("takeover", &self.takeover)
            .finish_non_exhaustive()
    }
}

impl Inflater {
    pub(super) fn new() -> Self {
        // The largest window inflates what any smaller one has made, and costs the same.
        Self {
            inflate: Inflate::new(false, MAX_WINDOW_BITS),
            #[cfg(test)]
            zeroed: 0,
        }
    }

    /// Appends what `input` inflates to.
    ///
    /// `out` never has more than `limit` bytes of length or capacity, except what it had before:
    /// however much the input stands for, it is not inflated further than that.
    ///
    /// What comes out is taken off `budget`. When that is used up, the rest of the input is left: it
    /// comes again. Returns how much of it is done with.
    pub(super) fn inflate(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        limit: u32,
        budget: &mut usize,
    ) -> Result<usize, ProtocolError> {
        let (mut filled, mut left) = (out.len(), input);
        let result = self.fill(&mut left, out, &mut filled, limit, budget);
        out.truncate(filled);
        result.map(|()| input.len() - left.len())
    }

    /// Inflates behind the first `filled` bytes of `out`; what is behind those then is only room.
    fn fill(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        filled: &mut usize,
        limit: u32,
        budget: &mut usize,
    ) -> Result<(), ProtocolError> {
        let most = limit as usize;
        // Room is filled with zeros first: a byte of input must not cost as much as many do. So
        // there is little at first, more only when that is used up, and none is made twice.
        let mut step = (8 * input.len()).clamp(256, STEP);
        loop {
            if *filled == out.len() {
                if out.len() == out.capacity() && out.len() < most {
                    // Doubles as bytes come out, for the input says nothing about their number.
                    let start = out.len();
                    let wanted = (2 * start).max(start + (4 * input.len()).clamp(64, STEP));
                    out.reserve_exact(wanted.min(most) - start);
                }
                let room = out.capacity().min(most).saturating_sub(out.len());
                let room = room.min(step);
                out.resize(out.len() + room, 0);
                #[cfg(test)]
                {
                    self.zeroed += room;
                }
                step = (2 * step).min(STEP);
            }
            let mut probe = [0];
            let is_full = *filled == out.len();
            let output = match is_full {
                // The next byte is one too many, but the input may hold none.
                true => &mut probe[..],
                false => &mut out[*filled..],
            };
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let offered = output.len();
            let status = self
                .inflate
                .decompress(input, output, InflateFlush::SyncFlush);
            let taken = (self.inflate.total_in() - before.0) as usize;
            let made = (self.inflate.total_out() - before.1) as usize;
            if is_full && made > 0 {
                return Err(ProtocolError::MessageTooBig { limit });
            }
            *filled += made;
            *budget = budget.saturating_sub(made);
            *input = &input[taken..];
            match status {
                Ok(Status::StreamEnd) => {
                    // A last block inside a message (RFC 7692 section 7.2.3.4): blocks may follow.
                    self.inflate.reset(false);
                    if input.is_empty() {
                        return Ok(());
                    }
                }
                Ok(_) if made < offered && input.is_empty() => return Ok(()),
                Ok(_) if *budget == 0 && !input.is_empty() && made > 0 => return Ok(()),
                Ok(_) if made > 0 || taken > 0 => {}
                _ => return Err(ProtocolError::InvalidCompression),
            }
        }
    }

    /// Inflates the end of a message, which its sender has left out.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>, limit: u32) -> Result<(), ProtocolError> {
        let mut unlimited = usize::MAX;
        self.inflate(&FLUSH, out, limit, &mut unlimited).map(drop)
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

/// The smallest window, in bits, that a compressor can have. RFC 7692 knows 8 as well, which
/// DEFLATE libraries do not do without a zlib header.
pub const MIN_WINDOW_BITS: u8 = 9;
/// The largest window, in bits.
pub const MAX_WINDOW_BITS: u8 = 15;
/// What a flush ends with: an empty stored block.
const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];
/// Bytes inflated at a time.
const STEP: usize = 64 << 10;
/// A scratch buffer larger than this is not kept.
const KEEP: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const UNLIMITED: usize = usize::MAX;

    /// The bytes of RFC 7692 section 7.2.3, each with what it stands for.
    #[test]
    fn the_examples_of_rfc_7692() {
        let inflate = |inflater: &mut Inflater, bytes: &[u8]| {
            let mut out = Vec::new();
            inflater
                .inflate(bytes, &mut out, 100, &mut UNLIMITED.clone())
                .unwrap();
            inflater.finish(&mut out, 100).unwrap();
            out
        };
        let mut inflater = Inflater::new();
        let first = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&mut inflater, &first), b"Hello");
        // The second one refers to the first.
        let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(inflate(&mut inflater, &second), b"Hello");
        // No compression; a last block; two blocks; nothing.
        let others: [(&[u8], &[u8]); 4] = [
            (
                &[0x00, 5, 0, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
                b"Hello",
            ),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
            (
                &[
                    0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
                ],
                b"Hello",
            ),
            (&[0x00], b""),
        ];
        for (bytes, text) in others {
            assert_eq!(inflate(&mut Inflater::new(), bytes), text, "{bytes:x?}");
        }
    }

    #[test]
    fn inflating_stops_at_the_limit_however_small_the_input() {
        let zeros = miniz_oxide::deflate::compress_to_vec(&vec![0; 100_000], 9);
        for (limit, fits) in [(99_999, false), (100_000, true), (1, false), (0, false)] {
            let mut out = Vec::new();
            let result = Inflater::new().inflate(&zeros, &mut out, limit, &mut UNLIMITED.clone());
            assert_eq!(result.is_ok(), fits, "{limit}");
            assert!(out.capacity() <= limit as usize);
        }
    }

    #[test]
    fn room_is_made_once_however_many_blocks_come_to_nothing() {
        for block in [&[0x03, 0x00][..], &[0, 0, 0, 0xff, 0xff]] {
            let input = block.repeat(20_000);
            let (mut inflater, mut out) = (Inflater::new(), Vec::new());
            inflater
                .inflate(&input, &mut out, 2 << 20, &mut UNLIMITED.clone())
                .unwrap();
            assert!(out.is_empty());
            assert!(inflater.zeroed <= STEP, "{} bytes", inflater.zeroed);
        }
        let (mut inflater, mut out) = (Inflater::new(), Vec::new());
        let zeros = miniz_oxide::deflate::compress_to_vec(&vec![0; 1 << 20], 9);
        inflater
            .inflate(&zeros, &mut out, 2 << 20, &mut UNLIMITED.clone())
            .unwrap();
        assert_eq!(out.len(), 1 << 20);
        assert!(inflater.zeroed <= (1 << 20) + STEP);
    }

    #[test]
    fn what_does_not_shrink_is_sent_as_it_is() {
        let mut compressor = Compressor::new(6, 15, false);
        let mut noise: u32 = 1;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(2000)
        .collect();
        for payload in [&b""[..], b"a", b"ab", &random] {
            let (mut out, mut plain) = (Vec::new(), Vec::new());
            assert!(!compressor.encode_message(&mut out, MessageKind::Binary, payload));
            super::super::encode_message(&mut plain, MessageKind::Binary, payload);
            assert_eq!(out, plain);
        }
        assert!(compressor.encode_message(&mut Vec::new(), MessageKind::Binary, &[7; 2000]));
    }
}
