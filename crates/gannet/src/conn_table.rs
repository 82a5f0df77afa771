//! The connection table: one row per connection slot, in the control region.
//!
//! The reactor that owns a slot writes its row; every process reads. Row `reactor * slots + slot`.
//!
//! | words  | what                                                                             |
//! |--------|----------------------------------------------------------------------------------|
//! | 0      | connection id; 0: the slot is free                                               |
//! | 1      | listener (16 bits), worker (16 bits), flags (32 bits)                            |
//! | 2, 3   | peer IP, as IPv6 (IPv4 mapped); on a Unix socket pid; uid and gid (32 bits each) |
//! | 4      | ports of peer, local and proxy (16 bits each), length of the uid (16 bits)       |
//! | 5, 6   | local IP                                                                         |
//! | 7..=14 | uid                                                                              |
//! | 15     | opened, Unix time in ms                                                          |
//! | 16, 17 | the proxy, as the peer in 2 and 3                                                |
//! | 18..   | [`Cell`]s, each for itself: they change too often for the lock of the row        |

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gannet_shm::{Region, Slots};

use crate::{
    id::{ConnId, WorkerId},
    layout::{Dimensions, ROW_WORDS},
    peer::{Credentials, Peer},
    tls::TlsInfo,
};

/// The table, attached.
#[derive(Debug)]
pub(crate) struct ConnTable {
    slots: Slots,
    /// Rows as `tls::info` writes them, for the same slots.
    tls: Slots,
    control: Arc<Region>,
    dimensions: Dimensions,
}

/// What is known of a connection and seldom changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: ConnId,
    pub(crate) listener: u16,
    pub(crate) worker: WorkerId,
    pub(crate) websocket: bool,
    /// There is a row about its TLS.
    pub(crate) tls: bool,
    /// Its PROXY header is not here: no worker has heard of it.
    pub(crate) unheard: bool,
    pub(crate) peer: Peer,
    /// The other end of the socket, if that has named the peer.
    pub(crate) proxy: Option<Peer>,
    /// `None` on a Unix socket.
    pub(crate) local: Option<SocketAddr>,
    /// At most [`MAX_UID`](crate::wire::command::MAX_UID) bytes; empty: none is bound. What is
    /// longer is cut.
    pub(crate) uid: String,
    /// Unix time in ms.
    pub(crate) opened: u64,
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
    /// When the connection was closed, Unix time in ms; 0: it is open. The row stays until the
    /// connection's last event is done.
    Closed,
    /// The last generation that the slot was used in; stays when the row is emptied.
    Generation,
}

