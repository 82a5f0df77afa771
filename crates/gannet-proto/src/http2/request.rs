//! Requests of HTTP/2 (RFC 9113 section 8), judged and turned into those of HTTP/1.
//!
//! Whatever would be ambiguous once it is written as HTTP/1 is malformed, so that a program behind
//! the server sees nothing that a client of HTTP/1 could not have sent.

use crate::http1::{
    BodyLength, Headers, Limits, RequestError, RequestHead, Version, is_host, is_token, is_trailer,
    same_authority, target_fault,
};

/// The pseudo-header fields of a request; each was there once at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pseudo<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:authority`.
    pub authority: Option<&'a str>,
    /// `:path`.
    pub path: Option<&'a str>,
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a str>,
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is malformed (section 8.1.1): its stream is reset with `PROTOCOL_ERROR`.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// It is over a limit, or asks for what is not there: it is answered.
    #[error(transparent)]
    Refused(#[from] RequestError),
}

/// Judges a request. Its headers are written into `lines`, as HTTP/1 would have them: `host` first,
/// which is the authority, and one line for all cookies.
///
/// `fields` gives them in order, each time that it is called. `ends`: it has no body. An extended CONNECT for a WebSocket is a GET with
/// [`RequestHead::upgrade`], as its forerunner in HTTP/1 is.
///
/// # Errors
///
/// The first rule that the request breaks.
pub fn request_head<'a, 'f, I: Iterator<Item = (&'f str, &'f [u8])>>(
    pseudo: Pseudo<'a>,
    fields: impl Fn() -> I,
    ends: bool,
    limits: &Limits,
    lines: &'a mut Vec<u8>,
) -> Result<RequestHead<'a>, Fault> {
    let method = pseudo.method;
    if !is_token(method.as_bytes()) {
        return Err(Fault::Malformed("the method is not a token"));
    }
    if method.len() > LONGEST_METHOD {
        let message = "no method with so long a name is known here";
        return Err(RequestError::new(501, message).into());
    }
    let target = target(&pseudo, limits)?;
    lines.clear();
    let facts = Facts::gather(&pseudo, fields(), limits, lines)?;
    if facts.cookies > 0 {
        write_cookies(fields(), lines);
    }
    if lines.len() > limits.max_head_size {
        let limit = limits.max_head_size;
        let message = format!("the headers are larger than {limit} bytes: send less");
        return Err(RequestError::new(431, message).into());
    }
    let body = match (ends, facts.length) {
        (true, None | Some(0)) => BodyLength::None,
        (true, Some(_)) => return Err(Fault::Malformed("the body is shorter than its length")),
        (false, None) => BodyLength::Chunked,
        (false, Some(length)) => BodyLength::Length(length),
    };
    Ok(RequestHead {
        method: if pseudo.protocol.is_some() {
            "GET"
        } else {
            method
        },
        target,
        version: Version::Http2,
        headers: Headers::from_validated(lines),
        body,
        keep_alive: true,
        expect_continue: facts.expects_continue && !ends,
        upgrade: pseudo.protocol.is_some(),
    })
}

/// Judges trailers and appends them to `lines`.
///
/// # Errors
///
/// They are malformed, or are none that may be trailers.
pub fn trailers<'f>(
    fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    lines: &mut Vec<u8>,
) -> Result<(), Fault> {
    for (name, value) in fields {
        check_field(name, value)?;
        if !is_trailer(name) {
            return Err(Fault::Malformed("a header that must not be a trailer"));
        }
        write_line(lines, name, value);
    }
    Ok(())
}

