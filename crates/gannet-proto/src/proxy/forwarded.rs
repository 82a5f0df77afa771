//! The client in `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! Each proxy adds whom it speaks for at the right end. So the values are read from the right, one
//! element at a time, and only as far as trusted proxies have written them: what stands further to
//! the left, a client may have made up, and it is not even parsed.

use std::net::{IpAddr, SocketAddr};

use crate::http1::is_token;

/// A header that tells the client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// `X-Forwarded-For: 192.0.2.7, 10.0.0.3`.
    XForwardedFor,
    /// `Forwarded: for=192.0.2.7, for="[2001:db8::3]:4711"`.
    Forwarded,
}

/// What the values of the header say about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The client; port 0 if there is none.
    Address(SocketAddr),
    /// Nothing: there is no header, or a proxy keeps the client to itself (`unknown`, `_name`).
    Unnamed,
    /// A trusted proxy has written what cannot be read.
    Malformed,
}

impl Header {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Header::XForwardedFor => "x-forwarded-for",
            Header::Forwarded => "forwarded",
        }
    }
}

/// The right-most address that is not `trusted` itself; if all are, the left-most.
///
/// `values` are those of all lines of the header, the last line first. The other end of the
/// connection is trusted: that is for the caller to check.
pub fn client<'a>(
    header: Header,
    values: impl Iterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> Client {
    let mut furthest = Client::Unnamed;
    for mut value in values {
        while let Some((left, element)) = split_last(header, value) {
            let found = match header {
                _ if element.is_empty() => None,
                Header::XForwardedFor => Some(node(element)),
                Header::Forwarded => Some(forwarded_element(element)),
            };
            match found {
                // Lists may have empty elements (RFC 9110 section 5.6.1).
                None => {}
                Some(Client::Address(addr)) if trusted(addr.ip()) => {
                    furthest = Client::Address(addr);
                }
                Some(other) => return other,
            }
            let Some(left) = left else { break };
            value = left;
        }
    }
    furthest
}

/// The last element of a list, and what stands to the left of its comma.
///
/// Read from the right, so that a quotation mark of the client's, which nothing closes, does not
/// swallow what a proxy has added.
fn split_last(header: Header, value: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let mut quoted = false;
    for (at, &byte) in value.iter().enumerate().rev() {
        match byte {
            b'"' if header == Header::Forwarded => {
                let backslashes = value[..at].iter().rev().take_while(|&&byte| byte == b'\\');
                if !quoted || backslashes.count() % 2 == 0 {
                    quoted = !quoted;
                }
            }
            b',' if !quoted => return Some((Some(&value[..at]), value[at + 1..].trim_ascii())),
            _ => {}
        }
    }
    Some((None, value.trim_ascii()))
}

/// `for=192.0.2.7;proto=https`: `for` is what counts, the rest has to be well formed.
fn forwarded_element(element: &[u8]) -> Client {
    let mut client = None;
    let mut rest = element;
    loop {
        let Some((pair, behind)) = next_pair(rest) else {
            return Client::Malformed;
        };
        if let Some((name, value)) = pair
            && name.eq_ignore_ascii_case(b"for")
            && client.replace(node(&value)).is_some()
        {
            return Client::Malformed;
        }
        match behind {
            Some(behind) => rest = behind,
            None => return client.unwrap_or(Client::Unnamed),
        }
    }
}

type Pair<'a> = Option<(&'a [u8], Vec<u8>)>;

/// The first `name=value` of an element, unquoted, and what follows its semicolon. An empty pair is
/// allowed. `None`: it is not well formed.
fn next_pair(text: &[u8]) -> Option<(Pair<'_>, Option<&[u8]>)> {
    let text = text.trim_ascii_start();
    if text.is_empty() {
        return Some((None, None));
    }
    if let Some(behind) = text.strip_prefix(b";") {
        return Some((None, Some(behind)));
    }
    let equals = memchr::memchr(b'=', text)?;
    let (name, text) = (&text[..equals], &text[equals + 1..]);
    let (value, behind) = match text.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = memchr::memchr(b';', text).unwrap_or(text.len());
            let value = text[..end].trim_ascii_end();
            if !is_token(value) {
                return None;
            }
            (value.to_vec(), &text[end..])
        }
    };
    let behind = behind.trim_ascii_start();
    let behind = match behind.split_first() {
        None => None,
        Some((b';', behind)) => Some(behind),
        Some(_) => return None,
    };
    is_token(name).then_some((Some((name, value)), behind))
}

/// The text up to the closing quotation mark, and what follows it.
fn unquote(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(byte),
        }
    }
    None
}

