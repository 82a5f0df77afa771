//! The worst answer while workers are replaced by a reload, or killed.
//!
//! Time is cut into windows. In every other one something happens to the workers shortly after its
//! beginning; in those between nothing does, so that what the machine does by itself stands beside it.
//! At the end of a window each connection waits for its answer, and what comes after that came twice:
//! an answer that comes again is taken for the next one, so at the end there is one too many.

use std::{
    env, fmt, fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use gannet_tests::{
    process::{self, Signal, Stat},
    server::{Server, Spec},
    wait::wait_until,
    websocket::{frame, handshake, opcode},
};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    time::Timespec,
};
use serde::Serialize;

use crate::slow_start::START_MS;

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Connections, each with one message under way
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message; an HTTP request has none
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How often it happens
    #[arg(long, default_value_t = 10)]
    events: usize,
    /// Milliseconds of a window; a quiet one stands between two events
    #[arg(long, default_value_t = 500)]
    window: u64,
    /// Only this protocol
    #[arg(long)]
    only: Option<Protocol>,
    /// An echo server whose handler takes so many milliseconds to start, in the place of the examples
    #[arg(long, conflicts_with_all = ["only", "address"])]
    start_ms: Option<u64>,
    /// A server that runs already, in the place of the examples; --only says what it speaks
    #[arg(long, requires_all = ["pid", "only"])]
    address: Option<SocketAddr>,
    /// Its first process. Its workers are those below it that have "worker" in their title
    #[arg(long)]
    pid: Option<u32>,
    /// Print a line of JSON for each protocol, and nothing else
    #[arg(long)]
    json: bool,
}

/// What happens to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Happens {
    /// SIGUSR1 to the first process.
    Reload,
    /// SIGKILL to a worker.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    /// TCP echo
    Tcp,
    /// WebSocket echo
    Ws,
    /// GET /, which may be repeated
    Http,
}

/// Measures the examples, or the server that is named.
pub(crate) fn measure(happens: Happens, options: &Options) -> Result<()> {
    let protocols = match (options.only, options.start_ms) {
        (Some(only), _) => vec![only],
        (None, Some(_)) => vec![Protocol::Tcp],
        (None, None) => vec![Protocol::Tcp, Protocol::Ws, Protocol::Http],
    };
    for protocol in protocols {
        let (_server, address, first) = match (options.address, options.pid) {
            (Some(address), Some(pid)) => {
                crate::pin(1)?;
                (None, address, pid)
            }
            _ => {
                let server = match options.start_ms {
                    None => protocol.start()?,
                    Some(ms) => {
                        let spec = Spec::new(env::current_exe()?).tcp();
                        crate::start_pinned(spec.env(START_MS, ms.to_string()))?
                    }
                };
                let (address, manager) = (server.address(0), server.manager());
                (Some(server), address, manager)
            }
        };
        let outcome = observe(happens, options, protocol, address, first)?;
        match options.json {
            true => println!("{}", outcome.json(protocol, options)?),
            false => println!("{protocol:?}: {outcome}"),
        }
        ensure!(outcome.is_clean(), "not every message had one answer");
    }
    Ok(())
}

fn observe(
    happens: Happens,
    options: &Options,
    protocol: Protocol,
    address: SocketAddr,
    first: u32,
) -> Result<Outcome> {
    let mut clients = Clients::connect(protocol, address, options)?;
    let window = Duration::from_millis(options.window);
    let mut outcome = Outcome {
        happens,
        connections: options.connections,
        worst: Vec::new(),
        quiet: Vec::new(),
        seen: Seen::default(),
    };
    // Warms up.
    clients.window(window, None)?;
    clients.seen = Seen::default();
    for _ in 0..options.events {
        outcome.quiet.push(clients.window(window, None)?);
        let before = workers(first);
        let Some(&victim) = before.last() else {
            bail!("process {first} has no worker below it");
        };
        let act = || match happens {
            Happens::Reload => process::signal(first, Signal::USR1),
            Happens::Kill => process::kill(victim),
        };
        let length = window + Duration::from_millis(options.start_ms.unwrap_or(0));
        outcome.worst.push(clients.window(length, Some(&act))?);
        wait_until("the new workers", || {
            let now = workers(first);
            let gone = match happens {
                Happens::Reload => before.iter().all(|old| !now.contains(old)),
                Happens::Kill => !now.contains(&victim),
            };
            gone && now.len() == before.len()
        });
    }
    outcome.seen = clients.seen;
    Ok(outcome)
}

