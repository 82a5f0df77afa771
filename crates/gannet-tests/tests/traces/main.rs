//! Spans of events, as a collector gets them from a real server. Built with the feature
//! `opentelemetry` only: `./test otel`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod collector;
mod harm;
mod spans;

use gannet_tests::server::Spec;

use self::collector::Collector;

/// A server that exports to this collector, soon after each event.
fn traced(collector: &Collector) -> Spec {
    silent()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// A server that exports nothing.
fn silent() -> Spec {
    Spec::new(env!("CARGO_BIN_EXE_traced"))
        .set("task_workers", 1)
        .http()
        .websocket()
        .tcp()
}
