//! User processes of a server.

use std::fs;

use gannet_tests::{
    process::{self, Signal},
    server::{Server, Spec},
    wait::{wait_for, wait_until},
    websocket::WebSocket,
};
use tempfile::NamedTempFile;

use crate::behave;

/// One worker and these user processes.
fn with(processes: &str) -> Spec {
    behave()
        .set("workers", 1)
        .env("BEHAVE_PROCESSES", processes)
        .websocket()
}

/// The same, noting what runs.
fn noting(spec: Spec) -> (Server, NamedTempFile) {
    let runs = NamedTempFile::new().unwrap();
    let server = spec
        .env("BEHAVE_RUNS", runs.path().to_str().unwrap())
        .start();
    (server, runs)
}

fn notes(runs: &NamedTempFile) -> String {
    fs::read_to_string(runs.path()).unwrap()
}

/// What a process answers; it may be told before it begins.
fn tell(client: &mut WebSocket, name: &str, command: &str) -> String {
    client.ask(format!("tell {name} {command}"))
}

#[test]
fn a_process_can_do_what_a_worker_can() {
    let server = with("agent always inherit").set("task_workers", 1).start();
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "echo hello"), "hello");
    assert_eq!(tell(&mut client, "agent", "id"), "2");
    assert_eq!(
        tell(&mut client, "agent", "task echo 5"),
        client.ask("task echo 5")
    );
    assert_eq!(tell(&mut client, "agent", "connections"), "1");
    assert_eq!(client.ask("sub news"), "ok");
    assert_eq!(tell(&mut client, "agent", "publish news extra"), "extra");
    assert_eq!(client.ask("sub piped"), "ok");
    client.send("tell agent pipe 0 hello worker");
    let mut answers = [client.text(), client.text()];
    answers.sort_unstable();
    assert_eq!(answers, ["piped", "piped 2 0 hello worker"]);
    assert!(
        tell(&mut client, "agent", "task-detach sleep 1 x")
            .parse::<u64>()
            .is_ok()
    );
    server.stop();
}

#[test]
fn ps_and_status_name_a_process() {
    let server = with("agent always inherit;other never inherit").start();
    let mut client = server.websocket();
    let pid: u32 = tell(&mut client, "agent", "pid").parse().unwrap();
    let title = process::title(pid).unwrap();
    assert!(title.starts_with("gannet: process agent"), "{title}");
    let row = server.process_status("agent");
    assert_eq!(row["role"], "process");
    assert_eq!(row["state"], "ready");
    assert_eq!(row["pid"], pid);
    let table = server.control(&["status"]).out;
    assert!(
        table.contains("process agent") && table.contains("process other"),
        "{table}"
    );
    server.stop();
}

