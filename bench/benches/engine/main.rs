//! Measures the engine, and shared tables. See the README beside this package.

mod http2;
mod measured;
mod slow_start;
mod table;
mod udp;
mod worst;

use std::{
    env,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use gannet_bench::{Bench, Report};
use gannet_tests::{
    process,
    server::{Server, Spec, mode},
    tls::Keys,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use toml::Value;

use crate::{measured::Measured, worst::Happens};

#[derive(Debug, Parser)]
#[command(about = "Measures the Gannet engine", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// TCP echo
    Echo(Load),
    /// WebSocket echo of binary messages
    Ws(Load),
    /// HTTP/1.1 keep-alive: POST /echo
    Http(Load),
    /// HTTP/2: POST /echo, as `http`, on many streams of one connection and on one each of many
    Http2(Load),
    /// Messages in raw TCP: lines, and behind their length
    Frames(Load),
    /// Datagrams
    Udp(Load),
    /// TLS 1.3: echo over TCP and WebSocket, and handshakes, full and resumed
    Tls(Load),
    /// Memory of idle WebSockets
    Idle {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// The worst answer while the workers are reloaded
    Reload(worst::Options),
    /// The worst answer when a worker is killed
    Kill(worst::Options),
    /// Shared tables, in one process and in two; beside Swoole's, where PHP has it
    Table(table::Options),
    /// What `table` starts
    #[command(hide = true)]
    TableProcess(table::ProcessArguments),
}

#[derive(Clone, Debug, clap::Args)]
struct Load {
    /// Connections, each with one message under way
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How long to measure
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

fn main() -> Result<()> {
    if slow_start::takes().is_some() {
        return slow_start::serve();
    }
    // Cargo says so to every program that it starts as a bench.
    let arguments = Arguments::parse_from(env::args_os().filter(|one| one != "--bench"));
    match arguments.what {
        What::Echo(load) => messages("echo", tcp, "tcp", &load, &[]),
        What::Ws(load) => messages("wsecho", websocket, "ws", &load, &[]),
        What::Http(load) => messages("http", |spec| spec.http(), "http", &load, &[]),
        What::Http2(load) => http2(&load),
        What::Frames(load) => frames(&load),
        What::Udp(load) => udp(&load),
        What::Tls(load) => tls(&load),
        What::Idle { connections } => idle(connections),
        What::Reload(options) => worst::measure(Happens::Reload, &options),
        What::Kill(options) => worst::measure(Happens::Kill, &options),
        What::Table(options) => table::measure(&options),
        What::TableProcess(arguments) => table::run_process(&arguments),
    }
}

fn tcp(spec: Spec) -> Spec {
    spec.tcp()
}

fn websocket(spec: Spec) -> Spec {
    spec.websocket()
}

fn http2(load: &Load) -> Result<()> {
    let server = start("http", |spec| spec.http())?;
    for (connections, streams) in [(1, load.connections), (load.connections, 1)] {
        let clients = http2::Clients::connect(server.address(0), connections, streams, load.size)?;
        let name = format!("http2, {streams} streams on each");
        report(&name, &server, load, connections, |length| {
            clients.run(length)
        })?;
    }
    Ok(())
}

fn udp(load: &Load) -> Result<()> {
    let server = start("udp", |spec| spec.udp())?;
    let mut clients = udp::Clients::connect(server.address(0), load.connections, load.size)?;
    report("udp", &server, load, load.connections, |length| {
        clients.run(length)
    })
}

fn frames(load: &Load) -> Result<()> {
    // The example has two listeners; the first is measured.
    let lines = |spec: Spec| spec.tcp().with("framing", "lines").tcp();
    messages("frames", lines, "tcp", load, &["--framing", "line"])?;
    let behind_length = |spec: Spec| {
        let framing = [("kind", Value::from("length")), ("width", 2.into())];
        let framing = framing.map(|(name, value)| (name.to_owned(), value));
        let framing = toml::Table::from_iter(framing);
        spec.tcp().with("framing", framing).tcp()
    };
    let flags = ["--framing", "length16"];
    messages("frames", behind_length, "tcp", load, &flags)
}

fn tls(load: &Load) -> Result<()> {
    let keys = Keys::default();
    let secure = |spec: Spec| keys.serve(spec).with_tls("max_handshakes_per_s", 1_000_000);
    let ca = keys.ca();
    let ca = ["--ca", ca.to_str().context("a path of text")?];
    messages("wsecho", |spec| secure(spec.websocket()), "wss", load, &ca)?;
    messages("echo", |spec| secure(spec.tcp()), "tls", load, &ca)?;

    let plain = start("echo", tcp)?;
    let bare = storm(&plain, load, &["connect"], &[])?;
    drop(plain);
    let server = start("echo", |spec| secure(spec.tcp()))?;
    let full = storm(&server, load, &["handshakes"], &ca)?;
    let resumed = storm(
        &server,
        load,
        &["handshakes"],
        &[&ca[..], &["--resume"]].concat(),
    )?;
    println!(
        "the handshake alone: {:.0} µs full, {:.0} µs resumed",
        full - bare,
        resumed - bare
    );
    Ok(())
}

/// Connections one after another, each with one message: what one costs the server, in microseconds.
fn storm(server: &Server, load: &Load, command: &[&str], flags: &[&str]) -> Result<f64> {
    let (target, pid) = (server.address(0).to_string(), server.manager().to_string());
    let seconds = format!("{}s", load.seconds);
    let own = [
        "--exchange",
        "-c",
        "1",
        "--duration",
        &seconds,
        "--server-pid",
        &pid,
    ];
    let report = generate(&[command, &[&target], &own, flags].concat())?;
    print!("{report}");
    let used = report.server.context("the server's processes")?;
    Ok(used.cpu_us_per_message)
}

/// Starts the example and sends it messages.
fn messages(
    example: &str,
    listen: impl FnOnce(Spec) -> Spec,
    scheme: &str,
    load: &Load,
    flags: &[&str],
) -> Result<()> {
    let server = start(example, listen)?;
    let (command, path) = match scheme {
        "tcp" | "tls" => ("tcp", ""),
        "http" => ("http", "/echo"),
        _ => ("ws", "/"),
    };
    let target = format!("{scheme}://{}{path}", server.address(0));
    let (connections, size) = (load.connections.to_string(), load.size.to_string());
    let pid = server.manager().to_string();
    let own = [
        command,
        &target,
        "-c",
        &connections,
        "-s",
        &size,
        "--server-pid",
        &pid,
    ];
    let run = |length: Duration| {
        let length = format!("{}ms", length.as_millis());
        let times = ["--warmup", "0s", "--duration", &length];
        generate(&[&own[..], &times, flags].concat())
    };
    // What it costs to warm up is not measured.
    run(WARM)?;
    let before = Used::of(&server);
    let report = run(Duration::from_secs(load.seconds))?;
    print!("{report}");
    let messages = report.messages.unwrap_or_default();
    used(&before, &Used::of(&server), messages as f64);
    match report.is_clean() {
        true => Ok(()),
        false => bail!("{} errors", report.errors),
    }
}

/// Runs the generator in this process.
fn generate(arguments: &[&str]) -> Result<Report> {
    Ok(Bench::from_arguments(arguments)?.run()?)
}

/// Measures what `run` does for a while, and prints it.
fn report(
    name: &str,
    server: &Server,
    load: &Load,
    connections: usize,
    mut run: impl FnMut(Duration) -> Result<Measured>,
) -> Result<()> {
    // What it costs to warm up is not measured.
    run(WARM)?;
    let before = Used::of(server);
    let begin = Instant::now();
    let mut result = run(Duration::from_secs(load.seconds))?;
    let took = begin.elapsed();

    let messages = result.latencies.len() as f64;
    println!(
        "{name}: {} connections, {} B, {:.1} s: {:.0} messages/s, latency p50 {} µs, p99 {} µs",
        connections,
        load.size,
        took.as_secs_f64(),
        messages / took.as_secs_f64(),
        result.percentile(50),
        result.percentile(99),
    );
    let after = Used::of(server);
    used(&before, &after, messages);
    println!(
        "  server: {:.2} µs processor time a message",
        after.cpu_since(&before).as_secs_f64() * 1e6 / messages
    );
    Ok(())
}

/// Prints what each process has used for a message.
fn used(before: &Used, after: &Used, messages: f64) {
    let processes = [
        ("master", &before.master, &after.master),
        ("worker", &before.worker, &after.worker),
    ];
    // Of threads there is one process, which the server's line tells of.
    let shown = if mode() == "thread" { 0 } else { 2 };
    for (process, before, after) in &processes[..shown] {
        println!(
            "  {process:<11} {:.2} µs of processor time and {:.3} context switches a message",
            (after.cpu - before.cpu).as_secs_f64() * 1e6 / messages,
            (after.switches - before.switches) as f64 / messages,
        );
    }
}

fn idle(connections: usize) -> Result<()> {
    let server = start("wsecho", websocket)?;
    let (url, pid) = (
        format!("ws://{}/", server.address(0)),
        server.manager().to_string(),
    );
    let connections = connections.to_string();
    let report = generate(&["idle", &url, "-c", &connections, "--server-pid", &pid])?;
    print!("{report}");
    match report.is_clean() {
        true => Ok(()),
        false => bail!("{} errors", report.errors),
    }
}

/// Builds the example and starts it on the first processor; this process goes to the second.
fn start(example: &str, listen: impl FnOnce(Spec) -> Spec) -> Result<Server> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            // As compare does, and as users have them: without what other packages ask of shared libraries.
            "-p",
            "gannet-examples",
            "-p",
            "gannet-bench",
            "--example",
            example,
        ])
        .status()
        .context("build the example")?;
    if !status.success() {
        bail!("the example {example} does not build");
    }
    // This program is in `deps`, beside the examples' directory.
    let own = env::current_exe()?;
    let directory = own.parent().and_then(Path::parent);
    let program = directory
        .context("the programs that cargo has built")?
        .join("examples")
        .join(example);
    start_pinned(listen(Spec::new(program)))
}

