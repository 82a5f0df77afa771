//! Several ranges in one request (RFC 9110 sections 14 and 15.3.7).

use std::fs;

use gannet_tests::http::Response;

use crate::{Site, ask, get};

const TEXT: &str = "0123456789abcdefghij";

fn site() -> Site {
    Site::start(|files| {
        fs::write(files.join("digits.txt"), TEXT).unwrap();
        fs::write(files.join("noend"), TEXT).unwrap();
        fs::write(files.join("empty.bin"), "").unwrap();
        fs::write(files.join("packed.js"), "x".repeat(3_000)).unwrap();
        fs::write(files.join("packed.js.gz"), "not looked at").unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        fs::write(files.join("large.bin"), large).unwrap();
    })
}

/// What each part says of itself, and has.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let kind = response.header("content-type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .expect(kind);
    let length = response.header("content-length").unwrap();
    assert_eq!(length.parse(), Ok(response.body.len()));
    assert_eq!(response.header("content-range"), None);
    let mut rest = &response.body[..];
    let mut parts = Vec::new();
    let begin = format!("--{boundary}\r\n").into_bytes();
    rest = rest.strip_prefix(&begin[..]).expect("a boundary in front");
    loop {
        let head = find(rest, b"\r\n\r\n");
        let text = String::from_utf8(rest[..head].to_vec()).unwrap();
        rest = &rest[head + 4..];
        let end = find(rest, format!("\r\n--{boundary}").as_bytes());
        parts.push((text, rest[..end].to_vec()));
        rest = &rest[end + 4 + boundary.len()..];
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").expect("another part");
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let found = bytes.windows(wanted.len()).position(|it| it == wanted);
    found.expect("it is not there")
}

#[test]
fn several_ranges_come_in_parts_in_order_and_those_that_overlap_in_one() {
    let site = site();
    let mut client = site.server.http();
    for (range, expected) in [
        ("bytes=0-1,5-9", &[("0-1", "01"), ("5-9", "56789")][..]),
        ("BYTES=0-1 , ,5-9,", &[("0-1", "01"), ("5-9", "56789")]),
        ("bytes=5-9,0-1", &[("5-9", "56789"), ("0-1", "01")]),
        (
            "bytes=9-9,5-6,0-1,7-7",
            &[("9-9", "9"), ("5-7", "567"), ("0-1", "01")],
        ),
        ("bytes=0-0,-1", &[("0-0", "0"), ("19-19", "j")]),
        ("bytes=1-2,18-", &[("1-2", "12"), ("18-19", "ij")]),
        (
            "bytes=0-1,5-9,7-12,11-13",
            &[("0-1", "01"), ("5-13", "56789abcd")],
        ),
        ("bytes=0-1,2-3,9-9", &[("0-3", "0123"), ("9-9", "9")]),
        ("bytes=0-1,5-9,500-600", &[("0-1", "01"), ("5-9", "56789")]),
        (
            "bytes=0-1,5-99999999999999999999",
            &[("0-1", "01"), ("5-19", "56789abcdefghij")],
        ),
    ] {
        let response = get(&mut client, "/files/digits.txt", &[("range", range)]);
        assert_eq!(response.status, 206, "{range}");
        assert!(response.header("etag").is_some() && response.header("last-modified").is_some());
        let expected: Vec<_> = expected
            .iter()
            .map(|(range, data)| {
                let head = format!("Content-Type: text/plain\r\nContent-Range: bytes {range}/20");
                (head, data.as_bytes().to_vec())
            })
            .collect();
        assert_eq!(parts(&response), expected, "{range}");
    }
    let response = get(&mut client, "/files/noend", &[("range", "bytes=0-1,5-9")]);
    let heads: Vec<_> = parts(&response).into_iter().map(|(head, _)| head).collect();
    assert!(
        heads[0].ends_with("Content-Range: bytes 0-1/20"),
        "{heads:?}"
    );
    site.server.stop();
}

