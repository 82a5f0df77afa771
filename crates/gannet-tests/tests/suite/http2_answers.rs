//! What the server says over HTTP/2. The client of the kit checks every frame of it: states, windows,
//! sizes, fields; these tests bring it to where it could go wrong.

use gannet_tests::{
    frames::{
        Event, RawHttp2,
        frame::{
            code::{CANCEL, FLOW_CONTROL_ERROR, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM},
            data, headers, ping, rst_stream, setting, settings, window_update,
        },
        hpack::{get, post, request},
    },
    server::Server,
};

use crate::behave;

#[test]
fn head_is_answered_without_a_body() {
    let server = server();
    let mut client = connect(&server);
    for path in ["/", "/big?n=100000", "/stream?n=3&size=10"] {
        client.send(headers(odd(path), request("HEAD", path)).end_stream());
        let response = client.response(odd(path));
        assert_eq!((response.status, response.body.len()), (200, 0), "{path}");
    }
    server.stop();
}

#[test]
fn an_answer_without_content_has_none() {
    let server = server();
    let mut client = connect(&server);
    let response = client.get(1, "/empty");
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert_eq!(response.header("content-length"), None);
    server.stop();
}

#[test]
fn windows_bound_what_is_sent() {
    let server = server();
    let mut client = small_window(&server, 10);
    client.send(headers(1, get("/big?n=100000")).end_stream());
    client.head(1);
    assert_eq!(take(&mut client, 1, 10), 10);
    nothing_more(&mut client, 1);
    client.send(window_update(1, 1));
    assert_eq!(take(&mut client, 1, 1), 1);
    nothing_more(&mut client, 1);
    // Now the window of the connection is the smaller one.
    client.send(window_update(1, 200_000));
    assert_eq!(take(&mut client, 1, 65_535 - 11), 65_535 - 11);
    nothing_more(&mut client, 1);
    client.send(window_update(0, 34_465));
    assert_eq!(take(&mut client, 1, 34_465), 34_465);
    if !client.is_answered(1) {
        assert_eq!(client.data(1), (Vec::new(), true));
    }
    server.stop();
}

#[test]
fn a_window_that_shrinks_below_zero_is_made_up_first() {
    let server = server();
    let mut client = small_window(&server, 1000);
    client.send(headers(1, get("/big?n=5000")).end_stream());
    client.head(1);
    assert_eq!(take(&mut client, 1, 1000), 1000);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]));
    client.expect(|event| *event == Event::SettingsAck);
    assert_eq!(client.window(1), -900);
    client.send(window_update(1, 900));
    nothing_more(&mut client, 1);
    client.send(window_update(1, 50));
    assert_eq!(take(&mut client, 1, 50), 50);
    nothing_more(&mut client, 1);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 5000)]));
    assert_eq!(take(&mut client, 1, 3950), 3950);
    server.stop();
}

#[test]
fn the_window_of_the_connection_is_shared() {
    let server = server();
    let mut client = small_window(&server, 60_000);
    for stream in [1, 3, 5] {
        client.send(headers(stream, get("/big?n=60000")).end_stream());
    }
    // The client of the kit fails if it is more.
    let (mut read, mut ended) = (0, 0);
    let mut read_to = |client: &mut RawHttp2, most| {
        while read < most || (most == 180_000 && ended < 3) {
            if let Event::Data { data, end, .. } = client.event() {
                read += data.len();
                ended += usize::from(end);
            }
        }
        read
    };
    assert_eq!(read_to(&mut client, 65_535), 65_535);
    client.send(window_update(0, 180_000 - 65_535));
    let read = read_to(&mut client, 180_000);
    assert_eq!(read, 180_000);
    server.stop();
}

#[test]
fn frames_have_the_size_that_the_client_takes() {
    let server = server();
    let wide = [
        (setting::INITIAL_WINDOW_SIZE, 10_000_000),
        (setting::MAX_FRAME_SIZE, 100_000),
    ];
    for values in [&wide[..1], &wide] {
        let mut client = RawHttp2::connect_with(server.address_of("websocket"), values);
        client.send(window_update(0, 10_000_000));
        assert_eq!(client.get(1, "/big?n=1000000").body.len(), 1_000_000);
    }
    server.stop();
}