/// What came out.
#[derive(Debug)]
struct Outcome {
    happens: Happens,
    connections: usize,
    /// The worst answer of each window.
    worst: Vec<Duration>,
    /// The same where nothing happened.
    quiet: Vec<Duration>,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Seen {
    answered: u64,
    lost: u64,
    repeated: u64,
    closed: u64,
    /// HTTP answers with another status than 200.
    refused: u64,
}

/// The same for programs; times are in milliseconds.
#[derive(Debug, Serialize)]
struct Json<'a> {
    what: Happens,
    protocol: Protocol,
    connections: usize,
    /// Bytes of a message; HTTP requests have none.
    size: usize,
    window_ms: u64,
    /// How long the handler took to start, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ms: Option<u64>,
    /// The worst answer of each window in which it happened.
    disturbed_ms: Summary,
    /// The same of the windows in which nothing happened.
    undisturbed_ms: Summary,
    #[serde(flatten)]
    seen: &'a Seen,
}

/// Milliseconds.
#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    median: f64,
    worst: f64,
    each: Vec<f64>,
}

impl Summary {
    fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let millis = |time: &Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        Summary {
            median: sorted.get(sorted.len() / 2).map_or(0.0, millis),
            worst: sorted.last().map_or(0.0, millis),
            each: times.iter().map(millis).collect(),
        }
    }
}

impl Outcome {
    fn json(&self, protocol: Protocol, options: &Options) -> Result<String> {
        Ok(serde_json::to_string(&Json {
            what: self.happens,
            protocol,
            connections: self.connections,
            size: match protocol {
                Protocol::Http => 0,
                Protocol::Tcp | Protocol::Ws => options.size,
            },
            window_ms: options.window,
            start_ms: options.start_ms,
            disturbed_ms: Summary::of(&self.worst),
            undisturbed_ms: Summary::of(&self.quiet),
            seen: &self.seen,
        })?)
    }

    fn is_clean(&self) -> bool {
        let Seen {
            lost,
            closed,
            refused,
            repeated,
            ..
        } = self.seen;
        // A message that was being handled when its worker died may be handled again.
        let repeats = self.happens == Happens::Reload && repeated > 0;
        lost + closed + refused == 0 && !repeats
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.happens {
            Happens::Reload => "reloads",
            Happens::Kill => "kills",
        };
        let line = |f: &mut fmt::Formatter<'_>, name: &str, times: &Summary| {
            let Summary { median, worst, .. } = times;
            writeln!(f, "  {name}: median {median:.1} ms, worst {worst:.1} ms")
        };
        let (count, connections) = (self.worst.len(), self.connections);
        writeln!(f, "{count} {what} under {connections} connections")?;
        let worst = Summary::of(&self.worst);
        line(f, "worst answer of each", &worst)?;
        line(f, "where nothing happened", &Summary::of(&self.quiet))?;
        let each = worst.each.iter();
        let each: Vec<_> = each.map(|time| format!("{time:.1}")).collect();
        writeln!(f, "  each, in ms: {}", each.join(" "))?;
        let Seen {
            answered,
            lost,
            repeated,
            closed,
            refused,
        } = self.seen;
        write!(
            f,
            "  {answered} answers; {lost} lost, {repeated} repeated, {refused} refused, {closed} \
             connections closed"
        )
    }
}

/// All connections, in one poll set.
struct Clients {
    epoll: OwnedFd,
    protocol: Protocol,
    address: SocketAddr,
    message: Vec<u8>,
    answer: Vec<u8>,
    all: Vec<Client>,
    seen: Seen,
}

