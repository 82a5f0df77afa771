//! The connection table: one row per connection slot, in the control region.
//!
//! The reactor that owns a slot writes its row; every process reads. Row `reactor * slots + slot`.
//!
//! | words | what                                                                             |
//! |-------|----------------------------------------------------------------------------------|
//! | 0     | connection id; 0: the slot is free                                               |
//! | 1     | listener (16 bits), worker (16 bits), flags (32 bits)                            |
//! | 2, 3  | peer IP, as IPv6 (IPv4 mapped); on a Unix socket pid; uid and gid (32 bits each) |
//! | 4     | ports of peer and local (16 bits each); scope of a link-local peer (32 bits)     |
//! | 5, 6  | local IP                                                                         |
//! | 7     | opened, Unix time in ms                                                          |
//! | 8..   | [`Cell`]s, each for itself: they change too often for the lock of the row        |
//!
//! What few connections have stands aside, in a row of the same number that is not touched, and costs
//! no memory, as long as nobody on its page needs it:
//!
//! | words | what                                                                             |
//! |-------|----------------------------------------------------------------------------------|
//! | 0     | connection id; another's: there is nothing about this one                        |
//! | 1     | length of the uid, port of the proxy (16 bits each), flags (32 bits)             |
//! | 2, 3  | the proxy, as the peer above                                                     |
//! | 4..   | uid                                                                              |
//!
//! It is written before the row that refers to it.

mod row;

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gannet_shm::{Region, Slots, WordRows};

pub(crate) use self::row::Row;
use self::row::{ASIDE, CLOSED, ROW, WEBSOCKET};
use crate::{
    id::{ConnId, WorkerId},
    layout::{ASIDE_WORDS, Dimensions, ROW_WORDS},
    peer::Peer,
    tls::TlsInfo,
};

/// The table, attached.
#[derive(Debug)]
pub(crate) struct ConnTable {
    slots: Slots,
    /// The same by word, for what every message changes.
    words: WordRows<WORDS>,
    asides: Slots,
    /// Rows as `tls::info` writes them, for the same slots.
    tls: Slots,
    control: Arc<Region>,
    dimensions: Dimensions,
}

/// Words behind the row that are updated by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Cell {
    /// Unix time in ms.
    LastSeen = ROW,
    BytesIn,
    BytesOut,
    MessagesIn,
    MessagesOut,
    /// Bytes that wait to be written, now.
    Queued,
    /// The last generation that the slot was used in; stays when the row is emptied.
    Generation,
}

impl ConnTable {
    /// The table in this control region.
    pub(crate) fn attach(control: Arc<Region>, dimensions: Dimensions) -> Self {
        let at = dimensions.table();
        let slots = Slots::attach(control.clone(), at, dimensions.rows(), ROW_WORDS);
        let at = dimensions.aside_table();
        let asides = Slots::attach(control.clone(), at, dimensions.rows(), ASIDE_WORDS);
        let rows = dimensions.tls_rows();
        let at = dimensions.tls_table();
        let tls = Slots::attach(control.clone(), at, rows, dimensions.tls_words);
        ConnTable {
            words: slots.by_word(),
            slots,
            asides,
            tls,
            control,
            dimensions,
        }
    }

    /// The row that a connection has while it lives. `None`: there can be no such connection.
    pub(crate) fn row_of(&self, id: ConnId) -> Option<usize> {
        let fits = id.reactor() < self.dimensions.reactors && id.slot() < self.dimensions.slots;
        fits.then(|| id.reactor() * self.dimensions.slots + id.slot())
    }

    /// Where the rows of a reactor begin: that of a connection of its own is its slot further on.
    pub(crate) fn first_row(&self, reactor: usize) -> usize {
        reactor * self.dimensions.slots
    }

    /// The connection's row, if it is open.
    pub(crate) fn get(&self, id: ConnId) -> Option<Row> {
        self.row(self.row_of(id)?).filter(|row| row.id == id)
    }

    /// Whether the connection is open. One load.
    pub(crate) fn is_open(&self, id: ConnId) -> bool {
        self.row_of(id).is_some_and(|row| {
            self.slots.cell(row, 0).load(Relaxed) == id.as_u64() && !self.is_closed(row)
        })
    }

