//! The way to the collector: bounded in front, counted behind.
//!
//! `held` counts the spans between [`Bounded`] and [`Counted`]. It never is more than the queue's
//! size, so the batch processor in between never drops one by itself.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use opentelemetry::Context;
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};

use super::{client::Client, config::Config};
use crate::{Error, Result, layout::WorkerCounter, worker::Shared};

/// What of exporting the end of the process needs.
#[derive(Debug)]
pub(super) struct Export {
    losses: Arc<Losses>,
}

/// Lets in as many spans as may wait.
#[derive(Debug)]
pub(super) struct Bounded {
    batches: BatchSpanProcessor,
    losses: Arc<Losses>,
}

/// Counts what the collector has not taken.
#[derive(Debug)]
struct Counted {
    otlp: Otlp,
    losses: Arc<Losses>,
}

/// Spans that were lost, until the log has it.
pub(super) struct Losses {
    endpoint: String,
    queue: usize,
    /// Spans on their way.
    held: AtomicUsize,
    state: Mutex<Lost>,
    /// Where the manager reads how many there were.
    counter: OnceLock<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Lost {
    /// Found no room in the queue.
    crowded: u64,
    /// The collector did not take them, or was not there.
    refused: u64,
    /// Why, the last time.
    reason: String,
    told: Option<Instant>,
}

/// What spans are given to, and what is to be asked at the end.
pub(super) fn exporter(config: &Config) -> Result<(Bounded, Export)> {
    let losses = Arc::new(Losses {
        endpoint: config.endpoint.clone(),
        queue: config.queue,
        held: AtomicUsize::new(0),
        state: Mutex::default(),
        counter: OnceLock::new(),
    });
    let otlp = Otlp::builder()
        .with_http()
        .with_http_client(Client::new(config.timeout, losses.clone()))
        .with_timeout(config.timeout)
        .build()
        .map_err(|error| Error::new(format!("spans cannot be exported: {error}")))?;
    let counted = Counted {
        otlp,
        losses: losses.clone(),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(config.queue)
        .with_max_export_batch_size(config.batch)
        .with_scheduled_delay(config.delay)
        .build();
    let bounded = Bounded {
        batches: BatchSpanProcessor::new(counted, batches),
        losses: losses.clone(),
    };
    Ok((bounded, Export { losses }))
}

impl Export {
    pub(super) fn count_in(&self, shared: Arc<Shared>) {
        // Later ones are of other threads of the same server.
        let _ = self.losses.counter.set(shared);
    }

    /// The process ends: what waits still is lost.
    pub(super) fn tell_at_end(&self) {
        let left = self.losses.held.swap(0, Relaxed) as u64;
        let mut lost = self.losses.state();
        if left > 0 {
            self.losses.count(left);
            lost.refused += left;
            if lost.reason.is_empty() {
                lost.reason = "it has not taken them in time".to_owned();
            }
        }
        self.losses.tell(&mut lost);
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let losses = &self.losses;
        if losses.held.fetch_add(1, Relaxed) < losses.queue {
            self.batches.on_end(span);
        } else {
            losses.held.fetch_sub(1, Relaxed);
            losses.count(1);
            losses.state().crowded += 1;
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exported = self.otlp.export(batch).await;
        if let Err(error) = &exported {
            self.losses.refused(count as u64, &error.to_string());
        }
        // At the end of the process they may have been given up already.
        let leave = |held: usize| Some(held.saturating_sub(count));
        let _ = self.losses.held.fetch_update(Relaxed, Relaxed, leave);
        let mut lost = self.losses.state();
        if lost.refused == 0 {
            // A try that failed was followed by one that did not.
            lost.reason.clear();
        }
        if lost.told.is_none_or(|told| told.elapsed() >= PAUSE) {
            self.losses.tell(&mut lost);
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

impl fmt::Debug for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut losses = f.debug_struct("Losses");
        losses.field("endpoint", &self.endpoint);
        losses.field("held", &self.held).finish_non_exhaustive()
    }
}

impl Losses {
    /// The collector has not taken these.
    pub(super) fn refused(&self, count: u64, reason: &str) {
        self.count(count);
        let mut lost = self.state();
        lost.refused += count;
        if lost.reason.is_empty() {
            lost.reason = reason.to_owned();
        }
    }

    /// Why the next ones are lost, more exactly than the exporter says it.
    pub(super) fn note(&self, reason: &str) {
        self.state().reason = reason.to_owned();
    }

    fn count(&self, lost: u64) {
        if let Some(shared) = self.counter.get() {
            let counter = shared.counter(WorkerCounter::SpansLost);
            counter.fetch_add(lost, Relaxed);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Lost> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what was lost since it was said last.
    fn tell(&self, lost: &mut Lost) {
        if lost.crowded > 0 {
            tracing::warn!(
                target: LOG,
                spans = lost.crowded,
                "spans were lost: {} waited already (OTEL_BSP_MAX_QUEUE_SIZE)",
                self.queue
            );
        }
        if lost.refused > 0 {
            tracing::warn!(
                target: LOG,
                spans = lost.refused,
                "spans were lost: the collector at {} did not take them: {}",
                self.endpoint,
                lost.reason
            );
        }
        if lost.crowded + lost.refused > 0 {
            *lost = Lost {
                told: Some(Instant::now()),
                ..Lost::default()
            };
        }
    }
}

const LOG: &str = "gannet::traces";
/// Between two lines about losses.
const PAUSE: Duration = Duration::from_secs(10);
