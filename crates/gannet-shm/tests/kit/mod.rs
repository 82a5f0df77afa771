//! What tests with several processes need.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;

/// A child that does not outlive the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Runs this test program once more, only its test `child`. The variable has `arguments` and
    /// then the numbers of the descriptors that it inherits, with spaces between.
    pub(crate) fn spawn(variable: &str, arguments: &str, inherit: &[&dyn AsFd]) -> Process {
        let inherited: Vec<OwnedFd> = inherit.iter().map(|fd| dup(&fd.as_fd())).collect();
        let mut value = arguments.to_owned();
        for fd in &inherited {
            rustix::io::fcntl_setfd(fd, FdFlags::empty()).unwrap();
            value += &format!(" {}", fd.as_raw_fd());
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1", "-q"])
            .env(variable, value)
            .stdout(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }

    /// Kills it, and sees to it that it had found no fault before.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        let status = self.0.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "the child found a fault, see above"
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the child: the descriptor with this number.
pub(crate) fn inherited(fd: u64) -> OwnedFd {
    // SAFETY: the parent has left this descriptor open for us, and nobody else in this process
    // knows its number.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

pub(crate) fn dup(fd: &impl AsFd) -> OwnedFd {
    let fd: BorrowedFd<'_> = fd.as_fd();
    fd.try_clone_to_owned().unwrap()
}

/// xorshift64*
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
