//! Bytes, lines, or messages behind their length: what is sent comes back.

use super::{Protocol, Step, Wrong};
use crate::payload::{Differs, MessageId, Payloads};

/// What shows where a message ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Framing {
    /// Nothing: a stream of bytes
    #[default]
    None,
    /// A line end
    Line,
    /// Its length in front, in two bytes (big endian)
    Length16,
    /// Its length in front, in four bytes (big endian)
    Length32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    pub(crate) framing: Framing,
}

/// Where in the answer, its frame included, the next byte stands.
#[derive(Debug, Default)]
pub(crate) struct State(usize);

impl Tcp {
    fn front(self, size: usize) -> ([u8; 4], usize) {
        let size = size as u32;
        match self.framing {
            Framing::None | Framing::Line => ([0; 4], 0),
            Framing::Length16 => {
                let [high, low] = (size as u16).to_be_bytes();
                ([high, low, 0, 0], 2)
            }
            Framing::Length32 => (size.to_be_bytes(), 4),
        }
    }

    fn end(self) -> &'static [u8] {
        match self.framing {
            Framing::Line => b"\n",
            _ => b"",
        }
    }
}

impl Protocol for Tcp {
    type State = State;

    fn encode(&mut self, out: &mut Vec<u8>, payloads: &Payloads, id: MessageId) {
        let (front, length) = self.front(payloads.size(id));
        out.extend_from_slice(&front[..length]);
        payloads.append(out, id);
        out.extend_from_slice(self.end());
    }

    fn decode(
        &mut self,
        State(at): &mut State,
        input: &[u8],
        expected: Option<MessageId>,
        payloads: &Payloads,
        _reply: &mut Vec<u8>,
    ) -> Result<(usize, Step), Wrong> {
        let Some(id) = expected else {
            return Err(Wrong::unasked(input));
        };
        let size = payloads.size(id);
        let (front, front_length) = self.front(size);
        let mut used = 0;
        if *at < front_length {
            let front = &front[*at..front_length];
            used = front.len().min(input.len());
            if let Some(differs) = Differs::between(*at, front, &input[..used]) {
                return Err(differs.into());
            }
            *at += used;
        }
        let offset = *at - front_length.min(*at);
        if offset < size {
            let piece = &input[used..];
            let piece = &piece[..piece.len().min(size - offset)];
            payloads.check(id, offset, piece)?;
            used += piece.len();
            *at += piece.len();
        }
        let end = self.end();
        if *at >= front_length + size && !end.is_empty() && used < input.len() {
            if let Some(differs) = Differs::between(size, end, &input[used..=used]) {
                return Err(differs.into());
            }
            used += 1;
            *at += 1;
        }
        match *at == front_length + size + end.len() {
            true => {
                *at = 0;
                Ok((used, Step::Answered))
            }
            false => Ok((used, Step::More)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Alphabet;

    #[test]
    fn answers_are_known_in_any_pieces() {
        for framing in [
            Framing::None,
            Framing::Line,
            Framing::Length16,
            Framing::Length32,
        ] {
            for piece in [1, 2, 3, 7, 100] {
                let payloads = Payloads::new(&[5, 40, 9], Alphabet::Text);
                let mut tcp = Tcp { framing };
                let ids = (0..6).map(|number| MessageId {
                    connection: 1,
                    number,
                });
                let mut bytes = Vec::new();
                ids.clone()
                    .for_each(|id| tcp.encode(&mut bytes, &payloads, id));
                let (mut state, mut ids, mut answered) = (State::default(), ids.peekable(), 0);
                for mut part in bytes.chunks(piece) {
                    while !part.is_empty() {
                        let id = ids.peek().copied();
                        let (used, step) = tcp
                            .decode(&mut state, part, id, &payloads, &mut Vec::new())
                            .unwrap();
                        part = &part[used..];
                        if step == Step::Answered {
                            answered += 1;
                            ids.next();
                        }
                    }
                }
                assert_eq!(answered, 6, "{framing:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_nobody_asked_for_is_told() {
        let payloads = Payloads::new(&[5], Alphabet::Bytes);
        let mut tcp = Tcp {
            framing: Framing::None,
        };
        let outcome = tcp.decode(&mut State(0), b"welcome", None, &payloads, &mut Vec::new());
        assert_eq!(outcome, Err(Wrong::Unasked(b"welcome".to_vec())));
    }
}
