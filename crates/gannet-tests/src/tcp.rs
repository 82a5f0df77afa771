//! A scripted TCP client.

use std::{
    cell::RefCell,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{SocketAddr as UnixAddress, UnixStream},
    },
    sync::{Arc, Weak},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::wait::DEADLINE;

/// A connection that sends and expects. Nothing waits longer than [`DEADLINE`].
#[derive(Debug)]
pub struct TcpClient {
    stream: BufReader<Stream>,
}

/// A socket that [`close_all`] can close.
#[derive(Clone, Debug)]
pub(crate) struct Stream(Arc<TcpStream>);

impl TcpClient {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|e| panic!("connect to {address}: {e}"))
    }

    /// Connects, if the server lets it.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect_timeout(&address, DEADLINE)?))
    }

    /// Connects to a Unix socket.
    pub fn unix(address: &UnixAddress) -> Self {
        let stream = UnixStream::connect_addr(address).expect("connect to a Unix socket");
        // What this type does with a stream, it may do with any.
        Self::over(TcpStream::from(OwnedFd::from(stream)))
    }

    /// Over a connection that exists.
    pub fn over(stream: TcpStream) -> Self {
        let set = || {
            if stream.local_addr().is_ok() {
                stream.set_nodelay(true)?;
            }
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.set_write_timeout(Some(DEADLINE))
        };
        set().expect("a socket's options");
        let stream = Arc::new(stream);
        OPEN.with_borrow_mut(|open| {
            open.retain(|stream| stream.strong_count() > 0);
            open.push(Arc::downgrade(&stream));
        });
        TcpClient {
            stream: BufReader::new(Stream(stream)),
        }
    }

    /// Sends these bytes, in one write where the kernel allows.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("send");
    }

    /// Sends these bytes, if the server still takes them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a line and gives the line that comes back.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.line()
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).expect("a line");
        assert!(
            read > 0 && line.ends_with('\n'),
            "end of file after {line:?}"
        );
        line.truncate(line.len() - 1);
        line
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.try_bytes(count).expect("bytes")
    }

    /// The next `count` bytes, if the connection lives so long.
    pub fn try_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Leaves without a word: a reset.
    pub fn reset(self) {
        let at_once = Some(Duration::ZERO);
        let socket = SockRef::from(self.socket());
        socket.set_linger(at_once).expect("a socket");
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        self.socket().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Everything until the server closes; a reset counts as a close.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("the server neither sends nor closes: {e}"),
        }
        rest
    }

    /// Expects that the server closes and sends nothing before it.
    pub fn expect_closed(&mut self) {
        let rest = self.rest();
        assert!(
            rest.is_empty(),
            "unexpected: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// Expects the end of the stream as TCP has it: no byte more, and no reset.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        assert!(read.is_ok(), "no clean end: {read:?}");
        assert!(
            rest.is_empty(),
            "unexpected: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// This end's address.
    pub fn local(&self) -> SocketAddr {
        self.socket().local_addr().expect("an address")
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.stream.get_ref().0
    }

    /// What the other clients are built on.
    pub(crate) fn reader(&mut self) -> &mut BufReader<Stream> {
        &mut self.stream
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

/// Closes every connection that this thread has made and still holds.
pub fn close_all() {
    for stream in OPEN.take().iter().filter_map(Weak::upgrade) {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

thread_local! {
    static OPEN: RefCell<Vec<Weak<TcpStream>>> = const { RefCell::new(Vec::new()) };
}

/// Connects with the smallest buffers on both sides, so that a client that does not read is soon
/// felt by the server and not kept by the kernel. The small segment size is what keeps the server's
/// send buffer small.
pub fn small_buffers(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.set_tcp_mss(536)?;
    socket.connect_timeout(&address.into(), DEADLINE)?;
    Ok(socket.into())
}

/// Connects from this address of the machine.
pub fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&address.into(), DEADLINE)?;
    Ok(socket.into())
}