/// The request target that HTTP/1 would have.
fn target<'a>(pseudo: &Pseudo<'a>, limits: &Limits) -> Result<&'a str, Fault> {
    let is_connect = pseudo.method == "CONNECT";
    let target = match pseudo.protocol {
        None if is_connect => match (pseudo.authority, pseudo.path) {
            (Some(authority), None) => authority,
            (None, _) => return Err(Fault::Malformed("CONNECT without :authority")),
            (_, Some(_)) => return Err(Fault::Malformed("CONNECT with :path")),
        },
        Some("") => return Err(Fault::Malformed("an empty :protocol")),
        Some(_) if !is_connect => return Err(Fault::Malformed(":protocol without CONNECT")),
        Some("websocket") | None => pseudo.path.ok_or(Fault::Malformed("no :path"))?,
        Some(_) => {
            let message = "the only :protocol known here is `websocket`";
            return Err(RequestError::new(501, message).into());
        }
    };
    if target.len() > limits.max_target {
        let limit = limits.max_target;
        let message = format!("the request target is longer than {limit} bytes: shorten it");
        return Err(RequestError::new(414, message).into());
    }
    let is_tunnel = is_connect && pseudo.protocol.is_none();
    if !is_tunnel && !target.starts_with('/') && target != "*" {
        return Err(Fault::Malformed(":path is neither a path nor `*`"));
    }
    let method = match pseudo.protocol {
        Some(_) => "GET",
        None => pseudo.method,
    };
    match target_fault(method, target) {
        None => Ok(target),
        Some(_) if is_tunnel => Err(Fault::Malformed("CONNECT to what is not `host:port`")),
        Some(_) => Err(Fault::Malformed(":path has what a path must not have")),
    }
}

/// What matters of the fields.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    expects_continue: bool,
    cookies: usize,
}

impl Facts {
    fn gather<'f>(
        pseudo: &Pseudo<'_>,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
        limits: &Limits,
        lines: &mut Vec<u8>,
    ) -> Result<Self, Fault> {
        let mut facts = Facts::default();
        let mut host: Option<&[u8]> = None;
        if let Some(authority) = pseudo.authority {
            if !is_host(authority.as_bytes()) {
                return Err(Fault::Malformed(":authority is no host, maybe with port"));
            }
            write_line(lines, "host", authority.as_bytes());
        }
        let mut count = 0;
        for (name, value) in fields {
            check_field(name, value)?;
            count += 1;
            match name {
                "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding"
                | "upgrade" => return Err(Fault::Malformed("a header about the connection")),
                "te" if value != b"trailers" => {
                    return Err(Fault::Malformed("TE is something else than `trailers`"));
                }
                "host" => {
                    if host.replace(value).is_some() {
                        return Err(Fault::Malformed("Host is there twice"));
                    }
                    continue;
                }
                "cookie" => {
                    facts.cookies += 1;
                    // All crumbs are one header line.
                    count -= usize::from(facts.cookies > 1);
                    continue;
                }
                "content-length" if facts.length.is_some() => {
                    return Err(Fault::Malformed("Content-Length is there twice"));
                }
                "content-length" => facts.length = Some(length(value, limits)?),
                "expect" => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        let message = "Expect knows `100-continue` only";
                        return Err(RequestError::new(417, message).into());
                    }
                    facts.expects_continue = true;
                }
                _ => {}
            }
            if count > limits.max_headers {
                let limit = limits.max_headers;
                let message = format!("more than {limit} header lines: send fewer");
                return Err(RequestError::new(431, message).into());
            }
            write_line(lines, name, value);
        }
        match (pseudo.authority, host) {
            (_, None) => {}
            (None, Some(host)) => {
                if !is_host(host) {
                    return Err(Fault::Malformed("Host is no host, maybe with port"));
                }
                write_line(lines, "host", host);
            }
            (Some(authority), Some(host)) if !same_authority(host, authority) => {
                return Err(Fault::Malformed("Host and :authority differ"));
            }
            (Some(_), Some(_)) => {}
        }
        if pseudo.authority.is_none() && host.is_none() {
            return Err(Fault::Malformed("neither :authority nor Host"));
        }
        Ok(facts)
    }
}

