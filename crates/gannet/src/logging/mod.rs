//! The log: what the processes of a server have to say, one line for each event, with time, level,
//! role, number and process id.
//!
//! The manager alone writes, to the log file or to standard error: so one process decides when the
//! file is changed, and nobody else waits for a disk or a terminal. Each child has a pipe to it for
//! its lines, and, if output is captured, two more for what it prints.
//!
//! ```text
//! event ─▶ filter ─▶ Lines (layer) ─▶ Repeats ─▶ Said::line ─▶ Pipe ─▶ manager ─┐
//!                                                        in the manager itself ─┴▶ Queue ─▶ thread ─▶ LogFile
//! println! ─▶ pipe ─▶ manager: cut into lines, `captured` ─────────────────────────┘
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `layer` | from events of `tracing` to lines |
//! | `line`, `calendar` | what a line looks like |
//! | `repeats` | too many events of one place in the code |
//! | `pipe` | a child's way to the manager |
//! | `queue` | the manager's lines that wait, and the thread that writes them |
//! | `file` | the log file and its rotation |
//! | `panics` | panics and aborts |
//!
//! A program that has set a `tracing` subscriber of its own before `Server::run` keeps it: events, those
//! of the engine too, go there. What it writes to standard output and standard error is captured as
//! anybody's.

mod calendar;
mod file;
mod layer;
mod line;
mod panics;
mod pipe;
mod queue;
mod repeats;

use std::{
    io,
    os::fd::{OwnedFd, RawFd},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

pub(crate) use self::{
    file::LogFile,
    line::{LONGEST, Who},
    pipe::LOST,
    queue::Queue,
};
use self::{
    layer::{Lines, Scribe, Sink},
    line::{Said, Style},
    pipe::Pipe,
    repeats::Repeats,
};
use crate::{
    Error, Mode, Result, Settings, inherit,
    settings::{CaptureOutput, LogFormat, millis},
    traces,
};

/// What a child gets of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Handed {
    /// The writing end of its pipe.
    pipe: RawFd,
    who: Who,
    style: Style,
}

/// The manager's part of the log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) queue: Queue,
    style: Style,
    /// Whether what children print becomes lines.
    pub(crate) captures: bool,
}

/// Begins logging in the manager, into this file or to standard error. The settings were checked.
pub(crate) fn init_manager(settings: &Settings, file: Option<LogFile>) -> Result<Log> {
    let for_people = file.is_none() && queue::errors_are_for_people();
    let style = Style {
        json: match settings.log_format {
            LogFormat::Auto => !for_people,
            LogFormat::Text => false,
            LogFormat::Json => true,
        },
        ansi: for_people,
    };
    let captures = match settings.capture_output {
        CaptureOutput::Auto => !for_people,
        CaptureOutput::On => true,
        CaptureOutput::Off => false,
    };
    let wait = millis(settings.log_wait_ms);
    let queue = Queue::start(file, Who::manager(), style, settings.log_queue, wait)?;
    let sink = Sink::Queue(queue.clone());
    // In process mode neither this process nor the master exports spans, but those that do are to find
    // no mistake.
    traces::check()?;
    begin_as(
        Who::manager(),
        style,
        sink,
        settings,
        settings.mode == Mode::Thread,
    )?;
    Ok(Log {
        queue,
        style,
        captures,
    })
}

/// Begins logging in a child of the manager. `handles`: it handles events, may wait for the log, and has
/// spans.
pub(crate) fn init_child(handed: Handed, settings: &Settings, handles: bool) -> Result {
    let Handed { pipe, who, style } = handed;
    let wait = millis(settings.log_wait_ms);
    let wait = if handles { wait } else { wait.min(MASTER_WAIT) };
    let pipe = Pipe::new(inherit::take(pipe)?, wait)?;
    let who = who.with_pid(std::process::id());
    begin_as(who, style, Sink::Pipe(pipe), settings, handles)
}

/// Begins logging in the child of a pool: there is no manager, and nobody has settings.
pub(crate) fn init_pool(name: &str, child: usize) {
    let style = Style {
        json: false,
        ansi: queue::errors_are_for_people(),
    };
    let who = Who::pool(name, child);
    begin(who, style, Sink::Errors, &Settings::default());
}

/// Logs what is left to be said before this process ends.
pub(crate) fn finish() {
    panics::finish();
}

/// Changes what is logged from now on.
pub(crate) fn set_level(level: &str) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), filter("log_level", level)) {
        // It fails only if the subscriber is gone, and then nothing is logged anyway.
        let _ = handle.reload(filter);
    }
}

/// Refuses what is no filter.
pub(crate) fn check_filter(setting: &str, level: &str) -> Result {
    filter(setting, level).map(drop)
}

impl Handed {
    pub(crate) fn pipe(&self) -> RawFd {
        self.pipe
    }
}