#[test]
fn what_is_one_range_in_the_end_is_no_multipart_and_what_is_none_is_416() {
    let site = site();
    let mut client = site.server.http();
    let many = |count: usize| {
        let ranges: Vec<_> = (0..count).map(|n| format!("{0}-{0}", n % 20)).collect();
        format!("bytes={}", ranges.join(","))
    };
    for (target, range, status, content, body) in [
        (
            "digits.txt",
            "bytes=0-5,3-9",
            206,
            Some("bytes 0-9/20"),
            &TEXT[..10],
        ),
        (
            "digits.txt",
            "bytes=0-5,30-40",
            206,
            Some("bytes 0-5/20"),
            &TEXT[..6],
        ),
        (
            "digits.txt",
            "bytes=-30,0-1",
            206,
            Some("bytes 0-19/20"),
            TEXT,
        ),
        ("digits.txt", "bytes=20-,-0", 416, Some("bytes */20"), ""),
        ("empty.bin", "bytes=0-1,-5", 416, Some("bytes */0"), ""),
        (
            "digits.txt",
            &many(16),
            206,
            Some("bytes 0-15/20"),
            &TEXT[..16],
        ),
        // Another unit is nobody's business here.
        ("digits.txt", "lines=0-5", 200, None, TEXT),
        ("digits.txt", "lines=0-1,5-9", 200, None, TEXT),
        // More of them than anybody needs.
        ("digits.txt", &many(17), 200, None, TEXT),
        ("digits.txt", &many(2_000), 200, None, TEXT),
        ("nothing.txt", "bytes=0-1,5-9", 404, None, ""),
    ] {
        let response = get(
            &mut client,
            &format!("/files/{target}"),
            &[("range", range)],
        );
        assert_eq!(response.status, status, "{range}");
        assert_eq!(response.header("content-range"), content, "{range}");
        assert_eq!(response.text(), body, "{range}");
    }
    // What is sent compressed has other bytes than those that were meant.
    let headers = [("range", "bytes=0-1,5-9"), ("accept-encoding", "gzip")];
    let packed = get(&mut client, "/files/packed.js", &headers);
    assert_eq!(
        (packed.status, packed.header("content-encoding")),
        (200, Some("gzip"))
    );
    assert_eq!(packed.text(), "not looked at");
    // And parts are not compressed on their way.
    let plain = get(&mut client, "/files/digits.txt", &headers);
    assert_eq!(
        (plain.status, plain.header("content-encoding")),
        (206, None)
    );
    assert_eq!(parts(&plain).len(), 2);
    let head = ask(&mut client, "HEAD", "/files/digits.txt", &headers);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("20"))
    );
    site.server.stop();
}

#[test]
fn conditions_come_before_several_ranges() {
    let site = site();
    let mut client = site.server.http();
    let file = get(&mut client, "/files/digits.txt", &[]);
    let (tag, date) = (
        file.header("etag").unwrap(),
        file.header("last-modified").unwrap(),
    );
    for (name, value, status, count) in [
        ("if-range", tag, 206, 2),
        ("if-range", date, 206, 2),
        ("if-range", "\"other\"", 200, 0),
        ("if-none-match", tag, 304, 0),
        ("if-none-match", "\"other\"", 206, 2),
        ("if-match", tag, 206, 2),
        ("if-match", "\"other\"", 412, 0),
    ] {
        let headers = [("range", "bytes=0-1,5-9"), (name, value)];
        let response = get(&mut client, "/files/digits.txt", &headers);
        assert_eq!(response.status, status, "{name}: {value}");
        if count > 0 {
            assert_eq!(parts(&response).len(), count, "{name}: {value}");
        }
    }
    site.server.stop();
}

#[test]
fn curl_gets_the_parts_of_a_large_file() {
    let site = site();
    let file = fs::read(site.home.path().join("files/large.bin")).unwrap();
    let got = site.curl("/files/large.bin", &["-r", "0-1,1000000-1999999,-70000"]);
    for piece in [&file[..2], &file[1_000_000..2_000_000], &file[2_930_000..]] {
        assert!(find(&got, piece) > 0);
    }
    assert!(got.len() < 1_070_002 + 600, "{} bytes", got.len());
    site.server.stop();
}
