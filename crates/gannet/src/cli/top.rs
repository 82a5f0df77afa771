//! `top`.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::{
    print, seconds,
    terminal::{Happened, Terminal},
};
use crate::{
    Error, Result, Server,
    control::{Client, ControlError, ProcessTable, Status, age},
};

/// Show the processes of the running server live, like top(1)
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = HELP)]
#[non_exhaustive]
pub struct Top {
    /// Look again after so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    pub interval: Duration,

    /// What comes first
    #[arg(long, value_name = "COLUMN", default_value = "cpu")]
    pub sort: Sort,

    /// Show it once, and end
    #[arg(long)]
    pub once: bool,
}

/// By what the processes are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Sort {
    /// By the processor time that they use.
    #[default]
    Cpu,
    /// By their memory.
    Memory,
    /// By the events that they handle in a second.
    Handled,
    /// By their place: manager, master, workers, task workers, user processes.
    Place,
}

impl Top {
    pub(super) fn run(&self, server: &Server) -> Result {
        let mut client = Some(server.control()?);
        if self.once {
            let status = client.as_mut().map(Client::status_with_pss).transpose()?;
            let lines = status
                .map(|status| picture(&status, self.sort))
                .unwrap_or_default();
            return print(lines.join("\n").trim_end());
        }
        if !Terminal::is_there() {
            return Err(Error::usage(
                "top needs a terminal: use --once, or `status`, where there is none",
            ));
        }
        let (terminal, mut sort) = (Terminal::take()?, self.sort);
        let mut lines = Vec::new();
        let mut next = Instant::now();
        loop {
            if next <= Instant::now() {
                next = Instant::now() + self.interval;
                lines = match look(server, &mut client) {
                    Ok(status) => picture(&status, sort),
                    // It may be started again.
                    Err(error) => vec![format!("{error} (q quits)")],
                };
            }
            terminal.show(&lines)?;
            match terminal.wait(next)? {
                Happened::Quit | Happened::Key(b'q' | b'Q' | CTRL_C | CTRL_D) => return Ok(()),
                Happened::Key(key) => {
                    sort = match key {
                        b'c' => Sort::Cpu,
                        b'm' => Sort::Memory,
                        b'h' => Sort::Handled,
                        b'p' => Sort::Place,
                        _ => sort,
                    };
                    next = Instant::now();
                }
                Happened::Resized | Happened::Nothing => {}
            }
        }
    }
}

/// Asks the server, through a new connection if the one before has ended.
fn look(server: &Server, client: &mut Option<Client>) -> Result<Status> {
    let mut connected = match client.take() {
        Some(client) => client,
        None => server.control()?,
    };
    let status = match connected.status_with_pss() {
        Err(error) if matches!(error.downcast_ref(), Some(ControlError::Closed)) => {
            connected = server.control()?;
            connected.status_with_pss()?
        }
        status => status?,
    };
    *client = Some(connected);
    Ok(status)
}

fn picture(status: &Status, sort: Sort) -> Vec<String> {
    let totals = &status.totals;
    let mut lines = vec![
        format!(
            "{} (gannet {}), up {}, {} reloads, {} connections{}",
            status.name,
            status.version,
            age(status.uptime_ms),
            status.reloads,
            totals.connections,
            if status.stopping { ", stopping" } else { "" },
        ),
        format!("per second: {}", status.rates),
        format!(
            "tasks: {} queued   stalls: {}   parked: {}   dropped: {}   failed: {}",
            totals.tasks_queued,
            totals.stalls,
            totals.parked,
            totals.dropped,
            totals.handler_failed
        ),
        String::new(),
    ];
    let mut rows = status.processes();
    let usage = |key: fn(crate::control::Usage) -> f64| {
        move |row: &crate::control::ProcessRow<'_>| row.usage.map_or(-1.0, key)
    };
    match sort {
        Sort::Cpu => rows.sort_by(|a, b| {
            let key = usage(|usage| usage.cpu_percent);
            key(b).total_cmp(&key(a))
        }),
        Sort::Memory => rows.sort_by(|a, b| {
            let key = usage(|usage| usage.pss.unwrap_or(usage.rss) as f64);
            key(b).total_cmp(&key(a))
        }),
        Sort::Handled => rows.sort_by(|a, b| b.handled_per_s().total_cmp(&a.handled_per_s())),
        Sort::Place => {}
    }
    lines.extend(ProcessTable(rows).to_string().lines().map(str::to_owned));
    lines
}

/// As they come from a terminal that makes no signals of them.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

const HELP: &str = "\
Keys: q quits; c, m, h, p sort by processor time, memory, events handled, place.

Examples:
  {name} top
  {name} top --interval 0.5 --sort memory
  {name} top --once";
