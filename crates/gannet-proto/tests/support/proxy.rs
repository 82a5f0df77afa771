//! PROXY headers: a model that is written the other way round, and random inputs.
//!
//! The model looks at a whole input only, and finds what is at its front by trying: every line that
//! could be meant for version 1, and every field of version 2 by its place.

use std::net::{IpAddr, SocketAddr};

use gannet_proto::proxy::{self, Decoded, MAX_LENGTH, MAX_LINE, Origin, ProxyError, SIGNATURE};

use super::random::Random;

/// What stands at the front of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Header(Origin, usize),
    /// More could make it a header, or not.
    Unfinished,
    Wrong,
}

/// The decoder finds what the model finds; every longer beginning of the input gives the same once
/// one has given an answer, and a beginning that is a header's own never gives an error.
pub fn assert_cuts_mean_nothing(input: &[u8]) -> Found {
    let whole = proxy::decode(input);
    let mut answer: Option<Result<Option<Decoded>, ProxyError>> = None;
    for end in 0..=input.len().min(MAX_LENGTH + 8) {
        let now = proxy::decode(&input[..end]);
        match answer {
            Some(before) => assert_eq!(now, before, "{end} bytes of {input:?}"),
            None if now != Ok(None) => answer = Some(now),
            None => {}
        }
    }
    assert_eq!(answer.unwrap_or(Ok(None)), whole, "{input:?}");
    let found = match whole {
        Ok(Some(Decoded { origin, used })) => Found::Header(origin, used),
        Ok(None) => Found::Unfinished,
        Err(_) => Found::Wrong,
    };
    match model(input) {
        // The decoder may know before the model does that nothing can come of it.
        Found::Unfinished if found == Found::Wrong => {}
        expected => assert_eq!(found, expected, "{input:?}"),
    }
    found
}

fn model(input: &[u8]) -> Found {
    if input.starts_with(b"P") || input.is_empty() {
        line(input)
    } else if input.starts_with(&SIGNATURE) {
        binary(input)
    } else if SIGNATURE.starts_with(input) {
        Found::Unfinished
    } else {
        Found::Wrong
    }
}

fn line(input: &[u8]) -> Found {
    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
        return match input.len() >= MAX_LINE {
            true => Found::Wrong,
            false => Found::Unfinished,
        };
    };
    if end + 2 > MAX_LINE || input[..end].contains(&b'\n') || input[..end].contains(&b'\r') {
        return Found::Wrong;
    }
    let text = String::from_utf8_lossy(&input[..end]).into_owned();
    if text == "PROXY UNKNOWN" || text.starts_with("PROXY UNKNOWN ") {
        return Found::Header(Origin::Unnamed, end + 2);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let &["PROXY", family, source, destination, from, to] = &words[..] else {
        return Found::Wrong;
    };
    let address = |ip: &str, port: &str| {
        let (ip, number) = (ip.parse::<IpAddr>().ok()?, port.parse::<u16>().ok()?);
        let fits = match family {
            "TCP4" => ip.is_ipv4(),
            "TCP6" => ip.is_ipv6(),
            _ => false,
        };
        (fits && number.to_string() == port).then(|| SocketAddr::new(ip.to_canonical(), number))
    };
    match (address(source, from), address(destination, to)) {
        (Some(source), Some(destination)) => Found::Header(
            Origin::Network {
                source,
                destination,
            },
            end + 2,
        ),
        _ => Found::Wrong,
    }
}

fn binary(input: &[u8]) -> Found {
    let &[command, family, high, low, ref behind @ ..] = &input[12..] else {
        return Found::Unfinished;
    };
    let len = usize::from(high) * 256 + usize::from(low);
    if 16 + len > MAX_LENGTH || !matches!(command, 0x20 | 0x21) {
        return Found::Wrong;
    }
    let is_known = family < 0x40 && family % 16 < 3;
    if command == 0x21 && !is_known {
        return Found::Wrong;
    }
    if behind.len() < len {
        return Found::Unfinished;
    }
    if command == 0x20 {
        return Found::Header(Origin::Local, 16 + len);
    }
    let block = &behind[..len];
    let size = [0, 12, 36, 216][usize::from(family / 16)];
    if len < size || !extensions_fit(&input[..16 + len], 16 + size) {
        return Found::Wrong;
    }
    let ip = |at: usize| -> IpAddr {
        match size {
            12 => IpAddr::from(<[u8; 4]>::try_from(&block[at..at + 4]).expect("4 bytes")),
            _ => {
                let bytes = <[u8; 16]>::try_from(&block[at..at + 16]).expect("16 bytes");
                IpAddr::from(bytes).to_canonical()
            }
        }
    };
    let port = |at: usize| u16::from(block[at]) * 256 + u16::from(block[at + 1]);
    let origin = match size {
        12 | 36 if family % 16 != 0 => Origin::Network {
            source: SocketAddr::new(ip(0), port(size - 4)),
            destination: SocketAddr::new(ip((size - 4) / 2), port(size - 2)),
        },
        _ => Origin::Unnamed,
    };
    Found::Header(origin, 16 + len)
}

