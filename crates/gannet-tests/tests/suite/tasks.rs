//! Tasks, and messages between workers.

use std::{collections::HashSet, fs};

use gannet::ConnId;
use gannet_tests::{
    gate::Gate,
    process,
    server::{Server, Spec},
    wait::wait_until,
    websocket::{self, Frame, WebSocket},
};

use crate::behave;

#[test]
fn a_task_runs_in_a_task_worker_and_its_result_comes_back() {
    let server = server(2);
    let mut client = server.websocket();
    assert_eq!(client.ask("task echo hello"), "hello");
    assert_eq!(client.ask("task is-task-worker"), "true");
    let pid: u32 = client.ask("task pid").parse().unwrap();
    assert!(
        server
            .task_workers()
            .iter()
            .any(|&(_, task_worker)| task_worker == pid)
    );
    assert_eq!(client.ask("task from"), client.ask("worker"));
    server.stop();
}

#[test]
fn task_ids_count_up() {
    let server = server(1);
    let mut client = server.websocket();
    let ids: Vec<u64> = (0..5)
        .map(|_| client.ask("task id").parse().unwrap())
        .collect();
    assert!(ids.windows(2).all(|two| two[0] < two[1]), "{ids:?}");
    assert_eq!(ids[0], 1);
    server.stop();
}

#[test]
fn a_blocking_task_blocks_no_worker() {
    let server = behave()
        .set("workers", 1)
        .set("task_workers", 1)
        .websocket()
        .start();
    let (mut client, mut other) = (server.websocket(), server.websocket());
    let gate = Gate::shut();
    client.send(format!("task gate {} passed", gate.path()));
    for n in 0..20 {
        assert_eq!(other.ask(format!("echo {n}")), n.to_string());
    }
    gate.open();
    assert_eq!(client.text(), "passed");
    server.stop();
}

#[test]
fn a_task_may_block_for_longer_than_a_handler() {
    let server = spec(1).set("stall_timeout_ms", 300).start();
    let mut client = server.websocket();
    assert_eq!(client.ask("task sleep 1500 slept"), "slept");
    assert_eq!(client.ask("task attempts"), "0");
    server.stop();
}

#[test]
fn tasks_go_to_idle_task_workers() {
    let server = server(2);
    let (mut busy, mut client) = (server.websocket(), server.websocket());
    let gate = Gate::shut();
    busy.send(format!("task gate {} passed", gate.path()));
    wait_until("the task to run", || server.tasks_running() == 1);
    // While one waits, the other does all the rest.
    let pids: Vec<String> = (0..5).map(|_| client.ask("task pid")).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    gate.open();
    assert_eq!(busy.text(), "passed");
    server.stop();
}

#[test]
fn no_task_waits_behind_a_long_one_while_another_task_worker_has_time() {
    let server = server(2);
    let mut client = server.websocket();
    assert_eq!(client.ask("sub finished"), "ok");
    for round in 0..6 {
        // Short ones are handed to both ahead of time, also behind the long one.
        let gate = Gate::shut();
        let long = format!("gate {} long", gate.path());
        client.raw(burst(100, &long, 100).concat());
        let short = results(&mut client, 200);
        assert!(
            !short.iter().any(|text| text.ends_with(" long")),
            "round {round}: {short:?}"
        );
        gate.open();
        assert!(results(&mut client, 1)[0].ends_with(" long"));
    }
    server.stop();
}

