//! No name, encoding or link leads out of the directory.

use std::{fs, os::unix::fs::symlink, process::Command};

use gannet_tests::http::HttpClient;

use crate::{Site, ask, get};

/// Stands beside the directory that is served.
const SECRET: &str = "the secret";

fn site() -> Site {
    Site::start(|files| {
        let home = files.parent().unwrap();
        fs::write(home.join("secret"), SECRET).unwrap();
        fs::create_dir(home.join("outside")).unwrap();
        fs::write(home.join("outside/index.html"), SECRET).unwrap();
        fs::write(files.join("page.html"), "page").unwrap();
        fs::create_dir(files.join("sub")).unwrap();
        fs::write(files.join("sub/%2e%2e"), "odd name").unwrap();
        symlink("page.html", files.join("inside")).unwrap();
        symlink("../page.html", files.join("sub/up")).unwrap();
        symlink("../secret", files.join("out")).unwrap();
        symlink(home.join("secret"), files.join("absolute")).unwrap();
        symlink(files.join("page.html"), files.join("absolute-inside")).unwrap();
        symlink("../outside", files.join("outside")).unwrap();
        symlink("..", files.join("parent")).unwrap();
        symlink("circle", files.join("circle")).unwrap();
        symlink("../secret", files.join("page.html.gz")).unwrap();
        symlink("/proc/self/environ", files.join("environ")).unwrap();
        symlink("/dev/zero", files.join("zero")).unwrap();
        let made = Command::new("mkfifo").arg(files.join("fifo")).status();
        assert!(made.unwrap().success());
    })
}

#[test]
fn no_path_leads_out() {
    let site = site();
    let deep = format!("/files/{}secret", "../".repeat(300));
    let long = format!("/files/{}", "a".repeat(4000));
    let many = format!("/files/{}", "a/".repeat(4000));
    for target in [
        "/files/../secret",
        "/files/..",
        "/files/sub/../../secret",
        "/files/%2e%2e/secret",
        "/files/%2E%2E/secret",
        "/files/.%2e/secret",
        "/files/..%2fsecret",
        "/files/..%2Fsecret",
        "/files/%2e%2e%2fsecret",
        "/files/%252e%252e/secret",
        "/files/%252e%252e%252fsecret",
        "/files/..%252fsecret",
        "/files/%c0%ae%c0%ae/secret",
        "/files/%uff0e%uff0e/secret",
        "/files/..\\secret",
        "/files/..%5csecret",
        "/files/%5c..%5csecret",
        "/files/....//secret",
        "/files/..;/secret",
        "/files//etc/passwd",
        "/files/%2fetc%2fpasswd",
        "/files/%2f%2fetc/passwd",
        "/files/sub/%2fetc/passwd",
        "/files/file:///etc/passwd",
        "/files/c:/secret",
        "/files/page.html%00",
        "/files/%00",
        "/files/page.html%00/../../secret",
        "/files/%ff%fe",
        "/files/%",
        "/files/%2",
        "/files/%zz",
        "/filessecret",
        "/files../secret",
        "/files/out",
        "/files/absolute",
        "/files/absolute-inside",
        "/files/outside/",
        "/files/outside/index.html",
        "/files/parent/secret",
        "/files/parent/files/page.html",
        "/files/circle",
        "/files/environ",
        "/files/zero",
        "/files/fifo",
        "/files/page.html/",
        "/files/page.html/secret",
        &deep,
        &long,
        &many,
    ] {
        for method in ["GET", "HEAD"] {
            // The engine closes after what it refuses itself.
            let mut client = site.server.http();
            let response = ask(&mut client, method, target, &[("accept-encoding", "gzip")]);
            assert!(
                matches!(response.status, 400 | 404),
                "{method} {target}: {response:?}"
            );
            assert!(
                !response.body.windows(6).any(|it| it == b"secret"),
                "{target}"
            );
        }
    }
    site.server.stop();
}

#[test]
fn links_that_stay_inside_are_followed_and_odd_names_are_names() {
    let site = site();
    let mut client = site.server.http();
    assert_eq!(get(&mut client, "/files/inside", &[]).text(), "page");
    assert_eq!(get(&mut client, "/files/sub/up", &[]).text(), "page");
    assert_eq!(get(&mut client, "/files/page%2ehtml", &[]).text(), "page");
    assert_eq!(get(&mut client, "/files/./sub/.//up", &[]).text(), "page");
    // Decoded once, and no more.
    assert_eq!(
        get(&mut client, "/files/sub/%252e%252e", &[]).text(),
        "odd name"
    );
    site.server.stop();
}

#[test]
fn a_compressed_sibling_that_leads_out_is_none() {
    let site = site();
    let mut client = site.server.http();
    let page = get(
        &mut client,
        "/files/page.html",
        &[("accept-encoding", "gzip")],
    );
    assert_eq!((page.status, page.text()), (200, "page"));
    assert_eq!(page.header("content-encoding"), None);
    site.server.stop();
}

#[test]
fn a_file_that_blocks_occupies_nobody() {
    let site = site();
    // More than a runtime has threads for what blocks.
    let mut clients: Vec<HttpClient> = (0..600).map(|_| site.server.http()).collect();
    for client in &mut clients {
        client.send("GET /files/fifo HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 404);
    }
    assert_eq!(clients[0].get("/files/page.html").text(), "page");
    site.server.stop();
}

#[test]
fn a_directory_that_is_not_there_stops_the_start() {
    let ended = crate::program::example("site")
        .http()
        .env("SITE_FILES", "/nowhere/at/all")
        .run(&["start"]);
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.err.contains("SITE_FILES /nowhere/at/all"),
        "{}",
        ended.err
    );
}