/// The rules for every name and value (section 8.2.1).
fn check_field(name: &str, value: &[u8]) -> Result<(), Fault> {
    let is_name = |byte: u8| !byte.is_ascii_uppercase();
    if !is_token(name.as_bytes()) || !name.bytes().all(is_name) {
        return Err(Fault::Malformed("a header name that is none in HTTP/2"));
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_blank(value.first()) || is_blank(value.last()) {
        return Err(Fault::Malformed("white space around a header value"));
    }
    let is_control = |&byte: &u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    if value.iter().any(is_control) {
        return Err(Fault::Malformed("a control character in a header value"));
    }
    Ok(())
}

fn length(value: &[u8], limits: &Limits) -> Result<u64, Fault> {
    let digits = std::str::from_utf8(value).ok();
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(length) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
        return Err(Fault::Malformed("Content-Length is no number below 2^64"));
    };
    if length > limits.max_body_size {
        let limit = limits.max_body_size;
        let message = format!("the body is larger than {limit} bytes: send less");
        return Err(RequestError::new(413, message).into());
    }
    Ok(length)
}

/// All crumbs in one line (section 8.2.3).
fn write_cookies<'f>(fields: impl Iterator<Item = (&'f str, &'f [u8])>, lines: &mut Vec<u8>) {
    lines.extend_from_slice(b"cookie: ");
    let mut between: &[u8] = b"";
    for (_, crumb) in fields.filter(|(name, _)| *name == "cookie") {
        lines.extend_from_slice(between);
        lines.extend_from_slice(crumb);
        between = b"; ";
    }
    lines.extend_from_slice(b"\r\n");
}

