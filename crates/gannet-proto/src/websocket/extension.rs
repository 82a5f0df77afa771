//! Which extensions a client offers, and what a server makes of it (RFC 6455 section 9.1,
//! RFC 7692 section 7.1).

use std::fmt::Write;

use super::deflate::{MAX_WINDOW_BITS, MIN_WINDOW_BITS};
use crate::http1::{Headers, is_token};

/// The extensions that a client offers, its favourite first; the header is well formed.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    headers: Headers<'a>,
}

/// What a server is ready for when a client offers `permessage-deflate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflatePolicy {
    /// The largest window of either end, in bits: 9 to 15.
    pub window_bits: u8,
    /// Whether the server may keep its window from message to message.
    ///
    /// Then each connection needs a [`Compressor`](super::Compressor) of its own.
    pub server_takeover: bool,
    /// Whether the client may.
    ///
    /// Then 47 KiB for inflating stay with each connection that has sent a compressed message.
    pub client_takeover: bool,
}

/// What both ends have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The server keeps its window from message to message.
    pub server_takeover: bool,
    /// The client does.
    pub client_takeover: bool,
    /// The window of the server's compressor, in bits.
    pub server_window_bits: u8,
    /// The window of the client's compressor, in bits.
    pub client_window_bits: u8,
    /// Whether the client wants to hear about the server's window.
    asked_for_server_bits: bool,
}

/// One extension of the list, with its parameters.
struct Offer<'a> {
    name: &'a [u8],
    params: Params<'a>,
}

/// `; name[=value]`, again and again.
#[derive(Clone, Copy)]
struct Params<'a>(&'a [u8]);

/// The text is not what the grammar allows.
#[derive(Debug)]
struct Malformed;

impl<'a> Extensions<'a> {
    /// `None`: the header breaks the grammar, so the handshake has to fail.
    pub(super) fn parse(headers: Headers<'a>) -> Option<Self> {
        let extensions = Self { headers };
        extensions.visit(|_| {}).ok().map(|()| extensions)
    }

    /// What to agree on: the first offer of `permessage-deflate` that can be accepted.
    ///
    /// Offers with unknown, repeated or invalid parameters are declined, and so is a server
    /// window of 8 bits, which no compressor keeps to. Without an offer that is left, the
    /// connection is spoken uncompressed.
    pub fn deflate(self, policy: DeflatePolicy) -> Option<Deflate> {
        let mut agreed = None;
        // The header was parsed before: it is well formed.
        let _ = self.visit(|offer| {
            if agreed.is_none() && offer.name.eq_ignore_ascii_case(NAME.as_bytes()) {
                agreed = accept(offer.params, policy);
            }
        });
        agreed
    }

