//! A server that does what messages tell it.
//!
//! On every listener a message is a word and its arguments, answered with text: `echo X`,
//! `sleep-async 50 X`, `gate FILE X`, `abort`, `sub TOPIC`, `task sleep 50 X`. TCP has one command a line (every
//! test sends its line in one write), WebSocket one a message; HTTP has routes (see `http`).
//! Messages that begin with `#` are echoed as they are. Datagrams have commands of their own (see
//! `packets`).
//!
//! Environment: `BEHAVE_TCP=raw` makes TCP a plain echo, `BEHAVE_TCP=framed` takes one command a
//! framed message, `BEHAVE_TCP=describe` answers a line that shows what one `receive` got;
//! `BEHAVE_FRAMING=custom` gives the first listener the framing of `framing`; `BEHAVE_RUNS=FILE` notes there every
//! handler that starts a `#` message, `mark` or `/mark/`, so that a test can count runs;
//! `BEHAVE_ERRORS=FILE` notes there what the program is told of workers that
//! end badly; `BEHAVE_WEBSOCKET=echo` echoes every WebSocket message; `BEHAVE_HTTP=report` answers every request
//! with its method, target and body; `BEHAVE_CONNECT=greet` greets TCP clients; `BEHAVE_PROCESSES`
//! adds user processes, `BEHAVE_SHARED` shared memory, `BEHAVE_TIMER` timers, `BEHAVE_FIRST_TASKS` tasks: see
//! `processes`, `shared`, `timers`, `tasks`; for what prints and logs see `logs`; with `BEHAVE_THREAD`, `main` starts a thread.

mod commands;
mod framing;
mod gates;
mod http;
mod logs;
mod packets;
mod processes;
mod shared;
mod tasks;
mod timers;

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
};

use bytes::Bytes;
use gannet::{
    Accept, CloseReason, Conn, Dispatch, Handler, Handshake, Listener, Message, PacketSource,
    Request, Response, Result, Server, Settings, Task, TaskError, TaskId, Worker, WorkerId,
    http::StatusCode,
};

/// What a build of the program is to do differently.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// What `version` answers.
    pub version: &'static str,
    /// How the start goes.
    pub start: Start,
}

/// How the start of a worker goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Well.
    Ready,
    /// With a panic.
    Panics,
    /// With an error.
    Fails,
    /// Without an end.
    Hangs,
}

/// The `main` of a test server; listeners and settings come from the configuration file.
pub fn serve(variant: Variant) -> Result {
    // Every process of the server runs this `main`, and each has one variant.
    VARIANT.set(variant).expect("called once");
    if std::env::var_os("BEHAVE_THREAD").is_some() {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::MAX));
    }
    let mut settings = Settings::default();
    if std::env::var("BEHAVE_FRAMING").is_ok_and(|framing| framing == "custom") {
        let listener = Listener::tcp("127.0.0.1:0").framing(framing::custom());
        settings.listeners.push(listener);
    }
    let errors = std::env::var_os("BEHAVE_ERRORS");
    processes::add(shared::declare(Server::new(settings))?)?
        .dispatch_with(|event| match event.data.strip_prefix(b"/worker?at=") {
            Some([digit, ..]) => usize::from(*digit),
            _ => usize::from(event.peer.port().unwrap_or(0)),
        })
        // The function is for those who set `dispatch` to `custom`.
        .dispatch(Dispatch::Connection)
        .on_worker_error(move |error| {
            let Some(path) = &errors else { return };
            let file = OpenOptions::new().create(true).append(true).open(path);
            let line = format!(
                "{error} (pid {:?}, {} restarts)\n",
                error.pid, error.restarts
            );
            file.and_then(|mut file| file.write_all(line.as_bytes()))
                .expect("note an error");
            assert!(!line.contains("exit code 77"), "as asked");
        })
        .run::<Behave>()
}

/// What TCP connections do with what they receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tcp {
    Lines,
    Raw,
    Framed,
    Describe,
}

/// The handler.
pub(crate) struct Behave {
    worker: Worker,
    variant: Variant,
    tcp: Tcp,
    echoes: bool,
    reports: bool,
    greets: bool,
    runs: Option<File>,
    /// Who is told of the end of a detached task.
    detached: RefCell<HashMap<TaskId, Conn>>,
}

impl Handler for Behave {
    async fn start(worker: &Worker) -> Result<Self> {
        let variant = *VARIANT.get().expect("set by main");
        match variant.start {
            Start::Ready => {}
            Start::Panics => panic!("this build cannot start"),
            Start::Fails => {
                // What a library may do, and forget.
                tokio::task::spawn_blocking(|| std::thread::sleep(std::time::Duration::MAX));
                return Err(gannet::Error::new("this build will not start"));
            }
            Start::Hangs => std::future::pending().await,
        }
        let runs = match std::env::var_os("BEHAVE_RUNS") {
            Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
            None => None,
        };
        let behave = Behave {
            worker: worker.clone(),
            variant,
            tcp: match std::env::var("BEHAVE_TCP").as_deref() {
                Ok("raw") => Tcp::Raw,
                Ok("framed") => Tcp::Framed,
                Ok("describe") => Tcp::Describe,
                _ => Tcp::Lines,
            },
            echoes: std::env::var("BEHAVE_WEBSOCKET").is_ok_and(|mode| mode == "echo"),
            reports: std::env::var("BEHAVE_HTTP").is_ok_and(|mode| mode == "report"),
            greets: std::env::var("BEHAVE_CONNECT").is_ok_and(|mode| mode == "greet"),
            runs,
            detached: RefCell::default(),
        };
        behave.begin_ticking()?;
        behave.submit_first().await?;
        Ok(behave)
    }

