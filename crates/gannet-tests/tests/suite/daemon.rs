//! Servers in the background: what the command that starts one prints, and what is left of it.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use gannet_tests::{
    process::{self, Signal},
    wait::{wait_for, wait_until},
};

/// Marks the processes of one test.
const RUN: &str = "DAEMON_RUN";

/// A place for a server in the background. What is left of one is killed with it.
struct Place {
    home: tempfile::TempDir,
    run: String,
    program: PathBuf,
}

impl Place {
    fn new(program: &str, settings: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let home = tempfile::tempdir().unwrap();
        let text = format!(
            "workers = 1\n{settings}\n[[listeners]]\nprotocol = \"tcp\"\naddress = \"{}\"\n",
            "127.0.0.1:0"
        );
        fs::write(home.path().join("settings.toml"), text).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Place {
            home,
            run: format!("{}-{number}", std::process::id()),
            program: program.into(),
        }
    }

    fn behave() -> Self {
        Place::new(env!("CARGO_BIN_EXE_behave"), "")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--config")
            .arg(self.path("settings.toml"))
            .arg("--pid-file")
            .arg(self.path("server.pid"))
            .env(RUN, &self.run)
            .env_remove("GANNET_SOAK")
            .stdin(Stdio::null());
        command
    }

    /// `start --daemon` with the log redirected, in the background as well.
    fn begin(&self, more: &[&str]) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        self.command(&[&["start", "--daemon"], more].concat())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// The same to its end.
    fn start(&self) -> Output {
        ended(self.begin(&[]))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn processes(&self) -> Vec<u32> {
        process::with_environment(RUN, &self.run)
    }

    fn manager(&self) -> Option<u32> {
        let is_manager =
            |pid: &u32| process::title(*pid).is_some_and(|title| title == "gannet: manager");
        self.processes().into_iter().find(is_manager)
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log\n{}\n---", self.log());
        }
        for pid in self.manager().into_iter().chain(self.processes()) {
            process::kill(pid);
        }
    }
}

/// Waits for its end, and reads what it has printed: no process of the server has that output.
fn ended(mut child: Child) -> Output {
    wait_for("the command to return", || child.try_wait().unwrap());
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_command_returns_when_the_server_serves_and_says_where() {
    let place = Place::behave();
    let started = place.start();
    assert!(started.status.success(), "{started:?}");
    let said = out(&started);
    let address = said
        .lines()
        .find_map(|line| line.strip_prefix("listening on tcp://"))
        .unwrap_or_else(|| panic!("{said}"));
    TcpStream::connect(address).unwrap();
    let pid = fs::read_to_string(place.path("server.pid")).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    assert!(
        said.contains(&format!("running in the background: pid {pid}")),
        "{said}"
    );

    // Nothing ties it to who has started it: session, terminal, outputs.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = rest.split_whitespace().collect();
    let (parent, session, terminal) = (fields[1], fields[3], fields[4]);
    assert_ne!(parent, std::process::id().to_string());
    assert_eq!((session, terminal), (pid.to_string().as_str(), "0"));
    let goes_to = |pid: u32, fd: u32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
    for fd in [0, 1] {
        assert_eq!(goes_to(pid, fd), Path::new("/dev/null"));
    }
    assert_eq!(goes_to(pid, 2), place.path("log").canonicalize().unwrap());

    assert!(place.run(&["status"]).status.success());
    let reload = place.run(&["reload"]);
    assert!(reload.status.success(), "{reload:?}");
    assert!(place.run(&["stop"]).status.success());
    wait_until("its end", || place.processes().is_empty());
    assert!(!place.path("server.pid").exists());
}

#[test]
fn a_start_that_fails_says_so_as_in_the_foreground() {
    for (program, settings) in [
        (env!("CARGO_BIN_EXE_fails_in_start"), ""),
        (env!("CARGO_BIN_EXE_panics_in_start"), ""),
        (env!("CARGO_BIN_EXE_never_ready"), "start_timeout_ms = 2000"),
        (env!("CARGO_BIN_EXE_behave"), "workers_ = 1"),
        (env!("CARGO_BIN_EXE_behave"), "ring_size = 100000"),
    ] {
        let place = Place::new(program, settings);
        let foreground = place.run(&["start"]);
        let background = place.start();
        assert_eq!(
            background.status.code(),
            foreground.status.code(),
            "{program}"
        );
        // But for the process ids.
        let last = |text: &str| {
            let line = text.trim().lines().last().unwrap_or_default().to_owned();
            match (line.find("(pid "), line.find(')')) {
                (Some(from), Some(to)) if from < to => line[..from].to_owned() + &line[to..],
                _ => line,
            }
        };
        let said = last(&String::from_utf8_lossy(&foreground.stderr));
        assert!(said.starts_with("error: "), "{said}");
        assert_eq!(last(&place.log()), said);
        assert_eq!(out(&background), "");
        wait_until("its end", || place.processes().is_empty());
    }
}

#[test]
fn a_start_with_a_log_file_is_told_of_on_the_terminal_all_the_same() {
    let place = Place::behave();
    let log = place.path("own.log");
    let with_log = ["start", "--daemon", "--log-file", log.to_str().unwrap()];
    // Read to their end: no process of the server has these outputs.
    let started = place.run(&with_log);
    assert!(started.status.success(), "{started:?}");
    let said = out(&started);
    assert!(said.contains(&format!("log {}", log.display())), "{said}");
    assert!(said.contains("listening on tcp://127.0.0.1:"), "{said}");

    let pid = place.manager().unwrap();
    let again = place.run(&with_log);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let error = String::from_utf8_lossy(&again.stderr);
    assert!(
        error.contains(&format!("already running with pid {pid}")),
        "{error}"
    );
    assert!(place.run(&["stop"]).status.success());
    wait_until("its end", || place.processes().is_empty());
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("stopping"), "{text}");
}

