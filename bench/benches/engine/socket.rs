//! What the client speaks over: TCP, TLS, or datagrams.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use gannet_tests::tls::{Client, TlsClient};

/// Does not block.
pub(crate) trait Socket: Read + Write {
    fn fd(&self) -> BorrowedFd<'_>;
}

/// How the server is reached.
#[derive(Debug)]
pub(crate) enum Over {
    Tcp,
    Tls(Box<Client>),
    Udp,
}

impl Over {
    /// A connection on which `greet` has done what comes before the first message.
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        greet: impl FnOnce(&mut dyn ReadWrite) -> io::Result<()>,
    ) -> io::Result<Box<dyn Socket>> {
        match self {
            Over::Tcp => {
                let mut stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                greet(&mut stream)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream))
            }
            Over::Tls(client) => {
                let mut secure = client.try_connect(address)?;
                greet(&mut secure.stream())?;
                secure.socket().set_nonblocking(true)?;
                Ok(Box::new(Secure(secure)))
            }
            Over::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Ok(Box::new(Datagrams(socket)))
            }
        }
    }
}

pub(crate) trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// Each write is a datagram, each read too.
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl Write for Datagrams {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Datagrams {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket for TcpStream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

struct Secure(TlsClient);

impl Read for Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.stream().read(buffer)
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stream().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.stream().flush()
    }
}

impl Socket for Secure {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.socket().as_fd()
    }
}
