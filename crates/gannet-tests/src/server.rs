//! Starts server programs and ends them.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http::HttpClient,
    process::{self, Memory, Signal},
    tcp::{self, TcpClient},
    udp::UdpClient,
    wait::{DEADLINE, SOAK, wait_for, wait_until},
    websocket::WebSocket,
};

/// A server that is to be: a program, settings, listeners on port 0.
#[derive(Clone, Debug)]
pub struct Spec {
    program: PathBuf,
    settings: toml::Table,
    listeners: Vec<toml::Table>,
    environment: Vec<(String, String)>,
    pid_file: Option<PathBuf>,
    launcher: Option<PathBuf>,
    unread_log: bool,
    owner: Option<u32>,
}

/// A running server. Dropping it kills what is left of it.
#[derive(Debug)]
pub struct Server {
    spec: Spec,
    home: TempDir,
    run: String,
    manager: Option<Child>,
    addresses: Vec<String>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Spec {
    /// A server that runs this program with two workers, in the mode of this run of the
    /// suite.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Spec {
            program: program.as_ref().to_owned(),
            settings: toml::Table::new(),
            listeners: Vec::new(),
            environment: Vec::new(),
            pid_file: None,
            launcher: None,
            unread_log: false,
            owner: None,
        }
        .set("workers", 2)
        // What most tests look for in the log is said in words.
        .set("log_format", "text")
        .set("mode", mode())
    }

    /// With this setting.
    pub fn set(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// With a TCP listener.
    pub fn tcp(self) -> Self {
        self.listen("tcp", "127.0.0.1:0")
    }

    /// With a UDP listener.
    pub fn udp(self) -> Self {
        self.listen("udp", "127.0.0.1:0")
    }

    /// With an HTTP listener.
    pub fn http(self) -> Self {
        self.listen("http", "127.0.0.1:0")
    }

    /// With a listener for WebSocket and HTTP.
    pub fn websocket(self) -> Self {
        self.listen("websocket", "127.0.0.1:0")
    }

    /// With this listener.
    pub fn listen(mut self, protocol: &str, address: &str) -> Self {
        let mut listener = toml::Table::new();
        listener.insert("protocol".to_owned(), protocol.into());
        listener.insert("address".to_owned(), address.into());
        self.listeners.push(listener);
        self
    }

    /// With this setting of the listener named last.
    pub fn with(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        let listener = self.listeners.last_mut().expect("a listener comes first");
        listener.insert(name.to_owned(), value.into());
        self
    }

    /// With TLS on the listener named last.
    pub fn tls(self, (certificate, key): &(PathBuf, PathBuf)) -> Self {
        self.with("tls", toml::Table::new())
            .with_tls("certificate", text(certificate))
            .with_tls("key", text(key))
    }

    /// With this setting of its TLS.
    pub fn with_tls(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        let listener = self.listeners.last_mut().expect("a listener comes first");
        let tls = listener.get_mut("tls").and_then(toml::Value::as_table_mut);
        tls.expect("a certificate comes first")
            .insert(name.to_owned(), value.into());
        self
    }

    /// With this environment variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// With a pipe as standard error that nobody reads.
    pub fn unread_log(mut self) -> Self {
        self.unread_log = true;
        self
    }

    /// With this pid file instead of one in the server's own directory.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.pid_file = Some(path.into());
        self
    }

    /// With a directory of its own that belongs to this user, and that all users may read.
    pub fn home_of(mut self, user: u32) -> Self {
        self.owner = Some(user);
        self
    }

    /// Started by this program, which passes it sockets: `NAME=ADDRESS`, with spaces between.
    pub fn launched_by(mut self, launcher: impl AsRef<Path>, sockets: &str) -> Self {
        self.launcher = Some(launcher.as_ref().to_owned());
        self.env(LAUNCH, sockets)
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not start, with what it said.
    pub fn start(self) -> Server {
        let home = tempfile::tempdir().expect("a directory for temporary files");
        let run = unique();
        fs::write(home.path().join(CONFIG), self.config()).expect("write the settings");
        // The program is run from its own place, so that a test can replace it there.
        let program = home.path().join(PROGRAM);
        fs::hard_link(&self.program, &program)
            .or_else(|_| fs::copy(&self.program, &program).map(drop))
            .expect("put the program in place");
        if let Some(owner) = self.owner {
            let all = fs::Permissions::from_mode(0o755);
            fs::set_permissions(home.path(), all).expect("open the directory");
            chown(home.path(), Some(owner), None).expect("give the directory away");
        }
        let mut server = Server {
            spec: self,
            home,
            run,
            manager: None,
            addresses: Vec::new(),
        };
        server.spawn();
        server
    }

    /// Runs the program with these arguments and these settings, to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let home = tempfile::tempdir().expect("a directory for temporary files");
        fs::write(home.path().join(CONFIG), self.config()).expect("write the settings");
        let run = unique();
        let ended = run_to_end(self.command(&self.program, arguments, home.path(), &run));
        assert_eq!(left_after(&run), [0; 0], "processes are left");
        ended
    }

    fn config(&self) -> String {
        let mut settings = self.settings.clone();
        let listeners = self
            .listeners
            .iter()
            .cloned()
            .map(toml::Value::Table)
            .collect();
        settings.insert("listeners".to_owned(), toml::Value::Array(listeners));
        settings.to_string()
    }

    fn command(&self, program: &Path, arguments: &[&str], home: &Path, run: &str) -> Command {
        let mut command = match &self.launcher {
            Some(launcher) if matches!(arguments, ["start"]) => {
                let mut command = Command::new(launcher);
                command.arg(program);
                command
            }
            _ => Command::new(program),
        };
        command
            .args(arguments)
            .arg("--pid-file")
            .arg(self.pid_file.clone().unwrap_or_else(|| home.join(PID_FILE)))
            .env(RUN, run)
            // Ours; a server would take it for a setting that it does not know.
            .env_remove(SOAK)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        // Others find the server by its pid file.
        if matches!(arguments, ["start"] | ["start", "--daemon"] | ["check", ..]) {
            command.arg("--config").arg(home.join(CONFIG));
        }
        command
    }
}

