//! One TLS session: bytes of the wire in, bytes of the application out, and the other way round.
//!
//! With `hello`, the only place where the reactor meets rustls. Nothing stays in here between two calls but an
//! incomplete record: what was decrypted is taken at once, what was encrypted too.

use std::io::{self, Read, Write};

use rustls::{HandshakeKind, InvalidMessage, ProtocolVersion, ServerConnection};

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
    pub(super) fn new(mut connection: ServerConnection) -> Self {
        // Its output is taken at once: the limits are those of the connection's own queue.
        connection.set_buffer_limit(None);
        Session(Box::new(connection))
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
        loop {
            // Something may have come with the hello already.
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
            if wire.is_empty() || received.closed {
                return Ok(received);
            }
            match self.0.read_tls(&mut wire) {
                Ok(0) | Err(_) => return Err(InvalidMessage::MessageTooLarge.into()),
                Ok(_) => {}
            }
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, crypto::aws_lc_rs};

    use super::*;

    /// Both ends of a connection, with nothing between them but two buffers.
    struct Pair {
        client: ClientConnection,
        server: Session,
        plain: Vec<u8>,
    }

    impl Pair {
        fn new(alpn: &[&[u8]]) -> Self {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap().der().clone();
            let provider = Arc::new(aws_lc_rs::default_provider());
            let mut config = ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.clone()],
                    key.serialize_der().try_into().unwrap(),
                )
                .unwrap();
            config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            let mut of_client = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            of_client.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
            let name = "localhost".try_into().unwrap();
            Pair {
                client: ClientConnection::new(Arc::new(of_client), name).unwrap(),
                server: Session::new(ServerConnection::new(Arc::new(config)).unwrap()),
                plain: vec![0; 1 << 20],
            }
        }

        /// What the client has to send.
        fn wire(&mut self) -> Vec<u8> {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            wire
        }

        /// Gives the server's output to the client.
        fn answer(&mut self) {
            let mut wire = Vec::new();
            self.server.drain(&mut wire);
            let mut wire = &wire[..];
            while !wire.is_empty() {
                self.client.read_tls(&mut wire).unwrap();
                self.client.process_new_packets().unwrap();
            }
        }

        /// Shakes hands, byte by byte.
        fn established(mut self) -> Self {
            while self.server.is_handshaking() || self.client.is_handshaking() {
                for byte in self.wire() {
                    let received = self.server.receive(&[byte], &mut self.plain).unwrap();
                    assert_eq!(received, Received::default());
                }
                self.answer();
            }
            self
        }
    }

    #[test]
    fn bytes_come_out_the_same_however_the_wire_cuts_them() {
        let data: Vec<u8> = (0..100_000u32).map(|n| (n * 7) as u8).collect();
        let mut pair = Pair::new(&[]).established();
        for cut in [1, 5, 4096, 16_411, usize::MAX] {
            pair.client.set_buffer_limit(None);
            pair.client.writer().write_all(&data).unwrap();
            let (wire, mut out) = (pair.wire(), Vec::new());
            for piece in wire.chunks(cut.min(wire.len())) {
                let received = pair.server.receive(piece, &mut pair.plain).unwrap();
                out.extend_from_slice(&pair.plain[..received.plain]);
                assert!(received.plain <= piece.len() + Session::ROOM);
            }
            assert!(out == data, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_sealed_is_out_at_once() {
        let mut pair = Pair::new(&[]).established();
        pair.answer();
        assert!(!pair.server.has_output());
        pair.server.seal(&[7; 50_000]);
        let mut wire = Vec::new();
        pair.server.drain(&mut wire);
        assert!(wire.len() > 50_000 && !pair.server.has_output());
    }

    #[test]
    fn the_end_is_seen_behind_what_came_before_it() {
        let mut pair = Pair::new(&[b"http/1.1"]).established();
        pair.client.writer().write_all(b"last words").unwrap();
        pair.client.send_close_notify();
        let mut wire = pair.wire();
        wire.extend_from_slice(b"nobody reads this");
        let received = pair.server.receive(&wire, &mut pair.plain).unwrap();
        assert!(received.closed);
        assert_eq!(&pair.plain[..received.plain], b"last words");
        assert_eq!(pair.server.info().alpn.as_deref(), Some("http/1.1"));
    }

    #[test]
    fn after_an_error_there_is_an_alert() {
        let mut pair = Pair::new(&[]).established();
        pair.answer();
        let forged = [&[0x17, 3, 3, 0, 32][..], &[0; 32]].concat();
        assert!(pair.server.receive(&forged, &mut pair.plain).is_err());
        let mut alert = Vec::new();
        pair.server.drain(&mut alert);
        assert!(!alert.is_empty());
        // A record that says that it is longer than any may be.
        let mut pair = Pair::new(&[]).established();
        let long = [&[0x17, 3, 3, 0xff, 0xff][..], &[0; 64]].concat();
        assert!(pair.server.receive(&long, &mut pair.plain).is_err());
    }
}