fn extensions_fit(header: &[u8], mut at: usize) -> bool {
    let mut sums = Vec::new();
    while at < header.len() {
        let Some(fixed) = header.get(at..at + 3) else {
            return false;
        };
        let len = usize::from(fixed[1]) * 256 + usize::from(fixed[2]);
        if at + 3 + len > header.len() {
            return false;
        }
        if fixed[0] == 3 {
            sums.push((at + 3, len));
        }
        at += 3 + len;
    }
    match sums[..] {
        [] => true,
        [(at, 4)] => header[at..at + 4] == crc32c_without(header, at).to_be_bytes(),
        _ => false,
    }
}

/// CRC-32C bit by bit, with zeros in place of the four bytes at `at`.
fn crc32c_without(header: &[u8], at: usize) -> u32 {
    let mut bytes = header.to_vec();
    bytes[at..at + 4].fill(0);
    let mut crc = u32::MAX;
    for byte in bytes {
        for bit in 0..8 {
            let one = (crc & 1) ^ u32::from(byte >> bit & 1);
            crc = (crc >> 1) ^ if one == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// A header, or what comes near one, with something behind it.
pub fn random_input(random: &mut Random) -> Vec<u8> {
    let mut input = match random.chance(2) {
        true => random_line(random),
        false => random_binary(random),
    };
    input.extend(random.bytes(3));
    if random.chance(3) {
        let interesting = b"PROXY TCP46\r\n.: 019\0\x20\x21\x11\x31\xff";
        random.mutate(&mut input, interesting);
    }
    if random.chance(8) {
        input.truncate(random.below(input.len() + 1));
    }
    input
}

fn random_line(random: &mut Random) -> Vec<u8> {
    let ip = |random: &mut Random| {
        random.pick(&[
            "192.0.2.7",
            "0.0.0.0",
            "::1",
            "2001:db8::7",
            "::ffff:1.2.3.4",
            "01.2.3.4",
        ])
    };
    let port = |random: &mut Random| random.pick(&["0", "1", "443", "65535", "65536", "01", "x"]);
    let family = random.pick(&["TCP4", "TCP6", "UNKNOWN", "UNKNOWN x", "TCP5"]);
    let words = [ip(random), ip(random), port(random), port(random)];
    let text = match random.chance(4) {
        true => format!("PROXY {family}\r\n"),
        false => format!("PROXY {family} {}\r\n", words.join(" ")),
    };
    text.into_bytes()
}

fn random_binary(random: &mut Random) -> Vec<u8> {
    let family = random.pick(&[0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x10, 0x41]);
    let size = [0, 12, 36, 216, 0][usize::from(family / 16)];
    let mut block = random.bytes(size);
    for _ in 0..random.below(3) {
        let len = random.below(20);
        block.push(random.pick(&[1, 2, 4, 5, 0x20]));
        block.extend((len as u16).to_be_bytes());
        block.extend(random.bytes(len));
    }
    let sum_at = random.chance(2).then(|| {
        block.extend([3, 0, 4, 0, 0, 0, 0]);
        16 + block.len() - 4
    });
    let mut header = SIGNATURE.to_vec();
    header.extend([random.pick(&[0x20, 0x21, 0x21, 0x21]), family]);
    header.extend((block.len() as u16).to_be_bytes());
    header.extend(block);
    if let Some(at) = sum_at {
        let sum = crc32c_without(&header, at).to_be_bytes();
        header[at..at + 4].copy_from_slice(&sum);
    }
    header
}
