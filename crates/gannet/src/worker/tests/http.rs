use std::{convert::Infallible, sync::Mutex};

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::StatusCode,
    routing,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;

use crate::{
    Accept, Body, Conn, ConnId, Error, Handler, Handshake, Message, Peer, Request, Response,
    Result, Worker, extend_request,
    layout::WorkerCounter,
    serve_service,
    wire::{
        TEXT,
        command::{self, CommandKind, HANDLER_FAILED, Query as Question},
        event::{
            BODY_ABORT, BODY_COMPLETE, BODY_END, EXPECT_CONTINUE, EventHeader, EventKind, UNTOLD,
        },
        head,
    },
    worker::pair::{Got, Pair},
};

struct Site {
    router: Router,
}

/// What "/keep" was sent.
static KEPT: Mutex<Option<Request>> = Mutex::new(None);

impl Handler for Site {
    async fn start(_worker: &Worker) -> Result<Self> {
        let router = Router::new()
            .route("/axum/{name}", routing::get(greet).post(upper))
            .route(
                "/axum-stream",
                routing::get(|| async { axum::body::Body::new(Body::from("s")) }),
            );
        Ok(Site { router })
    }

    async fn request(&self, conn: Conn, mut request: Request) -> Result<Response> {
        let path = request.uri().path().to_owned();
        let mut response = Response::new(match path.as_str() {
            "/hello" => Body::from("hello"),
            "/echo" => Body::from(request.into_body().collect(1 << 20).await?),
            "/relay" => request.into_body(),
            "/unread" => Body::from("no thanks"),
            "/peer" => {
                let of = Peer::of(&request).unwrap();
                extend_request(&mut request);
                assert_eq!(request.extensions().get(), Some(&of));
                let peer = request.extensions().get::<std::net::SocketAddr>();
                let own = request.extensions().get::<Conn>() == Some(&conn);
                format!("{peer:?} {own} {:?} {}", request.version(), request.uri()).into()
            }
            "/keep" => {
                *KEPT.lock().unwrap() = Some(request);
                Body::empty()
            }
            "/stream" => stream(1 << 20),
            "/typed" => {
                let mut response = Response::new("<p>".into());
                let html = HeaderValue::from_static("text/html");
                response.headers_mut().insert("content-type", html);
                return Ok(response);
            }
            "/bytes" => return Ok(Response::new(Bytes::from_static(b"b").into())),
            "/nothing" => return Ok(Response::new("".into())),
            "/wrapped" => return Ok(Response::new(Body::wrap(Body::from(String::from("w"))))),
            "/much" => return Ok(Response::new("m".repeat(1 << 20).into())),
            "/large" => Body::from(vec![b'l'; 1 << 20]),
            "/broken" => {
                let (mut sender, body) = Body::channel(2);
                conn.worker().spawn_local(async move {
                    sender.send("begun").await.unwrap();
                    tokio::task::yield_now().await;
                    sender.abort("no more").await;
                });
                body
            }
            "/short" => short(),
            "/trailers" => {
                let body = Body::from(request.into_body().collect(10).await?);
                let checksum = HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-sum"),
                    HeaderValue::from_static("7"),
                )]);
                Body::wrap(body.with_trailers(async { Some(Ok(checksum)) }))
            }
            "/empty" => {
                let mut response = Response::new("ignored".into());
                *response.status_mut() = StatusCode::NO_CONTENT;
                return Ok(response);
            }
            "/fail" => return Err(Error::new("as told")),
            "/panic" => panic!("as told"),
            path if path.starts_with("/axum") => {
                return serve_service(&mut self.router.clone(), request).await;
            }
            _ => return Err(Error::new("no such path")),
        });
        let headers = response.headers_mut();
        headers.insert("x-test", HeaderValue::from_static("1"));
        headers.insert("connection", HeaderValue::from_static("close"));
        headers.insert("date", HeaderValue::from_static("today"));
        Ok(response)
    }

    async fn open(&self, conn: Conn, handshake: Handshake) -> Result<Accept> {
        match handshake.query("token").as_deref() {
            Some("good") => {
                conn.send("welcome").await?;
                Ok(Accept::new().protocol("chat").header("x-a", "b"))
            }
            Some("split") => Ok(Accept::new().header("x", "a\r\nb: c")),
            _ => Ok(Accept::forbid()),
        }
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        conn.send(message).await
    }
}

async fn greet(Path(name): Path<String>, Query(query): Query<Vec<(String, String)>>) -> String {
    format!("hello {name} {query:?}")
}

async fn upper(Path(name): Path<String>, Json(words): Json<Vec<String>>) -> (StatusCode, String) {
    (
        StatusCode::CREATED,
        format!("{name}: {}", words.join(" ").to_uppercase()),
    )
}

