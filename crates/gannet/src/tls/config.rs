//! From PEM texts to a `ServerConfig`, with errors that say which file, and what is wrong with it.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    depth::DepthLimited,
    material::{Clients, ListenerMaterial, Pair, Pem},
    names::Names,
};
use crate::{
    Error, Protocol, Result,
    settings::{ClientAuth, Listener, Tls, TlsVersion},
};

/// All but the tickets: whoever uses the configuration gives it those.
pub(super) fn build(
    listener: &Listener,
    tls: &Tls,
    material: &ListenerMaterial,
) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut names = Names::default();
    for pair in &material.pairs {
        let key = certified_key(pair, &provider)?;
        names
            .add(Arc::new(key))
            .map_err(|what| pair.certificate.error(what))?;
    }
    let versions = match tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
        TlsVersion::Tls13 => &[&TLS13][..],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| Error::usage(format!("TLS cannot be set up: {error}")))?;
    let builder = match &material.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(tls, clients, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.alpn_protocols = alpn(listener);
    // Sessions live in tickets, with the clients: here they would cost memory, and each process or
    // restart would have its own.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// What the listener can speak, best first; what was chosen is known when the handshake is done.
fn alpn(listener: &Listener) -> Vec<Vec<u8>> {
    match listener.protocol {
        Protocol::Tcp | Protocol::Udp => Vec::new(),
        Protocol::Http | Protocol::Websocket if listener.http2 => {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        }
        Protocol::Http | Protocol::Websocket => vec![b"http/1.1".to_vec()],
    }
}

/// Says which certificates have run out, or soon will.
pub(super) fn warn_of_dates(material: &ListenerMaterial) {
    let now = UnixTime::now().as_secs() as i64;
    for pair in &material.pairs {
        let Ok(chain) = certificates(&pair.certificate) else {
            continue;
        };
        let Some(Ok((_, first))) = chain.first().map(|der| X509Certificate::from_der(der)) else {
            continue;
        };
        let path = pair.certificate.path.display();
        let validity = first.validity();
        if validity.not_after.timestamp() < now {
            tracing::warn!("the certificate {path} has run out: {}", validity.not_after);
        } else if validity.not_after.timestamp() < now + SOON {
            tracing::warn!("the certificate {path} runs out: {}", validity.not_after);
        } else if validity.not_before.timestamp() > now {
            tracing::warn!(
                "the certificate {path} is not valid yet: {}",
                validity.not_before
            );
        }
    }
}

fn certified_key(pair: &Pair, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let chain = certificates(&pair.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.text.as_bytes()).map_err(|error| {
        pair.key.error(match error {
            pem::Error::NoItemsFound if pair.key.text.contains("ENCRYPTED PRIVATE KEY") => {
                "the key is encrypted: a server that starts by itself has nobody to ask for the \
                 password; write it without (openssl pkey -in OLD -out NEW)"
                    .to_owned()
            }
            pem::Error::NoItemsFound => {
                "there is no private key in it (-----BEGIN PRIVATE KEY-----)".to_owned()
            }
            other => format!("the private key cannot be read: {other}"),
        })
    })?;
    let signer = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| {
            pair.key.error(format!(
                "the private key is of no use for TLS: {error} (take ECDSA P-256 or P-384, \
                 Ed25519, or RSA of 2048 bits and more)"
            ))
        })?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => pair.key.error(format!(
            "this key is not that of the certificate in {}",
            pair.certificate.path.display()
        )),
        error => pair
            .certificate
            .error(format!("the certificate cannot be read: {error}")),
    })?;
    Ok(certified)
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(pem.text.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>();
    match all {
        Ok(all) if all.is_empty() => {
            Err(pem.error("there is no certificate in it (-----BEGIN CERTIFICATE-----)"))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(pem.error(format!("a certificate in it cannot be read: {error}"))),
    }
}

fn verifier(
    tls: &Tls,
    clients: &Clients,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&clients.authorities)? {
        roots.add(authority).map_err(|error| {
            let what = format!("a certificate in it is of no use as an authority: {error}");
            clients.authorities.error(what)
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let file = clients.revoked.as_ref().unwrap_or(&clients.authorities);
    if let Some(revoked) = &clients.revoked {
        let lists = CertificateRevocationListDer::pem_slice_iter(revoked.text.as_bytes())
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| revoked.error(format!("a list in it cannot be read: {error}")))?;
        if lists.is_empty() {
            return Err(
                revoked.error("there is no revocation list in it (-----BEGIN X509 CRL-----)")
            );
        }
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if tls.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let inner = builder
        .build()
        .map_err(|error| file.error(format!("it cannot be used: {error}")))?;
    Ok(Arc::new(DepthLimited {
        inner,
        depth: tls.client_depth as usize,
    }))
}

/// A certificate that runs out within so many seconds is warned of.
const SOON: i64 = 14 * 24 * 60 * 60;
