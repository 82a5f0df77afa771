//! The names, types and ranges of the settings: one table for files, environment and flags.

use std::{fmt, ops::RangeInclusive, path::PathBuf};

use gannet_proto::{
    tcp::{MAX_HEADER, Width},
    websocket::{MAX_WINDOW_BITS, MIN_WINDOW_BITS},
};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error as ChoiceError},
};

use super::{
    CaptureOutput, CertificateFiles, ClientAuth, Dispatch, Forwarded, Listener, LogFormat,
    LogRotation, Mode, Protocol, ProxyProtocol, Settings, Tls, TlsVersion,
    framing::{Draft, Framing, Kind},
};
use crate::ConnId;

/// A setting that is one value, and where that is kept.
pub(super) struct Field<'a> {
    pub(super) name: &'static str,
    slot: Slot<'a>,
}

enum Slot<'a> {
    Number(&'a mut dyn Number, RangeInclusive<u64>),
    Switch(&'a mut bool),
    Text(&'a mut String),
    Path(&'a mut Option<PathBuf>),
    Mask(&'a mut Option<u32>),
    Dispatch(&'a mut Dispatch),
    Mode(&'a mut Mode),
    Protocol(&'a mut Protocol),
    ProxyProtocol(&'a mut ProxyProtocol),
    Forwarded(&'a mut Forwarded),
    List(&'a mut Vec<String>),
    Framing(&'a mut Framing),
    Width(&'a mut Width),
    TlsVersion(&'a mut TlsVersion),
    ClientAuth(&'a mut ClientAuth),
    LogFormat(&'a mut LogFormat),
    LogRotation(&'a mut LogRotation),
    CaptureOutput(&'a mut CaptureOutput),
}

/// A value as somebody wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    /// From the environment or a flag, where everything is text.
    Word(&'a str),
    /// Text in quotes, in a file.
    Quoted(&'a str),
    Integer(i128),
    Bool(bool),
    /// A list of texts, in a file.
    List(&'a [String]),
    /// Something that no setting is; its name in TOML.
    Other(&'static str),
}

/// The settings of a server that are one value.
pub(super) fn of_server(settings: &mut Settings) -> Vec<Field<'_>> {
    let connections = (ConnId::MAX_SLOTS * ConnId::MAX_REACTORS) as u64;
    vec![
        Field {
            name: "name",
            slot: Slot::Text(&mut settings.name),
        },
        Field {
            name: "mode",
            slot: Slot::Mode(&mut settings.mode),
        },
        number("workers", &mut settings.workers, 1..=1024),
        number(
            "reactors",
            &mut settings.reactors,
            1..=ConnId::MAX_REACTORS as u64,
        ),
        number("task_workers", &mut settings.task_workers, 0..=1024),
        Field {
            name: "dispatch",
            slot: Slot::Dispatch(&mut settings.dispatch),
        },
        Field {
            name: "pid_file",
            slot: Slot::Path(&mut settings.pid_file),
        },
        number(
            "max_connections",
            &mut settings.max_connections,
            0..=connections,
        ),
        number("max_streams", &mut settings.max_streams, 0..=connections),
        number("max_requests", &mut settings.max_requests, 0..=COUNT),
        number(
            "max_requests_spread",
            &mut settings.max_requests_spread,
            0..=COUNT,
        ),
        number(
            "max_wait_time_ms",
            &mut settings.max_wait_time_ms,
            0..=DAY_MS,
        ),
        number(
            "stall_timeout_ms",
            &mut settings.stall_timeout_ms,
            0..=DAY_MS,
        ),
        number(
            "start_timeout_ms",
            &mut settings.start_timeout_ms,
            1..=DAY_MS,
        ),
        number("ring_size", &mut settings.ring_size, 64 * KIB..=64 * MIB),
        number("arena_size", &mut settings.arena_size, 4 * MIB..=16 * GIB),
        number("max_in_flight", &mut settings.max_in_flight, 1..=65_536),
        number("max_parked", &mut settings.max_parked, 64 * KIB..=64 * GIB),
        number("max_packets", &mut settings.max_packets, 1..=1_000_000),
        number("task_queue", &mut settings.task_queue, 1..=100_000_000),
        number(
            "task_queue_bytes",
            &mut settings.task_queue_bytes,
            64 * KIB..=1024 * GIB,
        ),
        Field {
            name: "log_level",
            slot: Slot::Text(&mut settings.log_level),
        },
        Field {
            name: "trace_level",
            slot: Slot::Text(&mut settings.trace_level),
        },
        text("user", &mut settings.user),
        text("group", &mut settings.group),
        switch("no_new_privs", &mut settings.no_new_privs),
        Field {
            name: "umask",
            slot: Slot::Mask(&mut settings.umask),
        },
        Field {
            name: "working_directory",
            slot: Slot::Path(&mut settings.working_directory),
        },
        text("reactor_cpus", &mut settings.reactor_cpus),
        text("worker_cpus", &mut settings.worker_cpus),
        number(
            "worker_oom_score_adj",
            &mut settings.worker_oom_score_adj,
            0..=1000,
        ),
        Field {
            name: "log_format",
            slot: Slot::LogFormat(&mut settings.log_format),
        },
        Field {
            name: "log_file",
            slot: Slot::Path(&mut settings.log_file),
        },
        number("log_file_mode", &mut settings.log_file_mode, 0..=0o777),
        number("log_rotate_size", &mut settings.log_rotate_size, 0..=COUNT),
        Field {
            name: "log_rotate_every",
            slot: Slot::LogRotation(&mut settings.log_rotate_every),
        },
        number("log_keep", &mut settings.log_keep, 0..=100_000),
        Field {
            name: "capture_output",
            slot: Slot::CaptureOutput(&mut settings.capture_output),
        },
        number(
            "log_repeat_limit",
            &mut settings.log_repeat_limit,
            0..=COUNT,
        ),
        number("log_wait_ms", &mut settings.log_wait_ms, 0..=60_000),
        number("log_queue", &mut settings.log_queue, 256 * KIB..=GIB),
        Field {
            name: "admin_listen",
            slot: Slot::Text(&mut settings.admin_listen),
        },
        switch("latency_histograms", &mut settings.latency_histograms),
        Field {
            name: "watch",
            slot: Slot::List(&mut settings.watch),
        },
        number(
            "watch_debounce_ms",
            &mut settings.watch_debounce_ms,
            10..=60_000,
        ),
    ]
}

/// The settings of a listener.
pub(super) fn of_listener(listener: &mut Listener) -> Vec<Field<'_>> {
    vec![
        Field {
            name: "address",
            slot: Slot::Text(&mut listener.address),
        },
        Field {
            name: "protocol",
            slot: Slot::Protocol(&mut listener.protocol),
        },
        Field {
            name: "framing",
            slot: Slot::Framing(&mut listener.framing),
        },
        number("unix_mode", &mut listener.unix_mode, 0..=0o777),
        Field {
            name: "v6only",
            slot: Slot::Switch(&mut listener.v6only),
        },
        Field {
            name: "reuse_port",
            slot: Slot::Switch(&mut listener.reuse_port),
        },
        Field {
            name: "fd_name",
            slot: Slot::Text(&mut listener.fd_name),
        },
        Field {
            name: "proxy_protocol",
            slot: Slot::ProxyProtocol(&mut listener.proxy_protocol),
        },
        Field {
            name: "forwarded",
            slot: Slot::Forwarded(&mut listener.forwarded),
        },
        Field {
            name: "trusted_proxies",
            slot: Slot::List(&mut listener.trusted_proxies),
        },
        number("backlog", &mut listener.backlog, 1..=1_000_000),
        number(
            "idle_timeout_ms",
            &mut listener.idle_timeout_ms,
            0..=30 * DAY_MS,
        ),
        number(
            "request_timeout_ms",
            &mut listener.request_timeout_ms,
            1..=DAY_MS,
        ),
        number(
            "max_message_size",
            &mut listener.max_message_size,
            1..=4 * GIB,
        ),
        number("max_fragments", &mut listener.max_fragments, 1..=1 << 30),
        number(
            "max_control_rate",
            &mut listener.max_control_rate,
            0..=1_000_000_000,
        ),
        number(
            "min_receive_rate",
            &mut listener.min_receive_rate,
            0..=1_000_000_000,
        ),
        number(
            "min_send_rate",
            &mut listener.min_send_rate,
            0..=1_000_000_000,
        ),
        switch("compression", &mut listener.compression),
        number("compression_level", &mut listener.compression_level, 1..=9),
        number(
            "compression_threshold",
            &mut listener.compression_threshold,
            0..=GIB,
        ),
        number(
            "compression_window_bits",
            &mut listener.compression_window_bits,
            MIN_WINDOW_BITS.into()..=MAX_WINDOW_BITS.into(),
        ),
        switch(
            "compression_server_takeover",
            &mut listener.compression_server_takeover,
        ),
        switch(
            "compression_client_takeover",
            &mut listener.compression_client_takeover,
        ),
        number("max_body_size", &mut listener.max_body_size, 0..=COUNT),
        number("max_head_size", &mut listener.max_head_size, KIB..=MIB),
        Field {
            name: "http2",
            slot: Slot::Switch(&mut listener.http2),
        },
        number(
            "http2_max_streams",
            &mut listener.http2_max_streams,
            1..=65_536,
        ),
        number(
            "http2_stream_window",
            &mut listener.http2_stream_window,
            64 * KIB - 1..=16 * MIB,
        ),
        number(
            "http2_connection_window",
            &mut listener.http2_connection_window,
            64 * KIB - 1..=GIB,
        ),
        number(
            "http2_max_frame_size",
            &mut listener.http2_max_frame_size,
            16 * KIB..=16 * MIB - 1,
        ),
        number(
            "http2_max_reset_rate",
            &mut listener.http2_max_reset_rate,
            0..=1_000_000,
        ),
        number("max_queued", &mut listener.max_queued, 4 * KIB..=64 * GIB),
        Field {
            name: "redeliver",
            slot: Slot::Switch(&mut listener.redeliver),
        },
    ]
}

/// The settings of a framing of this kind, but the kind itself.
pub(super) fn of_framing(kind: Kind, draft: &mut Draft) -> Vec<Field<'_>> {
    let switch = |name, switch| Field {
        name,
        slot: Slot::Switch(switch),
    };
    match kind {
        Kind::None => Vec::new(),
        Kind::Marker => vec![
            Field {
                name: "marker",
                slot: Slot::Text(&mut draft.marker),
            },
            switch("keep", &mut draft.keep),
        ],
        Kind::Lines => vec![switch("strip_cr", &mut draft.strip_cr)],
        Kind::Length => vec![
            Field {
                name: "width",
                slot: Slot::Width(&mut draft.width),
            },
            switch("little_endian", &mut draft.little_endian),
            number("offset", &mut draft.offset, 0..=MAX_HEADER as u64),
            number("header_size", &mut draft.header_size, 0..=MAX_HEADER as u64),
            switch("counts_header", &mut draft.counts_header),
            switch("keep_header", &mut draft.keep_header),
        ],
    }
}

/// The settings of a listener's TLS.
pub(super) fn of_tls(tls: &mut Tls) -> Vec<Field<'_>> {
    let path = |name, path| Field {
        name,
        slot: Slot::Path(path),
    };
    vec![
        path("certificate", &mut tls.certificate),
        path("key", &mut tls.key),
        Field {
            name: "min_version",
            slot: Slot::TlsVersion(&mut tls.min_version),
        },
        path("client_ca", &mut tls.client_ca),
        Field {
            name: "client_auth",
            slot: Slot::ClientAuth(&mut tls.client_auth),
        },
        number("client_depth", &mut tls.client_depth, 0..=16),
        path("client_crl", &mut tls.client_crl),
        number(
            "handshake_timeout_ms",
            &mut tls.handshake_timeout_ms,
            100..=DAY_MS,
        ),
        number(
            "max_handshakes_per_s",
            &mut tls.max_handshakes_per_s,
            0..=1_000_000,
        ),
    ]
}

/// The two files of a certificate.
pub(super) fn of_certificate(files: &mut CertificateFiles) -> Vec<Field<'_>> {
    vec![
        Field {
            name: "certificate",
            slot: Slot::Path(&mut files.certificate),
        },
        Field {
            name: "key",
            slot: Slot::Path(&mut files.key),
        },
    ]
}

/// The known name nearest to `name`, if one is near enough to have been meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

impl Field<'_> {
    /// Takes a value, or says what is wrong with it: `must be a number from 1 to 64, not "x"`.
    pub(super) fn set(&mut self, given: Given<'_>) -> Result<(), String> {
        let wrong = |must: &str| Err(format!("must be {must}, not {given}"));
        match (&mut self.slot, given) {
            (Slot::Number(number, range), given) => match given.integer() {
                Some(value) if in_range(value, range) => number.put(value as u64),
                _ => return wrong(&span(range)),
            },
            (Slot::Switch(switch), given) => match given.bool() {
                Some(value) => **switch = value,
                None => return wrong("true or false"),
            },
            (Slot::Text(text), Given::Word(value) | Given::Quoted(value)) => {
                value.clone_into(text);
            }
            (Slot::Path(path), Given::Word(value) | Given::Quoted(value)) => {
                **path = Some(value.into());
            }
            (Slot::Mask(mask), given) => match given.mask() {
                Some(value) => **mask = Some(value),
                None => return wrong("permissions such as 027 (in files: 0o027), up to 777"),
            },
            (Slot::Dispatch(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::Mode(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::Protocol(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::ProxyProtocol(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::Forwarded(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::List(slot), Given::List(values)) => values.clone_into(slot),
            (Slot::List(slot), Given::Word(values)) => {
                let values = values.split(',').map(str::trim);
                **slot = values
                    .filter(|value| !value.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            (Slot::List(_), _) => return wrong("a list of texts, such as [\"10.0.0.0/8\"]"),
            (Slot::Framing(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = match value {
                    "none" => Framing::None,
                    "lines" => Framing::lines(),
                    _ => return wrong(FRAMINGS),
                };
            }
            (Slot::Framing(_), _) => return wrong(FRAMINGS),
            (Slot::Width(slot), given) => {
                **slot = match (given.integer(), given) {
                    (Some(1), _) => Width::One,
                    (Some(2), _) => Width::Two,
                    (Some(4), _) => Width::Four,
                    (Some(8), _) => Width::Eight,
                    (_, Given::Word("varint") | Given::Quoted("varint")) => Width::Varint,
                    _ => return wrong("1, 2, 4, 8 or \"varint\""),
                };
            }
            (Slot::TlsVersion(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::ClientAuth(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::LogFormat(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::LogRotation(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            (Slot::CaptureOutput(slot), Given::Word(value) | Given::Quoted(value)) => {
                **slot = choose(value)?;
            }
            _ => return wrong("text"),
        }
        Ok(())
    }

    /// Makes a path that is relative one from the root, as seen from here.
    pub(super) fn make_absolute(&mut self) -> std::io::Result<()> {
        if let Slot::Path(Some(path)) = &mut self.slot {
            *path = std::path::absolute(&*path)?;
        }
        Ok(())
    }

    /// Says what is wrong with the value that is there: `= 0: must be a number from 1 to 64`.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.slot {
            Slot::Number(number, range) if !in_range(number.value().into(), range) => {
                Err(format!("= {}: must be {}", number.value(), span(range)))
            }
            Slot::Mask(Some(mask)) if *mask > 0o777 => {
                Err(format!("= 0o{mask:o}: must be at most 0o777"))
            }
            _ => Ok(()),
        }
    }
}

impl Given<'_> {
    fn integer(self) -> Option<i128> {
        match self {
            Given::Word(word) => word.replace('_', "").parse().ok(),
            Given::Integer(value) => Some(value),
            _ => None,
        }
    }

    /// Text is octal, as `umask` takes it.
    fn mask(self) -> Option<u32> {
        let mask = match self {
            Given::Word(text) | Given::Quoted(text) => {
                u32::from_str_radix(text.trim_start_matches("0o"), 8).ok()?
            }
            Given::Integer(value) => u32::try_from(value).ok()?,
            _ => return None,
        };
        (mask <= 0o777).then_some(mask)
    }

    fn bool(self) -> Option<bool> {
        match self {
            Given::Word(word) => word.parse().ok(),
            Given::Bool(value) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Word(text) | Given::Quoted(text) => write!(f, "{text:?}"),
            Given::Integer(value) => value.fmt(f),
            Given::Bool(value) => value.fmt(f),
            Given::List(values) => write!(f, "{values:?}"),
            Given::Other(name) => write!(f, "a TOML {name}"),
        }
    }
}

/// The integer types that settings have.
trait Number {
    fn value(&self) -> u64;
    /// `value` is in the setting's range, which fits the type.
    fn put(&mut self, value: u64);
}

impl Number for u64 {
    fn value(&self) -> u64 {
        *self
    }

    fn put(&mut self, value: u64) {
        *self = value;
    }
}

impl Number for usize {
    fn value(&self) -> u64 {
        *self as u64
    }

    fn put(&mut self, value: u64) {
        *self = value as usize;
    }
}

impl Number for u32 {
    fn value(&self) -> u64 {
        (*self).into()
    }

    fn put(&mut self, value: u64) {
        *self = value as u32;
    }
}

fn number<'a>(
    name: &'static str,
    number: &'a mut dyn Number,
    range: RangeInclusive<u64>,
) -> Field<'a> {
    Field {
        name,
        slot: Slot::Number(number, range),
    }
}

fn text<'a>(name: &'static str, text: &'a mut String) -> Field<'a> {
    Field {
        name,
        slot: Slot::Text(text),
    }
}

fn switch<'a>(name: &'static str, switch: &'a mut bool) -> Field<'a> {
    Field {
        name,
        slot: Slot::Switch(switch),
    }
}

fn in_range(value: i128, range: &RangeInclusive<u64>) -> bool {
    (i128::from(*range.start())..=i128::from(*range.end())).contains(&value)
}

fn span(range: &RangeInclusive<u64>) -> String {
    format!("a number from {} to {}", range.start(), range.end())
}

/// The variant of that name; serde knows the names and lists them in the error.
pub(super) fn choose<T: for<'de> Deserialize<'de>>(name: &str) -> Result<T, String> {
    T::deserialize(name.into_deserializer())
        .map_err(|error: ChoiceError| error.to_string().replace("variant", "name"))
}

/// What a framing is, in words.
const FRAMINGS: &str = "\"none\", \"lines\", or a table such as { kind = \"length\", width = 4 }";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// A count that JSON, TOML and JavaScript carry without loss.
const COUNT: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_but_listeners_and_processes_is_in_the_table() {
        let mut settings = Settings::default();
        let json = serde_json::to_value(&settings).unwrap();
        let mut names: Vec<_> = of_server(&mut settings)
            .iter()
            .map(|field| field.name)
            .collect();
        names.extend(["listeners", "processes"]);
        names.sort_unstable();
        assert_eq!(names, json.as_object().unwrap().keys().collect::<Vec<_>>());

        let mut listener = Listener::default();
        let json = serde_json::to_value(&listener).unwrap();
        let mut names: Vec<_> = of_listener(&mut listener)
            .iter()
            .map(|field| field.name)
            .collect();
        names.push("tls");
        names.sort_unstable();
        assert_eq!(names, json.as_object().unwrap().keys().collect::<Vec<_>>());

        let mut tls = Tls::default();
        let json = serde_json::to_value(&tls).unwrap();
        let mut names: Vec<_> = of_tls(&mut tls).iter().map(|field| field.name).collect();
        names.push("sni");
        names.sort_unstable();
        assert_eq!(names, json.as_object().unwrap().keys().collect::<Vec<_>>());
    }

    #[test]
    fn defaults_are_in_range() {
        let (mut settings, mut listener) = (Settings::default(), Listener::default());
        let mut tls = Tls::default();
        for field in of_server(&mut settings)
            .iter()
            .chain(&of_listener(&mut listener))
            .chain(&of_tls(&mut tls))
        {
            assert_eq!(field.check(), Ok(()), "{}", field.name);
        }
    }

    #[test]
    fn masks_are_octal() {
        for (given, mask) in [
            (Given::Word("027"), Some(0o27)),
            (Given::Word("0o27"), Some(0o27)),
            (Given::Quoted("22"), Some(0o22)),
            (Given::Integer(0o77), Some(0o77)),
            (Given::Word("1000"), None),
            (Given::Word("9"), None),
            (Given::Integer(-1), None),
        ] {
            assert_eq!(given.mask(), mask, "{given}");
        }
    }

    #[test]
    fn nearest_finds_typing_errors_only() {
        let known = ["workers", "reactors", "max_wait_time_ms"];
        assert_eq!(nearest("wrokers", known.into_iter()), Some("workers"));
        assert_eq!(
            nearest("max_wait_time", known.into_iter()),
            Some("max_wait_time_ms")
        );
        assert_eq!(nearest("banana", known.into_iter()), None);
    }

    #[test]
    fn wrong_values_are_named_with_what_is_allowed() {
        let mut settings = Settings::default();
        let mut fields = of_server(&mut settings);
        let mut set = |name: &str, given| {
            fields
                .iter_mut()
                .find(|field| field.name == name)
                .unwrap()
                .set(given)
                .unwrap_err()
        };
        assert_eq!(
            set("workers", Given::Word("x")),
            r#"must be a number from 1 to 1024, not "x""#
        );
        assert_eq!(
            set("workers", Given::Integer(-1)),
            "must be a number from 1 to 1024, not -1"
        );
        assert_eq!(
            set("workers", Given::Quoted("4")),
            r#"must be a number from 1 to 1024, not "4""#
        );
        assert_eq!(
            set("name", Given::Other("array")),
            "must be text, not a TOML array"
        );
        let error = set("dispatch", Given::Word("fastest"));
        assert!(
            error.contains("fastest") && error.contains("least_busy"),
            "{error}"
        );
    }
}
