//! Flow control (5.2, 6.9).

use gannet_tests::frames::{
    frame::{
        code::{FLOW_CONTROL_ERROR, PROTOCOL_ERROR},
        data, headers, setting, settings, window_update,
    },
    hpack::{get, post},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    let open = || headers(1, post("/echo"));
    let small = |size| settings(&[(setting::INITIAL_WINDOW_SIZE, size)]);
    vec![
        row("6.9", "WINDOW_UPDATE of 0 on the connection is an error")
            .send(window_update(0, 0))
            .connection_error(&[PROTOCOL_ERROR]),
        row(
            "6.9",
            "WINDOW_UPDATE of 0 on a stream is an error of the stream",
        )
        .send(open())
        .send(window_update(1, 0))
        .stream_error(1, &[PROTOCOL_ERROR]),
        row(
            "6.9",
            "an increment of which only the reserved bit is set is 0",
        )
        .send(window_update(0, 1 << 31))
        .connection_error(&[PROTOCOL_ERROR]),
        row(
            "6.9.1",
            "a window of the connection over 2^31-1 is an error",
        )
        .send(window_update(0, 0x7fff_ffff))
        .connection_error(&[FLOW_CONTROL_ERROR]),
        row(
            "6.9.1",
            "a window of the connection over 2^31-1 in two steps is an error",
        )
        .send(window_update(0, 0x7fff_0000))
        .send(window_update(0, 0x0000_0001))
        .connection_error(&[FLOW_CONTROL_ERROR]),
        row("6.9.1", "a window of the connection of 2^31-1 is none")
            .send(window_update(0, 0x7fff_ffff - 65_535))
            .ignored(),
        row(
            "6.9.1",
            "a window of a stream over 2^31-1 is an error of the stream",
        )
        .send(open())
        .send(window_update(1, 0x7fff_ffff))
        .stream_error(1, &[FLOW_CONTROL_ERROR]),
        row(
            "6.9.1",
            "a window of a stream over 2^31-1 in two steps is an error of the stream",
        )
        .send(open())
        .send(window_update(1, 0x7fff_0000))
        .send(window_update(1, 0x0000_0001))
        .stream_error(1, &[FLOW_CONTROL_ERROR]),
        row("6.9.1", "a window of a stream of 2^31-1 is none")
            .send(open())
            .send(window_update(1, 0x7fff_ffff - 65_535))
            .send(data(1, b"x").end_stream())
            .answered(1, 200),
        row(
            "6.9.2",
            "settings that make a window of a stream too great are an error",
        )
        .send(small(0))
        .send(headers(1, get("/")).end_stream())
        .sync()
        .send(open().on(3))
        .send(window_update(3, 0x7fff_ffff))
        .send(small(1))
        .connection_error(&[FLOW_CONTROL_ERROR]),
        row(
            "6.9.2",
            "a window of 0 keeps the body back, and one byte lets one byte through",
        )
        .send(small(0))
        .send(headers(1, get("/")).end_stream())
        .sync()
        .send([window_update(1, 1).bytes(), window_update(1, 4).bytes()].concat())
        .answered(1, 200),
        row(
            "6.9.2",
            "greater initial windows let streams go on that wait",
        )
        .send(small(0))
        .send(headers(1, get("/")).end_stream())
        .sync()
        .send(small(5))
        .answered(1, 200),
        row(
            "6.9.2",
            "a window that was made negative has to be made positive",
        )
        .send(small(3))
        .send(headers(1, get("/")).end_stream())
        .sync()
        .send(small(0))
        .send(window_update(1, 3))
        .send(window_update(1, 2))
        .answered(1, 200),
        row("6.9.1", "empty DATA needs no window")
            .send(small(0))
            .send(headers(1, get("/stream?n=0")).end_stream())
            .answered(1, 200),
        row("6.9", "settings do not change the window of the connection")
            .send(small(0x7fff_ffff))
            .send(window_update(0, 1))
            .ignored(),
    ]
}
