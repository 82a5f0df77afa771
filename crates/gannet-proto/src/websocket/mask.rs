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
    pub fn after(mut self, bytes: usize) -> Self {
        self.0.rotate_left(bytes % 4);
        self
    }

    /// Masks or unmasks the next bytes of the payload, in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let Mask([a, b, c, d]) = *self;
        let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);

        let (words, tail) = bytes.as_chunks_mut::<8>();
        for chunk in words {
            *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
        }
        for (byte, key) in tail.iter_mut().zip([a, b, c, d].into_iter().cycle()) {
            *byte ^= key;
        }
        // Whole words leave the key where it was: only the tail turns it.
        self.0.rotate_left(tail.len() % 4);
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