/// What the servers of this run of the suite are: `process`, or, with `SUITE_MODE=thread` in the
/// environment, `thread`.
///
/// Tests that need process mode stand in `process-only.txt`, each with its reason; a run in thread
/// mode leaves them out.
///
/// # Panics
///
/// If the variable says something else.
pub fn mode() -> &'static str {
    match std::env::var("SUITE_MODE").as_deref() {
        Err(_) | Ok("process") => "process",
        Ok("thread") => "thread",
        Ok(other) => panic!("SUITE_MODE={other}: must be process or thread"),
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of text").to_owned()
}

impl Server {
    /// The address of a listener, in the order of the settings.
    pub fn address(&self, listener: usize) -> SocketAddr {
        let address = self.address_text(listener);
        address
            .parse()
            .unwrap_or_else(|_| panic!("no network address: {address}"))
    }

    /// The same as the server writes it: `unix:/run/echo.sock` too.
    pub fn address_text(&self, listener: usize) -> &str {
        &self.addresses[listener]
    }

    /// The address of the first listener that speaks `protocol`.
    pub fn address_of(&self, protocol: &str) -> SocketAddr {
        let is = |listener: &toml::Table| listener["protocol"].as_str() == Some(protocol);
        let index = self.spec.listeners.iter().position(is);
        self.address(index.unwrap_or_else(|| panic!("no {protocol} listener")))
    }

    /// A client on the TCP listener.
    pub fn tcp(&self) -> TcpClient {
        TcpClient::connect(self.address_of("tcp"))
    }

    /// A client on the UDP listener.
    pub fn udp(&self) -> UdpClient {
        UdpClient::connect(self.address_of("udp"))
    }

    /// What one of the `totals` of `status` is now.
    pub fn total(&self, name: &str) -> u64 {
        self.status()["totals"][name].as_u64().expect("a number")
    }

    /// A client on the HTTP listener.
    pub fn http(&self) -> HttpClient {
        HttpClient::connect(self.address_of("http"))
    }

    /// A client on the WebSocket listener.
    pub fn websocket(&self) -> WebSocket {
        WebSocket::connect(self.address_of("websocket"))
    }

    /// The manager's process.
    pub fn manager(&self) -> u32 {
        self.manager.as_ref().expect("started").id()
    }

    /// The master's process, as soon as there is one: what owns the connections. In thread mode the
    /// only one.
    pub fn master(&self) -> u32 {
        if mode() == "thread" {
            return self.manager();
        }
        wait_for("a master", || {
            self.titled("master").first().map(|&(_, pid)| pid)
        })
    }

    /// The worker processes that run now, with their numbers.
    pub fn workers(&self) -> Vec<(u16, u32)> {
        self.titled("worker")
    }

    /// The worker processes that get events now.
    pub fn ready_workers(&self) -> Vec<u32> {
        let status = self.status();
        let workers = status["workers"].as_array().expect("a list").iter();
        workers
            .filter(|worker| worker["role"] == "worker" && worker["state"] == "ready")
            .filter_map(|worker| worker["pid"].as_u64()?.try_into().ok())
            .collect()
    }