/// Starts a server with one worker and one reactor on the first processor; this process goes to the
/// second.
fn start_pinned(spec: Spec) -> Result<Server> {
    pin(0)?;
    let server = spec.set("workers", 1).set("reactors", 1).start();
    pin(1)?;
    Ok(server)
}

/// Keeps this thread, and what it starts, on one processor, if there are several.
fn pin(processor: usize) -> Result<()> {
    if std::thread::available_parallelism().map_or(1, usize::from) > 1 || processor > 0 {
        let mut set = CpuSet::new();
        set.set(processor);
        // With one processor there is nothing to choose.
        let _ = sched_setaffinity(None, &set);
    }
    Ok(())
}

struct Used {
    master: OfProcess,
    worker: OfProcess,
}

struct OfProcess {
    cpu: Duration,
    switches: u64,
}

impl Used {
    fn of(server: &Server) -> Self {
        let worker = server.workers().first().map_or(0, |&(_, pid)| pid);
        Used {
            master: OfProcess::of(server.master()),
            worker: OfProcess::of(worker),
        }
    }

    /// Processor time of both since then.
    fn cpu_since(&self, before: &Self) -> Duration {
        (self.master.cpu - before.master.cpu) + (self.worker.cpu - before.worker.cpu)
    }
}

impl OfProcess {
    fn of(pid: u32) -> Self {
        OfProcess {
            cpu: process::cpu_time(pid),
            switches: process::context_switches(pid),
        }
    }
}

/// Before it is measured.
const WARM: Duration = Duration::from_millis(300);
