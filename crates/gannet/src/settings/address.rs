//! Addresses as people write them: `127.0.0.1:9501`, `[::]:80`, `localhost:80`, `ws://:80`,
//! `unix:/run/echo.sock`, `unix:@echo`.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use super::{Listener, Protocol, Settings};
use crate::{Error, Result};

/// Where a socket can be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Ip(SocketAddr),
    Unix(UnixName),
}

/// What a Unix socket is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UnixName {
    /// An absolute path.
    Path(PathBuf),
    Abstract(String),
}

impl Endpoint {
    /// As it stands in the settings.
    pub(crate) fn text(&self, protocol: Protocol) -> String {
        match (self, protocol) {
            (Endpoint::Unix(_), Protocol::Udp) => self.to_string().replacen(UNIX, UNIXGRAM, 1),
            _ => self.to_string(),
        }
    }

    /// The address on a network.
    pub(crate) fn ip(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Ip(address) => Some(*address),
            Endpoint::Unix(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ip(address) => address.fmt(f),
            Endpoint::Unix(UnixName::Path(path)) => write!(f, "{UNIX}{}", path.display()),
            Endpoint::Unix(UnixName::Abstract(name)) => write!(f, "{UNIX}@{name}"),
        }
    }
}

/// Gives the listener at `index` another address (`--listen`, `GANNET_LISTEN`), and another
/// protocol, with TLS or without, if the address has a scheme. One more than there are adds a
/// listener like the last.
pub(super) fn listen(settings: &mut Settings, index: usize, text: &str) -> Result {
    let (scheme, address) = split_scheme(text)?;
    check_form(address)?;
    if index >= settings.listeners.len() {
        let like = settings.listeners.last().cloned().unwrap_or_default();
        settings.listeners.push(like);
    }
    let listener: &mut Listener = &mut settings.listeners[index];
    address.clone_into(&mut listener.address);
    if let Some((protocol, tls)) = scheme {
        listener.protocol = protocol;
        match tls {
            true => drop(listener.tls.get_or_insert_default()),
            false => listener.tls = None,
        }
    }
    Ok(())
}

/// The address meant; names are looked up, and the first address counts.
pub(crate) fn resolve(address: &str) -> Result<Endpoint> {
    check_form(address)?;
    if let Some(name) = unix_part(address) {
        return Ok(Endpoint::Unix(match name.strip_prefix('@') {
            Some(name) => UnixName::Abstract(name.to_owned()),
            None => UnixName::Path(std::path::absolute(name)?),
        }));
    }
    let unknown = |reason: &dyn std::fmt::Display| {
        Error::usage(format!(
            "cannot look up the address {address:?} to listen on: {reason}"
        ))
    };
    address
        .to_socket_addrs()
        .map_err(|error| unknown(&error))?
        .next()
        .map(Endpoint::Ip)
        .ok_or_else(|| unknown(&"the name has no address"))
}

/// The protocol and whether TLS is under it, if there is a scheme; the address behind it.
fn split_scheme(text: &str) -> Result<(Option<(Protocol, bool)>, &str)> {
    let Some((scheme, address)) = text.split_once("://") else {
        return Ok((None, text));
    };
    let known = [
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Http,
        Protocol::Websocket,
    ];
    match known
        .into_iter()
        .flat_map(|protocol| [(protocol, false), (protocol, true)])
        .find(|(protocol, tls)| protocol.scheme_with(*tls) == scheme)
    {
        Some(found) => Ok((Some(found), address.trim_end_matches('/'))),
        None => Err(Error::usage(format!(
            "{text:?} is no address to listen on: the scheme must be tcp://, udp://, http:// or \
             ws://, or with TLS tls://, https:// or wss://"
        ))),
    }
}

fn check_form(address: &str) -> Result {
    if address.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let wrong = |why: &str| {
        Err(Error::usage(format!(
            "{address:?} is no address to listen on: {why} (write 127.0.0.1:9501, [::]:80, \
             localhost:80 or unix:/run/name.sock)"
        )))
    };
    if let Some(name) = unix_part(address) {
        let name = name.strip_prefix('@').unwrap_or(name);
        return match name.len() {
            0 => wrong("there is no path"),
            _ if name.contains('\0') => wrong("there is a zero byte in the path"),
            len if len > MAX_UNIX => wrong(&format!(
                "the path has {len} bytes, and the kernel takes {MAX_UNIX}"
            )),
            _ => Ok(()),
        };
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return wrong("there is no port");
    };
    if port.parse::<u16>().is_err() {
        return wrong("the port must be a number from 0 to 65535");
    }
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(letter) {
        return wrong("there is no host name or IP address in front of the port");
    }
    Ok(())
}

