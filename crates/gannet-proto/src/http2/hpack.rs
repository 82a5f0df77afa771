//! Whether a field block can be decoded (RFC 7541), and what the library would not tell of it.
//!
//! The library decodes, but says `PROTOCOL_ERROR` when it cannot, where RFC 9113 (section 4.3) demands
//! `COMPRESSION_ERROR`; and it drops pseudo-header fields of trailers and the fragment of a path without a
//! word. To know of these nothing has to be decoded: the lengths of strings, what that leaves in the
//! dynamic table, and a look at a few characters are enough. Blocks of a browser take well below a
//! microsecond.

use std::collections::VecDeque;

/// Follows the blocks of one connection. Of what is in the table only sizes are known, and what matters.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// The newest comes first.
    entries: VecDeque<Entry>,
    used: u32,
    /// What the client has set; at most [`TABLE`].
    size: u32,
}

/// What a block has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// A pseudo-header field.
    pub pseudo: bool,
    /// A `:path` with a fragment, or an empty `:scheme`.
    pub wrong: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    value_len: u32,
    found: Found,
}

/// A name: how long it is, and what.
#[derive(Clone, Copy, Debug)]
struct Name {
    len: u32,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Field,
    Pseudo,
    Path,
    Scheme,
}

impl Default for Blocks {
    fn default() -> Self {
        Blocks {
            entries: VecDeque::new(),
            used: 0,
            size: TABLE,
        }
    }
}

impl Blocks {
    /// Takes the next block, whole.
    ///
    /// # Errors
    ///
    /// It cannot be decoded, and nothing behind it can.
    pub fn take(&mut self, block: &[u8]) -> Result<Found, &'static str> {
        let mut input = Input(block);
        let (mut found, mut has_field) = (Found::default(), false);
        while let Some(&first) = input.0.first() {
            let of_field = match first {
                0x80.. => self.indexed(input.integer(7)?)?,
                0x20..0x40 if has_field => return Err("a size of the table behind a field"),
                0x20..0x40 => {
                    self.size = input.integer(5)?;
                    if self.size > TABLE {
                        return Err("a table larger than the settings allow");
                    }
                    self.evict();
                    continue;
                }
                _ => self.literal(&mut input, first & 0x40 != 0)?,
            };
            has_field = true;
            found.pseudo |= of_field.pseudo;
            found.wrong |= of_field.wrong;
        }
        Ok(found)
    }

    fn literal(&mut self, input: &mut Input<'_>, is_kept: bool) -> Result<Found, &'static str> {
        let name = match input.integer(if is_kept { 6 } else { 4 })? {
            0 => {
                let name = input.string()?;
                Name {
                    len: name.len()?.0,
                    what: name.what(),
                }
            }
            index => self.name(index)?,
        };
        let (value_len, has_hash) = input.string()?.len()?;
        let found = Found {
            pseudo: name.what != What::Field,
            wrong: match name.what {
                What::Path => has_hash,
                What::Scheme => value_len == 0,
                What::Field | What::Pseudo => false,
            },
        };
        if is_kept {
            let entry = Entry {
                name,
                value_len,
                found,
            };
            self.entries.push_front(entry);
            self.used += entry.size();
            self.evict();
        }
        Ok(found)
    }

    fn indexed(&self, index: u32) -> Result<Found, &'static str> {
        match self.entry(index) {
            Some(entry) => Ok(entry.found),
            None => self.name(index).map(|name| Found {
                pseudo: name.what != What::Field,
                wrong: false,
            }),
        }
    }

    fn name(&self, index: u32) -> Result<Name, &'static str> {
        let place = (index as usize).checked_sub(1).ok_or("the index 0")?;
        let fixed = FIXED.get(place).map(|&len| Name {
            len: u32::from(len),
            what: match index {
                4 | 5 => What::Path,
                6 | 7 => What::Scheme,
                ..15 => What::Pseudo,
                _ => What::Field,
            },
        });
        let name = fixed.or_else(|| self.entry(index).map(|entry| entry.name));
        name.ok_or("an index of nothing")
    }

    /// The entry of the dynamic table at this index.
    fn entry(&self, index: u32) -> Option<&Entry> {
        let place = (index as usize).checked_sub(FIXED.len() + 1)?;
        self.entries.get(place)
    }

    fn evict(&mut self) {
        while self.used > self.size {
            match self.entries.pop_back() {
                Some(entry) => self.used -= entry.size(),
                None => return,
            }
        }
    }
}

impl Entry {
    fn size(self) -> u32 {
        self.name.len + self.value_len + OVERHEAD
    }
}

struct Input<'a>(&'a [u8]);

