//! A scripted client of datagrams.

use std::{
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    path::Path,
};

use crate::wait::DEADLINE;

/// A socket that sends datagrams and expects some. Nothing waits longer than [`DEADLINE`].
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
    server: SocketAddr,
}

impl UdpClient {
    /// A client that takes answers only from this address.
    pub fn connect(server: SocketAddr) -> Self {
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let client = Self::bind(any, server);
        client.socket.connect(server).expect("connect");
        client
    }

    /// A client with this address of its own, that takes answers from everywhere.
    pub fn bind(own: &str, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(own).expect("a socket");
        socket
            .set_read_timeout(Some(DEADLINE))
            .expect("a socket's options");
        UdpClient { socket, server }
    }

    /// Sends a datagram.
    pub fn send(&self, data: impl AsRef<[u8]>) {
        let sent = match self.socket.peer_addr() {
            Ok(_) => self.socket.send(data.as_ref()),
            Err(_) => self.socket.send_to(data.as_ref(), self.server),
        };
        assert_eq!(sent.expect("send"), data.as_ref().len());
    }

    /// The next datagram, and where it comes from.
    pub fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 1 << 16];
        let (len, from) = self.socket.recv_from(&mut buffer).expect("a datagram");
        buffer.truncate(len);
        (buffer, from)
    }

    /// The next datagram as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.receive().0).expect("text")
    }

    /// Sends text and gives the text that comes back.
    pub fn ask(&self, text: &str) -> String {
        self.send(text);
        self.text()
    }

    /// This end's address.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().expect("an address")
    }
}

/// The same on a Unix socket, with a file of its own, so that it can be answered.
pub fn unix_client(own: &Path, server: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(own).expect("a socket");
    socket
        .set_read_timeout(Some(DEADLINE))
        .expect("a socket's options");
    socket.connect(server).expect("connect");
    socket
}
