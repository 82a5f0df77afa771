//! The form of frames: sizes, flags, padding, streams they may be on, order (sections 4 and 6).

use gannet_tests::frames::{
    frame::{
        code::{FRAME_SIZE_ERROR, PROTOCOL_ERROR},
        continuation, data, flag, goaway, headers, kind, ping, priority, push_promise, raw,
        rst_stream, settings, settings_ack, window_update,
    },
    hpack::{get, post},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    [layout(), sizes(), padding(), wrong_streams(), blocks()].concat()
}

/// 4.1, 5.5 and what is to be ignored.
fn layout() -> Vec<Row> {
    let open = || headers(1, post("/echo"));
    vec![
        row("4.1", "a frame of an unknown type is ignored on stream 0")
            .send(raw(0xbe, 0, 0, b"whatever"))
            .ignored(),
        row(
            "4.1",
            "a frame of an unknown type is ignored on an idle stream",
        )
        .send(raw(0xbe, 0xff, 77, b"whatever"))
        .ignored(),
        row(
            "5.5",
            "a frame of an unknown type is ignored on an open stream",
        )
        .send(open())
        .send(raw(0xbe, 0xff, 1, b"whatever"))
        .send(data(1, b"x").end_stream())
        .answered(1, 200),
        row(
            "5.1",
            "a frame of an unknown type is ignored on a closed stream",
        )
        .send(headers(1, get("/")).end_stream())
        .answer(1)
        .send(raw(0xbe, 0xff, 1, b""))
        .ignored(),
        row(
            "5.5",
            "a frame of an unknown type of the greatest size is ignored",
        )
        .send(raw(0xff, 0, 0, vec![0; 16_384]))
        .ignored(),
        row("4.1", "unused flags of HEADERS are ignored")
            .send(headers(1, get("/")).end_stream().with(0xd2))
            .answered(1, 200),
        row("4.1", "unused flags of DATA are ignored")
            .send(open())
            .send(data(1, b"x").end_stream().with(0xf6))
            .answered(1, 200),
        row("4.1", "unused flags of SETTINGS are ignored")
            .send(settings(&[]).with(0xfe))
            .ignored(),
        row("4.1", "unused flags of PING are ignored")
            .send(ping([1; 8]).with(0xfe))
            .ignored(),
        row("4.1", "unused flags of RST_STREAM are ignored")
            .send(open())
            .send(rst_stream(1, 8).with(0xff))
            .ignored(),
        row("4.1", "unused flags of WINDOW_UPDATE are ignored")
            .send(window_update(0, 1).with(0xff))
            .ignored(),
        row("4.1", "unused flags of PRIORITY are ignored")
            .send(priority(1, 0, 1).with(0xff))
            .ignored(),
        row("4.1", "the reserved bit of a stream is ignored")
            .send(headers(1 | 1 << 31, get("/")).end_stream())
            .answered(1, 200),
        row("4.1", "the reserved bit of stream 0 is ignored")
            .send(ping([2; 8]).on(1 << 31))
            .ignored(),
        row("6.9", "the reserved bit of an increment is ignored")
            .send(window_update(0, 1 | 1 << 31))
            .ignored(),
        row(
            "7",
            "an unknown error code in RST_STREAM means nothing else",
        )
        .send(open())
        .send(rst_stream(1, 0xffff_ffff))
        .ignored(),
        row(
            "6.7",
            "an acknowledged ping that nobody sent is not answered",
        )
        .send(ping([3; 8]).with(flag::ACK))
        .ignored(),
    ]
}