    /// How many connections are open at each listener, and how many of them are WebSockets. Two loads
    /// for each.
    pub(crate) fn census(&self, listeners: usize) -> Vec<(u64, u64)> {
        let mut counts = vec![(0, 0); listeners];
        for row in self.rows_in_use(0) {
            let word = self.slots.cell(row, 1).load(Relaxed);
            if let Some((all, websockets)) = counts.get_mut(usize::from(word as u16)) {
                *all += 1;
                *websockets += u64::from(word & WEBSOCKET != 0);
            }
        }
        counts
    }

    /// What stands in a row; `None` if it is free, or its writer died while it wrote.
    pub(crate) fn row(&self, row: usize) -> Option<Row> {
        if self.slots.cell(row, 0).load(Relaxed) == 0 {
            return None;
        }
        let mut words = [0; ROW];
        if !self.slots.read(row, &mut words) {
            return None;
        }
        Row::decode(&words, || {
            let mut aside = [0; ASIDE];
            self.asides.read(row, &mut aside).then_some(aside)
        })
    }

    /// Writer: who is at the other end of one of its connections.
    pub(crate) fn peer(&self, id: ConnId) -> Peer {
        let row = self.row_of(id);
        row::peer(|word| row.map_or(0, |row| self.slots.cell(row, word).load(Relaxed)))
    }