#[test]
fn a_client_without_a_table_of_fields_understands_every_answer() {
    let server = server();
    let none = [(setting::HEADER_TABLE_SIZE, 0)];
    let mut client = RawHttp2::connect_with(server.address_of("websocket"), &none);
    for n in 0..5 {
        assert_eq!(client.get(2 * n + 1, "/").text(), "hello");
    }
    server.stop();
}

#[test]
fn a_table_of_fields_can_be_made_smaller_and_greater_again() {
    let server = server();
    let mut client = connect(&server);
    for (n, size) in [4096, 0, 100, 4096, 50].into_iter().enumerate() {
        client.send(settings(&[(setting::HEADER_TABLE_SIZE, size)]));
        client.expect(|event| *event == Event::SettingsAck);
        for k in 0..3 {
            let stream = u32::try_from(6 * n + 2 * k + 1).unwrap();
            assert_eq!(client.get(stream, "/").text(), "hello");
        }
    }
    server.stop();
}

#[test]
fn settings_are_acknowledged_one_by_one() {
    let server = server();
    let mut client = connect(&server);
    let all: Vec<u8> = (0..5)
        .flat_map(|n| settings(&[(setting::INITIAL_WINDOW_SIZE, n)]).bytes())
        .collect();
    client.send(all);
    for _ in 0..5 {
        client.expect(|event| *event == Event::SettingsAck);
    }
    assert_eq!(client.window(1), 4);
    server.stop();
}

#[test]
fn pings_are_answered_with_what_they_carry_and_while_a_body_waits() {
    let server = server();
    let mut client = small_window(&server, 0);
    client.send(headers(1, get("/big?n=100000")).end_stream());
    for n in 0..20 {
        client.send(ping([n; 8]));
        client.expect(|event| *event == Event::Pong([n; 8]));
    }
    server.stop();
}

#[test]
fn nothing_follows_the_reset_of_a_stream() {
    let server = server();
    let mut client = connect(&server);
    client.send(headers(1, get("/stream?n=100000&size=1000")).end_stream());
    client.head(1);
    client.send(rst_stream(1, CANCEL));
    client.sync();
    // What was on its way came in front of the answer to the ping.
    while client.waiting().is_some() {}
    assert_eq!(client.get(3, "/").text(), "hello");
    while let Some(event) = client.waiting() {
        assert!(!event.is_on(1), "{event:?}");
    }
    server.stop();
}

#[test]
fn streams_over_the_limit_are_refused_and_those_that_end_make_room() {
    let server = behave().websocket().with("http2_max_streams", 3).start();
    let mut client = connect(&server);
    assert_eq!(
        client.server_setting(setting::MAX_CONCURRENT_STREAMS),
        Some(3)
    );
    for stream in [1, 3, 5, 7] {
        client.send(headers(stream, post("/echo")));
    }
    let code = client.reset(7);
    assert!([REFUSED_STREAM, PROTOCOL_ERROR].contains(&code), "{code}");
    client.send(data(3, b"done").end_stream());
    assert_eq!(client.response(3).text(), "done");
    assert_eq!(client.get(9, "/").text(), "hello");
    server.stop();
}

#[test]
fn requests_are_answered_each_on_its_stream() {
    let server = server();
    let mut client = connect(&server);
    let streams = || (0..100).map(|n| 2 * n + 1);
    let mut all = Vec::new();
    for stream in streams() {
        all.extend(headers(stream, post("/echo")).bytes());
    }
    for stream in streams() {
        all.extend(data(stream, "body of ").bytes());
    }
    for stream in streams() {
        all.extend(data(stream, format!("{stream}")).end_stream().bytes());
    }
    client.send(all);
    for stream in streams().collect::<Vec<_>>().into_iter().rev() {
        assert_eq!(client.response(stream).text(), format!("body of {stream}"));
    }
    server.stop();
}

