//! What stands in a certificate.

use std::{fmt, net::IpAddr};

use aws_lc_rs::rand;
use gannet::{Error, Result};
use p12_keystore::{
    Certificate as P12Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm,
    PrivateKey, PrivateKeyChain,
};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::{
    extensions::GeneralName,
    pem::{Pem, parse_x509_pem},
    prelude::X509Certificate,
};

use super::failed;

/// Whose certificate it is to be.
pub(super) enum Kind {
    Server(Names),
    Client { name: String, email: Option<String> },
}

/// The names of a server; at least one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let names = names.into_iter().map(|name| {
            let host = name.strip_prefix("*.").unwrap_or(name);
            let label = |label: &str| {
                let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                let ends = label.starts_with('-') || label.ends_with('-');
                (1..=63).contains(&label.len()) && label.chars().all(fine) && !ends
            };
            let is_dns = host.len() <= 253 && host.split('.').all(label);
            if name.parse::<IpAddr>().is_ok() || is_dns {
                return Ok(name.to_ascii_lowercase());
            }
            Err(Error::usage(format!(
                "{name:?} is no name of a server: write a DNS name such as chat.example.org or \
                 *.example.org (without https:// and port), or an IP address"
            )))
        });
        Ok(Names(names.collect::<Result<_>>()?))
    }

    pub(super) fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// A new key: ECDSA on P-256, which every client knows, and which costs servers least.
pub(super) fn key() -> Result<KeyPair> {
    KeyPair::generate().map_err(|error| failed("make a key", error))
}

/// The certificate of an authority, signed by itself. It signs no further authorities.
pub(super) fn authority(name: &str, days: i64, key: &KeyPair) -> Result<String> {
    let mut params = params(name, days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(key);
    Ok(made
        .map_err(|error| failed("make the authority", error))?
        .pem())
}

/// A certificate for this key, signed by the authority.
pub(super) fn signed(
    kind: &Kind,
    days: i64,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<Certificate> {
    let name = match kind {
        Kind::Server(names) => names.first().unwrap_or_default(),
        Kind::Client { name, .. } => name,
    };
    let mut params = params(name, days)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let bad = |error| failed("make a certificate", error);
    match kind {
        Kind::Server(names) => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let named = CertificateParams::new(names.0.clone()).map_err(bad)?;
            params.subject_alt_names = named.subject_alt_names;
        }
        Kind::Client { email, .. } => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            if let Some(email) = email {
                let email = email.as_str().try_into().map_err(|_| {
                    Error::usage(format!(
                        "{email:?} cannot stand in a certificate: ASCII only"
                    ))
                })?;
                params.subject_alt_names = vec![SanType::Rfc822Name(email)];
            }
        }
    }
    params.signed_by(key, issuer).map_err(bad)
}

/// A certificate and its key in one file, as browsers import it. The authority is in it too.
pub(super) fn p12(
    name: &str,
    certificate: &Certificate,
    key: &KeyPair,
    authority: &str,
    password: &str,
    old: bool,
) -> std::result::Result<Vec<u8>, String> {
    let text = |error: p12_keystore::error::Error| error.to_string();
    let authority = pem(authority)?;
    let chain = [
        P12Certificate::from_der(certificate.der()).map_err(text)?,
        P12Certificate::from_der(&authority.contents).map_err(text)?,
    ];
    let key = PrivateKey::from_der(key.serialized_der()).map_err(text)?;
    let id = random::<20>().map_err(|error| error.to_string())?;
    let mut store = KeyStore::new();
    let entry = PrivateKeyChain::new(id.to_vec(), key, chain);
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(entry));
    let mut writer = store.writer(password).encryption_iterations(100_000);
    if old {
        writer = writer
            .encryption_algorithm(EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc)
            .mac_algorithm(MacAlgorithm::HmacSha1);
    }
    writer.write().map_err(text)
}

/// A password that can be typed: 100 bits of chance.
pub(super) fn password() -> Result<String> {
    let bytes = random::<20>()?;
    // 32 signs, none of which looks like another.
    let signs = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = bytes
        .iter()
        .map(|byte| char::from(signs[usize::from(byte % 32)]));
    let letters: Vec<char> = letters.collect();
    let groups: Vec<String> = letters
        .chunks(5)
        .map(|group| group.iter().collect())
        .collect();
    Ok(groups.join("-"))
}

/// The names in a server's certificate.
pub(super) fn names_of(text: &str) -> std::result::Result<Names, String> {
    with_certificate(text, |certificate| {
        let names = match certificate.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(name).collect(),
            _ => Vec::new(),
        };
        Names(names)
    })
}

/// The serial number in a certificate.
pub(super) fn serial_of(text: &str) -> std::result::Result<SerialNumber, String> {
    with_certificate(text, |certificate| {
        SerialNumber::from_slice(certificate.raw_serial())
    })
}

/// A serial number of pairs of hexadecimal digits; colons are left out.
pub(super) fn parse_serial(text: &str) -> Option<SerialNumber> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes = pairs.iter().map(byte).collect::<Option<Vec<_>>>()?;
    Some(SerialNumber::from_slice(&bytes))
}

/// Whether the key is that of the certificate.
pub(super) fn check_pair(certificate: &str, key: &KeyPair) -> std::result::Result<(), String> {
    let own = with_certificate(certificate, |certificate| {
        certificate.public_key().subject_public_key.data == key.der_bytes()
    })?;
    match own {
        true => Ok(()),
        false => Err("this key is not that of ca.pem".to_owned()),
    }
}

fn params(name: &str, days: i64) -> Result<CertificateParams> {
    let now = OffsetDateTime::now_utc();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut serial = random::<16>()?;
    // Positive, and as long as it looks.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    // Clients whose clocks are late are let in.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
    Ok(params)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::new("the system gives no random numbers"))?;
    Ok(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pem(text: &str) -> std::result::Result<Pem, String> {
    let (_, pem) = parse_x509_pem(text.as_bytes())
        .map_err(|_| "there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned())?;
    Ok(pem)
}

fn with_certificate<T>(
    text: &str,
    look: impl FnOnce(&X509Certificate<'_>) -> T,
) -> std::result::Result<T, String> {
    let pem = pem(text)?;
    let certificate = pem
        .parse_x509()
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    Ok(look(&certificate))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names_and_addresses() {
        let names =
            Names::parse(["Chat.example.org", "*.example.org", "192.0.2.7", "::1"]).unwrap();
        assert_eq!(
            names.to_string(),
            "chat.example.org, *.example.org, 192.0.2.7, ::1"
        );
        for bad in ["", "https://a", "a:80", "a b", "*", "a.*.b", "-", "a..b"] {
            let error = Names::parse([bad]).unwrap_err();
            assert!(error.is_usage(), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_long_and_never_the_same() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), one.matches('-').count()), (23, 3));
    }

    #[test]
    fn a_renewed_certificate_has_the_names_and_another_serial_number() {
        let key_of_ca = key().unwrap();
        let text = authority("Test CA", 10, &key_of_ca).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&text, key_of_ca).unwrap();
        let kind = || Kind::Server(Names::parse(["a.example", "::1"]).unwrap());
        let key = key().unwrap();
        let one = signed(&kind(), 10, &key, &issuer).unwrap().pem();
        let other = signed(&kind(), 10, &key, &issuer).unwrap().pem();
        assert_eq!(names_of(&one).unwrap().to_string(), "a.example, ::1");
        assert_ne!(serial_of(&one).unwrap(), serial_of(&other).unwrap());
        assert!(check_pair(&one, &key).is_ok() && check_pair(&text, &key).is_err());
    }
}