impl ConnTable {
    /// The table in this control region.
    pub(crate) fn attach(control: Arc<Region>, dimensions: Dimensions) -> Self {
        let at = dimensions.table();
        let slots = Slots::attach(control.clone(), at, dimensions.rows(), ROW_WORDS);
        let rows = dimensions.tls_rows();
        let at = dimensions.tls_table();
        let tls = Slots::attach(control.clone(), at, rows, dimensions.tls_words);
        ConnTable {
            slots,
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
        self.slots
            .read(row, &mut words)
            .then(|| Row::decode(&words))
            .flatten()
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
        self.write(row, content);
        self.cell(row, Cell::Generation)
            .store(content.id.generation().into(), Relaxed);
    }

    /// Writer: the connection speaks WebSocket now.
    pub(crate) fn set_websocket(&self, row: usize) {
        if let Some(content) = self.row(row) {
            self.write(
                row,
                &Row {
                    websocket: true,
                    ..content
                },
            );
        }
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
    pub(crate) fn set_closed(&self, row: usize, now: u64) {
        self.cell(row, Cell::Closed).store(now, Relaxed);
    }

    /// Writer: makes a row readable that a writer left when it died.
    pub(crate) fn repair(&self, row: usize) {
        if self.slots.repair(row) {
            self.clear(row);
        }
    }

    /// The last generation in which a slot was used.
    pub(crate) fn generation(&self, reactor: usize, slot: usize) -> u32 {
        let row = reactor * self.dimensions.slots + slot;
        self.cell(row, Cell::Generation).load(Relaxed) as u32
    }

    /// Writer: fills a row. The cells are left as they are: see [`ConnTable::clear`].
    pub(crate) fn write(&self, slot_row: usize, row: &Row) {
        self.slots.write(slot_row, &row.encode());
    }

    /// Writer: empties a row and its cells.
    pub(crate) fn clear(&self, row: usize) {
        self.slots.write(row, &[0; ROW]);
        for cell in ROW..Cell::Generation as usize {
            self.slots.cell(row, cell).store(0, Relaxed);
        }
    }

    fn is_closed(&self, row: usize) -> bool {
        self.cell(row, Cell::Closed).load(Relaxed) != 0
    }

    /// One of the cells of a row.
    pub(crate) fn cell(&self, row: usize, cell: Cell) -> &AtomicU64 {
        self.slots.cell(row, cell as usize)
    }
}

impl Row {
    pub(crate) fn encode(&self) -> [u64; ROW] {
        let mut words = [0; ROW];
        words[0] = self.id.as_u64();
        let mut flags = if self.websocket { WEBSOCKET } else { 0 };
        flags |= if self.tls { TLS } else { 0 };
        flags |= if self.unheard { UNHEARD } else { 0 };
        let (peer, peer_port, is_unix) = peer_words(self.peer);
        [words[2], words[3]] = peer;
        flags |= if is_unix { UNIX } else { 0 };
        let mut proxy_port = 0;
        if let Some(proxy) = self.proxy {
            let (proxy, port, is_unix) = peer_words(proxy);
            [words[PROXY], words[PROXY + 1]] = proxy;
            proxy_port = port;
            flags |= PROXIED | if is_unix { UNIX_PROXY } else { 0 };
        }
        let mut local_port = 0;
        if let Some(local) = self.local {
            flags |= LOCAL;
            local_port = local.port();
            [words[5], words[6]] = ip_words(local.ip());
        }
        words[1] = u64::from(self.listener) | u64::from(self.worker.0) << 16 | flags;
        let uid = cut(&self.uid);
        words[4] = u64::from(peer_port)
            | u64::from(local_port) << 16
            | u64::from(proxy_port) << 32
            | (uid.len() as u64) << 48;
        for (word, bytes) in words[UID..UID + UID_WORDS].iter_mut().zip(uid.chunks(8)) {
            let mut full = [0; 8];
            full[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(full);
        }
        words[15] = self.opened;
        words
    }

    /// `None` for a free row.
    pub(crate) fn decode(words: &[u64; ROW]) -> Option<Self> {
        if words[0] == 0 {
            return None;
        }
        let mut uid = [0; UID_WORDS * 8];
        for (bytes, word) in uid.as_chunks_mut::<8>().0.iter_mut().zip(&words[UID..]) {
            *bytes = word.to_le_bytes();
        }
        let uid = &uid[..((words[4] >> 48) as usize).min(uid.len())];
        Some(Row {
            id: ConnId::from_u64(words[0]),
            listener: words[1] as u16,
            worker: WorkerId((words[1] >> 16) as u16),
            websocket: words[1] & WEBSOCKET != 0,
            tls: words[1] & TLS != 0,
            unheard: words[1] & UNHEARD != 0,
            peer: peer_from([words[2], words[3]], words[4] as u16, words[1] & UNIX != 0),
            proxy: (words[1] & PROXIED != 0).then(|| {
                peer_from(
                    [words[PROXY], words[PROXY + 1]],
                    (words[4] >> 32) as u16,
                    words[1] & UNIX_PROXY != 0,
                )
            }),
            local: (words[1] & LOCAL != 0)
                .then(|| SocketAddr::new(ip_from(words[5], words[6]), (words[4] >> 16) as u16)),
            uid: String::from_utf8_lossy(uid).into_owned(),
            opened: words[15],
        })
    }
}

/// The longest beginning of a uid that fits and is whole characters.
fn cut(uid: &str) -> &[u8] {
    &uid.as_bytes()[..uid.floor_char_boundary(crate::wire::command::MAX_UID)]
}

/// Its words, its port, and whether it is on a Unix socket.
fn peer_words(peer: Peer) -> ([u64; 2], u16, bool) {
    match peer {
        Peer::Ip(addr) => (ip_words(addr.ip()), addr.port(), false),
        Peer::Unix(Credentials { pid, uid, gid }) => {
            let words = [u64::from(pid), u64::from(uid) | u64::from(gid) << 32];
            (words, 0, true)
        }
    }
}

fn peer_from(words: [u64; 2], port: u16, is_unix: bool) -> Peer {
    match is_unix {
        false => Peer::Ip(SocketAddr::new(ip_from(words[0], words[1]), port)),
        true => Peer::Unix(Credentials {
            pid: words[0] as u32,
            uid: words[1] as u32,
            gid: (words[1] >> 32) as u32,
        }),
    }
}

fn ip_words(ip: IpAddr) -> [u64; 2] {
    let v6 = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = v6.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

fn ip_from(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).to_canonical()
}

/// Words under the lock of the row.
const ROW: usize = 18;
/// First word of the uid.
const UID: usize = 7;
const UID_WORDS: usize = 8;
/// First word of the proxy.
const PROXY: usize = 16;
/// Flags of word 1: it is a WebSocket; it is on a Unix socket; it has a local address; it has a
/// proxy; that is on a Unix socket; no worker has heard of it; there is a row about its TLS.
const WEBSOCKET: u64 = 1 << 32;
const UNIX: u64 = 1 << 33;
const LOCAL: u64 = 1 << 34;
const PROXIED: u64 = 1 << 35;
const UNIX_PROXY: u64 = 1 << 36;
const UNHEARD: u64 = 1 << 37;
const TLS: u64 = 1 << 38;

const _: () = assert!(UID_WORDS * 8 >= crate::wire::command::MAX_UID);
const _: () = assert!((Cell::Generation as usize) < ROW_WORDS);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::CONTROL_KIND;

    fn row(id: ConnId) -> Row {
        Row {
            id,
            listener: 2,
            worker: WorkerId(1023),
            websocket: true,
            tls: true,
            unheard: false,
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
        let id = ConnId::new(5, 1, 3);
        for uid in ["", "a", "exactly8", &"u".repeat(63)] {
            let row = Row {
                uid: uid.to_owned(),
                ..row(id)
            };
            assert_eq!(Row::decode(&row.encode()), Some(row));
        }
        let unix = Row {
            peer: Peer::Unix(Credentials {
                pid: 7,
                uid: 1000,
                gid: u32::MAX,
            }),
            local: None,
            ..row(id)
        };
        assert_eq!(Row::decode(&unix.encode()), Some(unix.clone()));
        let through = Row {
            peer: row(id).peer,
            proxy: Some(unix.peer),
            ..unix.clone()
        };
        assert_eq!(Row::decode(&through.encode()), Some(through));
        let without = Row {
            proxy: None,
            unheard: true,
            ..unix
        };
        assert_eq!(Row::decode(&without.encode()), Some(without));
        let long = Row {
            uid: format!("{}\u{e9}", "u".repeat(62)),
            ..row(id)
        };
        assert_eq!(Row::decode(&long.encode()).unwrap().uid, "u".repeat(62));
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

        table.clear(at);
        assert_eq!(table.rows_in_use(0).count(), 0);
        assert_eq!(table.cell(at, Cell::BytesIn).load(Relaxed), 0);
    }
}
