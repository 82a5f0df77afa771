//! Certificates made for a test, and a scripted TLS client.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::{server::Spec, wait::DEADLINE};

/// A place for certificates, and an authority.
#[derive(Debug)]
pub struct Keys {
    /// Where they lie; gone with the value.
    pub directory: TempDir,
    /// Who signs them.
    pub authority: Authority,
}

/// An authority that signs certificates.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and intermediate ones if there are any.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Wish {
    name: String,
    names: Vec<String>,
    serial: u64,
    /// Seconds from now.
    valid: (i64, i64),
    authority: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Keys {
            directory: tempfile::tempdir().expect("a directory for temporary files"),
            authority: Authority::new("Test CA"),
        }
    }
}

impl Keys {
    /// With TLS on the listener named last.
    pub fn serve(&self, spec: Spec) -> Spec {
        let server = self.authority.server();
        spec.tls(&server.write(self.directory.path(), "server"))
    }

    /// With TLS that lets in only clients of the authority.
    pub fn serve_mutual(&self, spec: Spec) -> Spec {
        let path = self.ca();
        self.serve(spec)
            .with_tls("client_ca", path.to_str().expect("a path of text"))
    }

    /// The authority's certificate, as a file.
    pub fn ca(&self) -> PathBuf {
        let path = self.directory.path();
        write(path, "ca.pem", self.authority.certificate())
    }
}

impl Wish {
    /// A certificate with this common name, and these names and addresses as alternative names.
    pub fn new(name: &str, names: &[&str]) -> Self {
        Wish {
            name: name.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            serial: 1,
            valid: (-3600, 30 * 24 * 3600),
            authority: false,
        }
    }

    /// With this serial number.
    pub fn serial(self, serial: u64) -> Self {
        Wish { serial, ..self }
    }

    /// Valid from and to, in seconds from now.
    pub fn valid(self, from: i64, to: i64) -> Self {
        Wish {
            valid: (from, to),
            ..self
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(self.names.clone()).expect("names");
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Example");
        name.push(DnType::CommonName, self.name.clone());
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from(self.serial));
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::seconds(self.valid.0);
        params.not_after = now + time::Duration::seconds(self.valid.1);
        if self.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::CrlSign,
                KeyUsagePurpose::DigitalSignature,
            ];
        } else {
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
        }
        params
    }
}

impl Authority {
    /// An authority that has signed itself.
    pub fn new(name: &str) -> Self {
        let params = Self::wish(name).params();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Authority {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// An authority that this one has signed.
    pub fn intermediate(&self, name: &str) -> Self {
        let params = Self::wish(name).params();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Authority {
            certificate: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate.
    pub fn sign(&self, wish: &Wish) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = wish.params().signed_by(&key, &self.issuer);
        Identity {
            certificate: certificate.expect("a certificate").pem(),
            key: key.serialize_pem(),
        }
    }

    /// A server's certificate for `localhost` and 127.0.0.1.
    pub fn server(&self) -> Identity {
        self.sign(&Wish::new("localhost", &["localhost", "127.0.0.1"]))
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A list of revoked serial numbers, good until so many seconds from now.
    pub fn revoke(&self, serials: &[u64], until: i64) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - time::Duration::seconds(60),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::seconds(120),
            next_update: now + time::Duration::seconds(until),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        list.pem().expect("a list as text")
    }

    fn wish(name: &str) -> Wish {
        Wish {
            authority: true,
            ..Wish::new(name, &[])
        }
    }
}

impl Identity {
    /// One that nobody but itself has signed.
    pub fn self_signed(wish: &Wish) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = wish.params().self_signed(&key).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// With the certificates of the authorities above it.
    pub fn chain(mut self, above: &[&Authority]) -> Self {
        for authority in above {
            self.certificate += &authority.certificate;
        }
        self
    }

    /// Writes `NAME.pem` and `NAME.key` there.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = write(directory, &format!("{name}.pem"), &self.certificate);
        (
            certificate,
            write(directory, &format!("{name}.key"), &self.key),
        )
    }

    fn parse(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        (
            chain.collect::<Result<_, _>>().expect("certificates"),
            key.expect("a key"),
        )
    }
}

/// Writes a file as an installer does: it is there whole or not at all.
pub fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let (path, new) = (directory.join(name), directory.join(format!("{name}.new")));
    fs::write(&new, text).expect("write a file");
    fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).expect("its mode");
    fs::rename(new, &path).expect("put it in place");
    path
}

