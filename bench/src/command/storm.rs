//! `connect` and `handshakes`: connections that are made and closed, one after another.

use gannet_proto::websocket::MessageKind;

use super::load::{Common, check_threads, positive, rate, size};
use crate::{
    Error, Report, Target,
    payload::{Alphabet, Payloads},
    plan::{Plan, Rate, Traffic},
    protocol::{
        Protocol,
        http::{ExpectedBody, Http, Request},
        tcp::{Framing, Tcp},
        websocket::WebSocket,
    },
    run::run,
    target::{Scheme, Sources},
};

/// Connections that are made and closed, again and again: how many a second
///
/// A connection is of use when TCP, TLS and WebSocket have shaken hands. It is closed then, or with
/// --exchange when a message (HTTP: a GET) has been answered.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connect {
    /// HOST:PORT, or a URL with tcp, tls, http, https, ws or wss
    #[arg(value_name = "TARGET")]
    target: Target,
    #[command(flatten)]
    pub(crate) storm: Storm,
}

/// TLS handshakes, again and again: how many a second
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Handshakes {
    /// HOST:PORT
    #[arg(value_name = "TARGET")]
    target: Target,
    #[command(flatten)]
    pub(crate) storm: Storm,
}

/// The flags of both.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Storm {
    /// Connections that are being made at a time
    #[arg(long, short = 'c', value_name = "N", default_value_t = 16, value_parser = positive)]
    connections: usize,
    /// Open loop: so many a second, whether or not the server keeps up
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Send a message on every connection, which must be answered before it is closed
    #[arg(long)]
    exchange: bool,
    /// Bytes of that message
    #[arg(long, short = 's', value_name = "BYTES", default_value = "64", value_parser = size)]
    size: usize,
    /// Go on with the session of a connection before, where the server lets one
    #[arg(long, requires = "exchange")]
    resume: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Connect {
    pub(crate) fn run(&self) -> Result<Report, Error> {
        self.storm.run("connect", &self.target)
    }
}

impl Handshakes {
    pub(crate) fn run(&self) -> Result<Report, Error> {
        let mut target = self.target.clone();
        if target.scheme == Scheme::Tcp {
            target.scheme = Scheme::Tls;
        }
        target.check("handshakes", &[Scheme::Tls, Scheme::Https, Scheme::Wss])?;
        self.storm.run("handshakes", &target)
    }
}

impl Storm {
    fn run(&self, what: &'static str, target: &Target) -> Result<Report, Error> {
        let host = target.authority();
        match target.scheme {
            Scheme::Tcp | Scheme::Tls => {
                let framing = Framing::None;
                self.run_with(what, target, &[], |_| Tcp { framing })
            }
            Scheme::Http | Scheme::Https => {
                let http = Http::new(&Request {
                    method: "GET",
                    path: &target.path,
                    host: &host,
                    headers: "",
                    sizes: None,
                    status: 200,
                    body: ExpectedBody::Any,
                });
                self.run_with(what, target, &[b"http/1.1"], |_| http.clone())
            }
            Scheme::Ws | Scheme::Wss => {
                let kind = MessageKind::Binary;
                let socket = WebSocket::new(kind, &host, &target.path, "", 1);
                self.run_with(what, target, &[b"http/1.1"], |thread| {
                    socket.reseeded(thread as u64)
                })
            }
        }
    }

    fn run_with<P: Protocol>(
        &self,
        what: &'static str,
        target: &Target,
        alpn: &[&[u8]],
        of_thread: impl Fn(usize) -> P,
    ) -> Result<Report, Error> {
        if self.exchange && self.size == 0 {
            return Err(Error::Usage("--size 0: that is no message".into()));
        }
        check_threads(self.common.threads, self.connections)?;
        let to = target.resolve()?;
        let plan = Plan {
            to,
            // Ports of closed connections are not free for a minute.
            sources: Sources::new(&self.common.source, to, usize::MAX),
            tls: self.common.tls(target, alpn, self.resume)?,
            payloads: Payloads::new(&[self.size], Alphabet::Bytes),
            traffic: Traffic::Connects {
                exchange: self.exchange,
            },
            connections: self.connections,
            first: 0,
            threads: self.common.threads,
            depth: 1,
            rate: self.rate.map(|per_second| Rate { per_second }),
            timeout: self.common.timeout,
            reconnect: false,
        };
        let measured = run(&plan, &self.common.watch("connections"), of_thread)?;
        let mut report = Report {
            what,
            target: target.to_string(),
            connections: self.connections,
            threads: self.common.threads,
            rate: self.rate,
            ..Report::default()
        };
        let (done, resumed) = (measured.done, measured.record.resumed.min(measured.done));
        report.more.connects = Some(done);
        report.more.connects_per_s = Some(measured.per_second(done));
        if target.scheme.is_secure() {
            report.more.resumed = Some(resumed);
            report.more.handshakes = Some(done - resumed);
            report.more.handshakes_per_s = Some(measured.per_second(done - resumed));
        }
        measured.report(&mut report, false);
        Ok(report)
    }
}
