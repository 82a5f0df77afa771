//! Malformed, ambiguous and oversized requests, each with the only status allowed.

mod support;

use gannet_proto::http1::Limits;
use support::{http1::assert_cuts_mean_nothing, random::Random};

#[track_caller]
fn refused(status: u16, requests: &[&[u8]]) {
    let mut random = Random::new(7);
    for request in requests {
        let name = request.escape_ascii().to_string();
        for _ in 0..4 {
            let transcript = assert_cuts_mean_nothing(Limits::default(), request, &mut random);
            assert_eq!(transcript.status(), Some(status), "{name}: {transcript:?}");
            assert_eq!(transcript.heads().count(), 0, "{name}");
        }
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

#[track_caller]
fn refused_headers(status: u16, headers: &[&[u8]]) {
    for lines in headers {
        refused(status, &[&post(lines, b"")]);
    }
}

/// Each body makes the request fail after its head.
#[track_caller]
fn refused_chunks(status: u16, bodies: &[&[u8]]) {
    let mut random = Random::new(7);
    for body in bodies {
        let request = post(b"Transfer-Encoding: chunked", body);
        let transcript = assert_cuts_mean_nothing(Limits::default(), &request, &mut random);
        assert_eq!(
            transcript.status(),
            Some(status),
            "{}: {transcript:?}",
            body.escape_ascii()
        );
        assert_eq!(transcript.heads().count(), 1);
    }
}

#[test]
fn request_lines() {
    refused(
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

#[test]
fn versions() {
    refused(
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

#[test]
fn a_line_is_refused_before_the_next_one_comes() {
    refused(505, &[b"GET / HTTP/2.0\r\n"]);
    refused(
        400,
        &[b"\x16", b"\n", b"GET\r\n", b"GET / HTTP/1.1\r\nHost: a\n"],
    );
    refused(
        414,
        &[format!("GET /{} HTTP/1.1\r\n", "x".repeat(8192)).as_bytes()],
    );
}

#[test]
fn targets() {
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
        refused(
            400,
            &[&[b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()],
        );
    }
    refused(
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

#[test]
fn hosts() {
    refused(
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
        refused(
            400,
            &[&[b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat()],
        );
    }
    refused(
        400,
        &[
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n",
            b"GET http://a/ HTTP/1.1\r\n\r\n",
            b"GET http://a/ HTTP/1.0\r\nHost: b\r\n\r\n",
        ],
    );
}

#[test]
fn header_lines() {
    refused_headers(
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
    refused(
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

#[test]
fn content_lengths() {
    refused_headers(
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
    refused_headers(
        413,
        &[
            b"Content-Length: 2097153",
            b"Content-Length: 18446744073709551615",
        ],
    );
}

#[test]
fn transfer_encodings() {
    refused_headers(
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
    refused_headers(
        501,
        &[
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: x;y=z, chunked",
        ],
    );
    refused(
        400,
        &[
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    );
}

#[test]
fn expectations() {
    refused_headers(
        417,
        &[b"Expect: 200-ok", b"Expect:", b"Expect: 100-continue, x"],
    );
}

#[test]
fn sizes() {
    let long = |len| "x".repeat(len);
    refused(
        501,
        &[format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", long(33)).as_bytes()],
    );
    refused(501, &[long(20_000).as_bytes()]);
    refused(
        414,
        &[format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(8192)).as_bytes()],
    );
    refused(414, &[format!("GET /{}", long(20_000)).as_bytes()]);
    refused_headers(431, &[format!("X: {}", long(16_384)).as_bytes()]);
    refused_headers(431, &[format!("{}: x", long(16_384)).as_bytes()]);
    refused_headers(431, &["X: y\r\n".repeat(100).trim_end().as_bytes()]);
    refused_headers(431, &["\r\nX: y".repeat(9_000).trim_start().as_bytes()]);
}

#[test]
fn chunks() {
    refused_chunks(
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
    refused_chunks(
        413,
        &[
            b"200001\r\n",
            b"ffffffffffffffff\r\n",
            b"1\r\na\r\n200000\r\n",
        ],
    );
    let extension = ["5;", &"x".repeat(5000), "\r\n"].concat();
    refused_chunks(400, &[extension.as_bytes()]);
    let trailer = ["0\r\nX: ", &"x".repeat(9000), "\r\n\r\n"].concat();
    let trailers = ["0\r\n", &"X: y\r\n".repeat(101), "\r\n"].concat();
    refused_chunks(431, &[trailer.as_bytes(), trailers.as_bytes()]);
}
