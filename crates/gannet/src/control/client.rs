//! The client's end of the control socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;

use super::{
    ClientPage, ClientRow, Count, Filter, Payload, Refusal, ReloadEvent, Reloaded, Reply,
    ReplyResult, Request, Setting, Status, VERSION, socket_path,
};
use crate::{ConnId, Result, account::name_of};

type ControlResult<T> = std::result::Result<T, ControlError>;

/// A connection to the manager of a running server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

/// What [`Client::reload_with`] is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadOptions {
    /// Replace task workers only.
    pub tasks_only: bool,
    /// How long to wait for the end, without which the reload goes on all the same. Default: as long
    /// as it takes, which the server bounds: `start_timeout_ms` for each worker, two at a time, and
    /// `max_wait_time_ms` of a reload before it.
    pub timeout: Option<Duration>,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No server has this pid file.
    #[error("no server is running (pid file {})", pid_file.display())]
    NotRunning {
        /// The pid file.
        pid_file: PathBuf,
    },
    /// The socket is another user's. What asks there is not trusted either.
    #[error(
        "the server runs as user {owner}: only that user and root can steer it (control socket {})",
        socket.display()
    )]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// The user's name, or number.
        owner: String,
    },
    /// The server did not do it.
    #[error("{message}")]
    Refused {
        /// A word for programs: `bad_request`, `not_found`, `unavailable`.
        code: String,
        /// A sentence for people.
        message: String,
    },
    /// The server speaks another version of the protocol.
    #[error("the server speaks version {found} of the control protocol, this program {VERSION}")]
    Version {
        /// The server's version.
        found: u32,
    },
    /// The server closed the connection instead of replying.
    #[error("the server ended before it replied")]
    Closed,
    /// The server closed the connection, and runs on.
    #[error(
        "the server runs, and has closed the connection: it lets in its own user and root, and only \
         so many at a time"
    )]
    Dismissed,
    /// There was no reply in time. What was asked for may still be done.
    #[error("the server has not replied in time")]
    Late,
    /// The reply was no reply.
    #[error("the server's reply cannot be understood")]
    Reply(#[source] serde_json::Error),
    /// The socket failed.
    #[error("control socket {}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

impl Client {
    /// Connects to the server with this pid file.
    pub fn connect(pid_file: impl AsRef<Path>) -> Result<Self> {
        let socket = socket_path(pid_file.as_ref());
        let stream = UnixStream::connect(&socket).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlError::NotRunning {
                    pid_file: pid_file.as_ref().to_owned(),
                }
            }
            io::ErrorKind::PermissionDenied if owner(&socket).is_some() => {
                let owner = owner(&socket).unwrap_or_default();
                let socket = socket.clone();
                ControlError::Foreign { socket, owner }
            }
            _ => ControlError::Io {
                socket: socket.clone(),
                source,
            },
        })?;
        let there = rustix::net::sockopt::socket_peercred(&stream)?.uid;
        let here = rustix::process::geteuid();
        // In a directory that all may write to, anybody could have put a socket there.
        if !here.is_root() && !there.is_root() && there != here {
            let owner = name_of(there.as_raw());
            return Err(ControlError::Foreign { socket, owner }.into());
        }
        Ok(Client {
            stream: BufReader::new(stream),
            socket,
        })
    }

    /// Stops the server gracefully; returns when it has ended.
    pub fn stop(mut self) -> Result {
        match self.request::<serde_json::Value>(&Request::Stop {}) {
            Ok(_) => {}
            Err(ControlError::Closed) if self.is_there() => {
                return Err(ControlError::Dismissed.into());
            }
            // It was on its way already.
            Err(ControlError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // The manager closes the socket as the last thing it does.
        let mut line = String::new();
        match self.read_line(&mut line) {
            Ok(()) | Err(ControlError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces workers and task workers (`tasks_only`: task workers only) by new processes of the
    /// program that is on disk now; returns when the new ones have taken over.
    ///
    /// An aborted reload is no `Err`: see [`Reloaded::error`].
    pub fn reload(&mut self, tasks_only: bool) -> Result<Reloaded> {
        Ok(self.request(&Request::Reload {
            tasks_only,
            progress: false,
        })?)
    }

    /// As [`Client::reload`]; `progress` hears what happens meanwhile.
    ///
    /// After [`ControlError::Late`] this connection is of no more use.
    pub fn reload_with(
        &mut self,
        options: ReloadOptions,
        mut progress: impl FnMut(&ReloadEvent),
    ) -> Result<Reloaded> {
        let deadline = options.timeout;
        // Later than the clock can say is never.
        let deadline = deadline.and_then(|timeout| Instant::now().checked_add(timeout));
        let request = Request::Reload {
            tasks_only: options.tasks_only,
            progress: true,
        };
        self.send(&request)?;
        let reloaded = loop {
            self.wait_until(deadline)?;
            match self.reply()? {
                ReplyResult::Event(event) => progress(&event),
                last => break result(last)?,
            }
        };
        self.wait_until(None)?;
        Ok(reloaded)
    }

    /// Asks for the state of the server.
    pub fn status(&mut self) -> Result<Status> {
        Ok(self.request(&Request::Status { pss: false })?)
    }

    /// As [`Client::status`], with [`Usage::pss`](super::Usage::pss), which takes some 0.2 ms of the
    /// manager's time for each process.
    pub fn status_with_pss(&mut self) -> Result<Status> {
        Ok(self.request(&Request::Status { pss: true })?)
    }

    /// Asks for the settings in force, and where they come from.
    pub fn settings(&mut self) -> Result<Vec<Setting>> {
        Ok(self.request(&Request::Settings {})?)
    }

    /// Asks for all connections. They may come and go while the list is made.
    pub fn clients(&mut self) -> Result<Vec<ClientRow>> {
        self.clients_where(&Filter::default(), usize::MAX)
    }

    /// Asks for the connections that are meant, at most `limit`.
    pub fn clients_where(&mut self, only: &Filter, limit: usize) -> Result<Vec<ClientRow>> {
        let mut clients = Vec::new();
        let mut from = Some(0);
        while let Some(row) = from.filter(|_| clients.len() < limit) {
            let page: ClientPage = self.request(&Request::Clients {
                from: row,
                limit: PAGE.min(limit - clients.len()),
                only: only.clone(),
            })?;
            clients.extend(page.clients);
            from = page.next;
        }
        Ok(clients)
    }

    /// Closes a connection of the server; an error if it does not exist.
    pub fn kick(&mut self, conn: ConnId) -> Result {
        self.kick_where(Filter::conn(conn), None).map(drop)
    }

    /// Closes connections, WebSockets with this code and reason (else 1008). Says how many.
    pub fn kick_where(&mut self, to: Filter, close: Option<(u16, &str)>) -> Result<u64> {
        let Count { count } = self.request(&Request::Kick {
            to,
            code: close.map(|(code, _)| code),
            reason: close.map(|(_, reason)| reason.to_owned()),
        })?;
        Ok(count)
    }

    /// Sends a message to connections, at most 1 MiB. Says to how many it was queued: those that
    /// speak HTTP have no messages, and who does not read (`max_queued`) is cut.
    pub fn send_to(&mut self, to: Filter, data: Payload) -> Result<u64> {
        let data = data.into_data();
        let Count { count } = self.request(&Request::Send { to, data })?;
        Ok(count)
    }

    /// Sends a message to the subscribers of a topic, as [`Client::send_to`].
    pub fn publish(&mut self, topic: &str, data: Payload) -> Result<u64> {
        let data = data.into_data();
        let topic = topic.to_owned();
        let Count { count } = self.request(&Request::Publish { topic, data })?;
        Ok(count)
    }

    /// Whether the process at the other end still takes connections.
    fn is_there(&self) -> bool {
        let pid = |stream: &UnixStream| {
            let peer = rustix::net::sockopt::socket_peercred(stream);
            peer.map(|peer| peer.pid).ok()
        };
        UnixStream::connect(&self.socket)
            .is_ok_and(|stream| pid(&stream) == pid(self.stream.get_ref()))
    }

    fn request<T: DeserializeOwned>(&mut self, request: &Request) -> ControlResult<T> {
        self.send(request)?;
        result(self.reply()?)
    }

    fn send(&mut self, request: &Request) -> ControlResult<()> {
        let mut line = serde_json::to_string(request).map_err(ControlError::Reply)?;
        line.push('\n');
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        sent.map_err(|error| self.failed(error))
    }

    fn reply<T: DeserializeOwned>(&mut self) -> ControlResult<ReplyResult<T>> {
        let mut line = String::new();
        self.read_line(&mut line)?;
        let reply: Reply<T> =
            serde_json::from_str(&line).map_err(|error| not_understood(&line, error))?;
        Ok(reply.result)
    }

    /// What is read from now on must come before `deadline`.
    fn wait_until(&mut self, deadline: Option<Instant>) -> ControlResult<()> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(ControlError::Late);
        }
        let set = self.stream.get_ref().set_read_timeout(left);
        set.map_err(|error| self.failed(error))
    }

    fn read_line(&mut self, line: &mut String) -> ControlResult<()> {
        match self.stream.read_line(line) {
            Ok(0) => Err(ControlError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: io::Error) -> ControlError {
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ControlError::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::Late,
            _ => ControlError::Io {
                socket: self.socket.clone(),
                source,
            },
        }
    }
}

/// Whose file it is, if that can be seen.
fn owner(path: &Path) -> Option<String> {
    Some(name_of(path.symlink_metadata().ok()?.uid()))
}

fn result<T>(reply: ReplyResult<T>) -> ControlResult<T> {
    match reply {
        ReplyResult::Ok(value) => Ok(value),
        ReplyResult::Error(Refusal { code, message }) => {
            Err(ControlError::Refused { code, message })
        }
        ReplyResult::Event(_) => Err(ControlError::Reply(serde::de::Error::custom(
            "an event that nobody asked for",
        ))),
    }
}

/// A server of another version may reply with something else: say so.
fn not_understood(line: &str, error: serde_json::Error) -> ControlError {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(VERSION) => ControlError::Version {
            found: u32::try_from(found).unwrap_or(u32::MAX),
        },
        _ => ControlError::Reply(error),
    }
}

/// Connections asked for at a time, so that the manager is not busy for long.
const PAGE: usize = 1000;
