//! The figures as a table.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use super::{Operation, link::Sample};

/// What was measured, round for round.
#[derive(Default)]
pub(super) struct Report {
    /// In the order in which they were measured first.
    lines: Vec<Line>,
}

/// One operation on one table, in so many processes.
struct Line {
    whose: &'static str,
    operation: Operation,
    processes: usize,
    rounds: Vec<Round>,
}

/// By the clock and by processor time.
#[derive(Clone, Copy)]
struct Round {
    /// Million operations a second, of all processes together.
    rate: [f64; 2],
    /// Nanoseconds an operation, in the mean of the processes.
    nanoseconds: [f64; 2],
}

impl Report {
    pub(super) fn add(
        &mut self,
        whose: &'static str,
        operation: Operation,
        processes: usize,
        samples: &[Sample],
    ) {
        let is = |line: &&mut Line| {
            (line.whose, line.operation, line.processes) == (whose, operation, processes)
        };
        let round = Round::of(samples);
        match self.lines.iter_mut().find(is) {
            Some(line) => line.rounds.push(round),
            None => self.lines.push(Line {
                whose,
                operation,
                processes,
                rounds: vec![round],
            }),
        }
    }
}

impl Round {
    fn of(samples: &[Sample]) -> Self {
        let each: Vec<[f64; 2]> = samples.iter().map(Sample::nanoseconds).collect();
        let sum =
            |of: fn(f64) -> f64, clock: usize| each.iter().map(|ns| of(ns[clock])).sum::<f64>();
        let mean = |clock| sum(|ns| ns, clock) / each.len() as f64;
        let rate = |clock| sum(|ns| 1000.0 / ns, clock);
        Round {
            rate: [rate(0), rate(1)],
            nanoseconds: [mean(0), mean(1)],
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:28}{:^26}{:^20}two to one",
            "", "million a second", "ns each, median"
        )?;
        writeln!(
            f,
            "{:8}  {:6}{:>10}   {:>8}{:>8}{:>8}  {:>8}{:>10}  {:>8}{:>10}",
            "",
            "",
            "processes",
            "minimum",
            "median",
            "maximum",
            "clock",
            "processor",
            "clock",
            "processor"
        )?;
        let mut alone: BTreeMap<_, [f64; 2]> = BTreeMap::new();
        for line in &self.lines {
            let rates = |clock: usize| sorted(line.rounds.iter().map(|round| round.rate[clock]));
            let by_clock = rates(0);
            let medians = [0, 1].map(|clock| median(&rates(clock)));
            let nanoseconds = [0, 1]
                .map(|clock| median(&sorted(line.rounds.iter().map(|r| r.nanoseconds[clock]))));
            write!(
                f,
                "{:8}  {:6}{:>10}   {:>8.2}{:>8.2}{:>8.2}  {:>8.0}{:>10.0}",
                line.operation,
                line.whose,
                line.processes,
                by_clock.first().unwrap_or(&f64::NAN),
                medians[0],
                by_clock.last().unwrap_or(&f64::NAN),
                nanoseconds[0],
                nanoseconds[1],
            )?;
            let key = (line.whose, line.operation.to_string());
            match alone.get(&key) {
                None => {
                    alone.insert(key, medians);
                }
                Some([clock, processor]) => write!(
                    f,
                    "  {:>8.2}{:>10.2}",
                    medians[0] / clock,
                    medians[1] / processor
                )?,
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}
