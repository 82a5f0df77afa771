//! States, numbers and errors of streams (5.1 to 5.4, 6.3, 6.4).

use gannet_tests::frames::{
    frame::{
        code::{CANCEL, NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED},
        continuation, data, goaway, headers, priority, rst_stream, setting, settings,
        window_update,
    },
    hpack::{Block, fields, get, post},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    [
        idle(),
        half_closed(),
        closed(),
        reset_by_server(),
        numbers(),
        priorities(),
    ]
    .concat()
}

/// Nothing but HEADERS and PRIORITY may come on an idle stream.
fn idle() -> Vec<Row> {
    let error = |rule| row("5.1", rule).connection_error(&[PROTOCOL_ERROR]);
    vec![
        error("DATA on an idle stream is an error").send(data(1, b"x")),
        error("empty DATA with END_STREAM on an idle stream is an error")
            .send(data(1, b"").end_stream()),
        error("RST_STREAM on an idle stream is an error").send(rst_stream(1, CANCEL)),
        error("WINDOW_UPDATE on an idle stream is an error").send(window_update(1, 100)),
        error("CONTINUATION on an idle stream is an error").send(continuation(1, get("/"))),
        error("DATA on an idle stream of the server is an error").send(data(2, b"x")),
        error("RST_STREAM on an idle stream of the server is an error").send(rst_stream(2, CANCEL)),
        error("WINDOW_UPDATE on an idle stream of the server is an error")
            .send(window_update(2, 1)),
        error("DATA above all streams that were opened is an error")
            .send(headers(5, get("/")).end_stream())
            .send(data(7, b"x")),
        row("5.1", "PRIORITY on an idle stream is taken")
            .send(priority(1, 0, 10))
            .send(headers(1, get("/")).end_stream())
            .answered(1, 200),
        row("5.1", "PRIORITY on an idle stream of the server is taken")
            .send(priority(2, 0, 10))
            .ignored(),
    ]
}

/// The client has ended its side, and the answer waits for a window.
fn half_closed() -> Vec<Row> {
    let half = |rule| {
        row("5.1", rule)
            .send(settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]))
            .send(headers(1, get("/")).end_stream())
    };
    vec![
        half("DATA on a half-closed stream is an error")
            .send(data(1, b"x"))
            .stream_error(1, &[STREAM_CLOSED]),
        half("empty DATA on a half-closed stream is an error")
            .send(data(1, b"").end_stream())
            .stream_error(1, &[STREAM_CLOSED]),
        half("HEADERS on a half-closed stream are an error")
            .send(headers(1, fields(&[("x-late", "yes")])).end_stream())
            .stream_error(1, &[STREAM_CLOSED]),
        half("CONTINUATION on a half-closed stream is an error")
            .send(continuation(1, b""))
            .connection_error(&[PROTOCOL_ERROR]),
        half("PRIORITY on a half-closed stream is taken")
            .send(priority(1, 0, 1))
            .ignored(),
        half("WINDOW_UPDATE on a half-closed stream lets the answer go on")
            .send(window_update(1, 100))
            .answer(1)
            .ignored(),
        half("RST_STREAM on a half-closed stream ends it")
            .send(rst_stream(1, CANCEL))
            .ignored(),
    ]
}

