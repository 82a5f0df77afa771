//! Large files, slow clients, clients that leave.

use std::{
    fs::{self, File},
    io::Read,
};

use gannet_tests::{
    http::HttpClient,
    process::descriptors,
    tcp::{TcpClient, small_buffers},
    wait::wait_until,
};

use crate::{Site, get};

#[test]
fn a_file_larger_than_the_arena_comes_whole() {
    // The numbers of its words, so that a piece in the wrong place is seen.
    let content: Vec<u8> = (0u32..6 << 20).flat_map(u32::to_le_bytes).collect();
    let site = Site::start_with(
        |files| fs::write(files.join("large.bin"), &content).unwrap(),
        |spec| {
            spec.set("arena_size", 4 << 20)
                .with("max_message_size", 1 << 20)
        },
    );
    let mut client = site.server.http();
    let whole = get(&mut client, "/files/large.bin", &[]);
    assert!(whole.body == content, "the file came changed");
    let part = get(
        &mut client,
        "/files/large.bin",
        &[("range", "bytes=4194305-20971521")],
    );
    assert!(
        part.body == content[4_194_305..=20_971_521],
        "the part came changed"
    );
    site.server.stop();
}

#[test]
fn a_slow_reader_is_waited_for_and_one_who_leaves_ends_the_reading() {
    let site = Site::start_with(
        |files| {
            File::create(files.join("huge.bin"))
                .unwrap()
                .set_len(4 << 30)
                .unwrap();
            fs::write(files.join("other.bin"), vec![7; 4 << 20]).unwrap();
        },
        |spec| spec.set("arena_size", 8 << 20),
    );
    let slow = small_buffers(site.server.address_of("http")).unwrap();
    let mut slow = HttpClient::over(TcpClient::over(slow));
    slow.send("GET /files/huge.bin HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(slow.head().header("content-length"), Some("4294967296"));

    let (mut other, mut got) = (site.server.http(), 0);
    for _ in 0..20 {
        slow.tcp().bytes(64 << 10);
        got += 64 << 10;
        // Others are served meanwhile, which is also time to read ahead.
        assert_eq!(get(&mut other, "/files/other.bin", &[]).body.len(), 4 << 20);
        let at = position(site.worker(), "huge.bin").unwrap();
        assert!(at >= got, "{at} bytes read, {got} received");
        // What may wait for a client, what the kernel holds of it, and a piece.
        assert!(at - got < 8 << 20, "{at} bytes read, {got} received");
    }
    drop(slow);
    wait_until("the file to be closed", || {
        position(site.worker(), "huge.bin").is_none()
    });
    site.server.stop();
}

/// How far a process has read the file of this name; `None` if it does not have it open.
fn position(pid: u32, name: &str) -> Option<u64> {
    if !descriptors(pid).iter().any(|path| path.ends_with(name)) {
        return None;
    }
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let fd = entries
        .flatten()
        .find(|entry| fs::read_link(entry.path()).is_ok_and(|path| path.ends_with(name)))?;
    let mut info = String::new();
    let path = format!("/proc/{pid}/fdinfo/{}", fd.file_name().display());
    File::open(path).ok()?.read_to_string(&mut info).ok()?;
    info.lines()
        .find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
}
