//! The servers that are measured: what each can do, and how it is started.
//!
//! A server is one process (and what it starts) that listens on a port of 127.0.0.1 as it is told. How
//! it is pinned, awaited and ended is the same for all, and not known here.

mod gannet;
mod nginx;
mod node;
mod php;
mod rust;
mod uws;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{scenario::Scenario, tools::Tools};

/// One server, in one way of running it.
pub(crate) trait Peer {
    /// As it is written on the command line and in results.
    fn name(&self) -> &'static str;

    fn title(&self) -> &'static str;

    /// Whether it can do this at all.
    fn can(&self, scenario: Scenario) -> bool;

    /// Whether it is also measured without what happens to the others in this scenario.
    fn is_control(&self, _scenario: Scenario) -> bool {
        false
    }

    /// The examples of Gannet that it needs, which are built before all else.
    fn examples(&self, _scenarios: &[Scenario]) -> Vec<&'static str> {
        Vec::new()
    }

    /// Installs or builds what else these scenarios need, and says which version it is. The error says why
    /// the server is not measured.
    fn prepare(&self, scenarios: &[Scenario], tools: &Tools) -> Result<String>;

    /// How it is started.
    fn launch(&self, scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch>;

    /// The path that HTTP requests and WebSocket handshakes ask for.
    fn path(&self, _scenario: Scenario) -> &'static str {
        "/"
    }
}

/// Where a server is to run.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Its working directory, empty, for whatever files it wants.
    pub(crate) home: &'a Path,
    pub(crate) port: u16,
}

/// A program and what it is given.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Launch {
    fn new<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Launch {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }
}

/// All of them, in the order of the tables.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(gannet::Gannet::PROCESS),
        Box::new(gannet::Gannet::THREAD),
        Box::new(gannet::Gannet::AXUM),
        Box::new(gannet::Gannet::AXUM_THREAD),
        Box::new(php::Swoole::PROCESS),
        Box::new(php::Swoole::BASE),
        Box::new(php::Workerman),
        Box::new(uws::Uws),
        Box::new(rust::FASTWEBSOCKETS),
        Box::new(rust::NTEX),
        Box::new(rust::AXUM),
        Box::new(node::NodeWs),
        Box::new(nginx::Nginx),
        Box::new(rust::TOKIO),
        Box::new(rust::EPOLL),
    ]
}

/// What a program prints, on standard output or error, without white space around it.
fn output(program: impl AsRef<Path>, arguments: &[&str]) -> Result<String> {
    let program = program.as_ref();
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if !output.status.success() {
        bail!("{} ends with {}: {text}", program.display(), output.status);
    }
    Ok(text)
}
