//! A terminal that shows one picture after another.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{self, OptionalActions, Termios, tcgetwinsize, tcsetattr},
};

use crate::sys::SignalFd;

/// The terminal while it is ours: keys come one by one, the cursor is hidden, and what was on the
/// screen comes back when this is dropped.
///
/// Signals that would end the process are taken as a wish to quit, so that the terminal is put
/// right in every case but SIGKILL.
pub(super) struct Terminal {
    before: Termios,
    signals: SignalFd,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Key(u8),
    Resized,
    Quit,
    /// The time is over.
    Nothing,
}

impl Terminal {
    /// Whether there is a terminal on both sides.
    pub(super) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    pub(super) fn take() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let signals = SignalFd::steering()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let terminal = Terminal { before, signals };
        // The other screen, without a cursor.
        write!(io::stdout(), "\x1b[?1049h\x1b[?25l")?;
        Ok(terminal)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            // A line without a size.
            _ => (80, 24),
        }
    }

    /// Shows these lines, as much of them as there is room for.
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        let (columns, rows) = self.size();
        let mut out = "\x1b[H".to_owned();
        for (index, line) in lines.iter().take(rows).enumerate() {
            if index > 0 {
                out.push_str("\r\n");
            }
            // What a server or its program calls itself must not steer the terminal.
            let shown = line.chars().filter(|char| !char.is_control());
            out.extend(shown.take(columns));
            out.push_str("\x1b[K");
        }
        out.push_str("\x1b[J");
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }

    /// Waits for a key until then.
    pub(super) fn wait(&self, until: Instant) -> io::Result<Happened> {
        let size = self.size();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = left.min(LOOK);
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: wait.subsec_nanos().into(),
            };
            let (stdin, mut key) = (io::stdin(), [0]);
            let mut ready = [
                PollFd::new(&stdin, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            match poll(&mut ready, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let (typed, signalled) = (
                !ready[0].revents().is_empty(),
                !ready[1].revents().is_empty(),
            );
            if signalled && self.signals.next().is_some() {
                return Ok(Happened::Quit);
            }
            if typed {
                return Ok(match rustix::io::read(&stdin, &mut key) {
                    Ok(1) => Happened::Key(key[0]),
                    // The terminal is gone.
                    _ => Happened::Quit,
                });
            }
            if self.size() != size {
                return Ok(Happened::Resized);
            }
            if left.is_zero() {
                return Ok(Happened::Nothing);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = write!(io::stdout(), "\x1b[?25h\x1b[?1049l");
        let _ = io::stdout().flush();
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// How often the size is looked at.
const LOOK: Duration = Duration::from_millis(250);
