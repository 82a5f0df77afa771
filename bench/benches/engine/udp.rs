//! Datagrams: many sockets with one message under way each.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    time::Timespec,
};

use crate::measured::Measured;

/// Sockets, and what they send.
pub(crate) struct Clients {
    sockets: Vec<UdpSocket>,
    message: Vec<u8>,
    /// What the answer ends with: before it stands the client's address.
    end: Vec<u8>,
}

impl Clients {
    pub(crate) fn connect(to: SocketAddr, sockets: usize, size: usize) -> Result<Self> {
        let connect = |_| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(socket)
        };
        let message: Vec<u8> = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
        Ok(Clients {
            sockets: (0..sockets)
                .map(connect)
                .collect::<Result<_, _>>()
                .context("a socket")?,
            end: [b" said: ", &message[..], b"\n"].concat(),
            message,
        })
    }

    /// Sends and checks for this long; then waits for the answers that are due.
    pub(crate) fn run(&mut self, length: Duration) -> Result<Measured> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let begin = Instant::now();
        let mut sent = Vec::new();
        for (n, socket) in self.sockets.iter().enumerate() {
            epoll::add(&epoll, socket, EventData::new_u64(n as u64), EventFlags::IN)?;
            sent.push(Instant::now());
            socket.send(&self.message)?;
        }
        let (mut measured, mut due) = (Measured::default(), sent.len());
        let (mut events, mut buffer) = (Vec::with_capacity(256), vec![0; 64 << 10]);
        let patience = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        while due > 0 {
            if epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience))? == 0 {
                bail!("{due} datagrams have had no answer for 10 s");
            }
            for event in events.drain(..) {
                let n = event.data.u64() as usize;
                let count = match self.sockets[n].recv(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    outcome => outcome.context("receive")?,
                };
                ensure!(
                    buffer[..count].ends_with(&self.end),
                    "other bytes came back"
                );
                measured
                    .latencies
                    .push(sent[n].elapsed().as_micros() as u32);
                if begin.elapsed() < length {
                    sent[n] = Instant::now();
                    self.sockets[n].send(&self.message)?;
                } else {
                    due -= 1;
                }
            }
        }
        Ok(measured)
    }
}