#[test]
fn tasks_behind_one_that_is_killed_run_in_their_order() {
    let server = server(1);
    let mut client = server.websocket();
    assert_eq!(client.ask("sub finished"), "ok");
    let pid: u32 = client.ask("task pid").parse().unwrap();
    let gate = Gate::shut();
    let long = format!("gate {} long", gate.path());
    client.raw(burst(50, &long, 50).concat());
    wait_until("the short ones to be done", || {
        server.status()["totals"]["tasks_finished"].as_u64() > Some(50)
    });
    process::kill(pid);
    gate.open();
    let ids: Vec<u64> = results(&mut client, 101)
        .iter()
        .map(|text| text.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(ids.is_sorted(), "{ids:?}");
    server.stop();
}

#[test]
fn a_task_that_was_given_up_before_it_began_never_runs() {
    let runs = tempfile::NamedTempFile::new().unwrap();
    let server = spec(1)
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .start();
    let (mut client, mut other) = (server.websocket(), server.websocket());
    assert_eq!(client.ask("sub finished"), "ok");
    let gate = Gate::shut();
    let long = format!("gate {} long", gate.path());
    client.raw(burst(100, &long, 3).concat());
    wait_until("the short ones to be done", || {
        server.status()["totals"]["tasks_finished"].as_u64() >= Some(100)
    });
    let answer = other.ask("task-timeout 100 mark late");
    assert!(answer.contains("time-out"), "{answer}");
    gate.open();
    results(&mut client, 104);
    assert_eq!(other.ask("task mark later"), "marked");
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "mark later\n");
    server.stop();
}

/// What so many tasks have come to, in the order in which it came.
fn results(client: &mut WebSocket, count: usize) -> Vec<String> {
    let texts = std::iter::repeat_with(|| client.text());
    let finished = texts.filter(|text| text.starts_with("finished "));
    finished.take(count).collect()
}

/// The frames of so many short tasks, a long one, and short ones behind it.
fn burst(before: usize, long: &str, after: usize) -> Vec<Vec<u8>> {
    let short = |n: usize| format!("task-detach echo {n}");
    let tasks = (0..before).map(short);
    let tasks = tasks.chain([format!("task-detach {long}")]);
    let tasks = tasks.chain((0..after).map(short));
    tasks
        .map(|task| websocket::frame(true, 1, task.as_bytes()))
        .collect()
}

#[test]
fn a_detached_task_reports_to_finish() {
    let server = server(1);
    let mut client = server.websocket();
    // Where the test server reports a task that ended before it could note whose it is.
    assert_eq!(client.ask("sub finished"), "ok");
    for (task, result) in [("echo quick", "quick"), ("sleep 50 slow", "slow")] {
        let (id, finished) = submitted_and_finished(&mut client, task);
        assert_eq!(finished, format!("finished {id} {result}"));
    }
    let (id, finished) = submitted_and_finished(&mut client, "fail because");
    assert!(
        finished.starts_with(&format!("finished {id} error: ")),
        "{finished}"
    );
    assert!(finished.contains("because"), "{finished}");
    server.stop();
}

/// The id of a task, and the report of its end, in whatever order they come.
fn submitted_and_finished(client: &mut WebSocket, task: &str) -> (String, String) {
    client.send(format!("task-detach {task}"));
    let mut both = [client.text(), client.text()];
    both.sort();
    let [finished, submitted] = both;
    (
        submitted
            .strip_prefix("submitted ")
            .expect("submitted")
            .to_owned(),
        finished,
    )
}

#[test]
fn a_detached_task_reports_even_if_its_submitter_died() {
    let server = behave()
        .set("workers", 1)
        .set("task_workers", 1)
        .websocket()
        .start();
    let mut watcher = server.websocket();
    assert_eq!(watcher.ask("sub finished"), "ok");
    let pid = watcher.ask("pid").parse().unwrap();
    let gate = Gate::shut();
    let submitted = watcher.ask(format!("task-detach gate {} later", gate.path()));
    let id = submitted.strip_prefix("submitted ").unwrap().to_owned();
    process::kill(pid);
    gate.open();
    assert_eq!(watcher.text(), format!("finished {id} later"));
    server.stop();
}

