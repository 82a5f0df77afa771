//! How a line of the log is written: for people, or as JSON.

use std::{
    fmt::{self, Write},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tracing::{Level, field::Field, field::Visit};

use super::calendar::Moment;
use crate::{WorkerId, control::Role, manager};

/// The process that a line is from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Who {
    /// `worker`, as in JSON.
    role: String,
    id: u64,
    /// Of user processes and pools.
    name: Option<String>,
    /// `worker 3`, as in text.
    title: String,
    pid: u32,
}

/// What lines look like.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Style {
    pub(super) json: bool,
    pub(super) ansi: bool,
}

/// What is said on a line.
#[derive(Debug)]
pub(super) struct Said {
    style: Style,
    pub(super) message: String,
    /// Text: ` a=1 b="x"`; JSON: `"a":1,"b":"x"`.
    fields: String,
    /// Text: `outer{a=1}:inner: `; JSON: `{"name":"outer","fields":{"a":1}},{"name":"inner"}`.
    spans: String,
    backtrace: Option<String>,
    is_cut: bool,
}

impl Who {
    pub(crate) fn manager() -> Self {
        Who::one("manager", 0, None, "manager".to_owned())
    }

    pub(crate) fn master() -> Self {
        Who::one("master", 0, None, "master".to_owned())
    }

    /// The process of a place.
    pub(crate) fn place(id: WorkerId, kind: Role, name: Option<&str>) -> Self {
        let role = match kind {
            Role::Worker => "worker",
            Role::TaskWorker => "task_worker",
            Role::Process => "process",
        };
        Who::one(role, id.0.into(), name, manager::title(id, kind, name))
    }

    /// A child of a pool.
    pub(crate) fn pool(name: &str, id: usize) -> Self {
        Who::one("pool", id as u64, Some(name), format!("{name} {id}"))
    }

    /// The same place as this process.
    pub(crate) fn with_pid(self, pid: u32) -> Self {
        Who { pid, ..self }
    }

    /// `worker`, and its number among all.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn role(&self) -> (&str, u64) {
        (&self.role, self.id)
    }

    /// `worker 3`, `task worker 4`, `process feed`.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    fn one(role: &str, id: u64, name: Option<&str>, title: String) -> Self {
        Who {
            role: role.to_owned(),
            id,
            name: name.map(str::to_owned),
            title,
            pid: std::process::id(),
        }
    }
}

impl Said {
    pub(super) fn new(style: Style) -> Self {
        Said {
            style,
            message: String::new(),
            fields: String::new(),
            spans: String::new(),
            backtrace: None,
            is_cut: false,
        }
    }

    /// A message and nothing else.
    pub(super) fn message(style: Style, message: &str) -> Self {
        let mut said = Said::new(style);
        said.message = said.bounded(message).to_owned();
        said
    }

    /// Adds a backtrace; the lines at its end are left out if it is too long.
    pub(super) fn backtrace(&mut self, text: &str) {
        let mut text = text.trim_end();
        if text.len() > LONGEST_BACKTRACE {
            let piece = &text.as_bytes()[..LONGEST_BACKTRACE];
            let end = piece.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
            text = text.get(..end).unwrap_or_default();
            self.is_cut = true;
        }
        self.backtrace = Some(text.to_owned());
    }

    /// Adds a span that is around, from the outermost in.
    pub(super) fn span(&mut self, name: &str, fields: &str) {
        if self.spans.len() + fields.len() > LONGEST_PART {
            self.is_cut = true;
            return;
        }
        let spans = &mut self.spans;
        match (self.style.json, fields.is_empty()) {
            (true, no_fields) => {
                let comma = if spans.is_empty() { "" } else { "," };
                // Writing to a string does not fail, here and below.
                let _ = write!(spans, "{comma}{{\"name\":{}", quoted(name));
                let _ = match no_fields {
                    true => write!(spans, "}}"),
                    false => write!(spans, ",\"fields\":{{{fields}}}}}"),
                };
            }
            (false, true) => {
                let _ = write!(spans, "{name}: ");
            }
            (false, false) => {
                let _ = write!(spans, "{name}{{{}}}: ", fields.trim_start());
            }
        }
    }

    /// Adds a field with a number.
    pub(super) fn number(&mut self, name: &str, value: impl fmt::Display) {
        self.field(name, &value.to_string(), true);
    }

    /// The fields of a span, as [`Said::span`] takes them.
    pub(super) fn into_fields(self) -> String {
        self.fields
    }

