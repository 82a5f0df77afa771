//! A scripted WebSocket client that can also misbehave.

use std::{
    io::{self, Read},
    net::SocketAddr,
};

use crate::{
    deflate::Compression,
    http::{HttpClient, Response},
    tcp::TcpClient,
};

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    tcp: TcpClient,
    accepted: Response,
    compression: Option<Compression>,
    /// Messages that came compressed.
    compressed: usize,
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text message, whole.
    Text(String),
    /// A binary message, whole.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame: its code and reason, if it has them.
    Close(Option<(u16, String)>),
}

/// Opcodes of RFC 6455.
pub mod opcode {
    #![allow(missing_docs, reason = "the names say it all")]
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

impl WebSocket {
    /// Opens a WebSocket at `/`.
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, "/", &[])
    }

    /// Opens a WebSocket with this path and these extra header lines.
    pub fn connect_with(address: SocketAddr, path: &str, headers: &[&str]) -> Self {
        Self::try_connect(address, path, headers)
            .expect("a connection")
            .unwrap_or_else(|refused| panic!("the handshake was refused: {refused:?}"))
    }

    /// Opens a WebSocket, or gives the response that refuses it.
    pub fn try_connect(
        address: SocketAddr,
        path: &str,
        headers: &[&str],
    ) -> io::Result<Result<Self, Response>> {
        Self::open(TcpClient::try_connect(address)?, path, headers)
    }

    /// Opens a WebSocket on a connection.
    pub fn open(
        tcp: TcpClient,
        path: &str,
        headers: &[&str],
    ) -> io::Result<Result<Self, Response>> {
        let mut http = HttpClient::over(tcp);
        http.try_send(handshake(path, headers))?;
        let accepted = Self::accepted_over(http)?;
        if let Ok(socket) = &accepted {
            let asked = headers.join("\n").to_ascii_lowercase();
            let may = asked.contains("sec-websocket-extensions");
            assert!(may || socket.compression.is_none(), "none was asked for");
        }
        Ok(accepted)
    }

    /// Opens a WebSocket and sends these frames in one write with the handshake.
    pub fn connect_and_send(address: SocketAddr, frames: &[u8]) -> Self {
        let mut http = HttpClient::connect(address);
        http.send([handshake("/", &[]).as_bytes(), frames].concat());
        Self::accepted_over(http)
            .expect("a response")
            .expect("accepted")
    }

    /// Reads the answer to a handshake.
    fn accepted_over(mut http: HttpClient) -> io::Result<Result<Self, Response>> {
        let response = http.try_head()?;
        if response.status != 101 {
            return http.finish_response(response).map(Err);
        }
        let upgrade = response.header("upgrade").map(str::to_ascii_lowercase);
        assert_eq!(upgrade.as_deref(), Some("websocket"), "{response:?}");
        let connection = response.header("connection").map(str::to_ascii_lowercase);
        assert_eq!(connection.as_deref(), Some("upgrade"), "{response:?}");
        assert_eq!(
            response.header("sec-websocket-accept"),
            Some(ACCEPT),
            "{response:?}"
        );
        Ok(Ok(WebSocket {
            tcp: http.into_tcp(),
            compression: Compression::agreed(&response),
            compressed: 0,
            accepted: response,
        }))
    }

    /// The server's answer to the handshake.
    pub fn accepted(&self) -> &Response {
        &self.accepted
    }

    /// Sends a text message.
    pub fn send(&mut self, text: impl AsRef<str>) {
        self.frame(true, opcode::TEXT, text.as_ref());
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, bytes: impl AsRef<[u8]>) {
        self.frame(true, opcode::BINARY, bytes);
    }

    /// Sends one frame.
    pub fn frame(&mut self, fin: bool, opcode: u8, payload: impl AsRef<[u8]>) {
        self.tcp.send(frame(fin, opcode, payload.as_ref()));
    }

    /// Sends a message compressed, as was agreed, in frames of at most so many bytes.
    pub fn send_compressed(&mut self, opcode: u8, data: &[u8], fragment: usize) {
        let compression = self.compression.as_mut().expect("compression was agreed");
        let payload = compression.compress(data);
        let mut bytes = fragments(opcode, &payload, fragment);
        bytes[0] |= RSV1;
        self.tcp.send(bytes);
    }

    /// What compresses for this client, as was agreed.
    pub fn compression_mut(&mut self) -> &mut Compression {
        self.compression.as_mut().expect("compression was agreed")
    }

    /// What was agreed about compression.
    pub fn compression(&self) -> Option<&Compression> {
        self.compression.as_ref()
    }

    /// How many messages have come compressed.
    pub fn compressed(&self) -> usize {
        self.compressed
    }

    /// Sends these bytes as they are.
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.send(bytes);
    }

    /// Sends these bytes as they are, if the server still takes them.
    pub fn try_raw(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.tcp.try_send(bytes)
    }

    /// Sends a text message and gives the text message that comes back.
    pub fn ask(&mut self, text: impl AsRef<str>) -> String {
        self.send(text);
        self.text()
    }

    /// The next message, which must be text.
    pub fn text(&mut self) -> String {
        match self.message() {
            Frame::Text(text) => text,
            other => panic!("not a text message: {other:?}"),
        }
    }

    /// The next message, which must be binary.
    pub fn binary(&mut self) -> Vec<u8> {
        match self.message() {
            Frame::Binary(bytes) => bytes,
            other => panic!("not a binary message: {other:?}"),
        }
    }

    /// The next message or close; pings are answered and skipped.
    pub fn message(&mut self) -> Frame {
        self.try_message().expect("a message")
    }

    /// The next message or close, if the connection lives so long.
    pub fn try_message(&mut self) -> io::Result<Frame> {
        loop {
            match self.try_receive()? {
                Frame::Ping(payload) => {
                    // It may be closing: then nobody waits for the pong.
                    let _ = self.try_raw(frame(true, opcode::PONG, &payload));
                }
                Frame::Pong(_) => {}
                other => return Ok(other),
            }
        }
    }

    /// The next message or control frame.
    pub fn receive(&mut self) -> Frame {
        self.try_receive().expect("a frame")
    }

    /// The next message or control frame, if the connection lives so long.
    pub fn try_receive(&mut self) -> io::Result<Frame> {
        let mut whole: Option<(u8, Vec<u8>)> = None;
        let mut is_compressed = false;
        loop {
            let (rsv1, fin, code, payload) = self.one_frame()?;
            let begins = matches!(code, opcode::TEXT | opcode::BINARY);
            assert!(
                !rsv1 || begins && self.compression.is_some(),
                "RSV1 on {code}"
            );
            is_compressed |= rsv1;
            if code >= opcode::CLOSE {
                assert!(whole.is_none(), "the kit's server never fragments");
                return Ok(control(code, payload));
            }
            let (first, mut bytes) = match (whole.take(), code) {
                (None, opcode::TEXT | opcode::BINARY) => (code, Vec::new()),
                (Some(begun), opcode::CONTINUATION) => begun,
                (begun, code) => panic!("frame {code} after {begun:?}"),
            };
            bytes.extend(payload);
            if let Some(compression) = self.compression.as_mut().filter(|_| fin && is_compressed) {
                self.compressed += 1;
                bytes = compression.inflate(&bytes);
            }
            match (fin, first) {
                (false, _) => whole = Some((first, bytes)),
                (true, opcode::TEXT) => {
                    return Ok(Frame::Text(
                        String::from_utf8(bytes).expect("text in UTF-8"),
                    ));
                }
                (true, _) => return Ok(Frame::Binary(bytes)),
            }
        }
    }

    /// Expects a close frame with this code, answers it and expects the end.
    pub fn expect_close(&mut self, code: u16) {
        match self.message() {
            Frame::Close(Some((got, reason))) => assert_eq!(got, code, "{reason}"),
            other => panic!("not a close frame with {code}: {other:?}"),
        }
        let _ = self.try_raw(frame(true, opcode::CLOSE, &code.to_be_bytes()));
        self.tcp.expect_end();
    }

    /// Closes with this code, as RFC 6455 wants it, and expects the server's answer and the end.
    pub fn close(mut self, code: u16) {
        self.frame(true, opcode::CLOSE, code.to_be_bytes());
        loop {
            match self.message() {
                Frame::Close(Some((got, _))) => break assert_eq!(got, code),
                Frame::Close(None) => panic!("a close frame without the code {code}"),
                _ => {}
            }
        }
        self.tcp.expect_end();
    }

    /// The connection itself.
    pub fn tcp(&mut self) -> &mut TcpClient {
        &mut self.tcp
    }

    /// RSV1, FIN, opcode, payload.
    fn one_frame(&mut self) -> io::Result<(bool, bool, u8, Vec<u8>)> {
        let reader = self.tcp.reader();
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        assert_eq!(head[0] & 0x30, 0, "reserved bits: {head:x?}");
        assert_eq!(head[1] & 0x80, 0, "a masked frame from a server");
        let (fin, code) = (head[0] & 0x80 != 0, head[0] & 0x0f);
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                reader.read_exact(&mut bytes)?;
                let length = u64::from(u16::from_be_bytes(bytes));
                assert!(length >= 126, "length {length} in the long form");
                length
            }
            127 => {
                let mut bytes = [0; 8];
                reader.read_exact(&mut bytes)?;
                let length = u64::from_be_bytes(bytes);
                assert!(length > 0xffff, "length {length} in the longest form");
                length
            }
            length => u64::from(length),
        };
        if code >= opcode::CLOSE {
            assert!(
                fin && length <= 125,
                "a control frame of {length} bytes, fin {fin}"
            );
        }
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        reader.read_exact(&mut payload)?;
        Ok((head[0] & RSV1 != 0, fin, code, payload))
    }
}

