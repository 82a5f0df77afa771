//! The page of `/metrics`.

use super::{
    Counts, Export,
    catalog::*,
    health,
    processes::{self, Usage},
    record::Record,
    text::{Family, Format, Labels, Writer},
};
use crate::{
    control::{Role, Status, TableStatus, Totals, WorkerState, WorkerStatus},
    histogram::{Histograms, Timed},
    manager::{children::Counts as PlaceCounts, places::Who, report::Report},
};

/// What the page is made from.
pub(super) struct Facts<'a> {
    pub(super) report: &'a Report<'a>,
    pub(super) record: &'a Record,
    pub(super) exports: &'a [Export],
    pub(super) admin: &'a Counts,
}

/// The whole page.
pub(super) fn page(facts: &Facts<'_>, format: Format) -> String {
    let mut page = Writer::new(format);
    let status = facts.report.status(false);
    server(&mut page, facts, &status);
    totals(&mut page, facts, &status.totals);
    latencies(&mut page, facts);
    places(&mut page, facts, &status);
    reloads(&mut page, facts, &status);
    objects(&mut page, facts, &status);
    admin(&mut page, facts.admin);
    page.finish()
}

fn server(page: &mut Writer, facts: &Facts<'_>, status: &Status) {
    page.family(&BUILD_INFO);
    let labels = [("name", &*status.name), ("version", &*status.version)];
    page.sample(&BUILD_INFO, &labels, 1);
    page.single(&START_TIME, facts.record.started);
    let is_ready = health::unready(facts.report).is_empty();
    page.single(&READY, u8::from(is_ready));
    page.single(&STOPPING, u8::from(status.stopping));
    page.family(&LISTENER_INFO);
    for (index, listener) in status.listeners.iter().enumerate() {
        let scheme = listener.protocol.scheme_with(listener.tls);
        let labels = [
            ("listener", &*index.to_string()),
            ("address", &*listener.address),
            ("scheme", scheme),
        ];
        page.sample(&LISTENER_INFO, &labels, 1);
    }
}

/// Each of the totals is to be here: it is taken apart without a rest, so that none is forgotten.
fn totals(page: &mut Writer, facts: &Facts<'_>, totals: &Totals) {
    let settings = &facts.report.spawner.settings;
    let Totals {
        connections,
        accepted,
        accept_paused,
        closed,
        bytes_in,
        bytes_out,
        events,
        // By place: see `places`.
        handled: _,
        redelivered,
        dropped,
        publish_dropped,
        stalls,
        handler_failed,
        hangs,
        requests,
        tls_handshakes,
        tls_resumed,
        tls_failed,
        tls_timeouts,
        tls_delayed,
        tls_refused,
        tls_truncated,
        proxy_untrusted,
        proxy_failed,
        forwarded_malformed,
        tasks_submitted,
        tasks_finished,
        tasks_failed,
        tasks_rejected,
        tasks_queued,
        parked,
        packets_in,
        packets_out,
        packets_dropped,
        packets_too_large,
        packets_unsent,
        turns,
        compressed,
        compression_saved,
        yields,
        http2_connections,
        http2_streams,
        http2_open,
        http2_refused,
        http2_malformed,
        log_lost,
    } = totals;
    page.single(&CONNECTIONS, connections);
    page.single(&CONNECTIONS_MAX, settings.max_connections);
    page.single(&ACCEPTED, accepted);
    page.family(&CLOSED);
    for (reason, count) in closed {
        page.sample(&CLOSED, &[("reason", reason)], count);
    }
    page.family(&PACKETS_DROPPED);
    for (reason, count) in [
        ("behind", packets_dropped),
        ("too_large", packets_too_large),
    ] {
        page.sample(&PACKETS_DROPPED, &[("reason", reason)], count);
    }
    page.single(&TASKS_QUEUED_MAX, settings.task_queue);
    for (family, value) in [
        (&ACCEPT_PAUSED, accept_paused),
        (&BYTES_IN, bytes_in),
        (&BYTES_OUT, bytes_out),
        (&EVENTS, events),
        (&REDELIVERED, redelivered),
        (&DROPPED, dropped),
        (&FAILED, handler_failed),
        (&HANGS, hangs),
        (&STALLS, stalls),
        (&PARKED, parked),
        (&PUBLISH_DROPPED, publish_dropped),
        (&TURNS, turns),
        (&LOG_LOST, log_lost),
        (&YIELDS, yields),
        (&TASKS_SUBMITTED, tasks_submitted),
        (&TASKS_FINISHED, tasks_finished),
        (&TASKS_FAILED, tasks_failed),
        (&TASKS_REJECTED, tasks_rejected),
        (&TASKS_QUEUED, tasks_queued),
        (&REQUESTS, requests),
        (&HTTP2_CONNECTIONS, http2_connections),
        (&HTTP2_STREAMS, http2_streams),
        (&HTTP2_OPEN, http2_open),
        (&HTTP2_REFUSED, http2_refused),
        (&HTTP2_MALFORMED, http2_malformed),
        (&FORWARDED_MALFORMED, forwarded_malformed),
        (&COMPRESSED, compressed),
        (&COMPRESSION_SAVED, compression_saved),
        (&PACKETS_IN, packets_in),
        (&PACKETS_OUT, packets_out),
        (&PACKETS_UNSENT, packets_unsent),
        (&TLS_HANDSHAKES, tls_handshakes),
        (&TLS_RESUMED, tls_resumed),
        (&TLS_FAILED, tls_failed),
        (&TLS_TIMEOUTS, tls_timeouts),
        (&TLS_DELAYED, tls_delayed),
        (&TLS_REFUSED, tls_refused),
        (&TLS_TRUNCATED, tls_truncated),
        (&PROXY_UNTRUSTED, proxy_untrusted),
        (&PROXY_FAILED, proxy_failed),
    ] {
        page.single(family, value);
    }
}

