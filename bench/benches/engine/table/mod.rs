//! Shared tables: get, set, incr and going through all rows, in one process and in two at once.
//!
//! Everything is measured in short windows, one behind the other, and that again and again: what the
//! machine does besides hits all alike. With PHP and Swoole's extension, [`peers/swoole_table.php`]
//! does the same on Swoole's table, in the same run.
//!
//! [`peers/swoole_table.php`]: ../../peers/swoole_table.php

mod link;
mod process;
mod report;
mod swoole;

use std::{
    fmt::{self, Display, Formatter},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use gannet::{Rows, Table};

pub(crate) use self::process::{Arguments as ProcessArguments, run as run_process};
use self::{
    process::{Entry, Gannet},
    report::Report,
    swoole::Swoole,
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Rows in the table
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// How often everything is measured
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long at a time, in milliseconds
    #[arg(long, default_value_t = 200)]
    window: u64,
    /// Only these operations
    #[arg(long, value_delimiter = ',', default_values_t = Operation::ALL)]
    only: Vec<Operation>,
    /// PHP, to measure Swoole's table too [default: `php`, if it has Swoole]
    #[arg(long)]
    php: Option<PathBuf>,
    /// Swoole's extension (swoole.so), if PHP does not load it by itself
    #[arg(long)]
    swoole_so: Option<PathBuf>,
}

/// What is done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    /// Reads whole rows.
    Get,
    /// Writes whole rows.
    Set,
    /// Adds to a column.
    Incr,
    /// Reads all rows, in the order of the table.
    Iterate,
}

impl Operation {
    const ALL: [Operation; 4] = [
        Operation::Get,
        Operation::Set,
        Operation::Incr,
        Operation::Iterate,
    ];

    fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Set => "set",
            Operation::Incr => "incr",
            Operation::Iterate => "iterate",
        }
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

pub(crate) fn measure(options: &Options) -> Result<()> {
    let table = fill(options.rows)?;
    let mut gannet = Gannet::start(&table, options.rows)?;
    let mut swoole = Swoole::find(options)?;
    if swoole.is_none() {
        println!(
            "There is no PHP with Swoole's extension (see --php, --swoole-so): Gannet alone is measured."
        );
    }

    let window = Duration::from_millis(options.window);
    let mut report = Report::default();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for &operation in &options.only {
            for processes in 1..=PROCESSES {
                let samples = gannet.measure(operation, processes, window)?;
                report.add("Gannet", operation, processes, &samples);
                if let Some(swoole) = &mut swoole {
                    let samples = swoole.measure(operation, processes, window)?;
                    report.add("Swoole", operation, processes, &samples);
                }
            }
        }
    }
    println!(
        "{} rows of two integers and a text of 64 bytes, under texts; {} rounds of {} ms each.",
        options.rows, options.rounds, options.window
    );
    if let Some(swoole) = &swoole {
        println!(
            "Swoole {}, less what PHP takes for the loop itself.",
            swoole.version()
        );
    }
    print!("{report}");
    println!("Gannet's table: {:?}", table.stats());
    Ok(())
}

/// The table as the processes find it: it has grown to its size row by row.
fn fill(rows: usize) -> Result<Table<Entry>> {
    let table = Table::<Entry>::create("bench", Rows::up_to(rows)).context("make the table")?;
    for n in 0..rows {
        table.set(&key(n), &Entry::new(n as i64)?)?;
    }
    Ok(table)
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

/// At once, at most.
const PROCESSES: usize = 2;
