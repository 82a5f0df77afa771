//! The span of an event: from the call of the handler's method until it has ended.

use bytes::Bytes;
use http::StatusCode;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Level, Span, field::Empty, span::Entered};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{EXPORTING, TARGET, is_on};
use crate::{
    ConnId, Peer, WorkerId,
    control::Role as Kind,
    direct::Event,
    wire::{
        event::{EventKind, REDELIVERED},
        head::Head,
    },
    worker::{Outcome, Shared},
};

/// The span of an event; none while nothing is exported.
pub(crate) struct EventSpan {
    span: Span,
    kind: EventKind,
}

impl EventSpan {
    /// The span of this event, which is about to be handled.
    pub(crate) fn begin(shared: &Shared, of: &Event) -> Self {
        let span = if is_on() {
            span(shared, of)
        } else {
            Span::none()
        };
        let kind = of.header.kind;
        EventSpan { span, kind }
    }

    /// Whether there is one.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        !self.span.is_disabled()
    }

    /// The handler is polled: what it does belongs to the span.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.span.enter()
    }

    /// The handler has ended. `unanswered`: it has sent nothing of a response.
    pub(crate) fn end(&self, outcome: &Outcome, unanswered: bool) {
        if !self.is_on() {
            return;
        }
        let (outcome, error) = match outcome {
            // Of a task its own result counts: `task_ended` has it.
            Outcome::Fine if self.kind == EventKind::Task => return,
            Outcome::Fine => ("ok", None),
            Outcome::Failed(error) => ("error", Some(error.to_string())),
            Outcome::Panicked(text) => ("panic", Some(text.clone())),
        };
        let failed = error.is_some();
        record(&self.span, outcome, error);
        if failed && unanswered && matches!(self.kind, EventKind::Request | EventKind::Open) {
            // The master answers then.
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let status = i64::from(status.as_u16());
            self.span.record("http.response.status_code", status);
        }
    }
}

/// The handler that runs has answered its request with this.
pub(crate) fn answered(status: StatusCode) {
    if !is_on() {
        return;
    }
    // The handler's own spans have ended or do not run now: this is the event's.
    let span = Span::current();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.as_str());
    }
}

/// The task that runs has this result.
pub(crate) fn task_ended(result: &Result<Bytes, String>) {
    if is_on() {
        let (outcome, error) = match result {
            Ok(_) => ("ok", None),
            Err(reason) => ("error", Some(reason.clone())),
        };
        record(&Span::current(), outcome, error);
    }
}

fn record(span: &Span, outcome: &str, error: Option<String>) {
    span.record("gannet.outcome", outcome);
    if let Some(error) = error {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error);
        span.record("error.type", outcome);
    }
}

