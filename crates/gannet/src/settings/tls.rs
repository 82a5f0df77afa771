//! TLS on a listener: which files, who may connect, and the limits of handshakes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Listener, Protocol, Settings};
use crate::{Error, Result};

/// TLS on a listener.
///
/// The files are PEM. They are read by the manager at the start, and again on SIGHUP and `reload`:
/// new connections then get the new certificate, open ones are not touched. If the new files are no
/// good, the old certificates stay. No worker ever has a private key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Tls {
    /// The server's certificate, then the intermediate ones, in the order of the chain. Needed.
    ///
    /// It is also what clients get that ask for no name, or for one that no certificate has.
    pub certificate: Option<PathBuf>,

    /// The private key of `certificate`, not encrypted: PKCS#8, PKCS#1 or SEC1. Needed.
    pub key: Option<PathBuf>,

    /// More certificates: a client that asks for a name (SNI) gets the first one that has it.
    /// Default: none.
    pub sni: Vec<CertificateFiles>,

    /// Oldest version that is spoken. Default: [`TlsVersion::Tls12`]. 1.0 and 1.1 never are.
    pub min_version: TlsVersion,

    /// Certificates of authorities whose clients are let in. Default: none; clients are not asked for
    /// a certificate.
    pub client_ca: Option<PathBuf>,

    /// With `client_ca`: whether a client must have a certificate. Default:
    /// [`ClientAuth::Required`].
    pub client_auth: ClientAuth,

    /// Certificates that a client may send besides its own. Default 3. 0 to 16.
    ///
    /// So this is the most there can be between it and the authority; 0: the authority has signed it
    /// itself. A longer chain is refused before anything in it is verified.
    pub client_depth: u32,

    /// Lists of revoked client certificates (CRLs), one for each authority in a client's chain.
    /// Default: none; nothing is revoked.
    ///
    /// With this set, a client whose authority has no list here, or an outdated one, is refused.
    pub client_crl: Option<PathBuf>,

    /// How long a handshake may take, from the connection's first moment, in milliseconds. Default
    /// 10,000.
    ///
    /// Then the connection is cut. One that has sent nothing yet costs no TLS memory; one whose hello is
    /// under way or waits for its turn keeps it, 128 KiB at most.
    pub handshake_timeout_ms: u64,

    /// Handshakes begun in a second, by all reactors together. Default 1,000; 0: no limit.
    ///
    /// More of them wait for their turn, those that would wait longer than
    /// `handshake_timeout_ms` are cut. A handshake takes a reactor about 0.25 ms with an ECDSA
    /// key, 0.45 ms with RSA-2048, and that long it serves nobody else: the limit keeps a rush of new
    /// clients from slowing down those that are there.
    ///
    /// A turn is taken when a client's hello is there as a whole and makes sense, and given back if
    /// the client leaves before it comes. It is one limit for all clients: whoever sends more whole
    /// hellos than that makes others wait, or be refused. A firewall's limit for each address
    /// (connections a second) is what keeps one client from that.
    pub max_handshakes_per_s: u64,
}

/// A certificate with its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The certificate, then the intermediate ones.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientAuth {
    /// A client without a certificate is let in; one with a bad certificate is not.
    Optional,
    /// A client without a good certificate is refused.
    Required,
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            certificate: None,
            key: None,
            sni: Vec::new(),
            min_version: TlsVersion::Tls12,
            client_ca: None,
            client_auth: ClientAuth::Required,
            client_depth: 3,
            client_crl: None,
            handshake_timeout_ms: 10_000,
            max_handshakes_per_s: 1_000,
        }
    }
}

impl Tls {
    /// TLS with this certificate and its key.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Tls {
            certificate: Some(certificate.into()),
            key: Some(key.into()),
            ..Tls::default()
        }
    }

    /// Lets in only clients whose certificate is from an authority in this file.
    pub fn client_ca(self, file: impl Into<PathBuf>) -> Self {
        Tls {
            client_ca: Some(file.into()),
            ..self
        }
    }

    /// With another certificate, for the names that stand in it.
    pub fn sni(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.sni.push(CertificateFiles::new(certificate, key));
        self
    }

    /// The pairs of certificate and key: the default one first.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = CertificateFiles> + '_ {
        let default = CertificateFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        };
        std::iter::once(default).chain(self.sni.iter().cloned())
    }
}

impl CertificateFiles {
    /// This certificate and this key.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        CertificateFiles {
            certificate: Some(certificate.into()),
            key: Some(key.into()),
        }
    }
}

impl TlsVersion {
    /// `1.2` or `1.3`.
    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

/// The files that flags or variables name, for all listeners that speak TLS.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_ca: Option<PathBuf>,
}

