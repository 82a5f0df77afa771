//! The admin listener: health, and clients that want to be a burden.

use std::os::unix::fs::PermissionsExt;

use gannet_tests::{
    gate::Gate,
    http::HttpClient,
    metrics::{self, Page},
    process::{self, Signal},
    server::{Server, Spec},
    tcp::TcpClient,
    wait::wait_until,
};

use crate::behave;

fn server() -> Spec {
    behave().set("admin_listen", "127.0.0.1:0").websocket()
}

fn ask(server: &Server, path: &str) -> (u16, String) {
    let response = metrics::get(server, path);
    (response.status, metrics::text(&response))
}

#[test]
fn there_is_no_admin_listener_by_default() {
    let server = behave().websocket().start();
    assert_eq!(server.status()["admin"], serde_json::Value::Null);
    server.stop();
}

#[test]
fn a_server_is_ready_but_while_it_lacks_a_worker_or_stops() {
    // The second worker of a place is not there at once: the first ones died young.
    let server = server()
        .set("workers", 2)
        .set("max_wait_time_ms", 60_000)
        .start();
    assert_eq!(ask(&server, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(ask(&server, "/readyz"), (200, "ok\n".to_owned()));

    server.remove_program();
    let (id, pid) = server.workers()[0];
    process::kill(pid);
    wait_until("the worker to be missed", || {
        ask(&server, "/readyz") == (503, format!("worker {id} is not ready\n"))
    });
    assert_eq!(ask(&server, "/healthz").0, 200);
    assert_eq!(Page::of(&server).get("gannet_ready"), 0.0);

    let master = server.master();
    process::kill(master);
    wait_until("the master to be missed", || {
        let (status, reasons) = ask(&server, "/healthz");
        status == 503 && reasons.contains("master")
    });
    server.replace_program(env!("CARGO_BIN_EXE_behave"));
    wait_until("all to be there again", || ask(&server, "/readyz").0 == 200);
    wait_until("the server's health", || ask(&server, "/healthz").0 == 200);

    let mut client = server.websocket();
    let gate = Gate::shut();
    client.send(format!("gate {} x", gate.path()));
    wait_until("the handler to run", || server.in_flight() > 0);
    let mut admin = metrics::client(&server);
    server.signal(Signal::TERM);
    wait_until("the stop to be told", || {
        let response = admin.get("/readyz");
        response.status == 503 && metrics::text(&response).contains("the server is stopping")
    });
    gate.open();
    let mut server = server;
    server.expect_exit(0);
}

#[test]
fn a_reload_does_not_make_the_server_unready() {
    let server = server().set("workers", 2).set("task_workers", 1).start();
    let mut admin = metrics::client(&server);
    let done = std::thread::scope(|scope| {
        let reload = scope.spawn(|| server.reload());
        let mut asked = 0;
        while !reload.is_finished() || asked == 0 {
            let response = admin.get("/readyz");
            assert_eq!(response.status, 200, "{}", metrics::text(&response));
            asked += 1;
        }
        reload.join().is_ok()
    });
    assert!(done);
    server.stop();
}

#[test]
fn a_master_that_does_not_move_is_not_healthy() {
    let server = server().start();
    let mut admin = metrics::client(&server);
    assert_eq!(admin.get("/healthz").status, 200);
    let master = server.master();
    assert!(process::signal(master, Signal::STOP));
    wait_until("the reactor to be missed", || {
        let response = admin.get("/healthz");
        response.status == 503 && metrics::text(&response).starts_with("reactor 0 has not turned")
    });
    assert!(process::signal(master, Signal::CONT));
    wait_until("its health", || admin.get("/healthz").status == 200);
    server.stop();
}

#[test]
fn only_reading_is_possible_and_only_what_is_there() {
    let server = server().start();
    let mut admin = metrics::client(&server);
    assert_eq!(admin.get("/metrics/more").status, 404);
    assert_eq!(admin.get("/").status, 200);
    let response = admin.get("/metrics?x=y");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    admin.send("DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = admin.response();
    assert_eq!(
        (response.status, response.header("allow")),
        (405, Some("GET, HEAD"))
    );
    admin.send("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = admin.head();
    assert!(
        head.header("content-length")
            .unwrap()
            .parse::<usize>()
            .unwrap()
            > 1000
    );
    admin.send("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(admin.response().status, 413);
    admin.expect_closed();

    wait_until("the requests to be counted", || {
        let page = Page::of(&server);
        ["404", "405", "413"].iter().all(|code| {
            page.find(&format!("gannet_admin_requests_total{{code=\"{code}\"}}")) == Some(1.0)
        })
    });
    server.stop();
}

#[test]
fn clients_without_end_are_bounded_and_the_server_goes_on() {
    let server = server().start();
    let status = server.status();
    let address = status["admin"].as_str().unwrap().parse().unwrap();
    // Those that have said half a request are not closed for others, until their time is up.
    let mut slow: Vec<_> = (0..16).map(|_| HttpClient::connect(address)).collect();
    for client in &mut slow {
        client.send("GET /healthz HT");
    }
    // Two rounds of the manager, and they are known to have begun.
    for _ in 0..3 {
        server.status();
    }
    // The seventeenth finds no room, or the first time is up.
    let mut refused = 0;
    wait_until("room", || {
        let mut client = HttpClient::connect(address);
        let sent = client.try_send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        let answered = sent.is_ok() && client.try_response().is_ok();
        refused += usize::from(!answered);
        answered
    });
    assert!(refused > 0, "there was room for more than 16");
    for client in &mut slow {
        let response = client.response();
        assert_eq!(response.status, 408);
    }
    // Idle ones make room at once.
    let idle: Vec<_> = (0..40).map(|_| TcpClient::connect(address)).collect();
    assert_eq!(ask(&server, "/readyz").0, 200);
    let mut client = server.websocket();
    assert_eq!(client.ask("echo x"), "x");
    drop(idle);
    assert!(Page::of(&server).get("gannet_admin_connections_refused_total") > 0.0);
    server.stop();
}

#[test]
fn a_unix_socket_is_for_the_same_user_and_goes_with_the_server() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("admin.sock");
    let server = behave()
        .set("admin_listen", format!("unix:{}", path.display()))
        .websocket()
        .start();
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let address = std::os::unix::net::SocketAddr::from_pathname(&path).unwrap();
    let mut admin = HttpClient::over(TcpClient::unix(&address));
    assert_eq!(admin.get("/readyz").status, 200);
    drop(admin);
    server.stop();
    assert!(!path.exists());
}

#[test]
fn an_address_that_cannot_be_is_refused_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, code, says) in [
        ("nowhere", 2, "nowhere"),
        (&taken, 1, "Address already in use"),
    ] {
        let ended = behave()
            .set("admin_listen", address)
            .websocket()
            .run(&["start"]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(
            ended.err.contains("`admin_listen`") && ended.err.contains(says),
            "{ended:?}"
        );
    }
}
