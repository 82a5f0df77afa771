//! Clients of HTTP/2 that are slow on purpose, or send too much of what costs them little: each meets a
//! limit with a name, is told with GOAWAY, closed and counted. Others are served meanwhile, and the
//! master's memory stays where it was.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use gannet_tests::{
    frames::{
        Event, RawHttp2,
        frame::{
            PREFACE,
            code::{CANCEL, ENHANCE_YOUR_CALM},
            continuation, data, headers, ping, priority, raw, rst_stream, setting, settings,
            window_update,
        },
        hpack::{Block, get, post},
    },
    process::Memory,
    server::{Server, Spec},
    tcp::{TcpClient, small_buffers},
    wait::{DEADLINE, wait_until},
};

use serde_json::Value;

use crate::{behave, heavy};

#[test]
fn streams_that_are_reset_as_soon_as_they_are_opened_are_a_flood() {
    let server = behave().websocket().start();
    flood(&server, |n| {
        let stream = 2 * n + 1;
        let request = headers(stream, get("/sleep?ms=10")).end_stream();
        [request.bytes(), rst_stream(stream, CANCEL).bytes()].concat()
    });
    counted(&server, "flood", 1);
    server.stop();
}

/// As many as a page that is left behind; they may have waited in the socket together.
#[test]
fn requests_that_are_cancelled_within_the_rate_cost_nobody_the_connection() {
    let server = behave().websocket().start();
    let mut client = connect(&server);
    let cancelled: Vec<u8> = (0..100)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let request = headers(stream, get("/sleep?ms=10")).end_stream();
            [request.bytes(), rst_stream(stream, CANCEL).bytes()].concat()
        })
        .collect();
    client.send(cancelled);
    assert_eq!(client.get(201, "/").text(), "hello");
    client.leave();
    server.stop();
}

/// A flood by a detour: the client makes the server reset its streams.
#[test]
fn streams_that_the_server_has_to_reset_are_a_flood() {
    let server = behave().websocket().start();
    flood(&server, |n| {
        let stream = 2 * n + 1;
        let request = headers(stream, post("/echo"));
        [request.bytes(), window_update(stream, 0x7fff_ffff).bytes()].concat()
    });
    flood(&server, |n| {
        headers(2 * n + 1, get("/").field("te", "gzip"))
            .end_stream()
            .bytes()
    });
    server.stop();
}

#[test]
fn pings_are_answered_up_to_a_limit() {
    let server = behave().websocket().start();
    flood(&server, |n| ping(u64::from(n).to_be_bytes()).bytes());
    counted(&server, "flood", 1);
    server.stop();
}

#[test]
fn settings_are_acknowledged_up_to_a_limit() {
    let server = behave().websocket().start();
    flood(&server, |n| {
        settings(&[(setting::INITIAL_WINDOW_SIZE, n)]).bytes()
    });
    flood(&server, |_| settings(&[]).bytes());
    counted(&server, "flood", 2);
    server.stop();
}

#[test]
fn frames_that_say_nothing_are_taken_up_to_a_limit() {
    let server = behave().websocket().start();
    flood(&server, |_| priority(1, 0, 1).bytes());
    flood(&server, |n| raw(0xbe, 0, n, b"what?").bytes());
    flood(&server, |n| match n {
        0 => headers(1, post("/echo")).bytes(),
        _ => data(1, b"").bytes(),
    });
    flood(&server, |n| match n {
        0 => headers(1, b"").unfinished().bytes(),
        _ => continuation(1, b"").unfinished().bytes(),
    });
    server.stop();
}

#[test]
fn a_field_block_without_end_is_cut() {
    let server = behave().websocket().start();
    for size in [10, 1000, 16_000] {
        flood(&server, |n| match n {
            0 => headers(1, get("/")).unfinished().bytes(),
            _ => {
                let field = Block::default().field("x", vec![b'v'; size]);
                continuation(1, field).unfinished().bytes()
            }
        });
    }
    server.stop();
}

/// A field of 4 KiB in the table, and a byte for each time that it is to be had.
#[test]
fn a_block_that_grows_when_it_is_decoded_is_refused() {
    let server = behave().websocket().start();
    let before = resident(&server);
    for round in 0..20 {
        let mut client = connect(&server);
        let learn = get("/").remembered("x-bomb", vec![b'b'; 4_000]);
        client.send(headers(1, learn).end_stream());
        assert_eq!(client.response(1).status, 200);
        let bomb = (0..16_000).fold(get("/"), |block, _| block.indexed(62));
        client.send(headers(3, bomb).end_stream());
        let told = client.expect(|event| {
            event.is_on(3) || matches!(event, Event::GoAway { .. } | Event::End(_))
        });
        match told {
            Event::Headers { fields, .. } => assert_eq!(fields[0].1, "431", "{round}"),
            Event::Reset { .. } | Event::GoAway { .. } => {}
            other => panic!("{other:?}"),
        }
        served(&server);
    }
    bounded(&server, before, 8 << 20);
    server.stop();
}

