//! Uploads: stored as they come, within limits.

use std::{fs, time::Duration};

use gannet_tests::{
    http::{HttpClient, chunk_of},
    wait::{soak, wait_until},
};

use crate::{Site, peak};

const LIMIT: usize = 1 << 20;

fn limited() -> Site {
    Site::start_with(
        |_| {},
        |spec| spec.env("SITE_UPLOAD_LIMIT", LIMIT.to_string()),
    )
}

#[test]
fn files_are_stored_as_they_were_sent() {
    let site = Site::start(|_| {});
    let content: Vec<u8> = (0u32..1 << 20).flat_map(u32::to_le_bytes).collect();
    let file = site.home.path().join("sent");
    fs::write(&file, &content).unwrap();
    let forms = [
        format!("file=@{};filename=../../etc/x", file.display()),
        format!("file=@{}", file.display()),
        "text=no file".to_owned(),
    ];
    let forms: Vec<&str> = forms.iter().flat_map(|form| ["-F", form]).collect();
    let answer = String::from_utf8(site.curl("/upload", &forms)).unwrap();
    assert!(answer.contains(r#""name":"../../etc/x""#), "{answer}");
    assert!(answer.contains(r#""name":"sent""#), "{answer}");
    let stored = site.uploads();
    assert_eq!(stored.len(), 2, "{stored:?}");
    for path in stored {
        assert!(fs::read(&path).unwrap() == content, "{path:?} differs");
    }
    let listed = String::from_utf8(site.curl("/api/uploads", &[])).unwrap();
    assert_eq!(listed.matches(r#""bytes":4194304"#).count(), 2, "{listed}");
    site.server.stop();
}

#[test]
fn a_large_upload_takes_little_memory() {
    let size: u64 = if soak(Duration::ZERO).is_zero() {
        256 << 20
    } else {
        1 << 30
    };
    let site = Site::start_with(|_| {}, |spec| spec.set("arena_size", 8 << 20));
    let before: Vec<(u32, u64)> = [site.worker(), site.server.master()]
        .map(|pid| (pid, peak(pid)))
        .into();
    let mut client = site.server.http();
    let (head, tail) = (part("large.bin"), end());
    let length = head.len() as u64 + size + tail.len() as u64;
    client.send(request(&format!("Content-Length: {length}")));
    client.send(head);
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..size >> 20 {
        client.send(&piece);
    }
    client.send(tail);
    let answer = client.response();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().contains(&format!(r#""bytes":{size}"#)));
    for (pid, before) in before {
        let more = peak(pid).saturating_sub(before);
        println!("{size} bytes made a process larger by {} KiB", more >> 10);
        // The arena of 8 MiB for each direction, rings, pieces under way.
        assert!(more < 48 << 20, "an upload took {more} bytes");
    }
    site.server.stop();
}

#[test]
fn what_is_announced_too_large_is_refused_before_it_is_sent() {
    let site = limited();
    let mut client = site.server.http();
    let length = LIMIT + 1;
    client.send(request(&format!(
        "Content-Length: {length}\r\nExpect: 100-continue"
    )));
    assert_eq!(client.response().status, 413);
    assert!(site.uploads().is_empty());
    site.server.stop();
}

#[test]
fn what_turns_out_too_large_is_refused_and_removed() {
    let site = limited();
    let mut client = site.server.http();
    client.send(request("Transfer-Encoding: chunked"));
    client.send(chunk_of(part("large.bin").as_bytes()));
    let piece = chunk_of(&[b'x'; 64 << 10]);
    for _ in 0..=LIMIT / (64 << 10) {
        // The server may answer and close before it has all.
        if client.try_send(&piece).is_err() {
            break;
        }
    }
    assert_eq!(client.response().status, 413);
    wait_until("the partial file to go", || site.uploads().is_empty());
    site.server.stop();
}

#[test]
fn the_head_of_a_part_has_a_limit() {
    let site = Site::start(|_| {});
    let endless = [
        // Before the first part.
        String::new(),
        // A head that does not end.
        "--edge\r\nContent-Disposition: form-data; name=\"".to_owned(),
        // A boundary line that does not end.
        "--edge".to_owned(),
    ];
    for begin in endless {
        let mut client = site.server.http();
        client.send(request("Transfer-Encoding: chunked"));
        client.send(chunk_of(format!("{begin} ").as_bytes()));
        let piece = chunk_of(&[b' '; 16 << 10]);
        // Many times the limit, and none of it the end.
        for _ in 0..512 {
            if answered(&mut client) || client.try_send(&piece).is_err() {
                break;
            }
        }
        let answer = client.response();
        assert!(matches!(answer.status, 400 | 413), "{begin:?}: {answer:?}");
    }
    assert!(peak(site.worker()) < 128 << 20);
    site.server.stop();
}

#[test]
fn a_form_brings_a_limited_number_of_files() {
    let site = Site::start(|_| {});
    let mut form: String = (0..17).map(|n| part(&format!("f{n}")) + "x\r\n").collect();
    form += "--edge--\r\n";
    let mut client = site.server.http();
    client.send(request(&format!("Content-Length: {}", form.len())) + &form);
    assert_eq!(client.response().status, 413);
    assert_eq!(site.uploads().len(), 16);
    site.server.stop();
}

#[test]
fn a_form_that_is_none_is_refused() {
    let site = Site::start(|_| {});
    for body in [
        "",
        "--edge\r\n",
        "--edge\r\nbroken\r\n\r\nx\r\n--edge--\r\n",
        "--edgy--\r\n",
    ] {
        let mut client = site.server.http();
        client.send(request(&format!("Content-Length: {}", body.len())) + body);
        assert_eq!(client.response().status, 400, "{body:?}");
    }
    let mut client = site.server.http();
    assert_eq!(client.post("/upload", "no multipart").status, 400);
    assert!(site.uploads().is_empty());
    site.server.stop();
}

#[test]
fn an_upload_whose_client_leaves_is_removed() {
    let site = Site::start(|_| {});
    let mut client = site.server.http();
    client.send(request("Content-Length: 100000000"));
    client.send(part("large.bin"));
    client.send(vec![b'x'; 1 << 20]);
    wait_until("the upload to be written", || {
        let uploads = site.uploads();
        uploads
            .iter()
            .any(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0))
    });
    drop(client);
    wait_until("the partial file to go", || site.uploads().is_empty());
    site.server.stop();
}

fn request(header: &str) -> String {
    format!(
        "POST /upload HTTP/1.1\r\nHost: test\r\n\
         Content-Type: multipart/form-data; boundary=edge\r\n{header}\r\n\r\n"
    )
}

fn part(name: &str) -> String {
    format!(
        "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
}

fn end() -> &'static str {
    "\r\n--edge--\r\n"
}

/// Whether something has come back.
fn answered(client: &mut HttpClient) -> bool {
    let socket = client.tcp().socket();
    socket.set_nonblocking(true).unwrap();
    let peeked = socket.peek(&mut [0]);
    socket.set_nonblocking(false).unwrap();
    peeked.is_ok()
}
