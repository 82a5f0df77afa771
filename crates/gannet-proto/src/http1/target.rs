//! Request targets (RFC 9112 section 3.2) and the value of `Host`.

use super::{
    bytes::{HOST, PATH, QUERY, digits, is, run},
    head::reads_host,
};

/// Checks a target against the form that the method wants. Gives the authority that it
/// names, if it names one.
///
/// # Errors
///
/// Says what is wrong, as the end of a sentence that begins with the target.
pub(super) fn check<'a>(method: &str, target: &'a str) -> Result<Option<&'a str>, &'static str> {
    if method == "CONNECT" {
        return match split_port(target) {
            Some((_, Some(port))) if !port.is_empty() => Ok(Some(target)),
            _ => Err("of CONNECT is not `host:port`"),
        };
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok(None),
            _ => Err("`*` is for OPTIONS only"),
        };
    }
    if target.starts_with('/') {
        check_path(target)?;
        return Ok(None);
    }

    let rest =
        strip_scheme(target).ok_or("is neither a path that begins with `/` nor an http URL")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    check_path(path)?;
    split_port(authority).ok_or("has an invalid host or port")?;
    Ok(Some(authority))
}

/// What is wrong with a target, if something is: see [`check`].
pub(crate) fn target_fault(method: &str, target: &str) -> Option<&'static str> {
    check(method, target).err()
}

/// Whether the bytes can be the value of `Host`: a host name or address that is not
/// empty, and maybe a port.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let name = run::<HOST>(value);
    match value[name..].split_first() {
        None => name > 0,
        Some((b':', port)) if name > 0 => is_port(port),
        _ => is_unusual_host(value),
    }
}

/// What is behind the first of these header lines, if that is `Host` as nearly all write it, with a value that
/// it can have: a name or an IPv4 address, and a port of at most five digits. `None`: it has to be looked at as any
/// other.
#[inline(always)]
pub(super) fn behind_host(lines: &[u8]) -> Option<&[u8]> {
    let (&[h, o, s, t, b':', b' '], value) = lines.split_first_chunk()? else {
        return None;
    };
    if !reads_host([h, o, s, t]) {
        return None;
    }
    match value.split_at(run::<HOST>(value)) {
        ([], _) => None,
        (_, [b'\r', b'\n', behind @ ..]) => Some(behind),
        (_, [b':', port @ ..]) => behind_port(port),
        _ => None,
    }
}

/// What is behind the line end that follows a port in its usual form. Eight bytes are looked at at once.
#[inline(always)]
fn behind_port(port: &[u8]) -> Option<&[u8]> {
    let eight = u64::from_be_bytes(*port.first_chunk()?);
    let len = digits(eight);
    // As texts of the same length compare.
    let is_port = len < 5 || len == 5 && eight >> 24 <= u64::from_be_bytes(*b"\0\0\x0065535");
    let ends = (eight << (8 * (len & 7))) >> 48 == u64::from(u16::from_be_bytes(*b"\r\n"));
    (is_port && ends).then(|| &port[len + 2..])
}

/// The same for an address in brackets and a name with percent-encodings.
fn is_unusual_host(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|value| split_port(value).is_some())
}

/// Whether two authorities are the same, case and the default ports of http and https aside.
pub(crate) fn same_authority(a: &[u8], b: &str) -> bool {
    fn bare(authority: &[u8]) -> &[u8] {
        [":80", ":443", ":"]
            .iter()
            .find_map(|port| authority.strip_suffix(port.as_bytes()))
            .unwrap_or(authority)
    }
    a.eq_ignore_ascii_case(b.as_bytes()) || bare(a).eq_ignore_ascii_case(bare(b.as_bytes()))
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let query = &path.as_bytes()[run::<PATH>(path.as_bytes())..];
    match query.is_empty() || query[0] == b'?' && run::<QUERY>(query) == query.len() {
        true => Ok(()),
        false => Err("holds a character that has to be percent-encoded"),
    }
}

