//! WebSocket: a handshake, then masked frames there and plain frames back.

use std::sync::Arc;

use gannet_proto::websocket::{
    MessageKind, Opcode,
    client::{self, OpenError},
};

use super::{Protocol, Step, Wrong};
use crate::payload::{MessageId, Payloads, Random};

/// Echo over WebSocket.
#[derive(Clone, Debug)]
pub(crate) struct WebSocket {
    kind: MessageKind,
    handshake: Arc<Handshake>,
    masks: Random,
    /// A message before it is masked.
    message: Vec<u8>,
}

/// What opens the connection.
#[derive(Debug)]
struct Handshake {
    request: Vec<u8>,
    key: String,
}

/// Of a connection.
#[derive(Debug)]
pub(crate) enum State {
    /// What has come of the response.
    Opening(Vec<u8>),
    /// Frames, and where in its message the next byte stands.
    Open(Frames, usize),
}

impl Default for State {
    fn default() -> Self {
        State::Opening(Vec::new())
    }
}

impl WebSocket {
    /// `headers` are whole lines, for the handshake.
    pub(crate) fn new(kind: MessageKind, host: &str, path: &str, headers: &str, seed: u64) -> Self {
        let mut masks = Random::new(seed);
        // Sixteen bytes in base64 end with a character of two bits, and the padding.
        let mut key: String = (0..21)
            .map(|_| char::from(BASE64[(masks.next() >> 58) as usize]))
            .collect();
        key.push_str("A==");
        let mut request = Vec::new();
        client::write_request(&mut request, host, path, &key, headers.as_bytes());
        WebSocket {
            kind,
            handshake: Arc::new(Handshake { request, key }),
            masks,
            message: Vec::new(),
        }
    }

    /// The same, with masking keys of its own.
    pub(crate) fn reseeded(&self, seed: u64) -> Self {
        WebSocket {
            masks: Random::new(seed ^ 0x9e37_79b9_7f4a_7c15),
            ..self.clone()
        }
    }

    fn mask(&mut self) -> [u8; 4] {
        ((self.masks.next() >> 32) as u32).to_ne_bytes()
    }

    /// Reads the response to the handshake: how much of the input is used up, and whether that is all.
    pub(crate) fn open_with(
        &self,
        head: &mut Vec<u8>,
        input: &[u8],
    ) -> Result<(usize, bool), Wrong> {
        let before = head.len();
        head.extend_from_slice(input);
        match client::read_response(head, &self.handshake.key) {
            Ok(Some(opened)) if opened.headers.first("sec-websocket-extensions").is_some() => {
                Err(Wrong::Protocol(
                    "the handshake was answered with an extension that was not asked for".into(),
                ))
            }
            Ok(Some(opened)) => Ok((opened.used - before, true)),
            Ok(None) if head.len() > MAX_HEAD => Err(Wrong::Protocol(
                "the response to the handshake has no end".into(),
            )),
            Ok(None) => Ok((input.len(), false)),
            Err(OpenError::Refused(101)) => Err(Wrong::Protocol("status 101 twice".into())),
            Err(error) => Err(Wrong::Protocol(error.to_string())),
        }
    }

    /// Appends the answer to a ping.
    pub(crate) fn pong(&mut self, reply: &mut Vec<u8>, payload: &[u8]) {
        let key = self.mask();
        client::encode_pong(reply, payload, key);
    }
}

impl Protocol for WebSocket {
    type State = State;

    fn open(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(&self.handshake.request);
        true
    }

    fn encode(&mut self, out: &mut Vec<u8>, payloads: &Payloads, id: MessageId) {
        self.message.clear();
        payloads.append(&mut self.message, id);
        let key = self.mask();
        client::encode_message(out, self.kind, &self.message, key);
    }

