//! What the service manager is told: systemd's `Type=notify`, datagrams to `NOTIFY_SOCKET`.
//!
//! | when | what is said |
//! |---|---|
//! | every process is ready | `READY=1`, with `MAINPID` and `STATUS` |
//! | a reload, or a HUP, begins | `RELOADING=1`, with `MONOTONIC_USEC` |
//! | it has ended, well or not | `READY=1` |
//! | a stop begins | `STOPPING=1`, with `EXTEND_TIMEOUT_USEC`: `max_wait_time_ms` and some seconds |
//! | four times in `WATCHDOG_USEC` | `WATCHDOG=1`, as long as the master answers |
//!
//! The watchdog stands for the whole server: with each beat the manager asks the master, whose main
//! thread asks every reactor. A question that stays open for half of `WATCHDOG_USEC` ends the beats,
//! and the service manager does what the unit says. While a master starts, or waits to be started
//! again, the beats go on: that has time-outs of its own.
//!
//! Without the variables this does nothing, and costs nothing.

use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::places::Stage;
use crate::{Error, Result};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    said: Stage,
    watchdog: Option<Watchdog>,
}

/// The beats that the service manager waits for.
#[derive(Debug)]
struct Watchdog {
    limit: Duration,
    next: Instant,
    /// The question that the master has not answered, and since when.
    open: Option<(u64, Instant)>,
    last: u64,
    silent: bool,
}

/// The variables of the service manager: children are not to have them.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

impl Notify {
    /// As the environment says; the variables stay (see [`VARIABLES`]).
    pub(super) fn from_environment(now: Instant) -> Result<Self> {
        let [socket, usec, pid] = VARIABLES.map(std::env::var_os);
        Self::new(now, socket, usec, pid)
    }

    /// Says what has changed since the last time.
    pub(super) fn stage(&mut self, now: Stage, status: impl FnOnce() -> String) {
        if self.socket.is_none() || now == self.said {
            return;
        }
        self.said = now;
        match now {
            Stage::Starting => {}
            Stage::Ready => self.say(&format!(
                "READY=1\nMAINPID={}\nSTATUS={}",
                std::process::id(),
                status()
            )),
            Stage::Reloading => self.reloading(),
            Stage::Stopping => self.say("STOPPING=1\nSTATUS=stopping"),
        }
    }

    /// A change that is over at once, such as a HUP's: the service manager may wait for its end.
    pub(super) fn reloaded_at_once(&mut self) {
        if self.socket.is_some() && self.said == Stage::Ready {
            self.reloading();
            self.say("READY=1");
        }
    }

    /// How long the stop that begins may take.
    pub(super) fn stop_takes(&self, most: Duration) {
        let micros = (most + GRACE).as_micros();
        self.say(&format!("EXTEND_TIMEOUT_USEC={micros}"));
    }

    /// When to call [`beat`](Self::beat).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.next)
    }

    /// Beats if it is time; returns a question for the master, if there is `has_master` to answer.
    pub(super) fn beat(&mut self, now: Instant, has_master: bool) -> Option<u64> {
        let watchdog = self.watchdog.as_mut()?;
        if now < watchdog.next {
            return None;
        }
        watchdog.next = now + watchdog.limit / 4;
        if !has_master {
            watchdog.open = None;
        }
        let silent = watchdog
            .open
            .is_some_and(|(_, since)| now.duration_since(since) >= watchdog.limit / 2);
        let question = (has_master && watchdog.open.is_none()).then(|| {
            watchdog.last += 1;
            watchdog.open = Some((watchdog.last, now));
            watchdog.last
        });
        let changed = silent != std::mem::replace(&mut watchdog.silent, silent);
        match (silent, changed) {
            (true, true) => {
                tracing::error!(
                    "the master does not answer: the service manager is not told any more that \
                     the server is alive"
                );
                self.say("STATUS=the master does not answer");
            }
            (true, false) => {}
            (false, _) => self.say("WATCHDOG=1"),
        }
        question
    }

    /// The master has answered this question.
    pub(super) fn answered(&mut self, number: u64) {
        if let Some(watchdog) = &mut self.watchdog
            && watchdog.open.is_some_and(|(open, _)| open == number)
        {
            watchdog.open = None;
        }
    }

    fn new(
        now: Instant,
        socket: Option<OsString>,
        usec: Option<OsString>,
        pid: Option<OsString>,
    ) -> Result<Self> {
        let mut notify = Notify {
            socket: None,
            said: Stage::Starting,
            watchdog: None,
        };
        let Some(path) = socket.filter(|path| !path.is_empty()) else {
            return Ok(notify);
        };
        let wrong = |error: io::Error| {
            Error::usage(format!(
                "the variable NOTIFY_SOCKET = {path:?} names no socket of a service manager: \
                 {error} (unset it to start without one)"
            ))
        };
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(&path),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it begins neither with / nor with @",
            )),
        };
        let socket = UnixDatagram::unbound().map_err(wrong)?;
        // The manager does not hang because of one that does.
        socket.set_write_timeout(Some(PATIENCE)).map_err(wrong)?;
        notify.socket = Some((socket, address.map_err(wrong)?));

        let number =
            |text: Option<OsString>| text.and_then(|text| text.to_str()?.parse::<u64>().ok());
        let is_ours = pid.is_none() || number(pid) == Some(std::process::id().into());
        if let Some(usec) = number(usec).filter(|&usec| usec > 0 && is_ours) {
            notify.watchdog = Some(Watchdog {
                limit: Duration::from_micros(usec),
                next: now,
                open: None,
                last: 0,
                silent: false,
            });
        }
        Ok(notify)
    }

    fn reloading(&self) {
        let time = clock_gettime(ClockId::Monotonic);
        let micros = time.tv_sec * 1_000_000 + time.tv_nsec / 1000;
        self.say(&format!(
            "RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"
        ));
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::warn!("cannot tell the service manager (NOTIFY_SOCKET): {error}");
        }
    }
}

