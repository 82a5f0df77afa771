//! Gannet itself, in both modes: its examples, with the settings they have, one reactor and one worker.
//!
//! HTTP is measured twice: by what the engine itself gives (`http`), and with an axum router on it
//! (`axum_router`), so that the price of each is seen.

use anyhow::Result;

use super::{Launch, Peer, Place};
use crate::{scenario::Scenario, tools::Tools};

#[derive(Debug)]
pub(crate) struct Gannet {
    name: &'static str,
    title: &'static str,
    mode: &'static str,
    /// Whether an axum router answers.
    axum: bool,
}

impl Gannet {
    pub(super) const PROCESS: Gannet = Gannet {
        name: "gannet",
        title: "Gannet",
        mode: "process",
        axum: false,
    };
    pub(super) const THREAD: Gannet = Gannet {
        name: "gannet-thread",
        title: "Gannet, thread mode",
        mode: "thread",
        axum: false,
    };
    pub(super) const AXUM: Gannet = Gannet {
        name: "gannet-axum",
        title: "Gannet with axum",
        mode: "process",
        axum: true,
    };
    pub(super) const AXUM_THREAD: Gannet = Gannet {
        name: "gannet-axum-thread",
        title: "Gannet with axum, thread mode",
        mode: "thread",
        axum: true,
    };

    fn example(&self, scenario: Scenario) -> &'static str {
        match scenario {
            Scenario::Http | Scenario::HttpDepth16 if self.axum => "axum_router",
            Scenario::Http | Scenario::HttpDepth16 => "http",
            Scenario::Websocket | Scenario::Idle => "wsecho",
            Scenario::Broadcast => "broadcast",
            Scenario::Tasks => "taskecho",
            _ => "echo",
        }
    }
}

impl Peer for Gannet {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn can(&self, scenario: Scenario) -> bool {
        let is_http = matches!(scenario, Scenario::Http | Scenario::HttpDepth16);
        // A thread is neither reloaded nor killed.
        (is_http || !self.axum) && (scenario.disturbance().is_none() || self.mode == "process")
    }

    fn is_control(&self, scenario: Scenario) -> bool {
        scenario.disturbance().is_some() && self.can(scenario)
    }

    fn examples(&self, scenarios: &[Scenario]) -> Vec<&'static str> {
        let examples = scenarios.iter();
        examples.map(|&scenario| self.example(scenario)).collect()
    }

    fn prepare(&self, _scenarios: &[Scenario], tools: &Tools) -> Result<String> {
        tools.version()
    }

    fn launch(&self, scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch> {
        let mut settings = toml::Table::new();
        settings.insert("mode".to_owned(), self.mode.into());
        settings.insert("workers".to_owned(), 1.into());
        settings.insert("reactors".to_owned(), 1.into());
        if scenario == Scenario::Tasks {
            settings.insert("task_workers".to_owned(), 2.into());
        }
        let mut listener = toml::Table::new();
        listener.insert("protocol".to_owned(), protocol(scenario).into());
        listener.insert(
            "address".to_owned(),
            format!("127.0.0.1:{}", place.port).into(),
        );
        if scenario.is_tls() {
            let mut tls = toml::Table::new();
            let keys = tools.keys();
            tls.insert("certificate".to_owned(), keys.certificate()?.into());
            tls.insert("key".to_owned(), keys.key()?.into());
            // How many handshakes there are is what is measured; the default protects against that.
            tls.insert("max_handshakes_per_s".to_owned(), 1_000_000.into());
            listener.insert("tls".to_owned(), tls.into());
        }
        settings.insert("listeners".to_owned(), vec![listener].into());
        let file = place.home.join("settings.toml");
        std::fs::write(&file, settings.to_string())?;
        let pid_file = place.home.join("server.pid");
        Ok(Launch::new(
            tools.example(self.example(scenario))?,
            [
                "start".as_ref(),
                "--config".as_ref(),
                file.as_os_str(),
                "--pid-file".as_ref(),
                pid_file.as_os_str(),
            ],
        ))
    }
}

fn protocol(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Http | Scenario::HttpDepth16 => "http",
        Scenario::Websocket | Scenario::Idle | Scenario::Broadcast => "websocket",
        _ => "tcp",
    }
}