    fn decode(
        &mut self,
        state: &mut State,
        input: &[u8],
        expected: Option<MessageId>,
        payloads: &Payloads,
        reply: &mut Vec<u8>,
    ) -> Result<(usize, Step), Wrong> {
        let (frames, offset) = match state {
            State::Open(frames, offset) => (frames, offset),
            State::Opening(head) => {
                let (used, opened) = self.open_with(head, input)?;
                if !opened {
                    return Ok((used, Step::More));
                }
                *state = State::Open(Frames::default(), 0);
                return Ok((used, Step::Opened));
            }
        };
        let mut used = 0;
        while used < input.len() {
            let (count, piece) = frames.next(&input[used..])?;
            used += count;
            match piece {
                None => {}
                Some(Piece::Ping) => self.pong(reply, frames.control()),
                Some(Piece::Data { kind, bytes, end }) => {
                    let Some(id) = expected else {
                        return Err(Wrong::unasked(bytes));
                    };
                    if kind != self.kind {
                        return Err(Wrong::Protocol(format!(
                            "a message of kind {:?} came back as {kind:?}",
                            self.kind
                        )));
                    }
                    payloads.check(id, *offset, bytes)?;
                    *offset += bytes.len();
                    if end {
                        let (got, size) = (std::mem::take(offset), payloads.size(id));
                        return match got == size {
                            true => Ok((used, Step::Answered)),
                            false => Err(Wrong::short(got, size)),
                        };
                    }
                }
            }
        }
        Ok((used, Step::More))
    }
}

/// Reads frames of a server, without collecting them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; 10],
    /// How much of the header is there.
    have: u8,
    opcode: u8,
    /// Payload of this frame that has still to come, if the header is read.
    left: Option<u64>,
    fin: bool,
    /// The message that goes on.
    kind: Option<MessageKind>,
    control: Vec<u8>,
}

/// What of a message, or of what stands between messages, has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes of a message, perhaps its last ones.
    Data {
        kind: MessageKind,
        bytes: &'a [u8],
        end: bool,
    },
    /// A ping; [`Frames::control`] is its payload.
    Ping,
}

impl Frames {
    /// Reads on, to the end of a frame at most: how much is used up, and what that was.
    pub(crate) fn next<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<(usize, Option<Piece<'a>>), Wrong> {
        let mut used = 0;
        let left = match self.left {
            Some(left) => left,
            None => {
                used = self.read_header(input);
                match self.header_length() {
                    Some(length) if usize::from(self.have) == length => self.begin(length)?,
                    _ => return Ok((used, None)),
                }
            }
        };
        let rest = &input[used..];
        let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (bytes, at_end) = (&rest[..count], left == count as u64);
        used += count;
        self.left = match at_end {
            true => None,
            false => Some(left - count as u64),
        };
        if at_end {
            self.have = 0;
        }
        if self.opcode >= CONTROL {
            self.control.extend_from_slice(bytes);
            return match at_end {
                true => Ok((used, self.controlled()?)),
                false => Ok((used, None)),
            };
        }
        let Some(kind) = self.kind else {
            return Err(Wrong::Protocol("a continuation of no message".into()));
        };
        let end = at_end && self.fin;
        if end {
            self.kind = None;
        }
        Ok((used, Some(Piece::Data { kind, bytes, end })))
    }