#[test]
fn killed_workers_lose_no_detached_task() {
    let server = spec(2).set("workers", 2).set("reactors", 2).start();
    // The tasks go to reactor 0, the ends of the events that have submitted them to that of the connection.
    let mut clients = [0, 1, 0, 1].map(|reactor| on_reactor(&server, reactor));
    for client in &mut clients {
        assert_eq!(client.ask("sub finished"), "ok");
    }
    for round in 0..ROUNDS {
        let name = |number: usize, n: usize| format!("{number}-{round}-{n}");
        for (number, client) in clients.iter_mut().enumerate() {
            let tasks = (0..TASKS).map(|n| format!("task-detach echo {}", name(number, n)));
            client.raw(deadly_turn(tasks, round).concat());
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut missing: HashSet<String> = (0..TASKS).map(|n| name(number, n)).collect();
            missing.insert(format!("survived {round}"));
            // Those of a dead worker are told to all.
            while !missing.is_empty() {
                if let Frame::Text(text) = client.message() {
                    missing.remove(&text);
                    missing.remove(text.rsplit(' ').next().unwrap_or_default());
                }
            }
        }
    }
    assert_eq!(server.total("tasks_rejected"), 0);
    server.stop();
}

#[test]
fn tasks_that_start_submits_leave_when_the_worker_is_ready() {
    let runs = tempfile::NamedTempFile::new().unwrap();
    let server = spec(1)
        .set("workers", 1)
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .env("BEHAVE_FIRST_TASKS", "2 from")
        .start();
    let lines = noted(&runs, 6);
    assert_eq!(lines[..2], ["submitted 1", "submitted 2"]);
    assert_eq!(lines[2], "first Err(NotReady)", "at once");
    let mut outcomes = lines[3..].to_vec();
    outcomes.sort();
    assert_eq!(
        outcomes,
        ["aside Ok(b\"aside\")", "finished 1 0", "finished 2 0"]
    );
    server.stop();
}

#[test]
fn a_queue_without_room_refuses_what_start_has_submitted() {
    let runs = tempfile::NamedTempFile::new().unwrap();
    let server = spec(1)
        .set("workers", 1)
        .set("task_queue", 3)
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .env("BEHAVE_FIRST_TASKS", "8 sleep 500 done")
        .start();
    let lines = noted(&runs, 18);
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count("submitted"), 8, "{lines:?}");
    // Three wait; one may have begun before the last came.
    let refused = count("error: the task queue is full (3 tasks wait)");
    assert!((4..=5).contains(&refused), "{lines:?}");
    assert_eq!(count(" done"), 8 - refused, "{lines:?}");
    server.stop();
}

/// What the handlers have noted, when there are so many lines.
fn noted(runs: &tempfile::NamedTempFile, count: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    wait_until("the outcomes", || {
        let text = fs::read_to_string(runs.path()).unwrap();
        lines = text.lines().map(str::to_owned).collect();
        lines.len() >= count
    });
    lines
}

#[test]
fn what_a_dead_worker_has_finished_has_left_to_all_reactors() {
    let runs = tempfile::NamedTempFile::new().unwrap();
    let server = spec(1)
        .set("workers", 1)
        .set("reactors", 2)
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .start();
    // Reactor 0 has the tasks and this connection, reactor 1 the events.
    let mut watcher = on_reactor(&server, 0);
    let watched = watcher.ask("id");
    let mut client = on_reactor(&server, 1);
    for round in 0..6 {
        let turn = [
            format!("task-detach mark {round}"),
            format!("send {watched} {round}"),
        ];
        client.raw(deadly_turn(turn, round).concat());
        let survived = Frame::Text(format!("survived {round}"));
        wait_until("the successor", || client.message() == survived);
        // Once, or again and then perhaps twice.
        let message = round.to_string();
        wait_until("the message", || watcher.text() == message);
        let mark = format!("mark {round}");
        wait_until("the task", || {
            let runs = fs::read_to_string(runs.path()).unwrap();
            runs.lines().any(|line| line == mark)
        });
    }
    server.stop();
}

/// The frames of these commands, and what has their worker die when it has shown their ends.
///
/// All is read in one turn of the worker; now and then its clock ticks meanwhile, and it shows everything. More
/// than half of the ring is shown at once to the reactor whose it is, and with it the ends of the events before.
/// Then the worker is gone.
fn deadly_turn(commands: impl IntoIterator<Item = String>, round: usize) -> Vec<Vec<u8>> {
    let end = ["flood 8 20000".to_owned(), format!("abort-once {round}")];
    let turn = commands.into_iter().chain(end);
    turn.map(|text| websocket::frame(true, 1, text.as_bytes()))
        .collect()
}

