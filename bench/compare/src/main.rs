//! Measures Gannet side by side with other servers. See the README beside this package.

mod docs;
mod graph;
mod guard;
mod load;
mod peers;
mod processors;
mod results;
mod rounds;
mod scenario;
mod server;
mod statistics;
mod table;
mod targets;
mod tools;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    load::Amount,
    peers::Peer,
    results::{Found, PeerInfo, Results},
    rounds::{Plan, Progress},
    scenario::Scenario,
    tools::{ToolOptions, Tools},
};

/// Measures Gannet side by side with other servers.
///
/// Exit code: 0 if everything was measured, 1 if it failed, 3 if --at-most ended it before: --resume goes on.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// Only these servers
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// How often each server is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of one measurement
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// How many idle WebSockets there are; fewer if the limit of open files is lower
    #[arg(long, default_value_t = 50_000, value_name = "NUMBER")]
    idle: usize,
    /// The file of raw results; default: bench/results/DATE.json
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Go on with the file of results: measure what it lacks
    #[arg(long)]
    resume: bool,
    /// Begin no measurement that would not end within so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    at_most: Option<f64>,
    /// Measure nothing: print what the file of results has
    #[arg(long, conflicts_with_all = ["resume", "at_most"])]
    report: bool,
    /// Print which of the project's targets are met
    #[arg(long)]
    targets: bool,
    /// Put tables and graphs into this page, between its markers
    #[arg(long, value_name = "PAGE", num_args = 0..=1, default_missing_value = "docs/benchmarks.md")]
    docs: Option<PathBuf>,
    /// Print scenarios and servers, and end
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    tools: ToolOptions,
    #[command(subcommand)]
    command: Option<Hidden>,
}

#[derive(Clone, Debug, Subcommand)]
enum Hidden {
    /// Runs a server until standard input ends
    #[command(hide = true)]
    Guard {
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Hidden::Guard { command }) = &arguments.command {
        return guard::run(command);
    }
    let all = peers::all();
    if arguments.list {
        list(&all);
        return Ok(ExitCode::SUCCESS);
    }
    let tools = Tools::new(arguments.tools.clone())?;
    let path = match &arguments.results {
        Some(path) => path.clone(),
        None => {
            let today = time::OffsetDateTime::now_utc().date();
            tools.in_repository(&format!("bench/results/{today}.json"))
        }
    };
    let mut results = match arguments.report || (arguments.resume && path.exists()) {
        true => Results::read(&path)?,
        false => Results::new(arguments.seconds),
    };
    let mut progress = Progress::Whole;
    if !arguments.report {
        progress = measure(&arguments, &all, &tools, &mut results, &path)?;
    }
    print(&results, &all);
    if arguments.targets {
        let (table, count) = targets::table(&targets::all()?, &results);
        println!("Targets: {count}\n{}", table.text());
    }
    if let Some(page) = &arguments.docs {
        let page = match page.exists() {
            true => page.clone(),
            false => tools.in_repository(&page.to_string_lossy()),
        };
        docs::write(&page, &results)?;
        println!("filled in {}", page.display());
    }
    if progress == Progress::Part {
        println!("There is more to measure: the same command with --resume goes on.");
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the servers, and measures them.
fn measure(
    arguments: &Arguments,
    all: &[Box<dyn Peer>],
    tools: &Tools,
    results: &mut Results,
    path: &Path,
) -> Result<Progress> {
    let scenarios = match arguments.scenario.is_empty() {
        true => Scenario::value_variants().to_vec(),
        false => arguments.scenario.clone(),
    };
    let begin = Instant::now();
    let chosen = chosen(&arguments.only, all)?;
    if !processors::are_two() {
        eprintln!(
            "The load shares its processor with the servers: there are no two. Figures say little."
        );
    }
    if !arguments.resume && path.exists() {
        bail!(
            "{} is there already: go on with it (--resume), or name another (--results)",
            path.display()
        );
    }
    let of_peer = |peer: &dyn Peer| -> Vec<Scenario> {
        let all = scenarios.iter().copied();
        all.filter(|&one| peer.can(one) || peer.is_control(one))
            .collect()
    };
    let examples: BTreeSet<_> = chosen
        .iter()
        .flat_map(|peer| peer.examples(&of_peer(*peer)))
        .collect();
    tools
        .build(&Vec::from_iter(examples))
        .context("build the load generator and the examples")?;
    let mut ready = Vec::new();
    for peer in chosen {
        let of_peer = of_peer(peer);
        if of_peer.is_empty() {
            continue;
        }
        let found = match peer.prepare(&of_peer, tools) {
            Ok(version) => {
                ready.push(peer);
                Found::Version(version)
            }
            Err(error) => {
                eprintln!("not measured: {}: {error:#}", peer.title());
                Found::Missing(format!("{error:#}"))
            }
        };
        results.know(PeerInfo {
            name: peer.name().to_owned(),
            title: peer.title().to_owned(),
            found,
        });
    }
    let plan = Plan {
        scenarios: &scenarios,
        peers: &ready,
        rounds: arguments.rounds.into(),
        amount: Amount {
            length: Duration::from_secs_f64(arguments.seconds),
            warm_up: Duration::from_secs_f64((arguments.seconds / 4.0).min(0.5)),
            idle: idle_connections(arguments.idle)?,
        },
        deadline: arguments
            .at_most
            .map(|seconds| begin + Duration::from_secs_f64(seconds)),
    };
    let progress = rounds::run(&plan, tools, results, path)?;
    results.write(path)?;
    println!("raw results: {}\n", path.display());
    Ok(progress)
}

fn chosen<'a>(only: &[String], all: &'a [Box<dyn Peer>]) -> Result<Vec<&'a dyn Peer>> {
    let names = || all.iter().map(|peer| peer.name()).collect::<Vec<_>>();
    for name in only {
        ensure!(
            names().contains(&name.as_str()),
            "there is no server {name:?}; there are {}",
            names().join(", ")
        );
    }
    let is_chosen =
        |peer: &&dyn Peer| only.is_empty() || only.iter().any(|name| name == peer.name());
    Ok(all.iter().map(|peer| &**peer).filter(is_chosen).collect())
}

