//! Version 1: one line of text.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{Decoded, Origin, ProxyError};

/// Takes a line that begins with `P`.
pub(super) fn decode(input: &[u8]) -> Result<Option<Decoded>, ProxyError> {
    let known = input.len().min(PREFIX.len());
    if input[..known] != PREFIX[..known] {
        return Err(ProxyError::Missing);
    }
    let line = &input[..input.len().min(MAX_LINE)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', line) else {
        return match line.len() {
            MAX_LINE => Err(ProxyError::LineEnd),
            _ => Ok(None),
        };
    };
    match line[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if end + 1 < MAX_LINE => return Ok(None),
        _ => return Err(ProxyError::LineEnd),
    }
    let origin = origin(line.get(PREFIX.len()..end).unwrap_or_default())?;
    let used = end + 2;
    Ok(Some(Decoded { origin, used }))
}

/// What the words behind `PROXY ` say.
fn origin(words: &[u8]) -> Result<Origin, ProxyError> {
    let mut words = words.split(|&byte| byte == b' ');
    let is_v4 = match words.next() {
        Some(b"TCP4") => true,
        Some(b"TCP6") => false,
        // The rest of the line says nothing.
        Some(b"UNKNOWN") => return Ok(Origin::Unnamed),
        _ => return Err(ProxyError::LineProtocol),
    };
    let mut word = || {
        let word = words.next().ok_or(ProxyError::LineWords)?;
        std::str::from_utf8(word).map_err(|_| ProxyError::LineWords)
    };
    let [source, destination, source_port, destination_port] = [word()?, word()?, word()?, word()?];
    if words.next().is_some() {
        return Err(ProxyError::LineWords);
    }
    let [source, destination] = match is_v4 {
        true => [
            address::<Ipv4Addr>(source)?,
            address::<Ipv4Addr>(destination)?,
        ],
        false => [
            address::<Ipv6Addr>(source)?,
            address::<Ipv6Addr>(destination)?,
        ],
    };
    Ok(Origin::Network {
        source: SocketAddr::new(source, port(source_port)?),
        destination: SocketAddr::new(destination, port(destination_port)?),
    })
}

fn address<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, ProxyError> {
    let address: A = word.parse().map_err(|_| ProxyError::LineAddress)?;
    Ok(address.into().to_canonical())
}

fn port(word: &str) -> Result<u16, ProxyError> {
    let shortest = word == "0" || matches!(word.as_bytes(), [b'1'..=b'9', ..]);
    let port = word.parse().ok().filter(|_| shortest);
    port.ok_or(ProxyError::LinePort)
}

const PREFIX: &[u8] = b"PROXY ";
/// The longest line of version 1, its CRLF included.
pub const MAX_LINE: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Option<Decoded>, ProxyError> {
        decode(text.as_bytes())
    }

    #[test]
    fn lines_name_the_client_and_what_it_connected_to() {
        let text = "PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\nGET";
        let decoded = line(text).unwrap().unwrap();
        assert_eq!(decoded.used, text.len() - 3);
        let expected = Origin::Network {
            source: "192.0.2.7:56324".parse().unwrap(),
            destination: "203.0.113.1:443".parse().unwrap(),
        };
        assert_eq!(decoded.origin, expected);

        let decoded = line("PROXY TCP6 2001:db8::7 ::1 1 0\r\n").unwrap().unwrap();
        let expected = Origin::Network {
            source: "[2001:db8::7]:1".parse().unwrap(),
            destination: "[::1]:0".parse().unwrap(),
        };
        assert_eq!(decoded.origin, expected);

        let mapped = line("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 0\r\n")
            .unwrap()
            .unwrap();
        assert!(matches!(mapped.origin, Origin::Network { source, .. } if source.is_ipv4()));
        for text in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 what ever\r\n"] {
            let decoded = line(text).unwrap().unwrap();
            assert_eq!(decoded.origin, Origin::Unnamed);
            assert_eq!(decoded.used, text.len());
        }
    }

    #[test]
    fn what_is_no_line_is_refused_with_what_is_wrong() {
        use ProxyError::*;
        for (text, wrong) in [
            ("POST / HTTP/1.1\r\n", Missing),
            ("PROXY\tTCP4", Missing),
            ("PROXY\r\n", Missing),
            ("PROXY \r\n", LineProtocol),
            ("PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n", LineProtocol),
            ("PROXY TCP4\r\n", LineWords),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", LineWords),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", LineWords),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", LineWords),
            ("PROXY TCP4 ::1 1.2.3.4 1 1\r\n", LineAddress),
            ("PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", LineAddress),
            ("PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n", LineAddress),
            ("PROXY TCP6 [::1] ::1 1 1\r\n", LineAddress),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", LineAddress),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", LinePort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", LinePort),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", LinePort),
            ("PROXY UNKNOWN\n", LineEnd),
            ("PROXY UNKNOWN\rx", LineEnd),
        ] {
            assert_eq!(line(text), Err(wrong), "{text:?}");
        }
    }

    #[test]
    fn a_line_has_at_most_107_bytes() {
        let with = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
        assert_eq!(line(&with(107)).unwrap().unwrap().used, 107);
        assert_eq!(line(&with(108)), Err(ProxyError::LineEnd));
        assert_eq!(line(&with(108)[..106]), Ok(None));
        assert_eq!(line(&with(108)[..107]), Err(ProxyError::LineEnd));
    }
}