struct Client {
    socket: TcpStream,
    received: Vec<u8>,
    /// When the message that is under way was sent.
    sent: Option<Instant>,
}

impl Clients {
    fn connect(protocol: Protocol, address: SocketAddr, options: &Options) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut all = Vec::new();
        for n in 0..options.connections {
            all.push(Client {
                socket: protocol.connect(address, &epoll, n)?,
                received: Vec::new(),
                sent: None,
            });
        }
        let (message, answer) = protocol.exchange(options.size);
        Ok(Clients {
            epoll,
            protocol,
            address,
            message,
            answer,
            all,
            seen: Seen::default(),
        })
    }

    /// Sends and checks for this long, then waits for what is due; `act` comes a moment after its
    /// beginning. Returns the worst answer.
    fn window(&mut self, length: Duration, act: Option<&dyn Fn() -> bool>) -> Result<Duration> {
        let begin = Instant::now();
        let (end, lost) = (begin + length, begin + length + PATIENCE);
        let mut act = act.map(|act| (begin + BEFORE, act));
        let mut worst = Duration::ZERO;
        for n in 0..self.all.len() {
            self.send(n)?;
        }
        let mut events = Vec::with_capacity(256);
        loop {
            let now = Instant::now();
            if let Some((_, act)) = act.take_if(|(at, _)| *at <= now) {
                ensure!(act(), "the process that was to get a signal is gone");
            }
            let due = self.all.iter().any(|client| client.sent.is_some());
            if now >= end && act.is_none() && (!due || now >= lost) {
                break;
            }
            let next = act.as_ref().map_or(lost, |(at, _)| *at).min(lost);
            wait(
                &self.epoll,
                &mut events,
                next.saturating_duration_since(now),
            )?;
            let now = Instant::now();
            for event in events.drain(..) {
                let n = event.data.u64() as usize;
                if let Some(took) = self.receive(n, now)? {
                    worst = worst.max(took);
                    if now < end {
                        self.send(n)?;
                    }
                }
            }
        }
        self.settle(&mut events)?;
        Ok(worst)
    }

    fn send(&mut self, n: usize) -> Result<()> {
        let client = &mut self.all[n];
        client.sent = Some(Instant::now());
        // A message is far smaller than what a socket takes at once.
        match client.socket.write(&self.message) {
            Ok(count) if count == self.message.len() => Ok(()),
            Ok(count) => bail!("only {count} bytes of a message were taken"),
            Err(error) if is_end(&error) => Ok(()),
            Err(error) => Err(error).context("send"),
        }
    }

    /// Reads what is there; how long the answer took, if it is complete.
    fn receive(&mut self, n: usize, now: Instant) -> Result<Option<Duration>> {
        let client = &mut self.all[n];
        let mut buffer = [0; 16 << 10];
        loop {
            match client.socket.read(&mut buffer) {
                Ok(0) => {
                    self.closed(n)?;
                    return Ok(None);
                }
                Ok(count) => client.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_end(&error) => {
                    self.closed(n)?;
                    return Ok(None);
                }
                Err(error) => return Err(error).context("receive"),
            }
        }
        let client = &mut self.all[n];
        let mut took = None;
        while let Some((used, good)) = self.protocol.taken(&client.received, &self.answer)? {
            client.received.drain(..used);
            match client.sent.take() {
                Some(sent) => {
                    self.seen.answered += 1;
                    self.seen.refused += u64::from(!good);
                    took = Some(now.saturating_duration_since(sent));
                }
                None => self.seen.repeated += 1,
            }
        }
        Ok(took)
    }

    /// The server has closed a connection: another one takes its place.
    fn closed(&mut self, n: usize) -> Result<()> {
        let client = &mut self.all[n];
        self.seen.closed += 1;
        let due = client.sent.take().is_some();
        self.seen.lost += u64::from(due);
        client.received.clear();
        client.socket = self.protocol.connect(self.address, &self.epoll, n)?;
        if due { self.send(n) } else { Ok(()) }
    }

    /// What comes when every answer was there has come twice.
    fn settle(&mut self, events: &mut Vec<epoll::Event>) -> Result<()> {
        for client in &mut self.all {
            self.seen.lost += u64::from(client.sent.take().is_some());
        }
        let end = Instant::now() + SETTLE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(&self.epoll, events, left)?;
            for event in events.drain(..) {
                self.receive(event.data.u64() as usize, end)?;
            }
        }
        Ok(())
    }
}

