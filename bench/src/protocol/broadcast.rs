//! Broadcast over WebSocket: what a publisher sends arrives at everybody, in the order of sending.

use std::collections::HashMap;

use gannet_proto::websocket::MessageKind;

use super::{
    Protocol, Step, Wrong,
    websocket::{self, Frames, Piece, WebSocket},
};
use crate::payload::{MessageId, Payloads, TAG};

/// Whoever is connected receives what the publishers, the connections with the first numbers, send.
#[derive(Clone, Debug)]
pub(crate) struct Broadcast {
    pub(crate) socket: WebSocket,
    pub(crate) publishers: u32,
}

/// Of a connection.
#[derive(Debug, Default)]
pub(crate) struct State {
    socket: websocket::State,
    /// The message that arrives, as soon as its tag is there.
    now: Option<MessageId>,
    /// How much of it is there.
    offset: usize,
    tag: [u8; TAG],
    /// What has to come next from each publisher.
    next: HashMap<u32, u64>,
}

impl Broadcast {
    /// Takes in a piece of a message, up to its end.
    fn take(&self, state: &mut State, mut bytes: &[u8], payloads: &Payloads) -> Result<(), Wrong> {
        if state.now.is_none() {
            let count = bytes.len().min(TAG - state.offset);
            state.tag[state.offset..][..count].copy_from_slice(&bytes[..count]);
            state.offset += count;
            bytes = &bytes[count..];
            if state.offset < TAG {
                return Ok(());
            }
            let known = |id: &MessageId| id.connection < self.publishers;
            let Some(tag) = payloads.read_tag(&state.tag).filter(known) else {
                return Err(Wrong::unasked(&state.tag));
            };
            let next = state.next.get(&tag.connection).copied().unwrap_or(0);
            let id = MessageId {
                number: next,
                ..tag
            };
            // The tag has the low digits of the number: lost, repeated and overtaken ones differ in them.
            payloads.check(id, 0, &state.tag)?;
            state.now = Some(id);
        }
        if let Some(id) = state.now {
            payloads.check(id, state.offset, bytes)?;
            state.offset += bytes.len();
        }
        Ok(())
    }
}

impl Protocol for Broadcast {
    type State = State;

    fn open(&mut self, out: &mut Vec<u8>) -> bool {
        self.socket.open(out)
    }

    fn encode(&mut self, out: &mut Vec<u8>, payloads: &Payloads, id: MessageId) {
        self.socket.encode(out, payloads, id);
    }

    fn decode(
        &mut self,
        state: &mut State,
        input: &[u8],
        _expected: Option<MessageId>,
        payloads: &Payloads,
        reply: &mut Vec<u8>,
    ) -> Result<(usize, Step), Wrong> {
        if let websocket::State::Opening(head) = &mut state.socket {
            let (used, opened) = self.socket.open_with(head, input)?;
            if !opened {
                return Ok((used, Step::More));
            }
            state.socket = websocket::State::Open(Frames::default(), 0);
            return Ok((used, Step::Opened));
        }
        let mut used = 0;
        while used < input.len() {
            let websocket::State::Open(frames, _) = &mut state.socket else {
                break;
            };
            let (count, piece) = frames.next(&input[used..])?;
            used += count;
            match piece {
                None => {}
                Some(Piece::Ping) => self.socket.pong(reply, frames.control()),
                // A greeting or the like.
                Some(Piece::Data {
                    kind: MessageKind::Text,
                    ..
                }) => {}
                Some(Piece::Data { bytes, end, .. }) => {
                    self.take(state, bytes, payloads)?;
                    if end {
                        let got = std::mem::take(&mut state.offset);
                        let Some(id) = state.now.take() else {
                            return Err(Wrong::unasked(&state.tag[..got.min(TAG)]));
                        };
                        let size = payloads.size(id);
                        if got != size {
                            return Err(Wrong::short(got, size));
                        }
                        state.next.insert(id.connection, id.number + 1);
                        return Ok((used, Step::Delivered(id)));
                    }
                }
            }
        }
        Ok((used, Step::More))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Alphabet;

    fn opened() -> State {
        State {
            socket: websocket::State::Open(Frames::default(), 0),
            ..State::default()
        }
    }

    /// The frame in which a server hands on a message.
    fn frame(payloads: &Payloads, connection: u32, number: u64) -> Vec<u8> {
        let mut message = Vec::new();
        payloads.append(&mut message, MessageId { connection, number });
        [&[0x82, message.len() as u8][..], &message].concat()
    }

    fn read(bytes: &[u8], size: usize, payloads: &Payloads) -> Result<Vec<(u32, u64)>, Wrong> {
        let socket = WebSocket::new(MessageKind::Binary, "here", "/", "", 1);
        let mut broadcast = Broadcast {
            socket,
            publishers: 2,
        };
        let (mut state, mut found) = (opened(), Vec::new());
        for mut part in bytes.chunks(size) {
            while !part.is_empty() {
                let (used, step) =
                    broadcast.decode(&mut state, part, None, payloads, &mut Vec::new())?;
                part = &part[used..];
                if let Step::Delivered(id) = step {
                    found.push((id.connection, id.number));
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn deliveries_of_several_publishers_are_told_apart_in_any_pieces() {
        let payloads = Payloads::new(&[40], Alphabet::Bytes);
        let order = [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1)];
        let mut bytes = b"\x81\x07welcome".to_vec();
        for (connection, number) in order {
            bytes.extend(frame(&payloads, connection, number));
        }
        for size in [1, 3, 9, 1000] {
            assert_eq!(read(&bytes, size, &payloads).unwrap(), order);
        }
    }

    #[test]
    fn lost_repeated_and_strange_messages_are_told() {
        let payloads = Payloads::new(&[40], Alphabet::Bytes);
        for wrong in [
            [frame(&payloads, 0, 0), frame(&payloads, 0, 2)].concat(),
            [frame(&payloads, 0, 0), frame(&payloads, 0, 0)].concat(),
            frame(&payloads, 2, 0),
            b"\x82\x02hi".to_vec(),
        ] {
            assert!(read(&wrong, 1000, &payloads).is_err());
        }
    }
}