#[test]
fn many_fields_and_large_ones_are_refused() {
    let server = behave().websocket().start();
    let many = (0..500).fold(get("/"), |block, n| block.field(format!("x-{n}"), ""));
    let large = get("/").field("x-large", vec![b'x'; 20_000]);
    let mut client = connect(&server);
    for (stream, block) in [(1, many), (3, large)] {
        client.send(in_parts(stream, &block));
        assert_eq!(client.response(stream).status, 431);
    }
    assert_eq!(client.get(5, "/").text(), "hello");
    // That is so much that nothing of it is kept.
    let huge = get("/").field("x-huge", vec![b'x'; 300_000]);
    let _ = client.try_send(in_parts(7, &huge));
    client.expect_error(&[ENHANCE_YOUR_CALM]);
    served(&server);
    server.stop();
}

/// A field block in frames of the usual size.
fn in_parts(stream: u32, block: &Block) -> Vec<u8> {
    let parts = block.parts(16_000);
    let (first, rest) = parts.split_first().unwrap();
    let mut frames = headers(stream, first.clone())
        .unfinished()
        .end_stream()
        .bytes();
    for part in rest {
        frames.extend(continuation(stream, part.clone()).unfinished().bytes());
    }
    frames.extend(continuation(stream, b"").bytes());
    frames
}

/// Answers that nobody takes wait in bounded queues; the rest of them with the workers.
#[test]
fn windows_that_stay_shut_cost_bounded_memory() {
    let _machine = heavy();
    let server = behave().websocket().start();
    let before = resident(&server);
    let shut = [(setting::INITIAL_WINDOW_SIZE, 0)];
    let mut clients: Vec<RawHttp2> = (0..10)
        .map(|_| RawHttp2::connect_with(server.address_of("websocket"), &shut))
        .collect();
    for client in &mut clients {
        for n in 0..100 {
            let request = get("/stream?n=1000&size=10000");
            client.send(headers(2 * n + 1, request).end_stream());
        }
        client.sync();
    }
    served(&server);
    // A thousand answers of 10 MB.
    bounded(&server, before, 400 << 20);
    // One of them goes on as if nothing had been.
    let client = &mut clients[0];
    client.send(window_update(1, 20_000_000));
    assert_eq!(client.response(1).body.len(), 10_000_000);
    server.stop();
}

#[test]
fn a_window_that_opens_byte_by_byte_harms_nobody() {
    let server = behave().websocket().start();
    let shut = [(setting::INITIAL_WINDOW_SIZE, 0)];
    let mut client = RawHttp2::connect_with(server.address_of("websocket"), &shut).hold_windows();
    client.send(headers(1, get("/big?n=200")).end_stream());
    client.head(1);
    let mut body = Vec::new();
    while body.len() < 200 {
        client.send(window_update(1, 1));
        body.extend(client.data(1).0);
        if body.len() % 50 == 0 {
            served(&server);
        }
    }
    assert_eq!(body, [b'b'; 200]);
    server.stop();
}

#[test]
fn a_client_that_reads_nothing_is_cut_and_harms_nobody() {
    let server = behave()
        .websocket()
        .with("min_send_rate", 10_000)
        .with("request_timeout_ms", 500)
        .start();
    let stream = small_buffers(server.address_of("websocket")).unwrap();
    let mut client = RawHttp2::silent(TcpClient::over(stream));
    let wide = [(setting::INITIAL_WINDOW_SIZE, 0x7fff_ffff)];
    client.greet(&wide);
    client.send(window_update(0, 0x7fff_0000));
    for n in 0..20 {
        client.send(headers(2 * n + 1, get("/big?n=1000000")).end_stream());
    }
    wait_until("the client to be cut", || {
        served(&server);
        server.connections() == 0
    });
    server.stop();
}

#[test]
fn a_preface_that_does_not_come_is_not_awaited_for_ever() {
    let server = hasty();
    for sent in [
        PREFACE[..1].to_vec(),
        PREFACE[..20].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &settings(&[]).bytes()[..5]].concat(),
    ] {
        let mut client = TcpClient::connect(server.address_of("websocket"));
        client.send(&sent);
        client.rest();
        served(&server);
    }
    wait_until("the count", || {
        let closed = &server.status()["totals"]["closed"];
        let count = |reason: &str| closed[reason].as_u64().unwrap_or(0);
        count("timeout") + count("idle") >= 4
    });
    server.stop();
}

