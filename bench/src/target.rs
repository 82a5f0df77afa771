//! Where the server is, and how it is spoken to: a URL or `HOST:PORT`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    str::FromStr,
};

use crate::Error;

/// What a command was pointed at. `127.0.0.1:9501` and `tcp://127.0.0.1:9501` mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(crate) scheme: Scheme,
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) path: String,
}

/// Protocol, and whether TLS is under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Tcp,
    Tls,
    Http,
    Https,
    Ws,
    Wss,
}

impl Target {
    /// What stands in `Host`.
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.scheme.port() == Some(self.port) {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    /// Whether a command can use it.
    pub(crate) fn check(&self, what: &str, schemes: &[Scheme]) -> Result<(), Error> {
        if schemes.contains(&self.scheme) {
            return Ok(());
        }
        let names: Vec<_> = schemes
            .iter()
            .map(|one| format!("{}://", one.name()))
            .collect();
        Err(Error::Usage(format!(
            "{what} wants a target with {}, and this one has {}://",
            names.join(" or "),
            self.scheme.name()
        )))
    }

    /// Asks the resolver. Of several addresses, the first one is used.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, Error> {
        let failed = |source| Error::Resolve {
            host: format!("{}:{}", self.host, self.port),
            source,
        };
        let mut found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(failed)?;
        found.next().ok_or_else(|| Error::Resolve {
            host: self.host.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Scheme::from_str(scheme)?, rest),
            None => (Scheme::Tcp, text),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err("names and passwords are not for the URL: use --header".into());
        }
        let path = path.split('#').next().unwrap_or_default();
        if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
            return Err("the path has characters that must be written as %XX".into());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']').ok_or("there is no ] behind the [")?;
                (host, behind.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err("an IPv6 address stands in brackets: [::1]:9501".into());
                }
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err("there is no host: HOST:PORT, or a URL".into());
        }
        let port = match (port, scheme.port()) {
            (Some(port), _) => port
                .parse()
                .ok()
                .filter(|&port| port != 0)
                .ok_or_else(|| format!("{port} is no port"))?,
            (None, Some(port)) => port,
            (None, None) => return Err("there is no port: HOST:PORT".into()),
        };
        Ok(Target {
            scheme,
            host: host.to_owned(),
            port,
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.scheme.name();
        let path = match self.scheme {
            Scheme::Tcp | Scheme::Tls => "",
            _ => &self.path,
        };
        write!(f, "{name}://{}{path}", self.authority())
    }
}

impl Scheme {
    const ALL: [Scheme; 6] = [
        Scheme::Tcp,
        Scheme::Tls,
        Scheme::Http,
        Scheme::Https,
        Scheme::Ws,
        Scheme::Wss,
    ];

    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Scheme::Tls | Scheme::Https | Scheme::Wss)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        }
    }

    /// The one that need not be named.
    fn port(self) -> Option<u16> {
        match self {
            Scheme::Tcp | Scheme::Tls => None,
            Scheme::Http | Scheme::Ws => Some(80),
            Scheme::Https | Scheme::Wss => Some(443),
        }
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |scheme: &Scheme| scheme.name().eq_ignore_ascii_case(text);
        Scheme::ALL
            .into_iter()
            .find(named)
            .ok_or_else(|| format!("{text}:// is not known: tcp, tls, http, https, ws, wss are"))
    }
}

/// Addresses that connections come from, in turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Vec<IpAddr>);

impl Sources {
    /// Those that were named; else, when so many connections leave too few ports to one address and the
    /// server is on this machine, as many loopback addresses as they need.
    pub(crate) fn new(named: &[IpAddr], to: SocketAddr, connections: usize) -> Self {
        let loopback = matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback());
        if !named.is_empty() || !loopback || connections <= PORTS {
            return Sources(named.to_vec());
        }
        let needed = connections.div_ceil(PORTS).min(LOOPBACKS.into());
        let address = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        Sources((1..=needed as u8).map(address).collect())
    }

    /// Where the connection with this number comes from; `None`: as the system likes.
    pub(crate) fn of(&self, number: usize) -> Option<IpAddr> {
        match self.0.len() {
            0 => None,
            several => Some(self.0[number % several]),
        }
    }
}

/// Connections that one address has ports for, with room for others (the system has 28,000).
const PORTS: usize = 20_000;

const LOOPBACKS: u8 = 250;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, String> {
        text.parse()
    }

    #[test]
    fn urls_and_pairs_are_targets() {
        let target = parse("127.0.0.1:9501").unwrap();
        assert_eq!((target.scheme, target.port), (Scheme::Tcp, 9501));
        let target = parse("wss://example.org/chat?room=1#top").unwrap();
        assert_eq!(
            (target.scheme, target.port, target.path.as_str()),
            (Scheme::Wss, 443, "/chat?room=1")
        );
        assert_eq!(target.authority(), "example.org");
        let target = parse("http://[::1]:8080?x").unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("::1", "/?x"));
        assert_eq!(target.to_string(), "http://[::1]:8080/?x");
    }

    #[test]
    fn what_is_no_target_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "no host"),
            ("localhost", "no port"),
            ("localhost:0", "no port"),
            ("localhost:x", "x is no port"),
            ("ftp://localhost", "ftp:// is not known"),
            ("http://a b/", "no"),
            ("http://a/b c", "%XX"),
            ("::1:80", "brackets"),
            ("http://[::1", "]"),
            ("http://u:p@h/", "--header"),
        ] {
            match parse(text) {
                Err(error) => assert!(error.contains(reason), "{text}: {error}"),
                Ok(target) => assert_eq!(text, "http://a b/", "{target}"),
            }
        }
    }

    #[test]
    fn many_connections_to_this_machine_come_from_many_addresses() {
        let to = "127.0.0.1:80".parse().unwrap();
        assert_eq!(Sources::new(&[], to, 20_000).of(7), None);
        let sources = Sources::new(&[], to, 50_000);
        assert_ne!(sources.of(0), sources.of(1));
        assert_eq!(sources.of(0), sources.of(3));
    }
}
