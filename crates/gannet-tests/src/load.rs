//! Numbered messages over many connections, with every answer checked.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    http::{self, HttpClient},
    tcp::TcpClient,
    websocket::{Frame, WebSocket, frame, opcode},
};

/// A load that runs until it is told to stop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Outcome>>,
}

/// What a load saw.
#[derive(Debug, Default)]
pub struct Report {
    /// Connections.
    pub connections: usize,
    /// Messages sent.
    pub sent: u64,
    /// Messages answered.
    pub answered: u64,
    /// Answers that came again.
    pub repeats: Vec<Repeat>,
    /// What went wrong, by connection.
    pub errors: Vec<String>,
    /// The longest that one message waited for its answer.
    pub slowest: Duration,
}

/// An answer that came more than once.
#[derive(Clone, Copy, Debug)]
pub struct Repeat {
    /// When the message was sent.
    pub sent: Instant,
    /// When the answer came again.
    pub came: Instant,
}

/// Who takes part in a load.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// Raw TCP: one message of 32 bytes at a time.
    Tcp(SocketAddr),
    /// TCP with a length of four bytes in front of each message: up to four messages of many sizes
    /// at a time, cut into writes anywhere.
    Framed(SocketAddr),
    /// WebSocket: up to four text and binary messages at a time.
    WebSocket(SocketAddr),
    /// HTTP keep-alive: POST requests with bodies of many sizes, some of them chunked.
    Http(SocketAddr),
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
}

#[derive(Debug, Default)]
struct Outcome {
    sent: u64,
    answered: u64,
    repeats: Vec<Repeat>,
    slowest: Duration,
    error: Option<String>,
}

impl Load {
    /// Connects `count` clients of each kind and lets them send.
    pub fn start(kinds: &[Client], count: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let clients = (0..count * kinds.len())
            .map(|number| {
                let (kind, shared) = (kinds[number % kinds.len()], Arc::clone(&shared));
                thread::Builder::new()
                    .name(format!("client {number}"))
                    .stack_size(256 << 10)
                    .spawn(move || {
                        let mut outcome = Outcome::default();
                        if let Err(e) = take_part(kind, number, &shared, &mut outcome) {
                            outcome.error = Some(format!("{kind:?} {number}: {e}"));
                        }
                        outcome
                    })
                    .expect("a thread")
            })
            .collect();
        Load { shared, clients }
    }

    /// Messages answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Lets every client wait for the answers that are due, and says what they saw.
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until every client has ended by itself, as when the server stops.
    pub fn join(self) -> Report {
        let mut report = Report {
            connections: self.clients.len(),
            ..Report::default()
        };
        for client in self.clients {
            let outcome = client.join().unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                Outcome {
                    error: Some(format!("{text:?}")),
                    ..Outcome::default()
                }
            });
            report.sent += outcome.sent;
            report.answered += outcome.answered;
            report.repeats.extend(outcome.repeats);
            report.slowest = report.slowest.max(outcome.slowest);
            report.errors.extend(outcome.error);
        }
        report
    }
}

impl Report {
    /// Checks that every connection lived and every message was answered.
    pub fn expect_complete(&self) {
        assert!(
            self.errors.is_empty(),
            "{} errors: {:#?}",
            self.errors.len(),
            self.errors
        );
        assert_eq!(self.sent, self.answered, "messages without an answer");
        assert!(
            self.answered >= self.connections as u64,
            "hardly anything was sent: {self:?}"
        );
    }

    /// Checks that no answer came twice.
    pub fn expect_once(&self) {
        assert!(
            self.repeats.is_empty(),
            "{} repeats: {:?}",
            self.repeats.len(),
            self.repeats
        );
    }

    /// Checks that answers came twice only for messages under way when a worker died, which was
    /// at some time within one of these.
    pub fn expect_repeats_only_at(&self, deaths: &[(Instant, Instant)]) {
        for repeat in &self.repeats {
            let died = |&(from, to): &(Instant, Instant)| repeat.sent <= to && from <= repeat.came;
            assert!(
                deaths.iter().any(died),
                "a repeat without a death: {repeat:?}, {deaths:?}"
            );
        }
    }
}

fn take_part(
    kind: Client,
    number: usize,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<()> {
    match kind {
        Client::Tcp(address) => tcp(address, number, shared, outcome),
        Client::Framed(address) => framed(address, number, shared, outcome),
        Client::WebSocket(address) => websocket(address, number, shared, outcome),
        Client::Http(address) => http_requests(address, number, shared, outcome),
    }
}

fn tcp(
    address: SocketAddr,
    number: usize,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let mut client = TcpClient::try_connect(address)?;
    let mut times: Vec<Instant> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let n = times.len();
        times.push(Instant::now());
        outcome.sent += 1;
        // If the server closes, there may still be answers to read.
        let _ = client.try_send(record(number, n));
        loop {
            let answer = client.try_bytes(RECORD)?;
            let (from, answered) = parse(&answer)?;
            outcome.count(shared, number, from, n, answered, &times)?;
            if answered == n {
                break;
            }
        }
        thread::sleep(PACE);
    }
    outcome.expect_silence(client, number)
}