    /// The line, its end included. In text a backtrace has lines of its own.
    pub(super) fn line(
        &self,
        who: &Who,
        time: SystemTime,
        level: Level,
        target: &str,
        thread: Option<&str>,
    ) -> String {
        let line = match self.style.json {
            true => self.json(who, time, level, target, thread),
            false => self.text(who, time, level),
        };
        if line.len() <= LONGEST {
            return line;
        }
        // What makes it long is many fields, or much that has to be escaped.
        let mut short = Said::message(self.style, &self.message);
        short.message = cut(&short.message, LONGEST / 16).to_owned();
        short.is_cut = true;
        short.line(who, time, level, cut(target, 256), None)
    }

    fn text(&self, who: &Who, time: SystemTime, level: Level) -> String {
        let (colour, plain) = match level {
            _ if !self.style.ansi => ("", ""),
            Level::ERROR => ("\x1b[31m", "\x1b[0m"),
            Level::WARN => ("\x1b[33m", "\x1b[0m"),
            _ => ("", ""),
        };
        let head = format!(
            "{} {colour}{level:>5}{plain} {}[{}]: ",
            Moment::of(time),
            who.title,
            who.pid
        );
        let mut line = head.clone();
        plain_text(&mut line, &self.spans);
        plain_text(&mut line, &self.message);
        plain_text(&mut line, &self.fields);
        if self.is_cut {
            line.push_str(" (cut)");
        }
        line.push('\n');
        // Every line has its head, and none can pass for an event of its own.
        for more in self.backtrace.iter().flat_map(|text| text.lines()) {
            line.push_str(&head);
            line.push_str("| ");
            plain_text(&mut line, more);
            line.push('\n');
        }
        line
    }

    fn json(
        &self,
        who: &Who,
        time: SystemTime,
        level: Level,
        target: &str,
        thread: Option<&str>,
    ) -> String {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut line = format!(
            "{{\"time\":\"{}\",\"level\":\"{level}\",\"role\":{},\"id\":{}",
            Moment::of(time),
            quoted(&who.role),
            who.id
        );
        if let Some(name) = &who.name {
            let _ = write!(line, ",\"name\":{}", quoted(name));
        }
        let _ = write!(line, ",\"pid\":{},\"target\":{}", who.pid, quoted(target));
        if let Some(thread) = thread {
            let _ = write!(line, ",\"thread\":{}", quoted(thread));
        }
        let _ = write!(line, ",\"message\":{}", quoted(&self.message));
        if !self.spans.is_empty() {
            let _ = write!(line, ",\"spans\":[{}]", self.spans);
        }
        if !self.fields.is_empty() {
            let _ = write!(line, ",\"fields\":{{{}}}", self.fields);
        }
        if let Some(backtrace) = &self.backtrace {
            let _ = write!(line, ",\"backtrace\":{}", quoted(backtrace));
        }
        if self.is_cut {
            line.push_str(",\"cut\":true");
        }
        line.push_str("}\n");
        line
    }

    /// `written`: it stands in text and JSON alike.
    fn field(&mut self, name: &str, value: &str, written: bool) {
        if self.fields.len() > LONGEST_PART {
            self.is_cut = true;
            return;
        }
        let value = self.bounded(value).to_owned();
        let fields = &mut self.fields;
        let _ = match (self.style.json, written) {
            (true, _) => {
                let comma = if fields.is_empty() { "" } else { "," };
                let value = if written { value } else { quoted(&value) };
                write!(fields, "{comma}{}:{value}", quoted(name))
            }
            (false, _) => write!(fields, " {name}={value}"),
        };
    }

    fn bounded<'a>(&mut self, text: &'a str) -> &'a str {
        let piece = cut(text, LONGEST_PART);
        self.is_cut |= piece.len() < text.len();
        piece
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" if self.message.is_empty() => self.message = self.bounded(&text).to_owned(),
            BACKTRACE => self.backtrace(&text),
            name => self.field(name, &text, false),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" if self.message.is_empty() => self.message = self.bounded(value).to_owned(),
            BACKTRACE => self.backtrace(value),
            name if self.style.json => self.field(name, value, false),
            name => self.field(name, &format!("{value:?}"), false),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity.
        self.field(field.name(), &format!("{value:?}"), value.is_finite());
    }
}

