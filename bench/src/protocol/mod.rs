//! Protocols as the client speaks them: messages to bytes, bytes to answers. No I/O, no clock.
//!
//! Nothing is collected: what arrives is compared with what must arrive piece by piece, so that an
//! answer costs no memory however large it is. Only a head that is cut in two is kept.

pub(crate) mod broadcast;
mod heard;
pub(crate) mod http;
pub(crate) mod tcp;
pub(crate) mod websocket;

use crate::payload::{Differs, MessageId, Payloads};

/// One for each thread; what belongs to a connection is its `State`.
pub(crate) trait Protocol: Clone + Send {
    /// How far a connection has got.
    type State: Default + Send;

    /// Appends what comes before the first message; whether that must be answered first.
    fn open(&mut self, out: &mut Vec<u8>) -> bool {
        let _ = out;
        false
    }

    /// Appends a message.
    fn encode(&mut self, out: &mut Vec<u8>, payloads: &Payloads, id: MessageId);

    /// Reads on, to the end of an answer (or of deliveries) at most: how much of the input is used up, and what that was.
    /// `expected` is the oldest message without an answer. What has to be sent because of what came
    /// (a pong) goes to `reply`.
    fn decode(
        &mut self,
        state: &mut Self::State,
        input: &[u8],
        expected: Option<MessageId>,
        payloads: &Payloads,
        reply: &mut Vec<u8>,
    ) -> Result<(usize, Step), Wrong>;
}

/// What was found in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All was read; more has to come.
    More,
    /// The answer to [`Protocol::open`].
    Opened,
    /// The answer, as it has to be.
    Answered,
    /// A whole answer that says no: its status.
    Refused(u16),
    /// Messages that somebody published: `first`, and those that follow it.
    Delivered { first: MessageId, count: u64 },
}

/// The server has said what it must not; the connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Other bytes than those that were sent.
    Differs(Differs),
    /// Bytes that nobody has asked for.
    Unasked(Vec<u8>),
    /// Not the protocol.
    Protocol(String),
    /// The server says goodbye.
    Goodbye(String),
}

impl From<Differs> for Wrong {
    fn from(differs: Differs) -> Self {
        Wrong::Differs(differs)
    }
}

impl Wrong {
    /// The answer is shorter than the message.
    fn short(got: usize, expected: usize) -> Self {
        Wrong::Protocol(format!(
            "the answer has {got} bytes, and {expected} were to come back"
        ))
    }

    fn unasked(input: &[u8]) -> Self {
        Wrong::Unasked(input[..input.len().min(32)].to_vec())
    }
}
