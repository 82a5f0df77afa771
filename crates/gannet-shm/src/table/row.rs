//! Values of rows: what can be a column, and a struct of columns.
//!
//! A row's values are 64-bit words in shared memory. They are read straight from there into the
//! struct, while a writer may be at work on them; the table finds that out afterwards and throws
//! the struct away. So loading must cope with any words, and trusts nothing that it has loaded.

use std::fmt::{self, Debug, Display, Formatter};
use std::marker::PhantomData;
use std::ops::Deref;

use super::schema::{ColumnKind, ColumnSpec};

/// A struct that can be the value of a row.
///
/// Derive it (`#[derive(gannet::Row)]`): fields are `i64`, `u64`, `f64`, `bool`, [`Str`], [`Bin`],
/// `[u8; N]`, and `String` and `Vec<u8>` with `#[row(max = 64)]`.
pub trait Row: Sized {
    /// The columns, in order.
    const COLUMNS: &'static [ColumnSpec];
    /// 64-bit words of all columns together.
    const WORDS: usize;

    /// Puts every column: `put(word, value)`, with words below [`Row::WORDS`].
    ///
    /// # Errors
    ///
    /// A value is too long for its column; nothing is stored then.
    fn store(&self, put: impl FnMut(usize, u64)) -> Result<(), ValueTooLong>;

    /// Makes a row from words, which may be any: it must not panic.
    fn load(word: impl Fn(usize) -> u64) -> Self;
}

/// A value that a column cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` holds {max} bytes, the value has {len}")]
pub struct ValueTooLong {
    /// Name of the column.
    pub column: String,
    /// Bytes of the value.
    pub len: usize,
    /// Most bytes that the column holds.
    pub max: usize,
}

/// A type that is a column by itself.
pub trait Cell: Sized {
    /// The type of the column.
    const KIND: ColumnKind;

    /// Puts the value into words from 0 on.
    fn store(&self, put: impl FnMut(usize, u64));

    /// Makes a value from words, which may be any: it must not panic.
    fn load(word: impl Fn(usize) -> u64) -> Self;
}

/// A column of the row type `R` with values of type `T`: what [`Table::incr`](super::Table::incr)
/// and [`Table::column`](super::Table::column) want. The derive makes one for each field, named as
/// the field in capitals.
pub struct Column<R, T> {
    pub(super) word: usize,
    types: PhantomData<fn() -> (R, T)>,
}

impl<R, T> Column<R, T> {
    /// For the derive: a column that begins at this word of the row.
    #[doc(hidden)]
    pub const fn at(word: usize) -> Self {
        Column {
            word,
            types: PhantomData,
        }
    }
}

impl<R, T> Clone for Column<R, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, T> Copy for Column<R, T> {}

impl<R, T> Debug for Column<R, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column").field("word", &self.word).finish()
    }
}

macro_rules! one_word {
    ($($type:ty, $kind:ident, $to:expr, $from:expr;)*) => {$(
        impl Cell for $type {
            const KIND: ColumnKind = ColumnKind::$kind;

            #[inline]
            fn store(&self, mut put: impl FnMut(usize, u64)) {
                put(0, $to(*self));
            }

            #[inline]
            fn load(word: impl Fn(usize) -> u64) -> Self {
                $from(word(0))
            }
        }
    )*};
}

one_word! {
    i64, I64, i64::cast_unsigned, u64::cast_signed;
    u64, U64, |value| value, |word| word;
    f64, F64, f64::to_bits, f64::from_bits;
    bool, Bool, u64::from, |word| word != 0;
}

impl<const N: usize> Cell for [u8; N] {
    const KIND: ColumnKind = ColumnKind::Array(N);

    #[inline]
    fn store(&self, put: impl FnMut(usize, u64)) {
        store_bytes(self, put);
    }

    #[inline]
    fn load(word: impl Fn(usize) -> u64) -> Self {
        let mut bytes = [0; N];
        load_bytes(&mut bytes, word);
        bytes
    }
}

