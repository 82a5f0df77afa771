//! The list of revoked certificates.

use gannet::Result;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::{
    pem::parse_x509_pem,
    prelude::{CertificateRevocationList, FromDer},
};

use super::failed;

/// What stands on the list.
#[derive(Default)]
pub(super) struct List {
    number: u64,
    revoked: Vec<(SerialNumber, OffsetDateTime)>,
}

/// Reads a list.
pub(super) fn read(text: &str) -> std::result::Result<List, String> {
    let bad = || "there is no revocation list in it (-----BEGIN X509 CRL-----)".to_owned();
    let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| bad())?;
    let (_, list) = CertificateRevocationList::from_der(&pem.contents).map_err(|_| bad())?;
    let number = list.crl_number().and_then(|number| number.try_into().ok());
    let revoked = list.iter_revoked_certificates().map(|certificate| {
        let serial = SerialNumber::from_slice(certificate.raw_serial());
        (serial, certificate.revocation_date.to_datetime())
    });
    Ok(List {
        number: number.unwrap_or(0),
        revoked: revoked.collect(),
    })
}

/// The list with these certificates too, signed by the authority; and how many were not on it before.
pub(super) fn with(
    mut list: List,
    serials: &[SerialNumber],
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, usize)> {
    let now = OffsetDateTime::now_utc();
    let before = list.revoked.len();
    for serial in serials {
        if !list.revoked.iter().any(|(known, _)| known == serial) {
            list.revoked.push((serial.clone(), now));
        }
    }
    let new = list.revoked.len() - before;
    let params = CertificateRevocationListParams {
        this_update: now - Duration::hours(1),
        // It is renewed by hand: an end would lock everybody out some day.
        next_update: now + Duration::days(YEARS * 365),
        crl_number: SerialNumber::from(list.number + 1),
        issuing_distribution_point: None,
        revoked_certs: list
            .revoked
            .into_iter()
            .map(|(serial_number, revocation_time)| RevokedCertParams {
                serial_number,
                revocation_time,
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = params.signed_by(issuer).and_then(|list| list.pem());
    Ok((
        signed.map_err(|error| failed("make the list of revoked certificates", error))?,
        new,
    ))
}

/// How long a list is good.
const YEARS: i64 = 10;
