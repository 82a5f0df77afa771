//! A row of a table: what a client sends, and the outcomes that are allowed.
//!
//! A row is played several times: in one write as far as it does not wait, a write for each step, and,
//! if it is short, a write for each byte. Its outcome must be an allowed one each time.

use std::net::SocketAddr;

use super::{
    client::{Event, RawHttp2},
    frame::{PREFACE, code, headers, ping, settings, settings_ack},
    hpack::get,
};
use crate::tcp::TcpClient;

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The rule, with its section.
    pub name: String,
    steps: Vec<Step>,
    outcome: Outcome,
    greets: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// Bytes to send.
    Send(Vec<u8>),
    /// Waits for the answer on this stream.
    Answer(u32),
    /// Waits for the reset of this stream.
    Reset(u32),
    /// Waits until what was sent is taken.
    Sync,
}

/// How it ends.
#[derive(Clone, Debug)]
enum Outcome {
    /// GOAWAY with one of the codes, and the end of the connection.
    ConnectionError(Vec<u32>),
    /// The same; or the end without a word, which is allowed for a wrong preface.
    Closed(Vec<u32>),
    /// RST_STREAM with one of the codes and the connection goes on, or a connection error with one
    /// of them: any stream error may be one.
    StreamError(u32, Vec<u32>),
    /// The connection goes on, with or without RST_STREAM, or there is a connection error; if one of
    /// them, with one of the codes.
    Tolerated(u32, Vec<u32>),
    /// An answer that refuses, or RST_STREAM with PROTOCOL_ERROR, and the connection goes on; or a
    /// connection error with that code.
    Malformed(u32),
    /// The answer on the stream has this status; the connection goes on.
    Answered(u32, u16),
    /// The connection goes on.
    Ignored,
    /// What was waited for is all.
    Over,
}

/// How the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    All,
    Steps,
    Bytes,
}

/// Begins a row with the section of RFC 9113, or of the one that is named, and the rule.
pub fn row(section: &str, rule: &str) -> Row {
    Row {
        name: format!("{section}: {rule}"),
        steps: Vec::new(),
        outcome: Outcome::Ignored,
        greets: true,
    }
}

impl Row {
    /// Sends a frame, or any bytes.
    pub fn send(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    /// Sends neither preface nor settings by itself.
    pub fn ungreeted(mut self) -> Self {
        self.greets = false;
        self
    }

    /// Waits for the answer on this stream: its handler has run, and the stream is closed, or
    /// half-closed by the server.
    pub fn answer(mut self, stream: u32) -> Self {
        self.steps.push(Step::Answer(stream));
        self
    }

    /// Waits for the reset of this stream.
    pub fn reset(mut self, stream: u32) -> Self {
        self.steps.push(Step::Reset(stream));
        self
    }

    /// Waits until what was sent is taken.
    pub fn sync(mut self) -> Self {
        self.steps.push(Step::Sync);
        self
    }

    /// It is an error of the connection, with one of these codes.
    pub fn connection_error(mut self, codes: &[u32]) -> Self {
        self.outcome = Outcome::ConnectionError(codes.to_vec());
        self
    }

    /// The connection ends, with one of these codes or without a word.
    pub fn closed(mut self, codes: &[u32]) -> Self {
        self.outcome = Outcome::Closed(codes.to_vec());
        self
    }

    /// It is an error of this stream, with one of these codes.
    pub fn stream_error(mut self, stream: u32, codes: &[u32]) -> Self {
        self.outcome = Outcome::StreamError(stream, codes.to_vec());
        self
    }

    /// It may be ignored; or an error of this stream or the connection, with one of these codes.
    pub fn tolerated(mut self, stream: u32, codes: &[u32]) -> Self {
        self.outcome = Outcome::Tolerated(stream, codes.to_vec());
        self
    }

    /// The request on this stream is refused as malformed.
    pub fn malformed(mut self, stream: u32) -> Self {
        self.outcome = Outcome::Malformed(stream);
        self
    }

    /// The request on this stream is answered with this status.
    pub fn answered(mut self, stream: u32, status: u16) -> Self {
        self.outcome = Outcome::Answered(stream, status);
        self
    }

    /// Nothing happens: the connection goes on.
    pub fn ignored(mut self) -> Self {
        self.outcome = Outcome::Ignored;
        self
    }

    /// What was waited for is all that matters.
    pub fn over(mut self) -> Self {
        self.outcome = Outcome::Over;
        self
    }

    /// Plays it; gives how many good requests were answered on the way.
    pub fn play(&self, address: SocketAddr) -> u64 {
        let sent = self.steps.iter().map(|step| match step {
            Step::Send(bytes) => bytes.len(),
            _ => 0,
        });
        let mut ways = vec![Writes::All, Writes::Steps];
        if sent.sum::<usize>() <= 300 {
            ways.push(Writes::Bytes);
        }
        let play = |&writes: &Writes| {
            let told = Told(format!("{} ({writes:?})", self.name));
            let answered = self.play_with(address, writes);
            std::mem::forget(told);
            answered
        };
        ways.iter().map(play).sum()
    }

    fn play_with(&self, address: SocketAddr, writes: Writes) -> u64 {
        let mut client = RawHttp2::silent(TcpClient::connect(address));
        let mut pending = Vec::new();
        if self.greets {
            pending = [PREFACE.to_vec(), settings(&[]).bytes()].concat();
            if writes != Writes::All {
                client.send(std::mem::take(&mut pending));
                client.expect(|event| matches!(event, Event::Settings(_)));
                client.send(settings_ack());
                client.expect(|event| matches!(event, Event::SettingsAck));
            }
        }
        let mut answered = 0;
        for step in &self.steps {
            if let Step::Send(bytes) = step {
                pending.extend(bytes);
                if writes == Writes::All {
                    continue;
                }
            }
            if !write(&mut client, std::mem::take(&mut pending), writes) {
                break;
            }
            match *step {
                Step::Send(_) => {}
                Step::Answer(stream) => {
                    let response = client.response(stream);
                    assert_eq!(response.status, 200, "{}", response.text());
                    answered += 1;
                }
                Step::Reset(stream) => {
                    client.reset(stream);
                }
                Step::Sync => client.sync(),
            }
        }
        write(&mut client, pending, writes);
        answered + self.check(client)
    }

    fn check(&self, mut client: RawHttp2) -> u64 {
        match &self.outcome {
            Outcome::ConnectionError(codes) => {
                client.expect_error(codes);
                return 0;
            }
            Outcome::Closed(codes) => {
                if let Some((code, debug)) = client.farewell() {
                    assert!(codes.contains(&code), "GOAWAY with {code} ({debug})");
                }
                return 0;
            }
            Outcome::Over => return 0,
            _ => {}
        }
        let end = settle(client, self);
        let resets: Vec<_> = end.resets.iter().map(|&(_, code)| code).collect();
        let codes = match &self.outcome {
            Outcome::StreamError(_, codes) | Outcome::Tolerated(_, codes) => &codes[..],
            Outcome::Malformed(_) => &[code::PROTOCOL_ERROR],
            _ => &[],
        };
        assert!(
            end.resets.iter().all(|(on, _)| Some(*on) == self.stream()),
            "another stream is reset: {end:?}"
        );
        assert!(resets.iter().all(|code| codes.contains(code)), "{end:?}");
        if let Some((code, _)) = end.farewell {
            // Any error of a stream may be one of the connection (section 5.4.1).
            assert!(codes.contains(&code), "{end:?}");
            return 0;
        }
        assert!(end.goes_on, "the connection ends without a word: {end:?}");
        match self.outcome {
            Outcome::StreamError(..) => assert!(!resets.is_empty(), "no error: {end:?}"),
            Outcome::Malformed(_) => {
                let refused = end.status.is_some_and(|it| (400..500).contains(&it));
                assert!(refused || !resets.is_empty(), "{end:?}");
            }
            Outcome::Answered(_, status) => {
                assert_eq!(end.status, Some(status), "{end:?}");
                return 2;
            }
            _ => {}
        }
        1
    }

    /// The stream that the outcome is about.
    fn stream(&self) -> Option<u32> {
        match self.outcome {
            Outcome::StreamError(stream, _)
            | Outcome::Tolerated(stream, _)
            | Outcome::Malformed(stream)
            | Outcome::Answered(stream, _) => Some(stream),
            _ => None,
        }
    }

    /// Whether something has yet to come on the row's stream for sure.
    fn awaits(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::StreamError(..) | Outcome::Malformed(_) | Outcome::Answered(..)
        )
    }
}

