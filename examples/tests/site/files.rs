//! Files: headers, conditions, ranges.

use std::fs;

use crate::{Site, ask, get};

const TEXT: &str = "0123456789abcdefghij";

fn site() -> Site {
    Site::start(|files| {
        fs::write(files.join("digits.txt"), TEXT).unwrap();
        fs::write(files.join("empty.bin"), "").unwrap();
        fs::create_dir_all(files.join("docs/bare")).unwrap();
        fs::write(files.join("docs/index.html"), "<p>index").unwrap();
    })
}

#[test]
fn a_file_has_type_length_date_and_tag_and_head_says_the_same() {
    let site = site();
    let mut client = site.server.http();
    let file = get(&mut client, "/files/digits.txt", &[]);
    assert_eq!((file.status, file.text()), (200, TEXT));
    assert_eq!(file.header("content-type"), Some("text/plain"));
    assert_eq!(file.header("accept-ranges"), Some("bytes"));
    assert_eq!(file.header("content-length"), Some("20"));
    assert!(file.header("last-modified").unwrap().ends_with(" GMT"));
    assert!(file.header("etag").unwrap().starts_with('"'));

    let head = ask(&mut client, "HEAD", "/files/digits.txt", &[]);
    let without_date = |headers: &[(String, String)]| {
        let mut headers = headers.to_vec();
        headers.retain(|(name, _)| name != "date");
        headers
    };
    assert_eq!(without_date(&head.headers), without_date(&file.headers));
    assert_eq!(get(&mut client, "/files/empty.bin", &[]).body, b"");
    assert_eq!(
        ask(
            &mut client,
            "POST",
            "/files/digits.txt",
            &[("content-length", "0")]
        )
        .status,
        405
    );
    site.server.stop();
}

#[test]
fn a_directory_is_its_index_and_never_a_list() {
    let site = site();
    let mut client = site.server.http();
    assert_eq!(get(&mut client, "/files/docs/", &[]).text(), "<p>index");
    let redirect = get(&mut client, "/files/docs", &[]);
    assert_eq!(redirect.status, 307);
    assert_eq!(redirect.header("location"), Some("/files/docs/"));
    assert_eq!(get(&mut client, "/files/docs/bare/", &[]).status, 404);
    assert_eq!(get(&mut client, "/files/digits.txt/", &[]).status, 404);
    site.server.stop();
}

#[test]
fn conditions_are_answered_with_304_and_412() {
    let site = site();
    let mut client = site.server.http();
    let file = get(&mut client, "/files/digits.txt", &[]);
    let tag = file.header("etag").unwrap();
    let weak = format!("W/{tag}");
    let date = file.header("last-modified").unwrap();
    let past = "Thu, 01 Jan 2015 00:00:00 GMT";
    for (headers, status) in [
        (&[("if-none-match", tag)][..], 304),
        (&[("if-none-match", &weak)], 304),
        (&[("if-none-match", "\"other\"")], 200),
        (
            &[("if-none-match", "\"other\""), ("if-modified-since", date)],
            200,
        ),
        (&[("if-modified-since", date)], 304),
        (&[("if-modified-since", past)], 200),
        (&[("if-match", tag)], 200),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-match", &weak)], 412),
        (&[("if-unmodified-since", past)], 412),
        (&[("if-unmodified-since", date)], 200),
    ] {
        for method in ["GET", "HEAD"] {
            let response = ask(&mut client, method, "/files/digits.txt", headers);
            assert_eq!(response.status, status, "{method} {headers:?}");
            assert!(response.status != 304 || response.header("etag") == Some(tag));
        }
    }
    site.server.stop();
}

#[test]
fn ranges_are_single_and_what_cannot_be_is_416() {
    let site = site();
    let mut client = site.server.http();
    for (range, status, content, body) in [
        ("bytes=0-0", 206, Some("bytes 0-0/20"), "0"),
        ("bytes=5-9", 206, Some("bytes 5-9/20"), "56789"),
        ("bytes=15-", 206, Some("bytes 15-19/20"), "fghij"),
        ("bytes=-3", 206, Some("bytes 17-19/20"), "hij"),
        ("bytes=0-999", 206, Some("bytes 0-19/20"), TEXT),
        ("bytes=20-", 416, Some("bytes */20"), ""),
        ("bytes=9-5", 416, Some("bytes */20"), ""),
        ("bytes=x", 416, Some("bytes */20"), ""),
    ] {
        let response = get(&mut client, "/files/digits.txt", &[("range", range)]);
        assert_eq!(response.status, status, "{range}");
        assert_eq!(response.header("content-range"), content, "{range}");
        assert_eq!(response.text(), body, "{range}");
        // A compressing layer must leave parts alone.
        let offered = [("range", range), ("accept-encoding", "gzip")];
        let part = get(&mut client, "/files/digits.txt", &offered);
        assert_eq!(part.status, status, "{range}");
        assert_eq!(part.header("content-encoding"), None, "{range}");
        // Only GET has ranges.
        let head = ask(&mut client, "HEAD", "/files/digits.txt", &offered[..1]);
        assert_eq!(head.status, 200, "{range}");
        assert_eq!(head.header("content-range"), None, "{range}");
    }
    site.server.stop();
}

#[test]
fn a_part_of_a_file_that_has_changed_is_not_given() {
    let site = site();
    let mut client = site.server.http();
    let file = get(&mut client, "/files/digits.txt", &[]);
    let tag = file.header("etag").unwrap();
    let weak = format!("W/{tag}");
    let date = file.header("last-modified").unwrap();
    for (condition, status) in [
        (tag, 206),
        (date, 206),
        ("\"other\"", 200),
        (&weak, 200),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 200),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 200),
        ("nonsense", 200),
    ] {
        let headers = [("range", "bytes=5-9"), ("if-range", condition)];
        let response = get(&mut client, "/files/digits.txt", &headers);
        assert_eq!(response.status, status, "{condition}");
        let expected = if status == 206 { "56789" } else { TEXT };
        assert_eq!(response.text(), expected, "{condition}");
    }
    // Where nothing of the new file is at that place, too.
    let headers = [("range", "bytes=500-"), ("if-range", "\"old\"")];
    assert_eq!(get(&mut client, "/files/digits.txt", &headers).text(), TEXT);
    site.server.stop();
}