/// A client whose connection this reactor has.
fn on_reactor(server: &Server, reactor: usize) -> WebSocket {
    let mut clients = std::iter::repeat_with(|| server.websocket()).take(1_000);
    let found = clients.find_map(|mut client| {
        let id: ConnId = client.ask("id").parse().unwrap();
        (id.reactor() == reactor).then_some(client)
    });
    found.expect("each reactor accepts some")
}

/// How often each client has its worker die, at most, and its tasks in front of that.
const ROUNDS: usize = 4;
const TASKS: usize = 20;

#[test]
fn a_full_queue_refuses_detached_tasks_at_once_and_forgets_none_that_it_took() {
    let server = spec(1).set("task_queue", 100).start();
    let mut client = server.websocket();
    assert_eq!(client.ask("sub finished"), "ok");
    let gate = Gate::shut();
    let long = format!("task-detach gate {} long", gate.path());
    let mut frames = vec![websocket::frame(true, 1, long.as_bytes())];
    frames.extend((0..300).map(|n| {
        let text = format!("task-detach echo {n}");
        websocket::frame(true, 1, text.as_bytes())
    }));
    client.raw(frames.concat());
    let (mut submitted, mut refused, mut finished) = (0, 0, 0);
    while submitted + refused < 301 || finished < submitted {
        let text = client.text();
        submitted += usize::from(text.starts_with("submitted "));
        finished += usize::from(text.starts_with("finished "));
        refused += usize::from(text.contains("queue is full"));
        if submitted + refused == 301 {
            gate.open();
        }
    }
    // One runs. Those that were under way without having been asked for may go over it by a quarter.
    assert!((101..=126).contains(&submitted), "{submitted} of 301");
    let totals = server.status()["totals"].clone();
    assert_eq!(totals["tasks_rejected"], refused);
    server.stop();
}

#[test]
fn a_task_can_name_its_task_worker() {
    let server = server(3);
    let mut client = server.websocket();
    let workers: Vec<String> = (0..3)
        .map(|n| client.ask(format!("task-on {n} worker")))
        .collect();
    // Task workers are numbered after the two workers.
    assert_eq!(workers, ["2", "3", "4"]);
    let refused = client.ask("task-on 3 worker");
    assert_eq!(refused, "error: there is no task worker 3");
    server.stop();
}

#[test]
fn a_task_sends_to_a_client_itself() {
    let server = server(1);
    let mut client = server.websocket();
    let id = client.ask("id");
    client.send(format!("task send {id} Data in Task"));
    assert_eq!(client.text(), "Data in Task");
    assert_eq!(client.text(), "sent");
    server.stop();
}

#[test]
fn a_failing_or_panicking_task_fails_alone() {
    let server = server(1);
    let mut client = server.websocket();
    let pid = client.ask("task pid");
    let failed = client.ask("task fail out of paper");
    assert!(
        failed.starts_with("error: ") && failed.contains("out of paper"),
        "{failed}"
    );
    let panicked = client.ask("task panic");
    assert!(panicked.starts_with("error: "), "{panicked}");
    assert_eq!(client.ask("task pid"), pid, "the task worker was lost");
    server.stop();
}

#[test]
fn a_task_that_takes_too_long_times_out() {
    let server = server(1);
    let mut client = server.websocket();
    let answer = client.ask("task-timeout 100 sleep 1000 late");
    assert!(answer.contains("time-out"), "{answer}");
    assert_eq!(client.ask("task-timeout 20000 echo in time"), "in time");
    server.stop();
}

#[test]
fn tasks_without_task_workers_are_refused() {
    let server = behave().websocket().start();
    let mut client = server.websocket();
    assert!(client.ask("task echo x").contains("no task worker"));
    server.stop();
}

