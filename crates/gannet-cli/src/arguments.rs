//! The command line and the variables that stand for flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gannet::{Server, Tls, cli};
use gannet_bench::Bench;
use gannet_hub::{DataDir, Settings};

use crate::cert::Cert;

/// A push and chat server.
#[derive(Debug, Parser)]
#[command(name = "gannet", bin_name = "gannet", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) serve: Serve,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "start")]
    Serve(cli::Start),
    #[command(flatten)]
    Running(cli::Command),
    Cert(Cert),
    Bench(Box<Bench>),
}

/// How the server runs, and where to find it.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Directory with all that the server keeps; made if it is not there
    #[arg(
        long,
        global = true,
        env = "GANNET_DATA",
        value_name = "DIR",
        default_value = "gannet-data"
    )]
    data: PathBuf,

    /// Address to listen on; 0.0.0.0:9500 lets other machines in
    #[arg(
        long,
        global = true,
        env = "GANNET_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9500"
    )]
    listen: String,

    /// Speak TLS (https, wss) with this certificate, in PEM; `gannet cert` makes one
    #[arg(long, global = true, env = "GANNET_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Private key of that certificate
    #[arg(long, global = true, env = "GANNET_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Let in only clients whose certificate is from an authority in this file
    #[arg(long, global = true, env = "GANNET_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    /// Lists of revoked client certificates
    #[arg(
        long,
        global = true,
        env = "GANNET_TLS_CLIENT_CRL",
        value_name = "FILE"
    )]
    tls_client_crl: Option<PathBuf>,

    /// Worker processes [default: the number of processors]
    #[arg(long, global = true, env = "GANNET_WORKERS", value_name = "N")]
    workers: Option<usize>,

    /// The pid file; the control socket is beside it [default: gannet.pid in the data directory]
    #[arg(long, global = true, env = "GANNET_PID_FILE", value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Messages kept of each channel
    #[arg(
        long,
        global = true,
        env = "GANNET_HISTORY",
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000)
    )]
    history: u64,

    /// Origin of a site whose pages may connect too, such as `https://shop.example`; may be repeated
    #[arg(
        long = "allow-origin",
        global = true,
        env = "GANNET_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    origins: Vec<String>,

    /// Compress WebSocket messages of 1 KiB and more for clients that ask (permessage-deflate)
    #[arg(long, global = true, env = "GANNET_COMPRESSION")]
    compression: bool,
}

impl Arguments {
    /// Reads them. Prints the help or what is wrong and ends the process where there is reason to.
    pub(crate) fn read() -> Self {
        cli::parse("gannet")
    }
}

impl Serve {
    /// The data directory.
    pub(crate) fn data(&self) -> gannet::Result<DataDir> {
        Ok(DataDir::new(std::path::absolute(&self.data)?))
    }

    /// The hub's settings.
    pub(crate) fn hub(&self) -> gannet::Result<Settings> {
        let mut settings = Settings::new(self.data()?.path());
        settings.history = self.history;
        settings.origins.clone_from(&self.origins);
        Ok(settings)
    }

    /// TLS, if a file of it is named; what is missing is the engine's to say.
    fn tls(&self) -> Option<Tls> {
        let mut tls = Tls::default();
        tls.certificate.clone_from(&self.tls_cert);
        tls.key.clone_from(&self.tls_key);
        tls.client_ca.clone_from(&self.tls_client_ca);
        tls.client_crl.clone_from(&self.tls_client_crl);
        (tls != Tls::default()).then_some(tls)
    }

    /// The engine's settings.
    pub(crate) fn server(&self) -> gannet::Result<Server> {
        let data = self.data()?;
        let pid_file = self.pid_file.clone().unwrap_or_else(|| data.pid_file());
        let mut server = Server::websocket(&self.listen)
            .pid_file(pid_file)
            .allow_env(VARIABLES)
            .settings(|settings| {
                for listener in &mut settings.listeners {
                    listener.idle_timeout_ms = 60_000;
                    listener.max_message_size = MIB;
                    listener.compression = self.compression;
                    listener.max_body_size = MIB as u64;
                }
            });
        if let Some(tls) = self.tls() {
            server = server.tls(tls);
        }
        if let Some(workers) = self.workers {
            server = server.workers(workers);
        }
        Ok(server)
    }
}

/// The variables above: not for the engine to take.
const VARIABLES: [&str; 11] = [
    "GANNET_DATA",
    "GANNET_LISTEN",
    "GANNET_TLS_CERT",
    "GANNET_TLS_KEY",
    "GANNET_TLS_CLIENT_CA",
    "GANNET_TLS_CLIENT_CRL",
    "GANNET_WORKERS",
    "GANNET_PID_FILE",
    "GANNET_HISTORY",
    "GANNET_ALLOW_ORIGIN",
    "GANNET_COMPRESSION",
];

const MIB: usize = 1 << 20;

const EXAMPLES: &str = "Examples:
  gannet                                  serve on http://127.0.0.1:9500/, keep data in gannet-data
  gannet --data /srv/chat --listen 0.0.0.0:9500
  gannet --listen 0.0.0.0:9500 --tls-cert certs/server.pem --tls-key certs/server.key
  gannet --data /srv/chat reload
  gannet --data /srv/chat status --json

Settings of the engine can be given as variables as well, such as GANNET_REACTORS=2.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let arguments = Arguments::parse_from(["gannet"]);
        assert!(arguments.command.is_none());
        assert_eq!(arguments.serve.history, 1000);
        let arguments = Arguments::parse_from(["gannet", "status", "--json", "--data", "x"]);
        assert!(matches!(
            arguments.command,
            Some(Command::Running(cli::Command::Status(status))) if status.json
        ));
        assert_eq!(arguments.serve.data, PathBuf::from("x"));
        assert!(Arguments::try_parse_from(["gannet", "--history", "0"]).is_err());
    }

    #[test]
    fn every_variable_is_kept_from_the_engine() {
        let command = Arguments::command();
        let variables: Vec<_> = command
            .get_arguments()
            .filter_map(|argument| argument.get_env()?.to_str())
            .collect();
        assert_eq!(variables, VARIABLES);
    }
}
