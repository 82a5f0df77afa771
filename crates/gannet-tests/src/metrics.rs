//! A strict reader of the text formats for metrics: what breaks one fails the test.

use std::collections::BTreeMap;

use crate::{
    http::{HttpClient, Response},
    server::Server,
};

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Type and help of each family.
    pub families: BTreeMap<String, (String, String)>,
    /// Values by name and labels, as they are written: `requests_total{code="200"}`.
    pub samples: BTreeMap<String, f64>,
}

impl Page {
    /// Reads `/metrics` of a server.
    pub fn of(server: &Server) -> Page {
        let response = get(server, "/metrics");
        assert_eq!(response.status, 200, "{response:?}");
        Page::parse(&text(&response), false)
    }

    /// Reads a page in the text format of Prometheus, or in OpenMetrics.
    ///
    /// # Panics
    ///
    /// If it breaks the format: a sample without its family before it, one that is there twice, a
    /// family whose samples are not together, a histogram that is not cumulative, ...
    pub fn parse(text: &str, is_openmetrics: bool) -> Page {
        let mut page = Page::default();
        let mut family = String::new();
        let (body, end) = match is_openmetrics {
            true => (text.strip_suffix("# EOF\n").expect("# EOF"), true),
            false => (text, false),
        };
        assert!(body.ends_with('\n'), "the last line has no end");
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let suffixed = name.ends_with("_total");
                assert_eq!(suffixed, kind == "counter" && !end, "{line}");
                check_name(name);
                family = name.to_owned();
                let twice = page
                    .families
                    .insert(family.clone(), (kind.to_owned(), String::new()));
                assert!(twice.is_none(), "{name} is there twice");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                assert_eq!(name, family, "the help of another family");
                let entry = page.families.get_mut(name).expect("its type first");
                assert!(entry.1.is_empty() && !help.is_empty(), "{line}");
                entry.1 = help.to_owned();
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').expect("a unit");
                assert!(
                    end && name == family && name.ends_with(&format!("_{unit}")),
                    "{line}"
                );
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
                let name = check_sample(sample);
                let kind = page.families[&family].0.as_str();
                let expected = match kind {
                    "counter" if end => vec![format!("{family}_total")],
                    "histogram" => ["bucket", "sum", "count"]
                        .map(|part| format!("{family}_{part}"))
                        .to_vec(),
                    _ => vec![family.clone()],
                };
                assert!(
                    expected.iter().any(|one| one == name),
                    "{line} is not of {family}"
                );
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(kind == "gauge" || value >= 0.0, "{line}");
                let twice = page.samples.insert(sample.to_owned(), value);
                assert!(twice.is_none(), "{sample} is there twice");
            }
        }
        page.check_histograms(text);
        page
    }

    /// The value of a sample.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub fn get(&self, sample: &str) -> f64 {
        self.find(sample)
            .unwrap_or_else(|| panic!("there is no {sample}: {self:#?}"))
    }

    /// The value of a sample, if it is there.
    pub fn find(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    /// The sum of all samples of this name.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |sample: &str| sample.split('{').next() == Some(name);
        let samples = self.samples.iter().filter(|(sample, _)| of_name(sample));
        samples.map(|(_, value)| value).sum()
    }

    /// Every sample that must never go back: those of counters, and of histograms.
    pub fn counters(&self) -> impl Iterator<Item = (&String, f64)> {
        self.samples.iter().filter_map(|(sample, value)| {
            let name = sample.split('{').next()?;
            let is_gauge = self
                .families
                .get(name)
                .is_some_and(|(kind, _)| kind == "gauge");
            (!is_gauge).then_some((sample, *value))
        })
    }

    /// Buckets in order of their bounds, cumulative, the last as the count.
    fn check_histograms(&self, text: &str) {
        let mut last: Option<(String, f64, f64)> = None;
        for line in text.lines().filter(|line| line.contains("_bucket{")) {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let (series, bound) = sample.split_once("le=\"").expect("a bound");
            let bound: f64 = bound.trim_end_matches("\"}").parse().expect("a bound");
            let value: f64 = value.parse().expect("a count");
            if let Some((before, lower, count)) = &last {
                match before == series {
                    true => assert!(*lower < bound && *count <= value, "{line}"),
                    false => assert!(lower.is_infinite(), "{before} ends before +Inf"),
                }
            }
            if bound.is_infinite() {
                let series = series.replacen("_bucket", "_count", 1);
                let series = series.trim_end_matches(['{', ',']);
                let closed = if series.contains('{') {
                    format!("{series}}}")
                } else {
                    series.to_owned()
                };
                assert_eq!(self.samples[&closed], value, "{line}");
            }
            last = Some((series.to_owned(), bound, value));
        }
    }
}

/// The answer to `GET` of the admin listener.
pub fn get(server: &Server, path: &str) -> Response {
    client(server).get(path)
}

/// A connection to the admin listener.
pub fn client(server: &Server) -> HttpClient {
    let status = server.status();
    let address = status["admin"].as_str().expect("an admin listener");
    HttpClient::connect(address.parse().expect("a network address"))
}

/// A body as text.
pub fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).expect("text")
}

/// `name{label="value",...}`; returns the name.
fn check_sample(sample: &str) -> &str {
    let Some((name, labels)) = sample.split_once('{') else {
        check_name(sample);
        return sample;
    };
    check_name(name);
    let mut rest = labels
        .strip_suffix('}')
        .unwrap_or_else(|| panic!("{sample}"));
    loop {
        let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{sample}"));
        check_name(label);
        let mut escaped = false;
        let end = value.find(|char| {
            let ends = char == '"' && !escaped;
            escaped = char == '\\' && !escaped;
            ends
        });
        let end = end.unwrap_or_else(|| panic!("{sample}"));
        match value[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                assert_eq!(end + 1, value.len(), "{sample}");
                return name;
            }
        }
    }
}

fn check_name(name: &str) {
    let begins = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    assert!(
        name.as_bytes().first().is_some_and(begins) && name.bytes().all(goes_on),
        "{name:?} is no name"
    );
}
