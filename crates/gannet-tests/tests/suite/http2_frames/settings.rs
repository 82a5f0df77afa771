//! SETTINGS (section 6.5).

use gannet_tests::frames::{
    frame::{
        code::{FLOW_CONTROL_ERROR, PROTOCOL_ERROR},
        headers, setting, settings, settings_ack,
    },
    hpack::get,
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    let value = |rule, id, value| row("6.5.2", rule).send(settings(&[(id, value)]));
    let fine = |rule, id, number| value(rule, id, number).ignored();
    let wrong = |rule, id, number| value(rule, id, number).connection_error(&[PROTOCOL_ERROR]);
    vec![
        wrong(
            "ENABLE_PUSH is 0 or 1: 2 is an error",
            setting::ENABLE_PUSH,
            2,
        ),
        wrong(
            "ENABLE_PUSH is 0 or 1: all bits are an error",
            setting::ENABLE_PUSH,
            u32::MAX,
        ),
        value(
            "INITIAL_WINDOW_SIZE over 2^31-1 is an error",
            setting::INITIAL_WINDOW_SIZE,
            1 << 31,
        )
        .connection_error(&[FLOW_CONTROL_ERROR]),
        value(
            "INITIAL_WINDOW_SIZE of all bits is an error",
            setting::INITIAL_WINDOW_SIZE,
            u32::MAX,
        )
        .connection_error(&[FLOW_CONTROL_ERROR]),
        wrong(
            "MAX_FRAME_SIZE under 16,384 is an error",
            setting::MAX_FRAME_SIZE,
            16_383,
        ),
        wrong(
            "MAX_FRAME_SIZE of 0 is an error",
            setting::MAX_FRAME_SIZE,
            0,
        ),
        wrong(
            "MAX_FRAME_SIZE over 2^24-1 is an error",
            setting::MAX_FRAME_SIZE,
            1 << 24,
        ),
        row(
            "RFC 8441 3",
            "ENABLE_CONNECT_PROTOCOL is 0 or 1: 2 is an error",
        )
        .send(settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 2)]))
        .connection_error(&[PROTOCOL_ERROR]),
        fine("ENABLE_PUSH of 0 is taken", setting::ENABLE_PUSH, 0),
        fine("ENABLE_PUSH of 1 is taken", setting::ENABLE_PUSH, 1),
        fine(
            "MAX_CONCURRENT_STREAMS of 0 is taken",
            setting::MAX_CONCURRENT_STREAMS,
            0,
        ),
        fine(
            "MAX_CONCURRENT_STREAMS of all bits is taken",
            setting::MAX_CONCURRENT_STREAMS,
            u32::MAX,
        ),
        fine(
            "INITIAL_WINDOW_SIZE of 0 is taken",
            setting::INITIAL_WINDOW_SIZE,
            0,
        ),
        fine(
            "INITIAL_WINDOW_SIZE of 2^31-1 is taken",
            setting::INITIAL_WINDOW_SIZE,
            0x7fff_ffff,
        ),
        fine(
            "MAX_FRAME_SIZE of 16,384 is taken",
            setting::MAX_FRAME_SIZE,
            16_384,
        ),
        fine(
            "MAX_FRAME_SIZE of 2^24-1 is taken",
            setting::MAX_FRAME_SIZE,
            0xff_ffff,
        ),
        fine(
            "HEADER_TABLE_SIZE of 0 is taken",
            setting::HEADER_TABLE_SIZE,
            0,
        ),
        fine(
            "HEADER_TABLE_SIZE of all bits is taken",
            setting::HEADER_TABLE_SIZE,
            u32::MAX,
        ),
        fine(
            "MAX_HEADER_LIST_SIZE of all bits is taken",
            setting::MAX_HEADER_LIST_SIZE,
            u32::MAX,
        ),
        fine("an unknown setting is ignored", 0xff, u32::MAX),
        fine("the setting 0 is ignored", 0, 1),
        fine("a setting that is reserved is ignored", 7, 1),
        row(
            "6.5.3",
            "settings hold in the order in which they come: the last wins",
        )
        .send(settings(&[
            (setting::INITIAL_WINDOW_SIZE, 0),
            (setting::INITIAL_WINDOW_SIZE, 100),
        ]))
        .send(headers(1, get("/")).end_stream())
        .answered(1, 200),
        row(
            "6.5.3",
            "a wrong value is an error even if a right one follows",
        )
        .send(settings(&[
            (setting::MAX_FRAME_SIZE, 1),
            (setting::MAX_FRAME_SIZE, 16_384),
        ]))
        .connection_error(&[PROTOCOL_ERROR]),
        row("6.5", "empty settings are taken")
            .send(settings(&[]))
            .sync()
            .ignored(),
        row(
            "6.5.3",
            "an acknowledgement of nothing is no reason to end others",
        )
        .send(settings_ack())
        .tolerated(0, &[PROTOCOL_ERROR]),
    ]
}
