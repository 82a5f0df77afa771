//! The table of requests: malformed, ambiguous, oversized and merely unusual ones, by theme, each
//! with the only outcome that is allowed.
//!
//! It is run against the decoder here, and against a server over sockets by the black-box suite.

/// Bytes that a client sends on a fresh connection, and what must come of them.
#[derive(Clone, Debug)]
pub struct Row {
    pub sent: Vec<u8>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first request is refused with this status, and the connection is closed. No handler sees
    /// anything.
    Refused(u16),
    /// As above, but the head was fine: a handler may have seen it when the body turned out wrong.
    RefusedInBody(u16),
    /// These requests are answered in this order. Then the connection is kept, or closed.
    Answered { requests: Vec<Seen>, keep: bool },
    /// These requests are answered; what comes behind them is refused with this status.
    AnsweredThenRefused { requests: Vec<Seen>, status: u16 },
}

/// A request as a handler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: &'static str,
    pub target: &'static str,
    pub body: &'static str,
}

/// Every row.
pub fn table() -> Vec<Row> {
    let mut table = Table::default();
    request_lines(&mut table);
    versions(&mut table);
    lines_that_are_refused_before_the_next_one_comes(&mut table);
    targets(&mut table);
    hosts(&mut table);
    header_lines(&mut table);
    content_lengths(&mut table);
    transfer_encodings(&mut table);
    expectations(&mut table);
    sizes(&mut table);
    chunks(&mut table);
    answered(&mut table);
    answered_with_a_body(&mut table);
    smuggled(&mut table);
    table.rows
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
}

impl Table {
    fn add(&mut self, sent: impl Into<Vec<u8>>, outcome: Outcome) {
        self.rows.push(Row {
            sent: sent.into(),
            outcome,
        });
    }

    fn refused(&mut self, status: u16, requests: &[&[u8]]) {
        for &request in requests {
            self.add(request, Outcome::Refused(status));
        }
    }

    fn refused_headers(&mut self, status: u16, headers: &[&[u8]]) {
        for lines in headers {
            self.add(post(lines, b""), Outcome::Refused(status));
        }
    }

    /// Each body makes the request fail after its head.
    fn refused_chunks(&mut self, status: u16, bodies: &[&[u8]]) {
        for body in bodies {
            let request = post(b"Transfer-Encoding: chunked", body);
            self.add(request, Outcome::RefusedInBody(status));
        }
    }

    fn kept(&mut self, request: impl Into<Vec<u8>>, seen: Seen) {
        let requests = vec![seen];
        self.add(
            request,
            Outcome::Answered {
                requests,
                keep: true,
            },
        );
    }

    fn closed(&mut self, request: impl Into<Vec<u8>>, seen: Seen) {
        let requests = vec![seen];
        self.add(
            request,
            Outcome::Answered {
                requests,
                keep: false,
            },
        );
    }

    /// A request that is fine, and one smuggled in behind it.
    fn then_refused(&mut self, sent: impl Into<Vec<u8>>, seen: Seen, status: u16) {
        let requests = vec![seen];
        self.add(sent, Outcome::AnsweredThenRefused { requests, status });
    }
}

/// A request with these header lines and this body.
fn post(headers: &[u8], body: &[u8]) -> Vec<u8> {
    [
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        headers,
        b"\r\n\r\n",
        body,
    ]
    .concat()
}

fn get(target: &'static str) -> Seen {
    seen("GET", target, "")
}

fn seen(method: &'static str, target: &'static str, body: &'static str) -> Seen {
    Seen {
        method,
        target,
        body,
    }
}