#[test]
fn a_log_that_the_user_cannot_open_ends_the_start_before_anything_is_served() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test starts servers for other users: run it as root, or leave it out"
    );
    let mut place = Place::behave();
    let all = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(place.home.path(), all).unwrap();
    let program = place.path("program");
    fs::copy(&place.program, &program).unwrap();
    place.program = program;
    let log = place.path("own.log");
    // It is root's, and stays so.
    fs::write(&log, "").unwrap();
    let own = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(&log, own).unwrap();
    for daemon in [&["start"][..], &["start", "--daemon"]] {
        let more = ["--user", "nobody", "--log-file", log.to_str().unwrap()];
        let ended = place.run(&[daemon, &more[..]].concat());
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        let error = String::from_utf8_lossy(&ended.stderr);
        assert!(
            error.contains("own.log") && error.contains("Permission denied"),
            "{error}"
        );
        assert!(place.processes().is_empty());
        assert!(!place.path("server.pid").exists());
    }
}

#[test]
fn a_port_in_use_is_named_by_the_command() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let place = Place::behave();
    let started = ended(place.begin(&["--listen", &address]));
    assert_eq!(started.status.code(), Some(1));
    let log = place.log();
    assert!(
        log.contains(&format!("cannot listen on tcp://{address}")),
        "{log}"
    );
}

#[test]
fn a_second_start_is_refused_and_a_stale_pid_file_is_not_in_the_way() {
    let place = Place::behave();
    assert!(place.start().status.success());
    let pid = place.manager().unwrap();
    let again = place.start();
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let log = place.log();
    assert!(
        log.contains(&format!("error: already running with pid {pid}")),
        "{log}"
    );
    assert!(place.run(&["status"]).status.success());

    assert!(process::kill(pid));
    wait_until("the end of all", || place.processes().is_empty());
    assert!(place.path("server.pid").exists(), "it is stale");
    assert_eq!(place.run(&["status"]).status.code(), Some(1));
    assert!(place.start().status.success(), "{}", place.log());
    assert_ne!(place.manager().unwrap(), pid);
    assert!(place.run(&["stop"]).status.success());
}

#[test]
fn a_daemon_that_is_killed_on_the_way_is_reported() {
    let place = Place::new(
        env!("CARGO_BIN_EXE_never_ready"),
        "start_timeout_ms = 60000",
    );
    let command = place.begin(&[]);
    wait_until("a worker", || place.processes().len() >= 4);
    process::kill(place.manager().unwrap());
    assert_eq!(ended(command).status.code(), Some(1));
    let log = place.log();
    assert!(
        log.contains("was ended by signal 9 (SIGKILL) before it was ready"),
        "{log}"
    );
    wait_until("the end of all", || place.processes().is_empty());
}

#[test]
fn who_interrupts_the_command_stops_the_start() {
    let place = Place::new(
        env!("CARGO_BIN_EXE_never_ready"),
        "start_timeout_ms = 60000",
    );
    let command = place.begin(&[]);
    wait_until("a worker", || place.processes().len() >= 4);
    process::signal(command.id(), Signal::INT);
    assert_eq!(ended(command).status.code(), Some(1));
    wait_until("the end of all", || place.processes().is_empty());
}

#[test]
fn a_daemon_needs_a_file_for_its_log_and_no_sockets_of_others() {
    let place = Place::behave();
    let output = place.run(&["start", "--daemon"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("needs a file for its log"), "{said}");

    let log = File::create(place.path("log")).unwrap();
    let mut command = place.command(&["start", "--daemon"]);
    let status = command.env("LISTEN_FDS", "1").stderr(log).status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(
        place.log().contains("leave --daemon out"),
        "{}",
        place.log()
    );
}