    /// The rows of open connections from `from` on, in order; what comes or goes meanwhile may be
    /// in it or not.
    pub(crate) fn rows_in_use(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.dimensions.reactors)
            .flat_map(|reactor| self.rows_ever_used(reactor))
            .filter(move |&row| row >= from)
            .filter(|&row| self.slots.cell(row, 0).load(Relaxed) != 0 && !self.is_closed(row))
    }

    /// The rows that a reactor has filled since the server started.
    pub(crate) fn rows_ever_used(&self, reactor: usize) -> Range<usize> {
        let used = self.control.word(self.dimensions.slots_used(reactor));
        let first = reactor * self.dimensions.slots;
        let count = (used.load(Relaxed) as usize).min(self.dimensions.slots);
        first..first + count
    }

    /// Writer: fills the row of a new connection, whose cells are empty.
    pub(crate) fn open(&self, row: usize, content: &Row) {
        let used = self.dimensions.slots_used(content.id.reactor());
        // Only the reactor itself writes it.
        let used = self.control.word(used);
        used.store(
            used.load(Relaxed).max(content.id.slot() as u64 + 1),
            Relaxed,
        );
        // First of all: a number whose writer died in between is not given out again.
        self.cell(row, Cell::Generation)
            .store(content.id.generation().into(), Relaxed);
        self.write(row, content);
    }

    /// Writer: the connection speaks WebSocket now.
    pub(crate) fn set_websocket(&self, row: usize) {
        self.set_flag(row, WEBSOCKET);
    }

    /// Writer: the connection's TLS handshake is done.
    pub(crate) fn set_tls(&self, row: usize, info: &TlsInfo) {
        if let Some(content) = self.row(row)
            && row < self.tls.rows()
        {
            let words = info.encode(content.id.as_u64(), self.dimensions.tls_words);
            self.tls.write(row, &words);
            self.write(
                row,
                &Row {
                    tls: true,
                    ..content
                },
            );
        }
    }

    /// Writer: the connection in row `to` has the TLS of the one in row `from`.
    pub(crate) fn copy_tls(&self, from: usize, to: usize, id: ConnId) {
        if from.max(to) < self.tls.rows() {
            let mut words = vec![0; self.dimensions.tls_words];
            if self.tls.read(from, &mut words) {
                words[0] = id.as_u64();
                self.tls.write(to, &words);
            }
        }
    }

    /// Writer: it is known who the client is, and what it connected to; the connection's worker may be
    /// another for that.
    pub(crate) fn set_client(
        &self,
        row: usize,
        peer: Peer,
        proxy: Option<Peer>,
        local: Option<SocketAddr>,
        worker: WorkerId,
    ) {
        if let Some(content) = self.row(row) {
            self.write(
                row,
                &Row {
                    peer,
                    proxy,
                    local,
                    worker,
                    unheard: false,
                    ..content
                },
            );
        }
    }

    /// What is known of the TLS of the connection in this row.
    pub(crate) fn tls(&self, at: usize, row: &Row) -> Option<TlsInfo> {
        if !row.tls {
            return None;
        }
        let mut words = vec![0; self.dimensions.tls_words];
        self.tls
            .read(at, &mut words)
            .then(|| TlsInfo::decode(row.id.as_u64(), &words))
            .flatten()
    }

    /// Writer: the connection is bound to `uid`; empty: to none.
    pub(crate) fn set_uid(&self, row: usize, uid: &str) {
        if let Some(content) = self.row(row) {
            self.write(
                row,
                &Row {
                    uid: uid.to_owned(),
                    ..content
                },
            );
        }
    }

    /// Writer: the connection is closed; its row stays until [`ConnTable::clear`].
    pub(crate) fn set_closed(&self, row: usize) {
        self.set_flag(row, CLOSED);
    }

    /// Writer: makes a row readable that a writer left when it died.
    pub(crate) fn repair(&self, row: usize) {
        let used = self.cell(row, Cell::Generation).load(Relaxed);
        if self.slots.repair(row) {
            self.clear(row);
            // Or its numbers would be given out again.
            self.cell(row, Cell::Generation).store(used, Relaxed);
        }
    }

    /// The last generation in which a slot was used.
    pub(crate) fn generation(&self, reactor: usize, slot: usize) -> u32 {
        let row = reactor * self.dimensions.slots + slot;
        self.cell(row, Cell::Generation).load(Relaxed) as u32
    }

    /// Writer: fills a row. The cells are left as they are: see [`ConnTable::clear`].
    pub(crate) fn write(&self, at: usize, row: &Row) {
        if row.has_aside() {
            self.asides.write(at, &row.encode_aside());
        }
        self.slots.write(at, &row.encode());
    }

    /// Writer: empties a row and its cells.
    pub(crate) fn clear(&self, row: usize) {
        self.slots.write(row, &[0; ROW]);
        for cell in ROW..Cell::Generation as usize {
            self.slots.cell(row, cell).store(0, Relaxed);
        }
    }

    fn is_closed(&self, row: usize) -> bool {
        self.slots.cell(row, 1).load(Relaxed) & CLOSED != 0
    }

    /// Writer: one word changes by itself, so nothing can be torn.
    fn set_flag(&self, row: usize, flag: u64) {
        let word = self.slots.cell(row, 1);
        word.store(word.load(Relaxed) | flag, Relaxed);
    }

    /// Writer: counts in one of the cells of a row.
    #[inline]
    pub(crate) fn add(&self, row: usize, cell: Cell, by: usize) {
        add(&self.words[row][1 + cell as usize], by);
    }

    /// Writer: so many bytes have come from the client, at this Unix time (ms).
    #[inline]
    pub(crate) fn note_received(&self, row: usize, unix: u64, bytes: usize) {
        let words = &self.words[row];
        words[1 + Cell::LastSeen as usize].store(unix, Relaxed);
        add(&words[1 + Cell::BytesIn as usize], bytes);
    }

    /// One of the cells of a row.
    #[inline]
    pub(crate) fn cell(&self, row: usize, cell: Cell) -> &AtomicU64 {
        self.slots.cell(row, cell as usize)
    }
}

/// For the one writer of a cell.
#[inline]
fn add(cell: &AtomicU64, by: usize) {
    cell.store(cell.load(Relaxed) + by as u64, Relaxed);
}

// A row and what it begins with is two cache lines: see `Slots`.
const _: () = assert!((Cell::Generation as usize) < ROW_WORDS);
const _: () = assert!(Slots::bytes(1, ROW_WORDS) == WORDS * 8);
const _: () = assert!(ASIDE == ASIDE_WORDS);