fn stream(len: usize) -> Body {
    let (mut sender, body) = Body::channel(1);
    tokio::task::spawn_local(async move {
        for _ in 0..len / 10_000 {
            if sender.send(vec![b's'; 10_000]).await.is_err() {
                return;
            }
        }
    });
    body
}

/// Says 10 bytes, and has 4, of which the second half comes late.
fn short() -> Body {
    struct Short(u8);
    impl http_body::Body for Short {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<std::result::Result<http_body::Frame<Bytes>, Infallible>>>
        {
            self.0 += 1;
            match self.0 {
                1 | 3 => std::task::Poll::Ready(Some(Ok(http_body::Frame::data("ab".into())))),
                2 => {
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                _ => std::task::Poll::Ready(None),
            }
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(10)
        }
    }
    Body::wrap(Short(0))
}

fn head_of(method: &str, target: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let lines = b"Host: a\r\nContent-Type: application/json\r\n";
    head::encode(&mut out, 1, method, target, (lines, 2), None);
    out
}

/// A request whose body is all there.
pub(super) fn request(
    pair: &mut Pair,
    conn: ConnId,
    method: &str,
    target: &str,
    body: &[u8],
) -> u64 {
    let mut payload = head_of(method, target);
    payload.extend_from_slice(body);
    let header = EventHeader {
        flags: BODY_COMPLETE,
        ..EventHeader::new(EventKind::Request, conn)
    };
    pair.event_with(header, &payload)
}

fn upload(pair: &mut Pair, conn: ConnId, target: &str, flags: u8, len: u64) -> u64 {
    let header = EventHeader {
        flags,
        aux: len,
        ..EventHeader::new(EventKind::Request, conn)
    };
    pair.event_with(header, &head_of("POST", target))
}

fn piece(pair: &mut Pair, conn: ConnId, flags: u8, data: &[u8]) -> u64 {
    let header = EventHeader {
        flags,
        ..EventHeader::new(EventKind::RequestBody, conn)
    };
    pair.event_with(header, data)
}

/// Header lines and body of a `Response`.
pub(super) fn parts(got: &Got) -> (&str, &[u8]) {
    assert_eq!(got.kind(), CommandKind::Response);
    let len = u32::from_le_bytes(*got.payload.first_chunk().unwrap()) as usize;
    let (lines, body) = got.payload[4..].split_at(len);
    let body = body.strip_prefix(b"\r\n").unwrap();
    (std::str::from_utf8(lines).unwrap(), body)
}

#[test]
fn a_small_response_is_one_record_with_its_outcome() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let seq = request(&mut pair, conn, "GET", "/hello", b"");
    let got = pair.expect();
    let lines = "content-type: text/plain; charset=utf-8\r\nx-test: 1\r\n";
    assert_eq!(
        parts(&got),
        (lines, &b"hello"[..]),
        "none of the headers that the reactor writes"
    );
    assert_eq!(
        (got.header.code, got.header.flags),
        (200, command::COMPLETE)
    );
    assert_eq!(got.header.done, seq);

    request(&mut pair, conn, "GET", "/empty", b"");
    let got = pair.expect();
    assert_eq!((got.header.code, parts(&got).1), (204, &b""[..]));
}

#[test]
fn a_request_keeps_target_version_and_peer() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    for target in ["/peer?x=%20&y", "http://a.example/peer"] {
        request(&mut pair, conn, "GET", target, b"");
        let got = pair.expect();
        let body = std::str::from_utf8(parts(&got).1).unwrap();
        assert_eq!(body, format!("Some(192.0.2.1:5000) true HTTP/1.1 {target}"));
    }
    request(&mut pair, conn, "GET", "/p\u{1}eer", b"");
    assert_eq!(pair.expect().header.code, 400);
}

#[test]
fn a_request_knows_its_peer_on_any_thread_while_its_worker_lives() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    request(&mut pair, conn, "GET", "/keep", b"");
    pair.expect();
    let mut kept = KEPT.lock().unwrap().take().unwrap();
    let peer: std::net::SocketAddr = "192.0.2.1:5000".parse().unwrap();
    assert_eq!(Peer::of(&kept), Some(Peer::Ip(peer)));
    pair.retire();
    pair.take_all_until_it_ends();
    pair.join().unwrap();
    assert_eq!(Peer::of(&kept), None);
    extend_request(&mut kept);
    assert!(kept.extensions().is_empty());
}

#[test]
fn a_head_request_gets_the_length_and_no_body() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    for (path, len) in [("/hello", 5), ("/axum-stream", 1), ("/stream", u64::MAX)] {
        let seq = request(&mut pair, conn, "HEAD", path, b"");
        let got = pair.expect();
        assert_eq!((parts(&got).1, got.header.aux), (&b""[..], len), "{path}");
        assert!(!got.header.has(command::COMPLETE));
        let end = pair.expect();
        assert_eq!(
            (end.kind(), end.header.done),
            (CommandKind::ResponseEnd, seq)
        );
    }
}

