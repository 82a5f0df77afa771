//! A connection that does not block: TCP, or TLS over it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, recv,
    send, socket_with,
    sockopt::{set_tcp_nodelay, socket_error},
};
use rustls::{ClientConnection, HandshakeKind};

use crate::tls::TlsSetup;

/// What bytes go over.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Socket),
    Tls(Box<Secure>),
}

/// A socket that does not block.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

#[derive(Debug)]
pub(crate) struct Secure {
    socket: Socket,
    session: ClientConnection,
}

impl Transport {
    /// Begins to connect. The socket becomes writable when that is decided: then comes
    /// [`connected`](Self::connected).
    pub(crate) fn connect(
        to: SocketAddr,
        from: Option<IpAddr>,
        tls: Option<&TlsSetup>,
    ) -> io::Result<Self> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        set_tcp_nodelay(&fd, true)?;
        if let Some(from) = from {
            bind(&fd, &SocketAddr::new(from, 0))?;
        }
        match connect(&fd, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = Socket(fd);
        let Some(tls) = tls else {
            return Ok(Transport::Plain(socket));
        };
        let mut session = ClientConnection::new(tls.config.clone(), tls.name.clone())
            .map_err(io::Error::other)?;
        session.set_buffer_limit(None);
        Ok(Transport::Tls(Box::new(Secure { socket, session })))
    }

    /// Whether the connection has come about.
    pub(crate) fn connected(&self) -> io::Result<()> {
        Ok(socket_error(self.fd())??)
    }

    /// Whether TLS has still to agree on keys.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Transport::Tls(secure) if secure.session.is_handshaking())
    }

    /// Whether the session of an earlier connection goes on.
    pub(crate) fn is_resumed(&self) -> bool {
        matches!(self, Transport::Tls(secure)
            if secure.session.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Reads what there is; whether more may be there at once. No bytes are the end, `WouldBlock` says
    /// that there is nothing.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        match self {
            // The next bytes come with an event of their own.
            Transport::Plain(socket) => socket
                .read(buffer)
                .map(|count| (count, count == buffer.len())),
            Transport::Tls(secure) => secure.read(buffer).map(|count| (count, count > 0)),
        }
    }

    /// Writes what fits; how much that was. TLS takes all, see [`flush`](Self::flush).
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => match socket.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                outcome => outcome,
            },
            Transport::Tls(secure) => {
                secure.session.writer().write_all(bytes)?;
                secure.flush()?;
                Ok(bytes.len())
            }
        }
    }

    /// Writes what TLS has still to say.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(secure) => secure.flush(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Transport::Plain(socket) => socket.0.as_fd(),
            Transport::Tls(secure) => secure.socket.0.as_fd(),
        }
    }

    /// Says goodbye as well as that goes without waiting.
    pub(crate) fn close(mut self) {
        if let Transport::Tls(secure) = &mut self {
            secure.session.send_close_notify();
            let _ = secure.flush();
        }
    }
}

impl Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            let handshaking = self.session.is_handshaking();
            if self.session.read_tls(&mut self.socket)? == 0 {
                // Without a close_notify, the reader says that the stream was cut off.
                if handshaking {
                    return Ok(0);
                }
                self.session
                    .process_new_packets()
                    .map_err(io::Error::other)?;
                return self.session.reader().read(buffer);
            }
            if let Err(error) = self.session.process_new_packets() {
                // The alert that says why.
                let _ = self.flush();
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
            self.flush()?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.0, buffer, RecvFlags::empty())?.0)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
