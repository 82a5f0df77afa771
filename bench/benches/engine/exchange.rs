//! What is sent, and what must come back.

use std::{io, net::SocketAddr};

use gannet_tests::{
    http::{chunk_of, post},
    websocket::{frame, handshake, opcode},
};

use crate::socket::{Over, Socket};

/// One message and its answer, the same on every connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Sent once, before the first message; its answer is a head.
    greeting: Option<String>,
    pub(crate) message: Vec<u8>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// These bytes.
    Exactly(Vec<u8>),
    /// These bytes at its end: what stands before them differs from socket to socket.
    EndsWith(Vec<u8>),
    /// A 200 response with this body.
    HttpBody(Vec<u8>),
}

impl Exchange {
    pub(crate) fn tcp(size: usize) -> Self {
        let data = data(size);
        Exchange {
            greeting: None,
            message: data.clone(),
            answer: Answer::Exactly(data),
        }
    }

    /// A line, which comes back in capitals.
    pub(crate) fn line(size: usize) -> Self {
        let line = [&data(size)[..], b"\n"].concat();
        Exchange {
            greeting: None,
            answer: Answer::Exactly(line.to_ascii_uppercase()),
            message: line,
        }
    }

    /// A message behind its length in two bytes, which comes back in capitals.
    pub(crate) fn behind_length(size: usize) -> Self {
        let length = u16::try_from(size).unwrap_or(u16::MAX);
        let data = data(length.into());
        let message = |data: &[u8]| [&length.to_be_bytes()[..], data].concat();
        Exchange {
            greeting: None,
            message: message(&data),
            answer: Answer::Exactly(message(&data.to_ascii_uppercase())),
        }
    }

    /// A datagram, which comes back behind the client's address.
    pub(crate) fn datagram(size: usize) -> Self {
        let data = data(size);
        Exchange {
            greeting: None,
            answer: Answer::EndsWith([b" said: ", &data[..], b"\n"].concat()),
            message: data,
        }
    }

    pub(crate) fn websocket(size: usize) -> Self {
        let data = data(size);
        let mut answer = frame(true, opcode::BINARY, &data);
        // A server does not mask: the same header without the mask and its bit.
        let header = answer.len() - data.len() - 4;
        answer.truncate(header);
        answer[1] &= 0x7f;
        answer.extend_from_slice(&data);
        Exchange {
            greeting: Some(handshake("/", &[])),
            message: frame(true, opcode::BINARY, &data),
            answer: Answer::Exactly(answer),
        }
    }

    pub(crate) fn http(size: usize) -> Self {
        let data = data(size);
        let message = post("/echo", &data);
        Exchange {
            greeting: None,
            message,
            answer: Answer::HttpBody(data),
        }
    }

    /// A connection that is ready for messages.
    pub(crate) fn connect(&self, over: &Over, address: SocketAddr) -> io::Result<Box<dyn Socket>> {
        over.connect(address, |stream| {
            let Some(greeting) = &self.greeting else {
                return Ok(());
            };
            stream.write_all(greeting.as_bytes())?;
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            match head.starts_with(b"HTTP/1.1 101 ") {
                true => Ok(()),
                false => Err(io::Error::other("the handshake was refused")),
            }
        })
    }

    /// Whether `received` is the whole answer; an error if it is another.
    pub(crate) fn is_answered(&self, received: &[u8]) -> io::Result<bool> {
        match &self.answer {
            Answer::Exactly(answer) => match answer.strip_prefix(received) {
                Some(missing) => Ok(missing.is_empty()),
                None => Err(io::Error::other("other bytes came back")),
            },
            // A datagram comes whole.
            Answer::EndsWith(end) => match received.ends_with(end) {
                true => Ok(true),
                false => Err(io::Error::other("other bytes came back")),
            },
            Answer::HttpBody(body) => {
                let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return Ok(false);
                };
                let (head, rest) = received.split_at(end + 4);
                if !head.starts_with(b"HTTP/1.1 200 ") {
                    return Err(io::Error::other("another status than 200"));
                }
                // A streamed body comes in chunks.
                let chunked = String::from_utf8_lossy(head)
                    .to_lowercase()
                    .contains("chunked");
                let whole = if chunked {
                    [chunk_of(body).as_slice(), b"0\r\n\r\n"].concat()
                } else {
                    body.clone()
                };
                match whole.strip_prefix(rest) {
                    Some(missing) => Ok(missing.is_empty()),
                    None => Err(io::Error::other("another body came back")),
                }
            }
        }
    }
}

fn data(size: usize) -> Vec<u8> {
    (0..size).map(|n| b'a' + (n % 26) as u8).collect()
}