fn answered(table: &mut Table) {
    for target in [
        "/",
        "//",
        "/a/b/../c",
        "/%00",
        "/%0d%0aX:%20y",
        "/%e4",
        "/%zz",
        "/a?b=c&d",
        "/?",
        "/a?/?b",
        "/;a=b,c!$'()*+@:-._~",
        "http://a/",
        "http://A/b?c",
        "HTTP://a/",
        "https://a/",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        table.kept(request, get(target));
    }
    table.kept(
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        seen("OPTIONS", "*", ""),
    );
    // One empty line in front of a request is forgiven (RFC 9112 section 2.2).
    table.kept("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", get("/"));
    // A method that nobody knows is the handler's business.
    for method in [
        "PUT",
        "DELETE",
        "PATCH",
        "TRACE",
        "PURGE",
        "get",
        "M-SEARCH",
        "!#$%&'*+-.^_`|~",
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        table.kept(request, seen(method, "/", ""));
    }
    for host in [
        "a",
        "A.b-c_d.example:8080",
        "a:",
        "127.0.0.1",
        "[::1]",
        "[::1]:80",
        "a%20b",
        "\t a \t",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        table.kept(request, get("/"));
    }
    for lines in [
        "Connection: keep-alive",
        "Connection: x, y",
        "Connection:",
        "X:",
        "X: \t y \t ",
        "X: y\r\nx: y\r\nX: z",
        "X: caf\u{e9}",
        "TE: trailers",
        "TE: gzip;q=1, trailers",
        "Upgrade: h2c",
        "Upgrade: websocket",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Content-Length: 0",
        "Content-Length: 000",
        "Expect: 100-continue",
        "Proxy-Connection: close",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        table.kept(request, get("/"));
    }
    for lines in [
        "Connection: close",
        "connection: x, Close",
        "Connection: keep-alive, close",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nGET /never");
        table.closed(request, get("/"));
    }
    // A later minor version is spoken to as 1.1, an earlier one is closed unless it asks.
    table.kept("GET / HTTP/1.2\r\nHost: a\r\n\r\n", get("/"));
    table.closed("GET / HTTP/1.0\r\n\r\n", get("/"));
    table.closed(
        "GET / HTTP/1.0\r\nHost: a\r\n\r\nGET /never HTTP/1.0\r\n\r\n",
        get("/"),
    );
    table.kept("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", get("/"));
}

fn answered_with_a_body(table: &mut Table) {
    let hello = || seen("POST", "/", "hello");
    for lines in [
        "Content-Length: 5",
        "content-length:5",
        "CONTENT-LENGTH: \t00005 ",
    ] {
        table.kept(post(lines.as_bytes(), b"hello"), hello());
    }
    for coding in ["chunked", "Chunked", "\tCHUNKED "] {
        let lines = format!("Transfer-Encoding: {coding}");
        table.kept(post(lines.as_bytes(), b"5\r\nhello\r\n0\r\n\r\n"), hello());
    }
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "0000000000000005\r\nhello\r\n000\r\n\r\n",
        "5;a\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c=\"d;e\"\r\nhello\r\n0;f\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
    ] {
        let request = post(b"Transfer-Encoding: chunked", body.as_bytes());
        table.kept(request, hello());
    }
    // A body may come with any method, and does not end early at what looks like an end.
    let request = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    table.kept(request, seen("GET", "/", "hello"));
    let request = post(b"Content-Length: 4", b"\r\n\r\n");
    table.kept(request, seen("POST", "/", "\r\n\r\n"));
    table.kept(post(b"X: y", b""), seen("POST", "/", ""));
    table.closed("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", hello());
    table.closed(
        post(
            b"Connection: close\r\nContent-Length: 5",
            b"hello, and more",
        ),
        hello(),
    );
}

