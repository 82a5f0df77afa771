//! A collector that keeps what it gets.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use gannet_tests::wait::wait_for;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{self, span::SpanKind, status::StatusCode},
};
use prost::Message;

/// What it does with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes it.
    Takes,
    /// Takes it without an answer.
    Hangs,
    /// Answers 400.
    Refuses,
    /// Says that it has rejected one span of each request.
    TakesPart,
}

pub(crate) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// A span, with what a test looks at.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty: a root.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) kind: SpanKind,
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// Names of its events.
    pub(crate) events: Vec<String>,
    /// As text.
    pub(crate) attributes: BTreeMap<String, String>,
    /// Of the process.
    pub(crate) resource: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        Collector::that(Manner::Takes)
    }

    pub(crate) fn that(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = spans.clone();
        // They end with the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, kept) = (stream.unwrap(), kept.clone());
                thread::spawn(move || serve(stream, &kept, manner));
            }
        });
        Collector { address, spans }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans for which this holds, when there are so many.
    pub(crate) fn expect(&self, count: usize, is: impl Fn(&Span) -> bool) -> Vec<Span> {
        let found = wait_for("the spans", || {
            let mut spans = self.spans();
            spans.retain(&is);
            (spans.len() >= count).then_some(spans)
        });
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// The only span for which this holds, when it is there.
    pub(crate) fn one(&self, is: impl Fn(&Span) -> bool) -> Span {
        self.expect(1, is).remove(0)
    }
}

impl Span {
    /// An attribute; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether it is that of an event of this kind.
    pub(crate) fn is(&self, event: &str) -> bool {
        self.get("gannet.event") == event
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Span>>, manner: Manner) {
    let mut stream = BufReader::new(stream);
    while let Some(body) = read_request(&mut stream) {
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("protobuf");
        kept.lock().unwrap().extend(spans_of(request));
        let mut answer = ExportTraceServiceResponse::default();
        let status = match manner {
            Manner::Takes => "200 OK",
            Manner::Refuses => "400 Bad Request",
            Manner::Hangs => continue,
            Manner::TakesPart => {
                answer.partial_success = Some(ExportTracePartialSuccess {
                    rejected_spans: 1,
                    error_message: "one too many".to_owned(),
                });
                "200 OK"
            }
        };
        let body = answer.encode_to_vec();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let written = stream
            .get_mut()
            .write_all(&[head.as_bytes(), &body].concat());
        if written.is_err() {
            return;
        }
    }
}

/// The body of the next request.
fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|len| *len > 0)?;
    assert_eq!(line.trim(), "POST /v1/traces HTTP/1.1");
    let (mut len, mut kind) = (0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line).ok().filter(|len| *len > 0)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => len = value.parse().expect("a length"),
            "content-type" => kind = value.to_owned(),
            _ => {}
        }
    }
    assert_eq!(kind, "application/x-protobuf");
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = group.resource.unwrap_or_default();
        let resource = attributes(&resource.attributes);
        for scope in group.scope_spans {
            let all = scope.spans.into_iter();
            spans.extend(all.map(|span| of(span, &resource)));
        }
    }
    spans
}

fn of(span: v1::Span, resource: &BTreeMap<String, String>) -> Span {
    assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
    let status = span.status.clone().unwrap_or_default();
    Span {
        kind: span.kind(),
        status: status.code(),
        message: status.message,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
        events: span.events.into_iter().map(|event| event.name).collect(),
        attributes: attributes(&span.attributes),
        resource: resource.clone(),
        name: span.name,
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for KeyValue { key, value, .. } in all {
        let value = match value.clone().and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(is)) => is.to_string(),
            other => format!("{other:?}"),
        };
        let before = map.insert(key.clone(), value);
        assert_eq!(before, None, "{key} is there twice");
    }
    map
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