/// As many as wanted, or as both ends may have open; raises the limit as far as it goes.
fn idle_connections(wanted: usize) -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    let Some(maximum) = limit
        .maximum
        .and_then(|maximum| usize::try_from(maximum).ok())
    else {
        return Ok(wanted);
    };
    let possible = maximum.saturating_sub(SPARE + load::WARM).max(1);
    if possible < wanted {
        eprintln!(
            "{possible} idle WebSockets instead of {wanted}: the limit of open files is {maximum}"
        );
    }
    Ok(wanted.min(possible))
}

fn list(all: &[Box<dyn Peer>]) {
    println!("Scenarios:");
    for scenario in Scenario::value_variants() {
        println!("  {:15} {}", scenario.name(), scenario.explanation());
    }
    println!("\nServers:");
    for peer in all {
        let can = Scenario::value_variants()
            .iter()
            .filter(|&&scenario| peer.can(scenario));
        let can: Vec<_> = can.map(|scenario| scenario.name()).collect();
        println!("  {:15} {}: {}", peer.name(), peer.title(), can.join(", "));
    }
}

fn print(results: &Results, all: &[Box<dyn Peer>]) {
    println!("{}\n", docs::machine(results));
    for &scenario in Scenario::value_variants() {
        let Some(table) = table::scenario(results, scenario) else {
            continue;
        };
        println!(
            "{}: {}\n{}",
            scenario.title(),
            scenario.explanation(),
            table.text()
        );
        let can = |name: &str| {
            all.iter()
                .any(|peer| peer.name() == name && peer.can(scenario))
        };
        if let Some(note) = table::limited_by_load(results, scenario) {
            println!("{note}");
        }
        for line in table::not_measured(results, scenario, &can) {
            println!("not measured: {line}");
        }
        println!();
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds, from 0.01 to 86400".to_owned()),
    }
}

/// Descriptors that a server or the generator may need beside those of connections.
const SPARE: usize = 500;
