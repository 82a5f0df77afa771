//! The log: nothing is lost, nothing waits for it, and it says what happened.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use gannet_tests::{
    process::Signal,
    server::{Server, Spec},
    wait::{wait_for, wait_until},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::behave;

/// A server with a log file in a directory of its own.
struct Logged {
    directory: TempDir,
    spec: Spec,
}

impl Logged {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log");
        let spec = behave()
            .set("log_format", "json")
            .set("log_file", file.to_str().unwrap())
            .set("log_repeat_limit", 0)
            .websocket();
        Logged { directory, spec }
    }

    fn set(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.spec = self.spec.set(name, value);
        self
    }

    fn start(&self) -> Server {
        self.spec.clone().start()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// All files of the log, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.rotate_left(1);
        files
    }

    /// Every line, and each is JSON with what every line has.
    fn lines(&self) -> Vec<Value> {
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
        let text: String = self.files().iter().map(read).collect();
        // The last one may be on its way.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let parse = |line: &str| -> Value {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            for name in ["time", "level", "role", "target", "message"] {
                assert!(line[name].is_string(), "{name}: {line}");
            }
            assert!(line["id"].is_u64() && line["pid"].is_u64(), "{line}");
            line
        };
        text[..whole].lines().map(parse).collect()
    }

    fn messages(&self) -> Vec<String> {
        let message = |line: &Value| line["message"].as_str().unwrap().to_owned();
        self.lines().iter().map(message).collect()
    }

    /// The first line whose message has this in it.
    fn expect(&self, text: &str) -> Value {
        let has = |line: &Value| line["message"].as_str().unwrap().contains(text);
        wait_for(&format!("{text:?} in the log"), || {
            self.lines().into_iter().find(has)
        })
    }
}

/// Has handlers log and print numbers while `meanwhile` happens, again and again; how many.
fn under_load(server: &Server, times: usize, mut meanwhile: impl FnMut(usize)) -> usize {
    const CLIENTS: usize = 4;
    const LEAST: usize = 500;
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let load = |client: usize| {
            let mut conn = server.websocket();
            let mut count = 0;
            while count < LEAST || !done.load(std::sync::atomic::Ordering::Relaxed) {
                let number = count * CLIENTS + client;
                let how = ["print", "log info", "complain"][count % 3];
                assert_eq!(conn.ask(format!("{how} number {number}")), "done");
                count += 1;
            }
            count
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || load(client)))
            .collect();
        (0..times).for_each(&mut meanwhile);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    })
}

/// Each number that was written under load stands there once.
fn expect_all(logged: &Logged, count: usize) {
    let mut seen = BTreeMap::new();
    for message in logged.messages() {
        if let Some(number) = message.strip_prefix("number ") {
            *seen.entry(number.parse::<usize>().unwrap()).or_insert(0) += 1;
        }
    }
    let twice: Vec<_> = seen.iter().filter(|&(_, times)| *times != 1).collect();
    assert!(twice.is_empty(), "not once: {twice:?}");
    assert_eq!(seen.len(), count);
}

#[test]
fn a_file_moved_away_and_hup_under_load_lose_no_line() {
    let logged = Logged::new();
    let server = logged.start();
    let count = under_load(&server, 20, |turn| {
        let file = logged.file();
        fs::rename(
            &file,
            logged.directory.path().join(format!("log.{turn:02}")),
        )
        .unwrap();
        server.signal(Signal::HUP);
        wait_until("the new file", || file.exists());
    });
    server.stop();
    assert_eq!(logged.files().len(), 21);
    expect_all(&logged, count);
}

