//! The server's end of the control socket: lines in, lines out, never blocking.
//!
//! Only processes of the same user, and of root, are let in. At most [`MAX_CONNECTIONS`] at a time:
//! for one more, the one that has been silent longest is closed.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::BorrowedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::event::epoll::{self, EventData, EventFlags};
use serde::Serialize;

use crate::{
    Error, Result,
    account::Rights,
    control::{MAX_DATA, Reply, Request, socket_path},
};

/// The socket; removed when dropped.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    connections: BTreeMap<u64, Connection>,
    next_id: u64,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    /// So many bytes of the input are known to have no end of a line.
    searched: usize,
    output: Vec<u8>,
    /// A request is being worked on: the next waits, and is not even read.
    busy: bool,
    /// It wants to hear of what happens before the reply.
    wants_events: bool,
    last_active: Instant,
}

/// Epoll tokens that are no child's: see [`Children::source`](super::children::Children::source).
pub(super) const LISTENER_TOKEN: u64 = 2;

impl ControlSocket {
    pub(super) fn bind(pid_file: &Path, rights: &Rights) -> Result<Self> {
        let path = socket_path(pid_file);
        let (listener, by) = rights.or_as_root(|| Self::open(&path))?;
        rights.give(&path, by)?;
        Ok(ControlSocket {
            listener,
            path,
            connections: BTreeMap::new(),
            next_id: 1,
        })
    }

    fn open(path: &Path) -> Result<UnixListener> {
        let failed = |error: io::Error| {
            Error::usage(format!(
                "cannot open the control socket {}: {error} (choose another place with --pid-file)",
                path.display()
            ))
        };
        // The pid file is locked by now: a socket that is still there has no owner.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    pub(super) fn watch(&self, epoll: BorrowedFd<'_>) -> io::Result<()> {
        let token = EventData::new_u64(LISTENER_TOKEN);
        Ok(epoll::add(epoll, &self.listener, token, EventFlags::IN)?)
    }

    /// The connection that an event with this number is about.
    pub(super) fn connection(token: u64) -> Option<u64> {
        (token & 3 == 2 && token != LISTENER_TOKEN).then_some(token >> 2)
    }

    pub(super) fn accept(&mut self, epoll: BorrowedFd<'_>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Err(error) = self.admit(epoll, stream) {
                tracing::warn!("control connection refused: {error}");
            }
        }
    }

    /// Reads what has arrived and writes what waits; returns a request, if one is complete. Call it
    /// until it returns none.
    pub(super) fn serve(&mut self, id: u64, now: Instant) -> Option<Request> {
        let connection = self.connections.get_mut(&id)?;
        connection.last_active = now;
        loop {
            let open = connection.write().and_then(|()| connection.read());
            let line = match connection.next_line() {
                Some(line) => line,
                // A client may have closed its sending half and still wait for a reply.
                None if open.as_ref().is_ok_and(|open| *open) || connection.is_needed() => {
                    return None;
                }
                None => {
                    self.connections.remove(&id);
                    return None;
                }
            };
            match serde_json::from_slice(&line) {
                Ok(request) => {
                    connection.busy = true;
                    return Some(request);
                }
                Err(error) => connection.reply(&Reply::error("bad_request", error)),
            }
        }
    }

    /// Answers the request that [`ControlSocket::serve`] returned.
    pub(super) fn reply<T: Serialize>(&mut self, id: u64, reply: &Reply<T>) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.busy = false;
            connection.wants_events = false;
            connection.reply(reply);
        }
    }

    /// The request that [`ControlSocket::serve`] returned is to be told of events before its reply.
    pub(super) fn wants_events(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.wants_events = true;
        }
    }

    /// Tells of an event, if that is wanted.
    pub(super) fn tell<T: Serialize>(&mut self, id: u64, event: &Reply<T>) {
        let connection = self.connections.get_mut(&id);
        if let Some(connection) = connection.filter(|connection| connection.wants_events) {
            connection.reply(event);
        }
    }

    fn admit(&mut self, epoll: BorrowedFd<'_>, stream: UnixStream) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?.uid;
        if peer != rustix::process::geteuid() && !peer.is_root() {
            let message = format!("user {} is neither the server's nor root", peer.as_raw());
            return Err(io::Error::new(ErrorKind::PermissionDenied, message));
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            let idle = self
                .connections
                .iter()
                .filter(|(_, connection)| !connection.busy);
            match idle
                .min_by_key(|(_, connection)| connection.last_active)
                .map(|(&id, _)| id)
            {
                Some(id) => drop(self.connections.remove(&id)),
                None => return Err(io::Error::other("too many requests are being worked on")),
            }
        }
        stream.set_nonblocking(true)?;
        let id = self.next_id;
        self.next_id += 1;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &stream, EventData::new_u64(id << 2 | 2), flags)?;
        let connection = Connection {
            stream,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            busy: false,
            wants_events: false,
            last_active: Instant::now(),
        };
        self.connections.insert(id, connection);
        Ok(())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // In a directory of root's it stays if the server is another user's: the next start replaces it.
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != ErrorKind::PermissionDenied
        {
            tracing::warn!(
                "cannot remove the control socket {}: {error}",
                self.path.display()
            );
        }
    }
}

