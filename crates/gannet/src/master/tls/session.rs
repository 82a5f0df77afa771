//! One TLS session: bytes of the wire in, bytes of the application out, and the other way round.
//!
//! The only place where the reactor meets rustls. Nothing stays in here between two calls but an
//! incomplete record: what was decrypted is taken at once, what was encrypted too.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig, ServerConnection};

use crate::{
    settings::TlsVersion,
    tls::{PeerCertificate, TlsInfo},
};

/// See the module's documentation.
pub(super) struct Session(Box<ServerConnection>);

/// What bytes of the wire have brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Bytes of the application.
    pub(super) plain: usize,
    /// The client has said that nothing follows.
    pub(super) closed: bool,
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        // Its output is taken at once: the limits are those of the connection's own queue.
        connection.set_buffer_limit(None);
        Ok(Session(Box::new(connection)))
    }

    /// Takes bytes of the wire. What they bring of the application goes to the front of `plain`,
    /// which must have room for as many bytes and a record more: see [`Session::ROOM`].
    ///
    /// After an error there may be an alert to be sent, and nothing else.
    pub(super) fn receive(
        &mut self,
        mut wire: &[u8],
        plain: &mut [u8],
    ) -> Result<Received, rustls::Error> {
        let mut received = Received::default();
        while !wire.is_empty() && !received.closed {
            match self.0.read_tls(&mut wire) {
                Ok(0) | Err(_) => return Err(InvalidMessage::MessageTooLarge.into()),
                Ok(_) => {}
            }
            let state = self.0.process_new_packets()?;
            let ready = state.plaintext_bytes_to_read();
            if let Some(room) = plain.get_mut(received.plain..received.plain + ready)
                && self.0.reader().read_exact(room).is_ok()
            {
                received.plain += ready;
            } else {
                return Err(rustls::Error::General("more came out than went in".into()));
            }
            received.closed = state.peer_has_closed();
        }
        Ok(received)
    }

    /// Encrypts bytes of the application; [`Session::drain`] has the result.
    pub(super) fn seal(&mut self, plain: &[u8]) {
        // Writing into memory without a limit does not fail.
        let _ = self.0.writer().write_all(plain);
    }

    /// Says that nothing follows; [`Session::drain`] has how.
    pub(super) fn close(&mut self) {
        self.0.send_close_notify();
    }

    /// Appends what is to be sent.
    pub(super) fn drain(&mut self, out: &mut Vec<u8>) {
        while self.0.wants_write() {
            if self.0.write_tls(&mut Appending(out)).is_err() {
                return;
            }
        }
    }

    /// There is something to be sent.
    pub(super) fn has_output(&self) -> bool {
        self.0.wants_write()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// What the handshake has agreed on. The protocol chosen by ALPN is in it.
    pub(super) fn info(&self) -> TlsInfo {
        let suite = self.0.negotiated_cipher_suite().map(|suite| suite.suite());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let certificate = self.0.peer_certificates().and_then(|chain| chain.first());
        TlsInfo {
            version: match self.0.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                _ => TlsVersion::Tls13,
            },
            cipher: suite
                .and_then(|suite| suite.as_str())
                .unwrap_or_default()
                .to_owned(),
            alpn: self.0.alpn_protocol().map(text),
            server_name: self.0.server_name().map(str::to_owned),
            resumed: self.0.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: certificate.and_then(|der| PeerCertificate::parse(der)),
        }
    }

    /// What an incomplete record may bring besides the bytes that complete it.
    pub(super) const ROOM: usize = 20 << 10;
}

struct Appending<'a>(&'a mut Vec<u8>);

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
