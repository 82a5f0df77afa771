//! Knowing whether a process lives.
//!
//! Each process that takes locks in a region draws a number there, its *life*, that was never drawn
//! before and never will be again. As long as it lives it holds a lock of the system on the byte
//! with that number of the region's file (an "open file description" lock; the byte need not
//! exist). The kernel lets go of it when the process is gone, however it went, and after the last
//! of its threads has made its last step; not when the process is stopped. Everybody can ask whether
//! a byte is locked without touching it.
//!
//! Compared with what else there is: a process id can belong to another by now; a robust POSIX mutex
//! belongs to a thread, not to a process, and cannot be asked without being taken, so that whoever
//! asks can be stopped with it in its hand.
//!
//! # Invariants
//!
//! 1. A number is used in shared memory only after its byte was locked; so one whose byte is free
//!    is that of a dead process.
//! 2. The description is this process's alone: it is opened anew, close-on-exec, and never passed
//!    on. (A child between fork and exec has it for that moment. One that never calls exec has it as
//!    long as it lives, and the life lasts as long: that is what it costs that the kernel knows no
//!    lock of a process that closing any other descriptor of the file does not release.)

#![allow(
    unsafe_code,
    reason = "locks of open file descriptions have no safe interface, in rustix or elsewhere"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags};

use crate::region::Region;

/// The life of this process in a region. It ends with the process, or when this is dropped.
#[derive(Debug)]
pub struct Life {
    region: Arc<Region>,
    file: OwnedFd,
    number: u64,
    /// Asking the system each time would cost more than a lock.
    pid: u32,
}

impl Life {
    /// Bytes that all lives together take in the region.
    pub const BYTES: usize = 128;
    /// Alignment of their offset.
    pub const ALIGN: usize = 128;

    /// Begins a life. `offset` is the same for all processes, of memory that was zero at first.
    ///
    /// # Errors
    ///
    /// If the region's file cannot be opened once more (`/proc` is needed), or not be locked.
    ///
    /// # Panics
    ///
    /// If the offset is misaligned or outside of the region.
    pub fn begin(region: Arc<Region>, offset: usize) -> io::Result<Arc<Life>> {
        let path = format!("/proc/self/fd/{}", region.fd().as_raw_fd());
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| {
            io::Error::other(format!("cannot open {path}: {error} (is /proc mounted?)"))
        })?;
        let number = region.word(offset).fetch_add(1, Ordering::Relaxed) + 1;
        control(&file, libc::F_OFD_SETLK, number)?;
        Ok(Arc::new(Life {
            region,
            file,
            number,
            pid: std::process::id(),
        }))
    }

    /// Its number; not 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the life with this number is over. `false` in doubt.
    pub fn is_over(&self, number: u64) -> bool {
        number != self.number
            && control(&self.file, libc::F_OFD_GETLK, number)
                .is_ok_and(|found| found == libc::F_UNLCK)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }
}

/// Locks the byte with this number, or asks who has; the kind of lock that it found.
fn control(file: &OwnedFd, command: i32, number: u64) -> io::Result<i32> {
    let start = i64::try_from(number)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not the number of a life"))?;
    let mut lock = libc::flock64 {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: 1,
        // Has to be so for locks of descriptions.
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and both commands read and write one `flock64`, which lives
    // longer than the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_over_when_it_is_and_not_before() {
        let region = Region::create("life", 1, 4096).unwrap();
        let other = Region::attach(region.fd().try_clone_to_owned().unwrap(), 1).unwrap();
        let one = Life::begin(region, 128).unwrap();
        let two = Life::begin(other, 128).unwrap();
        assert_ne!(one.number(), two.number());
        assert!(!one.is_over(two.number()) && !two.is_over(one.number()));
        assert!(!one.is_over(one.number()));
        let number = two.number();
        drop(two);
        assert!(one.is_over(number));
        assert!(!one.is_over(one.number()));
    }

    #[test]
    fn a_life_lasts_as_long_as_a_copy_of_its_description() {
        let region = Region::create("life", 1, 4096).unwrap();
        let one = Life::begin(region.clone(), 0).unwrap();
        let two = Life::begin(region, 0).unwrap();
        // As a child has it that was forked and not executed.
        let copy = two.file.try_clone().unwrap();
        let number = two.number();
        drop(two);
        assert!(!one.is_over(number));
        drop(copy);
        assert!(one.is_over(number));
    }

    #[test]
    fn no_nonsense_is_taken_for_dead() {
        let region = Region::create("life", 1, 4096).unwrap();
        let life = Life::begin(region, 0).unwrap();
        assert!(!life.is_over(u64::MAX));
    }
}