/// How a client shakes hands.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// What stands in front of the handshake.
    header: Vec<u8>,
}

impl Client {
    /// A client that trusts this authority.
    pub fn new(authority: &Authority) -> Self {
        Self::with(authority, None, rustls::ALL_VERSIONS, &[])
    }

    /// A client with a certificate of its own, these versions, and these protocols.
    pub fn with(
        authority: &Authority,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.certificate.as_bytes());
        roots.add(root.expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity.map(Identity::parse) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a key"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        Client {
            config: Arc::new(config),
            name: "localhost".try_into().expect("a name"),
            header: Vec::new(),
        }
    }

    /// With a certificate of its own.
    pub fn known(authority: &Authority, identity: &Identity) -> Self {
        Self::with(authority, Some(identity), rustls::ALL_VERSIONS, &[])
    }

    /// The same, with nothing remembered of earlier sessions.
    pub fn forgetful(self) -> Self {
        let mut config = (*self.config).clone();
        config.resumption = rustls::client::Resumption::disabled();
        Client {
            config: Arc::new(config),
            ..self
        }
    }

    /// The same, asking for this name.
    pub fn asking_for(self, name: &str) -> Self {
        Client {
            name: name.to_owned().try_into().expect("a name"),
            ..self
        }
    }

    /// The same, with these bytes in front of the handshake, in one write with its first.
    pub fn behind(self, header: impl Into<Vec<u8>>) -> Self {
        Client {
            header: header.into(),
            ..self
        }
    }

    /// The first thing it sends.
    pub fn hello(&self) -> Vec<u8> {
        let session = ClientConnection::new(self.config.clone(), self.name.clone());
        let mut hello = Vec::new();
        let written = session.expect("a session").write_tls(&mut hello);
        written.expect("memory takes all");
        hello
    }

    /// Connects and shakes hands.
    pub fn connect(&self, address: SocketAddr) -> TlsClient {
        self.try_connect(address)
            .unwrap_or_else(|error| panic!("TLS to {address}: {error}"))
    }

    /// Connects and shakes hands, if the server lets it. A refused certificate may show only when
    /// something is read.
    pub fn try_connect(&self, address: SocketAddr) -> io::Result<TlsClient> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        self.over(stream)
    }

    /// Shakes hands over a connection that exists.
    pub fn over(&self, stream: TcpStream) -> io::Result<TlsClient> {
        self.over_with(stream, |stream, first| stream.write_all(first))
    }

    /// Shakes hands over a connection that exists; `send` sends the client's first bytes.
    pub fn over_with(
        &self,
        mut stream: TcpStream,
        send: impl FnOnce(&mut TcpStream, &[u8]) -> io::Result<()>,
    ) -> io::Result<TlsClient> {
        // A Unix socket has no such address.
        if stream.local_addr().is_ok() {
            stream.set_nodelay(true)?;
        }
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let mut session = ClientConnection::new(self.config.clone(), self.name.clone())
            .map_err(io::Error::other)?;
        let mut first = self.header.clone();
        session.write_tls(&mut first)?;
        send(&mut stream, &first)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(TlsClient { session, stream })
    }

    /// An address where plain connections are taken, and carried to `address` over TLS, each by a
    /// thread: so that every other client of the kit can speak TLS.
    pub fn tunnel(&self, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let entry = listener.local_addr().expect("an address");
        let client = self.clone();
        thread::spawn(move || {
            for plain in listener.incoming().map_while(Result::ok) {
                let client = client.clone();
                thread::spawn(move || {
                    let carried = client
                        .try_connect(address)
                        .and_then(|secret| carry(&plain, secret));
                    // The client sees a connection that ends.
                    drop(carried);
                });
            }
        });
        entry
    }
}

