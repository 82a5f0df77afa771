//! Broadcast over WebSocket: what a publisher sends arrives at everybody, in the order of sending.

use gannet_proto::websocket::MessageKind;

use super::{
    Protocol, Step, Wrong,
    heard::Heard,
    websocket::{self, Frames, Piece, WebSocket},
};
use crate::payload::{MessageId, Payloads, TAG};

/// Whoever is connected receives what the publishers, the connections with the first numbers, send.
#[derive(Clone, Debug)]
pub(crate) struct Broadcast {
    socket: WebSocket,
    publishers: u32,
    /// What some have received by now, and the others are about to.
    heard: Heard,
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
    /// Where in what was heard it is.
    place: u64,
    /// What has to come next from each publisher, as far as something has come.
    next: Vec<u64>,
}

impl Broadcast {
    pub(crate) fn new(socket: WebSocket, publishers: u32) -> Self {
        Broadcast {
            socket,
            publishers,
            heard: Heard::default(),
        }
    }

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
            let id = MessageId {
                number: state.next(tag.connection),
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

impl State {
    /// What has to come next from this publisher.
    fn next(&self, publisher: u32) -> u64 {
        self.next.get(publisher as usize).copied().unwrap_or(0)
    }

    fn received(&mut self, publisher: u32, count: u64) {
        let at = publisher as usize;
        if self.next.len() <= at {
            self.next.resize(at + 1, 0);
        }
        self.next[at] += count;
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
        let is_between = |state: &State| matches!(&state.socket, websocket::State::Open(frames, _) if frames.is_between_messages());
        if is_between(state)
            && let Some(run) = self.heard.again(state.place, input)
            && state.next(run.first.connection) == run.first.number
        {
            state.place += run.count;
            state.received(run.first.connection, run.count);
            let (first, count) = (run.first, run.count);
            return Ok((run.length, Step::Delivered { first, count }));
        }
        let (mut used, mut begin) = (0, None);
        while used < input.len() {
            if is_between(state) {
                begin = Some(used);
            }
            let websocket::State::Open(frames, _) = &mut state.socket else {
                break;
            };
            let (count, piece) = frames.next(&input[used..])?;
            used += count;
            match piece {
                None => {}
                Some(Piece::Ping) => {
                    // Whoever hears the same has to answer for himself.
                    begin = None;
                    self.socket.pong(reply, frames.control());
                }
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
                        state.received(id.connection, 1);
                        let wire = begin.map(|begin| &input[begin..used]);
                        state.place = self.heard.learn(state.place, id, wire);
                        return Ok((
                            used,
                            Step::Delivered {
                                first: id,
                                count: 1,
                            },
                        ));
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

    fn two_publishers() -> Broadcast {
        Broadcast::new(WebSocket::new(MessageKind::Binary, "here", "/", "", 1), 2)
    }

    /// What a connection has found: publishers and numbers, and what it has replied.
    #[derive(Debug, Default)]
    struct Said {
        found: Vec<(u32, u64)>,
        reply: Vec<u8>,
    }

    /// What one more connection finds in these bytes, which come in pieces of this size.
    fn hear(
        broadcast: &mut Broadcast,
        bytes: &[u8],
        size: usize,
        payloads: &Payloads,
    ) -> Result<Said, Wrong> {
        let (mut state, mut said) = (opened(), Said::default());
        for mut part in bytes.chunks(size) {
            while !part.is_empty() {
                let (used, step) =
                    broadcast.decode(&mut state, part, None, payloads, &mut said.reply)?;
                part = &part[used..];
                if let Step::Delivered { first, count } = step {
                    let numbers = first.number..first.number + count;
                    said.found
                        .extend(numbers.map(|number| (first.connection, number)));
                }
            }
        }
        Ok(said)
    }

    fn frames(payloads: &Payloads, order: &[(u32, u64)]) -> Vec<u8> {
        let frames = order
            .iter()
            .map(|&(of, number)| frame(payloads, of, number));
        frames.collect::<Vec<_>>().concat()
    }

    #[test]
    fn deliveries_of_several_publishers_are_told_apart_in_any_pieces() {
        let payloads = Payloads::new(&[40], Alphabet::Bytes);
        let order = [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1)];
        let bytes = [&b"\x81\x07welcome"[..], &frames(&payloads, &order)].concat();
        // Each of them the first to hear it, and each after all the others.
        let mut after_others = two_publishers();
        for size in [1, 3, 9, 50, 1000] {
            for broadcast in [&mut two_publishers(), &mut after_others] {
                let said = hear(broadcast, &bytes, size, &payloads).unwrap();
                assert_eq!(said.found, order, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_order_of_different_publishers_may_differ() {
        let payloads = Payloads::new(&[40], Alphabet::Bytes);
        let mut broadcast = two_publishers();
        for order in [
            [(0, 0), (0, 1), (1, 0), (1, 1)],
            [(1, 0), (0, 0), (1, 1), (0, 1)],
            [(0, 0), (1, 0), (1, 1), (0, 1)],
        ] {
            let bytes = frames(&payloads, &order);
            let said = hear(&mut broadcast, &bytes, 1000, &payloads).unwrap();
            assert_eq!(said.found, order);
        }
    }

    #[test]
    fn lost_repeated_and_strange_messages_are_told() {
        let payloads = Payloads::new(&[40], Alphabet::Bytes);
        let right: Vec<_> = (0..4).map(|number| (0, number)).collect();
        let right = frames(&payloads, &right);
        let mut other_byte = frames(&payloads, &[(0, 0), (0, 1)]);
        other_byte[70] ^= 1;
        for wrong in [
            frames(&payloads, &[(0, 0), (0, 2)]),
            frames(&payloads, &[(0, 1), (0, 2)]),
            frames(&payloads, &[(0, 0), (0, 0)]),
            frames(&payloads, &[(0, 0), (0, 1), (0, 1)]),
            frames(&payloads, &[(2, 0)]),
            b"\x82\x02hi".to_vec(),
            other_byte,
        ] {
            let mut broadcast = two_publishers();
            // Whether or not somebody has heard the right ones before.
            for _ in 0..2 {
                assert!(hear(&mut broadcast, &wrong, 1000, &payloads).is_err());
                assert!(hear(&mut broadcast, &right, 1000, &payloads).is_ok());
            }
        }
    }

    #[test]
    fn everybody_answers_a_ping() {
        let payloads = Payloads::new(&[40], Alphabet::Bytes);
        let message = frame(&payloads, 0, 0);
        let (front, back) = (&message[2..22], &message[22..]);
        for bytes in [
            [b"\x89\x00", &message[..]].concat(),
            // Between the fragments of a message.
            [b"\x02\x14", front, b"\x89\x00", b"\x80\x14", back].concat(),
        ] {
            let mut broadcast = two_publishers();
            for _ in 0..2 {
                let said = hear(&mut broadcast, &bytes, 1000, &payloads).unwrap();
                assert_eq!(said.found, [(0, 0)]);
                assert_eq!(said.reply.first(), Some(&0x8a));
            }
        }
    }
}
