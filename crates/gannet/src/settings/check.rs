//! What must be true of settings together, wherever they came from.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    Forwarded, Listener, Protocol, ProxyProtocol, Settings, Trust,
    address::{Endpoint, UNIXGRAM, resolve},
    fields::{of_listener, of_server, of_tls},
};
use crate::{ConnId, Error, Result, affinity, channel::Implements, handler, layout::Dimensions};

/// Refuses values out of range and combinations that cannot work; returns the resolved addresses
/// of the listeners.
pub(crate) fn check(settings: &mut Settings) -> Result<Vec<Endpoint>> {
    ranges(settings)?;
    let wrong = |message: String| Err(Error::usage(message));

    if !settings.ring_size.is_power_of_two() {
        let size = settings.ring_size;
        return wrong(format!(
            "`ring_size` = {size}: must be a power of two, such as 262144"
        ));
    }
    crate::thread::check(settings)?;
    let most = settings.reactors * ConnId::MAX_SLOTS;
    if settings.max_connections > most {
        return wrong(format!(
            "`max_connections` = {}: must be at most {most} ({} for each of `reactors` = {})",
            settings.max_connections,
            ConnId::MAX_SLOTS,
            settings.reactors
        ));
    }
    let largest = settings.arena_size / 4;
    for (index, listener) in settings.listeners.iter().enumerate() {
        let whose = format!("listener {index} ({})", listener.address);
        let framing = listener.framing.rule();
        let framing = framing.map_err(|why| Error::usage(format!("{whose}: `framing`: {why}")))?;
        if framing.is_some() && listener.protocol != Protocol::Tcp {
            return wrong(format!(
                "{whose}: `framing` is for TCP only: {} has messages of its own; remove it",
                listener.protocol.scheme()
            ));
        }
        check_proxies(listener).map_err(|why| Error::usage(format!("{whose}: {why}")))?;
        if listener.max_message_size > largest {
            return wrong(format!(
                "listener {index} ({}): `max_message_size` = {}: must be at most {largest}, a \
                 quarter of `arena_size` = {}",
                listener.address, listener.max_message_size, settings.arena_size
            ));
        }
    }
    if !settings.admin_listen.is_empty() {
        resolve(&settings.admin_listen).map_err(|error| error.context("`admin_listen`"))?;
    }
    crate::process::check(settings)?;
    for (name, list) in [
        ("reactor_cpus", &settings.reactor_cpus),
        ("worker_cpus", &settings.worker_cpus),
    ] {
        affinity::usable(list)
            .map_err(|why| Error::usage(format!("`{name}` = {list:?}: {why}")))?;
    }
    super::logs::check(settings)?;
    addresses(settings)
}

/// Refuses settings about proxies that cannot work together.
fn check_proxies(listener: &Listener) -> std::result::Result<(), String> {
    let trust = Trust::parse(&listener.trusted_proxies)
        .map_err(|why| format!("`trusted_proxies`: {why}"))?;
    let has_header = listener.proxy_protocol == ProxyProtocol::Required;
    let is_forwarded = listener.forwarded != Forwarded::Off;
    let is_http = matches!(listener.protocol, Protocol::Http | Protocol::Websocket);
    let is_unix = listener.address.starts_with("unix:");
    let scheme = listener.protocol.scheme();
    let wrong = if has_header && listener.protocol == Protocol::Udp {
        "`proxy_protocol` is for connections, and datagrams have none: remove it".to_owned()
    } else if is_forwarded && !is_http {
        format!("`forwarded` is for HTTP and WebSocket, and this is {scheme}: remove it")
    } else if (has_header || is_forwarded) && trust.is_empty() {
        let setting = if has_header {
            "proxy_protocol"
        } else {
            "forwarded"
        };
        format!(
            "`{setting}` without `trusted_proxies` believes nobody: add the addresses of your \
             proxies, such as trusted_proxies = [\"10.0.0.1\"]"
        )
    } else if !has_header && !is_forwarded && !trust.is_empty() {
        "`trusted_proxies` means nothing by itself: set `proxy_protocol` or `forwarded` too, or \
         remove it"
            .to_owned()
    } else if trust.has_unix() && !is_unix {
        "`trusted_proxies`: \"unix\" is for listeners on a Unix socket: remove it".to_owned()
    } else if is_unix && !trust.is_empty() && !trust.has_unix() {
        "who connects to a Unix socket has no address: add \"unix\" to `trusted_proxies`".to_owned()
    } else {
        return Ok(());
    };
    Err(wrong)
}

