//! What is sent: bytes of which every message has others, made without keeping any of them.
//!
//! A message begins with eight bytes that name its connection and its number; the rest is a piece of a
//! pool of random bytes, at a place that follows from both. So what must come back can be computed
//! again, piece by piece as it arrives, and the answer to another message, of another connection or
//! another number, is told from the right one.

use std::{cmp::min, fmt};

/// A message: the connection that sends it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageId {
    pub(crate) connection: u32,
    pub(crate) number: u64,
}

/// What kind of bytes a message may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// Any.
    Bytes,
    /// Digits and capitals: text everywhere, without a line end, and the same in capitals.
    Text,
}

/// Makes payloads, and compares what comes back with them.
#[derive(Debug)]
pub(crate) struct Payloads {
    sizes: Vec<usize>,
    alphabet: Alphabet,
    pool: Vec<u8>,
}

/// What came back is not what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Differs {
    /// Where in the message.
    offset: usize,
    /// What should stand there.
    expected: Vec<u8>,
    /// What does.
    got: Vec<u8>,
    /// The message that it is the answer to, if it is one.
    instead: Option<MessageId>,
}

impl Payloads {
    /// Messages of these sizes in turn.
    pub(crate) fn new(sizes: &[usize], alphabet: Alphabet) -> Self {
        let largest = sizes.iter().copied().max().unwrap_or_default();
        let mut random = Random::new(SEED);
        let mut pool = vec![0; PLACES + largest];
        for byte in &mut pool {
            let bits = (random.next() >> 32) as u8;
            *byte = match alphabet {
                Alphabet::Bytes => bits,
                Alphabet::Text => SYMBOLS[usize::from(bits % 32)],
            };
        }
        Payloads {
            sizes: sizes.to_vec(),
            alphabet,
            pool,
        }
    }

    /// The size of a message.
    pub(crate) fn size(&self, id: MessageId) -> usize {
        match *self.sizes.as_slice() {
            [size] => size,
            ref sizes => sizes.get(self.turn(id.number)).copied().unwrap_or(0),
        }
    }

    /// Which of the sizes it is the turn of.
    pub(crate) fn turn(&self, number: u64) -> usize {
        match self.sizes.len() {
            0 | 1 => 0,
            several => (number % several as u64) as usize,
        }
    }

    /// Appends a message.
    pub(crate) fn append(&self, out: &mut Vec<u8>, id: MessageId) {
        let size = self.size(id);
        let tag = min(size, TAG);
        out.extend_from_slice(&self.tag(id)[..tag]);
        out.extend_from_slice(&self.rest(id)[..size - tag]);
    }

    /// Compares a piece of what came back, which stands at `offset`, with the message.
    pub(crate) fn check(
        &self,
        id: MessageId,
        mut offset: usize,
        mut piece: &[u8],
    ) -> Result<(), Differs> {
        if offset < TAG {
            let tag = self.tag(id);
            let end = min(min(offset + piece.len(), TAG), self.size(id));
            let (front, behind) = piece.split_at(end.saturating_sub(offset));
            if front != &tag[offset..end.max(offset)] {
                return Err(self.differs(id, offset, piece));
            }
            (offset, piece) = (end.max(offset), behind);
        }
        if piece.is_empty() {
            return Ok(());
        }
        let size = self.size(id);
        let rest = self.rest(id);
        let at = offset - min(offset, TAG);
        match size >= TAG && rest[..size - TAG].get(at..at + piece.len()) == Some(piece) {
            true => Ok(()),
            false => Err(self.differs(id, offset, piece)),
        }
    }

    /// The connection and the number that a tag names, as far as it can.
    pub(crate) fn read_tag(&self, bytes: &[u8]) -> Option<MessageId> {
        let bytes: &[u8; TAG] = bytes.first_chunk()?;
        let (mut number, mut connection) = (0, 0);
        for at in (0..TAG / 2).rev() {
            let (first, second) = (self.digit(bytes[at * 2])?, self.digit(bytes[at * 2 + 1])?);
            number = number << self.bits() | u64::from(first);
            connection = connection << self.bits() | u32::from(second);
        }
        Some(MessageId { connection, number })
    }

    fn differs(&self, id: MessageId, offset: usize, piece: &[u8]) -> Differs {
        let mut whole = Vec::new();
        self.append(&mut whole, id);
        let expected = whole.get(offset..).unwrap_or_default();
        let same = piece
            .iter()
            .zip(expected)
            .take_while(|(a, b)| a == b)
            .count();
        let shown = |bytes: &[u8]| bytes[same..min(bytes.len(), same + SHOWN)].to_vec();
        Differs {
            offset: offset + same,
            expected: shown(expected),
            got: shown(piece),
            instead: self
                .read_tag(piece)
                .filter(|&other| offset == 0 && other != id && self.is_begun_by(other, piece)),
        }
    }

    /// Whether these bytes are the beginning of a message.
    fn is_begun_by(&self, id: MessageId, piece: &[u8]) -> bool {
        let mut whole = Vec::new();
        self.append(&mut whole, id);
        whole.starts_with(piece)
    }