fn latencies(page: &mut Writer, facts: &Facts<'_>) {
    let report = facts.report;
    let mut all: Histograms = facts.record.departed.clone();
    for (incarnation, _) in report.places.processes() {
        if let Some(shared) = report.children.shared(Who::Worker(incarnation)) {
            all.add(&shared.region, report.spawner.dimensions.histograms());
        }
    }
    page.family(&HANDLER_DURATION);
    if report.spawner.settings.latency_histograms {
        for (timed, event) in Timed::HANDLERS {
            page.histogram(&HANDLER_DURATION, &[("event", event)], all.of(timed));
        }
    }
    page.family(&EVENT_WAIT);
    if report.spawner.settings.latency_histograms {
        page.histogram(&EVENT_WAIT, &[], all.of(Timed::Wait));
    }
}

/// What there is for each place, all processes of it taken together.
struct Row<'a> {
    /// None for the manager and the master.
    place: Option<usize>,
    labels: Vec<(&'static str, String)>,
    /// Those that live.
    pids: Vec<u32>,
    workers: Vec<&'a WorkerStatus>,
    /// Of those that are gone, too.
    counts: PlaceCounts,
}

fn places(page: &mut Writer, facts: &Facts<'_>, status: &Status) {
    let rows = rows(facts, status);
    let of_places = || rows.iter().filter(|row| row.place.is_some());
    let counts: [Column<PlaceCounts>; 5] = [
        (&HANDLED, |counts| counts.handled),
        (&ERRORS, |counts| counts.errors),
        (&PANICS, |counts| counts.panics),
        (&SPANS_LOST, |counts| counts.spans_lost),
        (&IN_FLIGHT, |counts| counts.in_flight),
    ];
    for (family, count) in counts {
        page.family(family);
        for row in of_places() {
            row.sample(page, family, &[], count(&row.counts));
        }
    }

    page.family(&PROCESSES);
    for row in of_places() {
        for (state, name) in STATES {
            let is = |worker: &&&WorkerStatus| worker.state == state && worker.pid.is_some();
            let count = row.workers.iter().filter(is).count();
            row.sample(page, &PROCESSES, &[("state", name)], count);
        }
    }
    page.family(&RESTARTS);
    for row in &rows {
        let restarts = match row.place {
            Some(index) => facts.report.places.places()[index].restarts,
            None if row.is_master() => status.master_restarts,
            None => continue,
        };
        row.sample(page, &RESTARTS, &[], restarts);
    }

    let usages: Vec<Usage> = rows.iter().map(|row| row.usage(facts.record)).collect();
    page.family(&CPU);
    for (row, usage) in rows.iter().zip(&usages) {
        row.sample(page, &CPU, &[], processes::seconds(usage.ticks));
    }
    page.family(&RESIDENT);
    for (row, usage) in rows.iter().zip(&usages) {
        row.sample(page, &RESIDENT, &[], processes::bytes(usage.pages));
    }
    rings(page, facts, &rows);
}

fn rings(page: &mut Writer, facts: &Facts<'_>, rows: &[Row<'_>]) {
    let report = facts.report;
    let dimensions = &report.spawner.dimensions;
    page.family(&RING_USED);
    for row in rows.iter().filter(|row| row.place.is_some()) {
        let (mut events, mut commands) = (0, 0);
        for worker in &row.workers {
            if let Some(shared) = report.children.shared(Who::Worker(worker.incarnation)) {
                for reactor in 0..dimensions.reactors {
                    events += dimensions.event_ring(reactor).used(&shared.region);
                    commands += dimensions.command_ring(reactor).used(&shared.region);
                }
            }
        }
        row.sample(page, &RING_USED, &[("ring", "events")], events);
        row.sample(page, &RING_USED, &[("ring", "commands")], commands);
    }
    page.single(&RING_SIZE, dimensions.ring * dimensions.reactors);
}

