//! What `status` and `clients` tell.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::Relaxed,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use gannet_shm::RingSpec;

use super::{
    children::{Children, Counts},
    memory,
    places::{Place, Places, Process, State, Who},
    samples::{Counted, Sample, Samples, cpu_times},
    spawn::Spawner,
};
use crate::{
    CloseReason, ConnId,
    conn_table::{Cell, ConnTable, Row},
    control::{
        ClientPage, ClientRow, Filter, LastReload, ListenerStatus, ReloadOutcome, ReloadedWorker,
        Status, Totals, Usage, WorkerState, WorkerStatus,
    },
    layout::{Dimensions, ReactorCounter},
    settings::Trust,
};

/// What a report is made from.
pub(super) struct Report<'a> {
    pub(super) now: Instant,
    pub(super) started: Instant,
    pub(super) spawner: &'a Spawner,
    pub(super) places: &'a Places,
    pub(super) children: &'a Children,
    /// By place: counters of processes that have ended.
    pub(super) departed: &'a [Counts],
    /// Where metrics and health are served.
    pub(super) admin: Option<&'a str>,
    pub(super) table: &'a ConnTable,
    pub(super) samples: &'a Samples,
}

impl Report<'_> {
    pub(super) fn status(&self, pss: bool) -> Status {
        let settings = &self.spawner.settings;
        let master = self.places.master();
        let now = self.sample();
        let census = self.table.census(settings.listeners.len());
        let listeners = settings.listeners.iter().zip(census);
        let listeners = listeners.map(|(listener, (connections, websockets))| ListenerStatus {
            address: listener.address.clone(),
            protocol: listener.protocol,
            tls: listener.tls.is_some(),
            connections,
            websockets,
        });
        let usage = |pid, started| self.usage(&now, pid, started, pss);
        let master_pid = self.children.pid(Who::Master);
        Status {
            name: settings.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            manager_pid: std::process::id(),
            master_pid,
            master_restarts: master.restarts,
            master_last_exit: master.last_exit.clone(),
            uptime_ms: self.age(self.started),
            mode: settings.mode,
            reloads: self.places.reloads(),
            last_reload: self.last_reload(),
            stopping: self.places.is_stopping(),
            manager: usage(std::process::id(), self.started),
            master: master_pid
                .zip(master.started())
                .map(|(pid, started)| usage(pid, started)),
            rates: self.samples.rates(&now),
            listeners: listeners.collect(),
            admin: self.admin.map(str::to_owned),
            workers: self.workers(&now, pss),
            shared: self.spawner.objects.status(),
            totals: self.totals(),
        }
    }

    /// What is counted now.
    pub(super) fn sample(&self) -> Sample {
        let handled = self.handled();
        let pids = self
            .places
            .processes()
            .map(|(number, _)| Who::Worker(number));
        let pids = pids.chain([Who::Master]);
        let pids = pids.filter_map(|who| self.children.pid(who));
        Sample {
            at: self.now,
            counts: Counted {
                accepted: self.sum(ReactorCounter::Accepted),
                events: self.sum(ReactorCounter::Events),
                handled: handled.iter().sum(),
                requests: self.sum(ReactorCounter::Requests),
                bytes_in: self.sum(ReactorCounter::BytesIn),
                bytes_out: self.sum(ReactorCounter::BytesOut),
                tasks: self.sum(ReactorCounter::TasksFinished),
            },
            handled,
            cpu: cpu_times(pids.chain([std::process::id()])),
        }
    }

    fn usage(&self, now: &Sample, pid: u32, started: Instant, pss: bool) -> Usage {
        let age = self.now.saturating_duration_since(started);
        Usage {
            cpu_percent: self.samples.cpu_percent(now, pid, age),
            rss: memory::rss(pid).unwrap_or(0),
            pss: pss.then(|| memory::pss(pid)).flatten(),
        }
    }

    fn last_reload(&self) -> Option<LastReload> {
        let past = self.places.last_reload()?;
        let workers = &past.reloaded.workers;
        let replaced = |worker: &&ReloadedWorker| worker.outcome == ReloadOutcome::Replaced;
        Some(LastReload {
            cause: past.cause,
            ago_ms: self.age(past.ended),
            took_ms: past.reloaded.took_ms,
            workers: workers.len(),
            replaced: workers.iter().filter(replaced).count(),
            error: past.reloaded.error.clone(),
        })
    }

    pub(super) fn workers(&self, now: &Sample, pss: bool) -> Vec<WorkerStatus> {
        let mut rows = Vec::new();
        for (index, place) in self.places.places().iter().enumerate() {
            let processes = self
                .places
                .processes()
                .filter(|(_, process)| process.place == index);
            let before = rows.len();
            rows.extend(processes.map(|(number, process)| {
                let usage = self.children.pid(Who::Worker(number));
                let usage = usage.map(|pid| self.usage(now, pid, process.started, pss));
                WorkerStatus {
                    usage,
                    ..self.process(place, number, process)
                }
            }));
            if rows.len() == before {
                rows.push(self.waiting(place, index));
            }
            let of_place = &mut rows[before..];
            // That of the place is shown once, as are the counters.
            let principal = of_place.iter_mut().find(|row| {
                place
                    .principal()
                    .is_none_or(|number| row.incarnation == number)
            });
            if let Some(row) = principal {
                row.handled_per_s = self.samples.handled_per_s(now, index);
            }
        }
        rows
    }

    fn process(&self, place: &Place, incarnation: u64, process: &Process) -> WorkerStatus {
        let who = Who::Worker(incarnation);
        let shared = self.children.shared(who);
        let own = shared
            .map(|shared| shared.counts(&self.spawner.dimensions))
            .unwrap_or_default();
        let mut counts = own;
        if place.principal() == Some(incarnation) {
            counts.add(&self.departed[process.place]);
        }
        WorkerStatus {
            pid: self.children.pid(who),
            state: match process.state {
                State::Starting { .. } | State::Standby => WorkerState::Starting,
                State::Ready => WorkerState::Ready,
                State::Retiring { .. } => WorkerState::Retiring,
            },
            incarnation,
            generation: process.generation,
            age_ms: self.age(process.started),
            in_flight: own.in_flight,
            events_ring_percent: self.fill(shared, Dimensions::event_ring),
            commands_ring_percent: self.fill(shared, Dimensions::command_ring),
            ..row(place, &counts)
        }
    }

    /// How full the fullest of a worker's rings is, in percent.
    fn fill(
        &self,
        shared: Option<&super::children::Shared>,
        ring: fn(&Dimensions, usize) -> RingSpec,
    ) -> u8 {
        let dimensions = &self.spawner.dimensions;
        let percent = |reactor| {
            let ring = ring(dimensions, reactor);
            let waiting = shared.map_or(0, |shared| ring.used(&shared.region));
            waiting.saturating_mul(100).div_ceil(ring.capacity) as u8
        };
        (0..dimensions.reactors).map(percent).max().unwrap_or(0)
    }

    /// A place without a process.
    fn waiting(&self, place: &Place, index: usize) -> WorkerStatus {
        let until = place.back_off().1.filter(|_| !place.has_ended());
        WorkerStatus {
            retry_in_ms: until.map(|at| at.saturating_duration_since(self.now).as_millis() as u64),
            ..row(place, &self.departed[index])
        }
    }

    fn totals(&self) -> Totals {
        let sum = |counter: ReactorCounter| self.sum(counter);
        let closed: BTreeMap<String, u64> = CloseReason::ALL
            .iter()
            .map(|&reason| (reason.name().to_owned(), reason as usize))
            .map(|(name, number)| (name, self.word(ReactorCounter::Closed as usize + number)))
            .filter(|&(_, count)| count > 0)
            .collect();
        Totals {
            connections: sum(ReactorCounter::Connections),
            accepted: sum(ReactorCounter::Accepted),
            accept_paused: sum(ReactorCounter::AcceptPaused),
            closed,
            bytes_in: sum(ReactorCounter::BytesIn),
            bytes_out: sum(ReactorCounter::BytesOut),
            events: sum(ReactorCounter::Events),
            handled: self.handled().iter().sum(),
            redelivered: sum(ReactorCounter::Redelivered),
            dropped: sum(ReactorCounter::Dropped),
            publish_dropped: sum(ReactorCounter::PublishDropped),
            packets_in: sum(ReactorCounter::PacketsIn),
            packets_out: sum(ReactorCounter::PacketsOut),
            packets_dropped: sum(ReactorCounter::PacketsDropped),
            packets_too_large: sum(ReactorCounter::PacketsTooLarge),
            packets_unsent: sum(ReactorCounter::PacketsUnsent),
            stalls: sum(ReactorCounter::Stalls),
            yields: sum(ReactorCounter::Yields),
            handler_failed: sum(ReactorCounter::HandlerFailed),
            hangs: self.hangs(),
            requests: sum(ReactorCounter::Requests),
            http2_connections: sum(ReactorCounter::Http2Connections),
            http2_streams: sum(ReactorCounter::Http2Streams),
            http2_open: sum(ReactorCounter::Http2Open),
            http2_refused: sum(ReactorCounter::Http2Refused),
            http2_malformed: sum(ReactorCounter::Http2Malformed),
            tls_handshakes: sum(ReactorCounter::TlsHandshakes),
            tls_resumed: sum(ReactorCounter::TlsResumed),
            tls_failed: sum(ReactorCounter::TlsFailed),
            tls_timeouts: sum(ReactorCounter::TlsTimeouts),
            tls_delayed: sum(ReactorCounter::TlsDelayed),
            tls_refused: sum(ReactorCounter::TlsRefused),
            tls_truncated: sum(ReactorCounter::TlsTruncated),
            tasks_submitted: sum(ReactorCounter::TasksSubmitted),
            tasks_finished: sum(ReactorCounter::TasksFinished),
            tasks_failed: sum(ReactorCounter::TasksFailed),
            tasks_rejected: sum(ReactorCounter::TasksRejected),
            tasks_queued: sum(ReactorCounter::TasksQueued),
            parked: sum(ReactorCounter::Parked),
            log_lost: self.spawner.log.queue.lost(),
            turns: sum(ReactorCounter::Turns),
            compressed: sum(ReactorCounter::Compressed),
            proxy_untrusted: sum(ReactorCounter::ProxyUntrusted),
            proxy_failed: sum(ReactorCounter::ProxyFailed),
            forwarded_malformed: sum(ReactorCounter::ForwardedMalformed),
            compression_saved: sum(ReactorCounter::CompressionSaved),
        }
    }

    /// By place, with those of processes that have ended.
    fn handled(&self) -> Vec<u64> {
        let mut handled: Vec<u64> = self.departed.iter().map(|counts| counts.handled).collect();
        for (incarnation, process) in self.places.processes() {
            if let Some(shared) = self.children.shared(Who::Worker(incarnation)) {
                handled[process.place] += shared.counts(&self.spawner.dimensions).handled;
            }
        }
        handled
    }

    /// A counter of all reactors together.
    fn sum(&self, counter: ReactorCounter) -> u64 {
        self.word(counter as usize)
    }

    fn word(&self, counter: usize) -> u64 {
        let dimensions = &self.spawner.dimensions;
        let of_reactor = |reactor| dimensions.reactor_counters(reactor) + counter * 8;
        let words = (0..dimensions.reactors).map(of_reactor);
        words
            .map(|at| self.spawner.control.word(at).load(Relaxed))
            .sum()
    }

    fn hangs(&self) -> u64 {
        let living = self.places.processes().filter_map(|(incarnation, _)| {
            let shared = self.children.shared(Who::Worker(incarnation))?;
            Some(shared.counts(&self.spawner.dimensions).hangs)
        });
        living.sum()
    }

    fn age(&self, since: Instant) -> u64 {
        self.now.saturating_duration_since(since).as_millis() as u64
    }
}

