//! Pseudo-header fields of requests (8.3).

use gannet_tests::frames::{
    frame::{data, headers},
    hpack::{Block, fields, get, post},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    [places(), values(), hosts()].concat()
}

fn request(section: &str, rule: &str, block: Block) -> Row {
    row(section, rule).send(headers(1, block).end_stream())
}

/// Which there are, how often, and where.
fn places() -> Vec<Row> {
    let wrong = |section: &str, rule: &str, block| request(section, rule, block).malformed(1);
    let mut rows = vec![
        wrong(
            "8.3",
            "an unknown pseudo-header is malformed",
            get("/").field(":unknown", "1"),
        ),
        wrong(
            "8.3",
            "a pseudo-header of answers is malformed",
            get("/").field(":status", "200"),
        ),
        wrong(
            "8.3",
            "a pseudo-header without a name is malformed",
            get("/").field(":", "1"),
        ),
        wrong(
            "8.3",
            "upper case in a pseudo-header is malformed",
            get("/").field(":Path", "/"),
        ),
        wrong(
            "8.3",
            "a blank in a pseudo-header is malformed",
            get("/").field(":path ", "/"),
        ),
        wrong(
            "8.3",
            "a pseudo-header behind a field is malformed: path",
            fields(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x-first", "1"),
                (":path", "/"),
                (":authority", "test"),
            ]),
        ),
        wrong(
            "8.3",
            "a pseudo-header behind a field is malformed: authority",
            fields(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                ("x-first", "1"),
                (":authority", "test"),
            ]),
        ),
        wrong(
            "8.3",
            "a second pseudo-header behind a field is malformed",
            get("/").field("x-first", "1").field(":path", "/"),
        ),
        request(
            "8.3",
            "pseudo-headers may come in any order",
            fields(&[
                (":authority", "test"),
                (":path", "/"),
                (":scheme", "http"),
                (":method", "GET"),
            ]),
        )
        .answered(1, 200),
        request(
            "8.3.1",
            "a request without authority may have a host",
            fields(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                ("host", "test"),
            ]),
        )
        .answered(1, 200),
    ];
    let all = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "test"),
    ];
    for (name, value) in all {
        let rule = format!("{name} twice is malformed");
        rows.push(wrong("8.3", &rule, get("/").field(name, value)));
        let rule = format!("{name} in a trailer is malformed");
        rows.push(
            row("8.1", &rule)
                .send(headers(1, post("/echo")))
                .send(data(1, b"x"))
                .send(headers(1, fields(&[(name, value)])).end_stream())
                .malformed(1),
        );
        if name != ":authority" {
            let rule = format!("a request without {name} is malformed");
            let rest: Vec<_> = all.into_iter().filter(|(it, _)| *it != name).collect();
            rows.push(wrong("8.3.1", &rule, fields(&rest)));
            let rule = format!("an empty {name} is malformed");
            let emptied = all.map(|(it, value)| (it, if it == name { "" } else { value }));
            rows.push(wrong("8.3.1", &rule, fields(&emptied)));
        }
    }
    rows
}

fn values() -> Vec<Row> {
    let path = |rule, path: &str| request("8.3.1", rule, get(path));
    let method = |rule, method: &str| {
        request(
            "8.3.1",
            rule,
            gannet_tests::frames::hpack::request(method, "/method"),
        )
    };
    let of = |rule, name: &str, value: &str| {
        let all = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "test"),
        ];
        let changed = all.map(|(it, old)| (it, if it == name { value } else { old }));
        request("8.3.1", rule, fields(&changed))
    };
    vec![
        path(
            "a path that does not begin with a slash is malformed",
            "index.html",
        )
        .malformed(1),
        path(
            "a path that begins with a question mark is malformed",
            "?a=1",
        )
        .malformed(1),
        path("a path with a blank is malformed", "/a b").malformed(1),
        path("a path with a tab is malformed", "/a\tb").malformed(1),
        path("a path with a fragment is malformed", "/#part").malformed(1),
        path("a path with DEL is malformed", "/\x7f").malformed(1),
        path("a URL is no path", "http://test/").malformed(1),
        path("an asterisk is for OPTIONS", "*").malformed(1),
        path("a path may have a query", "/?a=1&b=/?").answered(1, 200),
        request(
            "8.3.1",
            "OPTIONS of the whole server has an asterisk",
            gannet_tests::frames::hpack::request("OPTIONS", "*"),
        )
        .answered(1, 404),
        request(
            "8.3.1",
            "OPTIONS of a path is a request as any other",
            gannet_tests::frames::hpack::request("OPTIONS", "/method"),
        )
        .answered(1, 200),
        method("a method with a blank is malformed", "GE T").malformed(1),
        method("a method with a colon is malformed", "GET:").malformed(1),
        method("a method with CR LF is malformed", "GET\r\n").malformed(1),
        method("a method that nobody knows is a method", "FROBNICATE").answered(1, 200),
        method("a method in lower case is another method", "get").answered(1, 200),
        of("a scheme that is none is malformed", ":scheme", "ht tp").malformed(1),
        of("a scheme with a colon is malformed", ":scheme", "http:").malformed(1),
        of(
            "an authority with a user is malformed",
            ":authority",
            "user@test",
        )
        .malformed(1),
        of(
            "an authority with a path is malformed",
            ":authority",
            "test/path",
        )
        .malformed(1),
        of(
            "an authority with a blank is malformed",
            ":authority",
            "te st",
        )
        .malformed(1),
        of(
            "an authority with a wrong port is malformed",
            ":authority",
            "test:port",
        )
        .malformed(1),
        of("an authority may have a port", ":authority", "test:8080").answered(1, 200),
        of("an authority may be an address", ":authority", "[::1]:80").answered(1, 200),
    ]
}

/// 8.3.1: host and authority say the same.
fn hosts() -> Vec<Row> {
    let host = |rule, host: &str| request("8.3.1", rule, get("/").field("host", host));
    vec![
        host("a host that is the authority is fine", "test").answered(1, 200),
        host(
            "a host that is another than the authority is malformed",
            "other",
        )
        .malformed(1),
        request(
            "8.3.1",
            "two hosts are malformed",
            fields(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                ("host", "a"),
                ("host", "b"),
            ]),
        )
        .malformed(1),
        request(
            "8.3.1",
            "two hosts beside the authority are malformed",
            get("/").field("host", "test").field("host", "other"),
        )
        .malformed(1),
        request(
            "8.3.1",
            "a host with a user is malformed",
            fields(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                ("host", "me@test"),
            ]),
        )
        .malformed(1),
    ]
}
