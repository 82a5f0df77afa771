//! Requests as they should be, and responses to them. What is refused stands in
//! http1_refused.rs.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use gannet_proto::{
    http1::{
        BodyLength, CONTINUE, Date, Decoder, Event, Framing, Limits, RequestError, ResponseHead,
        Version, encode_chunk, encode_last_chunk, encode_response_head,
    },
    websocket::handshake,
};
use support::http1::{Head, Seen, Transcript, read};

/// Reads in one piece, byte by byte, and in pieces of 7: always the same.
fn transcript(input: impl AsRef<[u8]>) -> Transcript {
    let input = input.as_ref();
    let whole = read(Limits::default(), input, &[]);
    for piece in [1, 7] {
        let cuts = vec![piece; input.len()];
        assert_eq!(
            read(Limits::default(), input, &cuts),
            whole,
            "pieces of {piece}"
        );
    }
    assert_eq!(whole.error, None);
    whole
}

fn only_head(input: impl AsRef<[u8]>) -> Head {
    let transcript = transcript(input);
    let mut heads = transcript.heads();
    let head = heads.next().unwrap().clone();
    assert_eq!(heads.next(), None);
    head
}

fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

fn body(data: &str) -> Seen {
    Seen::Body(data.as_bytes().to_vec())
}

fn end() -> Seen {
    Seen::End(Vec::new())
}

#[test]
fn a_head_is_taken_apart() {
    let head =
        only_head("PATCH /a?b=c HTTP/1.1\r\nHost: a.example:80\r\nX-One:  two \r\nx-one:\r\n\r\n");
    let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    assert_eq!(
        head,
        Head {
            method: "PATCH".into(),
            target: "/a?b=c".into(),
            version: Version::Http11,
            headers: vec![
                pair("Host", "a.example:80"),
                pair("X-One", "two"),
                pair("x-one", "")
            ],
            body: BodyLength::None,
            keep_alive: true,
            expect_continue: false,
            upgrade: false,
        }
    );
}

#[test]
fn a_request_without_body_ends_at_once() {
    let transcript = transcript(get(""));
    assert!(matches!(
        &transcript.events[..],
        [Seen::Head(_), Seen::End(_)]
    ));
    assert!(transcript.is_idle);
}

#[test]
fn events_borrow_from_the_input() {
    let mut input = get("").into_bytes();
    let range = input.as_ptr_range();
    let mut decoder = Decoder::new(Limits::default());
    let decoded = decoder.decode(&mut input).unwrap();
    let Some(Event::Head(head)) = decoded.event else {
        panic!("{decoded:?}")
    };
    assert!(range.contains(&head.target.as_ptr()));
    assert!(range.contains(&head.headers.as_bytes().as_ptr()));
}

#[test]
fn pipelined_requests_come_one_by_one() {
    let input = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                 \r\nPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n2;ext=\"x y\"\r\nde\r\n0\r\n\r\n\
                 GET /3 HTTP/1.1\r\nHost: a\r\n\r\nGET /4";
    let transcript = transcript(input);
    let targets: Vec<_> = transcript
        .heads()
        .map(|head| head.target.as_str())
        .collect();
    assert_eq!(targets, ["/1", "/2", "/3"]);
    let rest: Vec<_> = transcript
        .events
        .iter()
        .filter(|event| !matches!(event, Seen::Head(_)))
        .cloned()
        .collect();
    assert_eq!(rest, [body("abc"), end(), body("abcde"), end(), end()]);
    assert_eq!(transcript.unused, "GET /4".len());
    assert!(!transcript.is_idle);
}

#[test]
fn a_plain_request_can_be_looked_at_and_passed_over() {
    let mut decoder = Decoder::new(Limits::default());
    let first = get("X-A: b\r\n");
    let mut input = format!("{first}{}", get("")).into_bytes();
    let head = decoder.peek_plain(&input).unwrap();
    assert_eq!((head.len_on_wire(), head.method()), (first.len(), "GET"));
    assert_eq!((head.target(), head.lines()), (&b"/"[..], 2));
    assert_eq!(head.headers().first("x-a"), Some(&b"b"[..]));
    assert!(decoder.is_idle());
    // What follows is decoded as if nothing had stood before it.
    let len = head.len_on_wire();
    let decoded = decoder.decode(&mut input[len..]).unwrap();
    assert!(matches!(decoded.event, Some(Event::Head(_))));
    assert!(
        decoder.peek_plain(first.as_bytes()).is_none(),
        "inside a request"
    );
}