/// What is left of a connection when a row is over.
#[derive(Debug, Default)]
struct End {
    /// The status of the answer on the row's stream.
    status: Option<u16>,
    /// That answer is whole.
    answered: bool,
    resets: Vec<(u32, u32)>,
    farewell: Option<(u32, String)>,
    /// Another request was answered.
    goes_on: bool,
}

/// Says which row it is if it fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("--- failed: {}", self.0);
    }
}

/// Whether all of it was taken. A server may close before.
fn write(client: &mut RawHttp2, bytes: Vec<u8>, writes: Writes) -> bool {
    match writes {
        Writes::Bytes => bytes.chunks(1).all(|byte| client.try_send(byte).is_ok()),
        _ => bytes.is_empty() || client.try_send(bytes).is_ok(),
    }
}

/// Sends another request, and reads until it is answered and the row's stream has its outcome, or to
/// the end.
fn settle(mut client: RawHttp2, row: &Row) -> End {
    let mut end = End::default();
    let mut synced = false;
    // It may have closed by now.
    let _ = client.try_send(headers(LATER, get("/empty")).end_stream());
    while !synced || (row.awaits() && !end.answered && end.resets.is_empty()) {
        let event = client.event();
        let mine = row.stream().is_some_and(|stream| event.is_on(stream));
        match event {
            Event::Headers {
                stream: LATER,
                fields,
                ..
            } => {
                assert_eq!(fields[0].1, "204", "{end:?}");
                end.goes_on = true;
                // What the server had to say to the row was said before this comes back.
                let _ = client.try_send(ping(*b"the end."));
            }
            Event::Headers {
                fields, end: whole, ..
            } if mine => {
                let status = fields.iter().find(|(name, _)| name == ":status");
                let status = status.and_then(|(_, status)| status.parse().ok());
                end.status = status.or(end.status);
                end.answered = whole;
            }
            Event::Data { end: whole, .. } if mine => end.answered = whole,
            // Nothing more of the request is wanted: it is answered (section 8.1).
            Event::Reset { stream, code }
                if code == code::NO_ERROR && client.is_answered(stream) => {}
            Event::Reset { stream, code } => end.resets.push((stream, code)),
            Event::GoAway { code, debug, .. } => end.farewell = Some((code, debug)),
            Event::Pong(opaque) if opaque == *b"the end." => synced = true,
            Event::End(clean) => {
                assert!(clean, "a reset, and no end of the stream; {end:?}");
                return end;
            }
            _ => {}
        }
    }
    end
}

/// A stream that no row has opened.
const LATER: u32 = 1001;
