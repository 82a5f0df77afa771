//! Close codes: every code that the wire can show, with its meaning.
//!
//! | codes | who defines them | on the wire |
//! |---|---|---|
//! | 0-999 | nobody | refused |
//! | 1000-2999 | RFC 6455 and IANA | only the codes listed as constants below |
//! | 3000-3999 | libraries and frameworks, registered with IANA | accepted |
//! | 4000-4999 | applications, by private agreement | accepted |
//! | 5000-65535 | nobody | refused |
//!
//! The codes 1005, 1006 and 1015 are for programs to tell each other that no code was
//! there; they never stand in a frame (RFC 6455 section 7.4.1).

use std::fmt;

/// The code of a close frame (RFC 6455 section 7.4).
///
/// ```
/// use gannet_proto::websocket::CloseCode;
///
/// assert!(CloseCode::GOING_AWAY.is_sendable());
/// assert!(CloseCode(4001).is_sendable());
/// assert!(!CloseCode::ABNORMAL.is_sendable());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled. A client does not reconnect.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server stops, or the browser leaves the page. A client reconnects.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: a frame broke RFC 6455. A client is faulty: it reports the error.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: the kind of data (text or binary) is not accepted here.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1005: the close frame held no code. Never on the wire.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: the connection ended without a close frame. Never on the wire.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: a text message or a close reason was not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: a rule of the application was broken. A client does not simply retry.
    pub const POLICY: Self = Self(1008);
    /// 1009: the message is larger than the receiver accepts. A client sends less.
    pub const TOO_BIG: Self = Self(1009);
    /// 1010: a client misses an extension that it needs. Sent by clients only.
    pub const MISSING_EXTENSION: Self = Self(1010);
    /// 1011: the server met an unexpected condition. A client may reconnect.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts. A client reconnects after a random delay.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: overload. A client reconnects later, or elsewhere.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got an invalid answer from the server behind it.
    pub const BAD_GATEWAY: Self = Self(1014);
    /// 1015: the TLS handshake failed. Never on the wire.
    pub const TLS_HANDSHAKE: Self = Self(1015);

    /// Whether the code may stand in a close frame.
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> u16 {
        code.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_autobahn_sends_as_valid_are_sendable() {
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999,
        ] {
            assert!(CloseCode(code).is_sendable(), "{code}");
        }
    }

    #[test]
    fn codes_that_autobahn_sends_as_invalid_are_refused() {
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert!(!CloseCode(code).is_sendable(), "{code}");
        }
    }
}