    fn visit(self, mut each: impl FnMut(&Offer<'a>)) -> Result<(), Malformed> {
        for mut list in self.headers.all("sec-websocket-extensions") {
            let mut any = false;
            loop {
                list = list.trim_ascii_start();
                match list {
                    [] => break,
                    // Elements of a list may be empty (RFC 9110 section 5.6.1.2).
                    [b',', rest @ ..] => list = rest,
                    _ => {
                        let (offer, rest) = offer(list)?;
                        each(&offer);
                        any = true;
                        list = rest;
                    }
                }
            }
            if !any {
                return Err(Malformed);
            }
        }
        Ok(())
    }
}

impl Deflate {
    /// Appends the header line of the answer.
    pub fn write_header(&self, out: &mut Vec<u8>) {
        let mut line = format!("Sec-WebSocket-Extensions: {NAME}");
        if !self.server_takeover {
            line.push_str("; server_no_context_takeover");
        }
        if !self.client_takeover {
            line.push_str("; client_no_context_takeover");
        }
        if self.asked_for_server_bits {
            let _ = write!(line, "; server_max_window_bits={}", self.server_window_bits);
        }
        // Less than the largest only where the client has said that it can.
        if self.client_window_bits < MAX_WINDOW_BITS {
            let _ = write!(line, "; client_max_window_bits={}", self.client_window_bits);
        }
        line.push_str("\r\n");
        out.extend_from_slice(line.as_bytes());
    }
}

/// What an offer with these parameters comes to; `None` declines it.
fn accept(mut params: Params<'_>, policy: DeflatePolicy) -> Option<Deflate> {
    let mut server_no_takeover = None;
    let mut client_no_takeover = None;
    let mut server_bits = None;
    let mut client_bits = None;
    while let Ok(Some((name, value))) = params.next() {
        let before = match (&*name.to_ascii_lowercase(), value) {
            (b"server_no_context_takeover", None) => server_no_takeover.replace(MAX_WINDOW_BITS),
            (b"client_no_context_takeover", None) => client_no_takeover.replace(MAX_WINDOW_BITS),
            (b"server_max_window_bits", Some(value)) => server_bits.replace(window_bits(&value)?),
            (b"client_max_window_bits", Some(value)) => client_bits.replace(window_bits(&value)?),
            (b"client_max_window_bits", None) => client_bits.replace(MAX_WINDOW_BITS),
            _ => return None,
        };
        if before.is_some() {
            return None;
        }
    }
    let most = policy.window_bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS);
    Some(Deflate {
        server_takeover: policy.server_takeover && server_no_takeover.is_none(),
        client_takeover: policy.client_takeover && client_no_takeover.is_none(),
        server_window_bits: match server_bits {
            Some(bits) if bits < MIN_WINDOW_BITS => return None,
            Some(bits) => bits.min(most),
            None => most,
        },
        // Who does not offer to use less must be let have the largest.
        client_window_bits: client_bits.map_or(MAX_WINDOW_BITS, |bits| bits.min(most)),
        asked_for_server_bits: server_bits.is_some(),
    })
}

/// A decimal number from 8 to 15, without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// The extension at the front of a list, and what is behind it.
fn offer(list: &[u8]) -> Result<(Offer<'_>, &[u8]), Malformed> {
    let (name, rest) = token(list)?;
    let mut params = Params(rest);
    while params.next()?.is_some() {}
    let len = rest.len() - params.0.len();
    let offer = Offer {
        name,
        params: Params(&rest[..len]),
    };
    match params.0 {
        [] => Ok((offer, &[])),
        [b',', rest @ ..] => Ok((offer, rest)),
        _ => Err(Malformed),
    }
}

/// A parameter's name and value.
type Param<'a> = (&'a [u8], Option<Vec<u8>>);

impl<'a> Params<'a> {
    /// The next parameter; the rest begins at a comma or the end when there is none.
    fn next(&mut self) -> Result<Option<Param<'a>>, Malformed> {
        self.0 = self.0.trim_ascii_start();
        let [b';', rest @ ..] = self.0 else {
            return Ok(None);
        };
        let (name, rest) = token(rest.trim_ascii_start())?;
        let rest = rest.trim_ascii_start();
        let [b'=', rest @ ..] = rest else {
            self.0 = rest;
            return Ok(Some((name, None)));
        };
        let (value, rest) = match rest.trim_ascii_start() {
            [b'"', rest @ ..] => quoted(rest)?,
            rest => token(rest).map(|(value, rest)| (value.to_vec(), rest))?,
        };
        self.0 = rest;
        Ok(Some((name, Some(value))))
    }
}

fn token(text: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let len = text
        .iter()
        .position(|&byte| !is_token(&[byte]))
        .unwrap_or(text.len());
    match len {
        0 => Err(Malformed),
        _ => Ok(text.split_at(len)),
    }
}

/// What stands between quotes, which has to be a token (RFC 6455 section 9.1).
fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' if is_token(&value) => return Ok((value, &text[at + 1..])),
            b'"' => return Err(Malformed),
            b'\\' => value.push(*bytes.next().ok_or(Malformed)?.1),
            _ => value.push(byte),
        }
    }
    Err(Malformed)
}