fn control(code: u8, payload: Vec<u8>) -> Frame {
    match code {
        opcode::PING => Frame::Ping(payload),
        opcode::PONG => Frame::Pong(payload),
        opcode::CLOSE if payload.is_empty() => Frame::Close(None),
        opcode::CLOSE => {
            assert!(payload.len() >= 2, "a close frame of one byte");
            let reason = String::from_utf8(payload[2..].to_vec()).expect("a reason in UTF-8");
            Frame::Close(Some((u16::from_be_bytes([payload[0], payload[1]]), reason)))
        }
        _ => panic!("opcode {code}"),
    }
}

/// The handshake request, with the key of RFC 6455.
pub fn handshake(path: &str, headers: &[&str]) -> String {
    let extra: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

/// One masked frame.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![if fin { 0x80 } else { 0 } | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// One masked frame that says that a compressed message begins.
pub fn compressed_frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(fin, opcode, payload);
    frame[0] |= RSV1;
    frame
}

/// A message in masked frames of at most so many bytes; one, if it is empty.
pub fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut code = opcode;
    let mut rest = payload;
    loop {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        frames.extend(frame(after.is_empty(), code, piece));
        if after.is_empty() {
            return frames;
        }
        (code, rest) = (opcode::CONTINUATION, after);
    }
}

/// The bit that says that a compressed message begins.
const RSV1: u8 = 0x40;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
