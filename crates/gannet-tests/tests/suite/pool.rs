//! Pools of processes without a server.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use gannet_tests::{
    process::{self, Memory, Signal},
    wait::wait_until,
};

/// A program that runs, with everything that it starts.
struct Running {
    child: Option<Child>,
    run: String,
}

impl Running {
    fn start(scenario: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let run = format!("pool-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let child = Command::new(env!("CARGO_BIN_EXE_pool"))
            .arg(scenario)
            .env(RUN, &run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running {
            child: Some(child),
            run,
        }
    }

    fn processes(&self) -> Vec<u32> {
        process::with_environment(RUN, &self.run)
    }

    /// What it has said when it has ended, and nothing of it is left.
    fn output(mut self) -> Output {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        wait_until("nothing to be left", || self.processes().is_empty());
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.processes() {
            process::kill(pid);
        }
    }
}

/// Standard output of a scenario that ends well.
fn run(scenario: &str) -> String {
    let output = Running::start(scenario).output();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of one that does not.
fn fail(scenario: &str) -> String {
    let output = Running::start(scenario).output();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn messages_go_both_ways_in_order() {
    let ended = "0 exited: exit code 0, restarts: false";
    let out = run("talk");
    let mut lines: Vec<_> = out.lines().collect();
    lines[3..5].sort_unstable();
    let no_child = "the pool `pool` has no child 2: they are 0 to 1";
    let other = ended.replace('0', "1").replace("code 1", "code 0");
    assert_eq!(
        lines,
        ["0: true", "1: true", no_child, ended, &other, "the end"]
    );
}

#[test]
fn a_child_that_ends_is_started_again_and_its_end_is_told() {
    let expected = [
        "0 exited: signal 6 (SIGABRT), restarts: true",
        "0: back",
        "0 exited: as asked, restarts: true",
        "0: back",
        "0 exited: exit code 0, restarts: true",
        "0: back",
        "1: unharmed",
    ];
    assert_eq!(run("restart").lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_panic_ends_a_child_whatever_its_threads_do() {
    assert_eq!(
        run("panic").lines().collect::<Vec<_>>(),
        ["0 exited: panic: as asked, restarts: true"]
    );
}

#[test]
fn the_end_of_a_child_is_told_though_what_it_started_holds_its_stream() {
    let mut running = Running::start("helper");
    let out = running.child.as_mut().unwrap().stdout.take().unwrap();
    let expected = [
        "0: number 0",
        "0: number 1",
        "0: number 4",
        "0 exited: signal 6 (SIGABRT), restarts: true",
        "0: back",
        "0 exited: exit code 0, restarts: false",
        "the end",
    ];
    let lines = BufReader::new(out).lines().map(Result::unwrap);
    assert_eq!(lines.take(expected.len()).collect::<Vec<_>>(), expected);
}

#[test]
fn a_child_that_is_done_stays_so() {
    let expected = [
        "0 exited: as asked, restarts: true",
        "0 exited: exit code 0, restarts: false",
        "child 0 of the pool `pool` has ended or is to end",
        "1 exited: exit code 0, restarts: false",
        "true",
    ];
    assert_eq!(run("policies").lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_child_that_does_not_read_holds_back_who_sends_to_it() {
    let out = run("back-pressure");
    let lines: Vec<_> = out.lines().collect();
    let sent: usize = lines[0].strip_prefix("sent ").unwrap().parse().unwrap();
    // The queue of 4 and what the socket holds, of 100,000 bytes each.
    assert!((4..20).contains(&sent), "{sent}");
    assert_eq!(lines[1..], ["1: unharmed", "0: went on", "all answered"]);
}

#[test]
fn a_parent_that_does_not_receive_holds_back_its_children() {
    let mut running = Running::start("flood");
    let child = running.child.as_mut().unwrap();
    let errors = BufReader::new(child.stderr.take().unwrap());
    let mut waits = errors
        .lines()
        .map(Result::unwrap)
        .filter_map(|line| line.strip_prefix("waits after ")?.parse::<usize>().ok());
    for _ in 0..2 {
        let sent = waits.next().unwrap();
        // Its own queue of 4, the parent's, and what the socket holds.
        assert!(sent < 40, "{sent}");
    }
    let memory = Memory::of(child.id()).resident;
    assert!(memory < 64 << 20, "{memory}");
    child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let output = running.output();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"received true\n");
}

#[test]
fn a_stop_lets_children_finish_what_they_were_sent() {
    let out = run("stop");
    let of = |child: &str| -> Vec<_> {
        let lines = out.lines().filter(|line| line.starts_with(child));
        lines.map(|line| &line[1..]).collect()
    };
    let mut expected = vec![": slept".to_owned()];
    expected.extend((0..10).map(|n| format!(": number {}", n * n)));
    expected.push(" exited: exit code 0, restarts: false".to_owned());
    assert_eq!(of("0"), expected);
    let expected = [
        ": lingering",
        ": lingered",
        " exited: exit code 0, restarts: false",
    ];
    assert_eq!(of("1"), expected);
    assert!(out.ends_with("the end\n"));
}

#[test]
fn a_child_that_does_not_end_is_killed() {
    assert_eq!(
        run("deaf"),
        "0 exited: it did not end within `max_wait` and was killed, restarts: false\nthe end\n"
    );
}

#[test]
fn output_comes_line_by_line_and_whole_before_the_end() {
    let out = run("lines");
    let mut lines: Vec<_> = out.lines().collect();
    // A line and a message come on two ways.
    lines[..3].sort_unstable();
    lines[3..5].sort_unstable();
    let expected = [
        "0 wrote: hello",
        "0 wrote: parent",
        "0: printed",
        "0 wrote: last words",
        "0: printed",
        "0 exited: signal 6 (SIGABRT), restarts: true",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_message_too_large_is_refused_where_it_is_sent() {
    let out = run("large");
    let too_large = "larger than `max_message` = 10000";
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[0].starts_with("parent: ") && lines[0].contains(too_large),
        "{out}"
    );
    assert!(
        lines[1].starts_with("0: ") && lines[1].contains(too_large),
        "{out}"
    );
    assert_eq!(lines[2..], ["0: sent"]);
}

#[test]
fn children_die_with_their_parent() {
    let mut running = Running::start("wait");
    let child = running.child.as_mut().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 0..2 {
        let line = lines.next().unwrap().unwrap();
        let pid = line
            .strip_prefix(&format!("{number}: "))
            .unwrap()
            .parse()
            .unwrap();
        let title = process::title(pid).unwrap();
        assert_eq!(title, format!("gannet: child pool {number}"));
    }
    process::signal(child.id(), Signal::KILL);
    child.wait().unwrap();
    wait_until("the end of the children", || running.processes().is_empty());
}

#[test]
fn misuse_is_explained() {
    let error = fail("twice");
    assert!(error.contains("`pool` was defined twice"), "{error}");
    let error = fail("late");
    assert!(error.contains("define all pools"), "{error}");
    let error = fail("never-comes");
    assert!(error.contains("before it came to Pool::define"), "{error}");
    let error = fail("numbers");
    assert!(
        error.contains("`processes` = 0: must be 1 to 1024"),
        "{error}"
    );
}

/// Environment variable that marks the processes of one run.
const RUN: &str = "TEST_RUN";
