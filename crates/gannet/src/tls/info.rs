//! What is known of a connection's TLS, and how it stands in shared memory.
//!
//! A row of bytes beside the connection table, one for each slot, as long as a listener with or
//! without client certificates needs. What does not fit is left out, and says so.
//!
//! | bytes | what                                                                      |
//! |-------|---------------------------------------------------------------------------|
//! | 8     | connection id: the row may be of an earlier connection                    |
//! | 2     | version; flags                                                            |
//! | ...   | cipher suite, ALPN, server name: each a length (2 bytes) and text         |
//! | ...   | with a client certificate: fingerprint (32), serial, subject, CN, SANs    |

use aws_lc_rs::digest;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    x509::X509Name,
};

use crate::{
    Settings,
    settings::{Tls, TlsVersion},
};

/// What is known of a connection's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version that was agreed on.
    pub version: TlsVersion,
    /// The cipher suite, as in the IANA registry: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The protocol that was agreed on by ALPN: `http/1.1`.
    pub alpn: Option<String>,
    /// The name that the client asked for (SNI). The client may have asked for any name.
    pub server_name: Option<String>,
    /// Whether the client went on with an earlier session. Its certificate was verified then.
    pub resumed: bool,
    /// The client's certificate, which was verified.
    pub peer: Option<PeerCertificate>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCertificate {
    /// Its SHA-256 fingerprint: two certificates with the same one are the same.
    pub fingerprint: [u8; 32],
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// Its subject, for people to read: `CN=till-1, O=Example`. Cut at 400 bytes.
    ///
    /// What stands in it is not escaped: `O=x, CN=root` may be one organisation's name. Who it is,
    /// [`PeerCertificate::common_name`], the names, and the fingerprint say.
    pub subject: String,
    /// Whether the subject goes on behind what stands in `subject`.
    pub subject_cut: bool,
    common_name: Option<String>,
    /// Its alternative names: `DNS:till-1.example`, `IP:192.0.2.7`, `email:ann@example.org`, `URI:…`.
    pub names: Vec<String>,
    /// Whether it has more names than stand in `names`: about 700 bytes of them are kept.
    pub names_cut: bool,
}

impl PeerCertificate {
    /// What stands in a certificate that was verified.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        let names = match certificate.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(name).collect(),
            _ => Vec::new(),
        };
        Some(PeerCertificate {
            fingerprint,
            serial: hex(certificate.raw_serial()),
            subject: certificate.subject().to_string(),
            subject_cut: false,
            common_name: common_name(certificate.subject()),
            names,
            names_cut: false,
        })
    }

    /// The fingerprint as 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` has it but
    /// for the colons.
    pub fn fingerprint_hex(&self) -> String {
        hex(&self.fingerprint)
    }

    /// The common name in the subject, whole and as it stands in the certificate.
    ///
    /// There is none if the subject has none, or more than one, or one that is empty, longer than
    /// 256 bytes (the standard allows 64 characters), or no text.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