/// What stands behind `unix:` or `unixgram:`.
fn unix_part(address: &str) -> Option<&str> {
    address
        .strip_prefix(UNIX)
        .or_else(|| address.strip_prefix(UNIXGRAM))
}

const UNIX: &str = "unix:";
/// For datagrams.
pub(super) const UNIXGRAM: &str = "unixgram:";
/// Bytes of a socket's path, or of an abstract name: `sun_path` without the byte at its end.
const MAX_UNIX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_address_replaces_that_of_the_nth_listener() {
        let listeners = vec![Listener::http("127.0.0.1:1"), Listener::tcp("127.0.0.1:2")];
        let mut settings = Settings {
            listeners,
            ..Settings::default()
        };
        listen(&mut settings, 0, "localhost:3").unwrap();
        listen(&mut settings, 1, "ws://[::1]:4/").unwrap();
        listen(&mut settings, 2, "0.0.0.0:5").unwrap();
        let written: Vec<_> = settings
            .listeners
            .iter()
            .map(|listener| (listener.scheme(), listener.address.as_str()))
            .collect();
        assert_eq!(
            written,
            [
                ("http", "localhost:3"),
                ("ws", "[::1]:4"),
                ("ws", "0.0.0.0:5")
            ]
        );
    }

    #[test]
    fn the_scheme_says_whether_there_is_tls() {
        let tls = crate::Tls::new("a", "b");
        let listeners = vec![
            Listener::http("a:1").with_tls(tls.clone()),
            Listener::http("a:2").with_tls(tls.clone()),
            Listener::http("a:3"),
        ];
        let mut settings = Settings {
            listeners,
            ..Settings::default()
        };
        listen(&mut settings, 0, "b:1").unwrap();
        listen(&mut settings, 1, "ws://b:2").unwrap();
        listen(&mut settings, 2, "tls://b:3").unwrap();
        let schemes: Vec<_> = settings.listeners.iter().map(Listener::scheme).collect();
        assert_eq!(schemes, ["https", "ws", "tls"]);
        assert_eq!(settings.listeners[0].tls, Some(tls), "it keeps its files");
    }

    #[test]
    fn wrong_addresses_are_refused_with_what_is_wrong() {
        for (text, why) in [
            ("9501", "no port"),
            ("localhost", "no port"),
            ("localhost:http", "port must be"),
            ("127.0.0.1:65536", "port must be"),
            (":80", "no host"),
            ("::1:80", "no host"),
            ("quic://a:1", "scheme"),
            ("http://a:1/path", "port must be"),
            ("unix:", "no path"),
            ("tcp://unix:@", "no path"),
            (&format!("unix:/{}", "x".repeat(107)), "108 bytes"),
        ] {
            let error = listen(&mut Settings::default(), 0, text).unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains(why),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn names_are_resolved() {
        let ip = |address| resolve(address).unwrap().ip().unwrap();
        assert_eq!(ip("localhost:7").port(), 7);
        assert_eq!(ip("[::1]:7"), "[::1]:7".parse().unwrap());
    }

    #[test]
    fn schemes_stand_in_front_of_every_kind_of_address() {
        for (text, protocol, address) in [
            (
                "http://unix:/run/a.sock",
                Protocol::Http,
                "unix:/run/a.sock",
            ),
            ("unix:@a", Protocol::Tcp, "unix:@a"),
            ("udp://[::1]:9", Protocol::Udp, "[::1]:9"),
            ("udp://unixgram:/a", Protocol::Udp, "unixgram:/a"),
        ] {
            let mut settings = Settings::default();
            listen(&mut settings, 0, text).unwrap();
            let listener = &settings.listeners[0];
            assert_eq!(
                (listener.protocol, listener.address.as_str()),
                (protocol, address)
            );
            let endpoint = resolve(address).unwrap();
            assert_eq!(endpoint.text(protocol), address);
        }
    }

    #[test]
    fn unix_sockets_have_paths_or_names() {
        for (address, text) in [
            ("unix:/run/a.sock", "unix:/run/a.sock".to_owned()),
            ("unix:@a:b", "unix:@a:b".to_owned()),
            (
                "unix:a.sock",
                format!("unix:{}/a.sock", std::env::current_dir().unwrap().display()),
            ),
        ] {
            let endpoint = resolve(address).unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(resolve(&text).unwrap(), endpoint);
        }
    }
}