#[test]
fn a_body_is_taken_piece_by_piece_and_each_says_so() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let seq = upload(&mut pair, conn, "/echo", EXPECT_CONTINUE, 6);
    assert_eq!(pair.expect().kind(), CommandKind::Continue);
    let one = piece(&mut pair, conn, 0, b"abc");
    assert_eq!(pair.expect().header.done, one);
    let two = piece(&mut pair, conn, 0, b"def");
    let end = piece(&mut pair, conn, BODY_END, b"");
    let all = pair.until_done(0, seq);
    assert_eq!(parts(all.last().unwrap()).1, b"abcdef");
    for number in [two, end] {
        assert!(all.iter().any(|got| got.header.done == number));
    }
}

#[test]
fn a_body_that_nobody_reads_holds_nothing_up() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let seq = upload(&mut pair, conn, "/unread", EXPECT_CONTINUE, 9);
    let got = pair.expect();
    assert_eq!((parts(&got).1, got.header.done), (&b"no thanks"[..], seq));
    for flags in [0, BODY_END] {
        let number = piece(&mut pair, conn, flags, b"");
        assert_eq!(pair.expect().header.done, number);
    }
}

#[test]
fn a_body_that_breaks_off_fails_its_handler() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let seq = upload(&mut pair, conn, "/echo", 0, 9);
    piece(&mut pair, conn, 0, b"abc");
    piece(&mut pair, conn, BODY_ABORT, b"");
    let last = pair.until_done(0, seq).pop().unwrap();
    assert_eq!(
        (last.kind(), last.header.flags),
        (CommandKind::Done, HANDLER_FAILED)
    );

    // The client of a request is gone: an event without number, and no `close` for it.
    let seq = upload(&mut pair, conn, "/echo", 0, 9);
    let close = EventHeader {
        flags: UNTOLD,
        ..EventHeader::new(EventKind::Close, conn)
    };
    pair.write(0, close, b"");
    assert_eq!(
        pair.until_done(0, seq).pop().unwrap().header.flags,
        HANDLER_FAILED
    );
}

#[test]
fn a_body_can_be_answered_with_itself_and_trailers() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let seq = upload(&mut pair, conn, "/relay", 0, u64::MAX);
    piece(&mut pair, conn, 0, b"abc");
    piece(&mut pair, conn, BODY_END, b"x-sum: 7\r\n");
    let all = pair.until_done(0, seq);
    let kinds = [
        CommandKind::Response,
        CommandKind::ResponseBody,
        CommandKind::ResponseEnd,
    ];
    let mut response = all.iter().filter(|got| kinds.contains(&got.kind()));
    assert_eq!(response.next().unwrap().header.aux, u64::MAX);
    assert_eq!(response.next().unwrap().payload, b"abc");
    assert_eq!(response.next().unwrap().text(), "x-sum: 7\r\n");

    let seq = request(&mut pair, conn, "POST", "/trailers", b"abc");
    let all = pair.until_done(0, seq);
    assert_eq!(all[0].header.aux, 3);
    assert_eq!(all.last().unwrap().text(), "x-sum: 7\r\n");
}

#[test]
fn a_streamed_response_waits_for_the_client() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    for (path, len, exact) in [("/stream", 1_040_000, false), ("/large", 1 << 20, true)] {
        let seq = request(&mut pair, conn, "GET", path, b"");
        let head = pair.expect();
        assert_eq!(head.header.aux, if exact { len } else { u64::MAX });
        assert!(!head.header.has(command::COMPLETE));
        let (mut sent, mut undrained, mut questions) = (0, 0, 0);
        loop {
            let got = pair.expect();
            match got.kind() {
                CommandKind::ResponseBody => {
                    sent += got.payload.len() as u64;
                    undrained += got.payload.len();
                    assert!(undrained <= 256 << 10);
                }
                CommandKind::Query => {
                    assert_eq!(got.header.code, Question::Drained as u16);
                    assert!(pair.try_next(0).is_none(), "it waits");
                    (undrained, questions) = (0, questions + 1);
                    pair.tell(0, EventKind::Reply, got.header.aux, b"");
                }
                CommandKind::ResponseEnd => {
                    assert_eq!(got.header.done, seq);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((sent, questions >= 7), (len, true), "{path}");
    }
}

#[test]
fn streaming_stops_when_the_client_is_gone() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let seq = request(&mut pair, conn, "GET", "/stream", b"");
    let question = loop {
        let got = pair.expect();
        if got.kind() == CommandKind::Query {
            break got;
        }
    };
    pair.disconnect(conn);
    pair.tell(0, EventKind::Reply, question.header.aux, b"");
    let all = pair.until_done(0, seq);
    assert_eq!(all.len(), 1, "no more of the body");
    assert_eq!(all[0].header.flags, 0, "that is nobody's failure");
}

#[test]
fn a_response_that_cannot_be_finished_is_aborted() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    for path in ["/broken", "/short"] {
        let seq = request(&mut pair, conn, "GET", path, b"");
        let all = pair.until_done(0, seq);
        let kinds: Vec<_> = all.iter().map(Got::kind).collect();
        assert_eq!(kinds[0], CommandKind::Response, "{path}");
        assert_eq!(
            kinds[kinds.len() - 2..],
            [CommandKind::ResponseAbort, CommandKind::Done]
        );
        assert_eq!(all.last().unwrap().header.flags, HANDLER_FAILED);
    }
    for path in ["/fail", "/panic"] {
        let seq = request(&mut pair, conn, "GET", path, b"");
        let all = pair.until_done(0, seq);
        assert_eq!(
            (all.len(), all[0].header.flags),
            (1, HANDLER_FAILED),
            "the reactor says 500"
        );
    }
    assert_eq!(pair.counter(WorkerCounter::Panics), 1);
}

