//! Descriptors that a process was started with.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use rustix::io::FdFlags;

/// Takes the descriptor with this number, of which the [`Bootstrap`](crate::bootstrap::Bootstrap)
/// says that it is this process's, and makes it close-on-exec. Each can be taken once.
#[allow(
    unsafe_code,
    reason = "a number in a message has to become an owned descriptor"
)]
pub(crate) fn take(fd: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let refused = |why: &str| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("inherited descriptor {fd}: {why}"),
        )
    };
    if fd <= 2 {
        return Err(refused("not one that the manager hands down"));
    }
    if !TAKEN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(fd)
    {
        return Err(refused("taken before"));
    }
    // SAFETY: the number is not -1; the borrow ends with the call, which only asks the kernel
    // whether the descriptor is open, and fails if it is not.
    let open = rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::CLOEXEC);
    open.map_err(|error| refused(&error.to_string()))?;
    // SAFETY: it is open, as just seen, and this is its only owner: the manager left it open
    // across exec for whoever reads the bootstrap, and the set above lets it be taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn each_descriptor_is_taken_once() {
        let number = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        let taken = take(number).unwrap();
        assert!(
            take(number)
                .unwrap_err()
                .to_string()
                .contains("taken before")
        );
        drop(taken);
        assert!(take(1).is_err());
        assert!(take(i32::MAX).is_err(), "not open");
    }
}
