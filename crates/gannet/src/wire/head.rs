//! An HTTP request head as it crosses the ring.
//!
//! Checked by the parser before; the worker only builds `http` types from it. Layout: u32
//! length of all, u8 version, u8 1 if a proxy has named the client, u8 number of the method ([`METHODS`], from 1) or 0,
//! u8 length of the method if it has none, u32 length of the target, u16 number of headers, u16 length of the gap; that
//! method; the target; the gap; the header lines as the parser has left them (`name: value\r\n`); then, if there is a
//! client, its IP as IPv6 (IPv4 mapped, 16 bytes) and u16 its port.
//!
//! In the gap may be anything: a request that goes over as it stands in the input has the end of its first line there,
//! as one piece costs less than two.
//!
//! The lines are cut up where values and names are made of them, and nowhere before: looking for a colon and for the
//! end of a line costs no more than a table of where they are, and that look shows what a value holds.

use std::{
    net::{Ipv6Addr, SocketAddr},
    ops::Range,
};

use gannet_proto::http1::PlainHead;

use super::{u16_at, u32_at};

/// Bytes before the method, or the target.
pub(crate) const FIXED: usize = 16;
const CLIENT: usize = 18;

/// The number of GET.
pub(crate) const GET: u8 = 1;

/// Methods that cross the ring as a number.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
];

/// The number of a method, if it has one.
pub(crate) fn number(method: &str) -> Option<u8> {
    let at = METHODS.iter().position(|known| *known == method)?;
    Some(at as u8 + 1)
}

/// What is in front of the rest of a plain request, whose method has this number, if no proxy has named a client.
#[inline]
pub(crate) fn front(number: u8, request: &PlainHead<'_>) -> [u8; FIXED] {
    Fixed {
        len: FIXED + request.rest().len(),
        version: 1,
        number,
        target: request.target_len(),
        count: request.lines(),
        gap: PlainHead::BETWEEN.len(),
        ..Fixed::default()
    }
    .encode()
}

/// Appends a head to `out`. `client`: whom a proxy has named for this request.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    version: u8,
    method: &str,
    target: &str,
    (lines, count): (&[u8], usize),
    client: Option<SocketAddr>,
) {
    let (number, method) = match number(method) {
        Some(number) => (number, ""),
        None => (0, method),
    };
    let client_len = if client.is_some() { CLIENT } else { 0 };
    let len = FIXED + method.len() + target.len() + lines.len() + client_len;
    let fixed = Fixed {
        len,
        version,
        has_client: client.is_some(),
        number,
        method: method.len(),
        target: target.len(),
        count,
        gap: 0,
    }
    .encode();
    out.reserve(len);
    out.extend_from_slice(&fixed);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(lines);
    if let Some(client) = client {
        let ip = match client.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&client.port().to_le_bytes());
    }
}

/// What a head begins with: see the module's documentation.
#[derive(Default)]
struct Fixed {
    len: usize,
    version: u8,
    has_client: bool,
    number: u8,
    method: usize,
    target: usize,
    count: usize,
    gap: usize,
}

impl Fixed {
    /// As two words, which is how it is written soonest.
    #[inline]
    fn encode(&self) -> [u8; FIXED] {
        let [version, client] = [self.version, u8::from(self.has_client)];
        let [first, second] = [
            u64::from(self.len as u32)
                | u64::from(version) << 32
                | u64::from(client) << 40
                | u64::from(self.number) << 48
                | u64::from(self.method as u8) << 56,
            u64::from(self.target as u32)
                | u64::from(self.count as u16) << 32
                | u64::from(self.gap as u16) << 48,
        ];
        let mut fixed = [0; FIXED];
        fixed[..8].copy_from_slice(&first.to_le_bytes());
        fixed[8..].copy_from_slice(&second.to_le_bytes());
        fixed
    }
}

/// A head in a payload.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    bytes: &'a [u8],
}

impl<'a> Head<'a> {
    /// The head at the front of `payload`, and what follows it (the body). `None` if the lengths
    /// in it do not fit.
    #[inline]
    pub(crate) fn split(payload: &'a [u8]) -> Option<(Head<'a>, &'a [u8])> {
        if payload.len() < FIXED {
            return None;
        }
        let (bytes, rest) = payload.split_at_checked(u32_at(payload, 0) as usize)?;
        let head = Head { bytes };
        let fits = bytes.len() >= FIXED && head.lines_at() + head.client_len() <= bytes.len();
        fits.then_some((head, rest))
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1, 2 for HTTP/2.
    pub(crate) fn version(&self) -> u8 {
        self.bytes[4]
    }

    /// The client that a proxy has named.
    pub(crate) fn client(&self) -> Option<SocketAddr> {
        if self.client_len() == 0 {
            return None;
        }
        let (ip, port) = self.bytes[self.lines().end..].split_first_chunk::<16>()?;
        let ip = Ipv6Addr::from(*ip).to_canonical();
        Some(SocketAddr::new(ip, u16_at(port, 0)))
    }

    /// Whether the method is GET.
    pub(crate) fn is_get(&self) -> bool {
        self.bytes[6] == GET
    }

    pub(crate) fn method(&self) -> &'a [u8] {
        match METHODS.get(usize::from(self.bytes[6]).wrapping_sub(1)) {
            Some(known) => known.as_bytes(),
            None => &self.bytes[FIXED..FIXED + self.method_len()],
        }
    }