fn framed(
    address: SocketAddr,
    number: usize,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let mut client = TcpClient::try_connect(address)?;
    let mut times: Vec<Instant> = Vec::new();
    let mut due = 0;
    loop {
        let stopping = shared.stop.load(Ordering::Relaxed);
        let mut burst = Vec::new();
        while !stopping && times.len() < due + WINDOW {
            let n = times.len();
            let mut message = record(number, n);
            message.resize(RECORD + body(number, n).len(), b'.');
            burst.extend((message.len() as u32).to_be_bytes());
            burst.extend(message);
            times.push(Instant::now());
            outcome.sent += 1;
        }
        // If the server closes, there may still be answers to read.
        let cut = burst.len() * (times.len() % 7) / 7;
        for piece in [&burst[..cut], &burst[cut..]] {
            let _ = client.try_send(piece);
        }
        if due == times.len() {
            return outcome.expect_silence(client, number);
        }
        let len = client.try_bytes(4)?;
        let len = u32::from_be_bytes(len.try_into().unwrap_or_default()) as usize;
        let bytes = client.try_bytes(len)?;
        let (record, padding) = bytes.split_at_checked(RECORD).unwrap_or((&bytes, &[]));
        let (from, answered) = parse(record)?;
        if padding.len() != body(number, answered).len() {
            let len = padding.len();
            return Err(io::Error::other(format!("message {answered}: {len} bytes")));
        }
        outcome.count(shared, number, from, due, answered, &times)?;
        if answered == due {
            due += 1;
        }
        if due == times.len() {
            thread::sleep(PACE);
        }
    }
}

fn websocket(
    address: SocketAddr,
    number: usize,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let mut client = WebSocket::try_connect(address, "/", &[])?
        .map_err(|refused| io::Error::other(format!("refused: {refused:?}")))?;
    let mut times: Vec<Instant> = Vec::new();
    let mut due = 0;
    loop {
        let stopping = shared.stop.load(Ordering::Relaxed);
        // A burst in one write, so that one read finds several messages.
        let mut burst = Vec::new();
        while !stopping && times.len() < due + WINDOW {
            let n = times.len();
            let code = if n.is_multiple_of(2) {
                opcode::TEXT
            } else {
                opcode::BINARY
            };
            burst.extend(frame(true, code, &record(number, n)));
            times.push(Instant::now());
            outcome.sent += 1;
        }
        // If the server closes, there may still be answers to read.
        let _ = client.try_raw(burst);
        if due == times.len() {
            break;
        }
        let bytes = match client.try_message()? {
            Frame::Text(text) => text.into_bytes(),
            Frame::Binary(bytes) => bytes,
            other => return Err(io::Error::other(format!("{other:?}"))),
        };
        let (from, answered) = parse(&bytes)?;
        outcome.count(shared, number, from, due, answered, &times)?;
        if answered == due {
            due += 1;
        }
        if due == times.len() {
            thread::sleep(PACE);
        }
    }
    client.frame(true, opcode::CLOSE, 1000_u16.to_be_bytes());
    loop {
        match client.try_message()? {
            Frame::Close(_) => return Ok(()),
            // What follows the last answer can only be a repeat of it.
            Frame::Text(_) | Frame::Binary(_) => {
                outcome.repeats.push(Repeat {
                    sent: times[due - 1],
                    came: Instant::now(),
                });
            }
            Frame::Ping(_) | Frame::Pong(_) => {}
        }
    }
}

fn http_requests(
    address: SocketAddr,
    number: usize,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let mut client = HttpClient::try_connect(address)?;
    let mut n = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let body = body(number, n);
        outcome.sent += 1;
        if n % 3 == 2 {
            client.try_send(
                "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            for chunk in body.chunks(body.len() / 3 + 1) {
                client.try_send(http::chunk_of(chunk))?;
            }
            client.try_send("0\r\n\r\n")?;
        } else {
            client.try_send(http::post("/echo", &body))?;
        }
        let response = client.try_response()?;
        if response.status != 200 || response.body != body {
            let (status, length) = (response.status, response.body.len());
            return Err(io::Error::other(format!(
                "request {n} of {} bytes: status {status}, {length} bytes",
                body.len()
            )));
        }
        if !response.keeps_alive() {
            return Err(io::Error::other(format!("request {n}: the server closes")));
        }
        outcome.answer(shared, begin);
        n += 1;
        thread::sleep(PACE);
    }
    Ok(())
}

