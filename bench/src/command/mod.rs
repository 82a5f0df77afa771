//! The command line: a file for each command.

mod broadcast;
mod http;
mod idle;
mod load;
mod storm;
mod tcp;
mod ws;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args as _, FromArgMatches as _};

use self::load::Load;
use crate::{Error, Report};

/// Measure a server with many connections.
///
/// Every answer is checked byte for byte. What each command measures, and how not to be fooled by it,
/// stands in docs/bench.md.
///
/// Exit codes: 0 if all went well, 1 if there were errors (wrong answers, lost connections), 2 if the
/// command line is wrong, 3 if nothing could be measured.
#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    Tcp(tcp::Tcp),
    Http(http::Http),
    Ws(ws::Ws),
    Connect(storm::Connect),
    Handshakes(storm::Handshakes),
    Idle(idle::Idle),
    Broadcast(broadcast::Broadcast),
}

impl Bench {
    /// From the words of a command line, without the program's name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with what is wrong with them.
    pub fn from_arguments(arguments: &[&str]) -> Result<Self, Error> {
        let command = Self::augment_args(clap::Command::new("bench").no_binary_name(true));
        let wrong = |error: clap::Error| Error::Usage(error.to_string());
        let matches = command.try_get_matches_from(arguments).map_err(wrong)?;
        Self::from_arg_matches(&matches).map_err(wrong)
    }

    /// Does it, prints the outcome on standard output and what is wrong on standard error, and says what
    /// the program is to end with.
    pub fn main(&self) -> ExitCode {
        let (outcome, json) = self.outcome();
        let report = match outcome {
            Ok(report) => report,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(error.exit_code());
            }
        };
        let text = match json {
            true => format!("{}\n", report.json()),
            false => report.to_string(),
        };
        if let Err(error) = io::stdout().write_all(text.as_bytes())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            eprintln!("error: standard output: {error}");
            return ExitCode::from(3);
        }
        match report.is_clean() {
            true => ExitCode::SUCCESS,
            false => {
                eprintln!("error: {} errors, see error_samples", report.errors);
                ExitCode::from(1)
            }
        }
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Nothing could be measured. What goes wrong while it is measured stands in the report.
    pub fn run(&self) -> Result<Report, Error> {
        self.outcome().0
    }

    /// And whether it is to be told as JSON.
    fn outcome(&self) -> (Result<Report, Error>, bool) {
        match &self.what {
            What::Tcp(tcp) => (tcp.run(), tcp.load.common.json),
            What::Http(http) => (http.run(), http.load.common.json),
            What::Ws(ws) => (ws.run(), ws.load.common.json),
            What::Connect(connect) => (connect.run(), connect.storm.common.json),
            What::Handshakes(handshakes) => (handshakes.run(), handshakes.storm.common.json),
            What::Idle(idle) => (idle.run(), idle.common.json),
            What::Broadcast(broadcast) => (broadcast.run(), broadcast.common.json),
        }
    }
}

const EXAMPLES: &str = "Examples:
  tcp 127.0.0.1:9501 --connections 64 --size 64
  http http://127.0.0.1:9505/ --duration 10s
  http https://127.0.0.1:9505/echo --size 1024 --ca certs/ca.pem
  ws ws://127.0.0.1:9504/ --rate 20000 --duration 30s
  ws ws://127.0.0.1:9504/ --server-pid $(cat gannet.pid) --json
  handshakes 127.0.0.1:9443 --ca certs/ca.pem
  idle ws://127.0.0.1:9504/ --connections 50000 --server-pid $(cat gannet.pid)
  broadcast ws://127.0.0.1:9504/ --subscribers 1000 --depth 16 --size 128";