impl Log {
    /// A pipe for the lines of a child: the end to read, and the one that it gets.
    pub(crate) fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // More than the usual 64 KiB, for lines that come while the manager does something else. Who
        // has many pipes already may not have a larger one.
        let _ = fcntl_setpipe_size(&writer, PIPE);
        Ok((reader, writer))
    }

    /// What the child gets.
    pub(crate) fn hand(&self, pipe: RawFd, who: Who) -> Handed {
        let style = self.style;
        Handed { pipe, who, style }
    }

    /// Logs a line that a process has printed.
    pub(crate) fn captured(&self, who: &Who, is_errors: bool, text: &[u8]) {
        // They are filtered as events of these targets.
        let (level, target, wanted) = match is_errors {
            true => (
                Level::WARN,
                "stderr",
                tracing::enabled!(target: "stderr", Level::WARN),
            ),
            false => (
                Level::INFO,
                "stdout",
                tracing::enabled!(target: "stdout", Level::INFO),
            ),
        };
        if wanted {
            let text = String::from_utf8_lossy(text);
            let said = Said::message(self.style, &text);
            let line = said.line(who, SystemTime::now(), level, target, None);
            self.queue.push(line.as_bytes());
        }
    }

    /// Takes a line that a child has logged, without its end; `is_whole`: it had one.
    pub(crate) fn line(&self, who: &Who, line: &[u8], is_whole: bool) {
        if let Some(lost) = line.strip_prefix(LOST.as_bytes()) {
            let lost = std::str::from_utf8(lost).ok();
            let lost: u64 = lost.and_then(|lost| lost.parse().ok()).unwrap_or(0);
            self.queue.lost_elsewhere(lost);
            let text = format!(
                "{} lines were lost here: they came faster than the log could be written",
                repeats::grouped(lost)
            );
            let said = Said::message(self.style, &text);
            let line = said.line(who, SystemTime::now(), Level::ERROR, "gannet::log", None);
            self.queue.push(line.as_bytes());
        } else if is_whole {
            let mut whole = Vec::with_capacity(line.len() + 1);
            whole.extend_from_slice(line);
            whole.push(b'\n');
            self.queue.push(&whole);
        } else {
            // It was killed in the middle of it.
            let text = String::from_utf8_lossy(line);
            let said = Said::message(self.style, &text);
            let line = said.line(who, SystemTime::now(), Level::WARN, "gannet::log", None);
            self.queue.push(line.as_bytes());
        }
    }
}

/// `handles`: this process handles events, and exports their spans if the environment names a collector.
fn begin_as(who: Who, style: Style, sink: Sink, settings: &Settings, handles: bool) -> Result {
    #[cfg(feature = "opentelemetry")]
    if handles {
        return begin_with_traces(who, style, sink, settings);
    }
    let _ = handles;
    begin(who, style, sink, settings);
    Ok(())
}

/// Makes the subscriber of this process: here and below is where layers are put together.
fn begin(who: Who, style: Style, sink: Sink, settings: &Settings) {
    let scribe = scribe(who, style, sink, settings);
    let (filter, handle) =
        reload::Layer::new(filter("log_level", &settings.log_level).unwrap_or_default());
    let began = tracing_subscriber::registry()
        .with(filter)
        .with(Lines(scribe.clone()))
        .try_init();
    if began.is_ok() {
        FILTER.get_or_init(|| handle);
    }
    panics::tell(scribe);
}

/// As `begin`, with a layer that exports spans if the environment names a collector. `log_level` is
/// about lines only then, and lines do not tell the spans of events, which say what they do.
#[cfg(feature = "opentelemetry")]
fn begin_with_traces(who: Who, style: Style, sink: Sink, settings: &Settings) -> Result {
    use tracing_subscriber::{
        Layer,
        filter::{FilterExt, filter_fn},
    };
    let Some(traces) = traces::layer(&who, settings)? else {
        begin(who, style, sink, settings);
        return Ok(());
    };
    let scribe = scribe(who, style, sink, settings);
    let (filter, handle) =
        reload::Layer::new(filter("log_level", &settings.log_level).unwrap_or_default());
    let own = filter_fn(|metadata| metadata.target() != traces::TARGET);
    let began = tracing_subscriber::registry()
        .with(Lines(scribe.clone()).with_filter(filter.and(own)))
        .with(traces)
        .try_init();
    if began.is_ok() {
        FILTER.get_or_init(|| handle);
    }
    // A subscriber of the program's own has the spans as well, and does with them what it likes.
    traces::begin();
    panics::tell(scribe);
    Ok(())
}

fn scribe(who: Who, style: Style, sink: Sink, settings: &Settings) -> Arc<Scribe> {
    Arc::new(Scribe {
        who,
        style,
        sink,
        repeats: Repeats::new(settings.log_repeat_limit),
    })
}

pub(crate) fn filter(setting: &str, level: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(level).map_err(|error| {
        Error::usage(format!(
            "`{setting}` = {level:?}: must be error, warn, info, debug, trace, or a filter such as \
             info,my_app=debug ({error})"
        ))
    })
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// The reactors wait for the log no longer than this.
const MASTER_WAIT: Duration = Duration::from_millis(10);
/// Bytes in a child's pipe.
const PIPE: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert!(check_filter("log_level", "info").is_ok());
        assert!(check_filter("log_level", "warn,gannet=debug").is_ok());
        let error = check_filter("log_level", "a=b=c").unwrap_err();
        assert!(
            error.is_usage() && error.to_string().contains("log_level"),
            "{error}"
        );
    }

    #[test]
    fn lines_that_a_child_has_lost_are_counted() {
        let style = Style {
            json: false,
            ansi: false,
        };
        let queue = Queue::start(None, Who::manager(), style, 1 << 20, Duration::ZERO).unwrap();
        let log = Log {
            queue,
            style,
            captures: false,
        };
        log.line(&Who::master(), format!("{LOST}7").as_bytes(), true);
        assert_eq!(log.queue.lost(), 7);
        log.line(&Who::master(), b"one that was not lost", true);
        assert_eq!(log.queue.lost(), 7);
    }
}
