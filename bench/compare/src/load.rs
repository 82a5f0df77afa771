//! The load generator, for one server and one scenario.

use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    scenario::{Disturbance, Scenario},
    server::Server,
    tools::Tools,
};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) length: Duration,
    pub(crate) warm_up: Duration,
    /// Of idle WebSockets.
    pub(crate) idle: usize,
}

impl Amount {
    /// Just enough to see that a server answers as it should.
    pub(crate) fn to_verify() -> Self {
        Amount {
            length: Duration::from_millis(100),
            warm_up: Duration::ZERO,
            idle: 10,
        }
    }

    /// Long enough for several reloads or kills, and for what they lose to be missed.
    fn of(self, scenario: Scenario) -> Self {
        let least = match scenario.disturbance() {
            Some(_) => 6 * DISTURBANCES,
            None => Duration::ZERO,
        };
        Amount {
            length: self.length.max(least),
            ..self
        }
    }
}

/// Runs the generator, which checks each answer, and returns its report. Meanwhile, `disturbance` happens.
pub(crate) fn run(
    server: &Server,
    path: &str,
    scenario: Scenario,
    disturbance: Option<Disturbance>,
    amount: Amount,
    tools: &Tools,
) -> Result<Value> {
    let amount = amount.of(scenario);
    let mut command = Command::new(tools.generator());
    command
        .args(arguments(server, path, scenario, amount, tools)?)
        .args(["--server-pid", &server.pid().to_string(), "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut generator = command.spawn().context("start the load generator")?;
    // What it prints fits into a pipe.
    let begin = Instant::now();
    let mut next = begin + amount.warm_up + DISTURBANCES;
    let status = loop {
        if let Some(status) = generator.try_wait()? {
            break status;
        }
        if begin.elapsed() > amount.warm_up + amount.length + PATIENCE {
            generator.kill()?;
            generator.wait()?;
            bail!("the load generator does not end: {command:?}");
        }
        if let Some(disturbance) = disturbance
            && Instant::now() > next
        {
            server.disturb(disturbance)?;
            next += DISTURBANCES;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        match pipe {
            Some(pipe) => pipe.read_to_string(&mut text).map(|_| text),
            None => Ok(text),
        }
    };
    let report = text(generator.stdout.as_mut().map(|pipe| pipe as &mut dyn Read))?;
    let errors = text(generator.stderr.as_mut().map(|pipe| pipe as &mut dyn Read))?;
    let Ok(report) = serde_json::from_str::<Value>(&report) else {
        let last = errors.trim().lines().last();
        bail!("{}", last.unwrap_or("the load generator says nothing"));
    };
    // Who kills a server's processes wants to know what that does, not only that something is wrong.
    if !status.success() && disturbance.is_none() {
        let sample = report.pointer("/error_samples/0").and_then(Value::as_str);
        bail!("{}", sample.unwrap_or(errors.trim()));
    }
    Ok(report)
}

fn arguments(
    server: &Server,
    path: &str,
    scenario: Scenario,
    amount: Amount,
    tools: &Tools,
) -> Result<Vec<String>> {
    let address = server.address;
    let (mode, target) = match scenario {
        Scenario::Http | Scenario::HttpDepth16 => ("http", format!("http://{address}{path}")),
        Scenario::Websocket => ("ws", format!("ws://{address}{path}")),
        Scenario::Broadcast => ("broadcast", format!("ws://{address}{path}")),
        Scenario::Idle => ("idle", format!("ws://{address}{path}")),
        Scenario::TlsHandshakes => ("handshakes", format!("tls://{address}")),
        Scenario::TlsEcho => ("tcp", format!("tls://{address}")),
        _ => ("tcp", address.to_string()),
    };
    let mut all = vec![mode.to_owned(), target];
    let mut add = |name: &str, value: &dyn ToString| {
        all.extend([format!("--{name}"), value.to_string()]);
    };
    let milliseconds = |length: Duration| format!("{}ms", length.as_millis());
    if scenario == Scenario::Idle {
        add("connections", &amount.idle);
        add("warm", &if amount.idle > WARM { WARM } else { 0 });
        add("duration", &"1s");
        return Ok(all);
    }
    add("duration", &milliseconds(amount.length));
    add("warmup", &milliseconds(amount.warm_up));
    match scenario {
        Scenario::Broadcast => {
            add("subscribers", &1000);
            add("publishers", &1);
            add("depth", &16);
            add("size", &128);
        }
        Scenario::TlsHandshakes => {}
        _ => {
            add("connections", &64);
            let deep = [Scenario::TcpDepth16, Scenario::HttpDepth16].contains(&scenario);
            add("depth", &if deep { 16 } else { 1 });
            match mode {
                "http" => add("expect-body", &"Hello from Gannet\n"),
                _ => add("size", &64),
            }
        }
    }
    if scenario.disturbance().is_some() {
        add("timeout", &"1s");
    }
    if scenario.is_tls() {
        add("ca", &tools.keys().authority()?);
    }
    Ok(all)
}

/// Idle connections before those that are measured: what they touch for all the others is not theirs.
pub(crate) const WARM: usize = 2_000;
/// From one reload or kill to the next.
const DISTURBANCES: Duration = Duration::from_millis(500);
/// Beyond the length of the measurement.
const PATIENCE: Duration = Duration::from_secs(40);