#[test]
fn what_cannot_be_added_is_refused_before_the_start() {
    let refused = |processes: &str, why: &str| {
        let ended = with(processes).run(&["start"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(why), "{ended:?}");
    };
    refused("a always inherit;a always inherit", "added twice");
    refused("a/b always inherit", "is no name for a process");
    refused("a always to b", "there is no process `b`");
    refused("a always worker 7", "there is no worker 7");
}

#[test]
fn policies_decide_who_is_restarted() {
    let processes = "a always inherit;f on-failure inherit;n never inherit";
    let server = with(processes).start();
    let mut client = server.websocket();
    let state = |name: &str| server.process_status(name)["state"].clone();
    for name in ["a", "f", "n"] {
        let pid = tell(&mut client, name, "pid");
        client.send(format!("tell {name} return"));
        wait_until("its end", || !process::alive(pid.parse().unwrap()));
        match name {
            "a" => assert_ne!(tell(&mut client, name, "pid"), pid),
            _ => wait_until("it to stay ended", || state(name) == "ended"),
        }
    }
    assert_eq!(server.process_status("a")["restarts"], 1);
    server.stop();

    let server = with(processes).start();
    let mut client = server.websocket();
    for name in ["a", "f", "n"] {
        let pid = tell(&mut client, name, "pid");
        client.send(format!("tell {name} error why {name}"));
        wait_until("its end", || !process::alive(pid.parse().unwrap()));
        match name {
            "n" => wait_until("it to stay ended", || {
                server.process_status(name)["state"] == "ended"
            }),
            _ => assert_ne!(tell(&mut client, name, "pid"), pid),
        }
        let last = server.process_status(name)["last_exit"].clone();
        assert!(
            last.as_str()
                .unwrap()
                .contains(&format!("as asked: why {name}")),
            "{last}"
        );
    }
    server.stop();
}

#[test]
fn messages_outlive_a_killed_process_in_order_and_without_loss() {
    let (server, runs) = noting(with("agent always inherit"));
    let mut client = server.websocket();
    tell(&mut client, "agent", "echo begun");
    let count = 2_000;
    for n in 0..count {
        client.send(format!("tell agent note {n}"));
        if n % 400 == 200 {
            let pid = wait_for("the process", || server.process("agent"));
            assert!(process::kill(pid));
        }
    }
    // Every message is answered, in order; those that a process died with perhaps twice.
    let mut next = 0;
    while next < count {
        let answer = client.text();
        if answer == "begun" {
            continue;
        }
        let answer: u32 = answer.parse().unwrap();
        assert!(answer <= next, "{answer} before {next}");
        next = next.max(answer + 1);
    }
    let restarts = server.process_status("agent")["restarts"].as_u64().unwrap();
    assert!(restarts >= 1, "nobody was killed");
    assert_eq!(server.status()["totals"]["dropped"], 0);
    let runs = notes(&runs);
    for n in 0..count {
        assert!(
            runs.lines().any(|line| line == n.to_string()),
            "{n} was lost"
        );
    }
    server.stop();
}

#[test]
fn a_message_comes_again_when_its_process_died_of_it() {
    let server = with("agent always inherit").start();
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "redelivered"), "false");
    assert_eq!(tell(&mut client, "agent", "abort-once 1"), "survived 1");
    assert_eq!(tell(&mut client, "agent", "panic-once 2"), "survived 2");
    let last = server.process_status("agent")["last_exit"].clone();
    assert_eq!(last, "panic: as asked");
    server.stop();
}

#[test]
fn a_message_that_three_processes_died_of_is_given_up() {
    let (server, runs) = noting(with("agent always inherit"));
    let mut client = server.websocket();
    client.send("tell agent abort");
    assert_eq!(tell(&mut client, "agent", "echo alive"), "alive");
    assert_eq!(notes(&runs).matches("abort").count(), 3);
    wait_until("it to be counted", || {
        server.status()["totals"]["dropped"] == 1
    });
    server.stop();
}

#[test]
fn reload_runs_the_new_code_after_the_old_has_ended() {
    let (server, runs) = noting(with("agent always inherit"));
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "version"), "1");
    server.replace_program(env!("CARGO_BIN_EXE_behave_v2"));
    // What it was told before it is asked to end is done by the old one.
    client.send("tell agent sleep 200");
    server.reload();
    assert_eq!(client.text(), "slept");
    assert_eq!(tell(&mut client, "agent", "version"), "2");
    assert_eq!(tell(&mut client, "agent", "generation"), "1");
    let runs = notes(&runs);
    let of_agent: Vec<_> = runs
        .lines()
        .filter(|line| line.ends_with("agent"))
        .collect();
    assert_eq!(of_agent, ["begin agent", "end agent", "begin agent"]);
    assert_eq!(server.process_status("agent")["restarts"], 0);
    server.stop();
}

#[test]
fn reload_onto_code_without_the_process_keeps_the_old_one() {
    let server = with("agent always inherit").start();
    let mut client = server.websocket();
    let pid = tell(&mut client, "agent", "pid");
    server.replace_program(env!("CARGO_BIN_EXE_no_processes"));
    let ended = server.control(&["reload"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("has no process `agent`"), "{ended:?}");
    assert_eq!(tell(&mut client, "agent", "pid"), pid);
    server.stop();
}

#[test]
fn a_process_that_ends_by_itself_is_told_of_the_stop() {
    let (mut server, runs) = noting(with("agent always inherit"));
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "linger"), "lingering");
    drop(client);
    server.signal(Signal::TERM);
    server.expect_exit(0);
    assert!(
        notes(&runs).contains("lingered\nend agent\n"),
        "{}",
        notes(&runs)
    );
}