const NAME: &str = "permessage-deflate";

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: DeflatePolicy = DeflatePolicy {
        window_bits: 15,
        server_takeover: false,
        client_takeover: false,
    };

    /// The answer to this header; `Err` for one that is malformed, `Ok(None)` for "declined".
    fn answer(offer: &str, policy: DeflatePolicy) -> Result<Option<String>, ()> {
        let lines = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let headers = Headers::from_validated(lines.as_bytes());
        let extensions = Extensions::parse(headers).ok_or(())?;
        Ok(extensions.deflate(policy).map(|agreed| {
            let mut line = Vec::new();
            agreed.write_header(&mut line);
            let line = String::from_utf8(line).unwrap();
            let value = line.strip_prefix("Sec-WebSocket-Extensions: permessage-deflate");
            value.unwrap().trim_end().to_owned()
        }))
    }

    #[test]
    fn offers_are_answered_as_rfc_7692_has_it() {
        let none = "; server_no_context_takeover; client_no_context_takeover";
        let with = |more: &str| format!("{none}{more}");
        for (offer, expected) in [
            ("permessage-deflate", with("")),
            ("PerMessage-Deflate", with("")),
            ("permessage-deflate; client_max_window_bits", with("")),
            ("permessage-deflate; client_max_window_bits=15", with("")),
            (
                "permessage-deflate; client_max_window_bits=10",
                with("; client_max_window_bits=10"),
            ),
            (
                "permessage-deflate;client_max_window_bits=8",
                with("; client_max_window_bits=8"),
            ),
            (
                "permessage-deflate; server_max_window_bits=9",
                with("; server_max_window_bits=9"),
            ),
            (
                "permessage-deflate; server_max_window_bits=\"12\"",
                with("; server_max_window_bits=12"),
            ),
            (
                "permessage-deflate ; server_no_context_takeover ;client_no_context_takeover",
                with(""),
            ),
            // The first that can be had.
            (
                "x-other; a=b, permessage-deflate; server_max_window_bits=8, permessage-deflate",
                with(""),
            ),
            (
                ", permessage-deflate; unknown, , permessage-deflate; server_max_window_bits=10",
                with("; server_max_window_bits=10"),
            ),
        ] {
            assert_eq!(answer(offer, POLICY), Ok(Some(expected)), "{offer}");
        }
    }

    #[test]
    fn offers_that_rfc_7692_does_not_know_are_declined() {
        for params in [
            "unknown",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=010",
            "server_max_window_bits=+9",
            "server_max_window_bits=1e1",
            "server_max_window_bits=\"7\"",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=09",
            "client_max_window_bits=x",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits; client_max_window_bits=10",
            // No compressor keeps to a window of 256 bytes.
            "server_max_window_bits=8",
        ] {
            let offer = format!("permessage-deflate; {params}");
            assert_eq!(answer(&offer, POLICY), Ok(None), "{offer}");
        }
        for offer in ["x-webkit-deflate-frame", "permessage-bzip2; x", "a, b;c=d"] {
            assert_eq!(answer(offer, POLICY), Ok(None), "{offer}");
        }
    }

    #[test]
    fn a_header_that_breaks_the_grammar_is_malformed() {
        for offer in [
            "",
            ",",
            ";",
            "permessage-deflate;",
            "permessage-deflate; ;",
            "permessage-deflate; =",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"",
            "permessage-deflate; a=\"b",
            "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"b c\"",
            "permessage-deflate; a=\"b\" c",
            "permessage-deflate a",
            "permessage-deflate; a b",
            "permessage/deflate",
            "permessage-deflate=1",
            "ä",
        ] {
            assert_eq!(answer(offer, POLICY), Err(()), "{offer:?}");
        }
    }

    #[test]
    fn the_policy_bounds_what_is_agreed() {
        let policy = DeflatePolicy {
            window_bits: 11,
            server_takeover: true,
            client_takeover: true,
        };
        for (offer, expected) in [
            ("permessage-deflate", ""),
            (
                "permessage-deflate; client_max_window_bits",
                "; client_max_window_bits=11",
            ),
            (
                "permessage-deflate; server_max_window_bits=15",
                "; server_max_window_bits=11",
            ),
            (
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
                "; server_max_window_bits=10; client_max_window_bits=9",
            ),
            (
                "permessage-deflate; server_no_context_takeover",
                "; server_no_context_takeover",
            ),
            (
                "permessage-deflate; client_no_context_takeover",
                "; client_no_context_takeover",
            ),
        ] {
            assert_eq!(
                answer(offer, policy),
                Ok(Some(expected.to_owned())),
                "{offer}"
            );
        }
    }
}
