//! Settings of the log.

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::{Error, Result};

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogFormat {
    /// Text if the log goes to a terminal, else JSON.
    Auto,
    /// For people: `2026-11-21T02:58:01.197211Z  INFO worker 3[4711]: ready`.
    Text,
    /// For machines: one object a line.
    Json,
}

/// How often a new log file is begun, by the clock (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogRotation {
    /// Not by time.
    Never,
    /// Every minute.
    Minute,
    /// Every hour.
    Hour,
    /// At midnight.
    Day,
    /// On the first day of a month.
    Month,
}

/// Whether what the server's processes write to standard output and standard error becomes lines of
/// the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CaptureOutput {
    /// If there is a `log_file`, or standard error is no terminal.
    Auto,
    /// Always.
    On,
    /// Never: they have the standard output and standard error of the manager.
    Off,
}

/// Refuses settings of the log that cannot work, and makes the file's path one that does not depend
/// on the working directory.
pub(super) fn check(settings: &mut Settings) -> Result {
    crate::logging::check_filter("log_level", &settings.log_level)?;
    crate::logging::check_filter("trace_level", &settings.trace_level)?;
    let Some(path) = &settings.log_file else {
        let rotates =
            settings.log_rotate_size > 0 || settings.log_rotate_every != LogRotation::Never;
        return match rotates {
            false => Ok(()),
            true => Err(Error::usage(
                "`log_rotate_size` and `log_rotate_every` mean nothing without `log_file`: set it, \
                 or remove them",
            )),
        };
    };
    let size = settings.log_rotate_size;
    if (1..SMALLEST).contains(&size) {
        return Err(Error::usage(format!(
            "`log_rotate_size` = {size}: must be 0 (no limit) or at least {SMALLEST}"
        )));
    }
    let absolute = std::path::absolute(path);
    settings.log_file =
        Some(absolute.map_err(|error| {
            Error::usage(format!("`log_file` = {:?}: {error}", path.display()))
        })?);
    Ok(())
}

/// A smaller file would be changed with every few lines.
const SMALLEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_needs_a_file_and_its_path_is_that_of_the_start() {
        let mut settings = Settings {
            log_rotate_every: LogRotation::Day,
            ..Settings::default()
        };
        let error = check(&mut settings).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("`log_file`"));
        settings.log_file = Some("log/echo.log".into());
        check(&mut settings).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(settings.log_file, Some(here.join("log/echo.log")));
    }
}
