//! One thread, one epoll, many connections with one message under way each.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};

use crate::{exchange::Exchange, socket::Socket};

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Of each message, in microseconds.
    pub(crate) latencies: Vec<u32>,
}

impl Measured {
    pub(crate) fn percentile(&mut self, percent: usize) -> u32 {
        if self.latencies.is_empty() {
            return 0;
        }
        let at = (self.latencies.len() - 1) * percent / 100;
        *self.latencies.select_nth_unstable(at).1
    }
}

struct Client<'a> {
    socket: &'a mut dyn Socket,
    received: Vec<u8>,
    sent_at: Instant,
    unsent: usize,
}

/// Sends and checks for this long; then waits for the answers that are due.
pub(crate) fn run(
    sockets: &mut [Box<dyn Socket>],
    exchange: &Exchange,
    length: Duration,
) -> Result<Measured> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let begin = Instant::now();
    let mut clients = Vec::new();
    for (n, socket) in sockets.iter_mut().enumerate() {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&epoll, socket.fd(), EventData::new_u64(n as u64), flags)?;
        let mut client = Client {
            socket: &mut **socket,
            received: Vec::new(),
            sent_at: begin,
            unsent: 0,
        };
        client.begin(exchange)?;
        clients.push(client);
    }

    let mut measured = Measured {
        latencies: Vec::new(),
    };
    let mut events = Vec::with_capacity(256);
    let mut due = clients.len();
    while due > 0 {
        let patience = rustix::time::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        if epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience))? == 0 {
            bail!("{due} messages have had no answer for 10 s");
        }
        for event in events.drain(..) {
            let client = &mut clients[event.data.u64() as usize];
            client.send(exchange)?;
            if client.receive(exchange)? {
                measured
                    .latencies
                    .push(client.sent_at.elapsed().as_micros() as u32);
                if begin.elapsed() < length {
                    client.begin(exchange)?;
                } else {
                    due -= 1;
                }
            }
        }
    }
    for client in &clients {
        epoll::delete(&epoll, client.socket.fd())?;
    }
    Ok(measured)
}

impl Client<'_> {
    fn begin(&mut self, exchange: &Exchange) -> Result<()> {
        self.received.clear();
        self.unsent = exchange.message.len();
        self.sent_at = Instant::now();
        self.send(exchange)
    }

    fn send(&mut self, exchange: &Exchange) -> Result<()> {
        while self.unsent > 0 {
            let rest = &exchange.message[exchange.message.len() - self.unsent..];
            match self.socket.write(rest) {
                Ok(count) => self.unsent -= count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e).context("send"),
            }
        }
        Ok(())
    }

    /// Reads what is there; whether that completes the answer.
    fn receive(&mut self, exchange: &Exchange) -> Result<bool> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    if exchange.is_answered(&self.received)? {
                        return Ok(true);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e).context("receive"),
            }
        }
    }
}
