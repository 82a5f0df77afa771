//! The command line that [`Server::run`](crate::Server::run) gives to a program.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use super::{Command, Start};
use crate::{Error, Result, settings::Flags};

/// What the command line says.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Wanted>,

    #[command(flatten)]
    flags: Flags,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum Wanted {
    Start(Start),
    #[command(flatten)]
    Running(Command),
}

impl Arguments {
    /// Reads the arguments behind the program's name. Prints the help and exits if that is wanted.
    pub(crate) fn parse(name: &str, arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let examples = format!(
            "Examples:\n  \
             {name} --listen 127.0.0.1:9501 --workers 4\n  \
             {name} reload\n  \
             {name} status --json\n  \
             {name} stop\n\n\
             Settings come from the flags, then environment variables such as GANNET_WORKERS=4, \
             then the\nfile given with --config, then the program."
        );
        let command = super::named(<Self as CommandFactory>::command(), name)
            .name(name.to_owned())
            .bin_name(name)
            .no_binary_name(true)
            .about(format!("{name}, a server made with Gannet"))
            .after_help(examples);
        let parsed = super::tidy(command).try_get_matches_from(arguments);
        match parsed.and_then(|matches| Self::from_arg_matches(&matches)) {
            Ok(arguments) => Ok(arguments),
            Err(error) if error.kind() == ErrorKind::DisplayHelp => error.exit(),
            Err(error) => Err(Error::usage(one_line(&error.to_string()))),
        }
    }

    /// The command, and the flags that were given with it.
    pub(crate) fn into_parts(self) -> (Wanted, Flags) {
        let wanted = self.command.unwrap_or(Wanted::Start(Start::default()));
        (wanted, self.flags)
    }
}

/// clap's error without its usage: `unexpected argument '--wrokers' found (a similar argument
/// exists: '--workers')`.
fn one_line(error: &str) -> String {
    let lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut lines = lines.peekable();
    let first = lines.next().unwrap_or_default();
    let mut what = first.trim_start_matches("error: ").to_owned();
    // "... were not provided:" stands above a list.
    let is_listed = |line: &&str| !line.starts_with("Usage: ") && !line.starts_with("tip: ");
    while let Some(item) = lines.next_if(|line| first.ends_with(':') && is_listed(line)) {
        what = format!("{what} {item}");
    }
    let hint = lines
        .find_map(|line| line.strip_prefix("tip: "))
        .map_or_else(|| "see --help".to_owned(), str::to_owned);
    format!("{what} ({hint})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Reload;

    fn parse(line: &str) -> Result<Arguments> {
        Arguments::parse("echo", line.split_whitespace().map(OsString::from))
    }

    fn wanted(line: &str) -> Wanted {
        parse(line).unwrap().into_parts().0
    }

    #[test]
    fn the_definition_is_sound() {
        <Arguments as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn commands_default_to_start_and_take_flags_on_both_sides() {
        for line in ["", "--workers 2", "start --workers 2", "--workers 2 start"] {
            assert!(matches!(wanted(line), Wanted::Start(_)), "{line}");
        }
        for line in ["--pid-file x stop", "stop --pid-file x"] {
            assert!(
                matches!(wanted(line), Wanted::Running(Command::Stop(_))),
                "{line}"
            );
        }
        let reload = |tasks| {
            Wanted::Running(Command::Reload(Reload {
                tasks,
                ..Reload::default()
            }))
        };
        assert_eq!(wanted("reload"), reload(false));
        assert_eq!(wanted("reload --tasks"), reload(true));
    }

    #[test]
    fn help_of_a_command_shows_the_flags_that_matter_to_it() {
        let command = super::super::named(<Arguments as CommandFactory>::command(), "echo");
        let command = super::super::tidy(command);
        let help = |name: &str| {
            let mut command = command.find_subcommand(name).unwrap().clone();
            command.render_help().to_string()
        };
        let (stop, start) = (help("stop"), help("start"));
        assert!(
            stop.contains("--pid-file") && !stop.contains("--workers"),
            "{stop}"
        );
        assert!(
            start.contains("--pid-file") && start.contains("--workers"),
            "{start}"
        );
    }

    #[test]
    fn errors_are_one_line_with_a_hint() {
        for (line, says) in [
            ("--wrokers 2", "'--workers'"),
            ("restart", "'start'"),
            ("--workers", "see --help"),
            ("stop now", "see --help"),
            ("kick --all --reason bye", "not provided: --code <CODE> "),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.is_usage());
            let text = error.to_string();
            assert!(
                text.contains(says) && !text.contains('\n'),
                "{line}: {text}"
            );
        }
    }
}