impl TlsInfo {
    /// As words of a row, cut where they do not fit.
    pub(crate) fn encode(&self, id: u64, words: usize) -> Vec<u64> {
        let mut row = Writer {
            bytes: Vec::with_capacity(words * 8),
            room: words * 8,
        };
        row.bytes.extend_from_slice(&id.to_le_bytes());
        let version = match self.version {
            TlsVersion::Tls12 => 2,
            TlsVersion::Tls13 => 3,
        };
        row.bytes.extend_from_slice(&[version, 0]);
        let mut flags = if self.resumed { RESUMED } else { 0 };
        row.text(&self.cipher, SHORT);
        row.option(self.alpn.as_deref(), SHORT, &mut flags, ALPN);
        row.option(self.server_name.as_deref(), NAME, &mut flags, SERVER_NAME);
        if let Some(peer) = &self.peer
            && row.left() >= peer.fingerprint.len()
        {
            flags |= PEER;
            row.bytes.extend_from_slice(&peer.fingerprint);
            row.text(&peer.serial, SHORT);
            row.text(&peer.subject, SUBJECT);
            if peer.subject.len() > SUBJECT || peer.subject_cut {
                flags |= SUBJECT_CUT;
            }
            let common_name = peer.common_name.as_deref();
            row.option(common_name, COMMON_NAME, &mut flags, HAS_COMMON_NAME);
            let fit = peer.names.iter().take_while(|name| row.whole(name)).count();
            if fit < peer.names.len() || peer.names_cut {
                flags |= NAMES_CUT;
            }
        }
        row.bytes[FLAGS] = flags;
        row.bytes.resize(words * 8, 0);
        let words = row.bytes.as_chunks::<8>().0;
        words.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    /// From the words of a row, if it is this connection's.
    pub(crate) fn decode(id: u64, words: &[u64]) -> Option<Self> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (&own, rest) = bytes.split_first_chunk()?;
        if u64::from_le_bytes(own) != id {
            return None;
        }
        let (&[version, flags], rest) = rest.split_first_chunk()?;
        let mut row = Reader(rest);
        let version = match version {
            2 => TlsVersion::Tls12,
            3 => TlsVersion::Tls13,
            _ => return None,
        };
        let has = |flag| flags & flag != 0;
        let cipher = row.text()?;
        let alpn = row.text()?;
        let server_name = row.text()?;
        let mut info = TlsInfo {
            version,
            cipher,
            alpn: has(ALPN).then_some(alpn),
            server_name: has(SERVER_NAME).then_some(server_name),
            resumed: has(RESUMED),
            peer: None,
        };
        if has(PEER) {
            let (&fingerprint, rest) = row.0.split_first_chunk()?;
            row.0 = rest;
            let (serial, subject, common_name) = (row.text()?, row.text()?, row.text()?);
            let names = std::iter::from_fn(|| row.text().filter(|name| !name.is_empty()));
            info.peer = Some(PeerCertificate {
                fingerprint,
                serial,
                subject,
                subject_cut: has(SUBJECT_CUT),
                common_name: has(HAS_COMMON_NAME).then_some(common_name),
                names: names.collect(),
                names_cut: has(NAMES_CUT),
            });
        }
        Some(info)
    }
}

/// Words of a row for these settings.
pub(crate) fn row_words(settings: &Settings) -> usize {
    let speakers = settings.listeners.iter().filter_map(|it| it.tls.as_ref());
    let words = |tls: &Tls| match tls.client_ca {
        Some(_) => WITH_PEER,
        None => WITHOUT_PEER,
    };
    speakers.map(words).max().unwrap_or(0)
}

struct Writer {
    bytes: Vec<u8>,
    room: usize,
}

impl Writer {
    fn left(&self) -> usize {
        self.room - self.bytes.len()
    }

    /// A text, cut after `most` bytes, or where the row ends.
    fn text(&mut self, text: &str, most: usize) {
        let room = self.left().saturating_sub(2).min(most);
        let text = &text[..text.floor_char_boundary(room)];
        if self.left() >= 2 {
            self.bytes
                .extend_from_slice(&(text.len() as u16).to_le_bytes());
            self.bytes.extend_from_slice(text.as_bytes());
        }
    }

    fn option(&mut self, text: Option<&str>, most: usize, flags: &mut u8, flag: u8) {
        if text.is_some() {
            *flags |= flag;
        }
        self.text(text.unwrap_or_default(), most);
    }

    /// A text if it fits as a whole.
    fn whole(&mut self, text: &str) -> bool {
        let fits = self.left() >= 2 + text.len() && !text.is_empty();
        if fits {
            self.text(text, text.len());
        }
        fits
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn text(&mut self) -> Option<String> {
        let (&len, rest) = self.0.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u16::from_le_bytes(len).into())?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// See [`PeerCertificate::common_name`].
fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let mut names = subject.iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return None;
    };
    let name = name.as_str().ok()?;
    (1..=COMMON_NAME)
        .contains(&name.len())
        .then(|| name.to_owned())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
        GeneralName::URI(name) => Some(format!("URI:{name}")),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
            v4.or(v6).ok().map(|ip| format!("IP:{ip}"))
        }
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const FLAGS: usize = 9;
const RESUMED: u8 = 1;
const ALPN: u8 = 2;
const SERVER_NAME: u8 = 4;
const PEER: u8 = 8;
const NAMES_CUT: u8 = 16;
const SUBJECT_CUT: u8 = 32;
const HAS_COMMON_NAME: u8 = 64;

/// Bytes of a cipher suite, a protocol, a serial number.
const SHORT: usize = 64;
/// Bytes of a DNS name.
const NAME: usize = 253;
/// Bytes kept of a subject.
const SUBJECT: usize = 400;
/// Bytes of a common name; a longer one is left out, because a part of it may be another's.
const COMMON_NAME: usize = 256;
/// Words of a row where clients have no certificates.
const WITHOUT_PEER: usize = 51;
/// Words of a row where they may.
const WITH_PEER: usize = 239;