#[test]
fn rotation_by_size_under_load_loses_no_line() {
    let logged = Logged::new()
        .set("log_rotate_size", 64 << 10)
        .set("log_keep", 0);
    let server = logged.start();
    let count = under_load(&server, 1, |_| {
        wait_until("several files", || logged.files().len() > 5);
    });
    server.stop();
    expect_all(&logged, count);
    let files = logged.files();
    let sizes = files.iter().map(|path| fs::metadata(path).unwrap().len());
    assert!(sizes.max().unwrap() <= 64 << 10);
    let mode = fs::metadata(&files[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "for everybody");
}

#[test]
fn a_file_of_the_hour_before_is_put_aside_with_the_first_line() {
    let logged = Logged::new().set("log_rotate_every", "hour");
    let before = fs::File::create(logged.file()).unwrap();
    fs::write(logged.file(), "before\n").unwrap();
    let hour = Duration::from_secs(3600);
    before.set_modified(SystemTime::now() - hour).unwrap();
    let server = logged.start();
    assert_eq!(server.websocket().ask("log info after"), "done");
    wait_until("the change", || logged.files().len() == 2);
    server.stop();
    let [old, new] = &logged.files()[..] else {
        panic!("{:?}", logged.files());
    };
    assert_eq!(fs::read_to_string(old).unwrap(), "before\n");
    assert!(!fs::read_to_string(new).unwrap().contains("before"));
}

#[test]
fn what_was_written_before_a_sigkill_is_in_the_log_with_who_wrote_it() {
    let logged = Logged::new();
    let server = logged.start();
    let (worker, pid) = server.workers()[0];
    let mut client = server.websocket();
    while client.ask("worker") != worker.to_string() {
        client = server.websocket();
    }
    client.send("print-and-die last words");
    logged.expect("ended: signal 9 (SIGKILL)");
    let messages = logged.messages();
    let at = |text: &str| {
        messages
            .iter()
            .position(|message| message.contains(text))
            .unwrap()
    };
    let end = at(&format!("(pid {pid}) ended"));
    for text in ["last words", "and logged last words", "half of last words"] {
        let line = logged.expect(text);
        assert_eq!(
            (&line["role"], &line["id"]),
            (&"worker".into(), &worker.into())
        );
        assert_eq!(line["pid"], pid);
        assert!(at(text) < end, "{text}");
    }
    assert_eq!(logged.expect("half of")["target"], "stdout");
    server.stop();
}

#[test]
fn a_full_disk_stops_nothing_and_is_told_when_there_is_room() {
    let logged = Logged::new();
    let server = logged.start();
    let mut client = server.websocket();
    let pid = Pid::from_raw(server.manager().cast_signed());
    let limit = |current| {
        let maximum = None;
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    let len = fs::metadata(logged.file()).unwrap().len();
    limit(Some(len + 1000));
    for n in 0..50 {
        assert_eq!(client.ask(format!("log info number {n}")), "done");
    }
    wait_until("lost lines", || server.total("log_lost") > 0);
    // What is there is whole.
    assert!(logged.lines().len() < 50);
    assert!(fs::metadata(logged.file()).unwrap().len() <= len + 1000);
    // Somebody hears of it though the log does not.
    server.expect_log("cannot write the log file");
    limit(None);
    wait_until("a line", || {
        client.ask("log info there is room");
        logged.messages().iter().any(|text| text == "there is room")
    });
    let told = logged.expect("lines are missing here");
    assert_eq!(told["role"], "manager");
    server.stop();
}

#[test]
fn panics_and_aborts_have_a_backtrace() {
    let logged = Logged::new();
    let server = logged.start();
    let mut client = server.websocket();
    client.send("panic oh dear");
    let panic = logged.expect("as asked: oh dear");
    assert!(panic["message"].as_str().unwrap().contains("commands.rs"));
    for line in [panic, {
        let mut client = server.websocket();
        client.send("abort-once");
        logged.expect("aborted")
    }] {
        let backtrace = line["backtrace"].as_str().unwrap_or_default();
        assert!(backtrace.contains("behave"), "{line}");
        assert_eq!(line["role"], "worker");
    }
    logged.expect("ended: signal 6 (SIGABRT)");
    server.stop();
}

#[test]
fn hup_changes_the_level_of_all_that_live() {
    let server = behave().set("task_workers", 1).websocket().start();
    let mut client = server.websocket();
    assert_eq!(client.ask("log debug too quiet"), "done");
    let config = server.config_file();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!("log_level = \"info,gannet_tests=debug\"\n{text}"),
    )
    .unwrap();
    server.signal(Signal::HUP);
    wait_until("the new level", || {
        assert_eq!(client.ask("log debug loud enough"), "done");
        server.log().contains("loud enough")
    });
    assert!(!server.log().contains("too quiet"));
    // Those that are started later have it as well.
    server.reload();
    assert_eq!(client.ask("log debug from the next"), "done");
    server.expect_log("from the next");
    server.stop();
}

#[test]
fn a_reader_of_the_log_that_hangs_does_not_hang_the_server() {
    let mut server = behave()
        .set("log_queue", 256 << 10)
        .set("log_wait_ms", 20)
        .set("log_repeat_limit", 0)
        .websocket()
        .unread_log()
        .start();
    let mut client = server.websocket();
    let text = "x".repeat(1000);
    for word in ["log-many", "print-many"] {
        assert_eq!(client.ask(format!("{word} 2000 {text}")), "done");
    }
    wait_until("lost lines", || server.total("log_lost") > 0);
    assert_eq!(client.ask("echo alive"), "alive");
    server.reload();
    let mut another = server.websocket();
    assert_eq!(another.ask("echo alive"), "alive");
    another.close(1000);
    client.close(1000);
    server.signal(Signal::TERM);
    server.expect_exit(0);
}

#[test]
fn events_that_repeat_are_summed_up_and_the_first_are_not() {
    let logged = Logged::new().set("log_repeat_limit", 10);
    let server = logged.start();
    let mut client = server.websocket();
    assert_eq!(client.ask("log-many 12355 again"), "done");
    let sum = |line: &Value| line["fields"]["repeated"].as_u64();
    // The last of them may be in the next second.
    let count = || -> (u64, u64) {
        let lines = logged.lines();
        let is_one = |line: &&Value| {
            let message = line["message"].as_str().unwrap();
            message.ends_with(" again") && !message.starts_with("repeated")
        };
        let written = lines.iter().filter(is_one).count() as u64;
        (written, lines.iter().filter_map(sum).sum())
    };
    wait_until("all of them", || count().0 + count().1 == 12_355);
    assert!((10..1000).contains(&count().0), "{:?}", count());
    let line = logged.expect("repeated ");
    assert_eq!(
        (&line["role"], &line["level"]),
        (&"worker".into(), &"info".into())
    );
    assert!(logged.messages().iter().any(|text| text == "0 again"));
    server.stop();
}

#[test]
fn a_process_that_ends_tells_of_the_events_that_it_has_only_counted() {
    let logged = Logged::new().set("log_repeat_limit", 1);
    let server = logged.start();
    let mut client = server.websocket();
    // The worker ends within the second in which it has counted them.
    assert_eq!(client.ask("log-many 500 again"), "done");
    client.close(1000);
    server.stop();
    let sum: u64 = (logged.lines().iter())
        .filter_map(|line| line["fields"]["repeated"].as_u64())
        .sum();
    let one = |text: &&String| text.ends_with(" again") && !text.starts_with("repeated");
    let written = logged.messages().iter().filter(one).count() as u64;
    assert_eq!(written + sum, 500);
}

#[test]
fn text_has_role_and_number_on_every_line_and_output_can_be_left_alone() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    let worker = client.ask("worker");
    let pid = client.ask("pid");
    assert_eq!(client.ask("complain dear me"), "done");
    assert_eq!(client.ask("log warn four"), "done");
    server.expect_log(&format!(" WARN worker {worker}[{pid}]: dear me"));
    server.expect_log(&format!(" WARN worker {worker}[{pid}]: four length=4"));
    server.stop();

    let server = behave().set("capture_output", "off").websocket().start();
    assert_eq!(server.websocket().ask("complain dear me"), "done");
    wait_until("the words alone", || {
        server.log().lines().any(|line| line == "dear me")
    });
    server.stop();
}

#[test]
fn why_a_server_did_not_start_is_in_its_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut logged = Logged::new();
    logged.spec = logged.spec.listen("http", &address);
    let ended = logged.spec.clone().run(&["start"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = logged.expect("cannot listen on");
    assert_eq!(
        (&line["level"], &line["role"]),
        (&"error".into(), &"manager".into())
    );
}

#[test]
fn a_log_file_that_cannot_be_opened_is_refused_before_anything_runs() {
    let with = |file: &Path| behave().set("log_file", file.to_str().unwrap()).tcp();
    let ended = with(Path::new("/no/such/directory/log")).run(&["start"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("`log_file`") && ended.err.contains("make its directory"));
    let ended = behave()
        .set("log_rotate_size", 1 << 20)
        .tcp()
        .run(&["start"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}