/// Host and port of an authority without user information; `None` if it is invalid.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, rest)
        }
        None => {
            let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            if !is_host_name(host) {
                return None;
            }
            (host, rest)
        }
    };
    if rest.is_empty() {
        return Some((host, None));
    }
    let port = rest.strip_prefix(':')?;
    is_port(port.as_bytes()).then_some((host, Some(port)))
}

/// Letters, digits, `-._~` and percent-encodings; not empty.
fn is_host_name(host: &str) -> bool {
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let is_allowed = match byte {
            b'%' => {
                let mut is_hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
                is_hex() && is_hex()
            }
            _ => is(byte, HOST),
        };
        if !is_allowed {
            return false;
        }
    }
    !host.is_empty()
}

/// Digits that make a number below 65,536, or nothing.
fn is_port(port: &[u8]) -> bool {
    let number = match port.len() {
        0..=4 => &[][..],
        5 => port,
        // The same with zeros in front.
        len => match port.split_at(len - 5) {
            (zeros, number) if zeros.iter().all(|&byte| byte == b'0') => number,
            _ => return false,
        },
    };
    port.iter().all(u8::is_ascii_digit) && number <= b"65535"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for valid in [
            "a",
            "a.example",
            "A-b_c.example:8080",
            "127.0.0.1",
            "[::1]",
            "[::1]:80",
            "a:",
            "a%20b",
            "a:65535",
            "a.name.that.is.longer",
            "a:0065535",
            "a.name.that.is.longer:00000",
        ] {
            assert!(is_host(valid.as_bytes()), "{valid}");
            let line = format!("hOst: {valid}\r\nmore.than.eight");
            let is_usual = !valid.contains(['[', '%']) && !valid.contains(":0065535");
            let behind = is_usual.then_some(&b"more.than.eight"[..]);
            assert_eq!(behind_host(line.as_bytes()), behind, "{valid}");
        }
        for invalid in [
            "",
            ":80",
            "a b",
            "a,b",
            "user@a",
            "a/b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:165535",
            "a:0065536",
            "a:99999",
            "a:6553x",
            "a:000000000000000000000065536",
            "a:+80",
            "[::1",
            "::1",
            "[a]",
            "[::1]80",
            "a%2",
            "a%zz",
            "\u{e4}",
            "a?b",
            "a#b",
            "a\\b",
            "[]",
            "[v1.a]",
        ] {
            assert!(!is_host(invalid.as_bytes()), "{invalid}");
            let line = format!("Host: {invalid}\r\nmore.than.eight");
            assert_eq!(behind_host(line.as_bytes()), None, "{invalid}");
        }
    }

    #[test]
    fn targets() {
        for (method, target, authority) in [
            ("GET", "/", None),
            ("GET", "//a?b=[c]|d{e}", None),
            ("GET", "/%zz", None),
            ("GET", "/?`", None),
            ("OPTIONS", "*", None),
            ("GET", "http://a", Some("a")),
            ("GET", "HTTPS://a:1/b?c", Some("a:1")),
            ("GET", "http://a?b", Some("a")),
            ("CONNECT", "a:443", Some("a:443")),
        ] {
            assert_eq!(check(method, target), Ok(authority), "{method} {target}");
        }
        for (method, target) in [
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "a:443"),
            ("GET", "http:/a"),
            ("GET", "http://"),
            ("GET", "http:///a"),
            ("GET", "http://u@a/"),
            ("GET", "ftp://a/"),
            ("GET", "/#a"),
            ("GET", "/\u{e4}"),
            ("GET", "/\""),
            ("GET", "/`"),
            ("GET", "http://a/<b>"),
            ("CONNECT", "a"),
            ("CONNECT", "a:"),
            ("CONNECT", "/"),
            ("CONNECT", "http://a:80"),
            ("OPTIONS", "**"),
        ] {
            assert!(check(method, target).is_err(), "{method} {target}");
        }
    }

    #[test]
    fn default_ports_do_not_make_another_authority() {
        assert!(same_authority(b"A.example", "a.example:80"));
        assert!(same_authority(b"a:8080", "a:8080"));
        assert!(!same_authority(b"a", "a:8080"));
        assert!(!same_authority(b"a", "b"));
    }
}
