//! Starts the program and talks to it.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; ends with the value.
pub(crate) struct Server {
    child: Child,
    pub(crate) dir: TempDir,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// What it printed when it was ready.
    pub(crate) greeting: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Server::start_with(&[])
    }

    /// With these arguments as well.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Server::launch(tempfile::tempdir().unwrap(), "127.0.0.1:0", arguments)
    }

    /// Stops it and starts it anew, with the same data on the same port.
    pub(crate) fn restart(self) -> Self {
        let (dir, address) = self.stop();
        Server::launch(dir, &address, &[])
    }

    /// Stops it as `gannet stop` does, which must end well.
    pub(crate) fn stop(mut self) -> (TempDir, String) {
        let output = self.command(&["stop"]);
        assert!(output.status.success(), "{output:?}");
        wait_until("the server has ended", || {
            self.child.try_wait().unwrap().is_some()
        });
        assert!(self.child.wait().unwrap().success());
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        (dir, std::mem::take(&mut self.address))
    }

    fn launch(dir: TempDir, listen: &str, arguments: &[&str]) -> Self {
        let mut child = program(&data(dir.path()))
            .args(["--listen", listen, "--workers", "2"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let greeting = read_greeting(child.stdout.take().unwrap());
        let address = greeting
            .split("://")
            .nth(1)
            .unwrap_or_else(|| panic!("{greeting}"));
        let address = address.split('/').next().unwrap().to_owned();
        Server {
            child,
            dir,
            address,
            greeting,
        }
    }

    pub(crate) fn key(&self) -> String {
        std::fs::read_to_string(data(self.dir.path()).join("api-key"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Runs `gannet` with this server's data directory.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        program(&data(self.dir.path()))
            .args(words)
            .output()
            .unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.command(&["status", "--json"]).stdout).unwrap()
    }

    pub(crate) fn reload(&self) {
        let output = self.command(&["reload"]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Kills every worker process as hard as can be.
    pub(crate) fn kill_workers(&self) {
        let pids: Vec<String> = self.status()["workers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|worker| Some(worker["pid"].as_u64()?.to_string()))
            .collect();
        assert!(!pids.is_empty(), "nobody to be killed");
        // One of them may have ended by itself since, if a reload was not long ago.
        Command::new("kill").arg("-9").args(&pids).output().unwrap();
    }

    pub(crate) fn wait_for_workers(&self) {
        wait_until("all workers are ready", || {
            let status = self.status();
            let workers = status["workers"].as_array().unwrap();
            workers.iter().all(|worker| worker["state"] == "ready")
        });
    }

    /// Sends a request and returns the status and the body. No body: GET.
    pub(crate) fn http(&self, path: &str, key: Option<&str>, body: Option<&Value>) -> (u16, Value) {
        let (status, body) = self.http_text(path, key, body.map(Value::to_string));
        (
            status,
            serde_json::from_str(&body).unwrap_or(Value::String(body)),
        )
    }

    pub(crate) fn http_text(
        &self,
        path: &str,
        key: Option<&str>,
        body: Option<String>,
    ) -> (u16, String) {
        let mut request = match &body {
            None => format!("GET {path} HTTP/1.1\r\n"),
            Some(body) => format!(
                "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ),
        };
        request += &format!("Host: {}\r\nConnection: close\r\n", self.address);
        if let Some(key) = key {
            request += &format!("Authorization: Bearer {key}\r\n");
        }
        request += "\r\n";
        request += &body.unwrap_or_default();
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{response}"));
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    /// A WebSocket of nobody yet.
    pub(crate) fn socket(&self) -> Client {
        let url = format!("ws://{}/v1/socket", self.address);
        let (socket, _) = tungstenite::client(url, self.connect()).unwrap();
        Client {
            socket,
            lines: VecDeque::new(),
            next_id: 1,
        }
    }

    /// A WebSocket of this user.
    pub(crate) fn client(&self, user: &str) -> Client {
        let mut client = self.socket();
        client.ok(json!({"op": "hello", "user": user, "device": "test"}));
        client
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody's WebSocket.
pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
    /// Lines that came and that nobody asked for yet.
    lines: VecDeque<Value>,
    next_id: u64,
}

impl Client {
    /// Sends a request and returns the `ok` of its reply.
    pub(crate) fn ok(&mut self, request: Value) -> Value {
        let mut reply = self.ask(request);
        assert!(reply.get("err").is_none(), "{reply}");
        reply["ok"].take()
    }

    /// Sends a request and returns the whole reply.
    pub(crate) fn ask(&mut self, request: Value) -> Value {
        let id = self.send(request);
        self.line(|line| line["re"] == id)
    }

    /// Sends a request and returns its id.
    pub(crate) fn send(&mut self, mut request: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        self.socket
            .send(Message::text(request.to_string()))
            .unwrap();
        id
    }

    pub(crate) fn sub(&mut self, channel: &str) -> Value {
        self.ok(json!({"op": "sub", "channel": channel}))
    }

    pub(crate) fn say(&mut self, channel: &str, text: &str) -> Value {
        self.ok(say(channel, text))
    }

    /// The next push of this kind.
    pub(crate) fn push(&mut self, op: &str) -> Value {
        self.line(|line| line["op"] == op)
    }

    /// Takes the first line that is wanted; the others stay.
    pub(crate) fn line(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.lines.iter().position(&wanted) {
                return self.lines.remove(at).unwrap();
            }
            let frame = self
                .socket
                .read()
                .expect("the connection is open and something comes");
            if let Message::Text(text) = frame {
                self.lines
                    .extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
            }
        }
    }

    /// Whether the server closed it, and nothing else came.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.socket.read(), Ok(Message::Close(_)) | Err(_))
    }

    /// Vanishes without a word, as a machine whose power fails.
    pub(crate) fn vanish(self) {
        drop(self);
    }
}

/// A request that says this, with the text as key.
pub(crate) fn say(channel: &str, text: &str) -> Value {
    json!({"op": "pub", "channel": channel, "data": text, "key": text})
}

/// `gannet` with this data directory and none of the surroundings' settings.
pub(crate) fn program(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gannet"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GANNET_") {
            command.env_remove(name);
        }
    }
    command
        .env("GANNET_MAX_CONNECTIONS", "1000")
        .env("GANNET_ADMIN_LISTEN", "127.0.0.1:0")
        .arg("--data")
        .arg(data);
    command
}

/// The data directory inside of a test's directory: it is not there before the first start.
pub(crate) fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Waits for a condition.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Offsets and texts.
pub(crate) fn places(messages: &Value) -> Vec<(u64, String)> {
    let messages = messages.as_array().unwrap();
    messages
        .iter()
        .map(|message| {
            (
                message["offset"].as_u64().unwrap(),
                message["data"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

fn read_greeting(stdout: ChildStdout) -> String {
    let mut greeting = String::new();
    let mut lines = BufReader::new(stdout);
    // The line with the key, or at the first start the example's last line, is the end.
    while !(greeting.contains("Key:   in ") || greeting.contains("    -d ")) {
        assert!(
            lines.read_line(&mut greeting).unwrap() > 0,
            "it did not start: {greeting}"
        );
    }
    greeting
}
