//! Logging: one line per event on stderr, with time, level, role and process id.
//!
//! ```text
//! 2026-11-21T01:40:20.123456Z  INFO worker 3[4711]: replaced its predecessor events=12
//! ```
//!
//! All processes of a server write to the same stderr, each line with one `write`, so lines do not
//! mix. A program that has set its own `tracing` subscriber before `Server::run` keeps it.

use std::{fmt, io::IsTerminal, panic::PanicHookInfo, sync::OnceLock};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::{Error, Result};

/// Begins logging for this process. `level` was checked before.
pub(crate) fn init(role: &str, level: &str) {
    let (filter, handle) = reload::Layer::new(filter(level).unwrap_or_default());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(Line {
            role: role.to_owned(),
        });
    let began = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if began.is_ok() {
        FILTER.get_or_init(|| handle);
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        log_panic(info);
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            before(info);
        }
    }));
}

/// Changes what is logged from now on.
pub(crate) fn set_level(level: &str) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), filter(level)) {
        // It fails only if the subscriber is gone, and then nothing is logged anyway.
        let _ = handle.reload(filter);
    }
}

/// Refuses what is no filter.
pub(crate) fn check_filter(level: &str) -> Result {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(level).map_err(|error| {
        Error::usage(format!(
            "`log_level` = {level:?}: must be error, warn, info, debug, trace, or a filter such as \
             info,my_app=debug ({error})"
        ))
    })
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(at) => tracing::error!("panicked at {}:{}: {message}", at.file(), at.line()),
        None => tracing::error!("panicked: {message}"),
    }
}

/// How an event is written.
struct Line {
    role: String,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let level = *event.metadata().level();
        let (colour, plain) = match level {
            _ if !writer.has_ansi_escapes() => ("", ""),
            Level::ERROR => ("\x1b[31m", "\x1b[0m"),
            Level::WARN => ("\x1b[33m", "\x1b[0m"),
            _ => ("", ""),
        };
        write!(
            writer,
            " {colour}{level:>5}{plain} {}[{}]: ",
            self.role,
            std::process::id()
        )?;
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        // One event is one line, whatever a panic or a client has put into it.
        for (index, line) in text.lines().enumerate() {
            let separator = if index > 0 { "\\n" } else { "" };
            write!(writer, "{separator}{line}")?;
        }
        writer.write_char('\n')
    }
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert!(check_filter("info").is_ok());
        assert!(check_filter("warn,gannet=debug").is_ok());
        let error = check_filter("a=b=c").unwrap_err();
        assert!(
            error.is_usage() && error.to_string().contains("log_level"),
            "{error}"
        );
    }
}
