//! The admin listener: metrics and health over HTTP, on the manager's own thread.
//!
//! - [`http`] is a connection; [`health`] answers `/healthz` and `/readyz`.
//! - [`page`] makes `/metrics`, from [`catalog`] and [`export`], by [`text`]; [`record`] has what the manager keeps for
//!   it, [`processes`] what the kernel knows.
//!
//! The manager must never wait for a scraper: nothing here blocks, a turn does a bounded piece of
//! work, and what clients hold is bounded by [`MAX_CONNECTIONS`] and the limits of a connection. The
//! sockets are in an epoll set of their own, which is one descriptor in the manager's.

mod catalog;
mod export;
mod health;
mod http;
mod page;
mod processes;
mod record;
mod text;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::SocketFlags,
};

pub(crate) use self::export::Export;
use self::{
    health::Health,
    http::{Answer, Connection, Wanted},
    page::Facts,
    text::Format,
};
pub(super) use self::{processes::Usage, record::Record};
use super::{activation::Passed, listeners::Listeners, report::Report};
use crate::{Error, Listener, Result, Settings, account::Rights, settings};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Admin {
    epoll: OwnedFd,
    listeners: Listeners,
    address: String,
    connections: BTreeMap<u64, Connection>,
    last: u64,
    /// Accepting is paused until then: there were no descriptors.
    paused: Option<Instant>,
    service: Service,
}

/// What answers requests.
#[derive(Debug, Default)]
struct Service {
    health: Health,
    counts: Counts,
    exports: Vec<Export>,
    /// The last page, and when it was made.
    cached: Option<(Instant, Format, String)>,
}

/// What has happened here.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By status code.
    requests: BTreeMap<u16, u64>,
    refused: u64,
}

/// Number of the admin's epoll set in the manager's; no child and no connection has it.
pub(super) const TOKEN: u64 = 1 << 63;

impl Admin {
    /// Listens where `admin_listen` says, if it does.
    pub(super) fn bind(
        settings: &Settings,
        exports: Vec<Export>,
        rights: &Rights,
    ) -> Result<Option<Self>> {
        if settings.admin_listen.is_empty() {
            return Ok(None);
        }
        let named = |error: Error| error.context("`admin_listen`");
        let endpoint = settings::resolve(&settings.admin_listen).map_err(named)?;
        let mut only = Settings {
            listeners: vec![Listener {
                backlog: MAX_CONNECTIONS as u32,
                ..Listener::http(settings.admin_listen.clone())
            }],
            ..Settings::default()
        };
        let endpoints = [endpoint];
        let listeners =
            Listeners::bind(&mut only, &endpoints, Passed::default(), rights).map_err(named)?;
        let address = only.listeners.remove(0).address;
        if endpoints[0].ip().is_some_and(|ip| !ip.ip().is_loopback()) {
            tracing::warn!(
                "`admin_listen` = {address}: whoever reaches this address can read the metrics"
            );
        }
        tracing::info!("metrics at http://{address}/metrics");
        let admin = Admin {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            listeners,
            address,
            connections: BTreeMap::new(),
            last: LISTENER,
            paused: None,
            service: Service {
                exports,
                ..Service::default()
            },
        };
        admin.watch_listener()?;
        Ok(Some(admin))
    }

