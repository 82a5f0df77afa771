//! uWebSockets: a program made of `peers/uws/server.cpp`, given by path.

use anyhow::{Context, Result};

use super::{Launch, Peer, Place};
use crate::{scenario::Scenario, tools::Tools};

#[derive(Debug)]
pub(crate) struct Uws;

impl Peer for Uws {
    fn name(&self) -> &'static str {
        "uws"
    }

    fn title(&self) -> &'static str {
        "uWebSockets"
    }

    fn can(&self, scenario: Scenario) -> bool {
        matches!(
            scenario,
            Scenario::Http
                | Scenario::Websocket
                | Scenario::HttpDepth16
                | Scenario::Broadcast
                | Scenario::Idle
        )
    }

    fn prepare(&self, _scenarios: &[Scenario], tools: &Tools) -> Result<String> {
        program(tools)?;
        // The library does not say its version.
        Ok("uWebSockets, built from its public source".to_owned())
    }

    fn launch(&self, _scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch> {
        Ok(Launch::new(program(tools)?, [place.port.to_string()]))
    }

    fn path(&self, scenario: Scenario) -> &'static str {
        match scenario {
            Scenario::Broadcast => "/all",
            _ => "/",
        }
    }
}

fn program(tools: &Tools) -> Result<std::path::PathBuf> {
    let path = tools.options.uws.as_ref();
    let path = path.context(
        "no registry has it: build peers/uws/server.cpp with its public source, and give --uws PROGRAM",
    )?;
    path.canonicalize()
        .with_context(|| format!("{}", path.display()))
}