impl Outcome {
    /// Takes the answer to message `answered`, when the one to `due` is next.
    fn count(
        &mut self,
        shared: &Shared,
        number: usize,
        from: usize,
        due: usize,
        answered: usize,
        times: &[Instant],
    ) -> io::Result<()> {
        if from != number {
            return Err(io::Error::other(format!(
                "an answer meant for connection {from}"
            )));
        }
        if answered == due {
            self.answer(shared, times[due]);
            return Ok(());
        }
        if answered > due {
            return Err(io::Error::other(format!(
                "answer {answered}, when {due} was due"
            )));
        }
        self.repeats.push(Repeat {
            sent: times[answered],
            came: Instant::now(),
        });
        Ok(())
    }

    fn answer(&mut self, shared: &Shared, sent: Instant) {
        self.answered += 1;
        self.slowest = self.slowest.max(sent.elapsed());
        shared.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// What a TCP connection still gets after its last answer can only be repeats.
    fn expect_silence(&mut self, mut client: TcpClient, number: usize) -> io::Result<()> {
        client.finish();
        let rest = client.rest();
        for record in rest.chunks(RECORD) {
            let (from, _) = parse(record)?;
            if from != number {
                return Err(io::Error::other(format!(
                    "an answer meant for connection {from}"
                )));
            }
            let now = Instant::now();
            self.repeats.push(Repeat {
                sent: now - Duration::from_secs(1),
                came: now,
            });
        }
        Ok(())
    }
}

/// Message `n` of connection `number`.
fn record(number: usize, n: usize) -> Vec<u8> {
    format!("#{number:010} {n:018} \n").into_bytes()
}

/// The connection and the number in a record.
fn parse(record: &[u8]) -> io::Result<(usize, usize)> {
    let wrong = || {
        io::Error::other(format!(
            "an answer of {:?}",
            String::from_utf8_lossy(record)
        ))
    };
    let text = std::str::from_utf8(record).map_err(|_| wrong())?;
    let fields = text
        .strip_prefix('#')
        .and_then(|text| text.strip_suffix(" \n"));
    let (number, n) = fields
        .and_then(|text| text.split_once(' '))
        .ok_or_else(wrong)?;
    Ok((
        number.parse().map_err(|_| wrong())?,
        n.parse().map_err(|_| wrong())?,
    ))
}

/// A body whose size depends on its number: mostly small, some large.
fn body(number: usize, n: usize) -> Vec<u8> {
    let size = match n % 16 {
        7 => 300_000,
        15 => 70_000,
        k => 10 + k * 100,
    };
    let seed = format!("{number}:{n}:");
    seed.bytes().cycle().take(size).collect()
}

/// Bytes of a record.
const RECORD: usize = 32;
/// WebSocket messages under way at a time.
const WINDOW: usize = 4;
/// How long a client rests between messages, so that two hundred of them leave the machine some
/// time for the server.
const PACE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;
    use crate::wait::wait_until;

    /// A server for one connection that answers the record with this number with `wrong(record)`,
    /// and closes if that is nothing.
    fn wrong_at(number: usize, wrong: fn(&[u8]) -> Vec<u8>) -> Report {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let load = Load::start(&[Client::Tcp(listener.local_addr().unwrap())], 1);
        let (mut client, _) = listener.accept().unwrap();
        let mut record = [0; RECORD];
        for n in 0..number + 3 {
            if client.read_exact(&mut record).is_err() {
                break;
            }
            let answer = if n == number {
                wrong(&record)
            } else {
                record.to_vec()
            };
            if answer.is_empty() {
                break;
            }
            client.write_all(&answer).unwrap();
        }
        wait_until("the answers to arrive", || load.answered() >= number as u64);
        drop(client);
        load.stop()
    }

    #[test]
    fn notices_an_answer_that_comes_twice() {
        let report = wrong_at(2, |record| record.repeat(2));
        assert_eq!(report.repeats.len(), 1, "{report:?}");
    }

    #[test]
    fn notices_other_bytes() {
        let report = wrong_at(2, |record| record.iter().rev().copied().collect());
        assert!(report.errors[0].contains("an answer of"), "{report:?}");
        assert_eq!(report.answered, 2);
    }

    #[test]
    fn notices_an_answer_meant_for_another() {
        let report = wrong_at(2, |_| record(7, 2));
        assert!(
            report.errors[0].contains("meant for connection 7"),
            "{report:?}"
        );
    }

    #[test]
    fn notices_a_connection_that_is_closed() {
        let report = wrong_at(2, |_| Vec::new());
        assert!(!report.errors.is_empty(), "{report:?}");
        assert!(report.answered < report.sent, "{report:?}");
    }
}
