//! Tables of what was measured, for a terminal and for documentation.

use crate::{
    results::{Found, Measured, Results},
    scenario::Scenario,
    statistics::Figures,
};

/// Cells, the first row being the heads of columns.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Self {
        Table {
            rows: vec![heads.iter().map(|&head| head.to_owned()).collect()],
        }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// In columns: the first one to the left, figures to the right.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => line += &format!("{cell:<width$}"),
                    _ => line += &format!("  {cell:>width$}"),
                }
            }
            text += line.trim_end();
            text += "\n";
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for (n, row) in self.rows.iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if n == 0 {
                text += "|---|";
                text += &"--:|".repeat(row.len() - 1);
                text += "\n";
            }
        }
        text
    }
}

/// One row for each server of a scenario; `None` if nothing of it was measured.
pub(crate) fn scenario(results: &Results, scenario: Scenario) -> Option<Table> {
    let columns = columns(scenario);
    let mut heads = vec!["server".to_owned()];
    heads.extend(columns.iter().map(|column| column.head.to_owned()));
    let gannets: Vec<_> = GANNETS
        .into_iter()
        .filter(|&(name, _)| results.headline(scenario, name.into()).is_some())
        .collect();
    heads.extend(gannets.iter().map(|(_, title)| format!("{title} is")));
    let mut table = Table { rows: vec![heads] };
    for row in results.rows(scenario) {
        let mut cells = vec![results.title(row)];
        for column in &columns {
            let figures = results.figures(scenario, row, Measured::At(column.pointer));
            cells.push(figures.map_or_else(String::new, |figures| column.cell(figures)));
        }
        for &(name, _) in &gannets {
            let is_gannet =
                !row.undisturbed && GANNETS.iter().any(|(gannet, _)| *gannet == row.peer);
            let ratio = match is_gannet {
                true => None,
                false => results.ratio(scenario, name.into(), row, Measured::Headline),
            };
            cells.push(ratio.map_or_else(String::new, with_spread));
        }
        table.push(cells);
    }
    (table.rows.len() > 1).then_some(table)
}

/// Servers of which a scenario has no figure, and why.
pub(crate) fn not_measured(
    results: &Results,
    scenario: Scenario,
    can: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    for peer in &results.peers {
        let is_measured = results.rows(scenario).any(|row| row.peer == peer.name);
        if is_measured || !can(&peer.name) {
            continue;
        }
        let why = match &peer.found {
            Found::Missing(why) => why.as_str(),
            Found::Version(_) => results
                .failure(scenario, peer.name.as_str().into())
                .unwrap_or("not in this run"),
        };
        lines.push(format!("{}: {why}", peer.title));
    }
    lines
}

/// Of which rows the load generator had so little of its processor left that it, and not the server, may have
/// been what limited them; `None` if there are none.
pub(crate) fn limited_by_load(results: &Results, scenario: Scenario) -> Option<String> {
    let busy = |row| {
        let figures = results.figures(scenario, row, Measured::At("/client/busy"))?;
        (figures.median > BUSY).then(|| {
            let title = results.title(row);
            match results.server_busy(scenario, row) {
                Some(server) => format!("{title} {:.2} (the server {server:.2})", figures.median),
                None => format!("{title} {:.2}", figures.median),
            }
        })
    };
    let rows: Vec<_> = results.rows(scenario).filter_map(busy).collect();
    (!rows.is_empty()).then(|| {
        format!(
            "The load generator used more than {BUSY} of its processor, so that it may have been what limited the \
             rate: {}.",
            rows.join(", ")
        )
    })
}

/// Three digits that count.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1e6 => format!("{:.2} M", figure / 1e6),
        size if size >= 100_000.0 => format!("{:.0} k", figure / 1e3),
        size if size >= 10_000.0 => format!("{:.1} k", figure / 1e3),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// The median, and in parentheses the lowest and the highest, if there are several.
pub(crate) fn with_spread(figures: Figures) -> String {
    let median = short(figures.median);
    match figures.count {
        1 => median,
        _ => format!("{median} ({}–{})", short(figures.min), short(figures.max)),
    }
}

struct Column {
    head: &'static str,
    pointer: &'static str,
    factor: f64,
    /// Whether the spread is shown as well.
    spread: bool,
}

impl Column {
    const fn new(head: &'static str, pointer: &'static str) -> Self {
        Column {
            head,
            pointer,
            factor: 1.0,
            spread: false,
        }
    }

    const fn scaled(self, factor: f64) -> Self {
        Column { factor, ..self }
    }

    const fn with_spread(self) -> Self {
        Column {
            spread: true,
            ..self
        }
    }

    fn cell(&self, figures: Figures) -> String {
        let scaled = figures.times(self.factor);
        match self.spread {
            true => with_spread(scaled),
            false => short(scaled.median),
        }
    }
}

fn columns(scenario: Scenario) -> Vec<Column> {
    let rate = Column::new("messages/s", "/messages_per_s");
    let cpu = Column::new("CPU µs", "/server/cpu_us_per_message");
    // What is left is the kernel's, for the same system calls much the same.
    let user = Column::new("in the program", "/server/user_us_per_message");
    let latencies = [
        Column::new("p50 µs", "/latency_us/p50"),
        Column::new("p99 µs", "/latency_us/p99"),
        Column::new("p99.9 µs", "/latency_us/p999"),
    ];
    let memory = Column::new("memory MiB", "/server/memory/user").scaled(1.0 / f64::from(1 << 20));
    let mut columns = Vec::new();
    match scenario {
        Scenario::Broadcast => {
            columns.push(Column::new("deliveries/s", "/deliveries_per_s").with_spread());
            columns.push(Column::new("CPU µs", "/server/cpu_us_per_message"));
        }
        Scenario::Tasks => {
            columns.push(Column::new("tasks/s", "/messages_per_s").with_spread());
            columns.push(cpu);
        }
        Scenario::Idle => {
            columns.push(Column::new("B a connection", "/bytes_per_connection").with_spread());
            columns.push(Column::new("connections", "/connections"));
            columns.push(memory);
            return columns;
        }
        Scenario::Reload | Scenario::Kill => {
            let worst = Column::new("worst ms", "/latency_us/max").scaled(0.001);
            let lost = Column::new("errors", "/errors");
            columns.extend([worst.with_spread(), lost, rate, cpu]);
        }
        Scenario::TlsHandshakes => {
            columns.extend([
                cpu.with_spread(),
                Column::new("handshakes/s", "/handshakes_per_s"),
            ]);
        }
        _ => columns.extend([cpu.with_spread(), user, rate]),
    }
    columns.extend(latencies);
    columns.push(memory);
    columns
}

/// Part of its processor above which the load generator may be what is measured.
const BUSY: f64 = 0.95;

/// Whom the others are compared with.
pub(crate) const GANNETS: [(&str, &str); 2] =
    [("gannet", "Gannet"), ("gannet-thread", "in thread mode")];
