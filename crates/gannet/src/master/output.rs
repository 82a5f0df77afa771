//! What is queued for a connection.
//!
//! A connection has one of these only while something is queued. Small pieces are joined in a
//! buffer from the reactor's pool; a large message to many is shared between them. All that one
//! turn queues leaves in one system call.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::AsFd,
    rc::Rc,
};

use rustix::net::SendFlags;

use super::pace::Unread;

/// The queue.
#[derive(Default)]
pub(super) struct Output {
    /// What leaves first; what is queued next is appended to it, until something stands behind it. Nearly always
    /// it is all there is. Where nothing is queued it is empty, and keeps its memory.
    first: Vec<u8>,
    behind: VecDeque<Segment>,
    /// Bytes of the first piece that have left: of `first`, or, if that is empty, of the first behind it.
    sent: usize,
    queued: usize,
    /// Who wants to know when at most so many bytes are queued: (limit, incarnation, token).
    pub(super) waiters: Vec<(usize, u64, u64)>,
    /// The socket is full: how its client reads.
    pub(super) unread: Option<Unread>,
}

enum Segment {
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
}

/// Buffers and queues that wait to be used again: a message that leaves in its turn allocates nothing.
#[derive(Default)]
pub(super) struct Pool {
    buffers: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "connections have them boxed")]
    queues: Vec<Box<Output>>,
}

impl Output {
    /// Bytes queued.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Nothing is queued, and nobody has asked to be told.
    pub(super) fn is_done(&self) -> bool {
        self.queued == 0 && self.waiters.is_empty() && self.unread.is_none()
    }

    /// Lets `write` append to the queue.
    #[inline]
    pub(super) fn append(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        let buffer = if self.behind.is_empty() && self.first.len() < JOIN {
            if self.first.capacity() == 0 {
                self.first = pool.take();
            }
            Some(&mut self.first)
        } else {
            buffer_behind(&mut self.behind, pool)
        };
        if let Some(buffer) = buffer {
            let before = buffer.len();
            write(buffer);
            self.queued += buffer.len() - before;
        }
    }

    /// Queues a buffer of the pool as it is.
    pub(super) fn push(&mut self, pool: &mut Pool, bytes: Vec<u8>) {
        let len = bytes.len();
        if self.queued == 0 {
            pool.give(std::mem::replace(&mut self.first, bytes));
        } else {
            self.behind.push_back(Segment::Own(bytes));
        }
        self.queued += len;
    }

    /// Queues bytes that others have queued too.
    pub(super) fn share(&mut self, pool: &mut Pool, bytes: Rc<[u8]>) {
        if self.queued == 0 {
            // What comes next does not go into it.
            pool.give(std::mem::take(&mut self.first));
        }
        self.queued += bytes.len();
        self.behind.push_back(Segment::Shared(bytes));
    }

