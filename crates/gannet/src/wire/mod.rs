//! What the reactors and the worker processes say to each other through the rings.
//!
//! A record is a header of [`HEADER`] bytes and a payload. All numbers are little
//! endian. Both ends are the same program, or two builds of it during a reload: a
//! change here changes [`ABI`], and a worker with another ABI is refused at its start.
//!
//! - [`event`]: reactor to worker.
//! - [`command`]: worker to reactor.
//! - [`head`]: an HTTP request head as a payload.
//! - [`stamp`]: when an event was written.
//! - [`route`]: whom a datagram came from and goes to, as the front of a payload.
//!
//! **Sequence numbers.** An event that needs an outcome has a sequence number > 0, counted
//! per ring. The worker answers with a command whose `done` field is that number, written
//! together with (or after) the last output of the handler, so that one Release store
//! makes output and completion visible at once. Until then the reactor keeps the event.
//!
//! **Large payloads.** A payload over the ring's inline limit lies in the arena of that
//! direction; the record then has [`ARENA`] set and its payload is offset and length of the
//! block (two u64). For events the reactor frees the block when the event is done; for
//! commands the worker frees it when the ring's read position has passed the record.

pub(crate) mod command;
pub(crate) mod event;
pub(crate) mod head;
pub(crate) mod route;
pub(crate) mod stamp;

/// Version of everything in this module and of `layout`.
pub(crate) const ABI: u32 = 12;

/// Bytes before the payload of a record.
pub(crate) const HEADER: usize = 32;

/// Flag: the payload is a block reference into the arena.
pub(crate) const ARENA: u8 = 0x80;

/// Flag: data is text (WebSocket); otherwise binary.
pub(crate) const TEXT: u8 = 0x01;

/// An arena block as it stands in a record.
pub(crate) fn block_bytes(offset: u64, len: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// Offset and length of the block that an [`ARENA`] record names.
pub(crate) fn block_from(bytes: [u8; 16]) -> (u64, u64) {
    (u64_at(&bytes, 0), u64_at(&bytes, 8))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
