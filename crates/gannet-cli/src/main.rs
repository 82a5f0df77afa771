//! `gannet`: the hub as a program.
//!
//!     gannet                  serve: http://127.0.0.1:9500/, data in ./gannet-data
//!     gannet status           and: stop, reload, clients, --help
//!     gannet cert             certificates for TLS: an authority, servers, clients
//!
//! `arguments` is the command line; `serve` runs the hub and says where it is; `steer` is everything
//! that is asked of a running one, through its control socket. What is served is `gannet_hub`'s, how
//! it runs is `gannet`'s. docs/hub.md is the manual.
#![forbid(unsafe_code)]

use std::process::ExitCode;

mod arguments;
mod cert;
mod serve;
mod steer;

use arguments::{Arguments, Command};

// In every process of the server this runs up to `serve`, which makes of it what it is to be.
fn main() -> ExitCode {
    let Arguments { command, serve } = Arguments::read();
    let outcome = match command {
        None | Some(Command::Serve) => serve::run(serve),
        Some(Command::Stop) => steer::stop(&serve),
        Some(Command::Reload) => steer::reload(&serve),
        Some(Command::Status { json }) => steer::status(&serve, json),
        Some(Command::Clients { json }) => steer::clients(&serve, json),
        Some(Command::Cert(cert)) => cert::run(&cert),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}