fn write_line(lines: &mut Vec<u8>, name: &str, value: &[u8]) {
    lines.extend_from_slice(name.as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
}

const LONGEST_METHOD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Pseudo<'_> = Pseudo {
        method: "GET",
        authority: Some("a.example"),
        path: Some("/x?y"),
        protocol: None,
    };

    fn judge(pseudo: Pseudo<'_>, fields: &[(&str, &str)], ends: bool) -> Result<String, Fault> {
        let mut lines = Vec::new();
        let limits = Limits {
            max_body_size: 1000,
            max_head_size: 1024,
            ..Limits::default()
        };
        let fields = || fields.iter().map(|(name, value)| (*name, value.as_bytes()));
        let head = request_head(pseudo, fields, ends, &limits, &mut lines)?;
        assert_eq!(head.version, Version::Http2);
        Ok(format!(
            "{} {} {:?} {}\n{}",
            head.method,
            head.target,
            head.body,
            head.expect_continue,
            String::from_utf8_lossy(head.headers.as_bytes())
        ))
    }

    fn is_malformed(pseudo: Pseudo<'_>, fields: &[(&str, &str)]) -> bool {
        matches!(judge(pseudo, fields, false), Err(Fault::Malformed(_)))
    }

    fn status(pseudo: Pseudo<'_>, fields: &[(&str, &str)]) -> u16 {
        match judge(pseudo, fields, false) {
            Err(Fault::Refused(error)) => error.status(),
            _ => 0,
        }
    }

    #[test]
    fn a_request_becomes_one_of_http_1() {
        assert_eq!(
            judge(GET, &[("accept", "*/*"), ("te", "trailers")], true).unwrap(),
            "GET /x?y None false\nhost: a.example\r\naccept: */*\r\nte: trailers\r\n"
        );
        let fields = [("content-length", "7"), ("expect", "100-continue")];
        assert!(
            judge(GET, &fields, false)
                .unwrap()
                .starts_with("GET /x?y Length(7) true\n")
        );
        assert!(
            judge(GET, &[], false)
                .unwrap()
                .starts_with("GET /x?y Chunked false\n")
        );
    }

    #[test]
    fn the_authority_is_the_host() {
        let lone = Pseudo {
            authority: None,
            ..GET
        };
        assert!(
            judge(lone, &[("host", "b")], true)
                .unwrap()
                .ends_with("\nhost: b\r\n")
        );
        let same = judge(GET, &[("host", "A.example:443")], true).unwrap();
        assert!(same.ends_with("\nhost: a.example\r\n"), "{same}");
        assert!(is_malformed(lone, &[]));
        assert!(is_malformed(lone, &[("host", "u@b")]));
        assert!(is_malformed(GET, &[("host", "b")]));
        assert!(is_malformed(lone, &[("host", "b"), ("host", "b")]));
        for authority in ["", "u@a", "a b", "a/", "[::1"] {
            let authority = Some(authority);
            assert!(is_malformed(Pseudo { authority, ..GET }, &[]));
        }
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let fields = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")];
        let request = judge(GET, &fields, true).unwrap();
        assert!(request.ends_with("x: y\r\ncookie: a=1; b=2\r\n"));
    }

    #[test]
    fn malformed_fields_are_refused() {
        for (name, value) in [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("X", "y"),
            ("", "y"),
            ("a b", "y"),
            ("x", " y"),
            ("x", "y\t"),
            ("x", "a\r\nb"),
            ("x", "a\0"),
            ("content-length", "x"),
            ("content-length", "+1"),
            ("content-length", ""),
        ] {
            assert!(is_malformed(GET, &[(name, value)]), "{name}: {value:?}");
        }
        let twice = [("content-length", "1"), ("content-length", "1")];
        assert!(is_malformed(GET, &twice));
        assert!(judge(GET, &[("content-length", "1")], true).is_err());
        assert!(judge(GET, &[("x", "a\tb")], true).is_ok());
    }

    #[test]
    fn targets_have_the_form_of_their_method() {
        for path in [
            None,
            Some(""),
            Some("x"),
            Some("*"),
            Some("http://a/"),
            Some("/#"),
        ] {
            assert!(is_malformed(Pseudo { path, ..GET }, &[]), "{path:?}");
        }
        let options = Pseudo {
            method: "OPTIONS",
            path: Some("*"),
            ..GET
        };
        assert!(judge(options, &[], true).unwrap().starts_with("OPTIONS * "));
        let connect = Pseudo {
            method: "CONNECT",
            authority: Some("a:1"),
            path: None,
            protocol: None,
        };
        assert!(
            judge(connect, &[], false)
                .unwrap()
                .starts_with("CONNECT a:1 ")
        );
        let bare = Pseudo {
            authority: Some("a"),
            ..connect
        };
        assert!(is_malformed(bare, &[]));
    }

    #[test]
    fn an_extended_connect_is_a_get_that_upgrades() {
        let extended = Pseudo {
            method: "CONNECT",
            protocol: Some("websocket"),
            ..GET
        };
        assert!(
            judge(extended, &[], false)
                .unwrap()
                .starts_with("GET /x?y ")
        );
        let other = Pseudo {
            protocol: Some("connect-udp"),
            ..extended
        };
        assert_eq!(status(other, &[]), 501);
        let get = Pseudo {
            method: "GET",
            ..extended
        };
        assert!(is_malformed(get, &[]));
    }

    #[test]
    fn limits_are_answered() {
        assert_eq!(status(GET, &[("content-length", "1001")]), 413);
        assert_eq!(status(GET, &[("expect", "x")]), 417);
        assert_eq!(status(GET, &[("x", &"y".repeat(1024))]), 431);
        assert_eq!(status(GET, &[("x", "y"); 101]), 431);
        let path = format!("/{}", "x".repeat(8 << 10));
        let path = Some(&*path);
        assert_eq!(status(Pseudo { path, ..GET }, &[]), 414);
        let method = &*"X".repeat(33);
        assert_eq!(status(Pseudo { method, ..GET }, &[]), 501);
    }

    #[test]
    fn trailers_frame_and_route_nothing() {
        let judge = |name, value: &'static [u8]| {
            let mut lines = Vec::new();
            trailers([(name, value)].into_iter(), &mut lines).map(|()| lines)
        };
        assert_eq!(judge("x-sum", b"1").unwrap(), b"x-sum: 1\r\n");
        for (name, value) in [("content-length", b"1"), ("X", b"1"), ("x", b" ")] {
            assert!(judge(name, value).is_err(), "{name}");
        }
    }
}
