//! The command line that every server has.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{Error, Result, settings::Flags};

/// What the command line says.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Run the server in the foreground (this is what happens without a command)
    Start,
    /// Stop the running server gracefully, and wait until it has ended
    Stop,
    /// Replace the workers by new processes of the program on disk; no connection drops
    Reload {
        /// Replace task workers only
        #[arg(long)]
        tasks: bool,
    },
    /// Show the state of the running server
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the connections of the running server
    Clients {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
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
        let command = <Self as CommandFactory>::command()
            .name(name.to_owned())
            .bin_name(name)
            .no_binary_name(true)
            .about(format!("{name}, a server made with Gannet"))
            .after_help(examples);
        let parsed = command.try_get_matches_from(arguments);
        match parsed.and_then(|matches| Self::from_arg_matches(&matches)) {
            Ok(arguments) => Ok(arguments),
            Err(error) if error.kind() == ErrorKind::DisplayHelp => error.exit(),
            Err(error) => Err(Error::usage(one_line(&error.to_string()))),
        }
    }

    pub(crate) fn wanted(&self) -> Command {
        self.command.unwrap_or(Command::Start)
    }
}

/// clap's error without its usage: `unexpected argument '--wrokers' found (a similar argument
/// exists: '--workers')`.
fn one_line(error: &str) -> String {
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    let hint = lines
        .find_map(|line| line.strip_prefix("tip: "))
        .map_or_else(|| "see --help".to_owned(), str::to_owned);
    format!("{what} ({hint})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        Arguments::parse("echo", line.split_whitespace().map(OsString::from))
    }

    fn command(line: &str) -> Command {
        parse(line).unwrap().wanted()
    }

    #[test]
    fn the_definition_is_sound() {
        <Arguments as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn commands_default_to_start_and_take_flags_on_both_sides() {
        assert_eq!(command(""), Command::Start);
        assert_eq!(command("--workers 2"), Command::Start);
        assert_eq!(command("start --workers 2"), Command::Start);
        assert_eq!(command("--pid-file x stop"), Command::Stop);
        assert_eq!(command("stop --pid-file x"), Command::Stop);
        assert_eq!(command("reload"), Command::Reload { tasks: false });
        assert_eq!(command("reload --tasks"), Command::Reload { tasks: true });
        assert_eq!(command("status --json"), Command::Status { json: true });
        assert_eq!(command("clients"), Command::Clients { json: false });
    }

    #[test]
    fn errors_are_one_line_with_a_hint() {
        for (line, says) in [
            ("--wrokers 2", "'--workers'"),
            ("restart", "'start'"),
            ("--workers", "see --help"),
            ("stop now", "see --help"),
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