/// A string as it came.
struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
}

impl<'a> Input<'a> {
    /// A number in this many bits of the next byte, and maybe bytes behind it (section 5.1).
    fn integer(&mut self, prefix: u32) -> Result<u32, &'static str> {
        let most = (1_u32 << prefix) - 1;
        let mut number = u32::from(self.byte()?) & most;
        if number < most {
            return Ok(number);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            number += u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number that is too large")
    }

    /// A string (section 5.2).
    fn string(&mut self) -> Result<Text<'a>, &'static str> {
        let is_coded = self.0.first().is_some_and(|byte| byte & 0x80 != 0);
        let len = self.integer(7)?;
        let split = self.0.split_at_checked(len as usize);
        let (bytes, rest) = split.ok_or("a string that is cut")?;
        self.0 = rest;
        Ok(Text { bytes, is_coded })
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&first, rest) = self.0.split_first().ok_or("a field that is cut")?;
        self.0 = rest;
        Ok(first)
    }
}

impl Text<'_> {
    /// How long it is when it is decoded, and whether it has a `#`.
    fn len(&self) -> Result<(u32, bool), &'static str> {
        if self.is_coded {
            return decoded_len(self.bytes);
        }
        Ok((self.bytes.len() as u32, self.bytes.contains(&b'#')))
    }

    /// What it is as a name. One name has one code.
    fn what(&self) -> What {
        match (self.is_coded, self.bytes) {
            (false, b":path") | (true, CODED_PATH) => What::Path,
            (false, b":scheme") | (true, CODED_SCHEME) => What::Scheme,
            (false, [b':', ..]) => What::Pseudo,
            (true, [first, ..]) if first >> 1 == COLON => What::Pseudo,
            _ => What::Field,
        }
    }
}

/// How many symbols the Huffman code has, and whether a `#` is among them.
///
/// It is canonical: codes of one length follow each other, and shorter ones come before longer ones. So
/// the first bits, as a number, tell how long the next code is.
fn decoded_len(code: &[u8]) -> Result<(u32, bool), &'static str> {
    let (mut symbols, mut has_hash) = (0, false);
    let mut bytes = code.iter();
    // The next bits, left-justified, and how many of them are there.
    let (mut window, mut filled) = (0_u64, 0_u32);
    loop {
        while filled <= 56
            && let Some(&byte) = bytes.next()
        {
            window |= u64::from(byte) << (56 - filled);
            filled += 8;
        }
        let next = (window >> 32) as u32;
        let (_, len) = LIMITS
            .iter()
            .find(|(end, _)| next < *end)
            .copied()
            .unwrap_or((0, 30));
        if len > filled {
            // What is left is the beginning of the code of the end: ones.
            let is_padding = filled < 8 && window == !(u64::MAX.checked_shr(filled).unwrap_or(0));
            return if is_padding {
                Ok((symbols, has_hash))
            } else {
                Err("a string that ends within a code")
            };
        }
        if next >> 2 == END {
            return Err("the end of a string within it");
        }
        has_hash |= len == 12 && next >> 20 == HASH;
        window <<= len;
        filled -= len;
        symbols += 1;
    }
}

/// For each length of a code: the first window behind its codes. Those of 30 bits are the rest.
const LIMITS: [(u32, u32); 20] = limits();

const fn limits() -> [(u32, u32); 20] {
    let mut limits = [(0, 0); 20];
    let (mut end, mut n) = (0, 0);
    while n < limits.len() {
        let (len, count) = COUNTS[n];
        end += count << (32 - len);
        limits[n] = (end, len);
        n += 1;
    }
    limits
}

/// How many codes of this length there are (RFC 7541, appendix B), without those of 30 bits.
const COUNTS: [(u32, u32); 20] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
];

/// The code of `:`, of 7 bits.
const COLON: u8 = 0x5c;
/// The code of `#`, of 12 bits.
const HASH: u32 = 0xffa;
/// The codes of `:path` and `:scheme`.
const CODED_PATH: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];
const CODED_SCHEME: &[u8] = &[0xb8, 0x82, 0x4e, 0x5a, 0x4b];
/// The code of the end of a string: 30 ones.
const END: u32 = (1 << 30) - 1;
/// The largest table that the server lets clients have: what holds without a setting.
const TABLE: u32 = 4096;
/// What an entry costs beside its bytes (section 4.1).
const OVERHEAD: u32 = 32;

