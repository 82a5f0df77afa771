//! What a WebSocket client sends frame by frame, and the one outcome that is allowed.
//!
//! A [`Case`] is played several times: in one write, a write for each frame, and, if it is short,
//! a write for each byte. The outcome must be the same, byte for byte, with a clean end of the
//! TCP stream.

use crate::{
    server::Server,
    websocket::{Frame, frame, opcode},
};

/// A conversation.
#[derive(Clone, Debug)]
pub struct Case {
    name: &'static str,
    sent: Vec<Vec<u8>>,
    expected: Vec<Frame>,
    end: End,
    paused: bool,
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The client closes with this code; the server answers with the same.
    Client(u16),
    /// The client's last frame is a close; the server answers with this code.
    Answer(u16),
    /// The server closes with this code.
    Server(u16),
}

/// How the bytes are written.
#[derive(Clone, Copy, Debug)]
enum Writes {
    All,
    Frames,
    Bytes,
}

/// Begins a conversation; the name says which rule it shows.
pub fn case(name: &'static str) -> Case {
    Case {
        name,
        sent: Vec::new(),
        expected: Vec::new(),
        end: End::Client(1000),
        paused: false,
    }
}

impl Case {
    /// Sends a frame.
    pub fn frame(self, fin: bool, opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        self.bytes(frame(fin, opcode, payload.as_ref()))
    }

    /// Sends a frame with these reserved bits (RSV1 is 4, RSV2 is 2, RSV3 is 1).
    pub fn reserved(self, bits: u8, opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        let mut bytes = frame(true, opcode, payload.as_ref());
        bytes[0] |= bits << 4;
        self.bytes(bytes)
    }

    /// Sends these bytes.
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.sent.push(bytes.into());
        self
    }

    /// Sends a text message.
    pub fn text(self, text: impl AsRef<[u8]>) -> Self {
        self.frame(true, opcode::TEXT, text)
    }

    /// Sends a ping.
    pub fn ping(self, payload: impl AsRef<[u8]>) -> Self {
        self.frame(true, opcode::PING, payload)
    }

    /// Sends a pong.
    pub fn pong(self, payload: impl AsRef<[u8]>) -> Self {
        self.frame(true, opcode::PONG, payload)
    }

    /// Sends the first frame of a text message.
    pub fn begin(self, text: impl AsRef<[u8]>) -> Self {
        self.frame(false, opcode::TEXT, text)
    }

    /// Sends a continuation that is not the last.
    pub fn next(self, part: impl AsRef<[u8]>) -> Self {
        self.frame(false, opcode::CONTINUATION, part)
    }

    /// Sends the last frame of a message.
    pub fn last(self, part: impl AsRef<[u8]>) -> Self {
        self.frame(true, opcode::CONTINUATION, part)
    }

    /// Sends a close frame.
    pub fn close(self, payload: impl AsRef<[u8]>) -> Self {
        self.frame(true, opcode::CLOSE, payload)
    }

    /// Expects this text.
    pub fn gets_text(self, text: impl Into<String>) -> Self {
        self.gets(Frame::Text(text.into()))
    }

    /// Expects this pong.
    pub fn gets_pong(self, payload: impl Into<Vec<u8>>) -> Self {
        self.gets(Frame::Pong(payload.into()))
    }

    /// Expects this message or control frame.
    pub fn gets(mut self, expected: Frame) -> Self {
        self.expected.push(expected);
        self
    }

    /// Sends nothing more before the server has closed: what was sent is enough to fail.
    pub fn fails_at_once(mut self, code: u16) -> Self {
        self.end = End::Server(code);
        self.paused = true;
        self
    }

    /// The server closes with this code.
    pub fn fails(mut self, code: u16) -> Self {
        self.end = End::Server(code);
        self
    }

    /// The server answers the client's close frame with this code.
    pub fn closes(mut self, code: u16) -> Self {
        self.end = End::Answer(code);
        self
    }

    /// Plays it against a server that echoes messages.
    pub fn play(&self, server: &Server) {
        let len: usize = self.sent.iter().map(Vec::len).sum();
        let mut ways = vec![Writes::All, Writes::Frames];
        if len <= 2_000 {
            ways.push(Writes::Bytes);
        }
        for writes in ways {
            self.play_with(server, writes);
        }
    }

    fn play_with(&self, server: &Server, writes: Writes) {
        let mut client = server.websocket();
        let whole = self.sent.concat();
        let pieces: Vec<&[u8]> = match writes {
            Writes::All => vec![&whole],
            Writes::Frames => self.sent.iter().map(Vec::as_slice).collect(),
            Writes::Bytes => whole.chunks(1).collect(),
        };
        for piece in pieces {
            if client.try_raw(piece).is_err() {
                assert!(matches!(self.end, End::Server(_)), "{}: cut", self.name);
                break;
            }
        }
        for (index, expected) in self.expected.iter().enumerate() {
            let got = client.receive();
            assert!(
                got == *expected,
                "{} ({writes:?}), answer {index}: {}, not {}",
                self.name,
                short(&got),
                short(expected)
            );
        }
        if let End::Client(code) = self.end {
            client.frame(true, opcode::CLOSE, code.to_be_bytes());
        }
        let code = match self.end {
            End::Client(code) | End::Answer(code) | End::Server(code) => code,
        };
        match client.receive() {
            Frame::Close(Some((got, reason))) => {
                assert_eq!(got, code, "{} ({writes:?}): {reason}", self.name);
            }
            other => panic!("{} ({writes:?}): {}", self.name, short(&other)),
        }
        if let End::Server(code) = self.end {
            let _ = client.try_raw(frame(true, opcode::CLOSE, &code.to_be_bytes()));
        }
        client.tcp().expect_end();
    }
}

fn short(frame: &Frame) -> String {
    format!("{frame:?}").chars().take(200).collect()
}