    /// Worker 0, when it is another process than `before` and has been ready for 100 ms: its death is
    /// no early one.
    pub fn worker_of_use(&self, before: u32) -> u32 {
        let ready = || {
            let worker = &self.status()["workers"][0];
            let pid = worker["pid"]
                .as_u64()
                .filter(|_| worker["state"] == "ready")?;
            Some((pid.try_into().ok()?, worker["age_ms"].as_u64()?))
        };
        let new = || ready().filter(|(pid, _)| *pid != before);
        let (worker, age) = wait_for("a worker", new);
        wait_until("100 ms of use", || {
            ready().is_some_and(|(pid, now)| pid == worker && now > age + 100)
        });
        worker
    }

    /// The task worker processes that run now, with their numbers.
    pub fn task_workers(&self) -> Vec<(u16, u32)> {
        self.titled("task worker")
    }

    /// The process id of a user process that runs.
    pub fn process(&self, name: &str) -> Option<u32> {
        let title = format!("gannet: process {name}");
        let has = |pid: &u32| {
            process::title(*pid).is_some_and(|t| t.split(" (").next() == Some(title.as_str()))
        };
        self.processes().into_iter().find(has)
    }

    /// What `status` says of a user process.
    pub fn process_status(&self, name: &str) -> Value {
        let status = self.status();
        let rows = status["workers"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("no process {name}: {status}"))
            .clone()
    }

    /// Every process of the server.
    pub fn processes(&self) -> Vec<u32> {
        process::with_environment(RUN, &self.run)
    }

    /// Every process of the server with its title and memory.
    pub fn memory(&self) -> Vec<(String, Memory)> {
        let titled = |pid| Some((process::title(pid)?, Memory::of(pid)));
        self.processes().into_iter().filter_map(titled).collect()
    }

    /// Sends the manager a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(
            process::signal(self.manager(), signal),
            "the manager is gone"
        );
    }

    /// What `status --json` says.
    pub fn status(&self) -> Value {
        let ended = self.control(&["status", "--json"]);
        assert_eq!(ended.code, Some(0), "status: {ended:?}");
        serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("status: {e}: {ended:?}"))
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.status()["totals"]["connections"]
            .as_u64()
            .expect("a number")
    }

    /// Events given to workers since the start.
    pub fn events(&self) -> u64 {
        self.status()["totals"]["events"]
            .as_u64()
            .expect("a number")
    }

    /// Events that handlers of workers have begun and not finished. A worker whose handler blocks
    /// does not tell.
    pub fn in_flight(&self) -> u64 {
        let status = self.status();
        let workers = status["workers"].as_array().expect("a list").iter();
        let of_role = workers.filter(|worker| worker["role"] == "worker");
        of_role
            .map(|worker| worker["in_flight"].as_u64().expect("a number"))
            .sum()
    }

    /// Tasks that were submitted and neither wait nor have ended.
    pub fn tasks_running(&self) -> u64 {
        let totals = &self.status()["totals"];
        let count = |name: &str| totals[name].as_u64().expect("a number");
        // The counters are not read at one moment.
        count("tasks_submitted")
            .saturating_sub(count("tasks_queued"))
            .saturating_sub(count("tasks_finished") + count("tasks_failed"))
    }

    /// Reloads and waits for the end of it.
    pub fn reload(&self) {
        let ended = self.control(&["reload"]);
        assert_eq!(ended.code, Some(0), "reload: {ended:?}");
    }

    /// Runs a subcommand of the program against this server.
    pub fn control(&self, arguments: &[&str]) -> Ended {
        let program = &self.spec.program;
        run_to_end(
            self.spec
                .command(program, arguments, self.home.path(), "control"),
        )
    }

    /// Puts another program in the place of the running one, by rename as an installer does.
    pub fn replace_program(&self, program: impl AsRef<Path>) {
        let new = self.home.path().join("program.new");
        fs::copy(program, &new).expect("copy the program");
        fs::rename(new, self.home.path().join(PROGRAM)).expect("replace the program");
    }

    /// Removes the program's file.
    pub fn remove_program(&self) {
        fs::remove_file(self.home.path().join(PROGRAM)).expect("remove the program");
    }

    /// Stops the server gracefully and checks that nothing of it is left.
    ///
    /// The clients of this thread are closed first: the server would wait for them to do so.
    pub fn stop(mut self) {
        tcp::close_all();
        let ended = self.control(&["stop"]);
        assert_eq!(ended.code, Some(0), "stop: {ended:?}");
        self.expect_exit(0);
    }

    /// Waits for the manager's exit with this code and checks that nothing of the server is left.
    pub fn expect_exit(&mut self, code: i32) {
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(code), "the manager ended with {status}");
        self.expect_nothing_left();
    }

    /// Waits for the end of the manager.
    pub fn wait_exit(&mut self) -> ExitStatus {
        wait_for("the manager to end", || {
            self.child().try_wait().expect("wait")
        })
    }

    /// Checks that no process of the server and none of its files is left.
    pub fn expect_nothing_left(&self) {
        assert_eq!(left_after(&self.run), [0; 0], "processes are left");
        let ours = [CONFIG, PROGRAM, OUT, LOG];
        let left: Vec<_> = fs::read_dir(self.home.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| !ours.iter().any(|our| name == our))
            .collect();
        assert!(left.is_empty(), "files are left: {left:?}");
    }

    /// The pid file.
    pub fn pid_file(&self) -> PathBuf {
        self.spec
            .pid_file
            .clone()
            .unwrap_or_else(|| self.home.path().join(PID_FILE))
    }

    /// A directory that goes with the server.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join(LOG)).unwrap_or_default()
    }

    /// Waits until the log says this.
    pub fn expect_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || {
            self.log().contains(text)
        });
    }

    /// Its program.
    pub fn program(&self) -> PathBuf {
        self.home.path().join(PROGRAM)
    }

    /// The settings that it was started with.
    pub fn config_file(&self) -> String {
        self.home.path().join(CONFIG).display().to_string()
    }

    /// Starts the server again, after its manager has ended.
    pub fn start_again(mut self) -> Server {
        self.wait_exit();
        self.spawn();
        self
    }

    /// Processes whose title is `gannet: ROLE NUMBER`, or that with ` (NAME)` behind it, by number.
    fn titled(&self, role: &str) -> Vec<(u16, u32)> {
        let of = |pid| {
            let title = process::title(pid)?;
            let what = title.strip_prefix("gannet: ")?;
            let what = what.split_once(" (").map_or(what, |(what, _)| what);
            match what.strip_prefix(role)?.trim_start() {
                "" => Some((0, pid)),
                number => Some((number.parse().ok()?, pid)),
            }
        };
        let mut found: Vec<_> = self.processes().into_iter().filter_map(of).collect();
        found.sort_unstable();
        found
    }

    /// The addresses in the `listening on tcp://127.0.0.1:9501` lines of the output.
    fn listening(&self) -> Vec<String> {
        let out = fs::read_to_string(self.home.path().join(OUT)).unwrap_or_default();
        let whole = &out[..out.rfind('\n').map_or(0, |end| end + 1)];
        let address = |line: &str| {
            let (_, address) = line.split_once("listening on ")?;
            let address = address.split_once("://").map_or(address, |(_, bare)| bare);
            Some(address.trim().to_owned())
        };
        whole.lines().filter_map(address).collect()
    }
}

