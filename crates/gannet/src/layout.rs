//! Where what stands in the two kinds of shared regions.
//!
//! **Control region**, one a server, made by the manager, known to every process:
//! the reactors' doorbell words, the reactors' counters, two words about tasks (see `admission`), the
//! connection table. The reactors write it, but for the number of the last task; it survives a death of
//! the master.
//!
//! **Worker region**, one for each incarnation of a worker or task worker, made by the manager,
//! known to that worker and the master: the worker's doorbell word, its counters, its histograms
//! (see `histogram`), and for each reactor a `current` word, an event ring with its arena and a command
//! ring with its arena.

use gannet_shm::{ArenaSpec, RingSpec};
use serde::{Deserialize, Serialize};

use crate::wire::HEADER;

/// `kind` of the control region.
pub(crate) const CONTROL_KIND: u32 = 0x4743_0001;
/// `kind` of a worker region.
pub(crate) const WORKER_KIND: u32 = 0x4757_0001;

/// Sizes from which every offset follows; the same in all processes of one server start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dimensions {
    pub(crate) reactors: usize,
    /// Connection slots of each reactor.
    pub(crate) slots: usize,
    /// Bytes of each ring; a power of two.
    pub(crate) ring: usize,
    /// Bytes of each arena.
    pub(crate) arena: usize,
    /// Words for what is known of a connection's TLS: see `tls::info`. 0: no listener has TLS.
    pub(crate) tls_words: usize,
}

/// Words of one row of the connection table: see `conn_table`.
pub(crate) const ROW_WORDS: usize = 15;
/// Words of a row aside of it: see there.
pub(crate) const ASIDE_WORDS: usize = 12;

/// Counters of a reactor, as words from [`Dimensions::reactor_counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum ReactorCounter {
    /// Connections now open.
    Connections,
    /// Connections accepted since the start.
    Accepted,
    /// Times that accepting was paused: no descriptors, or `max_connections` reached.
    AcceptPaused,
    /// Bytes read from sockets.
    BytesIn,
    /// Bytes written to sockets.
    BytesOut,
    /// Events given to workers.
    Events,
    /// Events given to a worker again because the one before died.
    Redelivered,
    /// Events given up: poisonous (killed three workers), or their answer was impossible.
    Dropped,
    /// Messages of droppable topics not sent to slow subscribers.
    PublishDropped,
    /// Times that reading paused because a worker had no room or a connection had too much in flight.
    Stalls,
    /// Times that somebody's work went on in the next turn, because it had had its share of one.
    Yields,
    /// Events whose handler failed (error or panic).
    HandlerFailed,
    /// HTTP requests.
    Requests,
    /// HTTP/2: connections and streams so far, streams open now, streams refused for want of room,
    /// streams reset because their request was malformed.
    Http2Connections,
    Http2Streams,
    Http2Open,
    Http2Refused,
    Http2Malformed,
    /// TLS: see `control::Totals`.
    TlsHandshakes,
    TlsResumed,
    TlsFailed,
    TlsTimeouts,
    TlsDelayed,
    TlsRefused,
    TlsTruncated,
    /// Connections that were not taken, because they came from no trusted proxy.
    ProxyUntrusted,
    /// Connections closed for want of a good PROXY header.
    ProxyFailed,
    /// Requests whose forwarding header could not be read.
    ForwardedMalformed,
    /// Tasks submitted, finished, failed, refused because the queue was full (reactor 0).
    TasksSubmitted,
    TasksFinished,
    TasksFailed,
    TasksRejected,
    /// Tasks waiting for a task worker now (reactor 0).
    TasksQueued,
    /// Bytes of unfinished events kept by the reactor outside the rings, now.
    Parked,
    /// Loop turns.
    Turns,
    /// Datagrams received, and sent.
    PacketsIn,
    PacketsOut,
    /// Datagrams dropped: no room in the ring, or `max_packets` unfinished.
    PacketsDropped,
    /// Datagrams dropped: larger than `max_message_size`, or than there is room for.
    PacketsTooLarge,
    /// Datagrams that the kernel did not take from us.
    PacketsUnsent,
    /// Messages compressed: once each, however many get it.
    Compressed,
    /// Bytes that compressing has saved, each message counted once.
    CompressionSaved,
    /// First of [`CLOSE_REASONS`] counters, by `CloseReason` number.
    Closed,
}

/// Room for the counters by close reason.
pub(crate) const CLOSE_REASONS: usize = 24;
const REACTOR_COUNTERS: usize = 96;
// The last word is that of `slots_used`.
const _: () = assert!(ReactorCounter::Closed as usize + CLOSE_REASONS < REACTOR_COUNTERS);

/// Counters of a worker, as words from [`Dimensions::worker_counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum WorkerCounter {
    /// Events whose handler ran to its end.
    Handled,
    /// Events taken and not finished, now.
    InFlight,
    /// Handlers that returned an error.
    Errors,
    /// Handlers that panicked.
    Panics,
    /// Loop turns: moves as long as the worker lives.
    Turns,
    /// No count: 1 while the worker waits for room in a command ring or its arena. It stores 1,
    /// then (after a SeqCst fence) looks once more, then sleeps. A reactor that has committed
    /// commands of this worker looks (after a SeqCst fence), and if it is 1, swaps it to 0 and
    /// rings the worker's bell.
    CommandsBlocked,
    /// Times that the thread made no progress for `stall_timeout_ms` (thread mode; the watchdog counts).
    Hangs,
    /// Spans that no collector got. The thread that exports counts, and those whose span finds no room.
    SpansLost,
    /// No counts: see `claim`.
    TaskBegun,
    TasksRecalled,
}