    async fn connect(&self, conn: Conn) -> Result {
        if self.greets {
            conn.send(format!("hello {}\n", conn.id())).await?;
        }
        Ok(())
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        match self.tcp {
            Tcp::Lines => {}
            Tcp::Raw => {
                self.note(&data);
                return conn.send(data).await;
            }
            Tcp::Describe => return conn.send(format!("{}\n", data.escape_ascii())).await,
            Tcp::Framed if data.starts_with(b"#") => {
                self.note(&data);
                return conn.send_framed(data).await;
            }
            Tcp::Framed => {
                let text = String::from_utf8_lossy(&data);
                return match self.command(&conn, &text).await? {
                    Some(answer) => conn.send_framed(answer).await,
                    None => Ok(()),
                };
            }
        }
        for line in data.split_inclusive(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            if let Some(mut answer) = self.command(&conn, line.trim_end()).await? {
                answer.push('\n');
                conn.send(answer).await?;
            }
        }
        Ok(())
    }

    async fn packet(&self, from: PacketSource, data: Bytes) -> Result {
        self.take_packet(from, data).await
    }

    async fn request(&self, conn: Conn, request: Request) -> Result<Response> {
        self.route(conn, request).await
    }

    async fn open(&self, conn: Conn, handshake: Handshake) -> Result<Accept> {
        Ok(match handshake.path() {
            "/refuse" => Accept::refuse_with(StatusCode::FORBIDDEN, "not you"),
            "/protocol" => Accept::new().protocol("chat.v2").header("x-extra", "yes"),
            "/fail" => return Err(gannet::Error::new("as asked")),
            "/describe" => {
                let uid = handshake.query("uid").unwrap_or_default();
                let cookie = handshake.cookie("session").unwrap_or_default();
                let header = handshake.header("x-test").unwrap_or_default();
                conn.send(format!("uid={uid} cookie={cookie} header={header}"))
                    .await?;
                Accept::new()
            }
            "/bind" => {
                conn.bind(handshake.query("uid").unwrap_or_default())
                    .await?;
                Accept::new()
            }
            _ => Accept::new(),
        })
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        if self.echoes {
            return conn.send(message).await;
        }
        let text = match message.as_text() {
            Some(text) if !text.starts_with('#') => text.to_owned(),
            _ => {
                self.note(message.as_bytes());
                return conn.send(message).await;
            }
        };
        match self.command(&conn, &text).await? {
            Some(answer) => conn.send(answer).await,
            None => Ok(()),
        }
    }

    async fn close(&self, conn: Conn, reason: CloseReason) -> Result {
        let worker = self.worker.id();
        self.worker
            .publish("closed", format!("closed {} {reason} {worker}", conn.id()))
            .await
    }

    async fn task(&self, task: Task) -> Result<Bytes> {
        self.run_task(task).await
    }

    async fn finish(&self, task: TaskId, result: std::result::Result<Bytes, TaskError>) -> Result {
        let text = match result {
            Ok(data) => format!("finished {task} {}", String::from_utf8_lossy(&data)),
            Err(error) => format!("finished {task} error: {error}"),
        };
        let submitter = self.detached.borrow_mut().remove(&task);
        match submitter {
            Some(conn) => conn.send(text).await,
            // The worker that submitted it is gone, and its memory with it; or it was submitted by none.
            None => {
                self.note_first(&text);
                self.worker.publish("finished", text).await
            }
        }
    }

    async fn pipe_message(&self, from: WorkerId, data: Bytes) -> Result {
        let text = String::from_utf8_lossy(&data);
        self.worker
            .publish("piped", format!("piped {from} {} {text}", self.worker.id()))
            .await
    }

    async fn stop(&self) -> Result {
        if let Some(mut runs) = self.runs.as_ref() {
            runs.write_all(format!("stop {}\n", self.worker.id()).as_bytes())?;
        }
        Ok(())
    }
}

impl Behave {
    /// Notes that a handler runs for this message.
    fn note(&self, message: &[u8]) {
        if let Some(mut runs) = self.runs.as_ref() {
            let mut line = message.to_vec();
            if !line.ends_with(b"\n") {
                line.push(b'\n');
            }
            runs.write_all(&line).expect("note a run");
        }
    }
}

static VARIANT: std::sync::OnceLock<Variant> = std::sync::OnceLock::new();
