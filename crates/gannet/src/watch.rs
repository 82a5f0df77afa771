//! Descriptors that the runtime watches.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Has the runtime watch a copy of a descriptor for being readable. Edge-triggered: look until
/// there is nothing, then clear.
#[allow(unsafe_code, reason = "tokio cannot see that a descriptor stays open")]
pub(crate) fn readable(fd: &impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let copy = fd.as_fd().try_clone_to_owned()?;
    // SAFETY: the copy is open, an `OwnedFd` always names the same descriptor, and the `AsyncFd`
    // owns it: it stays open until that is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }?)
}