/// Both sides have ended, or the client has given up.
fn closed() -> Vec<Row> {
    let ended = |rule| {
        let request = headers(1, get("/")).end_stream();
        row("5.1", rule).send(request).answer(1)
    };
    let given_up = |rule| {
        let request = headers(1, post("/echo"));
        row("5.1", rule)
            .send(request)
            .send(rst_stream(1, CANCEL))
            .sync()
    };
    let trailers = || headers(1, fields(&[("x-late", "yes")])).end_stream();
    vec![
        ended("DATA on a closed stream is an error")
            .send(data(1, b"x"))
            .stream_error(1, &[STREAM_CLOSED]),
        ended("HEADERS on a closed stream are an error")
            .send(trailers())
            .stream_error(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        ended("a second request on a closed stream is an error")
            .send(headers(1, get("/")).end_stream())
            .stream_error(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        ended("CONTINUATION on a closed stream is an error")
            .send(continuation(1, b""))
            .connection_error(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ended("PRIORITY on a closed stream is taken")
            .send(priority(1, 0, 1))
            .ignored(),
        ended("WINDOW_UPDATE on a closed stream is no error")
            .send(window_update(1, 1))
            .ignored(),
        ended("RST_STREAM on a closed stream is no error")
            .send(rst_stream(1, NO_ERROR))
            .ignored(),
        given_up("DATA behind RST_STREAM is an error")
            .send(data(1, b"x"))
            .stream_error(1, &[STREAM_CLOSED]),
        given_up("HEADERS behind RST_STREAM are an error")
            .send(trailers())
            .stream_error(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        given_up("CONTINUATION behind RST_STREAM is an error")
            .send(continuation(1, b""))
            .connection_error(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        given_up("PRIORITY behind RST_STREAM is taken")
            .send(priority(1, 0, 1))
            .ignored(),
        row("5.4.2", "RST_STREAM is not answered with RST_STREAM")
            .send(headers(1, post("/echo")))
            .send(rst_stream(1, CANCEL))
            .send(rst_stream(1, CANCEL))
            .ignored(),
        row("6.4", "RST_STREAM ends a stream within its body")
            .send(headers(1, post("/echo")))
            .send(data(1, b"half of"))
            .send(rst_stream(1, CANCEL))
            .ignored(),
        row("6.8", "GOAWAY of a client ends nothing that was begun")
            .send(headers(1, post("/echo")))
            .send(goaway(0, NO_ERROR))
            .send(data(1, b"x").end_stream())
            .answer(1)
            .over(),
    ]
}

/// What the client has sent before it knows of a reset is processed as far as others need it.
fn reset_by_server() -> Vec<Row> {
    let reset = |rule| {
        // A window that overflows is an error that the server has to tell with RST_STREAM.
        row("5.1", rule)
            .send(headers(1, post("/echo")))
            .send(window_update(1, 0x7fff_ffff))
            .reset(1)
    };
    let known = || get("/").indexed(62);
    vec![
        reset("DATA behind the server's RST_STREAM is ignored")
            .send(data(1, b"late").end_stream())
            .tolerated(1, &[STREAM_CLOSED]),
        reset("HEADERS behind the server's RST_STREAM are ignored")
            .send(headers(1, fields(&[("x-late", "yes")])).end_stream())
            .tolerated(1, &[STREAM_CLOSED]),
        reset("WINDOW_UPDATE behind the server's RST_STREAM is ignored")
            .send(window_update(1, 100))
            .ignored(),
        reset("RST_STREAM behind the server's RST_STREAM is ignored")
            .send(rst_stream(1, CANCEL))
            .ignored(),
        reset("PRIORITY behind the server's RST_STREAM is ignored")
            .send(priority(1, 0, 1))
            .ignored(),
        reset("HEADERS behind the server's RST_STREAM change the table of fields")
            .send(headers(1, Block::default().remembered("x-late", "yes")).end_stream())
            .send(headers(3, known()).end_stream())
            .answered(3, 200),
    ]
}

fn numbers() -> Vec<Row> {
    let error = |rule| row("5.1.1", rule).connection_error(&[PROTOCOL_ERROR]);
    vec![
        error("HEADERS on an even stream are an error").send(headers(2, get("/")).end_stream()),
        error("streams do not decrease")
            .send(headers(5, get("/")).end_stream())
            .answer(5)
            .send(headers(3, get("/")).end_stream())
            .connection_error(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        error("streams do not decrease while others are open")
            .send(headers(5, post("/echo")))
            .send(headers(3, get("/")).end_stream())
            .connection_error(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        row("5.1.1", "streams may be skipped")
            .send(headers(501, get("/")).end_stream())
            .answered(501, 200),
        row("5.1.1", "DATA on a stream that was skipped is an error")
            .send(headers(5, post("/echo")))
            .send(data(3, b"x"))
            .connection_error(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        row("5.1.1", "the last stream of all can be used")
            .send(headers(0x7fff_ffff, get("/")).end_stream())
            .answer(0x7fff_ffff)
            .sync()
            .over(),
        row(
            "8.1",
            "a request with a second field block that is not the end is malformed",
        )
        .send(headers(1, post("/echo")))
        .send(headers(1, fields(&[("x-more", "yes")])))
        .malformed(1),
    ]
}

/// What remains of priorities is to be taken, and means nothing.
fn priorities() -> Vec<Row> {
    vec![
        row(
            "5.3.2",
            "a stream that depends on itself is nothing, or an error of the stream",
        )
        .send(headers(1, get("/")).prioritized(1, 3).end_stream())
        .tolerated(1, &[PROTOCOL_ERROR]),
        row(
            "5.3.2",
            "PRIORITY that depends on itself is nothing, or an error of the stream",
        )
        .send(headers(1, post("/echo")))
        .send(priority(1, 1, 3))
        .tolerated(1, &[PROTOCOL_ERROR]),
        row("5.3.2", "a stream may depend on one that is not there")
            .send(
                headers(1, get("/"))
                    .prioritized(1 << 31 | 99, 255)
                    .end_stream(),
            )
            .answered(1, 200),
        row("5.3.2", "PRIORITY may be exclusive")
            .send(priority(3, 1 << 31 | 1, 255))
            .ignored(),
    ]
}