/// An address with or without a port, or a name that hides one (RFC 7239 section 6).
fn node(text: &[u8]) -> Client {
    let Ok(text) = std::str::from_utf8(text) else {
        return Client::Malformed;
    };
    if text.eq_ignore_ascii_case("unknown") {
        return Client::Unnamed;
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Client::Address(SocketAddr::new(ip.to_canonical(), 0));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, behind)) => match behind.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return Client::Malformed,
            },
            None => return Client::Malformed,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => Some(0),
        Some(hidden) if is_hidden(hidden) => Some(0),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok(),
        Some(_) => None,
    };
    let Some(port) = port else {
        return Client::Malformed;
    };
    if host.eq_ignore_ascii_case("unknown") || is_hidden(host) {
        return Client::Unnamed;
    }
    // Only IPv6 stands in brackets, and with a port only in brackets.
    let ip: Option<IpAddr> = match text.starts_with('[') {
        true => host.parse().ok().map(IpAddr::V6),
        false => host.parse().ok().map(IpAddr::V4),
    };
    match ip {
        Some(ip) => Client::Address(SocketAddr::new(ip.to_canonical(), port)),
        None => Client::Malformed,
    }
}

/// A name or port that stands for a secret one: `_a1.b-c`.
fn is_hidden(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_')
        .is_some_and(|name| !name.is_empty() && name.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trusts 10.0.0.0/8 and fd00::/8; `lines` as they stand in the head.
    fn find(header: Header, lines: &[&str]) -> String {
        let values = lines.iter().rev().map(|line| line.as_bytes());
        let trusted = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 10,
            IpAddr::V6(ip) => ip.octets()[0] == 0xfd,
        };
        match client(header, values, trusted) {
            Client::Address(addr) => addr.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_is_the_client() {
        for (lines, expected) in [
            (&["192.0.2.7"][..], "192.0.2.7:0"),
            (&["192.0.2.7, 10.0.0.1, 10.0.0.2"], "192.0.2.7:0"),
            (&["1.1.1.1, 192.0.2.7,10.0.0.1"], "192.0.2.7:0"),
            (&["1.1.1.1", "192.0.2.7", "10.0.0.1"], "192.0.2.7:0"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            (&["2001:db8::7"], "[2001:db8::7]:0"),
            (&["[2001:db8::7]:80"], "[2001:db8::7]:80"),
            (&["[2001:db8::7]"], "[2001:db8::7]:0"),
            (&["192.0.2.7:4711, fd00::1"], "192.0.2.7:4711"),
            (&["::ffff:192.0.2.7"], "192.0.2.7:0"),
            (&["192.0.2.7, , 10.0.0.1,"], "192.0.2.7:0"),
            (&["garbage, 192.0.2.7"], "192.0.2.7:0"),
            (&["\"unclosed, 192.0.2.7"], "192.0.2.7:0"),
            (&[], "Unnamed"),
            (&[""], "Unnamed"),
            (&["192.0.2.7, unknown, 10.0.0.1"], "Unnamed"),
        ] {
            assert_eq!(find(Header::XForwardedFor, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_a_proxy_has_written_wrongly_says_nothing() {
        for text in [
            "192.0.2.7, garbage",
            "192.0.2.7, 10.0.0.300",
            "192.0.2.7, 1.2.3.4:65536",
            "192.0.2.7, 1.2.3.4:+5",
            "192.0.2.7, [1.2.3.4]",
            "192.0.2.7, [::1",
            "192.0.2.7, [::1]80",
            "192.0.2.7, bad, 10.0.0.1",
            "\u{fe}",
        ] {
            assert_eq!(find(Header::XForwardedFor, &[text]), "Malformed", "{text}");
        }
        for text in [
            "for",
            "for=",
            "for=192.0.2.7;for=192.0.2.8",
            "for=[2001:db8::7]",
            "for=\"192.0.2.7",
            "for=\"192.0.2.7\"x",
            "f r=192.0.2.7",
            "for=192.0.2.7 proto=https",
            "for=192.0.2.7;proto",
            "for=\"2001:db8::7\" 80",
        ] {
            assert_eq!(find(Header::Forwarded, &[text]), "Malformed", "{text}");
        }
    }

    #[test]
    fn forwarded_elements_may_have_other_parameters_and_quotes() {
        for (lines, expected) in [
            (&["for=192.0.2.7"][..], "192.0.2.7:0"),
            (
                &["For=\"192.0.2.7:47\"; proto=https ;by=10.0.0.9"],
                "192.0.2.7:47",
            ),
            (
                &["by=_x;for=\"[2001:db8::7]:47\", for=10.0.0.1"],
                "[2001:db8::7]:47",
            ),
            (&["for=\"[2001:db8::7]:_port\""], "[2001:db8::7]:0"),
            (&["for=\"\\1\\92.0.2.7\""], "192.0.2.7:0"),
            (
                &["host=\"a,b;\\\",for=1.1.1.1\";for=192.0.2.7"],
                "192.0.2.7:0",
            ),
            (&["for=1.1.1.1", "for=192.0.2.7"], "192.0.2.7:0"),
            // A quotation mark of the client's own.
            (&["for=\"1.1.1.1, for=192.0.2.7"], "192.0.2.7:0"),
            (&["for=\"1.1.1.1\\, for=\"192.0.2.7\""], "192.0.2.7:0"),
            (&["for=unknown"], "Unnamed"),
            (&["for=\"_hidden:80\""], "Unnamed"),
            (&["proto=https"], "Unnamed"),
            (&["for=192.0.2.7;"], "192.0.2.7:0"),
        ] {
            assert_eq!(find(Header::Forwarded, lines), expected, "{lines:?}");
        }
    }
}
