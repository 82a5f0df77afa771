//! `gannet`: the hub as a program.
//!
//!     gannet                  serve: http://127.0.0.1:9500/, data in ./gannet-data
//!     gannet status           and: stop, reload, clients, --help
//!     gannet cert             certificates for TLS: an authority, servers, clients
//!     gannet bench            measure a server, this one or another
//!
//! `arguments` is the command line; `serve` runs the hub and says where it is. What is served is
//! `gannet_hub`'s; how it runs, and the commands for a running one, are `gannet`'s. docs/hub.md is the
//! manual.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use gannet::cli::Start;

mod arguments;
mod cert;
mod serve;

use arguments::{Arguments, Command};

// In every process of the server this runs up to `serve`, which makes of it what it is to be.
fn main() -> ExitCode {
    let Arguments { command, serve } = Arguments::read();
    let outcome = match command {
        None => serve::run(&serve, &Start::default()),
        Some(Command::Serve(start)) => serve::run(&serve, &start),
        Some(Command::Running(command)) => serve.server().and_then(|server| command.run(&server)),
        Some(Command::Cert(cert)) => cert::run(&cert),
        Some(Command::Bench(bench)) => return bench.main(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
