//! The floor: what a TCP echo costs that is nothing else. One thread, epoll, one read and one write.
//!
//!     compare-epoll-echo PORT

use std::{
    env, io,
    net::TcpListener,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
    net::{self, RecvFlags, SendFlags, SocketFlags, sockopt},
};

struct Connection {
    socket: OwnedFd,
    /// What the socket has not taken; nothing is read until it has.
    unsent: Vec<u8>,
}

fn main() -> io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok());
    let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(9501)))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            if event.data.u64() == LISTENER {
                while let Ok(socket) =
                    net::accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
                {
                    sockopt::set_tcp_nodelay(&socket, true)?;
                    let slot = socket.as_raw_fd() as usize;
                    epoll::add(
                        &epoll,
                        &socket,
                        EventData::new_u64(slot as u64),
                        EventFlags::IN,
                    )?;
                    if connections.len() <= slot {
                        connections.resize_with(slot + 1, || None);
                    }
                    connections[slot] = Some(Connection {
                        socket,
                        unsent: Vec::new(),
                    });
                }
                continue;
            }
            let slot = event.data.u64() as usize;
            let Some(connection) = &mut connections[slot] else {
                continue;
            };
            match connection.turn(&mut buffer) {
                Ok(was_blocked) if was_blocked != connection.unsent.is_empty() => {}
                Ok(was_blocked) => {
                    let wanted = if was_blocked {
                        EventFlags::IN
                    } else {
                        EventFlags::OUT
                    };
                    epoll::modify(&epoll, connection.socket.as_fd(), event.data, wanted)?;
                }
                // Closing takes it out of the epoll too.
                Err(_) => connections[slot] = None,
            }
        }
    }
}

impl Connection {
    /// Reads and writes once; whether something was unsent before.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<bool, Errno> {
        let was_blocked = !self.unsent.is_empty();
        if was_blocked {
            let sent = self.send(&self.unsent)?;
            self.unsent.drain(..sent);
            return Ok(true);
        }
        let count = match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(Errno::PIPE),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error),
        };
        let sent = self.send(&buffer[..count])?;
        self.unsent.extend_from_slice(&buffer[sent..count]);
        Ok(false)
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => Ok(0),
            other => other,
        }
    }
}

const LISTENER: u64 = u64::MAX;