/// Refuses a handler that lacks a method which the settings need.
pub(crate) fn check_handler(settings: &Settings, implements: &Implements) -> Result {
    for listener in &settings.listeners {
        if let Some(error) = handler::lacks(implements, listener.protocol, &listener.address) {
            return Err(error);
        }
    }
    if settings.task_workers > 0 && !implements.task {
        return Err(Error::usage(format!(
            "`task_workers` = {}, but the handler has no `task`: implement `Handler::task`, or \
             start without task workers",
            settings.task_workers
        )));
    }
    Ok(())
}

/// Sizes of the shared memory for these settings.
///
/// Each reactor may get all connections, so each has slots for them; and some more, because a
/// slot is free again only when the handler has finished with the connection's last event.
pub(crate) fn dimensions(settings: &Settings) -> Dimensions {
    let headroom = settings.max_connections / 8 + 64;
    let streams = match settings.listeners.iter().any(Listener::speaks_http2) {
        true => settings.most_streams(),
        false => 0,
    };
    Dimensions {
        reactors: settings.reactors,
        slots: (settings.max_connections + headroom + streams).min(ConnId::MAX_SLOTS),
        ring: settings.ring_size,
        arena: settings.arena_size,
        tls_words: crate::tls::row_words(settings),
    }
}

/// The absolute path of the pid file: as set, or the default place.
pub(crate) fn pid_file(settings: &Settings) -> Result<PathBuf> {
    let path = match &settings.pid_file {
        Some(path) => path.clone(),
        None => default_directory().join(format!("{}.pid", settings.name.replace('/', "-"))),
    };
    std::path::absolute(&path)
        .map_err(|error| Error::usage(format!("`pid_file` = {:?}: {error}", path.display())))
}

/// Raises the limit of open files as far as it goes (for root: as far as it is needed), and sets `max_connections` by it if that is
/// left to the server; says so if a number that was asked for is out of reach.
pub(crate) fn raise_file_limit(settings: &mut Settings) {
    let limit = getrlimit(Resource::Nofile);
    let to = |files| Rlimit {
        current: files,
        maximum: files,
    };
    let wanted = settings.max_connections as u64 + OTHER_FILES;
    // Beyond the hard limit only root gets.
    let beyond = limit.maximum.is_some_and(|most| most < wanted)
        && setrlimit(Resource::Nofile, to(Some(wanted))).is_ok();
    if !beyond && let Err(error) = setrlimit(Resource::Nofile, to(limit.maximum)) {
        tracing::warn!("cannot raise the limit of open files (RLIMIT_NOFILE): {error}");
    }
    if settings.max_connections == 0 {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        settings.max_connections = connections_by_files(files);
    }
    let needed = settings.max_connections as u64 + OTHER_FILES;
    if let Some(files) = getrlimit(Resource::Nofile)
        .current
        .filter(|&files| files < needed)
    {
        tracing::warn!(
            "the limit of open files is {files}, too few for max_connections = {}: accepting will \
             pause before that; raise it (ulimit -Hn, LimitNOFILE=) or lower max_connections",
            settings.max_connections
        );
    }
}

/// How many connections a limit of open files is enough for, where nobody has named a number.
pub(crate) fn connections_by_files(files: u64) -> usize {
    let possible = files.saturating_sub(OTHER_FILES).max(1);
    usize::try_from(possible)
        .unwrap_or(usize::MAX)
        .min(MOST_BY_DEFAULT)
}

