//! What a service manager hears, over a socket that stands for it.

use std::{os::unix::net::UnixDatagram, time::Duration};

use gannet_tests::{
    process::{self, Signal},
    wait::{DEADLINE, wait_until},
};

use crate::behave;

/// The service manager's end.
struct Systemd {
    socket: UnixDatagram,
    home: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Systemd { socket, home }
    }

    fn path(&self) -> String {
        self.home.path().join("notify").display().to_string()
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("something is said");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// The next that is no beat.
    fn news(&self) -> String {
        loop {
            let next = self.next();
            if next != "WATCHDOG=1" {
                return next;
            }
        }
    }
}

#[test]
fn a_service_manager_hears_of_start_reload_and_stop() {
    let systemd = Systemd::new();
    let server = behave().env("NOTIFY_SOCKET", systemd.path()).tcp().start();
    let ready = systemd.news();
    let (manager, address) = (server.manager(), server.address(0));
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert!(ready.contains(&format!("\nMAINPID={manager}\n")), "{ready}");
    assert!(
        ready.contains(&format!("STATUS=listening on tcp://{address}")),
        "{ready}"
    );
    // Others would speak in its name.
    assert_eq!(
        process::with_environment("NOTIFY_SOCKET", &systemd.path()),
        [manager]
    );

    for round in ["reload", "HUP"] {
        match round {
            "reload" => server.reload(),
            _ => server.signal(Signal::HUP),
        }
        let reloading = systemd.news();
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{round}: {reloading}"
        );
        let usec = reloading
            .lines()
            .nth(1)
            .and_then(|line| line.split('=').nth(1));
        assert!(usec.unwrap().parse::<u64>().is_ok(), "{reloading}");
        assert!(systemd.news().starts_with("READY=1"), "{round}");
    }

    server.stop();
    let said = [systemd.news(), systemd.news()].join("\n");
    assert!(said.contains("STOPPING=1"), "{said}");
    assert!(said.contains("EXTEND_TIMEOUT_USEC=40000000"), "{said}");
}

#[test]
fn a_start_that_fails_is_never_ready() {
    let systemd = Systemd::new();
    let ended = gannet_tests::server::Spec::new(env!("CARGO_BIN_EXE_fails_in_start"))
        .env("NOTIFY_SOCKET", systemd.path())
        .tcp()
        .run(&["start"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    systemd.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = systemd.socket.recv(&mut buffer) {
        let said = String::from_utf8_lossy(&buffer[..length]);
        assert!(!said.contains("READY=1"), "{said}");
    }
}

#[test]
fn the_watchdog_notices_a_master_that_hangs() {
    let systemd = Systemd::new();
    let usec = Duration::from_secs(2).as_micros();
    let server = behave()
        .env("NOTIFY_SOCKET", systemd.path())
        .env("WATCHDOG_USEC", usec.to_string())
        .tcp()
        .start();
    wait_until("a beat", || systemd.next() == "WATCHDOG=1");
    assert!(process::signal(server.master(), Signal::STOP));
    wait_until("its silence to be noticed", || {
        systemd.next() == "STATUS=the master does not answer"
    });
    server.expect_log("the master does not answer");
    // While it hangs there is no beat.
    assert!(process::signal(server.master(), Signal::CONT));
    assert_eq!(systemd.next(), "WATCHDOG=1");
    server.stop();
}