/// Pairs of parsers disagree about these. Here they have one meaning each.
fn smuggled(table: &mut Table) {
    // What looks like a request inside a body is body.
    for body in ["GET /smuggled HTTP/1.1", "0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"] {
        let lines = format!("Content-Length: {}", body.len());
        table.kept(
            post(lines.as_bytes(), body.as_bytes()),
            seen("POST", "/", body),
        );
    }
    let chunk = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let body = format!("{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len());
    let request = post(b"Transfer-Encoding: chunked", body.as_bytes());
    table.kept(request, seen("POST", "/", chunk));
    // What is left over is the next request, and judged as one.
    let hello = || seen("POST", "/", "hello");
    for rest in [
        "0\r\n\r\n",
        "\0",
        " GET / HTTP/1.1\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "X: y\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let body = format!("hello{rest}");
        table.then_refused(post(b"Content-Length: 5", body.as_bytes()), hello(), 400);
        let body = format!("5\r\nhello\r\n0\r\n\r\n{rest}");
        let request = post(b"Transfer-Encoding: chunked", body.as_bytes());
        table.then_refused(request, hello(), 400);
    }
    // Chunks are not looked for where a length was given, nor a length where chunks were.
    table.refused_headers(
        400,
        &[
            b"Content-Length: 6\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3",
            b"Transfer-Encoding: xchunked\r\nContent-Length: 3",
            b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            b"Transfer-Encoding: chunked\r\nContent-Length : 3",
            b"Transfer-Encoding\t: chunked\r\nContent-Length: 3",
            b" Transfer-Encoding: chunked\r\nContent-Length: 3",
            b"X: x\nTransfer-Encoding: chunked\r\nContent-Length: 3",
            b"X: x\rTransfer-Encoding: chunked\r\nContent-Length: 3",
            b"Content-Length: 3\r\nContent-Length: 0",
            b"Content-Length: 3\r\n content-length: 0",
            b"Content-Length: 3\x0b",
            b"Content-Length: 3\0",
            b"Content-Length\0: 3",
            b"Content_Length: 3\r\nContent-Length: 3, 3",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked, identity",
            b"Transfer-Encoding:\x00chunked",
            b"Transfer-Encoding: chunked\0",
            b"Transfer-Encoding: \xe2\x80\x8bchunked",
        ],
    );
}

fn request_lines(table: &mut Table) {
    table.refused(
        400,
        &[
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\tGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\t\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
            b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\r\nHost: a\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET \r\n\r\n",
            b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / http/1.1\r\nHost: a\r\n\r\n",
            b"GET / Http/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/2\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            b"GET / HTTP/01.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1,1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/x.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/-1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
            b"GET / ICY/1.1\r\nHost: a\r\n\r\n",
            b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\xc3\x84T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\rHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
            b"{\"op\":\"ping\"}\r\n\r\n",
            b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03",
            b"\x80\x2e\x01\x03\x01\x00",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ],
    );
}

fn versions(table: &mut Table) {
    table.refused(
        505,
        &[
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
            b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        ],
    );
}

fn lines_that_are_refused_before_the_next_one_comes(table: &mut Table) {
    table.refused(505, &[b"GET / HTTP/2.0\r\n"]);
    table.refused(
        400,
        &[b"\x16", b"\n", b"GET\r\n", b"GET / HTTP/1.1\r\nHost: a\n"],
    );
    table.refused(
        414,
        &[format!("GET /{} HTTP/1.1\r\n", "x".repeat(8192)).as_bytes()],
    );
}

fn targets(table: &mut Table) {
    for target in [
        &b"*"[..],
        b"a",
        b"a/b",
        b"?a",
        b"#a",
        b"/a#b",
        b"/<",
        b"/>",
        b"/\"",
        b"/`",
        b"/\x7f",
        b"/\0",
        b"/\x01",
        b"/\xe4",
        b"/\xc3\xa4",
        b"a:80",
        b"http:",
        b"http:/",
        b"http:a",
        b"http://",
        b"http:///a",
        b"http://:80/",
        b"http://a b/",
        b"http://u@a/",
        b"http://u:p@a/",
        b"http://a:x/",
        b"http://a:99999/",
        b"http://[::1/",
        b"http://[x]/",
        b"http://a/#b",
        b"http://a\\b/",
        b"ftp://a/",
        b"ws://a/",
        b"javascript:alert(1)",
        b"file:///etc/passwd",
        b"http://b/",
        b"http://a:81/",
    ] {
        table.refused(
            400,
            &[&[b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()],
        );
    }
    table.refused(
        400,
        &[
            b"POST * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"options * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT :80 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT u@a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            b"CONNECT http://a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            b"CONNECT b:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        ],
    );
}

fn hosts(table: &mut Table) {
    table.refused(
        400,
        &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHosts: a\r\n\r\n",
        ],
    );
    for host in [
        &b""[..],
        b" ",
        b":80",
        b"a b",
        b"a, b",
        b"a,b",
        b"u@a",
        b"a/b",
        b"a\\b",
        b"a?b",
        b"a#b",
        b"http://a",
        b"a:b",
        b"a:80:80",
        b"a:-1",
        b"a:+80",
        b"a: 80",
        b"a:65536",
        b"[::1",
        b"::1",
        b"[::1]a",
        b"[1.2.3.4]",
        b"a%",
        b"a%0",
        b"a%xx",
        b"\xe4",
        b"a\r\nHost: a",
        b"a\r\nhost: b",
        b"a\r\nX: y\r\nHOST: a",
    ] {
        table.refused(
            400,
            &[&[b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat()],
        );
    }
    table.refused(
        400,
        &[
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\n\r\n",
            b"GET http://a/ HTTP/1.0\r\nHost: b\r\n\r\n",
        ],
    );
}

fn header_lines(table: &mut Table) {
    table.refused_headers(
        400,
        &[
            b"X",
            b"X\r\nY: z",
            b": y",
            b" : y",
            b" X: y",
            b"\tX: y",
            b"X : y",
            b"X\t: y",
            b"X: y\r\n z",
            b"X: y\r\n\tz",
            b"X: y\r\n ",
            b"X:\r\n y",
            b"X Y: z",
            b"X\0: y",
            b"X\x0b: y",
            b"X\x7f: y",
            b"X\xe4: y",
            b"X(: y",
            b"X/: y",
            b"X@: y",
            b"X[: y",
            b"X,: y",
            b"X;: y",
            b"X=: y",
            b"X\": y",
            b"X\\: y",
            b"X{: y",
            b"X: \0",
            b"X: y\0z",
            b"X: \x01",
            b"X: \x08",
            b"X: \x0b",
            b"X: \x0c",
            b"X: \x1b[31m",
            b"X: \x1f",
            b"X: \x7f",
            b"X: y\nZ: a",
            b"X: y\n",
            b"\nX: y",
            b"X: y\rZ: a",
            b"X: y\r",
            b"X: y\r\r\nZ: a",
            b"X: y\n\r",
            b"X\n: y",
            b"X\r: y",
            b"\rX: y",
        ],
    );
    table.refused(
        400,
        &[
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\tX: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        ],
    );
}

fn content_lengths(table: &mut Table) {
    table.refused_headers(
        400,
        &[
            b"Content-Length:",
            b"Content-Length: +5",
            b"Content-Length: -5",
            b"Content-Length: -0",
            b"Content-Length: 5 5",
            b"Content-Length: 5, 5",
            b"Content-Length: 5,",
            b"Content-Length: ,5",
            b"Content-Length: 5,6",
            b"Content-Length: 0x5",
            b"Content-Length: 5h",
            b"Content-Length: 5.0",
            b"Content-Length: 1e3",
            b"Content-Length: 1_000",
            b"Content-Length: five",
            b"Content-Length: \"5\"",
            b"Content-Length: 5;",
            b"Content-Length: \xd9\xa5",
            b"Content-Length: 18446744073709551616",
            b"Content-Length: 99999999999999999999999999",
            b"Content-Length: 5\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 0\r\nX: y\r\ncontent-length: 0",
            b"Content-Length: 5\r\nContent-Length:",
        ],
    );
    table.refused_headers(
        413,
        &[
            b"Content-Length: 2097153",
            b"Content-Length: 18446744073709551615",
        ],
    );
}

fn transfer_encodings(table: &mut Table) {
    table.refused_headers(
        400,
        &[
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Content-Length: 0\r\nTransfer-Encoding: chunked",
            b"Content-Length: 5\r\nTransfer-Encoding: gzip, chunked",
            b"Content-Length: 5\r\nTransfer-Encoding: identity",
            b"Content-Length: 5\r\nTransfer-Encoding:",
            b"Transfer-Encoding:",
            b"Transfer-Encoding: ,",
            b"Transfer-Encoding: ,chunked",
            b"Transfer-Encoding: chunked,",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked, gzip",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding:",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunkedx",
            b"Transfer-Encoding: \"chunked\"",
            b"Transfer-Encoding: 'chunked'",
            b"Transfer-Encoding: chunked;q=1",
            b"Transfer-Encoding: chunked foo",
            b"Transfer-Encoding: chun ked",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding: chunked\x0b",
            b"Transfer-Encoding: \x0bchunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding: x\r\n chunked",
        ],
    );
    table.refused_headers(
        501,
        &[
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: x;y=z, chunked",
        ],
    );
    table.refused(
        400,
        &[
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    );
}

fn expectations(table: &mut Table) {
    table.refused_headers(
        417,
        &[b"Expect: 200-ok", b"Expect:", b"Expect: 100-continue, x"],
    );
}

fn sizes(table: &mut Table) {
    let long = |len| "x".repeat(len);
    table.refused(
        501,
        &[format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", long(33)).as_bytes()],
    );
    table.refused(501, &[long(20_000).as_bytes()]);
    table.refused(
        414,
        &[format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(8192)).as_bytes()],
    );
    table.refused(414, &[format!("GET /{}", long(20_000)).as_bytes()]);
    table.refused_headers(431, &[format!("X: {}", long(16_384)).as_bytes()]);
    table.refused_headers(431, &[format!("{}: x", long(16_384)).as_bytes()]);
    table.refused_headers(431, &["X: y\r\n".repeat(100).trim_end().as_bytes()]);
    table.refused_headers(431, &["\r\nX: y".repeat(9_000).trim_start().as_bytes()]);
}

fn chunks(table: &mut Table) {
    table.refused_chunks(
        400,
        &[
            b"\r\n",
            b"\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5\t\r\nhello\r\n0\r\n\r\n",
            b"5 ;a\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5h\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b";a\r\nhello\r\n0\r\n\r\n",
            b"5_\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"\"5\"\r\nhello\r\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b"5\r\rhello\r\n0\r\n\r\n",
            b"5;a\nhello\r\n0\r\n\r\n",
            b"5;a\rhello\r\n0\r\n\r\n",
            b"5;a\0\r\nhello\r\n0\r\n\r\n",
            b"5;a\x7f\r\nhello\r\n0\r\n\r\n",
            b"5\0\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"4\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n\r\n",
            b"0\n\r\n",
            b"0\r\n\n",
            b"0\r\n\rX",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\nX: y\r\n z\r\n\r\n",
            b"0\r\nX: \0\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\ntransfer-encoding: chunked\r\n\r\n",
            b"0\r\nX: y\r\nHost: b\r\n\r\n",
            b"0\r\nAuthorization: x\r\n\r\n",
            b"0\r\nCookie: x\r\n\r\n",
            b"0\r\nX-Forwarded-For: ::1\r\n\r\n",
            b"0\r\nConnection: close\r\n\r\n",
            b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    table.refused_chunks(
        413,
        &[
            b"200001\r\n",
            b"ffffffffffffffff\r\n",
            b"1\r\na\r\n200000\r\n",
        ],
    );
    let extension = ["5;", &"x".repeat(5000), "\r\n"].concat();
    table.refused_chunks(400, &[extension.as_bytes()]);
    let trailer = ["0\r\nX: ", &"x".repeat(9000), "\r\n\r\n"].concat();
    let trailers = ["0\r\n", &"X: y\r\n".repeat(101), "\r\n"].concat();
    table.refused_chunks(431, &[trailer.as_bytes(), trailers.as_bytes()]);
}