/// Which rows of the connection table are wanted.
#[derive(Debug, Default)]
pub(super) struct Selection {
    listener: Option<usize>,
    addresses: Option<Trust>,
    uid: Option<String>,
    /// In order.
    members: Option<Vec<ConnId>>,
}

impl Selection {
    /// `members` are those of the topic, if one is given; the error says what is wrong.
    pub(super) fn new(
        only: &Filter,
        members: Option<Vec<ConnId>>,
    ) -> std::result::Result<Self, String> {
        Ok(Selection {
            listener: only.listener,
            addresses: only.addresses()?,
            uid: only.uid.clone(),
            members: members.or(only.conn.map(|conn| vec![conn])),
        })
    }

    fn has(&self, row: &Row) -> bool {
        self.listener
            .is_none_or(|listener| usize::from(row.listener) == listener)
            && self.uid.as_ref().is_none_or(|uid| row.uid == *uid)
            && self
                .addresses
                .as_ref()
                .is_none_or(|addresses| !row.unheard && addresses.has(row.peer))
    }

    /// The rows to be looked at, from `from` on.
    fn rows(&self, table: &ConnTable, from: usize) -> Vec<usize> {
        match &self.members {
            None => table.rows_in_use(from).take(MAX_SCAN + 1).collect(),
            Some(members) => {
                let rows = members.iter().filter(|&&id| table.is_open(id));
                let mut rows: Vec<usize> = rows.filter_map(|&id| table.row_of(id)).collect();
                rows.retain(|&row| row >= from);
                rows.sort_unstable();
                rows.truncate(MAX_SCAN + 1);
                rows
            }
        }
    }
}