/// How many of them there are.
pub(crate) const WORKER_COUNTS: usize = WorkerCounter::TasksRecalled as usize + 1;
const WORKER_COUNTERS: usize = 64;
const LINE: usize = 128;

impl Dimensions {
    pub(crate) fn reactor_bell(&self, reactor: usize) -> usize {
        reactor * LINE
    }

    pub(crate) fn reactor_counters(&self, reactor: usize) -> usize {
        self.reactors * LINE + reactor * REACTOR_COUNTERS * 8
    }

    /// How many slots of this reactor were ever used: rows above are empty and not to be touched,
    /// since reading a page of the region makes it cost memory.
    pub(crate) fn slots_used(&self, reactor: usize) -> usize {
        self.reactor_counters(reactor) + (REACTOR_COUNTERS - 1) * 8
    }

    /// The number of the last task.
    pub(crate) fn last_task(&self) -> usize {
        self.reactor_counters(self.reactors).next_multiple_of(LINE)
    }

    /// Whether the desk is to be asked before a task is submitted.
    pub(crate) fn tasks_crowded(&self) -> usize {
        self.last_task() + LINE
    }

    /// The connection table: row `reactor * slots + slot`.
    pub(crate) fn table(&self) -> usize {
        self.tasks_crowded() + LINE
    }

    pub(crate) fn rows(&self) -> usize {
        self.reactors * self.slots
    }

    /// What few connections have: a row for each of the connection table.
    pub(crate) fn aside_table(&self) -> usize {
        (self.table() + gannet_shm::Slots::bytes(self.rows(), ROW_WORDS)).next_multiple_of(LINE)
    }

    /// What is known of TLS: a row for each of the connection table, if there is TLS at all.
    pub(crate) fn tls_table(&self) -> usize {
        let asides = gannet_shm::Slots::bytes(self.rows(), ASIDE_WORDS);
        (self.aside_table() + asides).next_multiple_of(LINE)
    }

    pub(crate) fn tls_rows(&self) -> usize {
        if self.tls_words == 0 { 0 } else { self.rows() }
    }

    pub(crate) fn control_len(&self) -> usize {
        self.tls_table() + gannet_shm::Slots::bytes(self.tls_rows(), self.tls_words)
    }

    pub(crate) const fn worker_bell(&self) -> usize {
        0
    }

    pub(crate) const fn worker_counters(&self) -> usize {
        LINE
    }

    /// The histograms of a worker.
    pub(crate) fn histograms(&self) -> usize {
        self.current(self.reactors)
    }

    /// `seq` of the event whose handler is being polled now, of the ring of this reactor; 0 for none.
    pub(crate) fn current(&self, reactor: usize) -> usize {
        LINE + WORKER_COUNTERS * 8 + reactor * LINE
    }

    pub(crate) fn event_ring(&self, reactor: usize) -> RingSpec {
        RingSpec {
            offset: self.rings() + 2 * reactor * self.ring_bytes(),
            capacity: self.ring,
        }
    }

    pub(crate) fn command_ring(&self, reactor: usize) -> RingSpec {
        RingSpec {
            offset: self.rings() + (2 * reactor + 1) * self.ring_bytes(),
            capacity: self.ring,
        }
    }

    pub(crate) fn event_arena(&self, reactor: usize) -> ArenaSpec {
        ArenaSpec {
            offset: self.arenas() + 2 * reactor * self.arena,
            len: self.arena,
        }
    }

    pub(crate) fn command_arena(&self, reactor: usize) -> ArenaSpec {
        ArenaSpec {
            offset: self.arenas() + (2 * reactor + 1) * self.arena,
            len: self.arena,
        }
    }

    pub(crate) fn worker_len(&self) -> usize {
        self.arenas() + 2 * self.reactors * self.arena
    }

    /// Payloads over this do not go into a ring itself: an eighth, so that it holds several.
    #[inline]
    pub(crate) fn inline_limit(&self) -> usize {
        (self.ring / 8).min(RingSpec::max_record(self.ring)) - HEADER
    }

    fn rings(&self) -> usize {
        (self.histograms() + crate::histogram::BYTES).next_multiple_of(PAGE)
    }

    fn arenas(&self) -> usize {
        (self.rings() + 2 * self.reactors * self.ring_bytes()).next_multiple_of(PAGE)
    }

    fn ring_bytes(&self) -> usize {
        RingSpec::bytes(self.ring).next_multiple_of(PAGE)
    }
}

#[cfg(test)]
impl Dimensions {
    /// One reactor, one connection.
    pub(crate) const SMALLEST: Dimensions = Dimensions {
        tls_words: 0,
        reactors: 1,
        slots: 1,
        ring: 64 << 10,
        arena: 1 << 20,
    };
}

const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ABI;

    #[test]
    fn what_stands_elsewhere_has_another_version() {
        let dimensions = Dimensions {
            reactors: 2,
            slots: 8,
            ring: 1 << 16,
            arena: 1 << 20,
            tls_words: 4,
        };
        let lengths = (dimensions.control_len(), dimensions.worker_len());
        // Who changes these has a new number for `ABI`: a worker of another build would read rows where
        // there are none.
        assert_eq!((ABI, ROW_WORDS, ASIDE_WORDS), (12, 15, 12));
        assert_eq!(lengths, (7_168, 4_476_928));
    }
}
