//! Version 2: binary, with extensions (TLVs) behind the addresses.
//!
//! | bytes  | what                                                                      |
//! |--------|---------------------------------------------------------------------------|
//! | 0..12  | signature                                                                 |
//! | 12     | version (upper half), command (lower half)                                |
//! | 13     | address family (upper half), transport (lower half)                       |
//! | 14..16 | length of what follows, big endian                                        |
//! | 16..   | addresses, then extensions: type (1), length (2, big endian), value       |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Decoded, Origin, ProxyError};

/// Takes a header that begins with anything but `P`.
pub(super) fn decode(input: &[u8]) -> Result<Option<Decoded>, ProxyError> {
    let known = input.len().min(SIGNATURE.len());
    if input[..known] != SIGNATURE[..known] {
        return Err(ProxyError::Missing);
    }
    let Some(&version) = input.get(12) else {
        return Ok(None);
    };
    if version >> 4 != 2 {
        return Err(ProxyError::Version(version >> 4));
    }
    let is_local = match version & 0xf {
        0 => true,
        1 => false,
        command => return Err(ProxyError::Command(command)),
    };
    let Some(&family) = input.get(13) else {
        return Ok(None);
    };
    // A health check may say here what it likes.
    if !is_local && (family >> 4 > 3 || family & 0xf > 2) {
        return Err(ProxyError::Family(family));
    }
    let Some(&[high, low]) = input.get(14..FIXED) else {
        return Ok(None);
    };
    let used = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if used > MAX_LENGTH {
        return Err(ProxyError::TooLong(used));
    }
    let Some(header) = input.get(..used) else {
        return Ok(None);
    };
    if is_local {
        let origin = Origin::Local;
        return Ok(Some(Decoded { origin, used }));
    }
    let behind = &header[FIXED..];
    let (origin, addresses) = match family >> 4 {
        1 => (network::<4>(behind)?, 12),
        2 => (network::<16>(behind)?, 36),
        3 => (Origin::Unnamed, 216),
        _ => (Origin::Unnamed, 0),
    };
    let origin = match family & 0xf {
        // Not said what the addresses are of.
        0 => Origin::Unnamed,
        _ => origin,
    };
    check_extensions(header, FIXED + addresses)?;
    Ok(Some(Decoded { origin, used }))
}

/// Source and destination, then their ports.
fn network<const N: usize>(bytes: &[u8]) -> Result<Origin, ProxyError>
where
    [u8; N]: IntoAddress,
{
    let (source, rest) = bytes.split_first_chunk::<N>().ok_or(ProxyError::TooShort)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(ProxyError::TooShort)?;
    let (&[a, b, c, d], _) = rest.split_first_chunk().ok_or(ProxyError::TooShort)?;
    Ok(Origin::Network {
        source: SocketAddr::new(source.address(), u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination.address(), u16::from_be_bytes([c, d])),
    })
}

trait IntoAddress {
    fn address(&self) -> IpAddr;
}

impl IntoAddress for [u8; 4] {
    fn address(&self) -> IpAddr {
        Ipv4Addr::from(*self).into()
    }
}

impl IntoAddress for [u8; 16] {
    fn address(&self) -> IpAddr {
        Ipv6Addr::from(*self).to_canonical()
    }
}

/// Nothing of the extensions is used but the checksum; still they have to fill the header.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), ProxyError> {
    let mut checksum = None;
    let mut rest = header.get(at..).ok_or(ProxyError::TooShort)?;
    while let Some((&[kind, high, low], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = behind.split_at_checked(len).ok_or(ProxyError::Extension)?;
        if kind == CHECKSUM {
            let value = value.try_into().map_err(|_| ProxyError::Checksum)?;
            if checksum.replace((at + 3, value)).is_some() {
                return Err(ProxyError::Checksum);
            }
        }
        at += 3 + len;
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(ProxyError::Extension);
    }
    match checksum {
        Some((at, value)) if checksum_of(header, at) != u32::from_be_bytes(value) => {
            Err(ProxyError::Checksum)
        }
        _ => Ok(()),
    }
}

