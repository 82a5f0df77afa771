//! Bars as SVG: one for each server, with the spread of the rounds.
//!
//! The same results give the same bytes. Colours follow the reader's light or dark scheme.

use crate::{results::Results, scenario::Scenario, table::short};

/// The graph of a scenario; `None` if nothing of it was measured.
pub(crate) fn scenario(results: &Results, scenario: Scenario) -> Option<String> {
    let mut bars: Vec<_> = results
        .rows(scenario)
        .filter_map(|row| Some((row, results.headline(scenario, row)?)))
        .collect();
    let metric = scenario.metric();
    // The best is on top.
    bars.sort_by(|(_, a), (_, b)| match metric.less {
        true => a.median.total_cmp(&b.median),
        false => b.median.total_cmp(&a.median),
    });
    let most = bars
        .iter()
        .map(|(_, figures)| figures.max)
        .fold(0.0, f64::max);
    if bars.is_empty() || most <= 0.0 {
        return None;
    }
    let titles = bars
        .iter()
        .map(|&(row, _)| results.title(row).chars().count());
    let left = LEFT.max(titles.max().unwrap_or(0) as f64 * LETTER + 20.0);
    let place = |figure: f64| left + figure / most * (RIGHT - left);

    let height = TOP + bars.len() as f64 * STEP + 12.0;
    let title = escaped(scenario.title());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"16\" y=\"26\">{title}</text>\n\
         <text class=\"note\" x=\"16\" y=\"46\">{}</text>\n",
        escaped(&format!(
            "{} ({}), {} is better; the line is the spread of {} rounds",
            metric.title,
            metric.unit,
            if metric.less { "less" } else { "more" },
            results.rounds(scenario)
        ))
    );
    for (n, (row, figures)) in bars.iter().enumerate() {
        let y = TOP + n as f64 * STEP;
        let middle = y + BAR / 2.0;
        let class = match row.peer.starts_with("gannet") {
            true => "gannet",
            false => "peer",
        };
        let (low, high) = (place(figures.min), place(figures.max));
        svg += &format!(
            "<text class=\"name\" x=\"{}\" y=\"{:.1}\">{}</text>\n\
             <rect class=\"{class}\" x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\n\
             <path class=\"spread\" d=\"M{low:.1} {middle:.1}H{high:.1}\"/>\n\
             <text class=\"figure\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            left - 10.0,
            middle + 4.5,
            escaped(&results.title(*row)),
            (place(figures.median) - left).max(1.0),
            high + 8.0,
            middle + 4.5,
            short(figures.median),
        );
    }
    Some(svg + "</svg>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const WIDTH: f64 = 760.0;
/// Where bars begin, if the names are not too long, and the longest ends: figures stand behind them.
const LEFT: f64 = 210.0;
/// Width of a letter of a name, in the mean.
const LETTER: f64 = 6.6;
const RIGHT: f64 = 670.0;
const TOP: f64 = 64.0;
const STEP: f64 = 28.0;
const BAR: f64 = 18.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:16px;font-weight:600}\
.note{font-size:12px;fill:#59636e}.name{text-anchor:end}.figure{font-variant-numeric:tabular-nums}\
.page{fill:#fff}.gannet{fill:#0969da}.peer{fill:#afb8c1}.spread{stroke:#1f2328;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.page{fill:#0d1117}\
.gannet{fill:#4493f8}.peer{fill:#57606a}.spread{stroke:#e6edf3}}";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::results::{Found, Measurement, Outcome, PeerInfo};

    #[test]
    fn bars_are_sorted_scaled_and_escaped() {
        let mut results = Results::new(1.0);
        for (name, cpu) in [("slow", 8.0), ("gannet", 4.0)] {
            results.know(PeerInfo {
                name: name.to_owned(),
                title: format!("<{name}>"),
                found: Found::Version("1".to_owned()),
            });
            results.measurements.push(Measurement {
                scenario: Scenario::Tcp,
                peer: name.to_owned(),
                undisturbed: false,
                round: 1,
                stolen_percent: 0.0,
                outcome: Outcome::Report(json!({"server": {"cpu_us_per_message": cpu}})),
            });
        }
        let svg = scenario(&results, Scenario::Tcp).unwrap();
        let places = ["&lt;gannet&gt;", "&lt;slow&gt;"].map(|name| svg.find(name).unwrap());
        assert!(places[0] < places[1], "the better one is on top");
        assert!(
            svg.contains("class=\"gannet\" x=\"210\" y=\"64.0\" width=\"230.0\""),
            "{svg}"
        );
        assert!(
            svg.contains("class=\"peer\" x=\"210\" y=\"92.0\" width=\"460.0\""),
            "{svg}"
        );
        assert_eq!(scenario(&results, Scenario::Http), None);
    }
}
