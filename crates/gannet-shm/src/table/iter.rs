//! All rows of a table, one after another.

use super::error::TableError;
use super::key::Key;
use super::typed::{Content, Table};

/// The rows of a table: see [`Table::iter`].
#[derive(Debug)]
pub struct Iter<'a, R: Content, K: Key + ?Sized> {
    table: &'a Table<R, K>,
    slot: usize,
}

impl<'a, R: Content, K: Key + ?Sized> Iter<'a, R, K> {
    pub(super) fn new(table: &'a Table<R, K>) -> Self {
        Iter { table, slot: 0 }
    }
}

impl<R: Content, K: Key + ?Sized> Iterator for Iter<'_, R, K> {
    type Item = Result<(K::Owned, R), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let raw = &self.table.raw;
        // A row stays in its slot while it lives.
        while let Some(slot) = raw.core.next_owned(self.slot) {
            self.slot = slot + 1;
            match raw.core.row_in(slot, |words| self.table.load(&words)) {
                Ok(Some((key, row))) => return Some(Ok((K::from_stored(key), row))),
                Ok(None) => {}
                Err(error) => return Some(Err(raw.lock_failed(error))),
            }
        }
        None
    }
}
