//! The standard variables `OTEL_…`, read and checked.
//!
//! Those that the SDK reads itself (sampler, limits, resource, headers) are checked here as well: it
//! would fall back without a word, and a server whose traces go astray is to say so when it starts.

use std::{str::FromStr, time::Duration};

use http::Uri;

use crate::{Error, Result};

/// What the environment says about exporting spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// Where spans are sent: the whole address.
    pub(super) endpoint: String,
    /// For one batch.
    pub(super) timeout: Duration,
    /// Spans that may wait.
    pub(super) queue: usize,
    /// Spans in one request.
    pub(super) batch: usize,
    /// How long a span waits for others.
    pub(super) delay: Duration,
    /// Whether the environment says what the service's name is.
    pub(super) is_named: bool,
    /// Whether a request's `traceparent` is obeyed.
    pub(super) joins: bool,
}

impl Config {
    /// `None`: nothing is to be exported.
    pub(super) fn from_environment() -> Result<Option<Self>> {
        Config::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        // By the standard an empty variable is as good as none.
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let of_traces = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
            let all = format!("OTEL_EXPORTER_OTLP_{name}");
            match get(&own) {
                Some(value) => Some((own, value)),
                None => get(&all).map(|value| (all, value)),
            }
        };
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                return refuse("OTEL_TRACES_EXPORTER", other, "must be otlp or none");
            }
        }
        let endpoint = match of_traces("ENDPOINT") {
            None => return Ok(None),
            Some((name, value)) => {
                check_endpoint(&name, &value)?;
                match name.contains("TRACES") {
                    true => value,
                    false => format!("{}/v1/traces", value.trim_end_matches('/')),
                }
            }
        };
        if let Some((name, value)) = of_traces("PROTOCOL")
            && value != "http/protobuf"
        {
            let hint = "must be http/protobuf: name the collector's port for that, often 4318";
            return refuse(&name, &value, hint);
        }
        if let Some((name, value)) = of_traces("COMPRESSION")
            && value != "none"
        {
            return refuse(&name, &value, "must be none");
        }
        check_sampler(get)?;
        let timeout = match of_traces("TIMEOUT") {
            Some((name, value)) => number(&name, &value)?,
            None => 10_000,
        };
        let default = |name: &str, default: u64| match get(name) {
            Some(value) => number(name, &value),
            None => Ok(default),
        };
        let queue = default("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
        if queue > LARGEST_QUEUE {
            let hint = format!("must be {LARGEST_QUEUE} at most");
            return refuse("OTEL_BSP_MAX_QUEUE_SIZE", &queue.to_string(), &hint);
        }
        let batch = default("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512.min(queue))?;
        if batch > queue {
            let hint = format!("must be OTEL_BSP_MAX_QUEUE_SIZE, which is {queue}, at most");
            return refuse("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &batch.to_string(), &hint);
        }
        let delay = default("OTEL_BSP_SCHEDULE_DELAY", 5000)?;
        let is_named = get("OTEL_SERVICE_NAME").is_some()
            || get("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| {
                let mut keys = all.split(',').filter_map(|pair| pair.split('=').next());
                keys.any(|key| key.trim() == "service.name")
            });
        let propagators = get("OTEL_PROPAGATORS");
        Ok(Some(Config {
            endpoint,
            timeout: Duration::from_millis(timeout),
            queue: queue as usize,
            batch: batch as usize,
            delay: Duration::from_millis(delay),
            is_named,
            joins: propagators
                .is_none_or(|all| all.split(',').any(|one| one.trim() == "tracecontext")),
        }))
    }
}

fn check_endpoint(name: &str, value: &str) -> Result {
    let hint = match Uri::from_str(value) {
        Ok(uri) if uri.host().is_none() => "must be an address such as http://127.0.0.1:4318",
        Ok(uri) if uri.scheme_str() == Some("http") => return Ok(()),
        Ok(uri) if uri.scheme_str() == Some("https") => {
            "must be http: run a collector on this machine, and let that one speak TLS"
        }
        _ => "must be an address such as http://127.0.0.1:4318",
    };
    refuse(name, value, hint)
}

fn check_sampler(get: impl Fn(&str) -> Option<String>) -> Result {
    let name = "OTEL_TRACES_SAMPLER";
    let Some(sampler) = get(name) else {
        return Ok(());
    };
    match sampler.as_str() {
        "always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off" => Ok(()),
        "traceidratio" | "parentbased_traceidratio" => {
            let name = "OTEL_TRACES_SAMPLER_ARG";
            let value = get(name).unwrap_or_default();
            match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
                _ => refuse(
                    name,
                    &value,
                    "must be a number from 0 to 1 for this sampler",
                ),
            }
        }
        other => {
            let hint = "must be always_on, always_off or traceidratio, or one of these after \
                        parentbased_";
            refuse(name, other, hint)
        }
    }
}

fn number(name: &str, value: &str) -> Result<u64> {
    match value.trim().parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => refuse(name, value, "must be a whole number above 0"),
    }
}

fn refuse<T>(name: &str, value: &str, hint: &str) -> Result<T> {
    Err(Error::usage(format!(
        "the environment variable {name} = {value:?}: {hint}"
    )))
}

/// A span takes about 1 KiB while it waits: a gigabyte.
const LARGEST_QUEUE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Config>> {
        Config::read(|name| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/");

    #[test]
    fn without_a_collector_nothing_is_exported() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap(), None);
        assert_eq!(
            read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]).unwrap(),
            None
        );
        assert_eq!(
            read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap(),
            None
        );
    }

    #[test]
    fn defaults_are_those_of_the_standard() {
        let config = read(&[ENDPOINT]).unwrap().unwrap();
        let expected = Config {
            endpoint: "http://localhost:4318/v1/traces".to_owned(),
            timeout: Duration::from_secs(10),
            queue: 2048,
            batch: 512,
            delay: Duration::from_secs(5),
            is_named: false,
            joins: true,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn variables_of_traces_go_before_those_of_all() {
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/here");
        let config = read(&[
            ENDPOINT,
            own,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=x"),
            ("OTEL_PROPAGATORS", "b3"),
        ]);
        let config = config.unwrap().unwrap();
        assert_eq!(config.endpoint, "http://b/here");
        assert_eq!(config.timeout, Duration::from_millis(2));
        assert_eq!((config.queue, config.batch), (100, 100));
        assert_eq!((config.is_named, config.joins), (true, false));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ] {
            let error = read(&[ENDPOINT, (name, value)]).unwrap_err();
            assert!(error.is_usage(), "{error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(value), "{text}");
        }
        let ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        for argument in ["", "2", "half"] {
            let all = [ENDPOINT, ratio, ("OTEL_TRACES_SAMPLER_ARG", argument)];
            assert!(read(&all).is_err(), "{argument}");
        }
        let all = [ENDPOINT, ratio, ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert!(read(&all).is_ok());
    }
}
