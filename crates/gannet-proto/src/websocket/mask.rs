//! Masking: the XOR that every client payload carries (RFC 6455 section 5.3).

/// The four bytes that a masked frame is XORed with.
///
/// The key remembers how far into the payload it is, so that a payload which
/// arrives in pieces is unmasked piece by piece with one `Mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask([u8; 4]);

impl Mask {
    /// The key as it stands in the frame header; all zeros mean "not masked".
    pub const fn new(key: [u8; 4]) -> Self {
        Self(key)
    }

    /// The key as it is after so many more bytes of the payload.
    #[must_use]
    #[inline]
    pub fn after(self, bytes: usize) -> Self {
        let turned = u32::from_le_bytes(self.0).rotate_right(8 * (bytes % 4) as u32);
        Self(turned.to_le_bytes())
    }

    /// Masks or unmasks the next bytes of the payload, in place.
    #[inline]
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let half = u64::from(u32::from_ne_bytes(self.0));
        let word = half << 32 | half;
        let apply = |words: &mut [[u8; 8]]| {
            for chunk in words {
                *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
            }
        };
        // Messages are short: blocks of this length cost them no search for a better one.
        let (blocks, rest) = bytes.as_chunks_mut::<32>();
        for block in blocks {
            apply(block.as_chunks_mut().0);
        }
        let (words, tail) = rest.as_chunks_mut();
        apply(words);
        for (byte, key) in tail.iter_mut().zip(word.to_ne_bytes()) {
            *byte ^= key;
        }
        // Whole words leave the key where it was: only the tail turns it.
        *self = self.after(tail.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte_by_byte(key: [u8; 4], bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[at % 4])
            .collect()
    }

    #[test]
    fn word_wise_masking_equals_byte_wise_masking_at_every_length_and_split() {
        let key = [0x12, 0x34, 0x56, 0x78];
        let plain: Vec<u8> = (0..67).collect();
        for len in 0..plain.len() {
            for split in 0..=len {
                let mut bytes = plain[..len].to_vec();
                let mut mask = Mask::new(key);
                mask.apply(&mut bytes[..split]);
                mask.apply(&mut bytes[split..]);
                assert_eq!(
                    bytes,
                    byte_by_byte(key, &plain[..len]),
                    "{len} bytes split at {split}"
                );
            }
        }
    }

    #[test]
    fn the_example_of_rfc_6455_section_5_7() {
        let mut bytes = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        Mask::new([0x37, 0xfa, 0x21, 0x3d]).apply(&mut bytes);
        assert_eq!(&bytes, b"Hello");
    }
}
