//! Metrics as text: the format of Prometheus (0.0.4) and OpenMetrics (1.0).
//!
//! They differ little: in OpenMetrics a counter's family has no `_total` in its name (its samples
//! have), there are `UNIT` lines, and `# EOF` at the end.

use std::fmt::{Display, Write};

use crate::histogram::Histogram;

/// Metrics of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Family<'a> {
    /// As its samples have it; that of a counter ends in `_total`.
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    pub(super) help: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Prometheus,
    OpenMetrics,
}

/// The labels of a sample: names and values.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// Writes a page, family after family.
#[derive(Debug)]
pub(super) struct Writer {
    out: String,
    format: Format,
}

impl Format {
    /// What the value of an `Accept` header asks for.
    pub(super) fn accepted(accept: &[u8]) -> Self {
        let text = String::from_utf8_lossy(accept);
        let wants = text.split(',').any(|media| {
            let mut parts = media.split(';').map(str::trim);
            let is_it = parts
                .next()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            is_it && !parts.any(|part| part.replace(' ', "") == "q=0")
        });
        match wants {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

impl Family<'_> {
    /// The unit in its name, if it has one.
    fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes"].into_iter().find(|unit| {
            name.strip_suffix(unit)
                .is_some_and(|rest| rest.ends_with('_'))
        })
    }
}

impl Writer {
    pub(super) fn new(format: Format) -> Self {
        Writer {
            out: String::with_capacity(32 << 10),
            format,
        }
    }

    /// Begins a family. Its samples follow.
    pub(super) fn family(&mut self, family: &Family<'_>) {
        let name = match (self.format, family.kind) {
            (Format::OpenMetrics, Kind::Counter) => {
                family.name.strip_suffix("_total").unwrap_or(family.name)
            }
            _ => family.name,
        };
        let kind = family.kind.name();
        self.line(format_args!("# TYPE {name} {kind}"));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, family.unit()) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.out.push_str("# HELP ");
        self.out.push_str(name);
        self.out.push(' ');
        let quotes = self.format == Format::OpenMetrics;
        escape(&mut self.out, family.help, quotes);
        self.out.push('\n');
    }

    /// A sample of a counter or gauge.
    pub(super) fn sample(&mut self, family: &Family<'_>, labels: &Labels<'_>, value: impl Display) {
        self.put(family.name, "", labels, None, value);
    }

    /// A family with one sample.
    pub(super) fn single(&mut self, family: &Family<'_>, value: impl Display) {
        self.family(family);
        self.sample(family, &[], value);
    }

    /// The samples of a histogram of times.
    pub(super) fn histogram(
        &mut self,
        family: &Family<'_>,
        labels: &Labels<'_>,
        histogram: Histogram<'_>,
    ) {
        for (bound, count) in histogram.cumulative() {
            let bound = seconds(bound).to_string();
            self.put(family.name, "_bucket", labels, Some(&bound), count);
        }
        let count = histogram.count();
        self.put(family.name, "_bucket", labels, Some("+Inf"), count);
        let sum = seconds(histogram.sum());
        self.put(family.name, "_sum", labels, None, sum);
        self.put(family.name, "_count", labels, None, count);
    }

    /// The page.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn put(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &Labels<'_>,
        bound: Option<&str>,
        value: impl Display,
    ) {
        self.out.push_str(name);
        self.out.push_str(suffix);
        let labels = labels
            .iter()
            .copied()
            .chain(bound.map(|bound| ("le", bound)));
        let mut any = false;
        for (label, text) in labels {
            self.out.push(if any { ',' } else { '{' });
            any = true;
            self.out.push_str(label);
            self.out.push_str("=\"");
            escape(&mut self.out, text, true);
            self.out.push('"');
        }
        if any {
            self.out.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A `String` takes everything.
        let _ = writeln!(self.out, "{line}");
    }
}

/// As the formats count time.
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            char => out.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use gannet_shm::Region;

    use super::*;
    use crate::histogram::{self, Histograms, Recorder, Timed};

    const SENT: Family<'_> = Family {
        name: "sent_bytes_total",
        kind: Kind::Counter,
        help: "Bytes \"sent\",\nall of them.",
    };
    const TIMES: Family<'_> = Family {
        name: "times_seconds",
        kind: Kind::Histogram,
        help: "Times.",
    };

    #[test]
    fn the_formats_differ_where_they_should() {
        let page = |format| {
            let mut writer = Writer::new(format);
            writer.family(&SENT);
            writer.sample(&SENT, &[("to", "a\"b\\c\n")], 7);
            writer.finish()
        };
        assert_eq!(
            page(Format::Prometheus),
            "# TYPE sent_bytes_total counter\n\
             # HELP sent_bytes_total Bytes \"sent\",\\nall of them.\n\
             sent_bytes_total{to=\"a\\\"b\\\\c\\n\"} 7\n"
        );
        assert_eq!(
            page(Format::OpenMetrics),
            "# TYPE sent_bytes counter\n\
             # UNIT sent_bytes bytes\n\
             # HELP sent_bytes Bytes \\\"sent\\\",\\nall of them.\n\
             sent_bytes_total{to=\"a\\\"b\\\\c\\n\"} 7\n\
             # EOF\n"
        );
    }

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let region = Region::create("text", 1, histogram::BYTES).unwrap();
        let recorder = Recorder::attach(region.clone(), 0);
        recorder.record(Timed::Task, 20_000);
        recorder.record(Timed::Task, 61_000_000_000);
        let mut times = Histograms::default();
        times.add(&region, 0);
        let mut writer = Writer::new(Format::Prometheus);
        writer.histogram(&TIMES, &[("event", "task")], times.of(Timed::Task));
        let page = writer.finish();
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(
            lines[0],
            "times_seconds_bucket{event=\"task\",le=\"0.00001\"} 0"
        );
        assert_eq!(
            lines[1],
            "times_seconds_bucket{event=\"task\",le=\"0.000025\"} 1"
        );
        assert_eq!(
            lines[20],
            "times_seconds_bucket{event=\"task\",le=\"60\"} 1"
        );
        assert_eq!(
            lines[21],
            "times_seconds_bucket{event=\"task\",le=\"+Inf\"} 2"
        );
        assert_eq!(lines[22], "times_seconds_sum{event=\"task\"} 61.00002");
        assert_eq!(lines[23], "times_seconds_count{event=\"task\"} 2");
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus.as_bytes()), Format::OpenMetrics);
        for other in ["", "*/*", "text/plain", "application/openmetrics-text; q=0"] {
            assert_eq!(Format::accepted(other.as_bytes()), Format::Prometheus);
        }
    }
}