fn ranges(settings: &mut Settings) -> Result {
    let wrong = |whose: &str, name: &str, what: String| {
        Err(Error::usage(format!("{whose}`{name}` {what}")))
    };
    for field in of_server(settings) {
        if let Err(what) = field.check() {
            return wrong("", field.name, what);
        }
    }
    for (index, listener) in settings.listeners.iter_mut().enumerate() {
        let whose = format!("listener {index} ({}): ", listener.address);
        for field in of_listener(listener) {
            if let Err(what) = field.check() {
                return wrong(&whose, field.name, what);
            }
        }
        if let Some(tls) = &mut listener.tls {
            for field in of_tls(tls) {
                if let Err(what) = field.check() {
                    return wrong(&whose, &format!("tls.{}", field.name), what);
                }
            }
        }
        super::tls::check(listener, &whose)?;
    }
    Ok(())
}

fn addresses(settings: &Settings) -> Result<Vec<Endpoint>> {
    if settings.listeners.is_empty() {
        return Err(Error::usage(
            "there is nothing to listen on: give an address with --listen or GANNET_LISTEN",
        ));
    }
    let mut addresses: Vec<Endpoint> = Vec::new();
    for (index, listener) in settings.listeners.iter().enumerate() {
        let address = resolve(&listener.address)?;
        check_socket(index, listener, &address)?;
        let clash = addresses
            .iter()
            .zip(&settings.listeners)
            .position(|other| overlap(other, (&address, listener)));
        if let Some(other) = clash {
            let written = |index: usize| {
                let listener = &settings.listeners[index];
                format!("{}://{}", listener.scheme(), listener.address)
            };
            let hint = match (settings.listeners[other].protocol, listener.protocol) {
                (Protocol::Http, Protocol::Websocket) | (Protocol::Websocket, Protocol::Http) => {
                    " (a WebSocket listener serves HTTP as well)"
                }
                _ => "",
            };
            return Err(Error::usage(format!(
                "listeners {other} ({}) and {index} ({}) want the same {}: give one of them \
                 another{hint}",
                written(other),
                written(index),
                if address.ip().is_some() {
                    "port"
                } else {
                    "socket"
                }
            )));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// Refuses settings of a socket that its kind of address has not.
fn check_socket(index: usize, listener: &Listener, address: &Endpoint) -> Result {
    let wrong = |what: &str| {
        let address = &listener.address;
        Err(Error::usage(format!(
            "listener {index} ({address}): {what}"
        )))
    };
    let is_udp = listener.protocol == Protocol::Udp;
    match address {
        Endpoint::Unix(_) if is_udp != listener.address.starts_with(UNIXGRAM) => wrong(
            "Unix datagrams have protocol = \"udp\" and an address that begins with unixgram:, \
             all others one that begins with unix:",
        ),
        Endpoint::Unix(_) if listener.reuse_port => {
            wrong("`reuse_port` is for network addresses: remove it")
        }
        Endpoint::Unix(_) if listener.v6only => wrong("`v6only` is for IPv6 addresses: remove it"),
        Endpoint::Ip(ip) if ip.is_ipv4() && listener.v6only => {
            wrong("`v6only` is for IPv6 addresses: remove it, or listen on [::]")
        }
        _ => Ok(()),
    }
}

/// Whether two sockets cannot have these addresses at the same time.
fn overlap(one: (&Endpoint, &Listener), other: (&Endpoint, &Listener)) -> bool {
    let (Some(a), Some(b)) = (one.0.ip(), other.0.ip()) else {
        return one.0 == other.0;
    };
    let is_udp = |listener: &Listener| listener.protocol == Protocol::Udp;
    if a.port() != b.port() || a.port() == 0 || is_udp(one.1) != is_udp(other.1) {
        return false;
    }
    let covers = |wide: std::net::SocketAddr, listener: &Listener, narrow: std::net::SocketAddr| {
        wide.ip().is_unspecified()
            && (wide.is_ipv4() == narrow.is_ipv4() || wide.is_ipv6() && !listener.v6only)
    };
    a.ip() == b.ip() || covers(a, one.1, b) || covers(b, other.1, a)
}

fn default_directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        return directory.into();
    }
    let run = Path::new("/run");
    if rustix::process::geteuid().is_root() && run.is_dir() {
        return run.to_owned();
    }
    std::env::temp_dir()
}

/// `max_connections` is at most this where the user has not said more.
const MOST_BY_DEFAULT: usize = 100_000;
/// Descriptors of the master besides connections: listeners, rings, eventfds, the usual.
pub(crate) const OTHER_FILES: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Listener;

    fn with(change: impl FnOnce(&mut Settings)) -> Result<Vec<Endpoint>> {
        let mut settings = Settings {
            listeners: vec![Listener::tcp("127.0.0.1:0")],
            ..Settings::default()
        };
        change(&mut settings);
        check(&mut settings)
    }

    fn error(change: impl FnOnce(&mut Settings)) -> String {
        let error = with(change).unwrap_err();
        assert!(error.is_usage());
        error.to_string()
    }

    #[test]
    fn values_from_the_program_are_checked_like_all_others() {
        assert_eq!(
            error(|settings| settings.workers = 0),
            "`workers` = 0: must be a number from 1 to 1024"
        );
        assert_eq!(
            error(|settings| settings.listeners[0].max_head_size = 1),
            "listener 0 (127.0.0.1:0): `max_head_size` = 1: must be a number from 1024 to 1048576"
        );
        assert_eq!(
            error(|settings| settings.ring_size = 100_000),
            "`ring_size` = 100000: must be a power of two, such as 262144"
        );
        assert!(error(|settings| settings.max_connections = 2 << 20).contains("`reactors` = 1"));
        assert!(
            error(|settings| settings.listeners[0].max_message_size = 17 << 20)
                .contains("a quarter of `arena_size`")
        );
        assert!(error(|settings| settings.log_level = "a=b=c".to_owned()).contains("log_level"));
    }

    #[test]
    fn settings_about_proxies_go_together() {
        let one = |listener: Listener| error(|settings| settings.listeners = vec![listener]);
        let at = "127.0.0.1:0";
        let none: [&str; 0] = [];
        for (listener, why) in [
            (
                Listener::udp(at).behind_proxy_protocol(["::1"]),
                "datagrams",
            ),
            (
                Listener::tcp(at).behind_proxy(Forwarded::Forwarded, ["::1"]),
                "this is tcp",
            ),
            (
                Listener::tcp(at).behind_proxy_protocol(none),
                "believes nobody",
            ),
            (
                Listener::http(at).behind_proxy(Forwarded::XForwardedFor, none),
                "`forwarded` without `trusted_proxies`",
            ),
            (
                Listener::http(at).behind_proxy(Forwarded::Off, ["::1"]),
                "means nothing by itself",
            ),
            (
                Listener::tcp(at).behind_proxy_protocol(["unix"]),
                "on a Unix socket",
            ),
            (
                Listener::tcp("unix:/a").behind_proxy_protocol(["::1"]),
                "has no address",
            ),
            (
                Listener::tcp(at).behind_proxy_protocol(["10.0.0.1/8"]),
                "listener 0 (127.0.0.1:0): `trusted_proxies`: \"10.0.0.1/8\" has bits",
            ),
        ] {
            let error = one(listener);
            assert!(error.contains(why), "{error}");
        }
        let both = Listener::http(at)
            .behind_proxy_protocol(["10.0.0.0/8"])
            .behind_proxy(Forwarded::XForwardedFor, ["fd00::/8"]);
        assert!(with(|settings| settings.listeners = vec![both]).is_ok());
        let unix = Listener::tcp("unix:/a").behind_proxy_protocol(["unix"]);
        assert!(with(|settings| settings.listeners = vec![unix]).is_ok());
    }

    #[test]
    fn addresses_are_there_and_apart() {
        assert!(error(|settings| settings.listeners.clear()).contains("nothing to listen on"));
        let both = |one: Listener, other: Listener| {
            with(|settings| settings.listeners = vec![one, other]).map_err(|e| e.to_string())
        };
        let clash = both(
            Listener::http("127.0.0.1:80"),
            Listener::websocket("0.0.0.0:80"),
        )
        .unwrap_err();
        assert!(
            clash.contains("0 (http://127.0.0.1:80) and 1 (ws://0.0.0.0:80)"),
            "{clash}"
        );
        assert!(clash.contains("serves HTTP as well"), "{clash}");
        assert!(both(Listener::tcp("127.0.0.1:0"), Listener::tcp("127.0.0.1:0")).is_ok());
        assert!(both(Listener::tcp("127.0.0.1:80"), Listener::tcp("127.0.0.2:80")).is_ok());
        let six_only = Listener {
            v6only: true,
            ..Listener::tcp("[::]:80")
        };
        assert!(both(Listener::tcp("127.0.0.1:80"), six_only).is_ok());
        let clash = both(Listener::tcp("127.0.0.1:80"), Listener::tcp("[::]:80")).unwrap_err();
        assert!(clash.contains("same port"), "[::] takes IPv4 too: {clash}");
        assert!(both(Listener::tcp("unix:/a"), Listener::tcp("unix:@/a")).is_ok());
        assert!(both(Listener::tcp("127.0.0.1:80"), Listener::udp("127.0.0.1:80")).is_ok());
        assert!(both(Listener::udp("127.0.0.1:80"), Listener::udp("0.0.0.0:80")).is_err());
        let clash = both(Listener::tcp("unix:/a"), Listener::http("unix:/a")).unwrap_err();
        assert!(clash.contains("same socket"), "{clash}");
    }

    #[test]
    fn sockets_have_the_settings_of_their_kind() {
        let one = |address: &str, change: fn(&mut Listener)| {
            error(|settings| {
                settings.listeners = vec![Listener::tcp(address)];
                change(&mut settings.listeners[0]);
            })
        };
        assert!(one("127.0.0.1:0", |listener| listener.v6only = true).contains("IPv6"));
        assert!(one("unix:/a", |listener| listener.v6only = true).contains("IPv6"));
        assert!(one("unix:/a", |listener| listener.protocol = Protocol::Udp).contains("unixgram:"));
        assert!(one("unixgram:/a", |_| {}).contains("unixgram:"));
        assert!(one("unix:/a", |listener| listener.reuse_port = true).contains("network"));
        assert!(one("unix:/a", |listener| listener.unix_mode = 0o1777).contains("unix_mode"));
    }

    #[test]
    fn each_reactor_has_slots_for_all_connections() {
        let mut settings = Settings {
            max_connections: 1000,
            reactors: 4,
            ..Settings::default()
        };
        assert_eq!(dimensions(&settings).slots, 1000 + 125 + 64);
        settings.max_connections = 4 << 20;
        assert_eq!(dimensions(&settings).slots, ConnId::MAX_SLOTS);
    }

    #[test]
    fn handlers_that_lack_a_method_are_refused() {
        let mut settings = Settings {
            listeners: vec![Listener::tcp("a:1")],
            ..Settings::default()
        };
        let mut implements = Implements::default();
        assert!(check_handler(&settings, &implements).is_err());
        implements.receive = true;
        assert!(check_handler(&settings, &implements).is_ok());
        settings.task_workers = 1;
        let error = check_handler(&settings, &implements)
            .unwrap_err()
            .to_string();
        assert!(error.contains("Handler::task"), "{error}");
    }

    #[test]
    fn pid_files_have_absolute_paths() {
        let mut settings = Settings {
            name: "a/b".to_owned(),
            ..Settings::default()
        };
        assert!(pid_file(&settings).unwrap().ends_with("a-b.pid"));
        settings.pid_file = Some("x.pid".into());
        assert!(pid_file(&settings).unwrap().is_absolute());
    }
}