/// Words that a row takes in memory; the first is its lock.
const WORDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layout::CONTROL_KIND, peer::Credentials};

    fn row(id: ConnId) -> Row {
        Row {
            id,
            listener: 2,
            worker: WorkerId(1023),
            websocket: true,
            tls: true,
            unheard: false,
            closed: false,
            peer: Peer::Ip("192.0.2.7:50001".parse().unwrap()),
            local: Some("[2001:db8::1]:443".parse().unwrap()),
            proxy: Some(Peer::Ip("[2001:db8::9]:1".parse().unwrap())),
            uid: "ann".to_owned(),
            opened: 1_700_000_000_123,
        }
    }

    fn table() -> ConnTable {
        let dimensions = Dimensions {
            reactors: 2,
            slots: 8,
            ring: 1 << 16,
            arena: 1 << 22,
            tls_words: 0,
        };
        let control = Region::create("table", CONTROL_KIND, dimensions.control_len()).unwrap();
        ConnTable::attach(control, dimensions)
    }

    #[test]
    fn a_row_keeps_what_was_written() {
        let table = table();
        let id = ConnId::new(5, 1, 3);
        let at = table.row_of(id).unwrap();
        let kept = |row: &Row| {
            table.write(at, row);
            table.get(id).unwrap()
        };
        for uid in ["", "a", "exactly8", &"u".repeat(63)] {
            let row = Row {
                uid: uid.to_owned(),
                ..row(id)
            };
            assert_eq!(kept(&row), row);
        }
        let local = "[fe80::7%2]:50001".parse().unwrap();
        let link_local = Row {
            peer: Peer::Ip(local),
            ..row(id)
        };
        assert_eq!(kept(&link_local), link_local);
        assert_eq!(table.peer(id), link_local.peer);
        let unix = Row {
            peer: Peer::Unix(Credentials {
                pid: 7,
                uid: 1000,
                gid: u32::MAX,
            }),
            local: None,
            ..row(id)
        };
        assert_eq!(kept(&unix), unix);
        let through = Row {
            peer: row(id).peer,
            proxy: Some(unix.peer),
            ..unix.clone()
        };
        assert_eq!(kept(&through), through);
        let without = Row {
            proxy: None,
            unheard: true,
            ..unix
        };
        assert_eq!(kept(&without), without);
        let plain = Row {
            uid: String::new(),
            closed: true,
            ..without
        };
        assert_eq!(kept(&plain), plain, "nothing of what stood aside");
        let long = Row {
            uid: format!("{}\u{e9}", "u".repeat(62)),
            ..row(id)
        };
        assert_eq!(kept(&long).uid, "u".repeat(62));
    }

    #[test]
    fn what_stands_aside_is_of_one_connection() {
        let table = table();
        let (one, next) = (ConnId::new(5, 1, 3), ConnId::new(6, 1, 3));
        let at = table.row_of(one).unwrap();
        table.write(at, &row(one));
        // The next has a row, and died before it wrote the one aside.
        table.slots.write(at, &row(next).encode());
        let found = table.get(next).unwrap();
        assert_eq!((found.uid.as_str(), found.proxy), ("", None));
    }

    #[test]
    fn a_row_whose_writer_died_is_empty_and_its_numbers_stay_used() {
        let table = table();
        let id = ConnId::new(5, 1, 3);
        let at = table.row_of(id).unwrap();
        table.open(at, &row(id));
        // What a writer in the middle of a row leaves.
        let offset = table.dimensions.table() + at * Slots::bytes(1, ROW_WORDS);
        table.control.word(offset).fetch_add(1, Relaxed);
        assert!(table.get(id).is_none());

        table.repair(at);
        assert_eq!(table.rows_in_use(0).count(), 0);
        assert_eq!(table.generation(1, 3), 5);
    }

    #[test]
    fn only_the_connection_that_holds_the_slot_is_found() {
        let table = table();
        let id = ConnId::new(5, 1, 3);
        let at = table.row_of(id).unwrap();
        assert!(table.get(id).is_none() && !table.is_open(id));

        table.open(at, &row(id));
        table.cell(at, Cell::BytesIn).store(7, Relaxed);
        assert_eq!(table.get(id), Some(row(id)));
        assert!(table.is_open(id));
        assert!(
            table.get(ConnId::new(6, 1, 3)).is_none(),
            "a successor in the slot"
        );
        assert!(
            table.get(ConnId::new(5, 40, 3)).is_none(),
            "no such reactor"
        );
        assert_eq!(table.rows_in_use(0).collect::<Vec<_>>(), [at]);

        table.set_closed(at);
        assert!(!table.is_open(id) && table.get(id).is_some_and(|row| row.closed));
        assert_eq!(table.rows_in_use(0).count(), 0);

        table.clear(at);
        assert_eq!(table.rows_in_use(0).count(), 0);
        assert_eq!(table.cell(at, Cell::BytesIn).load(Relaxed), 0);
    }
}