    /// The target.
    pub(crate) fn target(&self) -> &'a [u8] {
        &self.bytes[self.target_range()]
    }

    /// Where the target stands in the payload.
    pub(crate) fn target_range(&self) -> Range<usize> {
        let at = FIXED + self.method_len();
        at..at + self.target_len()
    }

    /// Where the header lines stand in the payload: names as received (any case).
    pub(crate) fn lines(&self) -> Range<usize> {
        self.lines_at()..self.bytes.len() - self.client_len()
    }

    /// Names as received (any case) and values. What makes requests of heads reads the lines itself.
    #[cfg(any(test, feature = "opentelemetry"))]
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut lines = &self.bytes[self.lines()];
        std::iter::from_fn(move || {
            let line = gannet_proto::http1::split_line(lines)?;
            let (first, rest) = lines.split_at_checked(line.len)?;
            lines = rest;
            Some((&first[..line.name], &first[line.value]))
        })
    }

    /// How many lines there are.
    pub(crate) fn count(&self) -> usize {
        usize::from(u16_at(self.bytes, 12))
    }

    fn lines_at(&self) -> usize {
        FIXED + self.method_len() + self.target_len() + usize::from(u16_at(self.bytes, 14))
    }

    fn method_len(&self) -> usize {
        usize::from(self.bytes[7])
    }

    fn client_len(&self) -> usize {
        if self.bytes[5] == 0 { 0 } else { CLIENT }
    }

    fn target_len(&self) -> usize {
        u32_at(self.bytes, 8) as usize
    }
}

#[cfg(test)]
mod tests {
    use gannet_proto::http1::{Decoder, Limits};

    use super::*;

    const LINES: &[u8] = b"Host: a\r\nX-Empty:\r\n";

    fn encoded(method: &str, target: &str, client: Option<SocketAddr>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, 1, method, target, (LINES, 2), client);
        out
    }

    #[test]
    fn keeps_a_head_and_the_body_behind_it() {
        for method in METHODS.into_iter().chain(["PROPFIND", "get"]) {
            let mut out = encoded(method, "/echo?x=1", None);
            out.extend_from_slice(b"body");

            let (head, body) = Head::split(&out).unwrap();
            assert_eq!(head.method(), method.as_bytes());
            assert_eq!(head.target(), b"/echo?x=1");
            assert_eq!(&out[head.target_range()], b"/echo?x=1");
            assert_eq!((head.version(), head.count()), (1, 2));
            assert_eq!(&out[head.lines()], LINES);
            assert_eq!(
                head.headers().collect::<Vec<_>>(),
                [(&b"Host"[..], &b"a"[..]), (b"X-Empty", b"")]
            );
            assert_eq!(head.client(), None);
            assert_eq!(body, b"body");
        }
    }

    #[test]
    fn a_request_goes_over_as_it_stands() {
        for method in METHODS.into_iter().filter(|method| *method != "CONNECT") {
            let start = format!("{method} /a?b HTTP/1.1\r\n");
            let input = [start.as_bytes(), LINES, b"\r\n"].concat();
            let decoder = Decoder::new(Limits::default());
            let request = decoder.peek_plain(&input).unwrap();
            let front = front(number(method).unwrap(), &request);
            let payload = [&front, request.rest(), b"body"].concat();

            let (head, body) = Head::split(&payload).unwrap();
            assert_eq!(
                (head.method(), head.target()),
                (method.as_bytes(), &b"/a?b"[..])
            );
            assert_eq!((head.version(), head.count()), (1, 2));
            assert_eq!(&payload[head.target_range()], b"/a?b");
            assert_eq!(&payload[head.lines()], LINES);
            assert_eq!(head.client(), None);
            assert_eq!(body, b"body");
        }
        assert_eq!((number("GET"), number("PROPFIND")), (Some(GET), None));
    }

    #[test]
    fn keeps_the_client_that_a_proxy_has_named() {
        for client in ["192.0.2.7:0", "[2001:db8::7]:4711"] {
            let client = client.parse().unwrap();
            let mut out = encoded("GET", "/", Some(client));
            out.extend_from_slice(b"body");
            let (head, body) = Head::split(&out).unwrap();
            assert_eq!(head.client(), Some(client));
            assert_eq!(&out[head.lines()], LINES);
            assert_eq!(body, b"body");
        }
    }

    #[test]
    fn refuses_lengths_that_do_not_fit() {
        let whole = encoded("GET", "/", None);
        for cut in 0..whole.len() {
            assert!(Head::split(&whole[..cut]).is_none());
        }
        for (at, byte) in [(0, 15), (2, 1), (7, 200), (8, 99), (11, 255), (14, 99)] {
            let mut out = whole.clone();
            out[at] = byte;
            assert!(Head::split(&out).is_none(), "{at}");
        }
        // Room for the lines, but not for the client behind them.
        let mut out = Vec::new();
        encode(&mut out, 1, "GET", "/", (b"", 0), None);
        out[5] = 1;
        assert!(Head::split(&out).is_none());
    }
}
