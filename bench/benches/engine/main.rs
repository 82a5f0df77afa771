//! Measures the engine, and shared tables. See the README beside this package.

mod client;
mod exchange;
mod handshakes;
mod http2;
mod slow_start;
mod socket;
mod table;
mod worst;

use std::{
    env,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use gannet_tests::{
    process,
    server::{Server, Spec, mode},
    tcp::{TcpClient, connect_from},
    tls::{Client, Keys},
    wait::wait_until,
    websocket::WebSocket,
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

use toml::Value;

use crate::{
    client::{Measured, run},
    exchange::Exchange,
    socket::Over,
    worst::Happens,
};

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
    /// HTTP/1.1 keep-alive: POST /echo, answered by axum
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
    raise_descriptor_limit()?;
    match arguments.what {
        What::Echo(load) => {
            let server = start("echo", tcp)?;
            measure(
                "echo",
                &server,
                &load,
                &Over::Tcp,
                &Exchange::tcp(load.size),
            )
        }
        What::Ws(load) => {
            let server = start("wsecho", websocket)?;
            let exchange = Exchange::websocket(load.size);
            measure("wsecho", &server, &load, &Over::Tcp, &exchange)
        }
        What::Http(load) => {
            let server = start("http", |spec| spec.http())?;
            measure(
                "http",
                &server,
                &load,
                &Over::Tcp,
                &Exchange::http(load.size),
            )
        }
        What::Http2(load) => http2(&load),
        What::Frames(load) => frames(&load),
        What::Udp(load) => {
            let server = start("udp", |spec| spec.udp())?;
            let exchange = Exchange::datagram(load.size);
            measure("udp", &server, &load, &Over::Udp, &exchange)
        }
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

fn frames(load: &Load) -> Result<()> {
    let lines = start("frames", |spec| spec.tcp().with("framing", "lines"))?;
    let exchange = Exchange::line(load.size);
    measure("lines", &lines, load, &Over::Tcp, &exchange)?;
    drop(lines);
    let behind_length = start("frames", |spec| {
        let framing = [("kind", Value::from("length")), ("width", 2.into())];
        let framing = framing.map(|(name, value)| (name.to_owned(), value));
        spec.tcp().with("framing", toml::Table::from_iter(framing))
    })?;
    let exchange = Exchange::behind_length(load.size);
    measure(
        "length in front",
        &behind_length,
        load,
        &Over::Tcp,
        &exchange,
    )
}

fn tls(load: &Load) -> Result<()> {
    let keys = Keys::default();
    let secure = |spec: Spec| keys.serve(spec).with_tls("max_handshakes_per_s", 1_000_000);
    let over = || Over::Tls(Box::new(Client::new(&keys.authority)));
    let server = start("wsecho", |spec| secure(spec.websocket()))?;
    let exchange = Exchange::websocket(load.size);
    measure("wsecho over TLS", &server, load, &over(), &exchange)?;
    drop(server);
    let server = start("echo", |spec| secure(spec.tcp()))?;
    measure(
        "echo over TLS",
        &server,
        load,
        &over(),
        &Exchange::tcp(load.size),
    )?;
    let plain = start("echo", tcp)?;
    let length = Duration::from_secs(load.seconds);
    handshakes::measure(&plain, &server, &keys.authority, length)
}

fn measure(
    name: &str,
    server: &Server,
    load: &Load,
    over: &Over,
    exchange: &Exchange,
) -> Result<()> {
    let mut sockets = (0..load.connections)
        .map(|_| exchange.connect(over, server.address(0)))
        .collect::<std::io::Result<Vec<_>>>()
        .context("connect")?;
    report(name, server, load, load.connections, |length| {
        run(&mut sockets, exchange, length)
    })
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
    run(Duration::from_millis(300))?;
    let before = Used::of(server);
    let begin = Instant::now();
    let mut result = run(Duration::from_secs(load.seconds))?;
    let (took, used) = (begin.elapsed(), Used::of(server));

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
    let processes = [
        ("master", &before.master, &used.master),
        ("worker", &before.worker, &used.worker),
    ];
    // Of threads there is one process, which stands for the master.
    let shown = if mode() == "thread" { 0 } else { 2 };
    for (process, before, after) in &processes[..shown] {
        println!(
            "  {process}: {:.2} µs processor time and {:.3} context switches a message",
            (after.cpu - before.cpu).as_secs_f64() * 1e6 / messages,
            (after.switches - before.switches) as f64 / messages,
        );
    }
    println!(
        "  server: {:.2} µs processor time a message",
        used.cpu_since(&before).as_secs_f64() * 1e6 / messages
    );
    Ok(())
}

fn idle(connections: usize) -> Result<()> {
    let server = start("wsecho", websocket)?;
    let connect = |n: usize| {
        // One address has some 28,000 ports.
        let source = [127, 0, 0, 1 + (n / 20_000) as u8];
        let stream = connect_from(source.into(), server.address(0))
            .with_context(|| format!("connection {n} (ulimit -n allows so many?)"))?;
        match WebSocket::open(TcpClient::over(stream), "/", &[])? {
            Ok(socket) => Ok(socket),
            Err(refused) => bail!("connection {n} was refused: {refused:?}"),
        }
    };
    // What the first connections touch for all the others is not theirs: the rings above all, which
    // cost their whole size once they have gone round.
    let warm = (0..WARM).map(connect).collect::<Result<Vec<_>>>()?;
    let before = memory(&server);
    let idle = (0..connections).map(connect).collect::<Result<Vec<_>>>()?;
    let all = (warm.len() + idle.len()) as u64;
    wait_until("the server to know of all", || server.connections() == all);
    let used = memory(&server).saturating_sub(before);
    println!(
        "{connections} idle WebSockets: {} KiB of user memory in the server's processes, {} B each",
        used >> 10,
        used / connections as u64
    );
    Ok(())
}

/// Builds the example and starts it on the first processor; this process goes to the second.
fn start(example: &str, listen: impl FnOnce(Spec) -> Spec) -> Result<Server> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            "gannet-examples",
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

fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of descriptors")
}

/// User memory of all processes of the server.
fn memory(server: &Server) -> u64 {
    server
        .memory()
        .iter()
        .map(|(_, memory)| memory.proportional)
        .sum()
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

/// Handshakes that go once round a ring of the default size.
const WARM: usize = 2_000;