    /// Number and connection alternate, low digits first: even a message of two bytes says something
    /// of both.
    fn tag(&self, id: MessageId) -> [u8; TAG] {
        let mut tag = [0; TAG];
        let (mut number, mut connection) = (id.number, id.connection);
        for pair in tag.as_chunks_mut::<2>().0 {
            *pair = [self.symbol(number as u8), self.symbol(connection as u8)];
            number >>= self.bits();
            connection >>= self.bits();
        }
        tag
    }

    fn rest(&self, id: MessageId) -> &[u8] {
        let mixed = (id.number << 20 ^ u64::from(id.connection)).wrapping_mul(GOLDEN);
        &self.pool[(mixed >> 48) as usize % PLACES..]
    }

    fn symbol(&self, bits: u8) -> u8 {
        match self.alphabet {
            Alphabet::Bytes => bits,
            Alphabet::Text => SYMBOLS[usize::from(bits % 32)],
        }
    }

    fn digit(&self, symbol: u8) -> Option<u8> {
        match self.alphabet {
            Alphabet::Bytes => Some(symbol),
            Alphabet::Text => SYMBOLS
                .iter()
                .position(|&one| one == symbol)
                .map(|digit| digit as u8),
        }
    }

    /// Bits that one byte of a tag carries.
    fn bits(&self) -> u32 {
        match self.alphabet {
            Alphabet::Bytes => 8,
            Alphabet::Text => 5,
        }
    }
}

impl Differs {
    /// For bytes that are compared with a text and not with a message.
    pub(crate) fn between(offset: usize, expected: &[u8], got: &[u8]) -> Option<Self> {
        let same = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
        if same == got.len() && same <= expected.len() {
            return None;
        }
        let shown = |bytes: &[u8]| bytes[same..min(bytes.len(), same + SHOWN)].to_vec();
        Some(Differs {
            offset: offset + same,
            expected: shown(expected),
            got: shown(got),
            instead: None,
        })
    }

    /// The same difference, so much further on.
    pub(crate) fn at(self, offset: usize) -> Self {
        Differs {
            offset: self.offset + offset,
            ..self
        }
    }
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the answer: expected ", self.offset)?;
        match self.expected.as_slice() {
            [] => write!(f, "its end")?,
            expected => write!(f, "\"{}\"", expected.escape_ascii())?,
        }
        write!(f, ", got \"{}\"", self.got.escape_ascii())?;
        match self.instead {
            Some(id) => write!(
                f,
                " (it is the answer to message {} of connection {})",
                id.number, id.connection
            ),
            None => Ok(()),
        }
    }
}

/// Random enough for payloads and masking keys (xorshift64*).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Bytes that name connection and number.
pub(crate) const TAG: usize = 8;

/// Where a message's rest can begin in the pool: few enough to stay in a processor's cache.
const PLACES: usize = 16 << 10;

/// Bytes of a difference that are shown.
const SHOWN: usize = 16;

const SYMBOLS: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
const SEED: u64 = 0x6761_6e6e_6574_2121;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(connection: u32, number: u64) -> MessageId {
        MessageId { connection, number }
    }

    #[test]
    fn a_message_is_itself_in_any_pieces() {
        for alphabet in [Alphabet::Bytes, Alphabet::Text] {
            for size in [1, 2, 7, 8, 9, 64, 5000] {
                let payloads = Payloads::new(&[size], alphabet);
                let mut message = Vec::new();
                payloads.append(&mut message, id(3, 70));
                assert_eq!(message.len(), size);
                for piece in [1, 3, 8, 13, size] {
                    let mut offset = 0;
                    for part in message.chunks(piece) {
                        assert_eq!(payloads.check(id(3, 70), offset, part), Ok(()));
                        offset += part.len();
                    }
                }
            }
        }
    }

    #[test]
    fn another_message_or_byte_is_told() {
        let payloads = Payloads::new(&[64], Alphabet::Bytes);
        let mut message = Vec::new();
        payloads.append(&mut message, id(3, 70));
        assert!(payloads.check(id(3, 71), 0, &message).is_err());
        assert!(payloads.check(id(4, 70), 0, &message).is_err());
        let differs = payloads.check(id(4, 70), 0, &message).unwrap_err();
        assert_eq!(differs.instead, Some(id(3, 70)));
        message[40] ^= 1;
        let differs = payloads.check(id(3, 70), 0, &message).unwrap_err();
        assert_eq!(differs.offset, 40);
        assert_eq!(differs.expected[0] ^ 1, differs.got[0]);
        // One byte too many.
        let differs = payloads.check(id(3, 70), 64, b"x").unwrap_err();
        assert_eq!(
            differs.to_string(),
            "byte 64 of the answer: expected its end, got \"x\""
        );
    }

    #[test]
    fn sizes_take_turns() {
        let payloads = Payloads::new(&[10, 2000], Alphabet::Text);
        assert_eq!(payloads.size(id(0, 4)), 10);
        assert_eq!(payloads.size(id(0, 5)), 2000);
    }

    #[test]
    fn a_tag_says_whose_the_message_is() {
        for alphabet in [Alphabet::Bytes, Alphabet::Text] {
            let payloads = Payloads::new(&[8], alphabet);
            let mut message = Vec::new();
            payloads.append(&mut message, id(1234, 98_765));
            assert_eq!(payloads.read_tag(&message), Some(id(1234, 98_765)));
        }
        let text = Payloads::new(&[8], Alphabet::Text);
        assert_eq!(text.read_tag(b"not tag!"), None);
    }
}