impl Server {
    /// Starts the manager and waits until the server listens.
    fn spawn(&mut self) {
        let home = self.home.path();
        let file = |name| File::create(home.join(name)).expect("a file");
        let manager = self
            .spec
            .command(&home.join(PROGRAM), &["start"], home, &self.run)
            .stdout(file(OUT))
            .stderr(match self.spec.unread_log {
                true => Stdio::piped(),
                false => file(LOG).into(),
            })
            .spawn()
            .expect("start the program");
        self.manager = Some(manager);
        self.addresses = wait_for("the server to listen", || {
            if let Some(status) = self.child().try_wait().expect("wait") {
                panic!("the server ended with {status}");
            }
            let listening = self.listening();
            (listening.len() == self.spec.listeners.len()).then_some(listening)
        });
    }

    fn child(&mut self) -> &mut Child {
        self.manager.as_mut().expect("started")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the end of the server's log\n{}\n---", last.join("\n"));
        }
        // The manager first, or it would start again what dies.
        if let Some(mut manager) = self.manager.take() {
            let _ = manager.kill();
            let _ = manager.wait();
        }
        for pid in self.processes() {
            process::kill(pid);
        }
    }
}

/// What is still there of a run after its processes had time to end.
fn left_after(run: &str) -> Vec<u32> {
    // The children see the end of the manager a moment after everyone else.
    let begin = Instant::now();
    loop {
        let left = process::with_environment(RUN, run);
        if left.is_empty() || begin.elapsed() > DEADLINE {
            return left;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The rows in what `clients --json` prints.
pub fn rows(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"))
}

fn run_to_end(mut command: Command) -> Ended {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the program");
    // Its output is a few lines: the pipes hold it until it has ended.
    wait_for(&format!("the end of {command:?}"), || {
        child.try_wait().expect("wait")
    });
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("its output");
    assert!(status.signal().is_none(), "{command:?} ended with {status}");
    Ended {
        code: status.code(),
        out: String::from_utf8(stdout).expect("output in UTF-8"),
        err: String::from_utf8(stderr).expect("errors in UTF-8"),
    }
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Environment variable that says which sockets are passed: see [`Spec::launched_by`].
pub const LAUNCH: &str = "LAUNCH";
/// Environment variable that marks the processes of one run.
const RUN: &str = "TEST_RUN";
const CONFIG: &str = "settings.toml";
const PROGRAM: &str = "program";
const PID_FILE: &str = "server.pid";
const OUT: &str = "out";
const LOG: &str = "log";