#[test]
fn the_task_queue_is_bounded() {
    let server = spec(1).set("task_queue", 3).start();
    let mut clients: Vec<_> = (0..8).map(|_| server.websocket()).collect();
    let gate = Gate::shut();
    for client in &mut clients {
        client.send(format!("task gate {} done", gate.path()));
    }
    wait_until("it to be decided of all", || {
        server.total("tasks_submitted") + server.total("tasks_rejected") == 8
    });
    gate.open();
    let answers: Vec<String> = clients.iter_mut().map(|client| client.text()).collect();
    let refused = answers
        .iter()
        .filter(|answer| answer.contains("queue is full"))
        .count();
    let done = answers.iter().filter(|answer| *answer == "done").count();
    assert_eq!(refused + done, 8, "{answers:?}");
    // One runs and three wait, give or take one that was taken in between.
    assert!((3..=5).contains(&done), "{answers:?}");
    server.stop();
}

#[test]
fn a_task_whose_task_worker_dies_runs_again() {
    let server = server(1);
    let mut client = server.websocket();
    assert_eq!(
        client.ask("task abort-once the crash"),
        "survived the crash"
    );
    server.stop();
}

#[test]
fn a_task_whose_task_worker_is_killed_runs_again() {
    let runs = tempfile::NamedTempFile::new().unwrap();
    let server = spec(1)
        .env("BEHAVE_RUNS", runs.path().display().to_string())
        .start();
    let mut client = server.websocket();
    let pid: u32 = client.ask("task pid").parse().unwrap();
    let gate = Gate::shut();
    client.send(format!("task gate {} passed", gate.path()));
    wait_until("the task to run", || server.tasks_running() == 1);
    let (mut other, queued) = (server.websocket(), "task mark queued");
    other.send(queued);
    process::kill(pid);
    gate.open();
    assert_eq!(client.text(), "passed");
    assert_eq!(other.text(), "marked");
    assert_eq!(fs::read_to_string(runs.path()).unwrap(), "mark queued\n");
    server.stop();
}

#[test]
fn a_task_that_kills_every_task_worker_is_given_up() {
    let server = server(1);
    let mut client = server.websocket();
    let answer = client.ask("task abort");
    assert!(answer.contains("given up"), "{answer}");
    assert_eq!(client.ask("task echo alive"), "alive");
    server.stop();
}

#[test]
fn tasks_and_results_may_be_large() {
    let server = server(1);
    let mut client = server.websocket();
    assert_eq!(client.ask("task big 1500000").len(), 1_500_000);
    let text = "x".repeat(1_000_000);
    assert_eq!(client.ask(format!("task echo {text}")).len(), text.len());
    server.stop();
}

#[test]
fn a_reload_lets_tasks_finish() {
    let server = server(1);
    let mut client = server.websocket();
    let before = client.ask("task pid");
    let gate = Gate::shut();
    client.send(format!("task gate {} passed", gate.path()));
    wait_until("the task to run", || server.tasks_running() == 1);
    server.reload();
    gate.open();
    assert_eq!(client.text(), "passed");
    assert_ne!(client.ask("task pid"), before);
    server.stop();
}

#[test]
fn workers_and_tasks_send_each_other_messages() {
    let server = spec(1).set("workers", 2).start();
    let mut client = server.websocket();
    assert_eq!(client.ask("sub piped"), "ok");
    let own = client.ask("worker");
    for to in ["0", "1", "2"] {
        client.send(format!("pipe {to} hello"));
        let mut both = [client.text(), client.text()];
        both.sort();
        assert_eq!(
            both,
            ["piped".to_owned(), format!("piped {own} {to} hello")]
        );
    }
    client.send("task pipe from the task");
    let mut both = [client.text(), client.text()];
    both.sort();
    assert_eq!(
        both,
        ["piped".to_owned(), format!("piped 2 {own} from the task")]
    );
    server.stop();
}

fn server(task_workers: i64) -> Server {
    spec(task_workers).start()
}

fn spec(task_workers: i64) -> Spec {
    behave().set("task_workers", task_workers).websocket()
}
