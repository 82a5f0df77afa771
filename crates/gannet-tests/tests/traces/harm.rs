//! What a collector that does not do its part can do to a server: nothing.

use std::time::{Duration, Instant};

use gannet_tests::{metrics::Page, process::Signal, server::Spec, wait::wait_until};

use crate::{
    collector::{Collector, Manner},
    silent, traced,
};

#[test]
fn a_graceful_stop_sends_what_waits() {
    let collector = Collector::start();
    let mut server = traced(&collector)
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .start();
    let mut client = server.http();
    for _ in 0..20 {
        assert_eq!(client.get("/at-once").status, 200);
    }
    assert!(collector.spans().is_empty());
    server.signal(Signal::TERM);
    server.expect_exit(0);
    collector.expect(20, |span| span.is("request"));
    let log = server.log();
    assert!(!log.contains("spans were lost"), "{log}");
}

#[test]
fn a_reload_sends_what_waits() {
    let collector = Collector::start();
    let server = traced(&collector)
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .start();
    let mut client = server.http();
    assert_eq!(client.get("/at-once").status, 200);
    server.reload();
    collector.one(|span| span.is("request"));
    assert_eq!(client.get("/at-once").status, 200);
    server.stop();
    collector.expect(2, |span| span.is("request"));
}

/// Serves as if there were no collector, and says what was lost.
fn expect_unharmed(spec: Spec, why: &str) {
    let mut server = spec.set("admin_listen", "127.0.0.1:0").start();
    let mut client = server.http();
    for _ in 0..200 {
        assert_eq!(client.get("/at-once").status, 200);
    }
    wait_until("the count", || {
        Page::of(&server).sum("gannet_spans_lost_total") > 0.0
    });
    let begin = Instant::now();
    server.signal(Signal::TERM);
    server.expect_exit(0);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "it held up the stop"
    );
    let log = server.log();
    assert!(
        log.contains("spans were lost") && log.contains(why),
        "{log}"
    );
    assert!(!log.contains("SIGKILL"), "{log}");
}

#[test]
fn a_collector_that_is_down_does_no_harm() {
    // Nobody listens there.
    let spec = silent()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50");
    expect_unharmed(spec, "refused");
}

#[test]
fn a_collector_that_hangs_does_no_harm() {
    let collector = Collector::that(Manner::Hangs);
    let spec = traced(&collector)
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "16")
        .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8");
    expect_unharmed(spec, "16 waited already");
}

#[test]
fn a_collector_that_refuses_does_no_harm() {
    let collector = Collector::that(Manner::Refuses);
    expect_unharmed(traced(&collector), "status code: 400");
}

#[test]
fn what_a_collector_rejects_is_told() {
    let collector = Collector::that(Manner::TakesPart);
    expect_unharmed(traced(&collector), "one too many");
}

#[test]
fn without_an_endpoint_nothing_is_exported() {
    let collector = Collector::start();
    let spec = traced(&collector).env("OTEL_SDK_DISABLED", "true");
    for spec in [spec, silent().env("OTEL_SERVICE_NAME", "shop")] {
        let server = spec.start();
        assert_eq!(server.http().get("/at-once").status, 200);
        let log = server.log();
        server.stop();
        assert!(!log.contains("spans"), "{log}");
    }
    assert!(collector.spans().is_empty());
}

#[test]
fn a_server_that_could_not_export_as_told_does_not_start() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
    ] {
        let spec = silent()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
            .env(name, value);
        let checked = spec.run(&["check"]);
        assert_ne!(checked.code, Some(0), "{checked:?}");
        assert!(checked.out.contains(name), "{checked:?}");
        let ended = spec.run(&["start"]);
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.err.contains(name) && ended.err.contains(value),
            "{ended:?}"
        );
    }
}
