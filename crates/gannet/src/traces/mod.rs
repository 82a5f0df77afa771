//! A span for each event that a handler handles, sent to an OpenTelemetry collector. Only with the
//! feature `opentelemetry`; without it `off` stands in for this module, and is empty.
//!
//! ```text
//! event ─▶ EventSpan ─┐
//! spans of handlers ──┴▶ tracing ─▶ OpenTelemetryLayer ─▶ Bounded ─▶ batches, a thread ─▶ Counted ─▶ collector
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `config` | the `OTEL_` variables |
//! | `event` | the span of an event |
//! | `export` | the way to the collector: bounded, counted |
//! | `client` | HTTP to the collector |
//!
//! What holds:
//!
//! - A handler never waits for a collector: a span that finds [`Config::queue`] spans waiting is dropped
//!   and counted.
//! - Every span that was begun for export is sent, or counted as lost, once; what is lost is in the log.
//! - A process that ends gracefully sends what waits, for at most [`FLUSH`].
//! - Manager and master have no spans: they neither handle events nor export. In thread mode the server's
//!   only process does.

mod client;
mod config;
mod event;
mod export;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, registry::LookupSpan};

pub(crate) use self::event::{EventSpan, answered, task_ended};
use self::{
    config::Config,
    export::{Export, exporter},
};
use crate::{
    Error, Result, Settings,
    logging::{self, Who},
    worker::Shared,
};

/// What spans of events have as their target: they are no part of log lines.
pub(crate) const TARGET: &str = "gannet::event";

/// Of this process, while it exports.
struct Exporting {
    provider: SdkTracerProvider,
    export: Export,
    /// Whether requests may say which trace they belong to.
    joins: bool,
}

/// Refuses variables that cannot be obeyed.
pub(crate) fn check() -> Result {
    Config::from_environment().map(drop)
}

/// The layer that exports spans of this process, if the environment names a collector.
pub(crate) fn layer<S>(who: &Who, settings: &Settings) -> Result<Option<impl Layer<S> + use<S>>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let Some(config) = Config::from_environment()? else {
        return Ok(None);
    };
    let (role, id) = who.role();
    let (processor, export) = exporter(&config)?;
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("process.pid", i64::from(std::process::id())),
        KeyValue::new("gannet.process.role", role.to_owned()),
        KeyValue::new("gannet.process.id", id as i64),
        KeyValue::new("gannet.process.title", who.title().to_owned()),
    ]);
    if !config.is_named {
        resource = resource.with_service_name(settings.name.clone());
    }
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_span_processor(processor)
        .build();
    let tracer = provider.tracer("gannet");
    // Programs that use the API of OpenTelemetry itself find what the engine uses.
    global::set_tracer_provider(provider.clone());
    global::set_text_map_propagator(TraceContextPropagator::new());
    let exporting = Exporting {
        provider,
        export,
        joins: config.joins,
    };
    if EXPORTING.set(exporting).is_err() {
        return Err(Error::new("spans are exported already"));
    }
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        // Two clocks for each poll.
        .with_tracked_inactivity(false);
    Ok(Some(layer.with_filter(filter(settings)?)))
}

/// The subscriber is in place: from now on events have spans.
pub(crate) fn begin() {
    IS_ON.store(true, Relaxed);
}

/// What sends the rest when it is dropped, at the end of a process.
#[must_use]
pub(crate) struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        end();
    }
}

/// Sends what waits; the process ends.
pub(crate) fn end() {
    let Some(Exporting {
        provider, export, ..
    }) = EXPORTING.get()
    else {
        return;
    };
    // What has not gone by then is counted below.
    let _ = provider.shutdown_with_timeout(FLUSH);
    export.tell_at_end();
}

/// Whether events have spans. One load.
fn is_on() -> bool {
    IS_ON.load(Relaxed)
}

/// Which spans and events are exported: those of events, and of the rest what the settings say, but
/// nothing of the exporter itself.
fn filter(settings: &Settings) -> Result<EnvFilter> {
    let level = settings.trace_level.trim_end_matches(',');
    let level = format!("{level},{TARGET}=info,opentelemetry=off,opentelemetry_sdk=off,ureq=off");
    logging::filter("trace_level", &level)
}

/// A worker has begun: what is lost is counted in its place. In thread mode the first counts for all.
pub(crate) fn count_in(shared: &Arc<Shared>) {
    if let Some(exporting) = EXPORTING.get() {
        exporting.export.count_in(shared.clone());
    }
}

static EXPORTING: OnceLock<Exporting> = OnceLock::new();
static IS_ON: AtomicBool = AtomicBool::new(false);
/// How long the end of a process waits for the collector: less than the manager waits for the process.
const FLUSH: Duration = Duration::from_millis(1500);
