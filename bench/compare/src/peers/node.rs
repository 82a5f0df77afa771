//! The WebSocket server `ws` of Node, from npm.

use anyhow::Result;

use super::{Launch, Peer, Place, output};
use crate::{scenario::Scenario, tools::Tools};

#[derive(Debug)]
pub(crate) struct NodeWs;

impl Peer for NodeWs {
    fn name(&self) -> &'static str {
        "node-ws"
    }

    fn title(&self) -> &'static str {
        "Node ws"
    }

    fn can(&self, scenario: Scenario) -> bool {
        matches!(
            scenario,
            Scenario::Websocket | Scenario::Broadcast | Scenario::Idle
        )
    }

    fn prepare(&self, _scenarios: &[Scenario], tools: &Tools) -> Result<String> {
        tools.install("node".as_ref(), &["nodejs", "npm"])?;
        let library = tools.npm("node-ws", "ws")?;
        Ok(format!(
            "ws {library}, Node {}",
            output("node", &["--version"])?
        ))
    }

    fn launch(&self, scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch> {
        let what = match scenario {
            Scenario::Broadcast => "broadcast",
            _ => "websocket",
        };
        let program = tools.peer("node-ws/server.js")?;
        Ok(Launch::new(
            "node",
            [program, what.to_owned(), place.port.to_string()],
        ))
    }
}