fn span(shared: &Shared, of: &Event) -> Span {
    if !tracing::span_enabled!(target: TARGET, Level::INFO) {
        return Span::none();
    }
    let header = &of.header;
    let (event, kind) = names(shared, header.kind);
    let of_conn = header.conn != ConnId::from_u64(0);
    let row = of_conn.then(|| shared.table().get(header.conn)).flatten();
    let listener = (of_conn || header.kind == EventKind::Packet)
        .then(|| shared.settings.listeners.get(usize::from(header.origin)))
        .flatten();
    let from =
        matches!(header.kind, EventKind::Task | EventKind::Pipe).then_some(WorkerId(header.origin));
    let task = matches!(header.kind, EventKind::Task | EventKind::Finish).then_some(header.aux);
    let head = match header.kind {
        EventKind::Request | EventKind::Open => Head::split(&of.payload).map(|(head, _)| head),
        _ => None,
    };
    let method = head
        .as_ref()
        .map(|head| String::from_utf8_lossy(head.method()));
    let target = head
        .as_ref()
        .map(|head| String::from_utf8_lossy(head.target()));
    let (path, query) = target.as_deref().map_or((None, None), split_target);
    let version = head.as_ref().map(|head| match head.version() {
        0 => "1.0",
        1 => "1.1",
        _ => "2",
    });
    let scheme = head.as_ref().and(row.as_ref());
    let scheme = scheme.map(|row| if row.tls { "https" } else { "http" });
    let client = head.as_ref().and_then(|head| head.client());
    let client = client.or_else(|| match row.as_ref()?.peer {
        Peer::Ip(address) => Some(address),
        Peer::Unix(_) => None,
    });
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "event",
        otel.name = method.as_deref().map_or(event, known_method),
        otel.kind = kind,
        gannet.event = event,
        gannet.conn.id = of_conn.then(|| header.conn.as_u64() as i64),
        gannet.listener = listener.map(|listener| listener.address.as_str()),
        gannet.worker.id = i64::from(shared.id.0),
        gannet.worker.from = from.map(|from| i64::from(from.0)),
        gannet.task.id = task.map(|task| task as i64),
        gannet.redelivered = header.has(REDELIVERED),
        gannet.outcome = Empty,
        http.request.method = method.as_deref().map(known_method),
        http.request.method_original = method.as_deref().filter(|method| known_method(method) == OTHER),
        http.response.status_code = Empty,
        url.scheme = scheme,
        url.path = path,
        url.query = query,
        network.protocol.name = head.as_ref().map(|_| "http"),
        network.protocol.version = version,
        client.address = client.map(|client| client.ip().to_string()),
        client.port = client.map(|client| i64::from(client.port())).filter(|port| *port != 0),
        error.type = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    );
    if let Some(parent) = head.as_ref().and_then(parent) {
        // It fails only if the subscriber does not export, or the sampler wants nothing of it.
        let _ = span.set_parent(parent);
    }
    span
}

/// The event's name, and the span's kind.
fn names(shared: &Shared, kind: EventKind) -> (&'static str, &'static str) {
    match kind {
        EventKind::Connect => ("connect", "internal"),
        EventKind::Receive => ("receive", "server"),
        EventKind::Packet => ("packet", "server"),
        EventKind::Request => ("request", "server"),
        EventKind::Open => ("open", "server"),
        EventKind::Message => ("message", "server"),
        EventKind::Close => ("close", "internal"),
        EventKind::Task => ("task", "consumer"),
        EventKind::Finish => ("finish", "consumer"),
        EventKind::Pipe if shared.kind == Kind::Process => ("process_message", "consumer"),
        EventKind::Pipe => ("pipe_message", "consumer"),
        // Handlers hear nothing of the rest.
        _ => ("other", "internal"),
    }
}

/// The trace that a request says it belongs to. Two such headers say nothing.
fn parent(head: &Head<'_>) -> Option<Context> {
    if !EXPORTING.get()?.joins {
        return None;
    }
    let values = |wanted: &'static str| {
        let found = head
            .headers()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
        found.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    };
    let mut parents = values("traceparent");
    let (parent, None) = (parents.next()?, parents.next()) else {
        return None;
    };
    let carrier = Carrier {
        parent,
        state: values("tracestate").collect::<Vec<_>>().join(","),
    };
    let empty = Context::new();
    Some(TraceContextPropagator::new().extract_with_context(&empty, &carrier))
}

/// What of the headers says where a request comes from.
struct Carrier<'a> {
    parent: &'a str,
    state: String,
}

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.parent),
            "tracestate" => Some(&self.state),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Path and query of a target in any of its forms.
fn split_target(target: &str) -> (Option<&str>, Option<&str>) {
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => match rest.find(['/', '?']) {
            Some(at) => &rest[at..],
            None => "/",
        },
        _ => target,
    };
    match target.split_once('?') {
        Some((path, query)) => (Some(path), Some(query)),
        None => (Some(target), None),
    }
}

/// Clients must not be able to make up names.
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 10] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    ];
    let known = KNOWN.into_iter().find(|known| *known == method);
    known.unwrap_or(OTHER)
}

/// What the conventions call a method that is not in their list.
const OTHER: &str = "_OTHER";
