//! Cookies, and pages of other origins.

use crate::{Site, ask, get};

#[test]
fn a_cookie_counts_visits() {
    let site = Site::start(|_| {});
    let mut client = site.server.http();
    let first = get(&mut client, "/", &[]);
    assert!(first.text().contains("Visit 1."));
    assert_eq!(
        first.header("set-cookie"),
        Some("visits=1; HttpOnly; SameSite=Lax; Path=/")
    );
    for (cookie, visit) in [
        ("visits=1", 2),
        ("other=7; visits=41", 42),
        ("visits=-1", 1),
        ("visits=<script>", 1),
        ("visits=4294967295", u32::MAX),
        (";;=;visits", 1),
    ] {
        let page = get(&mut client, "/", &[("cookie", cookie)]);
        assert!(page.text().contains(&format!("Visit {visit}.")), "{cookie}");
    }
    let jar = site.home.path().join("jar").display().to_string();
    let jar = ["-c", jar.as_str(), "-b", jar.as_str()];
    site.curl("/", &jar);
    let second = String::from_utf8(site.curl("/", &jar)).unwrap();
    assert!(second.contains("Visit 2."), "{second}");
    site.server.stop();
}

#[test]
fn the_interface_is_for_pages_of_one_origin() {
    let site = Site::start(|_| {});
    let mut client = site.server.http();
    let allowed = "access-control-allow-origin";
    let own = get(
        &mut client,
        "/api/uploads",
        &[("origin", "https://app.example")],
    );
    assert_eq!((own.status, own.text()), (200, "[]"));
    assert_eq!(own.header(allowed), Some("https://app.example"));
    for origin in ["https://evil.example", "http://app.example", "null"] {
        let other = get(&mut client, "/api/uploads", &[("origin", origin)]);
        assert_eq!(other.header(allowed), None, "{origin}");
    }
    // Only the interface.
    let page = get(&mut client, "/", &[("origin", "https://app.example")]);
    assert_eq!(page.header(allowed), None);

    let before = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "content-type"),
    ];
    let preflight = ask(&mut client, "OPTIONS", "/api/uploads", &before);
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header(allowed), Some("https://app.example"));
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        Some("GET")
    );
    assert_eq!(preflight.header("access-control-max-age"), Some("3600"));
    site.server.stop();
}