/// An open TLS connection.
#[derive(Debug)]
pub struct TlsClient {
    session: ClientConnection,
    stream: TcpStream,
}

impl TlsClient {
    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).expect("send");
    }

    /// Sends a line and gives the line that comes back.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.line()
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        self.try_line().expect("a line")
    }

    /// The next line, if the server sends one.
    pub fn try_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            self.stream().read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        line.pop();
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream().read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// Everything until the server says that nothing follows; an end without that is an error.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream().read_to_end(&mut rest).map(|_| rest)
    }

    /// Says that nothing more will be sent, and leaves the socket open.
    pub fn finish(&mut self) {
        self.session.send_close_notify();
        while self.session.wants_write() {
            self.session.write_tls(&mut self.stream).expect("send");
        }
    }

    /// Whether it goes on with an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The server's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        let chain = self.session.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    }

    /// The protocol that was chosen by ALPN.
    pub fn protocol(&self) -> Option<String> {
        let protocol = self.session.alpn_protocol()?;
        Some(String::from_utf8_lossy(protocol).into_owned())
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// To read and write as the socket does: at once, if that does not block.
    pub fn stream(&mut self) -> rustls::Stream<'_, ClientConnection, TcpStream> {
        rustls::Stream::new(&mut self.session, &mut self.stream)
    }
}

/// Carries bytes both ways until one side ends.
fn carry(plain: &TcpStream, mut secret: TlsClient) -> io::Result<()> {
    plain.set_nodelay(true)?;
    plain.set_nonblocking(true)?;
    secret.stream.set_nonblocking(true)?;
    // Decrypted and not written; encrypted bytes wait in the session.
    let mut out: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    let (mut plain_ended, mut secret_ended) = (false, false);
    loop {
        if !out.is_empty() {
            match (&*plain).write(&out) {
                Ok(written) => drop(out.drain(..written)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        if secret_ended && out.is_empty() {
            return plain.shutdown(Shutdown::Write);
        }
        if secret.session.wants_write() {
            match secret.session.write_tls(&mut secret.stream) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        let want = |on: bool, flag| if on { flag } else { PollFlags::empty() };
        let mut ready = [
            PollFd::from_borrowed_fd(
                plain.as_fd(),
                want(!plain_ended && !secret.session.wants_write(), PollFlags::IN)
                    | want(!out.is_empty(), PollFlags::OUT),
            ),
            PollFd::from_borrowed_fd(
                secret.stream.as_fd(),
                want(out.is_empty() && !secret_ended, PollFlags::IN)
                    | want(secret.session.wants_write(), PollFlags::OUT),
            ),
        ];
        poll(
            &mut ready,
            Some(&Duration::from_secs(60).try_into().expect("a time")),
        )?;
        let [from_plain, from_secret] = [ready[0].revents(), ready[1].revents()];
        if from_plain.contains(PollFlags::IN) {
            match (&*plain).read(&mut buffer) {
                Ok(0) => {
                    plain_ended = true;
                    secret.session.send_close_notify();
                }
                Ok(read) => secret.session.writer().write_all(&buffer[..read])?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        } else if from_plain.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
        if from_secret.intersects(PollFlags::IN | PollFlags::HUP) && out.is_empty() {
            match secret.session.read_tls(&mut secret.stream) {
                Ok(0) => secret_ended = true,
                Ok(_) => {
                    let state = secret
                        .session
                        .process_new_packets()
                        .map_err(io::Error::other)?;
                    let from = out.len();
                    out.resize(from + state.plaintext_bytes_to_read(), 0);
                    secret.session.reader().read_exact(&mut out[from..])?;
                    secret_ended |= state.peer_has_closed();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}
