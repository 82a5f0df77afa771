//! Requests with bodies and trailers, and how messages are framed (8.1).

use gannet_tests::frames::{
    frame::{
        code::{PROTOCOL_ERROR, STREAM_CLOSED},
        data, headers, window_update,
    },
    hpack::{fields, get, post},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    let open = || headers(1, post("/echo"));
    let trailers = || headers(1, fields(&[("x-late", "yes")]));
    vec![
        row("8.1", "a request is HEADERS alone")
            .send(headers(1, get("/")).end_stream())
            .answered(1, 200),
        row("8.1", "a body may end with an empty part")
            .send(open())
            .send(data(1, b"x"))
            .send(data(1, b"").end_stream())
            .answered(1, 200),
        row("8.1", "a body may begin with an empty part")
            .send(open())
            .send(data(1, b""))
            .send(data(1, b"x").end_stream())
            .answered(1, 200),
        row("8.1", "a body may be empty")
            .send(open())
            .send(data(1, b"").end_stream())
            .answered(1, 200),
        row("8.1", "trailers end a request")
            .send(open())
            .send(data(1, b"x"))
            .send(trailers().end_stream())
            .answered(1, 200),
        row("8.1", "trailers may follow without a body")
            .send(open())
            .send(trailers().end_stream())
            .answered(1, 200),
        row("8.1", "trailers may be in CONTINUATION frames")
            .send(open())
            .send(data(1, b"x"))
            .send(headers(1, b"").unfinished().end_stream())
            .send(gannet_tests::frames::frame::continuation(
                1,
                fields(&[("x-late", "yes")]),
            ))
            .answered(1, 200),
        row("8.1", "trailers that do not end the stream are malformed")
            .send(open())
            .send(data(1, b"x"))
            .send(trailers())
            .malformed(1),
        row("8.1", "DATA behind trailers is an error")
            .send(open())
            .send(data(1, b"x"))
            .send(trailers().end_stream())
            .send(data(1, b"y").end_stream())
            .stream_error(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        row("8.1", "a second request on an open stream is malformed")
            .send(open())
            .send(headers(1, get("/")).end_stream())
            .malformed(1),
        row("8.1", "a GET may have a body")
            .send(headers(1, get("/method")))
            .send(data(1, b"x").end_stream())
            .answered(1, 200),
        row("8.1", "a body may be answered before its end")
            .send(headers(1, post("/ignore-body")))
            .answer(1)
            .ignored(),
        row("8.1", "requests do not wait for each other")
            .send(open())
            .send(headers(3, get("/")).end_stream())
            .answer(3)
            .send(data(1, b"x").end_stream())
            .answered(1, 200),
        row("8.1", "parts of bodies may be mixed")
            .send(open())
            .send(open().on(3))
            .send(data(3, b"b"))
            .send(data(1, b"a"))
            .send(data(3, b"b").end_stream())
            .answer(3)
            .send(data(1, b"a").end_stream())
            .answered(1, 200),
        row("8.1", "a malformed request does not harm others")
            .send(open())
            .send(headers(3, fields(&[("x", "no pseudo-headers")])).end_stream())
            .send(data(1, b"x").end_stream())
            .answer(1)
            .malformed(3),
        row(
            "6.9",
            "a body may be greater than the window if the server gives more",
        )
        .send(headers(1, get("/big?n=70000")).end_stream())
        .send(window_update(0, 100_000))
        .send(window_update(1, 100_000))
        .answered(1, 200),
    ]
}
