//! `broadcast`: what one sends, all receive.

use std::time::Duration;

use gannet_proto::websocket::MessageKind;

use super::load::{Common, duration, header, positive, rate, size};
use crate::{
    Error, Report, Target,
    payload::{Alphabet, Payloads, TAG},
    plan::{Plan, Rate, Traffic},
    protocol::{broadcast, websocket::WebSocket},
    run::{Watch, run},
    target::{Scheme, Sources},
};

/// What one sends over WebSocket, all receive: deliveries a second
///
/// For servers that hand on every binary message to all connections, the one that sent it included
/// (--exclude-publisher: without it). A message is published when it has arrived everywhere; every
/// delivery is checked, and that none is lost, repeated or out of order. Text messages are passed over.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Broadcast {
    /// ws://HOST:PORT/PATH or wss://HOST:PORT/PATH
    #[arg(value_name = "URL")]
    target: Target,
    /// Connections that only receive
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive)]
    subscribers: usize,
    /// Connections that send
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    publishers: usize,
    /// The server does not send a message to the connection that it came from
    #[arg(long)]
    exclude_publisher: bool,
    /// Messages of a publisher that have not arrived everywhere, at most
    #[arg(long, short = 'd', value_name = "N", default_value_t = 1, value_parser = positive)]
    depth: usize,
    /// Bytes of a message: 8 at least, which name it
    #[arg(long, short = 's', value_name = "BYTES", default_value = "128", value_parser = size)]
    size: usize,
    /// Open loop: so many messages a second of all publishers, whether or not the server keeps up
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// How long to wait after the last connection is open, for servers that subscribe it later
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    settle: Duration,
    /// A header of the handshake, as `Name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    headers: Vec<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Broadcast {
    pub(crate) fn run(&self) -> Result<Report, Error> {
        let target = &self.target;
        target.check("broadcast", &[Scheme::Ws, Scheme::Wss])?;
        if self.size < TAG {
            return Err(Error::Usage(format!(
                "--size {}: {TAG} bytes name a message, and it cannot be smaller",
                self.size
            )));
        }
        if self.common.threads > 1 {
            return Err(Error::Usage(
                "--threads: a broadcast is made by one thread, which sees where a message has arrived"
                    .into(),
            ));
        }
        let connections = self.subscribers + self.publishers;
        let receivers = connections - usize::from(self.exclude_publisher);
        let to = target.resolve()?;
        let plan = Plan {
            to,
            sources: Sources::new(&self.common.source, to, connections),
            tls: self.common.tls(target, &[b"http/1.1"], true)?,
            payloads: Payloads::new(&[self.size], Alphabet::Bytes),
            traffic: Traffic::Broadcast {
                publishers: self.publishers,
                receivers: u32::try_from(receivers).unwrap_or(u32::MAX),
            },
            connections,
            first: 0,
            threads: 1,
            depth: self.depth as u64,
            rate: self.rate.map(|per_second| Rate { per_second }),
            timeout: self.common.timeout,
            reconnect: false,
        };
        let socket = WebSocket::new(
            MessageKind::Binary,
            &target.authority(),
            &target.path,
            &self.headers.concat(),
            1,
        );
        let publishers = u32::try_from(self.publishers).unwrap_or(u32::MAX);
        let protocol = broadcast::Broadcast::new(socket, publishers);
        let watch = Watch {
            settle: self.settle,
            ..self.common.watch("deliveries")
        };
        let measured = run(&plan, &watch, |_| protocol.clone())?;
        let mut report = Report {
            what: "broadcast",
            target: target.to_string(),
            connections,
            depth: self.depth as u64,
            size: self.size,
            threads: 1,
            rate: self.rate,
            ..Report::default()
        };
        report.more.subscribers = Some(self.subscribers);
        report.more.publishers = Some(self.publishers);
        report.more.published = Some(measured.record.published);
        report.more.deliveries = Some(measured.done);
        report.more.deliveries_per_s = Some(measured.per_second(measured.done));
        measured.report(&mut report, false);
        Ok(report)
    }
}