    /// Where it listens, with the real port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn watch(&self, epoll: BorrowedFd<'_>) -> io::Result<()> {
        let token = EventData::new_u64(TOKEN);
        Ok(epoll::add(epoll, &self.epoll, token, EventFlags::IN)?)
    }

    /// When [`Admin::turn`] is to be called, if nothing happens before.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let connections = self.connections.values();
        connections
            .map(|connection| match connection.has_more() {
                true => now,
                false => connection.deadline(),
            })
            .chain(self.paused)
            .min()
    }

    /// Does what can be done now: for each connection, one request at most.
    pub(super) fn turn(&mut self, now: Instant, report: &Report<'_>, record: &Record) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            if let Err(error) = self.watch_listener() {
                tracing::error!("the admin listener is not watched any more: {error}");
            }
        }
        let mut events: Vec<Event> = Vec::with_capacity(MAX_CONNECTIONS + 1);
        let no_wait = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&no_wait)) {
            tracing::debug!("the admin listener: epoll_wait: {error}");
        }
        let mut ready: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
        if ready.contains(&LISTENER) {
            self.accept(now);
        }
        let more = self.connections.iter().filter(|(_, one)| one.has_more());
        ready.extend(more.map(|(&id, _)| id));
        ready.sort_unstable();
        ready.dedup();
        for id in ready {
            self.serve(id, now, |service, connection| {
                let Service {
                    health,
                    counts,
                    exports,
                    cached,
                } = service;
                let mut refused = None;
                let answer = |wanted: &Wanted| {
                    let mut answers = Answers {
                        health,
                        counts,
                        exports,
                        cached,
                        report,
                        record,
                    };
                    answers.answer(wanted, now)
                };
                let open = connection.go_on(now, answer, |code| refused = Some(code));
                service.counts.refuse(refused);
                open
            });
        }
        let late = self.connections.iter();
        let late = late.filter(|(_, connection)| connection.deadline() <= now);
        for id in late.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.serve(id, now, |service, connection| {
                let mut refused = None;
                let open = connection.time_out(now, |code| refused = Some(code));
                service.counts.refuse(refused);
                open
            });
        }
    }

    /// Lets a connection go on, and forgets it if it is over.
    fn serve(
        &mut self,
        id: u64,
        now: Instant,
        go_on: impl FnOnce(&mut Service, &mut Connection) -> io::Result<bool>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let before = connection.interest();
        let open = go_on(&mut self.service, connection).and_then(|open| {
            if open && connection.interest() != before {
                let token = EventData::new_u64(id);
                epoll::modify(
                    &self.epoll,
                    connection.socket(),
                    token,
                    connection.interest(),
                )?;
            }
            Ok(open && (connection.deadline() > now || connection.has_more()))
        });
        match open {
            Ok(true) => {}
            Ok(false) => drop(self.connections.remove(&id)),
            Err(error) => {
                tracing::debug!("an admin connection has ended: {error}");
                self.connections.remove(&id);
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..MAX_CONNECTIONS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let accepted = match self.listeners.first() {
                Some(listener) => rustix::net::accept_with(listener, flags),
                None => return,
            };
            match accepted {
                Ok(socket) => self.admit(socket, now),
                Err(Errno::WOULDBLOCK) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    tracing::warn!("the admin listener pauses for a second: {error}");
                    self.pause(now);
                    return;
                }
            }
        }
    }

    /// Takes a connection in: in the place of the one that has been idle longest, if there is no room.
    fn admit(&mut self, socket: OwnedFd, now: Instant) {
        if self.connections.len() >= MAX_CONNECTIONS {
            let idle = self.connections.iter().filter(|(_, one)| one.is_idle());
            let longest = idle
                .min_by_key(|(_, one)| one.deadline())
                .map(|(&id, _)| id);
            self.service.counts.refused += 1;
            match longest {
                Some(id) => drop(self.connections.remove(&id)),
                None => return,
            }
        }
        let connection = Connection::new(socket, now);
        self.last += 1;
        let token = EventData::new_u64(self.last);
        let interest = connection.interest();
        match epoll::add(&self.epoll, connection.socket(), token, interest) {
            Ok(()) => drop(self.connections.insert(self.last, connection)),
            Err(error) => tracing::warn!("an admin connection is not watched: {error}"),
        }
    }

    /// Takes the listener out of the set: it would be ready again and again.
    fn pause(&mut self, now: Instant) {
        if let Some(listener) = self.listeners.first()
            && epoll::delete(&self.epoll, listener).is_ok()
        {
            self.paused = Some(now + PAUSE);
        }
    }

    fn watch_listener(&self) -> io::Result<()> {
        if let Some(listener) = self.listeners.first() {
            let token = EventData::new_u64(LISTENER);
            epoll::add(&self.epoll, listener, token, EventFlags::IN)?;
        }
        Ok(())
    }
}

impl Counts {
    fn refuse(&mut self, code: Option<u16>) {
        if let Some(code) = code {
            self.count(code);
        }
    }

    fn count(&mut self, code: u16) {
        *self.requests.entry(code).or_default() += 1;
    }
}

/// Answers one request.
struct Answers<'a> {
    health: &'a mut Health,
    counts: &'a mut Counts,
    exports: &'a [Export],
    cached: &'a mut Option<(Instant, Format, String)>,
    report: &'a Report<'a>,
    record: &'a Record,
}

impl Answers<'_> {
    fn answer(&mut self, wanted: &Wanted, now: Instant) -> Answer {
        let answer = self.of_path(wanted, now);
        self.counts.count(answer.status);
        answer
    }

    fn of_path(&mut self, wanted: &Wanted, now: Instant) -> Answer {
        if !wanted.is_read {
            return text(405, "only GET and HEAD are possible here\n".to_owned());
        }
        match wanted.path.as_str() {
            "/metrics" => Answer {
                status: 200,
                content_type: wanted.format.content_type(),
                body: self.metrics(wanted.format, now),
            },
            "/healthz" => verdict(&self.health.problems(self.report)),
            "/readyz" => verdict(&health::unready(self.report)),
            "/" => text(200, "/metrics\n/healthz\n/readyz\n".to_owned()),
            _ => text(404, "there are /metrics, /healthz and /readyz\n".to_owned()),
        }
    }

    /// A page costs about a millisecond: many scrapers get the same for a moment.
    fn metrics(&mut self, format: Format, now: Instant) -> String {
        if let Some((made, of, page)) = &self.cached
            && *of == format
            && now.saturating_duration_since(*made) < FRESH
        {
            return page.clone();
        }
        let facts = Facts {
            report: self.report,
            record: self.record,
            exports: self.exports,
            admin: self.counts,
        };
        let page = page::page(&facts, format);
        *self.cached = Some((now, format, page.clone()));
        page
    }
}

/// 200, or 503 with the reasons, one a line.
fn verdict(problems: &[String]) -> Answer {
    match problems {
        [] => text(200, "ok\n".to_owned()),
        _ => text(503, problems.join("\n") + "\n"),
    }
}

fn text(status: u16, body: String) -> Answer {
    Answer {
        status,
        content_type: "text/plain; charset=utf-8",
        body,
    }
}

/// Number of the listener in the admin's epoll set; connections have higher ones.
const LISTENER: u64 = 0;
/// Connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long a page counts as new.
const FRESH: Duration = Duration::from_millis(100);
/// How long accepting rests when there are no descriptors.
const PAUSE: Duration = Duration::from_secs(1);
