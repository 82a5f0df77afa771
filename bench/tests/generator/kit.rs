//! Runs the generator, and servers of a few lines.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use serde_json::Value;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    /// What it printed, if that was JSON.
    pub(crate) json: Value,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Runs the generator with these arguments, as JSON, for a short time.
pub(crate) fn bench(arguments: &[&str]) -> Outcome {
    let short = ["--duration", "400ms", "--warmup", "50ms", "--json"];
    let given = |flag: &&str| arguments.contains(flag);
    let mut all = arguments.to_vec();
    for pair in short.chunks(2) {
        if !given(&pair[0]) {
            all.extend(pair);
        }
    }
    run(&all)
}

/// Runs the generator with these arguments.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_gannet-bench"))
        .args(arguments)
        .output()
        .expect("the generator runs");
    let text = String::from_utf8(output.stdout).expect("text");
    Outcome {
        code: output.status.code(),
        json: serde_json::from_str(&text).unwrap_or(Value::Null),
        output: text,
        errors: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Outcome {
    /// A number, by its path with points.
    pub(crate) fn number(&self, path: &str) -> f64 {
        let mut value = &self.json;
        for name in path.split('.') {
            value = &value[name];
        }
        value
            .as_f64()
            .unwrap_or_else(|| panic!("{path} is {value}: {self:?}"))
    }

    /// Ended well, and did something.
    pub(crate) fn expect_clean(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.number("errors"), 0.0, "{self:?}");
    }

    /// Ended with errors, of which one says this.
    pub(crate) fn expect_error(&self, text: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        let samples = self.json["error_samples"].to_string();
        assert!(samples.contains(text), "{text} is not in {samples}");
    }
}

/// A port on which nobody listens, and nobody else can.
pub(crate) struct Reserved {
    socket: OwnedFd,
    pub(crate) address: SocketAddr,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let address = getsockname(&socket).expect("its address");
        let address = SocketAddr::try_from(address).expect("an address of IP");
        Reserved { socket, address }
    }

    pub(crate) fn listen(self) -> TcpListener {
        listen(&self.socket, 16).expect("a listener");
        TcpListener::from(self.socket)
    }
}

/// Serves each connection in a thread of its own; the function gets how many there were before it.
pub(crate) fn serve(each: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (each, count) = (Arc::new(each), AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (each, number) = (Arc::clone(&each), count.fetch_add(1, Ordering::Relaxed));
            stream.set_nodelay(true).expect("a socket");
            thread::spawn(move || each(stream, number));
        }
    });
    address
}

/// Sends messages of this size back as `change` makes them of their number and bytes; `None` ends the
/// connection.
pub(crate) fn echo(
    mut stream: TcpStream,
    size: usize,
    mut change: impl FnMut(u64, &mut Vec<u8>) -> Option<()>,
) {
    let mut message = vec![0; size];
    for number in 0.. {
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        let mut answer = message.clone();
        let goes_on = change(number, &mut answer).is_some();
        if stream.write_all(&answer).is_err() || !goes_on {
            return;
        }
    }
}

/// Answers each request without a body with this.
pub(crate) fn respond(mut stream: TcpStream, response: &str) {
    let mut lines = BufReader::new(stream.try_clone().expect("a socket"));
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
        if line == "\r\n" && stream.write_all(response.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}