impl Protocol {
    fn start(self) -> Result<Server> {
        match self {
            Protocol::Tcp => crate::start("echo", |spec| spec.tcp()),
            Protocol::Ws => crate::start("wsecho", |spec| spec.websocket()),
            Protocol::Http => crate::start("http", |spec| spec.http()),
        }
    }

    /// Connects, does what comes before the first message, and has the poll set tell of it as `n`.
    fn connect(self, address: SocketAddr, epoll: &OwnedFd, n: usize) -> Result<TcpStream> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        self.greet(&mut socket).context("the handshake")?;
        socket.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(epoll, &socket, EventData::new_u64(n as u64), flags)?;
        Ok(socket)
    }

    fn greet(self, socket: &mut TcpStream) -> Result<()> {
        if self != Protocol::Ws {
            return Ok(());
        }
        socket.write_all(handshake("/", &[]).as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101 "), "it was refused");
        Ok(())
    }

    /// A message, and what comes back: of HTTP, the body is not known.
    fn exchange(self, size: usize) -> (Vec<u8>, Vec<u8>) {
        let data: Vec<u8> = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
        match self {
            Protocol::Tcp => (data.clone(), data),
            Protocol::Ws => {
                let message = frame(true, opcode::BINARY, &data);
                // The same header without the mask and its bit.
                let mut answer = message[..message.len() - data.len() - 4].to_vec();
                answer[1] &= 0x7f;
                answer.extend(data);
                (message, answer)
            }
            Protocol::Http => (
                b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n".to_vec(),
                Vec::new(),
            ),
        }
    }

    /// How many of these bytes are an answer, and whether it is a good one.
    fn taken(self, received: &[u8], answer: &[u8]) -> Result<Option<(usize, bool)>> {
        if self != Protocol::Http {
            let compared = received.len().min(answer.len());
            ensure!(
                received[..compared] == answer[..compared],
                "other bytes came back"
            );
            return Ok((compared == answer.len()).then_some((answer.len(), true)));
        }
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&received[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length
            .context("an answer without its length")?
            .trim()
            .parse()?;
        let whole = end + 4 + length;
        let good = head.starts_with("http/1.1 200 ");
        Ok((received.len() >= whole).then_some((whole, good)))
    }
}

/// The workers below a process, the oldest first.
fn workers(first: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids
        .filter_map(|pid| {
            let stat = Stat::of(pid).filter(|stat| stat.state != 'Z')?;
            Some((pid, stat.parent))
        })
        .collect();
    let mut below = vec![first];
    let mut at = 0;
    while let Some(&parent) = below.get(at) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        below.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    let mut workers: Vec<u32> = below
        .into_iter()
        .skip(1)
        .filter(|&pid| process::title(pid).is_some_and(|title| title.contains("worker")))
        .collect();
    workers.sort_unstable();
    workers
}

fn wait(epoll: &OwnedFd, events: &mut Vec<epoll::Event>, most: Duration) -> Result<()> {
    let timeout = Timespec {
        tv_sec: most.as_secs() as i64,
        tv_nsec: most.subsec_nanos().into(),
    };
    events.clear();
    match epoll::wait(epoll, spare_capacity(events), Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The server has closed the connection.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), ConnectionReset | BrokenPipe)
}

/// How long the load runs in a window before something happens.
const BEFORE: Duration = Duration::from_millis(50);
/// How long an answer is waited for before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long is looked for answers that nothing has asked for.
const SETTLE: Duration = Duration::from_millis(20);
