//! The command line of servers: one definition for all programs.
//!
//! [`Server::run`](crate::Server::run) is a whole command line made of this. A program that has one
//! of its own, made with clap 4, takes in the commands for a running server:
//!
//! ```no_run
//! use clap::Parser;
//! use gannet::{Server, cli};
//!
//! #[derive(Parser)]
//! enum Command {
//!     /// Run the server
//!     Serve(cli::Start),
//!     #[command(flatten)]
//!     Running(cli::Command),
//! }
//!
//! # use gannet::{Bytes, Conn, Handler, Worker};
//! # struct Echo;
//! # impl Handler for Echo {
//! #     async fn start(_: &Worker) -> gannet::Result<Self> { Ok(Echo) }
//! #     async fn receive(&self, conn: Conn, data: Bytes) -> gannet::Result { conn.send(data).await }
//! # }
//! fn main() -> gannet::Result {
//!     let server = Server::tcp("127.0.0.1:9501");
//!     match cli::parse("echo") {
//!         Command::Serve(start) => start.apply(server).serve::<Echo>(),
//!         Command::Running(command) => command.run(&server),
//!     }
//! }
//! ```
//!
//! Each command is a file here, a struct with its arguments and a `run`. A new one for a running
//! server, or one that looks at the settings only, becomes a variant of [`Command`], and every program
//! has it; what belongs to the start goes to [`Start`]. In `after_help` of a command, `{name}` stands
//! for the program and `{command}` for the command.

mod arguments;
mod check;
mod clients;
mod kick;
mod publish;
mod reload;
mod send;
mod settings;
mod start;
mod status;
mod stop;
mod terminal;
mod top;
mod whom;

use std::{
    io::{self, Write},
    ops::RangeInclusive,
    time::Duration,
};

use clap::{Parser, Subcommand};

pub(crate) use self::arguments::{Arguments, Wanted};
pub use self::{
    check::Check,
    clients::Clients,
    kick::Kick,
    publish::Publish,
    reload::Reload,
    send::Send,
    settings::Settings,
    start::Start,
    status::Status,
    stop::Stop,
    top::{Sort, Top},
    whom::{What, Whom},
};
use crate::{Error, Result, Server, control::ControlError};

/// What can be done with a server beside starting it.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "clap would show it in place of what the structs say"
)]
pub enum Command {
    Stop(Stop),
    Reload(Reload),
    Status(Status),
    Top(Top),
    Clients(Clients),
    Kick(Kick),
    Send(Send),
    Publish(Publish),
    Settings(Settings),
    Check(Check),
}

impl Command {
    /// Does it, with the running server of this program: the one with the pid file that the code, the
    /// environment and the flags say. Prints to standard output.
    pub fn run(&self, server: &Server) -> Result {
        let done = match self {
            Command::Stop(stop) => stop.run(server),
            Command::Reload(reload) => reload.run(server),
            Command::Status(status) => status.run(server),
            Command::Top(top) => top.run(server),
            Command::Clients(clients) => clients.run(server),
            Command::Kick(kick) => kick.run(server),
            Command::Send(send) => send.run(server),
            Command::Publish(publish) => publish.run(server),
            Command::Settings(settings) => settings.run(server),
            Command::Check(check) => check.run(server),
        };
        done.map_err(|error| match error.downcast_ref() {
            // What the server finds wrong with a request stood on the command line.
            Some(ControlError::Refused { code, .. }) if code == "bad_request" => {
                Error::usage(error)
            }
            _ => error,
        })
    }
}

/// Reads the arguments of the process with the program's name put into the examples. Prints the help,
/// or what is wrong, and ends the process where there is reason to.
pub fn parse<P: Parser>(name: &str) -> P {
    let command = named(P::command().name(name.to_owned()).bin_name(name), name);
    let mut matches = tidy(command).get_matches();
    match P::from_arg_matches_mut(&mut matches) {
        Ok(parsed) => parsed,
        Err(error) => error.format(&mut P::command()).exit(),
    }
}

/// Prints a line on standard output. That nobody reads it is no error.
pub fn print(text: &str) -> Result {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A duration as people write it: `90`, `0.5`.
fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| SECONDS.contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            let (least, most) = (SECONDS.start(), SECONDS.end());
            format!("it is a number of seconds from {least} to {most}, such as 90 or 0.5")
        })
}

/// `command`, with `{name}` and `{command}` in the texts behind the help replaced.
fn named(mut command: clap::Command, name: &str) -> clap::Command {
    if let Some(after) = command.get_after_help() {
        let after = after.to_string().replace("{name}", name);
        let after = after.replace("{command}", command.get_name());
        command = command.after_help(after);
    }
    command.mut_subcommands(|command| named(command, name))
}

/// `command`, where commands that only look for a running server show no flags in their help but
/// those by which it is found. All are taken everywhere.
fn tidy(mut command: clap::Command) -> clap::Command {
    // Hands the flags on to the commands.
    command.build();
    command.mut_subcommands(|command| match command.get_name() {
        name if PLANNERS.contains(&name) => command,
        name if STRANGERS.contains(&name) => hide_flags(command, &[]),
        _ => hide_flags(command, &FINDERS),
    })
}

/// Leaves the flags of the program out of the help of a command and of those below it, but for `shown`.
fn hide_flags(command: clap::Command, shown: &[&str]) -> clap::Command {
    command
        .mut_args(|arg| {
            let hidden = arg.is_global_set() && !shown.contains(&arg.get_id().as_str());
            match hidden {
                true => arg.hide(true),
                false => arg,
            }
        })
        .mut_subcommands(|command| hide_flags(command, shown))
}

/// What a duration may be: not so short that a server is kept busy by questions, and no longer than
/// the clock can count on.
const SECONDS: RangeInclusive<f64> = 0.01..=100_000_000.0;
/// The commands to which settings matter.
const PLANNERS: [&str; 4] = ["start", "serve", "settings", "check"];
/// The commands that have nothing to do with a server of this program.
const STRANGERS: [&str; 1] = ["bench"];
/// The flags by which a running server is found.
const FINDERS: [&str; 3] = ["pid_file", "config", "data"];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Parser)]
    #[command(disable_help_subcommand = true)]
    enum Program {
        Start(Start),
        #[command(flatten)]
        Command(Command),
    }

    #[test]
    fn durations_are_seconds_that_a_clock_can_count_on() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("90"), Ok(Duration::from_secs(90)));
        for wrong in ["", "0", "-1", "1e-9", "1e19", "inf", "NaN", "90s"] {
            let why = seconds(wrong).unwrap_err();
            assert!(why.contains("from 0.01 to 100000000"), "{wrong}: {why}");
        }
    }

    #[test]
    fn every_command_says_what_it_does_and_has_an_example() {
        let program = tidy(named(Program::command(), "echo"));
        for mut command in program.get_subcommands().cloned() {
            let help = command.render_help().to_string();
            let name = command.get_name().to_owned();
            assert!(command.get_about().is_some(), "{name} says nothing");
            assert!(help.contains("Example"), "{name} has no example:\n{help}");
            assert!(
                help.contains(&format!("\n  echo {name}")) && !help.contains("{name}"),
                "{name}:\n{help}"
            );
        }
    }
}