/// Lengths of the names in the fixed table (appendix A).
#[rustfmt::skip]
const FIXED: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27,
    3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17,
    13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_complete() {
        let four_of_30_bits = 4_u64 << 2;
        let last = LIMITS[LIMITS.len() - 1];
        assert_eq!(u64::from(last.0) + four_of_30_bits, 1 << 32);
    }

    #[test]
    fn strings_are_measured() {
        // www.example.com and no-cache, as the RFC shows them.
        let example = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decoded_len(&example), Ok((15, false)));
        assert_eq!(
            decoded_len(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            Ok((8, false))
        );
        assert_eq!(decoded_len(&[]), Ok((0, false)));
        assert_eq!(decoded_len(&[0b0001_1111]), Ok((1, false)));
        // LF is of 30 bits, and 2 of padding follow.
        assert_eq!(decoded_len(&[0xff, 0xff, 0xff, 0xf3]), Ok((1, false)));
        for wrong in [
            &[0b0001_1000][..],
            &[0b0001_1111, 0xff],
            &[0xff],
            &[0xff; 4],
            &[0b0001_1111, 0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xc0],
        ] {
            assert!(decoded_len(wrong).is_err(), "{wrong:x?}");
        }
    }

    #[test]
    fn the_table_is_followed() {
        let mut blocks = Blocks::default();
        assert!(blocks.clone().take(&[0xbe]).is_err());
        blocks.take(&[0x40, 1, b'x', 1, b'y']).unwrap();
        blocks.take(&[0xbe]).unwrap();
        assert!(blocks.clone().take(&[0xbf]).is_err());
        // A size of 0 empties it, and a later one does not bring anything back.
        blocks.take(&[0x20, 0x3f, 0xe1, 0x1f]).unwrap();
        assert!(blocks.clone().take(&[0xbe]).is_err());
        assert!(blocks.clone().take(&[0x3f, 0xe2, 0x1f]).is_err());
        assert!(blocks.clone().take(&[0x82, 0x20]).is_err());
        // An entry larger than the table leaves it empty.
        let mut large = vec![0x40, 1, b'x', 0x7f, 0x81, 0x1f];
        large.extend([b'v'; 0x7f + 0xf81]);
        blocks.take(&[0x40, 1, b'x', 1, b'y']).unwrap();
        blocks.take(&large).unwrap();
        assert_eq!((blocks.used, blocks.entries.len()), (0, 0));
    }

    #[test]
    fn what_the_library_hides_is_found() {
        let found = |block: &[u8]| Blocks::default().take(block).unwrap();
        let field = |name: &[u8], value: &[u8]| {
            let string = |text: &[u8]| [&[text.len() as u8], text].concat();
            [vec![0], string(name), string(value)].concat()
        };
        let (nothing, pseudo) = (
            Found::default(),
            Found {
                pseudo: true,
                wrong: false,
            },
        );
        let wrong = Found {
            pseudo: true,
            wrong: true,
        };
        assert_eq!(found(&[0x84]), pseudo);
        assert_eq!(found(&[0x8e]), pseudo);
        assert_eq!(found(&[0x8f]), nothing);
        assert_eq!(found(&field(b"x", b"#")), nothing);
        assert_eq!(found(&field(b":path", b"/a")), pseudo);
        assert_eq!(found(&field(b":path", b"/#a")), wrong);
        assert_eq!(found(&field(b":scheme", b"")), wrong);
        assert_eq!(found(&field(b":authority", b"#")), pseudo);
        // `:path` and `/#` in the code: 011000 111111111010, and 6 of padding.
        let coded = [&[0, 0x84], CODED_PATH, &[0x83, 0x63, 0xfe, 0xbf]].concat();
        assert_eq!(found(&coded), wrong);
        assert_eq!(found(&[0, 0x85, 0xb8, 0x82, 0x4e, 0x5a, 0x4b, 0]), wrong);
        // `:` and padding.
        assert_eq!(found(&[0, 0x81, 0xb9, 0]), pseudo);
        // It is known of an entry too.
        let mut blocks = Blocks::default();
        blocks.take(&[0x44, 2, b'/', b'#']).unwrap();
        assert_eq!(blocks.take(&[0xbe]), Ok(wrong));
        assert_eq!(blocks.take(&[0x0f, 0x2f, 1, b'/']), Ok(pseudo));
    }

    #[test]
    fn whatever_is_cut_is_an_error() {
        let block = [0x82, 0x40, 2, b'a', b'b', 0x81, 0b0001_1111];
        for len in 0..block.len() {
            let whole = matches!(len, 0 | 1);
            assert_eq!(
                Blocks::default().take(&block[..len]).is_ok(),
                whole,
                "{len}"
            );
        }
        assert!(
            Blocks::default()
                .take(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])
                .is_err()
        );
        assert!(Blocks::default().take(&[0x80]).is_err());
    }
}