/// As a JSON string, in which nothing acts upon who looks at it.
fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    if !quoted.contains(acts) {
        return quoted;
    }
    let mut escaped = String::with_capacity(quoted.len() + 64);
    for c in quoted.chars() {
        match acts(c) {
            true => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            false => escaped.push(c),
        }
    }
    escaped
}

/// One event is one line, and means what it says, whatever a client has put into it: what acts is
/// escaped.
fn plain_text(line: &mut String, text: &str) {
    let is_escaped = |c: char| c != '\t' && acts(c);
    if !text.contains(is_escaped) {
        line.push_str(text);
        return;
    }
    for c in text.chars() {
        match is_escaped(c) {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
}

/// Whether a character does something rather than being seen: control characters, those that separate
/// lines, those that turn the direction of what follows (so that it reads as something else). All of
/// them have at most 16 bits.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text, or as much of it as has at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Longest line, in bytes; of a backtrace in text, all its lines together may be longer.
pub(crate) const LONGEST: usize = 64 << 10;
/// Longest message, value, or all fields.
pub(super) const LONGEST_PART: usize = 16 << 10;
const LONGEST_BACKTRACE: usize = 24 << 10;
/// Name of the field whose value is one.
const BACKTRACE: &str = "backtrace";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::Value;

    use super::*;

    const TEXT: Style = Style {
        json: false,
        ansi: false,
    };
    const JSON: Style = Style {
        json: true,
        ansi: false,
    };

    fn line(said: &Said) -> String {
        let who = Who::place(WorkerId(3), Role::Worker, None).with_pid(4711);
        let time = UNIX_EPOCH + Duration::from_micros(1_795_229_881_197_211);
        said.line(&who, time, Level::WARN, "app", Some("log"))
    }

    #[test]
    fn text_has_a_head_on_every_line() {
        let mut said = Said::message(TEXT, "two\nlines\x1b[0m");
        said.number("n", 7);
        said.span("request", "");
        said.span("inner", " a=1");
        said.backtrace("0: one\n1: two\n");
        let head = "2026-11-21T02:58:01.197211Z  WARN worker 3[4711]: ";
        let first = r"request: inner{a=1}: two\nlines\u{1b}[0m n=7";
        assert_eq!(
            line(&said),
            format!("{head}{first}\n{head}| 0: one\n{head}| 1: two\n")
        );
    }

    #[test]
    fn json_has_the_documented_names() {
        let mut said = Said::message(JSON, "two\n\"lines\"");
        said.number("n", 7);
        said.field("s", "\u{7}", false);
        said.span("request", "");
        said.span("inner", "\"a\":1");
        said.backtrace("0: one\n1: two\n");
        let line = line(&said);
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
        let expected = serde_json::json!({
            "time": "2026-11-21T02:58:01.197211Z", "level": "warn", "role": "worker", "id": 3,
            "pid": 4711, "target": "app", "thread": "log", "message": "two\n\"lines\"",
            "spans": [{"name": "request"}, {"name": "inner", "fields": {"a": 1}}],
            "fields": {"n": 7, "s": "\u{7}"}, "backtrace": "0: one\n1: two",
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn what_would_act_upon_a_reader_is_escaped() {
        let odd = "a\u{2028}b\u{9b}31m\u{7f}\u{202e}c\u{2069}\té";
        let text = line(&Said::message(TEXT, odd));
        assert!(
            text.ends_with("a\\u{2028}b\\u{9b}31m\\u{7f}\\u{202e}c\\u{2069}\té\n"),
            "{text}"
        );
        let json = line(&Said::message(JSON, odd));
        assert!(
            json.contains(r"a\u2028b\u009b31m\u007f\u202ec\u2069\té"),
            "{json}"
        );
        assert_eq!(
            serde_json::from_str::<Value>(&json).unwrap()["message"],
            odd
        );
    }

    #[test]
    fn lines_are_bounded_and_json_all_the_same() {
        let long = "\u{1}é".repeat(LONGEST);
        for style in [TEXT, JSON] {
            let mut said = Said::message(style, &long);
            for _ in 0..100 {
                said.field("field", &long, false);
            }
            said.span("span", &"x".repeat(LONGEST));
            said.backtrace(&"0: frame\n".repeat(LONGEST));
            let line = line(&said);
            assert!(line.len() <= LONGEST, "{}", line.len());
            assert!(line.contains("cut"));
            if style.json {
                assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["cut"], true);
            }
        }
    }
}