const _: () = assert!(10 + 2 * (2 + SHORT) + 2 + NAME <= WITHOUT_PEER * 8);
const _: () = assert!(
    WITHOUT_PEER * 8 + 32 + 2 + SHORT + 2 + SUBJECT + 2 + COMMON_NAME + 700 <= WITH_PEER * 8
);
const _: () = assert!((WITHOUT_PEER + 1) * 8 <= 448 && (WITH_PEER + 1) * 8 <= 1920);

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn info() -> TlsInfo {
        TlsInfo {
            version: TlsVersion::Tls13,
            cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
            alpn: Some("http/1.1".to_owned()),
            server_name: None,
            resumed: true,
            peer: Some(PeerCertificate {
                fingerprint: [7; 32],
                serial: "0a1b".to_owned(),
                subject: "O=Example, CN=till-1".to_owned(),
                subject_cut: false,
                common_name: Some("till-1".to_owned()),
                names: vec!["DNS:till-1.example".to_owned(), "IP:192.0.2.7".to_owned()],
                names_cut: false,
            }),
        }
    }

    #[test]
    fn a_row_keeps_what_was_written() {
        let words = info().encode(5, WITH_PEER);
        assert_eq!(words.len(), WITH_PEER);
        assert_eq!(TlsInfo::decode(5, &words), Some(info()));
        assert_eq!(TlsInfo::decode(6, &words), None, "another connection's");
        let plain = TlsInfo {
            peer: None,
            alpn: None,
            server_name: Some("a".repeat(NAME)),
            ..info()
        };
        assert_eq!(
            TlsInfo::decode(5, &plain.encode(5, WITHOUT_PEER)),
            Some(plain)
        );
        assert_eq!(info().peer.unwrap().common_name(), Some("till-1"));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_says_so() {
        let mut info = info();
        let peer = info.peer.as_mut().unwrap();
        peer.subject = "\u{e9}".repeat(300);
        peer.names = (0..200).map(|n| format!("DNS:n{n}.example")).collect();
        let read = TlsInfo::decode(5, &info.encode(5, WITH_PEER)).unwrap();
        let peer = read.peer.unwrap();
        assert_eq!(peer.subject, "\u{e9}".repeat(SUBJECT / 2));
        assert!(peer.subject_cut && peer.common_name() == Some("till-1"));
        assert!(peer.names_cut && peer.names.len() > 40);
        assert!(info.peer.unwrap().names.starts_with(&peer.names));
        assert_eq!(peer.fingerprint, [7; 32]);
    }

    /// What is read in a worker of a certificate with this subject.
    fn seen(subject: &[(DnType, &str)]) -> PeerCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let info = TlsInfo {
            peer: PeerCertificate::parse(certificate.der()),
            ..info()
        };
        let read = TlsInfo::decode(5, &info.encode(5, WITH_PEER)).unwrap();
        read.peer.unwrap()
    }

    #[test]
    fn a_common_name_is_what_stands_there_and_nothing_else() {
        use DnType::{CommonName, OrganizationName};
        let peer = seen(&[(CommonName, "ann"), (OrganizationName, "x, CN=root")]);
        assert_eq!(peer.common_name(), Some("ann"));
        assert_eq!(peer.subject, "CN=ann, O=x, CN=root");
        let peer = seen(&[(CommonName, "ann, O=x"), (OrganizationName, "y")]);
        assert_eq!(peer.common_name(), Some("ann, O=x"));
        assert_eq!(
            seen(&[(OrganizationName, "x, CN=root")]).common_name(),
            None
        );
        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
        let two = [(CommonName, "ann"), (second, "root")];
        assert_eq!(seen(&two).common_name(), None, "which of them?");
    }

    #[test]
    fn a_common_name_is_whole_or_not_there() {
        let long = "a".repeat(COMMON_NAME);
        let behind = [
            (DnType::OrganizationName, &*"o".repeat(SUBJECT)),
            (DnType::CommonName, &*long),
        ];
        let peer = seen(&behind);
        assert!(peer.subject_cut && !peer.subject.contains("CN="));
        assert_eq!(peer.common_name(), Some(&*long));
        let longer = seen(&[(DnType::CommonName, &*format!("{long}b"))]);
        assert_eq!((longer.common_name(), longer.subject_cut), (None, false));
        assert_eq!(seen(&[(DnType::CommonName, "")]).common_name(), None);
    }
}