fn rows<'a>(facts: &Facts<'_>, status: &'a Status) -> Vec<Row<'a>> {
    let row = |role: &str, place, pids| Row {
        place,
        labels: vec![("role", role.to_owned())],
        pids,
        workers: Vec::new(),
        counts: PlaceCounts::default(),
    };
    let mut rows = vec![
        row("manager", None, vec![status.manager_pid]),
        row(MASTER, None, status.master_pid.into_iter().collect()),
    ];
    for (index, place) in facts.report.places.places().iter().enumerate() {
        let role = match place.kind {
            Role::Worker => "worker",
            Role::TaskWorker => "task_worker",
            Role::Process => "process",
        };
        let workers = status.workers.iter().filter(|worker| worker.id == place.id);
        let workers: Vec<_> = workers.collect();
        let pids = workers.iter().filter_map(|worker| worker.pid).collect();
        let mut row = row(role, Some(index), pids);
        row.labels.push(("id", place.id.to_string()));
        if let Some(name) = &place.name {
            row.labels.push(("name", name.clone()));
        }
        let counts = counts(facts.report, index);
        rows.push(Row {
            workers,
            counts,
            ..row
        });
    }
    rows
}

/// What the processes of a place have counted that live and that are gone. A row of `status` has less:
/// one that retires has its own only.
fn counts(report: &Report<'_>, index: usize) -> PlaceCounts {
    let mut counts = report.departed[index];
    for (incarnation, process) in report.places.processes() {
        if process.place == index
            && let Some(shared) = report.children.shared(Who::Worker(incarnation))
        {
            let own = shared.counts(&report.spawner.dimensions);
            counts.add(&own);
            counts.in_flight += own.in_flight;
        }
    }
    counts
}

impl Row<'_> {
    fn is_master(&self) -> bool {
        self.labels.iter().any(|(_, value)| value == MASTER)
    }

    fn sample(
        &self,
        page: &mut Writer,
        family: &Family<'_>,
        more: &Labels<'_>,
        value: impl std::fmt::Display,
    ) {
        let own = self.labels.iter().map(|(name, value)| (*name, &**value));
        let labels: Vec<_> = own.chain(more.iter().copied()).collect();
        page.sample(family, &labels, value);
    }

    /// Processor time also of those that are gone, memory of those that live.
    fn usage(&self, record: &Record) -> Usage {
        let mut sum = Usage {
            // The manager has none that are gone.
            ticks: match self.place {
                None if !self.is_master() => 0,
                place => record.ticks(place),
            },
            pages: 0,
        };
        for usage in self.pids.iter().filter_map(|&pid| Usage::of(pid)) {
            sum.ticks += usage.ticks;
            sum.pages += usage.pages;
        }
        sum
    }
}

fn reloads(page: &mut Writer, facts: &Facts<'_>, status: &Status) {
    let record = facts.record;
    page.single(&RELOADS, status.reloads);
    page.single(&RELOADS_FAILED, record.reloads_failed);
    page.family(&RELOAD_DURATION);
    page.histogram(&RELOAD_DURATION, &[], record.reloads.read());
    page.single(&RELOAD_SUCCESSFUL, u8::from(record.last_successful));
    page.single(&RELOAD_TIME, record.last_success);
}

/// Counters, locks and tables of the program.
fn objects(page: &mut Writer, facts: &Facts<'_>, status: &Status) {
    let shared = &status.shared;
    page.family(&USER_COUNTER);
    for counter in &shared.counters {
        page.sample(&USER_COUNTER, &[("name", &counter.name)], counter.value);
    }
    for export in facts.exports {
        let counter = shared.counters.iter().find(|one| one.name == export.name);
        if let Some(counter) = counter {
            page.single(&export.family(), counter.value);
        }
    }
    page.family(&LOCK_HELD);
    for lock in &shared.locks {
        let held = u8::from(lock.held_by.is_some());
        page.sample(&LOCK_HELD, &[("name", &lock.name)], held);
    }
    page.family(&LOCK_DEATHS);
    for lock in &shared.locks {
        page.sample(&LOCK_DEATHS, &[("name", &lock.name)], lock.deaths);
    }
    let of_tables: [Column<TableStatus>; 4] = [
        (&TABLE_ROWS, |table| table.rows as u64),
        (&TABLE_ROWS_MAX, |table| table.max_rows as u64),
        (&TABLE_BYTES, |table| table.bytes),
        (&TABLE_DEATHS, |table| table.deaths),
    ];
    for (family, value) in of_tables {
        page.family(family);
        for table in &shared.tables {
            page.sample(family, &[("name", &table.name)], value(table));
        }
    }
}

fn admin(page: &mut Writer, counts: &Counts) {
    page.family(&ADMIN_REQUESTS);
    for (code, count) in &counts.requests {
        page.sample(&ADMIN_REQUESTS, &[("code", &code.to_string())], count);
    }
    page.single(&ADMIN_REFUSED, counts.refused);
}

/// A metric, and where its value is.
type Column<T> = (&'static Family<'static>, fn(&T) -> u64);

const MASTER: &str = "master";
const STATES: [(WorkerState, &str); 3] = [
    (WorkerState::Starting, "starting"),
    (WorkerState::Ready, "ready"),
    (WorkerState::Retiring, "retiring"),
];
