//! The bytes between a connection and its HTTP/2 session: what the library reads and writes in place
//! of a socket. Both ends are called from one place in one thread, so nothing here wakes anybody.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The library's end.
#[derive(Clone, Default)]
pub(super) struct Pipe(Rc<RefCell<Bytes>>);

/// What is in it during one call of the library.
#[derive(Default)]
struct Bytes {
    input: Vec<u8>,
    /// The part of `input` that is for the library.
    at: usize,
    end: usize,
    output: Vec<u8>,
    /// How long `output` may become.
    room: usize,
    /// The library wanted to write more.
    full: bool,
}

impl Pipe {
    /// Gives `input[..len]` to be read, and `output` to be appended to until it has `room` bytes.
    pub(super) fn fill(&self, input: Vec<u8>, len: usize, output: Vec<u8>, room: usize) {
        *self.0.borrow_mut() = Bytes {
            input,
            at: 0,
            end: len,
            output,
            room,
            full: false,
        };
    }

    /// Takes back the input, how many bytes of it were read, the output, and whether more was to be
    /// written.
    pub(super) fn empty(&self) -> (Vec<u8>, usize, Vec<u8>, bool) {
        let bytes = self.0.take();
        (bytes.input, bytes.at, bytes.output, bytes.full)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = self.0.borrow_mut();
        let len = into.remaining().min(bytes.end - bytes.at);
        if len == 0 {
            return Poll::Pending;
        }
        into.put_slice(&bytes.input[bytes.at..bytes.at + len]);
        bytes.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = self.0.borrow_mut();
        if bytes.output.len() >= bytes.room {
            bytes.full = true;
            return Poll::Pending;
        }
        // Frames are 16 KiB at most, unless the client asks for longer ones.
        let mut left = bytes.room - bytes.output.len() + SLACK;
        let mut written = 0;
        for piece in pieces {
            let piece = &piece[..piece.len().min(left)];
            bytes.output.extend_from_slice(piece);
            written += piece.len();
            left -= piece.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A write that begins within the room may go so far beyond it.
const SLACK: usize = 16 << 10;
