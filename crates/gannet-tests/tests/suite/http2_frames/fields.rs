//! Fields of requests (8.2).

use gannet_tests::frames::{
    frame::{data, headers},
    hpack::{fields, get, post},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    [names(), values(), of_connections(), lengths()].concat()
}

fn request(section: &str, rule: &str, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Row {
    row(section, rule).send(headers(1, get("/").field(name, value)).end_stream())
}

fn names() -> Vec<Row> {
    let mut rows = vec![
        request("8.2.1", "upper case in a name is malformed", "X-Upper", "1").malformed(1),
        request(
            "8.2.1",
            "upper case at the end of a name is malformed",
            "x-uppeR",
            "1",
        )
        .malformed(1),
        request("8.2.1", "an empty name is malformed", "", "1").malformed(1),
        request(
            "8.2",
            "every character of a token is fine in a name",
            "x!#$%&'*+-.^_`|~09",
            "1",
        )
        .answered(1, 200),
        request("8.2.1", "a colon within a name is malformed", "x:y", "1").malformed(1),
        request(
            "8.2.1",
            "a colon at the end of a name is malformed",
            "x-name:",
            "1",
        )
        .malformed(1),
        row("8.2.1", "a name that is remembered is checked too")
            .send(headers(1, get("/").remembered("X-Upper", "1")).end_stream())
            .malformed(1),
        row("8.2.1", "a value that is remembered is checked again")
            .send(headers(1, get("/").remembered("x-bad", "a\nb")).end_stream())
            .send(headers(3, get("/").indexed(62)).end_stream())
            .malformed(3),
    ];
    for byte in [0, 9, 10, 13, b' ', 0x7f, 0x80, 0xff] {
        let rule = format!("the byte {byte:#04x} in a name is malformed");
        rows.push(request("8.2.1", &rule, [b'x', byte, b'y'], "1").malformed(1));
    }
    for byte in [b'"', b'(', b'/', b';', b'=', b'@', b'[', b'{'] {
        let rule = format!(
            "{:?} is not of a token: malformed in a name",
            char::from(byte)
        );
        rows.push(request("8.2.1", &rule, [b'x', byte], "1").malformed(1));
    }
    rows
}

fn values() -> Vec<Row> {
    let wrong = |rule, value: &[u8]| request("8.2.1", rule, "x-value", value).malformed(1);
    let fine = |rule, value: &[u8]| request("8.2.1", rule, "x-value", value).answered(1, 200);
    vec![
        wrong("NUL in a value is malformed", b"a\0b"),
        wrong("LF in a value is malformed", b"a\nb"),
        wrong("CR in a value is malformed", b"a\rb"),
        wrong(
            "CR LF and a header in a value is malformed",
            b"a\r\nx-injected: 1",
        ),
        wrong("NUL alone is malformed", b"\0"),
        wrong("a blank in front of a value is malformed", b" a"),
        wrong("a tab in front of a value is malformed", b"\ta"),
        wrong("a blank behind a value is malformed", b"a "),
        wrong("a tab behind a value is malformed", b"a\t"),
        wrong("a blank alone is malformed", b" "),
        fine("blanks and tabs within a value are fine", b"a \t b"),
        fine("bytes over 0x7f in a value are fine", b"\xc3\xa4\xff"),
        row("8.2.1", "LF in a path is malformed")
            .send(headers(1, get("/a\nb")).end_stream())
            .malformed(1),
        row("8.2.1", "NUL in an authority is malformed")
            .send(
                headers(
                    1,
                    fields(&[
                        (":method", "GET"),
                        (":scheme", "http"),
                        (":path", "/"),
                        (":authority", "a\0b"),
                    ]),
                )
                .end_stream(),
            )
            .malformed(1),
        row("8.2.1", "LF in a trailer is malformed")
            .send(headers(1, post("/echo")))
            .send(data(1, b"x"))
            .send(headers(1, fields(&[("x-late", "a\nb")])).end_stream())
            .malformed(1),
        row("8.2.1", "upper case in a trailer is malformed")
            .send(headers(1, post("/echo")))
            .send(data(1, b"x"))
            .send(headers(1, fields(&[("X-Late", "a")])).end_stream())
            .malformed(1),
    ]
}

fn of_connections() -> Vec<Row> {
    let wrong = |rule, name, value| request("8.2.2", rule, name, value).malformed(1);
    vec![
        wrong("connection is malformed: close", "connection", "close"),
        wrong(
            "connection is malformed: keep-alive",
            "connection",
            "keep-alive",
        ),
        wrong("keep-alive is malformed", "keep-alive", "timeout=5"),
        wrong(
            "proxy-connection is malformed",
            "proxy-connection",
            "keep-alive",
        ),
        wrong(
            "transfer-encoding is malformed: chunked",
            "transfer-encoding",
            "chunked",
        ),
        wrong(
            "transfer-encoding is malformed: identity",
            "transfer-encoding",
            "identity",
        ),
        wrong("upgrade is malformed", "upgrade", "websocket"),
        wrong("te is malformed: gzip", "te", "gzip"),
        wrong(
            "te is malformed: trailers with others",
            "te",
            "trailers, gzip",
        ),
        request("8.2.2", "te is fine: trailers", "te", "trailers").answered(1, 200),
        row("8.2.2", "connection in a trailer is malformed")
            .send(headers(1, post("/echo")))
            .send(data(1, b"x"))
            .send(headers(1, fields(&[("connection", "close")])).end_stream())
            .malformed(1),
        row("8.2.3", "cookies may come in parts")
            .send(headers(1, get("/").field("cookie", "a=1").field("cookie", "b=2")).end_stream())
            .answered(1, 200),
    ]
}

/// 8.1.1: a length that is stated is the body's.
fn lengths() -> Vec<Row> {
    let with = |rule, length: &str| {
        let block = post("/echo").field("content-length", length);
        row("8.1.1", rule).send(headers(1, block))
    };
    let body = |rule, length| with(rule, length).send(data(1, b"four").end_stream());
    vec![
        body("a length that is the body's is fine", "4").answered(1, 200),
        body("a length that is less than the body is malformed", "3").malformed(1),
        body("a length that is more than the body is malformed", "5").malformed(1),
        body("a length of 0 and a body is malformed", "0").malformed(1),
        body("a negative length is malformed", "-4").malformed(1),
        body("a length with a sign is malformed", "+4").malformed(1),
        body("a length that is no number is malformed", "four").malformed(1),
        body("an empty length is malformed", "").malformed(1),
        body("a length with a blank within is malformed", "4 4").malformed(1),
        body("a length in hexadecimal is malformed", "0x4").malformed(1),
        body(
            "a length beyond all numbers is malformed",
            "99999999999999999999999",
        )
        .malformed(1),
        body("two lengths in one field are malformed", "4, 5").malformed(1),
        row("8.1.1", "two lengths are malformed")
            .send(headers(
                1,
                post("/echo")
                    .field("content-length", "4")
                    .field("content-length", "5"),
            ))
            .send(data(1, b"four").end_stream())
            .malformed(1),
        row("8.1.1", "a length and no body is malformed")
            .send(headers(1, post("/echo").field("content-length", "4")).end_stream())
            .malformed(1),
        row("8.1.1", "a length of 0 and no body is fine")
            .send(headers(1, post("/echo").field("content-length", "0")).end_stream())
            .answered(1, 200),
        with("a length is the sum of all parts", "8")
            .send(data(1, b"four"))
            .send(data(1, b"four").end_stream())
            .answered(1, 200),
        with(
            "a body that exceeds its length in its second part is malformed",
            "6",
        )
        .send(data(1, b"four"))
        .send(data(1, b"four").end_stream())
        .malformed(1),
        with(
            "a body that exceeds its length is malformed before its end",
            "3",
        )
        .send(data(1, b"four"))
        .malformed(1),
        with(
            "a body that trailers end before its length is malformed",
            "8",
        )
        .send(data(1, b"four"))
        .send(headers(1, fields(&[("x-late", "yes")])).end_stream())
        .malformed(1),
        with("padding does not count", "4")
            .send(data(1, b"four").padded(4).end_stream())
            .answered(1, 200),
    ]
}