#[test]
fn stop_waits_for_a_process_and_then_kills_it() {
    let mut server = with("agent always inherit")
        .set("max_wait_time_ms", 1_500)
        .start();
    let mut client = server.websocket();
    let pid: u32 = tell(&mut client, "agent", "pid").parse().unwrap();
    assert_eq!(tell(&mut client, "agent", "deaf"), "what?");
    drop(client);
    let begin = std::time::Instant::now();
    server.signal(Signal::TERM);
    server.wait_exit();
    assert!(
        begin.elapsed().as_millis() >= 1_500,
        "it was not waited for"
    );
    assert!(!process::alive(pid));
    server.expect_exit(0);
}

#[test]
fn stop_does_not_wait_for_messages_that_nobody_will_handle() {
    let mut server = with("agent never inherit").start();
    let mut client = server.websocket();
    client.send("tell agent return");
    wait_until("its end", || {
        server.process_status("agent")["state"] == "ended"
    });
    for n in 0..3 {
        client.send(format!("tell agent echo {n}"));
    }
    assert_eq!(client.ask("echo sent"), "sent");
    drop(client);
    let begin = std::time::Instant::now();
    server.signal(Signal::TERM);
    server.expect_exit(0);
    assert!(
        begin.elapsed().as_secs() < 20,
        "it waited for max_wait_time_ms"
    );
    server.expect_log("3 messages to the process agent were not handled");
}

#[test]
fn reload_kills_a_process_that_does_not_end() {
    let server = with("agent always inherit")
        .set("max_wait_time_ms", 500)
        .start();
    let mut client = server.websocket();
    let pid = tell(&mut client, "agent", "pid");
    assert_eq!(tell(&mut client, "agent", "deaf"), "what?");
    server.reload();
    // The message that it was at comes again, so the new one is deaf as well.
    assert_eq!(client.text(), "what?");
    assert_ne!(server.process_status("agent")["pid"].to_string(), pid);
    // Nobody waits for what no process will handle.
    server.stop();
}

#[test]
fn a_crash_loop_backs_off_and_disturbs_nobody() {
    let (server, runs) = noting(with("agent always inherit").env("BEHAVE_PROCESS", "fails"));
    let mut client = server.websocket();
    wait_until("five tries", || notes(&runs).matches("begin").count() >= 5);
    assert_eq!(client.ask("echo unharmed"), "unharmed");
    let state = || server.process_status("agent");
    // 400 ms and more after the fifth.
    wait_until("back-off", || state()["state"] == "waiting");
    let last = state()["last_exit"].clone();
    assert_eq!(last, "this process fails at once");
    server.expect_log("its successor starts in 400ms");
    server.stop();
}

#[test]
fn output_goes_into_the_log_with_the_name_of_the_process() {
    let server = with("agent always log").start();
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "print hello from me"), "printed");
    expect_printed(&server, "hello from me");
    assert_eq!(tell(&mut client, "agent", "complain dear me"), "complained");
    expect_printed(&server, "dear me");
    // A line of 20,000 bytes is cut.
    assert_eq!(tell(&mut client, "agent", "lines 1 20000"), "printed");
    expect_printed(&server, &"l".repeat(20_000 - 2 * (8 << 10)));
    // What was written just before a crash is there as well.
    client.send("tell agent abort-once x");
    assert_eq!(client.text(), "survived x");
    assert_eq!(tell(&mut client, "agent", "print after"), "printed");
    expect_printed(&server, "after");
    server.stop();
}

#[test]
fn a_flood_of_output_is_logged_and_slows_nobody_else() {
    let server = with("agent always log;other always inherit").start();
    let mut client = server.websocket();
    // Much more than the pipe holds.
    client.send("tell agent lines 600 1000");
    let mut another = server.websocket();
    for n in 0..50 {
        assert_eq!(another.ask(format!("echo {n}")), n.to_string());
        assert_eq!(
            tell(&mut another, "other", &format!("echo {n}")),
            n.to_string()
        );
    }
    assert_eq!(client.text(), "printed");
    let line = "l".repeat(1000);
    let count = || {
        printed(&server)
            .iter()
            .filter(|&text| *text == line)
            .count()
    };
    wait_until("every line", || count() == 600);
    server.stop();
}