/// The rows of the connection table from `from` on that are in use and wanted, at most `limit`.
pub(super) fn clients(
    table: &ConnTable,
    from: usize,
    limit: usize,
    selection: &Selection,
) -> ClientPage {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64;
    let limit = limit.clamp(1, MAX_PAGE);
    let mut clients = Vec::new();
    for (looked_at, index) in selection.rows(table, from).into_iter().enumerate() {
        if clients.len() == limit || looked_at == MAX_SCAN {
            return ClientPage {
                clients,
                next: Some(index),
            };
        }
        let Some(row) = table.row(index).filter(|row| selection.has(row)) else {
            continue;
        };
        let cell = |cell| table.cell(index, cell).load(Relaxed);
        clients.push(ClientRow {
            id: row.id,
            peer: row.peer.to_string(),
            proxy: row.proxy.map(|proxy| proxy.to_string()),
            listener: row.listener.into(),
            worker: row.worker,
            uid: (!row.uid.is_empty()).then_some(row.uid),
            websocket: row.websocket,
            tls: row.tls,
            age_ms: now.saturating_sub(row.opened),
            idle_ms: now.saturating_sub(cell(Cell::LastSeen).max(row.opened)),
            bytes_in: cell(Cell::BytesIn),
            bytes_out: cell(Cell::BytesOut),
            messages_in: cell(Cell::MessagesIn),
            messages_out: cell(Cell::MessagesOut),
            queued: cell(Cell::Queued),
        });
    }
    ClientPage {
        clients,
        next: None,
    }
}

