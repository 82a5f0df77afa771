//! Every metric of the engine. `docs/metrics.md` has the same list, which a test compares.

use super::text::{Family, Kind};

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal, $help:literal;)*) => {
        $(pub(super) const $id: Family<'_> = Family {
            name: $name,
            kind: Kind::$kind,
            help: $help,
        };)*
        /// All of them, in no order.
        #[cfg(test)]
        pub(super) const ALL: &[Family<'_>] = &[$($id),*];
    };
}

families! {
    BUILD_INFO = Gauge "gannet_build_info", "Always 1; the labels say which server this is.";
    START_TIME = Gauge "gannet_start_time_seconds", "When the server was started, as Unix time.";
    READY = Gauge "gannet_ready", "1 if /readyz says so.";
    STOPPING = Gauge "gannet_stopping", "1 if the server is on its way to its end.";
    LISTENER_INFO = Gauge "gannet_listener_info", "Always 1, for each address that is listened on.";

    CONNECTIONS = Gauge "gannet_connections", "Connections open now.";
    CONNECTIONS_MAX = Gauge "gannet_connections_max", "Connections that may be open at a time (max_connections).";
    ACCEPTED = Counter "gannet_connections_accepted_total", "Connections accepted.";
    CLOSED = Counter "gannet_connections_closed_total", "Connections closed, by reason.";
    ACCEPT_PAUSED = Counter "gannet_accept_pauses_total", "Times that accepting paused: no descriptors, or max_connections reached.";
    BYTES_IN = Counter "gannet_received_bytes_total", "Bytes read from sockets.";
    BYTES_OUT = Counter "gannet_sent_bytes_total", "Bytes written to sockets.";

    EVENTS = Counter "gannet_events_total", "Events given to workers.";
    REDELIVERED = Counter "gannet_events_redelivered_total", "Events given to a worker again, because the one before died.";
    DROPPED = Counter "gannet_events_dropped_total", "Events given up: they killed three workers, or had no room at a stop.";
    FAILED = Counter "gannet_events_failed_total", "Events whose handler failed, by an error or a panic.";
    HANGS = Counter "gannet_worker_hangs_total", "Times that a worker's thread made no progress (thread mode).";
    STALLS = Counter "gannet_read_stalls_total", "Times that reading a connection paused, because its worker was behind.";
    PARKED = Gauge "gannet_parked_bytes", "Bytes of unfinished events kept outside the rings.";
    PUBLISH_DROPPED = Counter "gannet_publishes_dropped_total", "Droppable messages not sent to slow subscribers.";
    TURNS = Counter "gannet_reactor_turns_total", "Turns of the reactors' loops.";
    YIELDS = Counter "gannet_reactor_yields_total", "Times that a connection or worker had had its share of a reactor's turn.";

    HANDLER_DURATION = Histogram "gannet_handler_duration_seconds", "Time from the beginning of a handler to its end, waiting included.";
    EVENT_WAIT = Histogram "gannet_event_wait_seconds", "Time from an event's way into a worker's ring until its handler began.";
    HANDLED = Counter "gannet_handled_total", "Events whose handler ran to its end, with an error or without.";
    ERRORS = Counter "gannet_handler_errors_total", "Handlers and timers that returned an error.";
    PANICS = Counter "gannet_handler_panics_total", "Handlers and timers that panicked.";
    SPANS_LOST = Counter "gannet_spans_lost_total", "Spans that no collector got (feature opentelemetry).";
    IN_FLIGHT = Gauge "gannet_events_in_flight", "Events taken by a worker and not finished.";
    RING_USED = Gauge "gannet_ring_used_bytes", "Bytes that wait in the rings to (events) and from (commands) a worker.";
    RING_SIZE = Gauge "gannet_ring_size_bytes", "Room of each of the rings (ring_size), for all reactors.";

    PROCESSES = Gauge "gannet_processes", "Processes of a place, by state; in the middle of a reload there are two.";
    RESTARTS = Counter "gannet_restarts_total", "Processes that ended without being asked to.";
    CPU = Counter "gannet_process_cpu_seconds_total", "Processor time of a place, user and system, of its processes of before too.";
    RESIDENT = Gauge "gannet_process_resident_memory_bytes", "Resident memory, shared memory that was touched included.";

    RELOADS = Counter "gannet_reloads_total", "Reloads begun.";
    RELOADS_FAILED = Counter "gannet_reloads_failed_total", "Reloads that were aborted.";
    RELOAD_DURATION = Histogram "gannet_reload_duration_seconds", "How long reloads took, aborted ones too.";
    RELOAD_SUCCESSFUL = Gauge "gannet_last_reload_successful", "1 if the last reload replaced all workers, or there was none.";
    RELOAD_TIME = Gauge "gannet_last_reload_success_timestamp_seconds", "When a reload last ended well, as Unix time; 0 if none has.";

    TASKS_SUBMITTED = Counter "gannet_tasks_submitted_total", "Tasks submitted.";
    TASKS_FINISHED = Counter "gannet_tasks_finished_total", "Tasks that ended well.";
    TASKS_FAILED = Counter "gannet_tasks_failed_total", "Tasks that failed.";
    TASKS_REJECTED = Counter "gannet_tasks_rejected_total", "Tasks refused, because the queue was full.";
    TASKS_QUEUED = Gauge "gannet_tasks_queued", "Tasks waiting for a task worker.";
    TASKS_QUEUED_MAX = Gauge "gannet_tasks_queued_max", "Tasks that may wait (task_queue).";

    REQUESTS = Counter "gannet_http_requests_total", "HTTP requests, WebSocket handshakes included.";
    HTTP2_CONNECTIONS = Counter "gannet_http2_connections_total", "Connections that have spoken HTTP/2.";
    HTTP2_STREAMS = Counter "gannet_http2_streams_total", "Streams that they have opened.";
    HTTP2_OPEN = Gauge "gannet_http2_streams_open", "HTTP/2 streams open now; they are not among the connections.";
    HTTP2_REFUSED = Counter "gannet_http2_streams_refused_total", "Streams refused: max_streams were open, or the connection was about to end.";
    HTTP2_MALFORMED = Counter "gannet_http2_streams_malformed_total", "Streams reset because their request was malformed.";
    FORWARDED_MALFORMED = Counter "gannet_forwarded_malformed_total", "Requests whose forwarding header could not be read.";
    COMPRESSED = Counter "gannet_compressed_messages_total", "Messages compressed: once each, however many clients got it.";
    COMPRESSION_SAVED = Counter "gannet_compression_saved_bytes_total", "Bytes that compressing has saved, each message counted once.";

    PACKETS_IN = Counter "gannet_packets_received_total", "Datagrams received.";
    PACKETS_OUT = Counter "gannet_packets_sent_total", "Datagrams sent.";
    PACKETS_DROPPED = Counter "gannet_packets_dropped_total", "Datagrams dropped: a worker was behind, or they were too large.";
    PACKETS_UNSENT = Counter "gannet_packets_unsent_total", "Datagrams to others that the kernel did not take.";

    TLS_HANDSHAKES = Counter "gannet_tls_handshakes_total", "TLS handshakes that went well.";
    TLS_RESUMED = Counter "gannet_tls_resumed_total", "Of these, how many went on with an earlier session.";
    TLS_FAILED = Counter "gannet_tls_failures_total", "TLS handshakes, or records after them, that were not what they should be.";
    TLS_TIMEOUTS = Counter "gannet_tls_timeouts_total", "TLS handshakes that took longer than handshake_timeout_ms.";
    TLS_DELAYED = Counter "gannet_tls_delayed_total", "TLS handshakes that waited for their turn (max_handshakes_per_s).";
    TLS_REFUSED = Counter "gannet_tls_refused_total", "TLS handshakes that would have waited for too long.";
    TLS_TRUNCATED = Counter "gannet_tls_truncated_total", "TLS connections that ended without saying so.";
    PROXY_UNTRUSTED = Counter "gannet_proxy_untrusted_total", "Connections not taken, because they came from no trusted proxy.";
    PROXY_FAILED = Counter "gannet_proxy_failures_total", "Connections closed for want of a good PROXY header.";

    USER_COUNTER = Gauge "gannet_user_value", "Counters of the program (Server::counter).";
    LOCK_HELD = Gauge "gannet_lock_held", "1 if a lock of the program is held.";
    LOCK_DEATHS = Counter "gannet_lock_deaths_total", "Owners of a lock that died or panicked with it, as far as the next has noticed.";
    TABLE_ROWS = Gauge "gannet_table_rows", "Rows of a table of the program.";
    TABLE_ROWS_MAX = Gauge "gannet_table_rows_max", "Rows that a table can have.";
    TABLE_BYTES = Gauge "gannet_table_bytes", "Memory that a table takes.";
    TABLE_DEATHS = Counter "gannet_table_deaths_total", "Processes that died while they wrote to a table.";

    LOG_LOST = Counter "gannet_log_lines_lost_total", "Lines of the log that were lost: it could not be written, or not fast enough.";
    ADMIN_REQUESTS = Counter "gannet_admin_requests_total", "Requests to the admin listener, by status code.";
    ADMIN_REFUSED = Counter "gannet_admin_connections_refused_total", "Connections to the admin listener that found no room.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        // OpenMetrics has the names of counters without the end.
        let bare = |family: &Family<'static>| {
            let name = family.name;
            name.strip_suffix("_total").unwrap_or(name)
        };
        let mut names: Vec<_> = ALL.iter().map(bare).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name is there twice");
        for family in ALL {
            let name = family.name;
            assert!(name.starts_with("gannet_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{name}"
            );
            assert_eq!(
                name.ends_with("_seconds"),
                name.contains("seconds") && !name.contains("_total"),
                "{name}"
            );
            assert!(family.help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn the_documentation_has_them_all_and_no_others() {
        let page = include_str!("../../../../../docs/metrics.md");
        let mut documented: Vec<(&str, &str)> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `gannet_")?.split('|').map(str::trim);
                let name = cells.next()?.split(['`', '{']).next()?;
                Some((name, cells.next()?))
            })
            .collect();
        let kind = |kind| match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let mut families: Vec<_> = ALL
            .iter()
            .map(|family| (&family.name["gannet_".len()..], kind(family.kind)))
            .collect();
        documented.sort_unstable();
        families.sort_unstable();
        assert_eq!(documented, families);
    }
}
