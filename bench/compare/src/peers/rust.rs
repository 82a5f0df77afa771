//! Servers from crates.io, in a workspace of their own: `peers/rust`.

use anyhow::{Context, Result};

use super::{Launch, Peer, Place};
use crate::{scenario::Scenario, tools::Tools};

#[derive(Debug)]
pub(crate) struct Rust {
    name: &'static str,
    title: &'static str,
    /// The package `compare-…` there.
    package: &'static str,
    /// The library whose version is told.
    library: &'static str,
    scenarios: &'static [Scenario],
    /// Where WebSockets are opened.
    websocket_path: &'static str,
}

pub(super) const EPOLL: Rust = Rust {
    name: "epoll",
    title: "epoll alone (the floor)",
    package: "epoll-echo",
    library: "rustix",
    scenarios: &[Scenario::Tcp, Scenario::TcpDepth16],
    websocket_path: "/",
};
pub(super) const TOKIO: Rust = Rust {
    name: "tokio",
    title: "tokio",
    package: "tokio-echo",
    library: "tokio",
    scenarios: &[Scenario::Tcp, Scenario::TcpDepth16],
    websocket_path: "/",
};
pub(super) const AXUM: Rust = Rust {
    name: "axum",
    title: "axum",
    package: "axum",
    library: "axum",
    scenarios: &[
        Scenario::Http,
        Scenario::Websocket,
        Scenario::HttpDepth16,
        Scenario::Idle,
    ],
    websocket_path: "/ws",
};
pub(super) const NTEX: Rust = Rust {
    name: "ntex",
    title: "ntex",
    package: "ntex",
    library: "ntex",
    scenarios: &[Scenario::Http, Scenario::HttpDepth16],
    websocket_path: "/",
};
pub(super) const FASTWEBSOCKETS: Rust = Rust {
    name: "fastwebsockets",
    title: "fastwebsockets",
    package: "fastwebsockets",
    library: "fastwebsockets",
    scenarios: &[Scenario::Websocket, Scenario::Idle],
    websocket_path: "/",
};

impl Peer for Rust {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn can(&self, scenario: Scenario) -> bool {
        self.scenarios.contains(&scenario)
    }

    /// The floor, to which nothing can happen.
    fn is_control(&self, scenario: Scenario) -> bool {
        scenario.disturbance().is_some() && self.name == EPOLL.name
    }

    fn prepare(&self, _scenarios: &[Scenario], tools: &Tools) -> Result<String> {
        tools.build_rust_peer(self.package)?;
        let lock = std::fs::read_to_string(tools.peer("rust/Cargo.lock")?)?;
        let lock: toml::Table = lock.parse()?;
        let packages = lock.get("package").and_then(toml::Value::as_array);
        let of_library = packages.into_iter().flatten().find(|package| {
            package.get("name").and_then(toml::Value::as_str) == Some(self.library)
        });
        let version = of_library
            .and_then(|package| package.get("version")?.as_str())
            .with_context(|| format!("Cargo.lock has no {}", self.library))?;
        Ok(format!("{} {version}", self.library))
    }

    fn launch(&self, _scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch> {
        Ok(Launch::new(
            tools.rust_peer(self.package),
            [place.port.to_string()],
        ))
    }

    fn path(&self, scenario: Scenario) -> &'static str {
        match scenario {
            Scenario::Websocket | Scenario::Idle => self.websocket_path,
            _ => "/",
        }
    }
}