#[test]
fn a_body_of_text_says_so_if_the_handler_has_not() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let plain = "content-type: text/plain; charset=utf-8\r\n";
    for (method, target, expected) in [
        ("GET", "/wrapped", plain),
        ("HEAD", "/wrapped", plain),
        ("HEAD", "/much", plain),
        ("GET", "/typed", "content-type: text/html\r\n"),
        ("GET", "/bytes", ""),
        ("GET", "/nothing", ""),
        ("GET", "/empty", ""),
    ] {
        let seq = request(&mut pair, conn, method, target, b"");
        let got = pair.until_done(0, seq);
        assert_eq!(parts(&got[0]).0, expected, "{method} {target}");
    }
}

#[test]
fn an_axum_router_answers() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    request(&mut pair, conn, "GET", "/axum/ann?a=1", b"");
    let got = pair.expect();
    let (lines, body) = parts(&got);
    assert_eq!(body, b"hello ann [(\"a\", \"1\")]");
    assert_eq!(lines, "content-type: text/plain; charset=utf-8\r\n");
    assert!(got.header.has(command::COMPLETE));

    let seq = upload(&mut pair, conn, "/axum/bob", 0, 11);
    piece(&mut pair, conn, 0, b"[\"a\",");
    piece(&mut pair, conn, 0, b"\"bcd\"]");
    piece(&mut pair, conn, BODY_END, b"");
    let got = pair.until_done(0, seq).pop().unwrap();
    assert_eq!((got.header.code, parts(&got).1), (201, &b"bob: A BCD"[..]));

    request(&mut pair, conn, "DELETE", "/axum/bob", b"");
    assert_eq!(pair.expect().header.code, 405);
}

#[test]
fn a_handshake_is_accepted_or_refused() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let seq = pair.event(EventKind::Open, conn, &head_of("GET", "/ws?token=good"));
    assert_eq!((pair.expect().text()), "welcome");
    let got = pair.expect();
    assert_eq!((got.kind(), got.header.done), (CommandKind::Accept, seq));
    assert_eq!(got.text(), "sec-websocket-protocol: chat\r\nx-a: b\r\n");

    let header = EventHeader {
        flags: TEXT,
        ..EventHeader::new(EventKind::Message, conn)
    };
    pair.event_with(header, "gr\u{fc}n".as_bytes());
    let got = pair.expect();
    assert_eq!((got.text(), got.header.has(TEXT)), ("gr\u{fc}n", true));

    let seq = pair.event(EventKind::Open, conn, &head_of("GET", "/ws"));
    let got = pair.expect();
    assert_eq!(
        (got.header.code, parts(&got).1, got.header.done),
        (403, &b"forbidden\n"[..], seq)
    );

    let seq = pair.event(EventKind::Open, conn, &head_of("GET", "/ws?token=split"));
    let got = pair.expect();
    assert_eq!((got.header.done, got.header.flags), (seq, HANDLER_FAILED));
}

#[test]
fn a_body_may_begin_with_its_head() {
    let mut pair = Pair::new::<Site>();
    let conn = pair.connect(0, 1);
    let header = EventHeader {
        aux: 6,
        ..EventHeader::new(EventKind::Request, conn)
    };
    let seq = pair.event_with(header, &[&head_of("POST", "/echo")[..], b"abc"].concat());
    let rest = piece(&mut pair, conn, 0, b"def");
    piece(&mut pair, conn, BODY_END, b"");
    let all = pair.until_done(0, seq);
    assert_eq!(parts(all.last().unwrap()).1, b"abcdef");
    assert!(all.iter().any(|got| got.header.done == rest));
}