impl Overrides {
    /// What is given: the setting, and the end of the variable's name.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let all = [
            (&self.certificate, "certificate", "CERT"),
            (&self.key, "key", "KEY"),
            (&self.client_ca, "client_ca", "CLIENT_CA"),
        ];
        let given = all.into_iter().filter(|(path, ..)| path.is_some());
        given
            .map(|(_, setting, variable)| (setting, variable))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// These where given, else those.
    pub(super) fn or(&self, others: &Overrides) -> Overrides {
        Overrides {
            certificate: self.certificate.clone().or(others.certificate.clone()),
            key: self.key.clone().or(others.key.clone()),
            client_ca: self.client_ca.clone().or(others.client_ca.clone()),
        }
    }

    pub(super) fn apply(&self, settings: &mut Settings) -> Result {
        let given = [&self.certificate, &self.key, &self.client_ca];
        if given.iter().all(|path| path.is_none()) {
            return Ok(());
        }
        let mut speakers: Vec<&mut Tls> = settings
            .listeners
            .iter_mut()
            .filter_map(|listener| listener.tls.as_mut())
            .collect();
        if speakers.is_empty() {
            return Err(Error::usage(
                "a certificate is given, but no listener speaks TLS: say so in its address, such as \
                 --listen wss://0.0.0.0:443 (or https://, tls://)",
            ));
        }
        for tls in &mut speakers {
            for (to, from) in [
                (&mut tls.certificate, &self.certificate),
                (&mut tls.key, &self.key),
                (&mut tls.client_ca, &self.client_ca),
            ] {
                if from.is_some() {
                    to.clone_from(from);
                }
            }
        }
        Ok(())
    }
}

/// Refuses TLS that lacks a file, or that cannot be; `whose` names the listener.
pub(super) fn check(listener: &Listener, whose: &str) -> Result {
    let Some(tls) = &listener.tls else {
        return Ok(());
    };
    let wrong = |what: &str| Err(Error::usage(format!("{whose}{what}")));
    if listener.protocol == Protocol::Udp {
        return wrong("there is no TLS for datagrams: remove `tls`, or listen on TCP (tls://)");
    }
    for (index, pair) in tls.pairs().enumerate() {
        let what = match (&pair.certificate, &pair.key) {
            (Some(_), Some(_)) => continue,
            (None, None) => "certificate and key are",
            (None, Some(_)) => "a certificate is",
            (Some(_), None) => "a key is",
        };
        return match index {
            0 => wrong(&format!(
                "it speaks TLS, but {what} missing: set `tls.certificate` and `tls.key`, or give \
                 --tls-cert and --tls-key (`gannet cert server` makes them)"
            )),
            _ => wrong(&format!("{what} missing in `tls.sni` number {index}")),
        };
    }
    if tls.client_ca.is_none() && tls.client_crl.is_some() {
        return wrong("`tls.client_crl` is set, but not `tls.client_ca`: nothing could be revoked");
    }
    if tls.client_ca.is_none() && tls.client_auth == ClientAuth::Optional {
        return wrong("`tls.client_auth` = optional needs `tls.client_ca`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_cannot_be_is_named() {
        let says = |tls: Tls| {
            let listener = Listener::tcp("a:1").with_tls(tls);
            check(&listener, "").map_err(|error| error.to_string())
        };
        assert_eq!(says(Tls::new("a", "b")), Ok(()));
        let udp = Listener::udp("a:1").with_tls(Tls::new("a", "b"));
        let error = check(&udp, "").unwrap_err().to_string();
        assert!(error.contains("no TLS for datagrams"), "{error}");
        assert!(says(Tls::default()).unwrap_err().contains("gannet cert"));
        let mut tls = Tls::new("a", "b");
        tls.key = None;
        assert!(says(tls).unwrap_err().contains("a key is missing"));
        let mut tls = Tls::new("a", "b");
        tls.sni.push(CertificateFiles::default());
        assert!(says(tls).unwrap_err().contains("`tls.sni` number 1"));
        let mut tls = Tls::new("a", "b");
        tls.client_crl = Some("c".into());
        assert!(says(tls).unwrap_err().contains("client_ca"));
        let mut tls = Tls::new("a", "b");
        tls.client_auth = ClientAuth::Optional;
        assert!(says(tls).unwrap_err().contains("client_ca"));
    }

    #[test]
    fn files_that_are_given_go_to_all_that_speak_tls_and_need_one() {
        let given = Overrides {
            certificate: Some("given".into()),
            ..Overrides::default()
        };
        let mut settings = Settings {
            listeners: vec![
                Listener::http("a:1"),
                Listener::http("a:2").with_tls(Tls::new("old", "key")),
            ],
            ..Settings::default()
        };
        given.apply(&mut settings).unwrap();
        assert_eq!(settings.listeners[0].tls, None);
        assert_eq!(settings.listeners[1].tls, Some(Tls::new("given", "key")));
        settings.listeners.pop();
        let error = given.apply(&mut settings).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("wss://"));
    }
}
