//! tungstenite and the decoder agree about random and damaged frames: on every message,
//! and on whether the connection fails.
//!
//! tungstenite is laxer than RFC 6455 where `is_exception` says so, and later: it judges
//! whole frames, the decoder judges bytes.

mod support;

use std::io::{self, Read, Write};

use gannet_proto::websocket::{Decoder, Limits, ProtocolError};
use support::{
    random::Random,
    websocket::{Seen, random_input, read},
};
use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocket, WebSocketConfig},
};

/// A stream that has this input, then nothing more for now; what is written is dropped.
struct Input<'a>(&'a [u8]);

impl Read for Input<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Input<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Waits for more, or was closed by the peer.
    Fine,
    Failed(String),
}

fn tungstenite(input: &[u8], limits: Limits) -> (Vec<Seen>, Outcome) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits.max_message_size))
        .max_frame_size(Some(limits.max_message_size));
    let mut socket = WebSocket::from_raw_socket(Input(input), Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        events.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Text(text.to_string()),
            Ok(Message::Binary(data)) => Seen::Binary(data.to_vec()),
            Ok(Message::Ping(data)) => Seen::Ping(data.to_vec()),
            Ok(Message::Pong(data)) => Seen::Pong(data.to_vec()),
            Ok(Message::Close(close)) => {
                Seen::Close(close.map(|close| (close.code.into(), close.reason.to_string())))
            }
            Ok(Message::Frame(frame)) => panic!("{frame}"),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return (events, Outcome::Fine),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (events, Outcome::Fine);
            }
            Err(error) => return (events, Outcome::Failed(error.to_string())),
        });
        if let Some(Seen::Close(_)) = events.last() {
            return (events, Outcome::Fine);
        }
    }
}

/// Whether the RFC has the decoder refuse what tungstenite accepts.
fn is_exception(error: ProtocolError) -> bool {
    matches!(
        error,
        // Section 5.2 wants the shortest form; tungstenite takes any.
        ProtocolError::LongLength
            // Section 7.4: tungstenite answers a bad code with 1002 by itself, and shows
            // the application a close with that code.
            | ProtocolError::InvalidCloseCode(_)
            // Section 5.5, as 5.2: a small ping whose length is written in a long form.
            | ProtocolError::LargeControl
    )
}

#[test]
fn the_decoder_and_tungstenite_agree() {
    let limits = Limits {
        max_message_size: 400,
        ..Limits::default()
    };
    let mut agreed_to_fail = 0;
    let mut exceptions = 0;
    let mut early = 0;
    let cases = 30_000;
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let input = random_input(&mut random);
        let ours = read(Decoder::new(limits), limits, &input, &[]);
        let (events, outcome) = tungstenite(&input, limits);

        let context = format!(
            "seed {seed}\n{}\n{ours:?}\n{outcome:?}",
            input.escape_ascii()
        );
        match (ours.error, outcome) {
            (None, Outcome::Fine) => assert_eq!(ours.events, events, "{context}"),
            (Some(error), _) if is_exception(error) && events.len() > ours.events.len() => {
                assert_eq!(events[..ours.events.len()], ours.events, "{context}");
                exceptions += 1;
            }
            (Some(_), Outcome::Failed(_)) => {
                assert_eq!(ours.events, events, "{context}");
                agreed_to_fail += 1;
            }
            (Some(_), Outcome::Fine) => {
                // tungstenite judges whole frames: let it have the rest of this one.
                let longest = limits.max_message_size + 14;
                let (events, outcome) =
                    tungstenite(&[&input[..], &vec![0; longest]].concat(), limits);
                assert!(matches!(outcome, Outcome::Failed(_)), "{context}");
                assert_eq!(ours.events, events, "{context}");
                early += 1;
            }
            (None, Outcome::Failed(_)) => panic!("only tungstenite fails: {context}"),
        }
    }
    assert!(
        agreed_to_fail > cases / 10,
        "{agreed_to_fail} agreed to fail"
    );
    assert!(exceptions < cases / 5, "{exceptions} exceptions");
    assert!(early < cases / 5, "{early} failed early");
}
