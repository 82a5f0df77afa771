//! One connection of the load: how far it is, and what is under way on it.

use std::{collections::VecDeque, io};

use crate::{payload::MessageId, protocol::Wrong, transport::Transport};

/// A connection, which may come up again under the same number.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    /// In the whole run, over all threads.
    pub(crate) number: u32,
    /// Tells events of this socket from those of one before it.
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) transport: Option<Transport>,
    pub(crate) state: S,
    /// Bytes that the socket had no room for, and how many of them have gone by now.
    pub(crate) unsent: Vec<u8>,
    pub(crate) gone: usize,
    /// When each message that has no answer was due.
    pub(crate) due: VecDeque<u64>,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Open loop: so many messages were due by now.
    pub(crate) released: u64,
    /// The last time that something came, or that sending began.
    pub(crate) active: u64,
    /// When this connection was due to be made.
    pub(crate) since: u64,
    /// When the one before was lost, which is when the next message is due.
    pub(crate) lost_at: Option<u64>,
    /// It has been there before.
    pub(crate) again: bool,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// To be made.
    Closed,
    /// For TCP.
    Connecting,
    /// For TLS.
    Securing,
    /// For the answer to the protocol's handshake.
    Opening,
    /// For messages.
    Ready,
    /// It is given up.
    Dead,
}

/// Why a connection has ended, or an answer does not count.
#[derive(Debug)]
pub(crate) enum Fault {
    Connect(io::Error),
    Closed,
    Io(io::Error),
    Timeout,
    Wrong(Wrong),
}

impl<S: Default> Connection<S> {
    pub(crate) fn new(number: u32) -> Self {
        Connection {
            number,
            generation: 0,
            phase: Phase::Closed,
            transport: None,
            state: S::default(),
            unsent: Vec::new(),
            gone: 0,
            due: VecDeque::new(),
            sent: 0,
            answered: 0,
            released: 0,
            active: 0,
            since: 0,
            lost_at: None,
            again: false,
        }
    }

    /// Forgets all that belonged to the socket. How many messages are without an answer for ever.
    pub(crate) fn reset(&mut self) -> u64 {
        if let Some(transport) = self.transport.take() {
            transport.close();
        }
        self.generation = self.generation.wrapping_add(1);
        self.phase = Phase::Closed;
        self.state = S::default();
        self.unsent.clear();
        self.gone = 0;
        self.due.clear();
        let lost = self.sent - self.answered;
        self.answered = self.sent;
        lost
    }

    /// Whether it is on its way to be of use.
    pub(crate) fn is_coming(&self) -> bool {
        matches!(
            self.phase,
            Phase::Connecting | Phase::Securing | Phase::Opening
        )
    }

    pub(crate) fn under_way(&self) -> u64 {
        self.sent - self.answered
    }

    /// The oldest message without an answer.
    pub(crate) fn expected(&self) -> Option<MessageId> {
        (self.answered < self.sent).then_some(MessageId {
            connection: self.number,
            number: self.answered,
        })
    }

    /// Writes, and keeps what does not fit.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return self.send_rest();
        }
        let Some(transport) = &mut self.transport else {
            return Ok(());
        };
        let count = transport.write(bytes).map_err(Fault::Io)?;
        if count < bytes.len() {
            self.unsent.extend_from_slice(&bytes[count..]);
        }
        Ok(())
    }

    /// Goes on with what had no room.
    pub(crate) fn send_rest(&mut self) -> Result<(), Fault> {
        let Some(transport) = &mut self.transport else {
            return Ok(());
        };
        transport.flush().map_err(Fault::Io)?;
        while self.gone < self.unsent.len() {
            match transport.write(&self.unsent[self.gone..]) {
                Ok(0) => return Ok(()),
                Ok(count) => self.gone += count,
                Err(error) => return Err(Fault::Io(error)),
            }
        }
        self.unsent.clear();
        self.gone = 0;
        Ok(())
    }
}

impl Fault {
    /// What happened, and what may help.
    pub(crate) fn text(&self) -> String {
        match self {
            Fault::Connect(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => "refused: nothing listens there".into(),
                io::ErrorKind::TimedOut => "nobody answers".into(),
                io::ErrorKind::AddrNotAvailable => {
                    "the system has no more ports for this address: use more --source addresses, or \
                     fewer connections"
                        .into()
                }
                _ => error.to_string(),
            },
            Fault::Closed => "the server closed the connection".into(),
            Fault::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionReset => "the server reset the connection".into(),
                io::ErrorKind::BrokenPipe => "the server closed the connection".into(),
                io::ErrorKind::UnexpectedEof => {
                    "the server closed the connection without TLS's goodbye".into()
                }
                io::ErrorKind::InvalidData => format!("TLS: {error}"),
                _ => error.to_string(),
            },
            Fault::Timeout => "no answer in time (--timeout)".into(),
            Fault::Wrong(Wrong::Differs(differs)) => differs.to_string(),
            Fault::Wrong(Wrong::Unasked(bytes)) => format!(
                "the server sent what nobody asked for: \"{}\"",
                bytes.escape_ascii()
            ),
            Fault::Wrong(Wrong::Protocol(text)) => text.clone(),
            Fault::Wrong(Wrong::Goodbye(text)) => {
                format!("the server closed the connection: {text}")
            }
        }
    }
}
