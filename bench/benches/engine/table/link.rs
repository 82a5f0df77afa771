//! Talking to a process that measures: a line each way.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

/// What a process did in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) operations: u64,
    pub(super) wall: Duration,
    /// Processor time.
    pub(super) processor: Duration,
}

impl Sample {
    /// Nanoseconds an operation, by the clock and by processor time.
    pub(super) fn nanoseconds(&self) -> [f64; 2] {
        [self.wall, self.processor].map(|time| time.as_nanos() as f64 / self.operations as f64)
    }

    pub(super) fn parse(line: &str) -> Result<Self> {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("not understood: {line}"))?;
        let [operations @ 1..=u64::MAX, wall, processor] = numbers[..] else {
            bail!("not understood: {line}");
        };
        Ok(Sample {
            operations,
            wall: Duration::from_nanos(wall),
            processor: Duration::from_nanos(processor),
        })
    }
}

/// A process and its pipes. It ends when its standard input does.
pub(super) struct Link {
    child: Child,
    /// There until the end.
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Link {
    /// Starts the process and waits until it says that it is ready.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("it has no output")?;
        let mut link = Link {
            child,
            input,
            output: BufReader::new(output).lines(),
        };
        match link.answer()?.as_str() {
            "ready" => Ok(link),
            other => bail!("{command:?} is not ready, it says: {other}"),
        }
    }

    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{line}").context("the process that measures has gone")
    }

    pub(super) fn answer(&mut self) -> Result<String> {
        let line = self.output.next();
        Ok(line.context("the process that measures has gone")??)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// When all who were told now can begin, and how long they go on: the end of a line that tells them.
pub(super) fn start_and_window(window: Duration) -> String {
    let start = now(ClockId::Monotonic) + HEAD_START;
    format!("{} {}", start.as_nanos(), window.as_nanos())
}

pub(super) fn now(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    // Neither is negative.
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
}

/// For the line to get there.
const HEAD_START: Duration = Duration::from_millis(5);
