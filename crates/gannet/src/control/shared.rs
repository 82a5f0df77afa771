//! What a server tells about its counters, locks and tables.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{Align, table};

/// The counters, locks and tables of a server, in the order in which they were declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SharedStatus {
    /// The counters.
    pub counters: Vec<CounterStatus>,
    /// The locks.
    pub locks: Vec<LockStatus>,
    /// The tables.
    pub tables: Vec<TableStatus>,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CounterStatus {
    /// Its name.
    pub name: String,
    /// Its value now.
    pub value: i64,
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockStatus {
    /// Its name.
    pub name: String,
    /// The process that has it, by its process id; none if it is free.
    pub held_by: Option<u32>,
    /// How often its owner died or panicked with it, as far as the next owner has noticed.
    pub deaths: u64,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// Its key and columns.
    pub schema: String,
    /// Rows in it.
    pub rows: usize,
    /// Most rows that it can have.
    pub max_rows: usize,
    /// Memory that it takes now, in bytes.
    pub bytes: u64,
    /// How often a process died while it wrote to it.
    pub deaths: u64,
}

impl fmt::Display for SharedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.counters.is_empty() {
            let titles = [("COUNTER", Align::Left), ("VALUE", Align::Right)];
            let cells =
                |counter: &CounterStatus| vec![counter.name.clone(), counter.value.to_string()];
            table(f, &titles, self.counters.iter().map(cells))?;
            writeln!(f)?;
        }
        if !self.locks.is_empty() {
            let titles = [
                ("LOCK", Align::Left),
                ("HELD BY", Align::Right),
                ("DEATHS", Align::Right),
            ];
            let cells = |lock: &LockStatus| {
                let holder = lock.held_by.map_or("-".to_owned(), |pid| pid.to_string());
                vec![lock.name.clone(), holder, lock.deaths.to_string()]
            };
            table(f, &titles, self.locks.iter().map(cells))?;
            writeln!(f)?;
        }
        if !self.tables.is_empty() {
            let titles = [
                ("TABLE", Align::Left),
                ("ROWS", Align::Right),
                ("MOST", Align::Right),
                ("BYTES", Align::Right),
                ("DEATHS", Align::Right),
                ("COLUMNS", Align::Left),
            ];
            let cells = |table: &TableStatus| {
                vec![
                    table.name.clone(),
                    table.rows.to_string(),
                    table.max_rows.to_string(),
                    table.bytes.to_string(),
                    table.deaths.to_string(),
                    table.schema.clone(),
                ]
            };
            table(f, &titles, self.tables.iter().map(cells))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_shown_as_a_table_if_there_are_any() {
        let status = SharedStatus {
            counters: vec![CounterStatus {
                name: "hits".to_owned(),
                value: -3,
            }],
            locks: vec![
                LockStatus {
                    name: "till".to_owned(),
                    held_by: Some(12),
                    deaths: 1,
                },
                LockStatus {
                    name: "door".to_owned(),
                    held_by: None,
                    deaths: 0,
                },
            ],
            tables: vec![TableStatus {
                name: "users".to_owned(),
                schema: "key text, hits i64".to_owned(),
                rows: 5,
                max_rows: 100,
                bytes: 4096,
                deaths: 0,
            }],
        };
        let text = status.to_string();
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(row("hits"), ["hits", "-3"]);
        assert_eq!(row("till"), ["till", "12", "1"]);
        assert_eq!(row("door"), ["door", "-", "0"]);
        assert_eq!(row("users")[..5], ["users", "5", "100", "4096", "0"]);
        assert_eq!(SharedStatus::default().to_string(), "");
    }
}