#[test]
fn what_is_not_plain_is_not_passed_over() {
    let decoder = Decoder::new(Limits::default());
    let whole = get("");
    for cut in 0..whole.len() {
        assert!(decoder.peek_plain(&whole.as_bytes()[..cut]).is_none());
    }
    for other in [
        get("Content-Length: 3\r\n"),
        get("Transfer-Encoding: chunked\r\n"),
        get("Connection: close\r\n"),
        get("Connection: upgrade\r\nUpgrade: websocket\r\n"),
        get("Upgrade: websocket\r\n"),
        get("Host: again\r\n"),
        get("X-A : b\r\n"),
        get("").replace("1.1", "1.0"),
        format!("\r\n{}", get("")),
    ] {
        assert!(decoder.peek_plain(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn trailers_come_with_the_end() {
    let input = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
                 00A\r\n0123456789\r\n000\r\nDigest: x\r\nEtag: \"y\"\r\n\r\n";
    let trailers = vec![
        ("Digest".to_owned(), b"x".to_vec()),
        ("Etag".to_owned(), b"\"y\"".to_vec()),
    ];
    assert_eq!(
        transcript(input).events[1..],
        [body("0123456789"), Seen::End(trailers)]
    );
}

#[test]
fn one_empty_line_before_a_request_is_forgiven() {
    let transcript = transcript(format!("\r\n{}\r\n{}", get(""), get("")));
    assert_eq!(transcript.heads().count(), 2);
    assert!(transcript.is_idle);
}

#[test]
fn whether_a_connection_lives_is_for_version_and_header_to_say() {
    for (version, headers, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.7", "", true),
    ] {
        let head = only_head(format!("GET / HTTP/{version}\r\nHost: a\r\n{headers}\r\n"));
        assert_eq!(head.keep_alive, keep_alive, "{version} {headers}");
    }
}

#[test]
fn what_follows_the_last_request_is_ignored() {
    let transcript = transcript(format!("{}{}", get("Connection: close\r\n"), get("")));
    assert_eq!(transcript.heads().count(), 1);
    assert!(transcript.is_done);
    assert_eq!(transcript.unused, 0);
}

#[test]
fn http_1_0_needs_no_host() {
    assert_eq!(only_head("GET / HTTP/1.0\r\n\r\n").version, Version::Http10);
}

#[test]
fn later_minor_versions_count_as_1_1() {
    assert_eq!(
        only_head("GET / HTTP/1.9\r\nHost: a\r\n\r\n").version,
        Version::Http11
    );
}

#[test]
fn every_form_of_target_is_known() {
    for line in [
        "GET /",
        "GET //a//b/../c;d=e?f?g=%20&h='[]{}|^`\\",
        "GET http://a/b?c",
        "GET http://A:80",
        "OPTIONS *",
        "OPTIONS http://a",
        "CONNECT a:443",
        "M-SEARCH /",
    ] {
        only_head(format!(
            "{line} HTTP/1.1\r\nHost: a{}\r\n\r\n",
            match line {
                "CONNECT a:443" => ":443",
                _ => "",
            }
        ));
    }
}

#[test]
fn values_may_hold_tabs_and_bytes_beyond_ascii() {
    let head = only_head(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\tb\xff\r\n\r\n");
    assert_eq!(head.headers[1].1, b"\xe4\tb\xff");
}

#[test]
fn a_client_that_waits_for_continue_is_known_until_its_body_comes() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n";
    assert!(only_head(head).expect_continue);

    let mut decoder = Decoder::new(Limits::default());
    assert!(
        decoder
            .decode(&mut head.as_bytes().to_vec())
            .unwrap()
            .event
            .is_some()
    );
    assert!(decoder.expects_continue() && decoder.in_body());
    assert!(decoder.decode(&mut [b'x']).unwrap().event.is_some());
    assert!(!decoder.expects_continue());
    assert_eq!(CONTINUE, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn continue_is_not_for_http_1_0_nor_for_requests_without_body() {
    let http_1_0 = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx";
    assert!(!only_head(http_1_0).expect_continue);
    assert!(!only_head(get("Expect: 100-continue\r\n")).expect_continue);
    assert!(!only_head(get("Expect: 100-continue\r\nContent-Length: 0\r\n")).expect_continue);
}

#[test]
fn a_discarded_body_is_dropped_but_its_end_is_seen() {
    let mut input = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\nGET"
        .to_vec();
    let mut decoder = Decoder::new(Limits::default());
    for _ in ["head", "first chunk"] {
        let used = decoder.decode(&mut input).unwrap().used;
        input.drain(..used);
    }
    decoder.discard();
    let decoded = decoder.decode(&mut input).unwrap();
    assert!(matches!(decoded.event, Some(Event::End { .. })));
    let used = decoded.used;
    assert_eq!(input[used..], *b"GET");

    // The next body is seen again.
    assert!(decoder.is_idle());
    let mut next = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".to_vec();
    let used = decoder.decode(&mut next).unwrap().used;
    assert_eq!(
        decoder.decode(&mut next[used..]).unwrap().event,
        Some(Event::Body(b"x"))
    );
}

#[test]
fn a_long_head_may_come_byte_by_byte() {
    let headers: String = (0..90)
        .map(|n| format!("X-{n}: {}\r\n", "v".repeat(150)))
        .collect();
    let transcript = transcript(get(&headers));
    assert_eq!(transcript.heads().next().unwrap().headers.len(), 91);
}

#[test]
fn limits_are_inclusive() {
    let limits = Limits {
        max_head_size: 64,
        max_headers: 2,
        max_target: 10,
        ..Limits::default()
    };
    let status = |input: &str| read(limits, input.as_bytes(), &[]).status();
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    assert_eq!(status(&target(10)), None);
    assert_eq!(status(&target(11)), Some(414));

    let head = |len: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(len - 32)
        )
    };
    assert_eq!(head(64).len(), 64);
    assert_eq!(status(&head(64)), None);
    assert_eq!(status(&head(65)), Some(431));
    // The limit is reached before the head could be complete.
    assert_eq!(status(&head(65)[..64]), Some(431));

    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nA:\r\n\r\n"), None);
    assert_eq!(
        status("GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\n\r\n"),
        Some(431)
    );
}

#[test]
fn bodies_are_limited_however_they_are_framed() {
    let limits = Limits {
        max_body_size: 4,
        max_chunk_extensions: 3,
        ..Limits::default()
    };
    let status = |headers: &str, rest: &str| {
        let input = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{rest}");
        read(limits, input.as_bytes(), &[]).status()
    };
    assert_eq!(status("Content-Length: 4", "abcd"), None);
    assert_eq!(status("Content-Length: 5", ""), Some(413));
    let chunked = "Transfer-Encoding: chunked";
    assert_eq!(status(chunked, "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"), None);
    assert_eq!(status(chunked, "2\r\nab\r\n3\r\n"), Some(413));
    assert_eq!(status(chunked, "ffffffffffffffff\r\n"), Some(413));
    assert_eq!(status(chunked, "1;ab\r\nx\r\n1;c\r\nx\r\n0\r\n\r\n"), None);
    assert_eq!(
        status(chunked, "1;ab\r\nx\r\n1;cd\r\nx\r\n0\r\n\r\n"),
        Some(400)
    );
}

#[test]
fn a_body_without_limit_can_have_any_length() {
    let limits = Limits {
        max_body_size: u64::MAX,
        ..Limits::default()
    };
    let input = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\nabc",
        u64::MAX
    );
    let transcript = read(limits, input.as_bytes(), &[]);
    assert_eq!(transcript.events[1], body("abc"));
    assert!(transcript.in_body);

    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let input = format!("{head}ffffffffffffffff\r\nabc");
    assert_eq!(read(limits, input.as_bytes(), &[]).events[1], body("abc"));
}

#[test]
fn tls_is_told_apart() {
    let transcript = read(Limits::default(), b"\x16\x03\x01\x02\x00\x01\x00", &[]);
    let (status, message) = transcript.error.unwrap();
    assert_eq!(status, 400);
    assert!(message.contains("TLS"), "{message}");
}

#[test]
fn a_timeout_is_408() {
    assert_eq!(RequestError::timeout().status(), 408);
}

#[test]
fn what_the_encoder_writes_the_decoder_reads() {
    // The chunks of a response are the chunks of a request.
    let mut input = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let data: Vec<u8> = (0..5000).map(|n| n as u8).collect();
    for piece in data.chunks(777) {
        encode_chunk(&mut input, piece);
    }
    encode_last_chunk(&mut input, b"X: y\r\n");
    let transcript = transcript(&input);
    let trailers = vec![("X".to_owned(), b"y".to_vec())];
    assert_eq!(
        transcript.events[1..],
        [Seen::Body(data), Seen::End(trailers)]
    );
}

#[test]
fn a_response_head_is_read_by_another_parser() {
    let mut out = Vec::new();
    let head = ResponseHead {
        status: 404,
        headers: b"Content-Type: text/plain\r\n",
        framing: Framing::Length(3),
        keep_alive: false,
        version: Version::Http11,
        date: Some(&Date::at(0)),
    };
    encode_response_head(&mut out, &head);

    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut headers);
    assert_eq!(
        response.parse(&out),
        Ok(httparse::Status::Complete(out.len()))
    );
    assert_eq!(
        (response.code, response.reason),
        (Some(404), Some("Not Found"))
    );
    let names: Vec<_> = response.headers.iter().map(|header| header.name).collect();
    assert_eq!(
        names,
        ["Date", "Connection", "Content-Length", "Content-Type"]
    );
}

// WebSocket handshake

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// What the server makes of a handshake: its accept key and the subprotocols, or a status.
fn shake(request: &str) -> Result<(String, Vec<String>), u16> {
    let mut input = request.as_bytes().to_vec();
    let mut decoder = Decoder::new(Limits::default());
    let Some(Event::Head(head)) = decoder.decode(&mut input).unwrap().event else {
        panic!()
    };
    let upgrade = handshake::check(&head).map_err(|error| error.status())?;
    assert!(head.upgrade && handshake::is_requested(&head));
    let key = String::from_utf8(upgrade.accept_key.to_vec()).unwrap();
    Ok((
        key,
        upgrade.subprotocols.iter().map(str::to_owned).collect(),
    ))
}

#[test]
fn the_handshake_of_rfc_6455_is_accepted() {
    let (key, subprotocols) = shake(&get(UPGRADE)).unwrap();
    assert_eq!(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(subprotocols.is_empty());
}

#[test]
fn subprotocols_are_listed_in_order() {
    let offer = "Sec-WebSocket-Protocol: b, a\r\nsec-websocket-protocol: c\r\n";
    assert_eq!(
        shake(&get(&format!("{UPGRADE}{offer}"))).unwrap().1,
        ["b", "a", "c"]
    );
    for bad in ["a,a", "a,,b", "", "a b", "\u{e4}"] {
        let request = get(&format!("{UPGRADE}Sec-WebSocket-Protocol: {bad}\r\n"));
        assert_eq!(shake(&request), Err(400), "{bad:?}");
    }
}

#[test]
fn another_websocket_version_is_answered_with_426() {
    for version in ["8", "12", "013", "13, 8"] {
        let upgrade = UPGRADE.replace("Version: 13", &format!("Version: {version}"));
        assert_eq!(shake(&get(&upgrade)), Err(426), "{version}");
    }
    let headers = handshake::HandshakeError::Version.headers();
    assert_eq!(
        headers,
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    );
}

#[test]
fn broken_handshakes_are_refused() {
    let good = get(UPGRADE);
    for (from, to) in [
        ("GET /", "POST /"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket", "Upgrade: websockets"),
        ("Upgrade: websocket\r\n", ""),
        ("keep-alive, Upgrade", "keep-alive"),
        ("Connection: keep-alive, Upgrade\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWVl"),
        ("dGhlIHNhbXBsZSBub25jZQ==", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "*GhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        (
            "Host: a\r\n",
            "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        ("Host: a\r\n", "Host: a\r\nContent-Length: 3\r\n"),
        ("Host: a\r\n", "Host: a\r\nTransfer-Encoding: chunked\r\n"),
    ] {
        assert!(good.contains(from));
        assert_eq!(shake(&good.replace(from, to)), Err(400), "{from} -> {to}");
    }
}

#[test]
fn client_and_server_shake_hands() {
    use gannet_proto::websocket::client::{OpenError, read_response, write_request};

    let key = "AQIDBAUGBwgJCgsMDQ4PEA==";
    let mut request = Vec::new();
    write_request(
        &mut request,
        "a",
        "/chat",
        key,
        b"Sec-WebSocket-Protocol: x\r\n",
    );
    let mut decoder = Decoder::new(Limits::default());
    let Some(Event::Head(head)) = decoder.decode(&mut request).unwrap().event else {
        panic!()
    };
    let upgrade = handshake::check(&head).unwrap();
    assert!(upgrade.subprotocols.contains("x"));

    let mut response = Vec::new();
    handshake::write_response(
        &mut response,
        &upgrade.accept_key,
        Some("x"),
        b"X-Id: 7\r\n",
    );
    let size = response.len();
    response.extend_from_slice(b"frames");

    for cut in 0..size {
        assert!(read_response(&response[..cut], key).unwrap().is_none());
    }
    let opened = read_response(&response, key).unwrap().unwrap();
    assert_eq!(opened.used, size);
    assert_eq!(
        opened.headers.only("sec-websocket-protocol"),
        Some(b"x".as_slice())
    );
    assert_eq!(opened.headers.only("x-id"), Some(b"7".as_slice()));
    let another = read_response(&response, "dGhlIHNhbXBsZSBub25jZQ==").unwrap_err();
    assert_eq!(another, OpenError::NotAnAnswer);
    let refused = b"HTTP/1.1 403 Forbidden\r\n\r\n";
    assert_eq!(
        read_response(refused, key).unwrap_err(),
        OpenError::Refused(403)
    );
}