/// Up to `N` bytes, without a heap allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bin<const N: usize> {
    // What is behind `len` is zero, so that the derived comparisons hold.
    bytes: [u8; N],
    len: u16,
}

impl<const N: usize> Bin<N> {
    /// These bytes.
    ///
    /// # Errors
    ///
    /// If they are more than `N`.
    pub fn new(bytes: &[u8]) -> Result<Self, TooLong> {
        const {
            assert!(
                N <= u16::MAX as usize,
                "a column holds at most 65,535 bytes"
            )
        };
        let mut bin = Bin::default();
        let room = bin.bytes.get_mut(..bytes.len());
        let room = room.ok_or(TooLong {
            len: bytes.len(),
            max: N,
        })?;
        room.copy_from_slice(bytes);
        bin.len = bytes.len() as u16;
        Ok(bin)
    }
}

impl<const N: usize> Default for Bin<N> {
    fn default() -> Self {
        Bin {
            bytes: [0; N],
            len: 0,
        }
    }
}

impl<const N: usize> Deref for Bin<N> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<const N: usize> TryFrom<&[u8]> for Bin<N> {
    type Error = TooLong;

    fn try_from(bytes: &[u8]) -> Result<Self, TooLong> {
        Bin::new(bytes)
    }
}

impl<const N: usize> Debug for Bin<N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&**self, f)
    }
}

impl<const N: usize> Cell for Bin<N> {
    const KIND: ColumnKind = ColumnKind::Bytes(N);

    #[inline]
    fn store(&self, mut put: impl FnMut(usize, u64)) {
        put(0, u64::from(self.len));
        store_bytes(self, |word, value| put(1 + word, value));
    }

    #[inline]
    fn load(word: impl Fn(usize) -> u64) -> Self {
        let len = (word(0) as usize).min(N);
        let mut bin = Bin {
            bytes: [0; N],
            len: len as u16,
        };
        load_bytes(&mut bin.bytes[..len], |index| word(1 + index));
        bin
    }
}

/// Text of up to `N` bytes, without a heap allocation.
///
/// ```
/// use gannet_shm::table::Str;
///
/// let name = Str::<8>::new("gannet")?;
/// assert_eq!(&*name, "gannet");
/// assert!(Str::<8>::new("nine bytes").is_err());
/// # Ok::<(), gannet_shm::table::TooLong>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Str<const N: usize>(Bin<N>);

impl<const N: usize> Str<N> {
    /// This text.
    ///
    /// # Errors
    ///
    /// If it has more than `N` bytes. (It is never cut.)
    pub fn new(text: &str) -> Result<Self, TooLong> {
        Bin::new(text.as_bytes()).map(Str)
    }
}

impl<const N: usize> Deref for Str<N> {
    type Target = str;

    /// The text. If something overwrote the shared memory: what is text of it, from the front.
    #[inline]
    fn deref(&self) -> &str {
        match std::str::from_utf8(&self.0) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&self.0[..error.valid_up_to()]).unwrap_or_default(),
        }
    }
}

impl<const N: usize> TryFrom<&str> for Str<N> {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        Str::new(text)
    }
}

impl<const N: usize> Debug for Str<N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&**self, f)
    }
}

impl<const N: usize> Display for Str<N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&**self, f)
    }
}

impl<const N: usize> Cell for Str<N> {
    const KIND: ColumnKind = ColumnKind::Text(N);

    #[inline]
    fn store(&self, put: impl FnMut(usize, u64)) {
        self.0.store(put);
    }

    #[inline]
    fn load(word: impl Fn(usize) -> u64) -> Self {
        Str(Bin::load(word))
    }
}

/// More bytes than a [`Str`] or [`Bin`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes are too many: it holds {max}")]
pub struct TooLong {
    /// Bytes that there are.
    pub len: usize,
    /// Bytes that there may be.
    pub max: usize,
}

/// For the derive: fields that have no length of their own.
pub mod cell {
    use super::{ValueTooLong, load_bytes as load, store_bytes as store};

