//! HTTP/2 with other people's clients: curl, nghttp, h2load. `./test` installs them.

use std::process::{Command, Output, Stdio};

use gannet_tests::{server::Server, tls::Keys};

use crate::{behave, heavy};

/// A server with a plain listener and one with TLS, and the keys of the second.
fn server() -> (Server, Keys) {
    let keys = Keys::default();
    let server = keys.serve(behave().websocket().websocket()).start();
    (server, keys)
}

fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap_or_else(|error| panic!("{command:?}: {error}: install it"));
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {text}{errors}");
    text
}

/// Curl prints the version and the status behind the body.
fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command
        .args([
            "-sS",
            "--max-time",
            "25",
            "-w",
            " [%{http_version} %{http_code}]",
        ])
        .args(arguments);
    run(command)
}

#[test]
fn curl_speaks_http2_with_prior_knowledge() {
    let (server, _keys) = server();
    let url = |path: &str| format!("http://{}{path}", server.address(0));
    let knows = "--http2-prior-knowledge";
    assert_eq!(curl(&[knows, &url("/")]), "hello [2 200]");
    assert_eq!(curl(&[knows, "-d", "body", &url("/echo")]), "body [2 200]");
    assert_eq!(curl(&[knows, &url("/nowhere")]), "no such page [2 404]");
    let head = curl(&[knows, "--head", &url("/big?n=1000")]);
    assert!(
        head.starts_with("HTTP/2 200") && head.ends_with("[2 200]"),
        "{head}"
    );
    let large = curl(&[knows, &url("/big?n=3000000")]);
    assert_eq!(large.len(), 3_000_000 + " [2 200]".len());
    let piped = curl(&[knows, &url("/stream?n=20&size=30000&ms=1")]);
    assert_eq!(piped.len(), 600_000 + " [2 200]".len());
    server.stop();
}

#[test]
fn curl_uploads_over_http2() {
    let (server, _keys) = server();
    let path = server.home().join("upload");
    std::fs::write(&path, vec![b'u'; 2_000_000]).unwrap();
    let data = format!("@{}", path.display());
    let url = format!("http://{}/echo", server.address(0));
    let back = curl(&["--http2-prior-knowledge", "--data-binary", &data, &url]);
    assert_eq!(back.len(), 2_000_000 + " [2 200]".len());
    std::fs::remove_file(path).unwrap();
    server.stop();
}

/// RFC 9113 knows no upgrade any more: the request is answered as it came.
#[test]
fn curl_that_asks_for_an_upgrade_is_answered_in_http_1() {
    let (server, _keys) = server();
    let url = format!("http://{}/", server.address(0));
    assert_eq!(curl(&["--http2", &url]), "hello [1.1 200]");
    server.stop();
}

#[test]
fn curl_and_the_server_agree_on_a_version_with_tls() {
    let (server, keys) = server();
    let ca = keys.ca();
    let ca = ca.to_str().unwrap();
    let port = server.address(1).port();
    let resolve = format!("localhost:{port}:127.0.0.1");
    let url = format!("https://localhost:{port}/");
    let with = |flag| curl(&["--cacert", ca, "--resolve", &resolve, flag, &url]);
    assert_eq!(with("--http2"), "hello [2 200]");
    assert_eq!(with("--http1.1"), "hello [1.1 200]");
    assert_eq!(with("--no-alpn"), "hello [1.1 200]");
    server.stop();
}

#[test]
fn nghttp_gets_many_things_over_one_connection() {
    let (server, _keys) = server();
    let plain = |path: &str| format!("http://{}{path}", server.address(0));
    let secret = |path: &str| format!("https://localhost:{}{path}", server.address(1).port());
    for url in [&plain as &dyn Fn(&str) -> String, &secret] {
        let mut command = Command::new("nghttp");
        command
            .args(["--no-verify-peer", "--null-out", "--stat", "--timeout=25s"])
            .args([
                url("/"),
                url("/big?n=200000"),
                url("/stream?n=3&size=100"),
                url("/empty"),
            ]);
        let told = run(command);
        let answers = told.lines().filter(|line| {
            let mut words = line.split_whitespace();
            words.any(|word| word == "200" || word == "204")
        });
        assert_eq!(answers.count(), 4, "{told}");
    }
    server.stop();
}

#[test]
fn nghttp_with_padding_and_continuations_is_understood() {
    // It makes its headers long, so that they need more than one frame.
    let server = behave()
        .websocket()
        .with("max_head_size", 128 << 10)
        .start();
    let mut command = Command::new("nghttp");
    let url = format!("http://{}/headers", server.address(0));
    command
        .args(["--padding=200", "--continuation", "--timeout=25s"])
        .args(["-H", "x-mine: yes", &url]);
    let told = run(command);
    assert!(told.contains("x-mine: yes"), "{told}");
    server.stop();
}

#[test]
fn h2load_has_every_request_answered() {
    let _machine = heavy();
    let (server, _keys) = server();
    let plain = format!("http://{}", server.address(0));
    let secret = format!("https://localhost:{}", server.address(1).port());
    for (target, path) in [
        (&plain, "/"),
        (&secret, "/"),
        (&plain, "/big?n=50000"),
        (&secret, "/stream?n=3&size=5000"),
    ] {
        let mut command = Command::new("h2load");
        command
            .args([
                "-n",
                "2000",
                "-c",
                "10",
                "-m",
                "20",
                "--connection-active-timeout=25",
            ])
            .arg(format!("{target}{path}"));
        let told = run(command);
        let all = "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored";
        assert!(told.contains(all), "{target}{path}: {told}");
        assert!(
            told.contains("status codes: 2000 2xx"),
            "{target}{path}: {told}"
        );
    }
    server.stop();
}
