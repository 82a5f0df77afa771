//! The flags of the commands that send messages.

use std::{net::IpAddr, time::Duration};

use crate::{
    Error, Report, Target,
    payload::{Alphabet, Payloads},
    plan::{Plan, Rate, Traffic},
    protocol::Protocol,
    run::{Progress, Watch, run},
    target::{Scheme, Sources},
    tls::{TlsOptions, TlsSetup},
};

/// How much, how long, and what is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    /// Connections at a time
    #[arg(long, short = 'c', value_name = "N", default_value_t = 64, value_parser = positive)]
    pub(crate) connections: usize,
    /// Messages under way on a connection; with --rate, at most
    #[arg(long, short = 'd', value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) depth: usize,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Open loop: so many messages a second over all connections, whether or not the server keeps up
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Connect again when the server ends a connection, and go on
    #[arg(long)]
    pub(crate) reconnect: bool,
}

/// The flags of all commands.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// How long to measure: 5s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long to make load before that, unmeasured
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// An answer that takes longer is an error
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Threads of the generator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) threads: usize,
    /// A process of the server: it and all its descendants are accounted for; may be repeated
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Vec<u32>,
    /// Connect from this address; several take turns [default: as the system likes, and many loopback
    /// addresses for many connections to this machine]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) source: Vec<IpAddr>,
    /// Print one object of JSON in place of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Do not show progress on the terminal
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
}

/// What a command adds to the flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) what: &'static str,
    pub(crate) target: &'a Target,
    pub(crate) schemes: &'a [Scheme],
    pub(crate) alpn: &'a [&'a [u8]],
    pub(crate) sizes: &'a [usize],
    pub(crate) alphabet: Alphabet,
}

impl Common {
    /// What stands in TLS's place if the target has none.
    pub(crate) fn tls(
        &self,
        target: &Target,
        alpn: &[&[u8]],
        resume: bool,
    ) -> Result<Option<TlsSetup>, Error> {
        match target.scheme.is_secure() {
            true => TlsSetup::new(&self.tls, target, alpn, resume).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn watch(&self, unit: &'static str) -> Watch<'_> {
        Watch {
            warmup: self.warmup,
            duration: self.duration,
            server_pids: &self.server_pid,
            progress: Progress::new(self.quiet),
            unit,
            settle: Duration::ZERO,
        }
    }
}

impl Load {
    /// Sends messages with a protocol, and measures.
    pub(crate) fn run<P: Protocol>(
        &self,
        spec: &Spec<'_>,
        of_thread: impl Fn(usize) -> P,
    ) -> Result<Report, Error> {
        let plan = self.plan(spec)?;
        let measured = run(&plan, &self.common.watch("messages"), of_thread)?;
        let mut report = Report {
            what: spec.what,
            target: spec.target.to_string(),
            connections: self.connections,
            depth: self.depth as u64,
            size: spec.sizes.iter().sum::<usize>() / spec.sizes.len().max(1),
            sizes: match spec.sizes {
                [] | [_] => Vec::new(),
                several => several.to_vec(),
            },
            threads: self.common.threads,
            rate: self.rate,
            messages: Some(measured.done),
            messages_per_s: Some(measured.per_second(measured.done)),
            ..Report::default()
        };
        measured.report(&mut report, self.reconnect);
        Ok(report)
    }

    fn plan(&self, spec: &Spec<'_>) -> Result<Plan, Error> {
        spec.target.check(spec.what, spec.schemes)?;
        check_threads(self.common.threads, self.connections)?;
        let to = spec.target.resolve()?;
        Ok(Plan {
            to,
            sources: Sources::new(&self.common.source, to, self.connections),
            tls: self.common.tls(spec.target, spec.alpn, true)?,
            payloads: Payloads::new(spec.sizes, spec.alphabet),
            traffic: Traffic::Messages,
            connections: self.connections,
            first: 0,
            threads: self.common.threads,
            depth: self.depth as u64,
            rate: self.rate.map(|per_second| Rate { per_second }),
            timeout: self.common.timeout,
            reconnect: self.reconnect,
        })
    }
}

pub(crate) fn check_threads(threads: usize, connections: usize) -> Result<(), Error> {
    match threads > connections {
        true => Err(Error::Usage(format!(
            "--threads {threads}: there are {connections} connections, each of which belongs to one thread"
        ))),
        false => Ok(()),
    }
}

/// `5s`, `500ms`, `2m`, `1.5s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a number and its unit: 5s, 500ms, 2m".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a number and its unit: 5s, 500ms, 2m".to_owned())?;
    match (0.0..=MAX_SECONDS).contains(&(number * unit)) {
        true => Ok(Duration::from_secs_f64(number * unit)),
        false => Err("it is longer than a day, or negative".into()),
    }
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MAX_NUMBER) => Ok(number),
        _ => Err(format!("a number from 1 to {MAX_NUMBER}")),
    }
}

pub(crate) fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 0..=MAX_SIZE) => Ok(number),
        _ => Err(format!("a number of bytes, up to {MAX_SIZE}")),
    }
}

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1e-3..=1e9).contains(&rate) => Ok(rate),
        _ => Err("a number a second, from 0.001 to 1000000000".into()),
    }
}

/// `Name: value`, as a whole line.
pub(crate) fn header(text: &str) -> Result<String, String> {
    let sound = |byte: u8| byte >= b' ' && byte != 0x7f || byte == b'\t';
    match text.split_once(':') {
        Some((name, value))
            if !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_graphic())
                && value.bytes().all(sound) =>
        {
            Ok(format!("{name}: {}\r\n", value.trim()))
        }
        _ => Err("a header is written as `Name: value`".into()),
    }
}

const MAX_SECONDS: f64 = 86_400.0;
const MAX_NUMBER: usize = 10_000_000;
const MAX_SIZE: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "5", "s", "-1s", "5x", "99999h", "NaNs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_are_whole_lines() {
        assert_eq!(header("A-b:  c "), Ok("A-b: c\r\n".into()));
        for text in ["", "no colon", ": x", "a b: c", "a: b\r\nc: d"] {
            assert!(header(text).is_err(), "{text:?}");
        }
    }
}