    /// Whether the next byte begins a message, or a control frame that stands between messages.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.have == 0 && self.left.is_none() && self.kind.is_none()
    }

    /// Payload of the last control frame.
    pub(crate) fn control(&self) -> &[u8] {
        &self.control
    }

    fn read_header(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let have = usize::from(self.have);
            let want = self.header_length().unwrap_or(2);
            if have == want || used == input.len() {
                return used;
            }
            let count = (want - have).min(input.len() - used);
            self.header[have..have + count].copy_from_slice(&input[used..used + count]);
            used += count;
            self.have += count as u8;
        }
    }

    /// Known from its second byte on.
    fn header_length(&self) -> Option<usize> {
        (self.have >= 2).then(|| match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        })
    }

    /// Takes in a whole header; how long the payload is.
    fn begin(&mut self, length: usize) -> Result<u64, Wrong> {
        let wrong = |what: &str| Err(Wrong::Protocol(what.into()));
        let [first, second, ..] = self.header;
        let extended = &self.header[2..length];
        let payload = match extended.len() {
            0 => u64::from(second & 0x7f),
            _ => extended
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        self.opcode = first & 0x0f;
        self.fin = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return wrong("a frame with reserved bits");
        }
        if second & 0x80 != 0 {
            return wrong("a masked frame from the server");
        }
        if self.opcode >= CONTROL {
            self.control.clear();
            if payload > 125 || !self.fin {
                return wrong("a control frame that is too long or in fragments");
            }
            return Ok(payload);
        }
        match (self.opcode, self.kind) {
            (0, Some(_)) => {}
            (0, None) => return wrong("a continuation of no message"),
            (1, None) => self.kind = Some(MessageKind::Text),
            (2, None) => self.kind = Some(MessageKind::Binary),
            (1 | 2, Some(_)) => return wrong("a message in the middle of another"),
            _ => return wrong("a frame with a reserved opcode"),
        }
        Ok(payload)
    }

    fn controlled<'a>(&self) -> Result<Option<Piece<'a>>, Wrong> {
        const PING: u8 = Opcode::Ping as u8;
        const PONG: u8 = Opcode::Pong as u8;
        const CLOSE: u8 = Opcode::Close as u8;
        match self.opcode {
            PING => Ok(Some(Piece::Ping)),
            PONG => Ok(None),
            CLOSE => Err(Wrong::Goodbye(match self.control.split_first_chunk() {
                Some((code, reason)) => format!(
                    "close {} {}",
                    u16::from_be_bytes(*code),
                    String::from_utf8_lossy(reason)
                ),
                None => "close without a code".into(),
            })),
            _ => Err(Wrong::Protocol("a frame with a reserved opcode".into())),
        }
    }
}

/// Opcodes from here on are of control frames.
const CONTROL: u8 = 8;

/// Largest response to a handshake.
const MAX_HEAD: usize = 16 << 10;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    /// What the frames say, cut into pieces of this size.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<String>, Wrong> {
        let (mut frames, mut said, mut message) = (Frames::default(), Vec::new(), Vec::new());
        for mut part in bytes.chunks(size) {
            while !part.is_empty() {
                let (used, piece) = frames.next(part)?;
                part = &part[used..];
                match piece {
                    None => {}
                    Some(Piece::Ping) => {
                        said.push(format!("ping {}", frames.control().escape_ascii()))
                    }
                    Some(Piece::Data { kind, bytes, end }) => {
                        message.extend_from_slice(bytes);
                        if end {
                            let text = String::from_utf8_lossy(&message).into_owned();
                            said.push(match text.len() {
                                0..10 => format!("{kind:?} {text}"),
                                long => format!("{kind:?} {long}"),
                            });
                            message.clear();
                        }
                    }
                }
            }
        }
        Ok(said)
    }

    #[test]
    fn frames_are_read_in_any_pieces() {
        let mut bytes = b"\x82\x02hi\x01\x01a\x89\x01p\x80\x01b\x82\x00\x8a\x00".to_vec();
        bytes.extend_from_slice(b"\x81\x7e\x01\x00");
        bytes.extend_from_slice(&[b'x'; 256]);
        bytes.extend_from_slice(b"\x82\x7f\0\0\0\0\0\x01\0\0");
        bytes.extend_from_slice(&[b'y'; 65_536]);
        for size in [1, 2, 3, 5, 300, 70_000] {
            assert_eq!(
                read(&bytes, size).unwrap(),
                [
                    "Binary hi",
                    "ping p",
                    "Text ab",
                    "Binary ",
                    "Text 256",
                    "Binary 65536"
                ],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_told() {
        for (bytes, what) in [
            (&b"\x82\x82aaaahi"[..], "masked"),
            (b"\xc2\x02hi", "reserved bits"),
            (b"\x83\x00", "reserved opcode"),
            (b"\x8b\x00", "reserved opcode"),
            (b"\x80\x00", "continuation of no"),
            (b"\x02\x00\x82\x00", "in the middle"),
            (b"\x09\x00", "control frame"),
            (b"\x89\x7e\x00\x80", "control frame"),
        ] {
            let error = read(bytes, 1).unwrap_err();
            assert!(format!("{error:?}").contains(what), "{what}: {error:?}");
        }
        let bye = read(b"\x88\x05\x03\xe9bye", 2).unwrap_err();
        assert_eq!(bye, Wrong::Goodbye("close 1001 bye".into()));
    }
}