/// 4.2 and the sizes of each type.
fn sizes() -> Vec<Row> {
    let open = || headers(1, post("/echo"));
    let size = |section: &str, rule: &str| row(section, rule).connection_error(&[FRAME_SIZE_ERROR]);
    let mut rows = vec![
        row("4.2", "DATA of 16,384 bytes is taken")
            .send(open())
            .send(data(1, vec![b'x'; 16_384]).end_stream())
            .answered(1, 200),
        row("4.2", "HEADERS of 16,384 bytes are taken")
            .send({
                let block = get("/").field("x-long", vec![b'x'; 16_000]);
                let rest = 16_384 - block.bytes().len() - 10;
                let block = block.field("x-fill", vec![b'y'; rest - 1]);
                headers(1, block).end_stream()
            })
            .answered(1, 200),
        row("4.2", "DATA over the limit is an error")
            .send(open())
            .send(data(1, vec![b'x'; OVER]))
            .stream_error(1, &[FRAME_SIZE_ERROR]),
        size("4.2", "HEADERS over the limit are an error")
            .send(headers(1, get("/").field("x-long", vec![b'x'; OVER])).end_stream()),
        size("4.2", "CONTINUATION over the limit is an error")
            .send(headers(1, get("/")).unfinished())
            .send(continuation(1, vec![0; OVER])),
        size("4.2", "SETTINGS over the limit are an error")
            .send(settings(&vec![(0xff00, 0); OVER / 6 + 1])),
        size(
            "4.2",
            "a frame over the limit is refused by its header alone",
        )
        .send(headers(1, b"").claiming(0xff_ffff)),
        size("4.2", "an unknown frame over the limit is an error").send(raw(
            0xbe,
            0,
            0,
            vec![0; OVER],
        )),
        size("6.4", "RST_STREAM of 3 bytes is an error")
            .send(open())
            .send(raw(kind::RST_STREAM, 0, 1, [0; 3])),
        size("6.4", "RST_STREAM of 5 bytes is an error")
            .send(open())
            .send(raw(kind::RST_STREAM, 0, 1, [0; 5])),
        size("6.4", "RST_STREAM without a code is an error")
            .send(open())
            .send(raw(kind::RST_STREAM, 0, 1, [])),
        size("6.5", "an acknowledgement with a payload is an error")
            .send(settings(&[(3, 1)]).with(flag::ACK)),
        size("6.7", "PING of 7 bytes is an error").send(raw(kind::PING, 0, 0, [0; 7])),
        size("6.7", "PING of 9 bytes is an error").send(raw(kind::PING, 0, 0, [0; 9])),
        size("6.7", "PING without a payload is an error").send(raw(kind::PING, 0, 0, [])),
        size("6.7", "an acknowledged PING of 6 bytes is an error").send(raw(
            kind::PING,
            flag::ACK,
            0,
            [0; 6],
        )),
        size("4.2", "GOAWAY of 7 bytes is an error").send(raw(kind::GOAWAY, 0, 0, [0; 7])),
        size("6.9", "WINDOW_UPDATE of 3 bytes is an error").send(raw(
            kind::WINDOW_UPDATE,
            0,
            0,
            [0; 3],
        )),
        size("6.9", "WINDOW_UPDATE of 5 bytes is an error").send(raw(
            kind::WINDOW_UPDATE,
            0,
            0,
            [0, 0, 0, 1, 0],
        )),
        size("6.9", "WINDOW_UPDATE of 3 bytes on a stream is an error")
            .send(open())
            .send(raw(kind::WINDOW_UPDATE, 0, 1, [0, 0, 1])),
        row("6.3", "PRIORITY of 4 bytes is an error of its stream")
            .send(open())
            .send(raw(kind::PRIORITY, 0, 1, [0; 4]))
            .stream_error(1, &[FRAME_SIZE_ERROR]),
        row("6.3", "PRIORITY of 6 bytes is an error of its stream")
            .send(open())
            .send(raw(kind::PRIORITY, 0, 1, [0; 6]))
            .stream_error(1, &[FRAME_SIZE_ERROR]),
        row(
            "4.2",
            "HEADERS with priority that are too short for it are an error",
        )
        .send(raw(kind::HEADERS, flag::PRIORITY | 0x5, 1, [0; 4]))
        .connection_error(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        row(
            "4.2",
            "HEADERS with padding and priority that are too short for it are an error",
        )
        .send(raw(
            kind::HEADERS,
            flag::PADDED | flag::PRIORITY | 0x5,
            1,
            [0; 5],
        ))
        .connection_error(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        row(
            "4.2",
            "padded DATA without a length of the padding is an error",
        )
        .send(open())
        .send(raw(kind::DATA, flag::PADDED, 1, []))
        .stream_error(1, &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        row(
            "4.2",
            "padded HEADERS without a length of the padding are an error",
        )
        .send(raw(kind::HEADERS, flag::PADDED | 0x5, 1, []))
        .connection_error(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ];
    for length in [1, 5, 7] {
        let rule = format!("SETTINGS of {length} bytes are an error");
        rows.push(size("6.5", &rule).send(raw(kind::SETTINGS, 0, 0, vec![0; length])));
    }
    rows
}

/// 6.1, 6.2.
fn padding() -> Vec<Row> {
    let open = || headers(1, post("/echo"));
    vec![
        row("6.1", "padding of DATA is no part of the body")
            .send(headers(1, post("/echo").field("content-length", "4")))
            .send(data(1, b"data").padded(200).end_stream())
            .answered(1, 200),
        row("6.1", "DATA may be padding alone")
            .send(headers(1, post("/echo").field("content-length", "0")))
            .send(data(1, b"").padded(255).end_stream())
            .answered(1, 200),
        row("6.1", "DATA with a padding of no bytes is taken")
            .send(open())
            .send(data(1, b"x").padded(0).end_stream())
            .answered(1, 200),
        row("6.2", "padding of HEADERS is no part of the block")
            .send(headers(1, get("/")).padded(100).end_stream())
            .answered(1, 200),
        row("6.2", "HEADERS with priority and padding are taken")
            .send(
                headers(1, get("/"))
                    .prioritized(0, 7)
                    .padded(9)
                    .end_stream(),
            )
            .answered(1, 200),
        row("6.1", "padding as long as the payload of DATA is an error")
            .send(open())
            .send(raw(kind::DATA, flag::PADDED, 1, [5, 1, 2, 3, 4]))
            .connection_error(&[PROTOCOL_ERROR]),
        row("6.1", "padding longer than the payload of DATA is an error")
            .send(open())
            .send(data(1, b"x").padded_as(200, b""))
            .connection_error(&[PROTOCOL_ERROR]),
        row(
            "6.2",
            "padding as long as the payload of HEADERS is an error",
        )
        .send({
            let block = get("/");
            let length = u8::try_from(block.bytes().len() + 1).unwrap();
            headers(1, block).padded_as(length, b"").end_stream()
        })
        .connection_error(&[PROTOCOL_ERROR]),
        row(
            "6.2",
            "padding longer than the payload of HEADERS is an error",
        )
        .send(headers(1, get("/")).padded_as(255, b"").end_stream())
        .connection_error(&[PROTOCOL_ERROR]),
        row(
            "6.2",
            "padding that leaves no room for the priority of HEADERS is an error",
        )
        .send(raw(
            kind::HEADERS,
            flag::PADDED | flag::PRIORITY | 0x5,
            1,
            [6, 0, 0, 0, 0, 7, 0, 0],
        ))
        .connection_error(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
    ]
}

/// Frames that have to be on a stream, or must not be.
fn wrong_streams() -> Vec<Row> {
    let error = |section, rule| row(section, rule).connection_error(&[PROTOCOL_ERROR]);
    vec![
        error("6.1", "DATA on stream 0 is an error").send(data(0, b"x")),
        error("6.2", "HEADERS on stream 0 are an error").send(headers(0, get("/"))),
        error("6.3", "PRIORITY on stream 0 is an error").send(priority(0, 1, 1)),
        error("6.4", "RST_STREAM on stream 0 is an error").send(rst_stream(0, 8)),
        error("6.10", "CONTINUATION on stream 0 is an error")
            .send(headers(1, get("/")).unfinished())
            .send(continuation(0, b"")),
        error("6.5", "SETTINGS on a stream are an error").send(settings(&[(3, 1)]).on(1)),
        error("6.5", "an acknowledgement on a stream is an error").send(settings_ack().on(1)),
        error("6.7", "PING on a stream is an error").send(ping([0; 8]).on(1)),
        error("6.8", "GOAWAY on a stream is an error").send(goaway(0, 0).on(1)),
        error("8.4", "PUSH_PROMISE of a client is an error")
            .send(headers(1, post("/echo")))
            .send(push_promise(1, 2, get("/"))),
        error(
            "8.4",
            "PUSH_PROMISE of a client on an idle stream is an error",
        )
        .send(push_promise(1, 3, get("/"))),
        error("6.6", "PUSH_PROMISE on stream 0 is an error").send(push_promise(0, 2, get("/"))),
    ]
}

/// 4.3, 6.2 and 6.10: a field block is not interrupted.
fn blocks() -> Vec<Row> {
    let error = |rule| {
        let begun = headers(1, &get("/").bytes()[..10])
            .unfinished()
            .end_stream();
        row("6.10", rule)
            .send(begun)
            .connection_error(&[PROTOCOL_ERROR])
    };
    let parts = get("/").parts(10);
    let mut rows = vec![
        error("DATA within a field block is an error").send(data(1, b"x")),
        error("HEADERS of another stream within a field block are an error")
            .send(headers(3, get("/")).end_stream()),
        error("HEADERS of the same stream within a field block are an error")
            .send(headers(1, b"").end_stream()),
        error("CONTINUATION of another stream within a field block is an error")
            .send(continuation(3, &get("/").bytes()[10..])),
        error("PRIORITY within a field block is an error").send(priority(1, 0, 1)),
        error("RST_STREAM within a field block is an error").send(rst_stream(1, 8)),
        error("SETTINGS within a field block are an error").send(settings(&[])),
        error("an acknowledgement within a field block is an error").send(settings_ack()),
        error("PING within a field block is an error").send(ping([0; 8])),
        error("GOAWAY within a field block is an error").send(goaway(0, 0)),
        error("WINDOW_UPDATE within a field block is an error").send(window_update(0, 1)),
        error("PUSH_PROMISE within a field block is an error").send(push_promise(1, 2, get("/"))),
        error("a frame of an unknown type within a field block is an error")
            .send(raw(0xbe, 0, 1, b"")),
        row("6.10", "CONTINUATION behind nothing is an error")
            .send(continuation(1, get("/")))
            .connection_error(&[PROTOCOL_ERROR]),
        row(
            "6.10",
            "CONTINUATION behind HEADERS that are whole is an error",
        )
        .send(headers(1, post("/echo")))
        .send(continuation(1, b""))
        .connection_error(&[PROTOCOL_ERROR]),
        row("6.10", "CONTINUATION behind DATA is an error")
            .send(headers(1, post("/echo")))
            .send(data(1, b"x"))
            .send(continuation(1, b""))
            .connection_error(&[PROTOCOL_ERROR]),
        row(
            "6.10",
            "CONTINUATION behind the last CONTINUATION is an error",
        )
        .send(headers(1, b"").unfinished())
        .send(continuation(1, post("/echo")))
        .send(continuation(1, b""))
        .connection_error(&[PROTOCOL_ERROR]),
        row(
            "4.3",
            "a field block may go on in CONTINUATION frames, cut anywhere",
        )
        .send({
            let mut frames = headers(1, parts[0].clone())
                .unfinished()
                .end_stream()
                .bytes();
            for part in &parts[1..] {
                frames.extend(continuation(1, part.clone()).unfinished().bytes());
            }
            frames.extend(continuation(1, b"").bytes());
            frames
        })
        .answered(1, 200),
        row("4.3", "a field block may begin with empty HEADERS")
            .send(headers(1, b"").unfinished().end_stream())
            .send(continuation(1, get("/")))
            .answered(1, 200),
        row("4.1", "unused flags of CONTINUATION are ignored")
            .send(headers(1, b"").unfinished().end_stream())
            .send(continuation(1, get("/")).with(0xfb))
            .answered(1, 200),
    ];
    let trailers = headers(1, b"").unfinished().end_stream();
    rows.push(
        row("6.10", "PING within a block of trailers is an error")
            .send(headers(1, post("/echo")))
            .send(trailers)
            .send(ping([0; 8]))
            .connection_error(&[PROTOCOL_ERROR]),
    );
    rows
}

/// More than a frame may have. Servers that let frames be greater are not tested for it.
const OVER: usize = 16_385;
