//! What is compressed, how, and that it does not wait.

use std::fs;

use gannet_tests::{
    http::HttpClient,
    tcp::{TcpClient, small_buffers},
};

use crate::{Site, ask, get, peak};

fn site() -> Site {
    Site::start(|files| {
        fs::write(files.join("long.txt"), "gannet ".repeat(2000)).unwrap();
        fs::write(files.join("short.txt"), "gannet").unwrap();
        fs::write(files.join("photo.png"), "gannet ".repeat(2000)).unwrap();
        fs::write(files.join("app.js"), "plain").unwrap();
        for ending in ["br", "zst", "gz"] {
            fs::write(files.join(format!("app.js.{ending}")), ending).unwrap();
        }
    })
}

#[test]
fn the_encoding_is_chosen_by_quality() {
    let site = site();
    let mut client = site.server.http();
    for (accept, encoding) in [
        ("gzip", Some("gzip")),
        ("br", Some("br")),
        ("zstd", Some("zstd")),
        ("gzip;q=0.5, br;q=0.9, zstd;q=0.1", Some("br")),
        ("gzip;q=1.0, br;q=0.1", Some("gzip")),
        ("zstd;q=0.002, gzip;q=0.001", Some("zstd")),
        ("gzip;q=0", None),
        ("deflate", None),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("", None),
    ] {
        let response = get(
            &mut client,
            "/files/long.txt",
            &[("accept-encoding", accept)],
        );
        assert_eq!(response.status, 200, "{accept}");
        assert_eq!(response.header("content-encoding"), encoding, "{accept}");
        let varies = response
            .headers
            .iter()
            .any(|(name, value)| name == "vary" && value.eq_ignore_ascii_case("accept-encoding"));
        assert!(varies, "{accept}: {response:?}");
        if encoding.is_none() {
            assert_eq!(response.text(), "gannet ".repeat(2000));
        } else {
            assert!(response.body.len() < 2000, "{accept}");
        }
    }
    site.server.stop();
}

#[test]
fn curl_reads_what_was_compressed() {
    let site = site();
    for encoding in ["gzip", "br", "zstd"] {
        let accept = format!("accept-encoding: {encoding}");
        let text = site.curl("/files/long.txt", &["--compressed", "-H", &accept]);
        assert!(text == "gannet ".repeat(2000).as_bytes(), "{encoding}");
    }
    site.server.stop();
}

#[test]
fn what_gains_nothing_is_left_alone() {
    let site = site();
    let mut client = site.server.http();
    for target in ["/files/short.txt", "/files/photo.png"] {
        let response = get(
            &mut client,
            target,
            &[("accept-encoding", "gzip, br, zstd")],
        );
        assert_eq!(response.header("content-encoding"), None, "{target}");
        assert!(response.header("content-length").is_some(), "{target}");
    }
    site.server.stop();
}

#[test]
fn what_was_compressed_before_is_sent_as_it_is() {
    let site = site();
    let mut client = site.server.http();
    let mut tags = Vec::new();
    for (accept, encoding, body) in [
        ("br", Some("br"), "br"),
        ("zstd", Some("zstd"), "zst"),
        ("gzip", Some("gzip"), "gz"),
        ("gzip;q=0.3, br;q=0.2", Some("gzip"), "gz"),
        ("identity", None, "plain"),
    ] {
        let response = get(&mut client, "/files/app.js", &[("accept-encoding", accept)]);
        assert_eq!(response.header("content-encoding"), encoding, "{accept}");
        assert_eq!(response.text(), body, "{accept}");
        assert_eq!(response.header("content-type"), Some("text/javascript"));
        tags.push(response.header("etag").unwrap().to_owned());
    }
    assert!(tags.iter().all(|tag| tag.starts_with('"')), "{tags:?}");
    assert_ne!(tags[0], tags[1], "two encodings with one tag");
    site.server.stop();
}

#[test]
fn a_tag_of_what_was_compressed_on_its_way_is_weak() {
    let site = site();
    let mut client = site.server.http();
    let gzip = ("accept-encoding", "gzip");
    let plain = get(&mut client, "/files/long.txt", &[]);
    let strong = plain.header("etag").unwrap().to_owned();
    let packed = get(&mut client, "/files/long.txt", &[gzip]);
    let weak = packed.header("etag").unwrap();
    assert_eq!(weak, format!("W/{strong}"));
    let again = get(
        &mut client,
        "/files/long.txt",
        &[gzip, ("if-none-match", weak)],
    );
    assert_eq!(again.status, 304);
    // A part of the plain bytes does not continue compressed ones.
    let part = [gzip, ("range", "bytes=9-"), ("if-range", weak)];
    assert_eq!(get(&mut client, "/files/long.txt", &part).status, 200);
    let head = ask(&mut client, "HEAD", "/files/long.txt", &[gzip]);
    assert_eq!(head.header("content-encoding"), Some("gzip"));
    assert_eq!(head.header("content-length"), None);
    site.server.stop();
}

#[test]
fn a_compressed_stream_is_sent_as_it_is_made() {
    let site = site();
    let streams = ["gzip", "br", "zstd"].map(|encoding| {
        let mut client = site.server.http();
        start(&mut client, "/ticks", encoding);
        let head = client.head();
        assert_eq!(head.header("content-encoding"), Some(encoding));
        (encoding, client)
    });
    for (encoding, mut client) in streams {
        // Held back, all ten would come in one or two.
        let chunks = std::iter::from_fn(|| client.chunk()).count();
        assert!(chunks >= 10, "{encoding}: {chunks} chunks");
    }
    site.server.stop();
}

#[test]
fn slow_readers_of_compressed_files_take_little_memory() {
    let site = Site::start(|files| {
        // Digits of a linear congruence: text that brotli cannot make small.
        let numbers = (0u64..).scan(1u64, |x, _| {
            *x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(format!("{:x}\n", *x >> 8))
        });
        let text: String = numbers.take(400_000).collect();
        fs::write(files.join("numbers.txt"), text).unwrap();
    });
    let before = peak(site.worker());
    let mut clients: Vec<HttpClient> = (0..20)
        .map(|_| {
            let slow = small_buffers(site.server.address_of("http")).unwrap();
            let mut slow = HttpClient::over(TcpClient::over(slow));
            start(&mut slow, "/files/numbers.txt", "br");
            slow
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.head().header("content-encoding"), Some("br"));
        let mut got = 0;
        while got < 1 << 20 {
            got += client.chunk().unwrap().len();
        }
    }
    let each = (peak(site.worker()) - before) / clients.len() as u64;
    println!("each slow reader took {} KiB", each >> 10);
    assert!(each < 3 << 20, "each slow reader took {each} bytes");
    // A stop would wait for what they have not read.
    drop(clients);
    site.server.stop();
}

#[test]
fn events_are_not_compressed() {
    let site = site();
    let mut client = site.server.http();
    start(&mut client, "/events", "gzip, br, zstd");
    let head = client.head();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("content-encoding"), None);
    assert_eq!(client.chunk().unwrap(), b"data: tick 0\n\n");
    assert_eq!(client.chunk().unwrap(), b"data: tick 1\n\n");
    site.server.stop();
}

fn start(client: &mut HttpClient, target: &str, accept: &str) {
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {accept}\r\n\r\n"
    ));
}
