//! The events of one thread on their way from its reactor to its worker, and those that are owed an outcome.
//!
//! Both are the same rows, in a ring of them whose length is a power of two: where a row stands follows from its
//! number, so nothing is looked for and nothing moved. Payloads lie behind each other in a few pieces, in the order of
//! the rows: what is written between two looks of the worker is allocated once, and each event gets its share of it
//! when it is read.
//!
//! | state of a row | left by | to |
//! |---|---|---|
//! | **unread** | [`Events::next`] | read; over, if no outcome is owed |
//! | **read** | [`Events::finish`] | over |
//! | | many behind it that are over | late: a row of its own, outside of the ring |
//! | **over** | those before it are over | free |
//!
//! # Invariants
//!
//! 1. `base <= read <= next`; the rows from `base` on are used, those from `read` on are unread. In front stands one that
//!    is not over. The late ones have numbers below `base`.
//! 2. The payloads of the rows from `read` on are `reading`, `pieces` and `chunk`, in this order; the first row of a
//!    piece says so.
//! 3. `held` is what all events without outcome take, `live` how many they are. At most twice as many rows are used, or
//!    [`KEEP`], and those that are unread and owe nothing.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::{Event, Full, Limits, Room};
use crate::{
    ConnId,
    wire::event::{EventHeader, EventKind},
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Events {
    rows: Vec<Row>,
    base: u64,
    read: u64,
    next: u64,
    /// What is not read.
    pub(super) waiting: Room,
    /// What has no outcome.
    pub(super) held: Room,
    pub(super) live: usize,
    late: BTreeMap<u64, Owed>,
    /// Of the newest rows: what is written goes here.
    chunk: BytesMut,
    /// Of those before them.
    pieces: VecDeque<Bytes>,
    /// The rest of the piece that is being read.
    reading: Bytes,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    header: EventHeader,
    /// Bytes of the payload.
    len: usize,
    state: State,
    /// Its payload is the first of a piece.
    first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unread,
    Read,
    Over,
}

/// What is left of a row that others have gone past.
#[derive(Debug)]
struct Owed {
    header: EventHeader,
    len: usize,
}

impl Events {
    /// Numbers begin with 1.
    pub(super) fn new() -> Self {
        Events {
            base: 1,
            read: 1,
            next: 1,
            ..Events::default()
        }
    }

    /// Writes an event that is owed an outcome, and gives its number.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        limits: &Limits,
        header: &EventHeader,
        payload: &[&[u8]],
    ) -> Result<u64, Full> {
        let (seq, len) = (self.next, total(payload));
        if !limits.held.has(limits, self.held, len) {
            return Err(Full);
        }
        self.write(limits, header, seq, payload, len)?;
        self.held.take(limits, len);
        self.live += 1;
        Ok(seq)
    }

    /// Writes an event that is owed nothing.
    pub(super) fn post(
        &mut self,
        limits: &Limits,
        header: &EventHeader,
        payload: &[u8],
    ) -> Result<(), Full> {
        self.write(limits, header, 0, &[payload], payload.len())
    }

    #[inline(always)]
    fn write(
        &mut self,
        limits: &Limits,
        header: &EventHeader,
        seq: u64,
        payload: &[&[u8]],
        len: usize,
    ) -> Result<(), Full> {
        if !limits.waiting.has(limits, self.waiting, len) {
            return Err(Full);
        }
        let first = match len <= limits.inline {
            true => self.keep(payload, len),
            false => self.keep_apart(payload.concat()),
        };
        if self.next - self.base == self.rows.len() as u64 {
            self.resize((2 * self.rows.len()).max(LEAST));
        }
        let at = self.at(self.next);
        if let Some(row) = self.rows.get_mut(at) {
            row.header = *header;
            row.header.seq = seq;
            row.len = len;
            row.state = State::Unread;
            row.first = first;
        }
        self.next += 1;
        self.waiting.take(limits, len);
        Ok(())
    }

    /// The worker's next event.
    #[inline(always)]
    pub(super) fn next(&mut self, limits: &Limits) -> Option<Event> {
        let number = self.read;
        if number == self.next {
            self.tidy();
            return None;
        }
        let at = self.at(number);
        let row = self.rows.get_mut(at)?;
        let Row {
            header, len, first, ..
        } = *row;
        self.read = number + 1;
        row.state = State::Read;
        if header.seq == 0 {
            row.state = State::Over;
            self.sweep(number);
        }
        if first {
            self.reading = match self.pieces.pop_front() {
                Some(piece) => piece,
                None => self.chunk.split().freeze(),
            };
        }
        let payload = match len {
            0 => Bytes::new(),
            len => self.reading.split_to(len),
        };
        self.waiting.give_back(limits, len);
        Some(Event { header, payload })
    }

    pub(super) fn has_unread(&self) -> bool {
        self.read != self.next
    }

    /// An event has its outcome: whose it was. `None`: there is no such event, or it was over before.
    #[inline(always)]
    pub(super) fn finish(&mut self, limits: &Limits, seq: u64) -> Option<ConnId> {
        let at = self.at(seq);
        let (conn, len) = match self.rows.get_mut(at) {
            Some(row) if row.header.seq == seq && row.state == State::Read => {
                row.state = State::Over;
                (row.header.conn, row.len)
            }
            _ => {
                let owed = self.late.remove(&seq)?;
                (owed.header.conn, owed.len)
            }
        };
        self.held.give_back(limits, len);
        self.live -= 1;
        self.sweep(seq);
        Some(conn)
    }

    /// Takes all events without outcome, in order: header, payload, and whether they were read, in which case the
    /// payload went with the worker.
    pub(super) fn take_unfinished(&mut self, limits: &Limits) -> Vec<(EventHeader, Vec<u8>, bool)> {
        let late = std::mem::take(&mut self.late).into_values();
        let mut unfinished: Vec<_> = late.map(|owed| (owed.header, Vec::new(), true)).collect();
        for number in self.base..self.read {
            let row = self.rows.get(self.at(number));
            if let Some(row) = row.filter(|row| row.state == State::Read) {
                unfinished.push((row.header, Vec::new(), true));
            }
        }
        while let Some(Event { header, payload }) = self.next(limits) {
            if header.seq != 0 {
                unfinished.push((header, payload.to_vec(), false));
            }
        }
        *self = Events {
            base: self.next,
            read: self.next,
            next: self.next,
            ..Events::default()
        };
        unfinished
    }

    /// Where the row of a number stands.
    #[inline]
    fn at(&self, number: u64) -> usize {
        number as usize & self.rows.len().wrapping_sub(1)
    }

    /// Keeps a small payload behind those before it. Says whether it is the first of a piece.
    #[inline]
    fn keep(&mut self, payload: &[&[u8]], len: usize) -> bool {
        if len == 0 {
            return false;
        }
        if self.chunk.capacity() - self.chunk.len() < len {
            self.new_chunk(len);
        }
        let first = self.chunk.is_empty();
        for part in payload {
            self.chunk.extend_from_slice(part);
        }
        first
    }

    #[cold]
    fn new_chunk(&mut self, len: usize) {
        self.end_piece();
        self.chunk.reserve(len.max(CHUNK));
    }

    /// The same with a large one, which is a piece by itself.
    #[cold]
    fn keep_apart(&mut self, payload: Vec<u8>) -> bool {
        self.end_piece();
        self.pieces.push_back(payload.into());
        true
    }

    fn end_piece(&mut self) {
        if !self.chunk.is_empty() {
            self.pieces.push_back(self.chunk.split().freeze());
        }
    }

    /// All that was written is read: memory for a great many is not kept.
    #[inline]
    fn tidy(&mut self) {
        if self.rows.len() > KEEP && self.rows.len() as u64 > 4 * (self.next - self.base) {
            self.resize(KEEP);
        }
    }

    /// This event is over. Lets go of what is over at the front. An event that takes its time must not keep those that
    /// come after it: when they are many, it is moved out of their way.
    #[inline]
    fn sweep(&mut self, seq: u64) {
        if seq == self.base {
            self.base += 1;
            self.let_go();
        }
        if self.has_many_over() {
            self.make_way();
        }
    }

    #[inline]
    fn let_go(&mut self) {
        while self.base < self.read && self.front().is_none_or(|row| row.state == State::Over) {
            self.base += 1;
        }
    }

    #[cold]
    fn make_way(&mut self) {
        while self.base < self.read && self.has_many_over() {
            if let Some(&Row { header, len, .. }) = self.front() {
                self.late.insert(self.base, Owed { header, len });
            }
            let at = self.at(self.base);
            if let Some(row) = self.rows.get_mut(at) {
                row.state = State::Over;
            }
            self.let_go();
        }
    }

    #[inline]
    fn front(&self) -> Option<&Row> {
        self.rows.get(self.at(self.base))
    }

    /// Whether most of many rows is over.
    #[inline]
    fn has_many_over(&self) -> bool {
        let len = (self.next - self.base) as usize;
        len > KEEP && len / 2 > self.live - self.late.len()
    }

    /// Rows that are used.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        (self.next - self.base) as usize
    }

    #[cold]
    fn resize(&mut self, len: usize) {
        let len = len.max((self.next - self.base).next_power_of_two() as usize);
        let mut rows = vec![Row::FREE; len];
        for number in self.base..self.next {
            rows[number as usize & (len - 1)] = self.rows[self.at(number)];
        }
        self.rows = rows;
    }
}

#[inline]
fn total(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

impl Row {
    const FREE: Row = Row {
        header: EventHeader::new(EventKind::Tick, ConnId::from_u64(0)),
        len: 0,
        state: State::Over,
        first: false,
    };
}

/// Rows that there are at least.
const LEAST: usize = 64;
/// Memory for more events than these is not kept when there are none.
pub(super) const KEEP: usize = 1024;
/// Bytes that the payloads of many small events share. Whoever keeps one of them keeps all.
const CHUNK: usize = 16 << 10;
