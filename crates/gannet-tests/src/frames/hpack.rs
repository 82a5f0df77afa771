//! HPACK (RFC 7541): field blocks that say exactly what a test wants, and a strict decoder for
//! what comes back.

use std::{
    collections::{HashMap, VecDeque},
    sync::LazyLock,
};

/// A field, as it came.
pub type Field = (String, String);

/// A field block in the making. Nothing is indexed unless asked for, so that blocks can be sent in
/// any order.
#[derive(Clone, Debug, Default)]
pub struct Block(Vec<u8>);

/// A `GET` request.
pub fn get(path: &str) -> Block {
    request("GET", path)
}

/// A `POST` request.
pub fn post(path: &str) -> Block {
    request("POST", path)
}

/// A request with the four pseudo-header fields.
pub fn request(method: &str, path: &str) -> Block {
    Block::default()
        .field(":method", method)
        .field(":scheme", "http")
        .field(":path", path)
        .field(":authority", "test")
}

/// A block of these fields.
pub fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Block {
    let add = |block: Block, (name, value): &(N, V)| block.field(name, value);
    fields.iter().fold(Block::default(), add)
}

impl Block {
    /// A field that enters no table. Name and value may be any bytes.
    pub fn field(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.literal(0, name, value)
    }

    /// A field that enters the server's dynamic table.
    pub fn remembered(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.literal(0x40, name, value)
    }

    /// A field that no intermediary may index.
    pub fn secret(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.literal(0x10, name, value)
    }

    /// The field at this place of the tables.
    pub fn indexed(self, index: usize) -> Self {
        self.integer(0x80, 7, index)
    }

    /// A field with the name at this place of the tables.
    pub fn named(self, index: usize, value: impl AsRef<[u8]>) -> Self {
        self.integer(0, 4, index).string(value.as_ref())
    }

    /// The server's dynamic table gets this size.
    pub fn table_size(self, size: usize) -> Self {
        self.integer(0x20, 5, size)
    }

    /// These bytes.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// A string, with these bytes as its Huffman code.
    pub fn huffman(self, code: &[u8]) -> Self {
        self.integer(0x80, 7, code.len()).raw(code)
    }

    /// A string as it is.
    pub fn string(self, string: &[u8]) -> Self {
        self.integer(0, 7, string.len()).raw(string)
    }

    /// The block in parts of so many bytes, at most.
    pub fn parts(&self, size: usize) -> Vec<Vec<u8>> {
        self.0.chunks(size).map(<[u8]>::to_vec).collect()
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn literal(self, kind: u8, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let named = self.raw([kind]).string(name.as_ref());
        named.string(value.as_ref())
    }

    /// A number behind the bits of `first` that its prefix leaves.
    fn integer(mut self, first: u8, prefix: u32, number: usize) -> Self {
        let most = (1_usize << prefix) - 1;
        let byte = |number: usize| u8::try_from(number).expect("a byte");
        if number < most {
            self.0.push(first | byte(number));
            return self;
        }
        self.0.push(first | byte(most));
        let mut rest = number - most;
        while rest >= 128 {
            self.0.push(byte(rest % 128) | 0x80);
            rest /= 128;
        }
        self.0.push(byte(rest));
        self
    }
}

impl From<Block> for Vec<u8> {
    fn from(block: Block) -> Self {
        block.0
    }
}

impl From<&Block> for Vec<u8> {
    fn from(block: &Block) -> Self {
        block.0.clone()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads the server's field blocks.
#[derive(Debug)]
pub struct Decoder {
    /// The newest comes first.
    table: VecDeque<Field>,
    /// What the server may use now, and what it was allowed to use.
    size: usize,
    limit: usize,
    /// The next block has to begin with a smaller size.
    shrinks: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder {
            table: VecDeque::new(),
            size: DEFAULT_TABLE,
            limit: DEFAULT_TABLE,
            shrinks: false,
        }
    }
}

impl Decoder {
    /// The server has acknowledged this size of the table.
    pub fn limit(&mut self, limit: usize) {
        self.shrinks |= limit < self.size;
        self.limit = limit;
    }

    /// The fields of a block.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, String> {
        let mut input = Input(block);
        let mut fields = Vec::new();
        while let Some(&first) = input.0.first() {
            if first & 0xe0 == 0x20 {
                self.resize(input.integer(5)?, fields.is_empty())?;
                continue;
            }
            if self.shrinks {
                return Err("no smaller table size in front of the block".to_owned());
            }
            let field = if first & 0x80 != 0 {
                let index = input.integer(7)?;
                self.at(index)?
            } else {
                let remembered = first & 0x40 != 0;
                let index = input.integer(if remembered { 6 } else { 4 })?;
                let name = match index {
                    0 => input.string()?,
                    _ => self.at(index)?.0,
                };
                let field = (name, input.string()?);
                if remembered {
                    self.table.push_front(field.clone());
                    self.evict();
                }
                field
            };
            fields.push(field);
        }
        Ok(fields)
    }

