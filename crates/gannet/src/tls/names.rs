//! Which certificate a client gets: the first that has the name it asks for, else the first of all.

use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// Certificates by the DNS names in them. Names are in lower case; `*.` stands for one label.
#[derive(Default)]
pub(super) struct Names {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Names {
    pub(super) fn add(&mut self, key: Arc<CertifiedKey>) -> Result<(), String> {
        let Some(first) = key.cert.first() else {
            return Err("there is no certificate in it".to_owned());
        };
        let (_, certificate) = X509Certificate::from_der(first)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                if let GeneralName::DNSName(name) = name {
                    self.by_name
                        .entry(name.to_ascii_lowercase())
                        .or_insert_with(|| key.clone());
                }
            }
        }
        self.default.get_or_insert(key);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        named.or(self.default.as_ref()).cloned()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, pki_types::PrivateKeyDer};

    use super::*;

    fn key(names: &[&str]) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let signer = any_ecdsa_type(&der).unwrap();
        Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer))
    }

    #[test]
    fn the_exact_name_beats_the_wildcard_and_the_first_the_second() {
        let keys = [
            key(&["first.example"]),
            key(&["*.shop.example", "Second.example"]),
            key(&["a.shop.example", "first.example"]),
        ];
        let mut names = Names::default();
        for key in &keys {
            names.add(key.clone()).unwrap();
        }
        let found = |name: &str| {
            let found = names.find(name)?;
            keys.iter().position(|key| Arc::ptr_eq(key, found))
        };
        assert_eq!(found("first.example"), Some(0));
        assert_eq!(found("second.EXAMPLE."), Some(1));
        assert_eq!(found("b.shop.example"), Some(1));
        assert_eq!(found("a.shop.example"), Some(2));
        for none in ["shop.example", "x.a.shop.example", "*", "", "other"] {
            assert_eq!(found(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let good = key(&["a"]);
        let bad = CertifiedKey::new(vec![vec![1, 2, 3].into()], good.key.clone());
        assert!(Names::default().add(Arc::new(bad)).is_err());
    }
}