/// How long telling may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a stop may take beyond `max_wait_time_ms`: workers and master are given some seconds each.
const GRACE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> UnixDatagram {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
    }

    fn said(server: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = server.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn quiet(server: &UnixDatagram) -> bool {
        server.set_nonblocking(true).unwrap();
        let silent = server.recv(&mut [0; 64]).is_err();
        server.set_nonblocking(false).unwrap();
        silent
    }

    fn notify(name: &str, usec: Option<&str>, now: Instant) -> Notify {
        let socket = Some(OsString::from(format!("@{name}")));
        Notify::new(now, socket, usec.map(OsString::from), None).unwrap()
    }

    #[test]
    fn every_change_is_told_once() {
        let name = format!("gannet-notify-{}", std::process::id());
        let (server, now) = (server(&name), Instant::now());
        let mut notify = notify(&name, None, now);
        assert_eq!(notify.poll_timeout(), None);
        notify.stage(Stage::Starting, String::new);
        notify.stage(Stage::Ready, || "fine".to_owned());
        notify.stage(Stage::Ready, || unreachable!());
        let pid = std::process::id();
        assert_eq!(
            said(&server),
            format!("READY=1\nMAINPID={pid}\nSTATUS=fine")
        );
        notify.stage(Stage::Reloading, String::new);
        let reloading = said(&server);
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        notify.stage(Stage::Ready, || "fine".to_owned());
        assert!(said(&server).starts_with("READY=1"));
        notify.reloaded_at_once();
        assert!(said(&server).starts_with("RELOADING=1"));
        assert_eq!(said(&server), "READY=1");
        notify.stage(Stage::Stopping, String::new);
        assert_eq!(said(&server), "STOPPING=1\nSTATUS=stopping");
        assert!(quiet(&server));
    }

    #[test]
    fn beats_end_when_the_master_is_silent_and_come_back_with_it() {
        let name = format!("gannet-watchdog-{}", std::process::id());
        let (server, begin) = (server(&name), Instant::now());
        let mut notify = notify(&name, Some("4000000"), begin);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(notify.beat(begin, true), Some(1));
        assert_eq!(said(&server), "WATCHDOG=1");
        assert_eq!(notify.poll_timeout(), Some(at(1)));
        assert_eq!(notify.beat(begin, true), None, "it is not time");
        assert!(quiet(&server));
        notify.answered(1);
        assert_eq!(notify.beat(at(1), true), Some(2));
        assert_eq!(said(&server), "WATCHDOG=1");
        assert_eq!(notify.beat(at(2), true), None, "one question at a time");
        assert_eq!(said(&server), "WATCHDOG=1");
        notify.beat(at(3), true);
        assert_eq!(said(&server), "STATUS=the master does not answer");
        notify.beat(at(4), true);
        assert!(quiet(&server));
        notify.answered(1);
        notify.beat(at(5), true);
        assert!(quiet(&server), "the answer to another question");
        // A master that is started anew is nobody's silence.
        notify.beat(at(6), false);
        assert_eq!(said(&server), "WATCHDOG=1");
        assert_eq!(notify.beat(at(7), true), Some(3));
    }

    #[test]
    fn a_socket_that_cannot_be_is_refused_and_a_strange_watchdog_is_not_ours() {
        let now = Instant::now();
        let error = Notify::new(now, Some("run/notify".into()), None, None).unwrap_err();
        assert!(
            error.is_usage() && error.to_string().contains("run/notify"),
            "{error}"
        );
        let other = Some(OsString::from("1"));
        let notify = Notify::new(now, Some("@x".into()), Some("1000".into()), other).unwrap();
        assert_eq!(notify.poll_timeout(), None);
        let none = Notify::new(now, None, Some("1000".into()), None).unwrap();
        assert_eq!(none.poll_timeout(), None);
    }
}
