//! A thread of the server as the manager sees it: what a child process is to it in process mode.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use rustix::pipe::PipeFlags;

use crate::{Result, worker::panic_text};

/// A thread that was started.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    /// The system's number of the thread.
    number: u32,
    outcome: Arc<Outcome>,
    /// Readable when there is an outcome. Its other end is in the outcome, and nowhere else, so that
    /// closing this one takes it out of every poll set.
    told: OwnedFd,
}

/// How it ended: whether well, and in words.
type How = (bool, String);

#[derive(Debug)]
struct Outcome {
    state: Mutex<(Option<How>, Option<OwnedFd>)>,
}

impl Running {
    /// Runs `act` on a thread of this name.
    pub(crate) fn start(
        name: &str,
        act: impl FnOnce() -> Result + Send + 'static,
    ) -> io::Result<Self> {
        let (told, tells) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let outcome = Arc::new(Outcome {
            state: Mutex::new((None, Some(tells))),
        });
        let (number, numbered) = mpsc::channel();
        let ends = outcome.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Whoever starts it waits for it.
                let _ = number.send(rustix::thread::gettid().as_raw_pid().cast_unsigned());
                let how = match catch_unwind(AssertUnwindSafe(act)) {
                    Ok(Ok(())) => (true, "it has returned".to_owned()),
                    Ok(Err(error)) => (false, error.to_string()),
                    Err(panic) => (false, format!("panic: {}", panic_text(&*panic))),
                };
                ends.set(how);
            })?;
        Ok(Running {
            name: name.to_owned(),
            number: numbered.recv().map_err(io::Error::other)?,
            outcome,
            told,
        })
    }

    /// The system's number of the thread: what `top -H` and `perf` call it.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&self) -> Option<How> {
        self.outcome.lock().0.clone()
    }

    /// Counts it as ended. It may go on.
    pub(crate) fn leave_behind(&self) {
        if self.ended().is_none() {
            tracing::warn!(
                "{} did not end in time: the server ends without it",
                self.name
            );
        }
        self.outcome
            .set((false, "the thread was left behind".to_owned()));
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}

impl Outcome {
    /// The first one counts.
    fn set(&self, how: How) {
        let mut state = self.lock();
        state.0.get_or_insert(how);
        state.1 = None;
    }

    fn lock(&self) -> MutexGuard<'_, (Option<How>, Option<OwnedFd>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::Error;

    fn end_of(running: &Running) -> How {
        poll(&mut [PollFd::new(running, PollFlags::IN)], None).unwrap();
        running.ended().unwrap()
    }

    #[test]
    fn the_end_of_a_thread_is_told_with_its_reason() {
        let fine = Running::start("fine", || Ok(())).unwrap();
        assert!(end_of(&fine).0);
        let fails = Running::start("fails", || Err(Error::new("no luck"))).unwrap();
        assert_eq!(end_of(&fails), (false, "no luck".to_owned()));
        let panics = Running::start("panics", || panic!("no luck")).unwrap();
        assert_eq!(end_of(&panics), (false, "panic: no luck".to_owned()));
    }

    #[test]
    fn a_thread_that_hangs_can_be_left_behind() {
        let (go, wait) = mpsc::channel::<()>();
        let hangs = Running::start("hangs", move || {
            let _ = wait.recv();
            Ok(())
        })
        .unwrap();
        assert_eq!(hangs.ended(), None);
        hangs.leave_behind();
        assert!(!end_of(&hangs).0);
        drop(go);
    }
}