impl Connection {
    /// Reads up to the end of a line. `false`: nothing more will come.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        loop {
            if self.is_behind() || self.find_line().is_some() {
                return Ok(true);
            }
            if self.input.len() > MAX_REQUEST {
                return Err(io::Error::new(ErrorKind::InvalidData, "request too long"));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.output.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        if self.is_behind() {
            return None;
        }
        let end = self.find_line()?;
        self.searched = 0;
        Some(self.input.drain(..=end).collect())
    }

    /// Where the first line ends.
    fn find_line(&mut self) -> Option<usize> {
        let new = &self.input[self.searched..];
        let end = new.iter().position(|&byte| byte == b'\n');
        let end = end.map(|end| self.searched + end);
        self.searched = end.unwrap_or(self.input.len());
        end
    }

    /// It has a request that is worked on, or does not read what it has asked for.
    fn is_behind(&self) -> bool {
        self.busy || self.output.len() > MAX_WAITING
    }

    fn is_needed(&self) -> bool {
        self.busy || !self.output.is_empty()
    }

    fn reply<T: Serialize>(&mut self, reply: &Reply<T>) {
        match serde_json::to_vec(reply) {
            Ok(line) => {
                self.output.extend_from_slice(&line);
                self.output.push(b'\n');
            }
            Err(error) => tracing::error!("cannot write a reply: {error}"),
        }
        // What fails here fails again when the connection is served, and is seen there.
        let _ = self.write();
    }
}

const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request: room for [`MAX_DATA`] in hexadecimal digits, or as text with what JSON adds.
const MAX_REQUEST: usize = 4 * MAX_DATA;
/// Bytes of replies that wait for a client which does not read: with more, it gets no other.
const MAX_WAITING: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{io::BufRead, os::fd::AsFd};

    use rustix::event::epoll::CreateFlags;

    use super::*;

    #[test]
    fn who_does_not_read_replies_is_not_served_further_until_it_does() {
        let pid_file = std::env::temp_dir().join(format!("gannet-control-{}", std::process::id()));
        let rights = Rights::wanted(&crate::Settings::default()).unwrap();
        let mut control = ControlSocket::bind(&pid_file, &rights).unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let mut client = UnixStream::connect(socket_path(&pid_file)).unwrap();
        control.accept(epoll.as_fd());
        let requests = 1_000;
        let lines = "{\"cmd\":\"settings\"}\n".repeat(requests);
        client.write_all(lines.as_bytes()).unwrap();

        let answer = "x".repeat(4_000);
        let serve = |control: &mut ControlSocket| {
            let mut served = 0;
            while control.serve(1, Instant::now()).is_some() {
                control.reply(1, &Reply::ok(&answer));
                served += 1;
            }
            served
        };
        let first = serve(&mut control);
        assert!(first < requests, "all {first} replies wait for the client");
        let waiting = control.connections[&1].output.len();
        assert!(waiting <= MAX_WAITING + 2 * answer.len(), "{waiting} bytes");
        assert_eq!(serve(&mut control), 0);

        let mut client = io::BufReader::new(client);
        let (mut served, mut line) = (first, String::new());
        for _ in 0..requests {
            line.clear();
            served += serve(&mut control);
            assert!(client.read_line(&mut line).unwrap() > answer.len());
        }
        assert_eq!(served, requests);
    }
}