#[test]
fn bodies_of_any_size_come_back() {
    let server = server();
    let mut client = connect(&server);
    for (stream, size) in [
        (1, 0),
        (3, 1),
        (5, 16_384),
        (7, 16_385),
        (9, 65_535),
        (11, 1_500_000),
    ] {
        let body: Vec<u8> = (0..size)
            .map(|n| b'a' + u8::try_from(n % 23).unwrap())
            .collect();
        client.send(headers(stream, post("/echo")));
        client.upload(stream, &body);
        assert!(client.response(stream).body == body, "{size}");
    }
    server.stop();
}

#[test]
fn more_than_the_window_of_the_server_is_an_error() {
    let server = behave()
        .websocket()
        .with("http2_stream_window", 65_535)
        .start();
    let mut client = connect(&server);
    // A handler that takes nothing of it for a while.
    client.send(headers(1, post("/sleep?ms=2000")));
    for _ in 0..20 {
        client.send(data(1, vec![b'x'; 16_384]));
    }
    let error = client.expect(|event| matches!(event, Event::Reset { .. } | Event::GoAway { .. }));
    match error {
        Event::Reset { code, .. } | Event::GoAway { code, .. } => {
            assert_eq!(code, FLOW_CONTROL_ERROR);
        }
        other => unreachable!("{other:?}"),
    }
    server.stop();
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let server = server();
    let mut client = connect(&server);
    client.send(headers(1, post("/echo").field("expect", "100-continue")));
    let head = client.head(1);
    assert_eq!(head.status, 100);
    client.send(data(1, b"then this").end_stream());
    assert_eq!(client.response(1).text(), "then this");
    server.stop();
}

#[test]
fn cookies_that_come_in_parts_are_one_for_the_handler() {
    let server = server();
    let mut client = connect(&server);
    let block = get("/headers")
        .field("cookie", "a=1")
        .field("cookie", "b=2");
    client.send(headers(1, block).end_stream());
    let response = client.response(1);
    assert!(
        response.text().contains("cookie: a=1; b=2\n"),
        "{response:?}"
    );
    server.stop();
}

#[test]
fn a_server_that_stops_says_so_and_answers_what_was_begun() {
    let server = server();
    let mut client = connect(&server);
    client.send(headers(1, post("/echo")));
    client.sync();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| server.control(&["stop"]));
        client.expect(|event| matches!(event, Event::GoAway { code: NO_ERROR, .. }));
        client.send(data(1, b"to the end").end_stream());
        assert_eq!(client.response(1).text(), "to the end");
        assert!(client.farewell().is_none_or(|(code, _)| code == NO_ERROR));
        assert_eq!(stopping.join().unwrap().code, Some(0));
    });
}

fn server() -> Server {
    behave().websocket().start()
}

fn connect(server: &Server) -> RawHttp2 {
    RawHttp2::connect(server.address_of("websocket"))
}

/// A client whose streams begin with this window, and that gives nothing back by itself.
fn small_window(server: &Server, window: u32) -> RawHttp2 {
    let values = [(setting::INITIAL_WINDOW_SIZE, window)];
    RawHttp2::connect_with(server.address_of("websocket"), &values).hold_windows()
}

/// Reads so many bytes of a body, or a few more.
fn take(client: &mut RawHttp2, stream: u32, count: usize) -> usize {
    let mut read = 0;
    while read < count {
        read += client.data(stream).0.len();
    }
    read
}

/// What was sent before is taken, and nothing came of it.
fn nothing_more(client: &mut RawHttp2, stream: u32) {
    client.sync();
    client.sync();
    let more = client.waiting();
    assert!(
        !more.as_ref().is_some_and(|it| it.is_on(stream)),
        "{more:?}"
    );
}

/// A stream for each of a few paths.
fn odd(path: &str) -> u32 {
    u32::try_from(path.len()).unwrap() * 2 + 1
}
