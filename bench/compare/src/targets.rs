//! The project's own goals, and whether they are met.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    peers,
    results::{Measured, Results},
    scenario::Scenario,
    statistics::Figures,
    table::{Table, short, with_spread},
};

/// One goal of `targets.toml`, which says what the fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    what: String,
    scenario: Scenario,
    peer: String,
    #[serde(default)]
    of: Vec<String>,
    pointer: Option<String>,
    at_most: Option<f64>,
    at_least: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Met(Figures),
    Missed(Figures),
    NotMeasured,
}

/// All of them.
pub(crate) fn all() -> Result<Vec<Target>> {
    #[derive(Deserialize)]
    struct File {
        target: Vec<Target>,
    }
    let file: File = toml::from_str(include_str!("../targets.toml")).context("targets.toml")?;
    for target in &file.target {
        ensure!(
            target.at_most.is_some() != target.at_least.is_some(),
            "targets.toml: {:?} needs one of at_most and at_least",
            target.what
        );
    }
    Ok(file.target)
}

/// Each target with what was measured, and a line that counts them.
pub(crate) fn table(targets: &[Target], results: &Results) -> (Table, String) {
    let mut table = Table::new(&["target", "of", "goal", "measured", "verdict"]);
    let (mut met, mut missed, mut unknown) = (0, 0, 0);
    for target in targets {
        let (against, verdict) = target.judge(results);
        let (measured, said) = match verdict {
            Verdict::Met(figures) => {
                met += 1;
                (with_spread(figures), "met")
            }
            Verdict::Missed(figures) => {
                missed += 1;
                (with_spread(figures), "**missed**")
            }
            Verdict::NotMeasured => {
                unknown += 1;
                ("–".to_owned(), "not measured")
            }
        };
        table.push(vec![
            format!("{} ({})", target.what, mode(&target.peer)),
            against,
            target.goal(),
            measured,
            said.to_owned(),
        ]);
    }
    let count = format!("{met} met, {missed} missed, {unknown} not measured.");
    (table, count)
}

impl Target {
    /// Which server it was judged by, and how.
    fn judge(&self, results: &Results) -> (String, Verdict) {
        let what = match &self.pointer {
            Some(pointer) => Measured::At(pointer),
            None => Measured::Headline,
        };
        let all = peers::all();
        let title = |name: &String| {
            let peer = all.iter().find(|peer| peer.name() == name);
            peer.map_or(name.as_str(), |peer| peer.title()).to_owned()
        };
        if self.of.is_empty() {
            let figures = results.figures(self.scenario, self.peer.as_str().into(), what);
            return (String::new(), self.verdict(figures));
        }
        let ratios = self.of.iter().filter_map(|of| {
            let (peer, other) = (self.peer.as_str(), of.as_str());
            let ratio = results.ratio(self.scenario, peer.into(), other.into(), what)?;
            Some((of, ratio))
        });
        // The best of the others is the one beside which Gannet looks worst.
        let strictest = ratios.max_by(|(_, a), (_, b)| match self.at_most {
            Some(_) => a.median.total_cmp(&b.median),
            None => b.median.total_cmp(&a.median),
        });
        match strictest {
            Some((of, ratio)) => (title(of), self.verdict(Some(ratio))),
            None => {
                let all: Vec<_> = self.of.iter().map(title).collect();
                (all.join(", "), Verdict::NotMeasured)
            }
        }
    }

    /// By the median, as it is shown.
    fn verdict(&self, figures: Option<Figures>) -> Verdict {
        let Some(figures) = figures else {
            return Verdict::NotMeasured;
        };
        let is_met = match (self.at_most, self.at_least) {
            (Some(most), _) => figures.median <= most,
            (_, Some(least)) => figures.median >= least,
            _ => false,
        };
        match is_met {
            true => Verdict::Met(figures),
            false => Verdict::Missed(figures),
        }
    }

    fn goal(&self) -> String {
        match (self.at_most, self.at_least) {
            (Some(most), _) => format!("≤ {}", short(most)),
            (_, Some(least)) => format!("≥ {}", short(least)),
            _ => String::new(),
        }
    }
}

fn mode(peer: &str) -> &'static str {
    match peer {
        "gannet-thread" => "thread mode",
        _ => "process mode",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::results::{Measurement, Outcome};

    fn measured(figures: &[(&str, f64)]) -> Results {
        let mut results = Results::new(1.0);
        for &(peer, cpu) in figures {
            results.measurements.push(Measurement {
                scenario: Scenario::Http,
                peer: peer.to_owned(),
                undisturbed: false,
                round: 1,
                stolen_percent: 0.0,
                outcome: Outcome::Report(json!({"server": {"cpu_us_per_message": cpu}})),
            });
        }
        results
    }

    fn target(of: &[&str], at_most: Option<f64>) -> Target {
        Target {
            what: "HTTP".to_owned(),
            scenario: Scenario::Http,
            peer: "gannet".to_owned(),
            of: of.iter().map(|&name| name.to_owned()).collect(),
            pointer: None,
            at_most,
            at_least: None,
        }
    }

    #[test]
    fn the_file_names_servers_that_there_are() {
        let peers: Vec<_> = peers::all().iter().map(|peer| peer.name()).collect();
        for target in all().unwrap() {
            for name in target.of.iter().chain([&target.peer]) {
                assert!(peers.contains(&name.as_str()), "{target:?}");
            }
        }
    }

    #[test]
    fn the_best_of_several_servers_counts_and_missing_ones_do_not() {
        let results = measured(&[("gannet", 5.0), ("uws", 10.0), ("nginx", 4.0)]);
        let (of, verdict) = target(&["uws", "ntex", "nginx"], Some(1.0)).judge(&results);
        assert_eq!(of, "nginx", "the title");
        assert!(
            matches!(verdict, Verdict::Missed(figures) if figures.median == 1.25),
            "{verdict:?}"
        );
        let (_, verdict) = target(&["uws"], Some(0.5)).judge(&results);
        assert!(matches!(verdict, Verdict::Met(_)), "{verdict:?}");
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let results = measured(&[("gannet", 5.0)]);
        let (_, verdict) = target(&["ntex"], Some(1.0)).judge(&results);
        assert_eq!(verdict, Verdict::NotMeasured);
    }
}