impl Counts {
    pub(super) fn add(&mut self, other: &Counts) {
        self.handled += other.handled;
        self.errors += other.errors;
        self.panics += other.panics;
        self.spans_lost += other.spans_lost;
    }
}

fn row(place: &Place, counts: &Counts) -> WorkerStatus {
    WorkerStatus {
        id: place.id,
        role: place.kind,
        name: place.name.clone(),
        pid: None,
        state: match place.has_ended() {
            true => WorkerState::Ended,
            false => WorkerState::Waiting,
        },
        incarnation: 0,
        generation: place.generation(),
        restarts: place.restarts,
        age_ms: 0,
        in_flight: 0,
        handled: counts.handled,
        errors: counts.errors,
        panics: counts.panics,
        last_exit: place.last_exit.clone(),
        early_deaths: place.back_off().0,
        retry_in_ms: None,
        handled_per_s: 0.0,
        events_ring_percent: 0,
        commands_ring_percent: 0,
        usage: None,
    }
}

/// Rows in one reply, so that it is made in milliseconds.
const MAX_PAGE: usize = 10_000;
/// Rows looked at for one reply, for the same reason, however few are wanted.
const MAX_SCAN: usize = 20_000;

#[cfg(test)]
mod tests {
    use gannet_shm::Region;

    use super::*;
    use crate::{ConnId, WorkerId, conn_table::Row, layout::CONTROL_KIND};

    #[test]
    fn clients_come_in_pages_without_gaps() {
        let dimensions = Dimensions {
            reactors: 2,
            slots: 8,
            ring: 1 << 16,
            arena: 1 << 22,
            tls_words: 0,
        };
        let control = Region::create("report", CONTROL_KIND, dimensions.control_len()).unwrap();
        let table = ConnTable::attach(control, dimensions);
        for slot in [1, 3, 5] {
            for reactor in 0..2 {
                let id = ConnId::new(1, reactor, slot);
                let row = Row {
                    id,
                    listener: 0,
                    worker: WorkerId(0),
                    websocket: false,
                    tls: false,
                    unheard: false,
                    closed: false,
                    peer: crate::Peer::Ip("127.0.0.1:5".parse().unwrap()),
                    proxy: None,
                    local: Some("127.0.0.1:6".parse().unwrap()),
                    uid: String::new(),
                    opened: 0,
                };
                table.open(table.row_of(id).unwrap(), &row);
            }
        }
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(row) = from {
            let page = clients(&table, row, 4, &Selection::default());
            assert!(page.clients.len() <= 4);
            seen.extend(page.clients.iter().map(|client| client.id.slot()));
            from = page.next;
        }
        assert_eq!(seen, [1, 3, 5, 1, 3, 5]);
    }
}