#[test]
fn output_goes_to_another_process_or_to_a_worker() {
    let server =
        with("agent always to listener;listener always inherit;to-worker always worker 0").start();
    let mut client = server.websocket();
    assert_eq!(client.ask("sub heard"), "ok");
    assert_eq!(client.ask("sub piped"), "ok");
    client.send("tell agent print one two");
    let mut answers = [client.text(), client.text()];
    answers.sort_unstable();
    assert_eq!(answers, ["listener heard from 1: one two", "printed"]);
    client.send("tell to-worker print three");
    let mut answers = [client.text(), client.text()];
    answers.sort_unstable();
    assert_eq!(answers, ["piped 3 0 three", "printed"]);
    server.stop();
}

#[test]
fn restarts_leave_no_descriptor_in_the_manager() {
    let server = with("agent always log;listener always to agent").start();
    let mut client = server.websocket();
    let count = || process::descriptors(server.manager()).len();
    let all = server.processes().len();
    let round = |client: &mut WebSocket| {
        for name in ["agent", "listener"] {
            assert_eq!(tell(client, name, "abort-once x"), "survived x");
        }
        server.reload();
        assert_eq!(tell(client, "agent", "print x"), "printed");
        // Those that were replaced have a moment more.
        wait_until("the end of the others", || server.processes().len() == all);
    };
    round(&mut client);
    let before = count();
    for _ in 0..3 {
        round(&mut client);
    }
    // Something of the first round may have been closed a moment too late to be left out.
    wait_until("no more descriptors than before", || count() <= before);
    server.stop();
}

#[test]
fn processes_die_with_the_manager() {
    let mut server = with("agent always log").start();
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "echo 1"), "1");
    server.signal(Signal::KILL);
    server.wait_exit();
    wait_until("the end of all", || server.processes().is_empty());
}

#[test]
fn a_process_goes_on_when_the_master_is_replaced() {
    let server = with("agent always inherit").start();
    let mut client = server.websocket();
    let pid = tell(&mut client, "agent", "pid");
    process::kill(server.master());
    wait_until("a new master", || {
        let now = server.status()["master_restarts"] == 1;
        now && WebSocket::try_connect(server.address_of("websocket"), "/", &[]).is_ok()
    });
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "pid"), pid);
    server.stop();
}

#[test]
fn what_a_process_writes_at_the_end_of_the_server_is_logged() {
    let mut server = with("agent always log").start();
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "babble"), "babbling");
    client.close(1000);
    server.signal(Signal::TERM);
    server.expect_exit(0);
    let printed = printed(&server);
    assert!(printed.iter().any(|text| text == "last words"));
    let line = "b".repeat(1000);
    assert_eq!(printed.iter().filter(|&text| *text == line).count(), 600);
}

#[test]
fn a_process_that_writes_for_a_peer_at_the_end_is_not_held_up() {
    let spec = with("agent always to listener;listener always inherit");
    let (mut server, runs) = noting(spec);
    let mut client = server.websocket();
    assert_eq!(tell(&mut client, "agent", "babble"), "babbling");
    client.close(1000);
    server.signal(Signal::TERM);
    server.expect_exit(0);
    assert!(notes(&runs).contains("babbled"), "it was killed");
    // What becomes of the lines is told by the manager, or by the master if it had them when the receiver ended.
    wait_until("the log to say so", || {
        let log = server.log();
        log.contains("had no receiver any more")
            || log.contains("messages to the process listener were not handled")
    });
}

#[test]
fn a_panic_of_a_task_does_not_keep_its_message_for_ever() {
    let server = with("agent always inherit").start();
    let mut client = server.websocket();
    let pid = tell(&mut client, "agent", "pid");
    for _ in 0..3 {
        let answer = tell(&mut client, "agent", "panic-aside");
        assert_eq!(answer, "redelivered false");
    }
    wait_until("the messages to be done", || {
        server.process_status("agent")["in_flight"] == 0
    });
    assert_eq!(tell(&mut client, "agent", "pid"), pid);
    assert_eq!(server.process_status("agent")["errors"], 3);
    server.stop();
}

/// What the process `agent` has printed, as far as it is in the log.
fn printed(server: &Server) -> Vec<String> {
    let of_line = |line: &str| {
        let (_, rest) = line.split_once("process agent[")?;
        Some(rest.split_once("]: ")?.1.to_owned())
    };
    server.log().lines().filter_map(of_line).collect()
}

fn expect_printed(server: &Server, text: &str) {
    wait_until(&format!("{text:?} in the log"), || {
        printed(server).iter().any(|line| line == text)
    });
}