#[test]
fn a_field_block_that_does_not_end_is_not_awaited_for_ever() {
    let server = hasty();
    let mut client = connect(&server);
    client.send(headers(1, &get("/").bytes()[..5]).unfinished());
    assert!(client.farewell().is_some(), "closed without a word");
    let mut client = connect(&server);
    let half = headers(1, get("/")).bytes();
    client.send(&half[..12]);
    assert!(client.farewell().is_some(), "closed without a word");
    served(&server);
    server.stop();
}

#[test]
fn a_body_that_does_not_come_is_not_awaited_for_ever() {
    let server = hasty();
    let mut client = connect(&server);
    client.send(headers(1, post("/echo").field("content-length", "1000")));
    client.send(data(1, b"only this"));
    match client.try_response(1) {
        Ok(response) => assert_eq!(response.status, 408),
        Err(code) => panic!("reset with {code}"),
    }
    served(&server);
    server.stop();
}

/// However many streams were open, it is one.
#[test]
fn a_connection_that_is_closed_for_a_flood_is_counted_once() {
    let server = behave().websocket().start();
    let mut client = connect(&server);
    for stream in (1..100).step_by(2) {
        client.send(headers(stream, post("/echo")));
    }
    client.sync();
    let pings: Vec<u8> = (0..20_000).flat_map(|_| ping([7; 8]).bytes()).collect();
    // It may have closed by then.
    let _ = client.try_send(pings);
    client.expect_error(&[ENHANCE_YOUR_CALM]);
    counted(&server, "flood", 1);
    served(&server);
    server.stop();
}

/// The handler fails for want of the rest, while the client has not taken the answer yet.
#[test]
fn a_refusal_stands_whatever_becomes_of_the_handler() {
    let server = behave()
        .set("workers", 1)
        .websocket()
        .with("max_body_size", 1000)
        .start();
    let address = server.address_of("websocket");
    let mut client = RawHttp2::connect_with(address, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    client.send(headers(1, post("/echo")));
    client.send(data(1, [b'x'; 500]));
    client.sync();
    client.send(data(1, [b'x'; 501]));
    assert_eq!(client.head(1).status, 413);
    // The worker has seen the end of the body by the time that it answers another.
    for stream in (3..43).step_by(2) {
        client.send(headers(stream, get("/")).end_stream());
        client.send(window_update(stream, 1000));
        assert_eq!(client.response(stream).text(), "hello");
    }
    client.send(window_update(1, 1000));
    let (text, _) = client.data(1);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("larger than 1000 bytes"), "{text}");
    server.stop();
}

#[test]
fn a_connection_without_streams_is_ended_in_peace() {
    let server = hasty();
    let mut client = connect(&server);
    assert_eq!(client.farewell().map(|(code, _)| code), Some(0));
    counted(&server, "idle", 1);
    server.stop();
}

/// Sends what `frame` gives, again and again, until the server says that it is too much.
fn flood(server: &Server, frame: impl Fn(u32) -> Vec<u8> + Send) {
    let before = resident(server);
    let mut client = connect(server);
    let mut writer = client.tcp().socket().try_clone().unwrap();
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut n = 0;
            while begin.elapsed() < DEADLINE {
                let many: Vec<u8> = (n..n + 100).flat_map(&frame).collect();
                // The server has closed.
                if writer.write_all(&many).is_err() {
                    return;
                }
                n += 100;
            }
        });
        scope.spawn(|| (0..20).for_each(|_| served(server)));
        client.trust();
        let farewell = client.farewell();
        let code = farewell.as_ref().map(|(code, _)| *code);
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{farewell:?}");
        let _ = client.tcp().socket().shutdown(std::net::Shutdown::Both);
    });
    bounded(server, before, 16 << 20);
}

/// Another client has its answer.
fn served(server: &Server) {
    let mut client = connect(server);
    assert_eq!(client.get(1, "/").text(), "hello");
    client.leave();
}

fn connect(server: &Server) -> RawHttp2 {
    RawHttp2::connect(server.address_of("websocket"))
}

/// The memory of the master that no file and no other process shares, in bytes.
fn resident(server: &Server) -> u64 {
    Memory::of(server.master()).proportional
}

fn bounded(server: &Server, before: u64, more: u64) {
    let now = resident(server);
    assert!(now < before + more, "{before} bytes, and now {now}");
}

fn counted(server: &Server, reason: &str, count: u64) {
    let mut closed = Value::Null;
    let is_counted = in_time(|| {
        closed = server.status()["totals"]["closed"].clone();
        closed[reason].as_u64() == Some(count)
    });
    assert!(is_counted, "{count} of {reason}: {closed}");
}

/// Whether the condition holds in time.
fn in_time(mut holds: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < DEADLINE {
        if holds() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// A server with little patience.
fn hasty() -> Server {
    let spec: Spec = behave().websocket().with("request_timeout_ms", 400);
    spec.start()
}