    /// Puts a text of at most `max` bytes.
    #[inline]
    pub fn store_text(
        column: &str,
        max: usize,
        text: &str,
        put: impl FnMut(usize, u64),
    ) -> Result<(), ValueTooLong> {
        store_bytes(column, max, text.as_bytes(), put)
    }

    /// The text that [`store_text`] put.
    pub fn load_text(max: usize, word: impl Fn(usize) -> u64) -> String {
        String::from_utf8(load_bytes(max, word))
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// Puts at most `max` bytes.
    #[inline]
    pub fn store_bytes(
        column: &str,
        max: usize,
        bytes: &[u8],
        mut put: impl FnMut(usize, u64),
    ) -> Result<(), ValueTooLong> {
        if bytes.len() > max {
            return Err(ValueTooLong {
                column: column.to_owned(),
                len: bytes.len(),
                max,
            });
        }
        put(0, bytes.len() as u64);
        store(bytes, |word, value| put(1 + word, value));
        Ok(())
    }

    /// The bytes that [`store_bytes`] put.
    pub fn load_bytes(max: usize, word: impl Fn(usize) -> u64) -> Vec<u8> {
        let mut bytes = vec![0; (word(0) as usize).min(max)];
        load(&mut bytes, |index| word(1 + index));
        bytes
    }
}

/// Eight bytes a word; the last word is filled up with zeros.
#[inline]
pub(super) fn store_bytes(bytes: &[u8], mut put: impl FnMut(usize, u64)) {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        put(index, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        put(words.len(), u64::from_le_bytes(last));
    }
}

#[inline]
pub(super) fn load_bytes(bytes: &mut [u8], word: impl Fn(usize) -> u64) {
    let (words, rest) = bytes.as_chunks_mut::<8>();
    let whole = words.len();
    for (index, bytes) in words.iter_mut().enumerate() {
        *bytes = word(index).to_le_bytes();
    }
    if !rest.is_empty() {
        let last = word(whole).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn through<T: Cell>(value: &T) -> T {
        let words = RefCell::new(vec![0xdead_beef; T::KIND.words()]);
        value.store(|word, value| words.borrow_mut()[word] = value);
        T::load(|word| words.borrow()[word])
    }

    #[test]
    fn cells_come_back_as_they_were() {
        for value in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(through(&value), value);
        }
        assert_eq!(through(&u64::MAX), u64::MAX);
        assert_eq!(through(&-0.5), -0.5);
        assert!(through(&true) && !through(&false));
        assert_eq!(
            through(&[1_u8, 2, 3, 4, 5, 6, 7, 8, 9]),
            [1, 2, 3, 4, 5, 6, 7, 8, 9]
        );
        for len in 0..=17 {
            let text = "abcdefghijklmnopq"[..len].to_owned();
            assert_eq!(&*through(&Str::<17>::new(&text).unwrap()), text);
            assert_eq!(
                &*through(&Bin::<17>::new(text.as_bytes()).unwrap()),
                text.as_bytes()
            );
        }
    }

    #[test]
    fn any_words_can_be_loaded() {
        for word in [0, 1, 9, u64::MAX, 0x8080_8080_8080_8080] {
            let text = Str::<9>::load(|_| word);
            assert!(text.len() <= 9);
            assert!(cell::load_bytes(9, |_| word).len() <= 9);
            assert!(cell::load_text(9, |_| word).len() <= 27);
            let _ = (bool::load(|_| word), f64::load(|_| word));
        }
    }

    #[test]
    fn nothing_is_cut() {
        assert_eq!(Str::<3>::new("äö"), Err(TooLong { len: 4, max: 3 }));
        let error = cell::store_text("name", 3, "äö", |_, _| panic!("stored")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "column `name` holds 3 bytes, the value has 4"
        );
    }

    #[test]
    fn equal_whatever_was_there_before() {
        let mut words = [u64::MAX; 4];
        let short = Bin::<24>::new(b"x").unwrap();
        short.store(|word, value| words[word] = value);
        assert_eq!(Bin::<24>::load(|word| words[word]), short);
    }
}
