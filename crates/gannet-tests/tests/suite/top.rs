//! `top`, in a terminal and out of it.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use gannet_tests::{
    server::Server,
    wait::{wait_for, wait_until},
};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::behave;

/// `top` in a terminal.
struct Terminal {
    ours: OwnedFd,
    theirs: File,
    top: Child,
    /// What it has written.
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(server: &Server) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(name.to_str().unwrap())
        };
        let theirs = open().unwrap();
        resize(&ours, 200, 40);
        let top = Command::new(server.home().join("program"))
            .args(["top", "--interval", "0.2", "--pid-file"])
            .arg(server.pid_file())
            .stdin(Stdio::from(open().unwrap()))
            .stdout(Stdio::from(open().unwrap()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (File::from(ours.try_clone().unwrap()), shown.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]);
                to.lock().unwrap().push_str(&text);
            }
        });
        Terminal {
            ours,
            theirs,
            top,
            shown,
        }
    }

    fn shows(&self, text: &str) -> bool {
        self.shown.lock().unwrap().contains(text)
    }

    /// What is shown from now on.
    fn clear(&self) {
        self.shown.lock().unwrap().clear();
    }

    fn key(&self, key: u8) {
        rustix::io::write(&self.ours, &[key]).unwrap();
    }

    /// It has ended, and the terminal is as before.
    fn expect_end(mut self) {
        let status = wait_for("the end of top", || self.top.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        wait_until("the screen of before", || {
            self.shows("\x1b[?25h\x1b[?1049l")
        });
    }
}

fn resize(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn top_shows_the_processes_again_and_again_until_q() {
    let server = behave().tcp().start();
    let terminal = Terminal::start(&server);
    wait_until("the processes", || {
        terminal.shows("PROCESS") && terminal.shows("manager") && terminal.shows("worker 1")
    });
    let modes = tcgetattr(&terminal.theirs).unwrap().local_modes;
    assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO));
    terminal.clear();
    wait_until("another picture", || terminal.shows("worker 0"));
    // A smaller window shows less of each line.
    resize(&terminal.ours, 30, 8);
    terminal.clear();
    wait_until("a smaller picture", || {
        let shown = terminal.shown.lock().unwrap();
        shown.contains("PROCESS") && !shown.contains("LAST EXIT")
    });
    terminal.key(b'm');
    terminal.key(b'q');
    terminal.expect_end();
    server.stop();
}

#[test]
fn top_gives_the_terminal_back_at_ctrl_c_and_at_a_signal() {
    let server = behave().tcp().start();
    let terminal = Terminal::start(&server);
    wait_until("a picture", || terminal.shows("PROCESS"));
    terminal.key(3);
    terminal.expect_end();
    let terminal = Terminal::start(&server);
    wait_until("a picture", || terminal.shows("PROCESS"));
    let pid = terminal.top.id();
    assert!(gannet_tests::process::signal(
        pid,
        gannet_tests::process::Signal::TERM
    ));
    terminal.expect_end();
    server.stop();
}

#[test]
fn top_waits_for_a_server_that_is_gone() {
    let server = behave().tcp().start();
    let terminal = Terminal::start(&server);
    wait_until("a picture", || terminal.shows("PROCESS"));
    assert_eq!(server.control(&["stop"]).code, Some(0));
    wait_until("the message", || terminal.shows("no server is running"));
    terminal.clear();
    let server = server.start_again();
    wait_until("a picture of the new one", || terminal.shows("PROCESS"));
    terminal.key(b'q');
    terminal.expect_end();
    server.stop();
}

#[test]
fn top_once_is_for_scripts_and_without_a_terminal_it_says_so() {
    let server = behave().tcp().start();
    let once = server.control(&["top", "--once", "--sort", "place"]);
    assert_eq!(once.code, Some(0), "{once:?}");
    assert!(!once.out.contains('\x1b'));
    let names = once
        .out
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = names.skip_while(|name| *name != "PROCESS").collect();
    assert_eq!(names, ["PROCESS", "manager", "master", "worker", "worker"]);
    let live = server.control(&["top"]);
    assert_eq!(live.code, Some(2));
    assert!(live.err.contains("--once"), "{}", live.err);
    server.stop();
}
