//! The listening sockets. The manager keeps them open as long as the server lives.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use crate::{Error, Result, Settings};

/// Bound sockets, in the order of the settings.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<OwnedFd>,
}

impl Listeners {
    /// Binds all; writes the real addresses (port 0 becomes the one that the kernel chose) into
    /// the settings. An IPv6 address of `[::]` takes IPv4 as well, where the system is set so.
    pub(super) fn bind(settings: &mut Settings, addresses: &[SocketAddr]) -> Result<Self> {
        let mut sockets = Vec::new();
        for (listener, &address) in settings.listeners.iter_mut().zip(addresses) {
            let (socket, bound) = bind(address, listener.backlog).map_err(|error| {
                Error::new(format!(
                    "cannot listen on {}://{}: {}",
                    listener.protocol.scheme(),
                    listener.address,
                    advice(error, address)
                ))
            })?;
            listener.address = bound.to_string();
            sockets.push(socket);
        }
        Ok(Listeners { sockets })
    }

    /// From now on nobody can connect, as soon as the master has closed its own.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }

    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.sockets.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

fn bind(address: SocketAddr, backlog: u32) -> rustix::io::Result<(OwnedFd, SocketAddr)> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound))
}

fn advice(error: Errno, address: SocketAddr) -> String {
    let reason = std::io::Error::from(error);
    let port = address.port();
    match error {
        Errno::ADDRINUSE => format!(
            "{reason}: stop the program that listens there (`ss -ltnp 'sport = :{port}'` shows \
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
    use crate::Listener;

    fn bind_all(listeners: Vec<Listener>) -> (Result<Listeners>, Settings) {
        let mut settings = Settings {
            listeners,
            ..Settings::default()
        };
        let addresses = crate::settings::check(&mut settings).unwrap();
        (Listeners::bind(&mut settings, &addresses), settings)
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
}
