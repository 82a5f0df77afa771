//! Counters, locks and tables.
//!
//! `BEHAVE_SHARED=FILE`: a file with what the program declares, one object a line, read by every
//! process as it starts; so a test that changes the file makes another build of the program.
//!
//! ```text
//! counter hits
//! lock till
//! table users 100 key text, hits i64
//! metric orders_total Orders taken.
//! gauge baskets Baskets that are not empty.
//! ```
//!
//! `prepare` adds 42 to the counter `prepared` and to the column `hits` of the row `prepared` of the
//! table `users`, if they are declared.

use std::{process, time::Duration};

use gannet::{
    Error, Record, Result, Rows, Schema, Server, Shared, Table, Worker,
    table::{Column, Value},
};

use super::commands::{number, two};

/// Declares what the file says.
pub(super) fn declare(mut server: Server) -> Result<Server> {
    let Some(path) = std::env::var_os("BEHAVE_SHARED") else {
        return Ok(server);
    };
    for line in std::fs::read_to_string(path)?.lines() {
        let (kind, rest) = two(line)?;
        server = match kind {
            "counter" => server.counter(rest),
            "metric" => {
                let (name, help) = two(rest)?;
                server.counter_metric(name, help)
            }
            "gauge" => {
                let (name, help) = two(rest)?;
                server.gauge_metric(name, help)
            }
            "lock" => server.lock(rest),
            "table" => {
                let (name, rest) = two(rest)?;
                let (rows, schema) = two(rest)?;
                let schema: Schema = schema.parse()?;
                server.records(name, schema, Rows::up_to(number(rows)?))
            }
            kind => return Err(Error::new(format!("no kind of object: {kind}"))),
        };
    }
    Ok(server.prepare(prepare))
}

fn prepare(shared: &Shared) -> Result {
    if let Ok(counter) = shared.counter("prepared") {
        counter.add(42);
    }
    if let Ok(users) = shared.records::<str>("users") {
        let mut row = users.record();
        row.set("hits", 42i64)?;
        users.set("prepared", &row)?;
    }
    Ok(())
}

/// Does what a command or a task says.
pub(super) async fn command(worker: &Worker, text: &str) -> Result<String> {
    let (kind, rest) = two(text)?;
    let (name, rest) = two(rest)?;
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let done = match kind {
        "counter" => counter(worker, name, word, rest).await,
        "lock" => lock(worker, name, word, rest).await,
        "table" => table(worker, name, word, rest),
        kind => Err(Error::new(format!("no kind of object: {kind}"))),
    };
    Ok(done.unwrap_or_else(|error| format!("error: {error}")))
}

async fn counter(worker: &Worker, name: &str, word: &str, rest: &str) -> Result<String> {
    let counter = worker.counter(name)?;
    let value = match word {
        "load" => counter.load(),
        "add" => counter.add(number(rest)?),
        "wait" => {
            let least = number(rest)?;
            counter.wait_for(|value| value >= least).await
        }
        "block" => {
            let least = number(rest)?;
            let wanted = |value| value >= least;
            let patience = Some(Duration::from_secs(20));
            return Ok(counter
                .blocking_wait_for(wanted, patience)
                .map_or("in vain".to_owned(), |value| value.to_string()));
        }
        word => return Err(Error::new(format!("no operation: {word}"))),
    };
    Ok(value.to_string())
}

async fn lock(worker: &Worker, name: &str, word: &str, rest: &str) -> Result<String> {
    let lock = worker.lock(name)?;
    let guard = match word {
        "try" => lock.try_lock(),
        // `hold COUNTER N`: takes it and keeps it until the counter is as large as that.
        "hold" => {
            let (counter, least) = two(rest)?;
            let (counter, least) = (worker.counter(counter)?, number(least)?);
            let guard = lock.lock().await;
            counter.wait_for(|value| value >= least).await;
            Some(guard)
        }
        "block" => lock.blocking_lock_for(Duration::from_millis(number(rest)?)),
        "die" => {
            let _guard = lock.lock().await;
            process::abort()
        }
        "panic" => {
            let _guard = lock.lock().await;
            panic!("with the lock")
        }
        word => return Err(Error::new(format!("no operation: {word}"))),
    };
    Ok(match guard {
        None => "held".to_owned(),
        Some(guard) if guard.owner_died() => "taken, owner died".to_owned(),
        Some(_) => "taken".to_owned(),
    })
}

fn table(worker: &Worker, name: &str, word: &str, key: &str) -> Result<String> {
    let table: Table<Record> = worker.records(name)?;
    Ok(match word {
        "incr" => {
            let hits: Column<Record, i64> = table.find_column("hits")?;
            table.insert(key, &table.record())?;
            format!("{}", table.incr(key, hits, 1)?.unwrap_or_default())
        }
        "get" => match table.get(key)? {
            Some(row) => row.value("hits").map_or("-".to_owned(), Value::to_string),
            None => "none".to_owned(),
        },
        word => return Err(Error::new(format!("no operation: {word}"))),
    })
}
