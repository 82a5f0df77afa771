//! A process that works on Gannet's table, and what starts it.

use std::{
    env,
    fs::OpenOptions,
    hint::{black_box, spin_loop},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    process,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Error, Result, ensure};
use clap::ValueEnum;
use gannet::{Row, Str, Table};
use rustix::time::ClockId;

use super::{
    Operation, PROCESSES, key,
    link::{Link, Sample, now, start_and_window},
};
use crate::pin;

/// Two integers and a text.
#[derive(Clone, Debug, PartialEq, Row)]
pub(super) struct Entry {
    first: i64,
    second: i64,
    text: Str<64>,
}

impl Entry {
    pub(super) fn new(n: i64) -> Result<Self> {
        Ok(Entry {
            first: n,
            second: n,
            text: Str::new(&"x".repeat(64))?,
        })
    }
}

/// The processes that work on Gannet's table.
pub(super) struct Gannet {
    links: Vec<Link>,
}

impl Gannet {
    pub(super) fn start(table: &Table<Entry>, rows: usize) -> Result<Self> {
        let program = env::current_exe()?;
        let memory = format!("/proc/{}/fd/{}", process::id(), table.fd().as_raw_fd());
        let links = (0..PROCESSES).map(|index| {
            Link::start(
                Command::new(&program)
                    .arg("table-process")
                    .args([rows, index].map(|number| number.to_string()))
                    .arg(&memory),
            )
        });
        Ok(Gannet {
            links: links.collect::<Result<_>>()?,
        })
    }

    pub(super) fn measure(
        &mut self,
        operation: Operation,
        processes: usize,
        window: Duration,
    ) -> Result<Vec<Sample>> {
        let when = start_and_window(window);
        let links = &mut self.links[..processes];
        for link in links.iter_mut() {
            link.say(&format!("{operation} {when}"))?;
        }
        links
            .iter_mut()
            .map(|link| Sample::parse(&link.answer()?))
            .collect()
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    rows: usize,
    index: usize,
    memory: PathBuf,
}

/// What such a process does, until its standard input ends.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    pin(arguments.index)?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&arguments.memory)
        .with_context(|| format!("open {}", arguments.memory.display()))?;
    let table = Table::attach("bench", OwnedFd::from(memory))?;
    let keys = keys(arguments.rows, arguments.index);
    let entry = Entry::new(0)?;
    println!("ready");
    for line in io::stdin().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().with_context(|| format!("too short: {line}"));
        let operation = Operation::from_str(word()?, false).map_err(Error::msg)?;
        let start = Duration::from_nanos(word()?.parse()?);
        let window = Duration::from_nanos(word()?.parse()?);
        while now(ClockId::Monotonic) < start {
            spin_loop();
        }
        let processor = now(ClockId::ThreadCPUTime);
        let begin = now(ClockId::Monotonic);
        let operations = repeat(&table, &keys, &entry, operation, begin + window)?;
        let wall = now(ClockId::Monotonic) - begin;
        let processor = now(ClockId::ThreadCPUTime) - processor;
        println!("{operations} {} {}", wall.as_nanos(), processor.as_nanos());
    }
    Ok(())
}

/// Does it until the end, and says how often; looks at the clock after each batch.
fn repeat(
    table: &Table<Entry>,
    keys: &[String],
    entry: &Entry,
    operation: Operation,
    end: Duration,
) -> Result<u64> {
    let mut entry = entry.clone();
    let (mut operations, mut done) = (0, 0);
    for batch in keys.chunks(BATCH).cycle() {
        if now(ClockId::Monotonic) >= end {
            break;
        }
        match operation {
            Operation::Get => {
                for key in batch {
                    done += u64::from(black_box(table.get(key)?).is_some());
                }
            }
            Operation::Set => {
                for key in batch {
                    entry.second += 1;
                    table.set(key, &entry)?;
                    done += 1;
                }
            }
            Operation::Incr => {
                for key in batch {
                    done += u64::from(table.incr(key, Entry::FIRST, 1)?.is_some());
                }
            }
            Operation::Iterate => {
                for row in table.iter() {
                    black_box(row?);
                    done += 1;
                }
                operations += keys.len() as u64;
                continue;
            }
        }
        operations += batch.len() as u64;
    }
    ensure!(
        done == operations,
        "{done} of {operations} rows were there: {operation:?}"
    );
    Ok(operations)
}

/// All keys in an order of this process's own. They lie in memory in that order.
fn keys(rows: usize, seed: usize) -> Vec<String> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15 ^ seed as u64;
    for last in (1..rows).rev() {
        // Xorshift: good enough for an order.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(last, (random % (last as u64 + 1)) as usize);
    }
    order.into_iter().map(key).collect()
}

/// Operations between two looks at the clock.
const BATCH: usize = 1000;
