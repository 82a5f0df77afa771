//! What spans say.

use std::thread;

use gannet_tests::{http::Response, process::Signal, server::Server};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};

use crate::{
    collector::{Collector, Span},
    silent, traced,
};

/// Asks for a path as part of this trace.
fn ask(server: &Server, path: &str, trace: &str) -> Response {
    let mut client = server.http();
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\n\
         traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ntracestate: shop=1\r\n\
         TraceState: till=2\r\n\r\n"
    ));
    client.response()
}

fn trace(number: usize) -> String {
    format!("4bf92f3577b34da6a3ce92{number:010x}")
}

/// What is said of an answered request.
fn of_request<'a>(spans: &'a [Span], trace: &str) -> &'a Span {
    let found: Vec<_> = spans
        .iter()
        .filter(|span| span.trace == trace && span.is("request"))
        .collect();
    assert_eq!(found.len(), 1, "{trace}: {spans:#?}");
    found[0]
}

/// Handlers that wait, and those that do not, many at a time: no span has what belongs to another.
#[test]
fn each_request_is_a_span_of_the_callers_trace_with_those_of_the_handler_in_it() {
    let collector = Collector::start();
    let server = traced(&collector).start();
    const CLIENTS: usize = 8;
    const EACH: usize = 5;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                for number in 0..EACH {
                    let path = ["/waits", "/at-once"][number % 2];
                    let answer = ask(server, path, &trace(client * EACH + number));
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
    let all = CLIENTS * EACH;
    let requests = collector.expect(all, |span| span.is("request"));
    let inside = collector.expect(all, |span| span.name == "inside");
    for number in 0..all {
        let trace = trace(number);
        let request = of_request(&requests, &trace);
        assert_eq!(request.name, "GET");
        assert_eq!(request.parent, "00f067aa0ba902b7");
        assert_eq!(request.state, "shop=1,till=2");
        assert_eq!(request.kind, SpanKind::Server);
        assert_eq!(request.status, StatusCode::Unset, "{request:?}");
        let path = ["/waits", "/at-once"][number % EACH % 2];
        for (name, value) in [
            ("gannet.outcome", "ok"),
            ("gannet.redelivered", "false"),
            ("http.request.method", "GET"),
            ("url.path", path),
            ("url.scheme", "http"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", "1.1"),
            ("client.address", "127.0.0.1"),
        ] {
            assert_eq!(request.get(name), value, "{name}: {request:?}");
        }
        assert_ne!(request.get("gannet.conn.id"), "");
        assert_ne!(request.get("gannet.listener"), "");
        assert_eq!(
            request.get("gannet.worker.id"),
            request.resource["gannet.process.id"]
        );
        // The name of the file that the server runs.
        assert_eq!(request.resource["service.name"], "program");
        let child: Vec<_> = inside.iter().filter(|span| span.trace == trace).collect();
        assert_eq!(child.len(), 1);
        assert_eq!(child[0].parent, request.id);
        assert_eq!(child[0].get("step"), "1");
        assert_eq!(child[0].events, ["at work"]);
    }
    server.stop();
}

#[test]
fn threads_export_as_processes_do() {
    let collector = Collector::start();
    let mut server = traced(&collector)
        .set("mode", "thread")
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .start();
    for (number, path) in ["/at-once", "/waits", "/task?fail"].into_iter().enumerate() {
        assert_eq!(ask(&server, path, &trace(number)).status, 200);
    }
    server.signal(Signal::TERM);
    server.expect_exit(0);
    let requests = collector.expect(3, |span| span.is("request"));
    for number in 0..2 {
        let request = of_request(&requests, &trace(number));
        let child = collector.one(|span| span.name == "inside" && span.trace == trace(number));
        assert_eq!(child.parent, request.id);
        assert_eq!(child.resource["gannet.process.role"], "manager");
    }
    let task = collector.one(|span| span.is("task"));
    assert_eq!(task.get("gannet.outcome"), "error");
    let log = server.log();
    assert!(!log.contains("spans were lost"), "{log}");
}

#[test]
fn errors_panics_and_5xx_have_status_error() {
    let collector = Collector::start();
    let server = traced(&collector).start();
    let cases = [
        ("/error", 500, "error", "error"),
        ("/panic", 500, "panic", "panic"),
        ("/busy", 503, "ok", "503"),
    ];
    for (number, (path, status, ..)) in cases.into_iter().enumerate() {
        assert_eq!(ask(&server, path, &trace(number)).status, status);
    }
    assert_eq!(ask(&server, "/missing", &trace(9)).status, 404);
    let spans = collector.expect(4, |span| span.is("request"));
    for (number, (path, status, outcome, error)) in cases.into_iter().enumerate() {
        let span = of_request(&spans, &trace(number));
        assert_eq!(span.get("url.path"), path);
        assert_eq!(span.status, StatusCode::Error, "{span:?}");
        assert_eq!(span.get("gannet.outcome"), outcome);
        assert_eq!(span.get("error.type"), error);
        assert_eq!(span.get("http.response.status_code"), status.to_string());
        if outcome != "ok" {
            assert_eq!(span.message, "as asked");
            let logged = ["handler failed", "panicked at"][usize::from(outcome == "panic")];
            assert!(span.events[0].starts_with(logged), "{span:?}");
        }
    }
    let span = of_request(&spans, &trace(9));
    assert_eq!(span.status, StatusCode::Unset);
    assert_eq!(span.get("http.response.status_code"), "404");
    server.stop();
}

#[test]
fn handshakes_messages_and_bytes_are_spans() {
    let collector = Collector::start();
    let server = traced(&collector).start();
    let mut client = server.websocket();
    assert_eq!(client.ask("a"), "a");
    client.close(1000);
    let mut client = server.tcp();
    client.send("b");
    assert_eq!(client.bytes(1), b"b");
    let open = collector.one(|span| span.is("open"));
    assert_eq!(open.get("http.response.status_code"), "101");
    assert_eq!((open.name.as_str(), open.parent.as_str()), ("GET", ""));
    let message = collector.one(|span| span.is("message"));
    assert_eq!(
        (message.name.as_str(), message.kind),
        ("message", SpanKind::Server)
    );
    assert_eq!(message.get("gannet.conn.id"), open.get("gannet.conn.id"));
    assert_ne!(message.trace, open.trace);
    let receive = collector.one(|span| span.is("receive"));
    assert_eq!(receive.get("client.address"), "127.0.0.1");
    assert_eq!(receive.get("gannet.outcome"), "ok");
    assert_eq!(receive.get("url.path"), "");
    server.stop();
}

#[test]
fn task_workers_and_processes_export_as_well() {
    let collector = Collector::start();
    let server = traced(&collector).start();
    for (number, (command, outcome)) in [("do", "ok"), ("fail", "error"), ("panic", "panic")]
        .into_iter()
        .enumerate()
    {
        ask(&server, &format!("/task?{command}"), &trace(number));
        let task = collector.one(|span| span.is("task") && span.get("gannet.outcome") == outcome);
        assert_eq!(task.resource["gannet.process.role"], "task_worker");
        assert_eq!(task.kind, SpanKind::Consumer);
        let failed = task.status == StatusCode::Error;
        assert_eq!(failed, outcome != "ok", "{task:?}");
        assert_ne!(task.get("gannet.worker.from"), "");
    }
    assert_eq!(ask(&server, "/tell", &trace(9)).status, 200);
    let heard = collector.one(|span| span.name == "heard");
    assert_eq!(heard.resource["gannet.process.role"], "process");
    assert_eq!(heard.get("bytes"), "4");
    let event = collector.one(|span| span.is("process_message"));
    assert_eq!(event.get("gannet.outcome"), "ok");
    server.stop();
}

#[test]
fn an_event_that_killed_a_worker_is_marked() {
    let collector = Collector::start();
    let server = traced(&collector).set("workers", 1).start();
    let mut client = server.tcp();
    client.send("a");
    assert_eq!(client.bytes(1), b"a");
    client.send("die");
    assert_eq!(client.bytes(3), b"die");
    let again = collector.one(|span| span.get("gannet.redelivered") == "true");
    assert!(again.is("receive"), "{again:?}");
    server.stop();
}

#[test]
fn the_sampler_is_obeyed_and_a_trace_that_is_not_sampled_stays_so() {
    let collector = Collector::start();
    let server = traced(&collector)
        .env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        .env("OTEL_SERVICE_NAME", "till")
        .start();
    let mut client = server.http();
    assert_eq!(client.get("/not-sampled").status, 200);
    let two = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    client.send(format!("GET /twice HTTP/1.1\r\nHost: a\r\n{two}{two}\r\n"));
    assert_eq!(client.response().status, 200);
    assert_eq!(ask(&server, "/sampled", &trace(1)).status, 200);
    let span = collector.one(|span| span.is("request"));
    assert_eq!(span.get("url.path"), "/sampled");
    assert_eq!(span.resource["service.name"], "till");
    server.stop();
    assert_eq!(collector.spans().len(), 1);
}

#[test]
fn the_setting_says_what_of_handlers_is_exported() {
    let collector = Collector::start();
    let server = traced(&collector).set("trace_level", "warn").start();
    assert_eq!(ask(&server, "/at-once", &trace(1)).status, 200);
    assert_eq!(ask(&server, "/error", &trace(2)).status, 500);
    let spans = collector.expect(2, |span| span.is("request"));
    assert!(of_request(&spans, &trace(1)).events.is_empty());
    assert_eq!(of_request(&spans, &trace(2)).events, ["handler failed"]);
    server.stop();
    assert_eq!(collector.spans().len(), 2);
}

#[test]
fn log_lines_are_the_same_with_and_without_export() {
    let collector = Collector::start();
    let line = |server: Server| {
        assert_eq!(ask(&server, "/logs", &trace(1)).status, 200);
        server.expect_log("a line of the log");
        let log = server.log();
        server.stop();
        let line = log.lines().find(|line| line.contains("a line of the log"));
        // Behind time, number and process id, which differ.
        line.unwrap().split_once(": ").unwrap().1.to_owned()
    };
    let (with, without) = (line(traced(&collector).start()), line(silent().start()));
    assert_eq!(with, without);
    let span = collector.one(|span| span.is("request"));
    assert_eq!(span.events, ["a line of the log"]);
}
