//! The listening sockets. The manager keeps them open as long as the server lives.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::{activation::Passed, unix_socket};
use crate::{
    Error, Listener, Protocol, Result, Settings,
    account::Rights,
    settings::{Endpoint, UnixName},
};

/// Bound sockets, in the order of the settings.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<OwnedFd>,
    /// Removed when this is dropped.
    files: Vec<unix_socket::File>,
}

impl Listeners {
    /// Takes what was passed, and binds all others; writes the real addresses (port 0 becomes the
    /// one that the kernel chose) into the settings.
    pub(super) fn bind(
        settings: &mut Settings,
        endpoints: &[Endpoint],
        mut passed: Passed,
        rights: &Rights,
    ) -> Result<Self> {
        let mut listeners = Listeners {
            sockets: Vec::new(),
            files: Vec::new(),
        };
        for (listener, endpoint) in settings.listeners.iter_mut().zip(endpoints) {
            let socket = match passed.take(listener, endpoint)? {
                Some(socket) => socket,
                None => listeners.bind_as(rights, listener, endpoint)?,
            };
            listener.address = match endpoint {
                Endpoint::Ip(_) => {
                    SocketAddr::try_from(rustix::net::getsockname(&socket)?)?.to_string()
                }
                Endpoint::Unix(_) => endpoint.text(listener.protocol),
            };
            listeners.sockets.push(socket);
        }
        passed.expect_none_left(settings)?;
        Ok(listeners)
    }

    /// From now on nobody can connect, as soon as the master has closed its own.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
        self.files.clear();
    }

    /// The first one's socket, as long as it is open.
    pub(super) fn first(&self) -> Option<&OwnedFd> {
        self.sockets.first()
    }

    /// The sockets once more.
    pub(super) fn copies(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(OwnedFd::try_clone).collect()
    }

    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.sockets.iter().map(AsRawFd::as_raw_fd).collect()
    }

    fn bind_as(
        &mut self,
        rights: &Rights,
        listener: &Listener,
        endpoint: &Endpoint,
    ) -> Result<OwnedFd> {
        let (socket, by) = rights.or_as_root(|| {
            self.bind_one(listener, endpoint).map_err(|error| {
                Error::new(format!(
                    "cannot listen on {}://{}: {}",
                    listener.scheme(),
                    listener.address,
                    advice(error, endpoint)
                ))
            })
        })?;
        if let Endpoint::Unix(UnixName::Path(path)) = endpoint {
            rights.give(path, by)?;
        }
        Ok(socket)
    }

    fn bind_one(
        &mut self,
        listener: &Listener,
        endpoint: &Endpoint,
    ) -> rustix::io::Result<OwnedFd> {
        let is_udp = listener.protocol == Protocol::Udp;
        let kind = match is_udp {
            true => SocketType::DGRAM,
            false => SocketType::STREAM,
        };
        let backlog = i32::try_from(listener.backlog).unwrap_or(i32::MAX);
        let family = match endpoint {
            Endpoint::Ip(SocketAddr::V4(_)) => AddressFamily::INET,
            Endpoint::Ip(SocketAddr::V6(_)) => AddressFamily::INET6,
            Endpoint::Unix(_) => AddressFamily::UNIX,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        let listen = || match is_udp {
            true => Ok(()),
            false => rustix::net::listen(&socket, backlog),
        };
        match endpoint {
            Endpoint::Ip(address) => {
                // Of datagrams it would let anybody take the address over.
                sockopt::set_socket_reuseaddr(&socket, !is_udp)?;
                if listener.reuse_port {
                    sockopt::set_socket_reuseport(&socket, true)?;
                }
                if address.is_ipv6() {
                    sockopt::set_ipv6_v6only(&socket, listener.v6only)?;
                }
                rustix::net::bind(&socket, address)?;
                listen()?;
            }
            Endpoint::Unix(UnixName::Abstract(name)) => {
                rustix::net::bind(&socket, &unix_socket::abstract_address(name)?)?;
                listen()?;
            }
            Endpoint::Unix(UnixName::Path(path)) => {
                let file = unix_socket::File::bind(&socket, path, listener.unix_mode, listen)?;
                self.files.push(file);
            }
        }
        Ok(socket)
    }
}

fn advice(error: Errno, endpoint: &Endpoint) -> String {
    let reason = std::io::Error::from(error);
    let Some(address) = endpoint.ip() else {
        return match error {
            Errno::ADDRINUSE => format!(
                "{reason}: stop the program that listens there (`ss -lxp` shows it), or choose \
                 another address with --listen"
            ),
            Errno::EXIST => "a file that is no socket stands there: remove it, or choose another \
                 path with --listen"
                .to_owned(),
            Errno::NOENT => format!("{reason}: the directory must exist before the server starts"),
            _ => reason.to_string(),
        };
    };
    let port = address.port();
    match error {
        Errno::ADDRINUSE => format!(
            "{reason}: stop the program that listens there (`ss -lntup 'sport = :{port}'` shows \
             it), or choose another address with --listen"
        ),
        Errno::ACCESS => format!(
            "{reason}: ports below 1024 need root or CAP_NET_BIND_SERVICE; or choose another \
             address with --listen"
        ),
        Errno::ADDRNOTAVAIL => format!(
            "{reason}: no network interface of this machine has that address; choose another \
             with --listen"
        ),
        _ => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_all(listeners: Vec<Listener>) -> (Result<Listeners>, Settings) {
        let mut settings = Settings {
            listeners,
            ..Settings::default()
        };
        let addresses = crate::settings::check(&mut settings).unwrap();
        let rights = Rights::wanted(&settings).unwrap();
        let bound = Listeners::bind(&mut settings, &addresses, Passed::default(), &rights);
        (bound, settings)
    }

    #[test]
    fn port_0_becomes_the_real_one() {
        let (listeners, settings) = bind_all(vec![Listener::tcp("localhost:0")]);
        let listeners = listeners.unwrap();
        assert_eq!(listeners.descriptors().len(), 1);
        let address: SocketAddr = settings.listeners[0].address.parse().unwrap();
        assert_ne!(address.port(), 0);
        std::net::TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let (listeners, _) = bind_all(vec![Listener::http(address.clone())]);
        let error = listeners.unwrap_err().to_string();
        assert!(
            error.contains(&format!("http://{address}: Address already in use")),
            "{error}"
        );
        assert!(error.contains("--listen"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_the_reason() {
        let (listeners, _) = bind_all(vec![Listener::tcp("192.0.2.1:0")]);
        let error = listeners.unwrap_err().to_string();
        assert!(error.contains("no network interface"), "{error}");
    }

    #[test]
    fn a_port_is_shared_by_those_who_say_so() {
        let shared = |address: &str| Listener {
            reuse_port: true,
            ..Listener::tcp(address)
        };
        let (first, settings) = bind_all(vec![shared("127.0.0.1:0")]);
        let address = settings.listeners[0].address.clone();
        let (second, _) = bind_all(vec![shared(&address)]);
        let (third, _) = bind_all(vec![Listener::tcp(address)]);
        assert!(first.is_ok() && second.is_ok());
        assert!(third.unwrap_err().to_string().contains("in use"));
    }
}
