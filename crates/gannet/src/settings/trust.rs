//! Whom a listener believes when it says for which client it speaks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::peer::Peer;

/// The addresses of trusted proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    networks: Vec<IpNet>,
    unix: bool,
}

impl Trust {
    /// From addresses and networks as somebody wrote them; the error says which is wrong, and why.
    pub(crate) fn parse(written: &[String]) -> Result<Self, String> {
        let mut trust = Trust::default();
        for text in written {
            if text == UNIX {
                trust.unix = true;
            } else {
                trust.networks.push(network(text)?);
            }
        }
        Ok(trust)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether processes on Unix sockets are trusted.
    pub(crate) fn has_unix(&self) -> bool {
        self.unix
    }

    pub(crate) fn has_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    pub(crate) fn has(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(addr) => self.has_ip(addr.ip()),
            Peer::Unix(_) => self.unix,
        }
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_canonical().into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        format!(
            "{text:?} is neither an address nor a network: write it like 10.0.0.1, 10.0.0.0/8, \
             fd00::/8, or unix"
        )
    })?;
    if let IpNet::V6(six) = network
        && six.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!("{text:?}: write IPv4 networks in their own form"));
    }
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(format!(
            "{text:?} has bits behind its prefix: write {whole}, or the address alone"
        )),
    }
}

/// Whoever may connect to a Unix socket.
const UNIX: &str = "unix";

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(written: &[&str]) -> Result<Trust, String> {
        Trust::parse(&written.iter().map(|&text| text.into()).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_and_networks_hold_what_is_in_them() {
        let all = trust(&[
            "10.0.0.0/8",
            "192.0.2.7",
            "fd00::/8",
            "::1",
            "::ffff:192.0.2.9",
        ]);
        let all = all.unwrap();
        for ip in [
            "10.255.0.1",
            "192.0.2.7",
            "fdff::1",
            "::1",
            "::ffff:10.0.0.1",
            "192.0.2.9",
        ] {
            assert!(all.has_ip(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["11.0.0.1", "192.0.2.8", "fe80::1", "::2", "::ffff:11.0.0.1"] {
            assert!(!all.has_ip(ip.parse().unwrap()), "{ip}");
        }
        assert!(!all.has_unix());
        let unix = trust(&["unix"]).unwrap();
        assert!(unix.has_unix() && !unix.is_empty());
        assert!(trust(&[]).unwrap().is_empty());
        assert!(
            trust(&["0.0.0.0/0"])
                .unwrap()
                .has_ip("1.2.3.4".parse().unwrap())
        );
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        for (text, why) in [
            ("proxy.example", "neither an address nor a network"),
            ("10.0.0.0/33", "neither"),
            ("10.0.0/8", "neither"),
            ("", "neither"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "own form"),
        ] {
            let error = trust(&[text]).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
