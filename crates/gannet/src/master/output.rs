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
    /// Where nothing is queued, at most one that is empty, and the queue's own.
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that have left.
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
    pub(super) fn append(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.segments.back(), Some(Segment::Own(buffer)) if buffer.len() < JOIN) {
            self.segments.push_back(Segment::Own(pool.take()));
        }
        if let Some(Segment::Own(buffer)) = self.segments.back_mut() {
            let before = buffer.len();
            write(buffer);
            self.queued += buffer.len() - before;
        }
    }

    /// Queues a buffer of the pool as it is.
    pub(super) fn push(&mut self, pool: &mut Pool, bytes: Vec<u8>) {
        self.give_empty(pool);
        self.queued += bytes.len();
        self.segments.push_back(Segment::Own(bytes));
    }

    /// Queues bytes that others have queued too.
    pub(super) fn share(&mut self, pool: &mut Pool, bytes: Rc<[u8]>) {
        self.give_empty(pool);
        self.queued += bytes.len();
        self.segments.push_back(Segment::Shared(bytes));
    }

    /// Writes as much as the socket takes. Returns how many bytes left.
    pub(super) fn write_to(&mut self, socket: impl AsFd, pool: &mut Pool) -> io::Result<usize> {
        if self.segments.len() == 1
            && let Some(Segment::Own(buffer)) = self.segments.front_mut()
            && let Some(bytes) = buffer.get(self.sent..).filter(|bytes| !bytes.is_empty())
        {
            // Nearly always it is one small piece, and leaves whole.
            let send = || rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL);
            return match rustix::io::retry_on_intr(send) {
                Ok(written) if written == bytes.len() && buffer.capacity() <= JOIN * 2 => {
                    // The queue keeps its buffer: it goes to the pool with it.
                    buffer.clear();
                    (self.sent, self.queued) = (0, 0);
                    Ok(written)
                }
                Ok(written) => {
                    self.advance(written, pool);
                    Ok(written + self.write_rest(socket, pool)?)
                }
                Err(rustix::io::Errno::AGAIN) => Ok(0),
                Err(error) => Err(error.into()),
            };
        }
        self.write_rest(socket, pool)
    }

    /// As [`Output::write_to`], of whatever there is.
    fn write_rest(&mut self, socket: impl AsFd, pool: &mut Pool) -> io::Result<usize> {
        let mut total = 0;
        while self.queued > 0 {
            let written = match self.segments.len() {
                // A little cheaper than `write`, which knows less about what it writes to.
                1 => rustix::io::retry_on_intr(|| {
                    rustix::net::send(&socket, self.first(), SendFlags::NOSIGNAL)
                }),
                _ => {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let mut count = 0;
                    for (slot, segment) in slices.iter_mut().zip(&self.segments) {
                        let skip = if count == 0 { self.sent } else { 0 };
                        *slot = IoSlice::new(&segment.bytes()[skip..]);
                        count += 1;
                    }
                    rustix::io::retry_on_intr(|| rustix::io::writev(&socket, &slices[..count]))
                }
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
            let piece = self.first();
            let piece = &piece[..piece.len().min(left)];
            each(piece);
            let taken = piece.len();
            left -= taken;
            self.advance(taken, pool);
        }
    }

    /// Gives the buffers back, and the queue itself.
    pub(super) fn recycle(mut self: Box<Self>, pool: &mut Pool) {
        if self.queued > 0 || self.segments.len() > 1 {
            while let Some(segment) = self.segments.pop_front() {
                if let Segment::Own(buffer) = segment {
                    pool.give(buffer);
                }
            }
        }
        // One that was long keeps too much memory, and so does a list of waiters.
        if pool.queues.len() < POOLED
            && self.segments.capacity() <= SEGMENTS
            && self.waiters.capacity() == 0
        {
            (self.sent, self.queued, self.unread) = (0, 0, None);
            pool.queues.push(self);
        }
    }

    /// Gives its empty buffer back: what comes next does not go into it.
    fn give_empty(&mut self, pool: &mut Pool) {
        if self.queued == 0
            && let Some(Segment::Own(buffer)) = self.segments.pop_front()
        {
            pool.give(buffer);
        }
    }

    fn first(&self) -> &[u8] {
        self.segments
            .front()
            .map_or(&[], |segment| &segment.bytes()[self.sent..])
    }

    fn advance(&mut self, mut written: usize, pool: &mut Pool) {
        self.queued -= written;
        if self.queued == 0
            && self.segments.len() == 1
            && let [Segment::Own(buffer)] = self.segments.as_mut_slices().0
            && buffer.capacity() <= JOIN * 2
        {
            // The queue keeps its buffer: it goes to the pool with it.
            buffer.clear();
            self.sent = 0;
            return;
        }
        while let Some(segment) = self.segments.front() {
            let left = segment.bytes().len() - self.sent;
            if written < left {
                self.sent += written;
                return;
            }
            written -= left;
            self.sent = 0;
            if let Some(Segment::Own(buffer)) = self.segments.pop_front() {
                pool.give(buffer);
            }
        }
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
/// Segments that a queue which is kept has room for.
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
        assert_eq!((output.segments.len(), output.queued()), (3, 18));

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
        assert_eq!((output.segments.len(), pool.buffers.len()), (1, 1));
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
        // It keeps the last buffer.
        assert_eq!((output.queued(), output.segments.len()), (0, 1));
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