    /// Writes as much as the socket takes. Returns how many bytes left.
    #[inline]
    pub(super) fn write_to(&mut self, socket: impl AsFd, pool: &mut Pool) -> io::Result<usize> {
        if !self.behind.is_empty() || self.sent > 0 || self.first.is_empty() {
            return self.write_pieces(socket, pool);
        }
        // A little cheaper than `write`, which knows less about what it writes to.
        let send = || rustix::net::send(&socket, &self.first, SendFlags::NOSIGNAL);
        match rustix::io::retry_on_intr(send) {
            Ok(written) if written == self.first.len() => {
                self.first_has_left(pool);
                self.queued = 0;
                Ok(written)
            }
            Ok(written) => {
                self.advance(written, pool);
                Ok(written + self.write_pieces(socket, pool)?)
            }
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Output::write_to`], of whatever there is.
    #[inline(never)]
    fn write_pieces(&mut self, socket: impl AsFd, pool: &mut Pool) -> io::Result<usize> {
        let mut total = 0;
        while self.queued > 0 {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slot, piece) in slices.iter_mut().zip(self.pieces()) {
                let skip = if count == 0 { self.sent } else { 0 };
                *slot = IoSlice::new(&piece[skip..]);
                count += 1;
            }
            let written = match &slices[..count] {
                [slice] => rustix::io::retry_on_intr(|| {
                    rustix::net::send(&socket, slice, SendFlags::NOSIGNAL)
                }),
                slices => rustix::io::retry_on_intr(|| rustix::io::writev(&socket, slices)),
            };
            match written {
                Ok(written) => {
                    total += written;
                    self.advance(written, pool);
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(total)
    }

    /// Gives up to `most` bytes to `each`, piece by piece; they are out of the queue.
    pub(super) fn take(&mut self, most: usize, pool: &mut Pool, mut each: impl FnMut(&[u8])) {
        let mut left = most.min(self.queued);
        while left > 0 {
            let piece = self.pieces().next().unwrap_or_default();
            let piece = &piece[self.sent..];
            let piece = &piece[..piece.len().min(left)];
            each(piece);
            let taken = piece.len();
            left -= taken;
            self.advance(taken, pool);
        }
    }

    /// Gives the buffers back, and the queue itself.
    #[inline]
    pub(super) fn recycle(mut self: Box<Self>, pool: &mut Pool) {
        if self.queued > 0 || !self.behind.is_empty() {
            self.forget(pool);
        }
        // One that was long keeps too much memory, and so does a list of waiters.
        if pool.queues.len() < POOLED
            && self.behind.capacity() <= SEGMENTS
            && self.waiters.capacity() == 0
        {
            self.unread = None;
            pool.queues.push(self);
        }
    }

    /// What is queued is not written any more.
    #[cold]
    fn forget(&mut self, pool: &mut Pool) {
        pool.give(std::mem::take(&mut self.first));
        for segment in self.behind.drain(..) {
            if let Segment::Own(buffer) = segment {
                pool.give(buffer);
            }
        }
        (self.sent, self.queued) = (0, 0);
    }

    /// What is queued, piece by piece, with what of the first of them has left.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let first = Some(self.first.as_slice()).filter(|first| !first.is_empty());
        first
            .into_iter()
            .chain(self.behind.iter().map(Segment::bytes))
    }

    /// All of `first` has left: its memory stays with the queue, and goes to the pool with it.
    #[inline]
    fn first_has_left(&mut self, pool: &mut Pool) {
        self.sent = 0;
        match self.behind.is_empty() && self.first.capacity() <= JOIN * 2 {
            true => self.first.clear(),
            false => pool.give(std::mem::take(&mut self.first)),
        }
    }

    fn advance(&mut self, mut written: usize, pool: &mut Pool) {
        self.queued -= written;
        if !self.first.is_empty() {
            let left = self.first.len() - self.sent;
            if written < left {
                self.sent += written;
                return;
            }
            written -= left;
            self.first_has_left(pool);
        }
        while let Some(segment) = self.behind.front() {
            let left = segment.bytes().len() - self.sent;
            if written < left {
                self.sent += written;
                return;
            }
            written -= left;
            self.sent = 0;
            if let Some(Segment::Own(buffer)) = self.behind.pop_front() {
                pool.give(buffer);
            }
        }
    }
}

/// What is appended to where something stands behind the first piece, or that is long.
#[cold]
fn buffer_behind<'a>(
    behind: &'a mut VecDeque<Segment>,
    pool: &mut Pool,
) -> Option<&'a mut Vec<u8>> {
    if !matches!(behind.back(), Some(Segment::Own(buffer)) if buffer.len() < JOIN) {
        behind.push_back(Segment::Own(pool.take()));
    }
    match behind.back_mut() {
        Some(Segment::Own(buffer)) => Some(buffer),
        _ => None,
    }
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Own(buffer) => buffer,
            Segment::Shared(bytes) => bytes,
        }
    }
}

impl Pool {
    /// The queue of a connection, which gets one if it has none.
    #[inline]
    pub(super) fn queue<'a>(&mut self, of: &'a mut Option<Box<Output>>) -> &'a mut Output {
        of.get_or_insert_with(|| self.queues.pop().unwrap_or_default())
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=JOIN * 2).contains(&buffer.capacity());
        if self.buffers.len() < POOLED && fits {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

/// A buffer is appended to until it is this long.
const JOIN: usize = 16 << 10;
/// Buffers kept for reuse: at most 8 MiB. And queues, each of which may have one more: 8 MiB.
const POOLED: usize = 256;
/// Pieces behind the first that a queue which is kept has room for.
const SEGMENTS: usize = 8;
const MAX_SLICES: usize = 32;

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn joins_shares_and_keeps_the_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut pool = Pool::default();
        let mut output = Output::default();
        output.append(&mut pool, |out| out.extend_from_slice(b"one "));
        output.append(&mut pool, |out| out.extend_from_slice(b"two "));
        output.share(&mut pool, Rc::from(&b"three "[..]));
        output.append(&mut pool, |out| out.extend_from_slice(b"four"));
        assert_eq!((output.pieces().count(), output.queued()), (3, 18));

        assert_eq!(output.write_to(&ours, &mut pool).unwrap(), 18);
        assert_eq!(output.queued(), 0);
        assert_eq!(pool.buffers.len(), 2, "both buffers are back");
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two three four");
    }

    #[test]
    fn a_queue_that_is_used_again_has_its_buffer_still() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut pool = Pool::default();
        let mut of = None;
        for text in ["one ", "two "] {
            let output = pool.queue(&mut of);
            output.append(&mut pool, |out| out.extend_from_slice(text.as_bytes()));
            assert_eq!(output.write_to(&ours, &mut pool).unwrap(), 4);
            of.take().unwrap().recycle(&mut pool);
            assert_eq!((pool.queues.len(), pool.buffers.len()), (1, 0));
        }
        // What does not go into it, goes without it.
        let output = pool.queue(&mut of);
        output.share(&mut pool, Rc::from(&b"three"[..]));
        assert_eq!((output.pieces().count(), pool.buffers.len()), (1, 1));
        assert_eq!(output.write_to(&ours, &mut pool).unwrap(), 5);
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two three");
    }

    #[test]
    fn what_is_taken_is_gone_from_the_front() {
        let mut pool = Pool::default();
        let mut output = Output::default();
        output.append(&mut pool, |out| out.extend_from_slice(b"one "));
        output.share(&mut pool, Rc::from(&b"two "[..]));
        output.append(&mut pool, |out| out.extend_from_slice(b"three"));
        let mut taken = Vec::new();
        for most in [0, 6, 4, 100] {
            output.take(most, &mut pool, |piece| taken.push(piece.to_vec()));
        }
        assert_eq!(taken, [&b"one "[..], b"tw", b"o ", b"th", b"ree"]);
        assert_eq!((output.queued(), output.pieces().count()), (0, 0));
        assert_eq!(pool.buffers.len(), 2, "both buffers are back");
    }

    #[test]
    fn goes_on_where_a_full_socket_stopped() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut pool = Pool::default();
        let mut output = Output::default();
        let big: Rc<[u8]> = (0..1_000_000u32).map(|n| n as u8).collect();
        output.share(&mut pool, big.clone());
        output.append(&mut pool, |out| out.extend_from_slice(b"end"));
        let mut received = Vec::new();
        while output.queued() > 0 {
            output.write_to(&ours, &mut pool).unwrap();
            let mut chunk = [0; 65536];
            let len = theirs.read(&mut chunk).unwrap();
            received.extend_from_slice(&chunk[..len]);
        }
        drop(ours);
        theirs.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), big.len() + 3);
        assert_eq!(
            (&received[..big.len()], &received[big.len()..]),
            (&big[..], &b"end"[..])
        );
    }
}
