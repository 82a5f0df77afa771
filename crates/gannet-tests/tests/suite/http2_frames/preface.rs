//! The beginning of a connection (section 3.4).

use gannet_tests::frames::{
    frame::{PREFACE, code::PROTOCOL_ERROR, data, goaway, headers, ping, settings, window_update},
    hpack::get,
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    let rule = |rule| row("3.4", rule).ungreeted();
    let fine = [PREFACE.to_vec(), settings(&[]).bytes()].concat();
    vec![
        rule("a preface with settings is answered with settings and an acknowledgement")
            .send(fine.clone())
            .sync()
            .ignored(),
        rule("requests may follow without waiting for the server's settings")
            .send([fine.clone(), headers(1, get("/")).end_stream().bytes()].concat())
            .answered(1, 200),
        rule("settings in the preface may be many")
            .send(PREFACE)
            .send(settings(&[(1, 4096), (3, 100), (4, 65_535), (5, 16_384)]))
            .ignored(),
        rule("a preface without settings is an error: HEADERS")
            .send(PREFACE)
            .send(headers(1, get("/")).end_stream())
            .connection_error(&[PROTOCOL_ERROR]),
        rule("a preface without settings is an error: PING")
            .send(PREFACE)
            .send(ping([0; 8]))
            .connection_error(&[PROTOCOL_ERROR]),
        rule("a preface without settings is an error: WINDOW_UPDATE")
            .send(PREFACE)
            .send(window_update(0, 1))
            .connection_error(&[PROTOCOL_ERROR]),
        rule("a preface without settings is an error: GOAWAY")
            .send(PREFACE)
            .send(goaway(0, 0))
            .connection_error(&[PROTOCOL_ERROR]),
        rule("a preface without settings is an error: an acknowledgement is none")
            .send(PREFACE)
            .send(gannet_tests::frames::frame::settings_ack())
            .connection_error(&[PROTOCOL_ERROR]),
        rule("a preface without settings is an error: DATA")
            .send(PREFACE)
            .send(data(1, b"x"))
            .connection_error(&[PROTOCOL_ERROR]),
        rule("a second preface is no frame")
            .send(fine)
            .sync()
            .send(PREFACE)
            .connection_error(&[PROTOCOL_ERROR, 6]),
    ]
}