    fn resize(&mut self, size: usize, in_front: bool) -> Result<(), String> {
        if !in_front {
            return Err("a table size behind a field".to_owned());
        }
        if size > self.limit {
            return Err(format!("a table of {size}, over {}", self.limit));
        }
        self.size = size;
        self.shrinks = false;
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        let size = |(name, value): &Field| name.len() + value.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.size {
            self.table.pop_back();
        }
    }

    fn at(&self, index: usize) -> Result<Field, String> {
        let fixed = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let found = match index.checked_sub(1 + STATIC.len()) {
            Some(index) => self.table.get(index).cloned(),
            None => index.checked_sub(1).and_then(|n| STATIC.get(n)).map(fixed),
        };
        found.ok_or_else(|| format!("nothing at index {index}"))
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (&first, rest) = self.0.split_first().ok_or("the block is cut")?;
        self.0 = rest;
        Ok(first)
    }

    fn integer(&mut self, prefix: u32) -> Result<usize, String> {
        let most = (1_usize << prefix) - 1;
        let mut number = usize::from(self.byte()?) & most;
        if number < most {
            return Ok(number);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number that does not end".to_owned())
    }

    fn string(&mut self) -> Result<String, String> {
        let coded = self.0.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or("a string is cut")?;
        self.0 = rest;
        let string = if coded {
            uncode(string)?
        } else {
            string.to_vec()
        };
        String::from_utf8(string).map_err(|e| e.to_string())
    }
}

/// Reads the Huffman code. It is canonical: the codes of one length follow each other in the order
/// of their symbols, so the lengths are all that has to be known.
fn uncode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let (mut code, mut length) = (0_u32, 0_u8);
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1))
    {
        code = code << 1 | u32::from(bit);
        length += 1;
        if let Some(symbol) = symbol(code, length) {
            text.push(u8::try_from(symbol).map_err(|_| "the end of string as a symbol")?);
            (code, length) = (0, 0);
        }
        if length > 30 {
            return Err("no such code".to_owned());
        }
    }
    if length > 7 || code != (1 << length) - 1 {
        return Err(format!("padding of {length} bits: {code:b}"));
    }
    Ok(text)
}

/// The symbol that has this code of this length.
fn symbol(code: u32, length: u8) -> Option<usize> {
    CODES.get(&(length, code)).copied()
}

static CODES: LazyLock<HashMap<(u8, u32), usize>> = LazyLock::new(|| {
    let (mut codes, mut next) = (HashMap::new(), 0);
    for length in 1..=30 {
        next <<= 1;
        for symbol in (0..LENGTHS.len()).filter(|&symbol| LENGTHS[symbol] == length) {
            codes.insert((length, next), symbol);
            next += 1;
        }
    }
    codes
});

const DEFAULT_TABLE: usize = 4096;

/// Lengths of the codes of the 256 bytes and the end of the string (RFC 7541, appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The fields that everyone knows (RFC 7541, appendix A).
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541, C.4 and C.6.
    #[test]
    fn what_the_standard_shows_is_understood() {
        let mut decoder = Decoder::default();
        let requests: [(&[u8], &str); 2] = [
            (
                b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
                ":method=GET :scheme=http :path=/ :authority=www.example.com",
            ),
            (
                b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
                ":method=GET :scheme=http :path=/ :authority=www.example.com \
                 cache-control=no-cache",
            ),
        ];
        for (block, expected) in requests {
            let fields = decoder.decode(block).unwrap();
            let shown: Vec<_> = fields.iter().map(|(n, v)| format!("{n}={v}")).collect();
            assert_eq!(shown.join(" "), expected);
        }
    }

    /// A code is complete when the shares of its symbols make a whole.
    #[test]
    fn the_lengths_make_a_complete_code() {
        let share = |&length: &u8| 1_u64 << (30 - length);
        assert_eq!(LENGTHS.iter().map(share).sum::<u64>(), 1 << 30);
        assert_eq!(symbol(0x3fff_ffff, 30), Some(256));
    }

    #[test]
    fn a_smaller_table_has_to_be_announced() {
        let mut decoder = Decoder::default();
        decoder.limit(100);
        assert!(decoder.decode(&[0x82]).is_err());
        assert!(
            decoder
                .decode(Block::default().table_size(101).bytes())
                .is_err()
        );
        let block = Block::default().table_size(100).indexed(2);
        assert_eq!(decoder.decode(block.bytes()).unwrap().len(), 1);
        let late = Block::default().indexed(2).table_size(1);
        assert!(decoder.decode(late.bytes()).is_err());
    }
}