/// CRC-32C of the header, in which the checksum itself, at `at`, counts as zeros.
fn checksum_of(header: &[u8], at: usize) -> u32 {
    let bytes = header.iter().enumerate().map(|(index, &byte)| {
        let is_checksum = (at..at + 4).contains(&index);
        if is_checksum { 0 } else { byte }
    });
    !bytes.fold(!0, |crc, byte| {
        CRC32C[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

/// What a header of version 2 begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 2 that is taken, its signature included: room for the addresses
/// and for extensions such as the names of a client's certificate.
pub const MAX_LENGTH: usize = 4096;
/// Bytes in front of the addresses.
const FIXED: usize = 16;
/// The extension that has the checksum.
const CHECKSUM: u8 = 3;
const CRC32C: [u32; 256] = crc32c_table();

/// For the Castagnoli polynomial, bits reflected.
const fn crc32c_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u8, family: u8, behind: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version, family]);
        bytes.extend((behind.len() as u16).to_be_bytes());
        bytes.extend(behind);
        bytes
    }

    const FOUR: [u8; 12] = [192, 0, 2, 7, 203, 0, 113, 1, 0xdc, 4, 1, 0xbb];

    #[test]
    fn headers_name_the_client_and_what_it_connected_to() {
        for transport in [1, 2] {
            let mut bytes = header(0x21, 0x10 | transport, &FOUR);
            bytes.extend(b"GET");
            let decoded = decode(&bytes).unwrap().unwrap();
            assert_eq!(decoded.used, 28);
            let expected = Origin::Network {
                source: "192.0.2.7:56324".parse().unwrap(),
                destination: "203.0.113.1:443".parse().unwrap(),
            };
            assert_eq!(decoded.origin, expected);
        }
        let mut six = [0; 36];
        (six[15], six[31], six[33]) = (7, 1, 9);
        let decoded = decode(&header(0x21, 0x21, &six)).unwrap().unwrap();
        let expected = Origin::Network {
            source: "[::7]:9".parse().unwrap(),
            destination: "[::1]:0".parse().unwrap(),
        };
        assert_eq!(decoded.origin, expected);
    }

    #[test]
    fn other_families_name_nobody() {
        for (family, len) in [(0x00, 0), (0x00, 0), (0x31, 216), (0x32, 216), (0x10, 12)] {
            let decoded = decode(&header(0x21, family, &vec![0; len]))
                .unwrap()
                .unwrap();
            assert_eq!((decoded.origin, decoded.used), (Origin::Unnamed, 16 + len));
        }
        for behind in [&b""[..], b"anything"] {
            let decoded = decode(&header(0x20, 0xff, behind)).unwrap().unwrap();
            assert_eq!(decoded.origin, Origin::Local);
        }
    }

    #[test]
    fn what_is_no_header_is_refused_with_what_is_wrong() {
        use ProxyError::*;
        let extended = |tail: &[u8]| header(0x21, 0x11, &[&FOUR, tail].concat());
        for (bytes, wrong) in [
            (b"\r\n\r\n\0\r\nQUIZ".to_vec(), Missing),
            (b"\x16\x03\x01".to_vec(), Missing),
            (header(0x11, 0x11, &FOUR), Version(1)),
            (header(0x22, 0x11, &FOUR), Command(2)),
            (header(0x21, 0x41, &FOUR), Family(0x41)),
            (header(0x21, 0x13, &FOUR), Family(0x13)),
            (header(0x21, 0x11, &FOUR[..11]), TooShort),
            (header(0x21, 0x21, &FOUR), TooShort),
            (header(0x21, 0x31, &FOUR), TooShort),
            (header(0x21, 0x11, &[0; 4081]), TooLong(4097)),
            (extended(&[4]), Extension),
            (extended(&[4, 0, 2, 0]), Extension),
            (extended(&[3, 0, 1, 0]), Checksum),
            (extended(&[3, 0, 4, 0, 0, 0, 0]), Checksum),
        ] {
            assert_eq!(decode(&bytes), Err(wrong));
        }
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(checksum_of(b"123456789", 9), 0xe306_9283);
        let tail = [4, 0, 2, 9, 9, 3, 0, 4, 0, 0, 0, 0];
        let mut bytes = header(0x21, 0x11, &[&FOUR[..], &tail].concat());
        let at = bytes.len() - 4;
        let sum = checksum_of(&bytes, at).to_be_bytes();
        bytes[at..].copy_from_slice(&sum);
        assert!(decode(&bytes).unwrap().is_some());
        bytes[20] ^= 1;
        assert_eq!(decode(&bytes), Err(ProxyError::Checksum));
        let twice = [&FOUR[..], &tail[5..], &tail[5..]].concat();
        assert_eq!(
            decode(&header(0x21, 0x11, &twice)),
            Err(ProxyError::Checksum)
        );
    }
}
