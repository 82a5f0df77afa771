//! Servers written in PHP: Swoole in both of its modes, and Workerman.

use anyhow::{Context, Result, bail};

use super::{Launch, Peer, Place, output};
use crate::{scenario::Scenario, tools::Tools};

/// Swoole, whose extension is given by path or loaded by PHP itself.
#[derive(Debug)]
pub(crate) struct Swoole {
    name: &'static str,
    title: &'static str,
    mode: &'static str,
}

impl Swoole {
    pub(super) const PROCESS: Swoole = Swoole {
        name: "swoole-process",
        title: "Swoole PROCESS",
        mode: "process",
    };
    pub(super) const BASE: Swoole = Swoole {
        name: "swoole-base",
        title: "Swoole BASE",
        mode: "base",
    };
}

impl Peer for Swoole {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn can(&self, scenario: Scenario) -> bool {
        match scenario {
            // In the other mode the workers have the connections, which go with them.
            Scenario::Reload | Scenario::Kill => self.mode == "process",
            _ => true,
        }
    }

    fn is_control(&self, scenario: Scenario) -> bool {
        scenario.disturbance().is_some() && self.can(scenario)
    }

    fn prepare(&self, scenarios: &[Scenario], tools: &Tools) -> Result<String> {
        let php = php(tools)?;
        let mut arguments = extension(tools)?;
        arguments.extend(["--ri".to_owned(), "swoole".to_owned()]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let about = output(&tools.options.php, &arguments).with_context(|| {
            "PHP has no Swoole: Debian has no current one; build the extension from its public source and \
             give --swoole-so PATH"
        })?;
        let value = |name| {
            let mut lines = about.lines().filter_map(|line| line.split_once(" => "));
            lines
                .find(|(field, _)| *field == name)
                .map(|(_, value)| value)
        };
        if scenarios.iter().any(|scenario| scenario.is_tls()) && value("openssl").is_none() {
            eprintln!("this Swoole is built without OpenSSL: no figures of it over TLS");
        }
        let version = value("Version").context("Swoole does not say its version")?;
        Ok(format!("Swoole {version}, {php}"))
    }

    fn launch(&self, scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch> {
        let mut arguments = extension(tools)?;
        arguments.extend(tuning());
        arguments.push(tools.peer("swoole/server.php")?);
        let what = match scenario {
            Scenario::Http | Scenario::HttpDepth16 => "http",
            Scenario::Websocket | Scenario::Idle => "websocket",
            Scenario::Broadcast => "broadcast",
            Scenario::Tasks => "tasks",
            _ => "tcp",
        };
        arguments.extend([what, self.mode].map(str::to_owned));
        arguments.push(place.port.to_string());
        if scenario.is_tls() {
            arguments.extend([tools.keys().certificate()?, tools.keys().key()?]);
        }
        Ok(Launch::new(&tools.options.php, arguments))
    }
}

/// Workerman, with one worker.
#[derive(Debug)]
pub(crate) struct Workerman;

impl Peer for Workerman {
    fn name(&self) -> &'static str {
        "workerman"
    }

    fn title(&self) -> &'static str {
        "Workerman"
    }

    fn can(&self, scenario: Scenario) -> bool {
        matches!(
            scenario,
            Scenario::Tcp
                | Scenario::Http
                | Scenario::Websocket
                | Scenario::TcpDepth16
                | Scenario::HttpDepth16
        )
    }

    fn prepare(&self, _scenarios: &[Scenario], tools: &Tools) -> Result<String> {
        let php = php(tools)?;
        let path = workerman(tools)?;
        let places = [
            "src/Worker.php",
            "vendor/workerman/workerman/src/Worker.php",
        ];
        let mut places = places
            .iter()
            .map(|place| std::path::Path::new(&path).join(place));
        let Some(text) = places.find_map(|place| std::fs::read_to_string(place).ok()) else {
            bail!("{path} has neither Workerman's sources nor a vendor/ with them");
        };
        let version = text
            .split_once("VERSION = '")
            .and_then(|(_, rest)| rest.split_once('\''))
            .map_or("of an unknown version", |(version, _)| version);
        let events = match output(&tools.options.php, &["-m"])? {
            modules if modules.lines().any(|line| line == "event") => "event",
            _ => "select",
        };
        Ok(format!("Workerman {version} (event loop: {events}), {php}"))
    }

    fn launch(&self, scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch> {
        let mut arguments = tuning();
        arguments.push(tools.peer("workerman/server.php")?);
        let what = match scenario {
            Scenario::Http | Scenario::HttpDepth16 => "http",
            Scenario::Websocket => "websocket",
            _ => "tcp",
        };
        arguments.extend(["start", what].map(str::to_owned));
        arguments.extend([place.port.to_string(), workerman(tools)?]);
        Ok(Launch::new(&tools.options.php, arguments))
    }
}

fn workerman(tools: &Tools) -> Result<String> {
    let path = tools.options.workerman.as_ref();
    let path = path.context("it is not looked for: --workerman PATH says where its sources are")?;
    let path = path
        .canonicalize()
        .with_context(|| format!("{}", path.display()))?;
    path.into_os_string()
        .into_string()
        .ok()
        .context("a path that is not text")
}

/// PHP's version; installs it if it is not there.
fn php(tools: &Tools) -> Result<String> {
    tools.install(&tools.options.php, &["php-cli"])?;
    let version = output(&tools.options.php, &["-r", "echo PHP_VERSION;"])?;
    Ok(format!("PHP {version}"))
}

/// The flags of PHP that load Swoole, if it does not do so by itself.
fn extension(tools: &Tools) -> Result<Vec<String>> {
    let Some(path) = &tools.options.swoole_so else {
        return Ok(Vec::new());
    };
    let path = path
        .canonicalize()
        .with_context(|| format!("{}", path.display()))?;
    Ok(vec![
        "-d".to_owned(),
        format!("extension={}", path.display()),
    ])
}

/// What makes PHP fast: compiled once, and to machine code.
fn tuning() -> Vec<String> {
    [
        "opcache.enable_cli=1",
        "opcache.jit=tracing",
        "opcache.jit_buffer_size=64M",
        "memory_limit=-1",
    ]
    .iter()
    .flat_map(|setting| ["-d".to_owned(), (*setting).to_owned()])
    .collect()
}
