//! An HTTP request head as it crosses the ring.
//!
//! Checked by the parser before; the worker only builds `http` types from it. Layout: u32
//! length of all, u8 version, u8 1 if a proxy has named the client, u16 method length, u32 target length, u16 number of
//! headers, u16 0; method and target; per header u32 name length, u32 value length, name and value; then, if there
//! is a client, its IP as IPv6 (IPv4 mapped, 16 bytes) and u16 its port. So it is written in one pass over the
//! headers, and read in one.

use std::net::{Ipv6Addr, SocketAddr};

use super::{u16_at, u32_at};

const FIXED: usize = 16;
const PER_HEADER: usize = 8;
const CLIENT: usize = 18;

/// Appends a head to `out`. `client`: whom a proxy has named for this request.
pub(crate) fn encode<'a>(
    out: &mut Vec<u8>,
    version: u8,
    method: &str,
    target: &str,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    client: Option<SocketAddr>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; FIXED]);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(target.as_bytes());
    let mut count = 0u16;
    for (name, value) in headers {
        let lengths = name.len() as u64 | (value.len() as u64) << 32;
        out.extend_from_slice(&lengths.to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        count += 1;
    }
    if let Some(client) = client {
        let ip = match client.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&client.port().to_le_bytes());
    }
    let len = (out.len() - start) as u32;
    let fixed = &mut out[start..start + FIXED];
    fixed[..4].copy_from_slice(&len.to_le_bytes());
    fixed[4] = version;
    fixed[5] = client.is_some().into();
    fixed[6..8].copy_from_slice(&(method.len() as u16).to_le_bytes());
    fixed[8..12].copy_from_slice(&(target.len() as u32).to_le_bytes());
    fixed[12..14].copy_from_slice(&count.to_le_bytes());
}

/// A head in a payload.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    bytes: &'a [u8],
}

impl<'a> Head<'a> {
    /// The head at the front of `payload`, and what follows it (the body). `None` if the lengths
    /// in it do not fit.
    pub(crate) fn split(payload: &'a [u8]) -> Option<(Head<'a>, &'a [u8])> {
        if payload.len() < FIXED {
            return None;
        }
        let len = u32_at(payload, 0) as usize;
        if len < FIXED || len > payload.len() {
            return None;
        }
        let (bytes, rest) = payload.split_at(len);
        let head = Head { bytes };
        let mut at = head.fields_at();
        for _ in 0..head.count() {
            let lengths = bytes.get(at..)?.first_chunk::<PER_HEADER>()?;
            let (name, value) = lengths_in(lengths);
            at = at.checked_add(PER_HEADER + name)?.checked_add(value)?;
        }
        (at + head.client_len() == len).then_some((head, rest))
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1, 2 for HTTP/2.
    pub(crate) fn version(&self) -> u8 {
        self.bytes[4]
    }

    /// The client that a proxy has named.
    pub(crate) fn client(&self) -> Option<SocketAddr> {
        let at = self.bytes.len().checked_sub(self.client_len())?;
        let (ip, port) = self.bytes[at..].split_first_chunk::<16>()?;
        let ip = Ipv6Addr::from(*ip).to_canonical();
        Some(SocketAddr::new(ip, u16_at(port, 0)))
    }

    pub(crate) fn method(&self) -> &'a [u8] {
        &self.bytes[FIXED..FIXED + self.method_len()]
    }

    pub(crate) fn target(&self) -> &'a [u8] {
        &self.bytes[FIXED + self.method_len()..self.fields_at()]
    }

    /// Names as received (any case) and values.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = &self.bytes[self.fields_at()..];
        (0..self.count()).map_while(move |_| {
            // They were found to fit by `split`.
            let (lengths, fields) = rest.split_first_chunk()?;
            let (name_len, value_len) = lengths_in(lengths);
            let (name, fields) = fields.split_at_checked(name_len)?;
            let (value, fields) = fields.split_at_checked(value_len)?;
            rest = fields;
            Some((name, value))
        })
    }

    /// Where the headers begin.
    fn fields_at(&self) -> usize {
        FIXED + self.method_len() + self.target_len()
    }

    fn method_len(&self) -> usize {
        usize::from(u16_at(self.bytes, 6))
    }

    fn client_len(&self) -> usize {
        if self.bytes[5] == 0 { 0 } else { CLIENT }
    }

    fn target_len(&self) -> usize {
        u32_at(self.bytes, 8) as usize
    }

    pub(crate) fn count(&self) -> usize {
        usize::from(u16_at(self.bytes, 12))
    }
}

/// Lengths of a name and of its value.
fn lengths_in(bytes: &[u8; PER_HEADER]) -> (usize, usize) {
    let lengths = u64::from_le_bytes(*bytes);
    (lengths as u32 as usize, (lengths >> 32) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_head_and_the_body_behind_it() {
        let mut out = Vec::new();
        let headers = [(&b"Host"[..], &b"a"[..]), (b"X-Empty", b"")];
        encode(
            &mut out,
            1,
            "POST",
            "/echo?x=1",
            headers.iter().copied(),
            None,
        );
        out.extend_from_slice(b"body");

        let (head, body) = Head::split(&out).unwrap();
        assert_eq!(
            (head.method(), head.target()),
            (&b"POST"[..], &b"/echo?x=1"[..])
        );
        assert_eq!(head.version(), 1);
        assert_eq!(
            head.headers().collect::<Vec<_>>(),
            [(&b"Host"[..], &b"a"[..]), (b"X-Empty", b"")]
        );
        assert_eq!(head.client(), None);
        assert_eq!(body, b"body");
    }

    #[test]
    fn keeps_the_client_that_a_proxy_has_named() {
        for client in ["192.0.2.7:0", "[2001:db8::7]:4711"] {
            let client = client.parse().unwrap();
            let mut out = Vec::new();
            let headers = [(&b"Host"[..], &b"a"[..])];
            encode(&mut out, 1, "GET", "/", headers.into_iter(), Some(client));
            out.extend_from_slice(b"body");
            let (head, body) = Head::split(&out).unwrap();
            assert_eq!(head.client(), Some(client));
            assert_eq!(
                head.headers().collect::<Vec<_>>(),
                [(&b"Host"[..], &b"a"[..])]
            );
            assert_eq!(body, b"body");
            out[5] = 0;
            assert!(Head::split(&out).is_none());
        }
    }

    #[test]
    fn refuses_lengths_that_do_not_fit() {
        let mut out = Vec::new();
        encode(&mut out, 1, "GET", "/", std::iter::empty(), None);
        for cut in 0..out.len() {
            assert!(Head::split(&out[..cut]).is_none());
        }
        out[12] = 9;
        assert!(Head::split(&out).is_none());
    }
}
