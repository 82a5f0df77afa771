//! The site example, and by it the libraries that it and `docs/http.md` are made of.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use gannet_tests::{
    http::{HttpClient, Response},
    server::{Server, Spec},
};
use tempfile::TempDir;

mod compression;
mod download;
mod escape;
mod files;
mod pages;
#[path = "../program/mod.rs"]
mod program;
mod ranges;
mod upload;

/// The example with directories of its own.
struct Site {
    server: Server,
    home: TempDir,
}

impl Site {
    /// With what `fill` puts into the directory that is served.
    fn start(fill: impl FnOnce(PathBuf)) -> Self {
        Self::start_with(fill, |spec| spec)
    }

    /// With other settings too.
    fn start_with(fill: impl FnOnce(PathBuf), change: impl FnOnce(Spec) -> Spec) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (files, uploads) = (home.path().join("files"), home.path().join("uploads"));
        fs::create_dir(&files).unwrap();
        fill(files.clone());
        let spec = program::example("site")
            .set("workers", 1)
            .http()
            .with("max_body_size", 4i64 << 30)
            .env("SITE_FILES", files.display().to_string())
            .env("SITE_UPLOADS", uploads.display().to_string())
            .env("SITE_ORIGIN", "https://app.example");
        let server = change(spec).start();
        Site { server, home }
    }

    fn worker(&self) -> u32 {
        self.server.workers()[0].1
    }

    fn uploads(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.path().join("uploads")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address_of("http"))
    }

    /// What curl says, which must succeed.
    fn curl(&self, path: &str, arguments: &[&str]) -> Vec<u8> {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new("curl")
            .args(["-sS", "--max-time", "60"])
            .args(arguments)
            .arg(self.url(path))
            .output()
            .expect("curl is needed");
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        stdout
    }
}

/// A request with these header lines.
fn ask(client: &mut HttpClient, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    client.send(request + "\r\n");
    match method {
        "HEAD" => client.head(),
        _ => client.response(),
    }
}

fn get(client: &mut HttpClient, target: &str, headers: &[(&str, &str)]) -> Response {
    ask(client, "GET", target, headers)
}

/// The most memory that a process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() << 10
}
