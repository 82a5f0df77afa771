//! `idle`: connections that do nothing, and what they cost.

use std::{
    thread,
    time::{Duration, Instant},
};

use gannet_proto::websocket::MessageKind;

use super::load::{Common, check_threads, duration, positive};
use crate::{
    Error, Memory, Report, Target,
    control::Control,
    driver::Driver,
    payload::{Alphabet, Payloads},
    plan::{Plan, Traffic},
    protocol::{
        Protocol,
        tcp::{Framing, Tcp},
        websocket::WebSocket,
    },
    record::Record,
    report::{count, round},
    run::{Measured, Watch, cpu_time, join, raise_descriptor_limit},
    server::Server,
    target::{Scheme, Sources},
};

/// Connections that do nothing: the server's memory for each (with --server-pid)
///
/// First --warm connections are made, whose memory does not count: it is that of buffers that all share.
/// Then the others are; the difference is theirs. All are kept for --duration: one that the server ends
/// is an error.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Idle {
    /// ws://, wss://, tcp:// or tls://
    #[arg(value_name = "TARGET")]
    target: Target,
    /// Connections that are measured
    #[arg(long, short = 'c', value_name = "N", default_value_t = 10_000, value_parser = positive)]
    connections: usize,
    /// Connections before that
    #[arg(long, value_name = "N", default_value_t = 2000)]
    warm: usize,
    /// How long to wait before memory is read
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    settle: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What is read at the ends.
struct Seen {
    before: Option<Memory>,
    after: Option<Memory>,
    connecting: Duration,
    measured: Measured,
}

impl Idle {
    pub(crate) fn run(&self) -> Result<Report, Error> {
        let target = &self.target;
        let schemes = [Scheme::Ws, Scheme::Wss, Scheme::Tcp, Scheme::Tls];
        target.check("idle", &schemes)?;
        let seen = match target.scheme {
            Scheme::Ws | Scheme::Wss => {
                let host = target.authority();
                let socket = WebSocket::new(MessageKind::Binary, &host, &target.path, "", 1);
                self.watch(|thread| socket.reseeded(thread as u64))?
            }
            _ => {
                let framing = Framing::None;
                self.watch(|_| Tcp { framing })?
            }
        };
        let mut report = Report {
            what: "idle",
            target: target.to_string(),
            connections: self.connections,
            threads: self.common.threads,
            ..Report::default()
        };
        let each = |(after, before): (Memory, Memory)| after.each(before, self.connections);
        let each = seen.after.zip(seen.before).map(each);
        report.more.memory_per_connection = each;
        report.more.bytes_per_connection = each.map(|memory| memory.user);
        report.more.warm_connections = Some(self.warm);
        report.more.connect_s = Some(round(seen.connecting.as_secs_f64()));
        seen.measured.report(&mut report, false);
        Ok(report)
    }

    fn plan(&self, first: usize, connections: usize, threads: usize) -> Result<Plan, Error> {
        let to = self.target.resolve()?;
        Ok(Plan {
            to,
            sources: Sources::new(&self.common.source, to, self.warm + self.connections),
            tls: self.common.tls(&self.target, &[b"http/1.1"], true)?,
            payloads: Payloads::new(&[1], Alphabet::Bytes),
            traffic: Traffic::Idle,
            connections,
            first,
            threads,
            depth: 0,
            rate: None,
            timeout: self.common.timeout,
            reconnect: false,
        })
    }

    fn watch<P: Protocol>(&self, of_thread: impl Fn(usize) -> P) -> Result<Seen, Error> {
        check_threads(self.common.threads, self.connections)?;
        raise_descriptor_limit(self.warm + self.connections)?;
        let mut server = match self.common.server_pid.as_slice() {
            [] => None,
            pids => Some(Server::find(pids)?),
        };
        let watch = self.common.watch("connections");
        let warm_plan = self.plan(0, self.warm, 1)?;
        let plan = self.plan(self.warm, self.connections, self.common.threads)?;
        let controls = [Control::new(1), Control::new(plan.threads)];
        let plans = [warm_plan, plan];
        thread::scope(|scope| {
            let mut jobs = Vec::new();
            let mut memories = Vec::new();
            let mut failed = false;
            for (plan, control) in plans.iter().zip(&controls) {
                let connecting = Instant::now();
                for thread in 0..plan.threads {
                    let driver = Driver::new(plan, control, of_thread(thread), thread);
                    jobs.push(scope.spawn(move || {
                        let outcome = driver.and_then(Driver::run);
                        if outcome.is_err() {
                            control.abort();
                        }
                        control.ended();
                        outcome
                    }));
                }
                failed = failed || !all_connected(control, plan.connections, &watch);
                if failed {
                    break;
                }
                memories.push((connecting.elapsed(), self.settled(control, server.as_mut())));
            }
            let [warm, main] = &controls;
            let began = Instant::now();
            let (cpu, used) = (cpu_time(), server.as_ref().map(Server::usage));
            main.begin();
            if !failed {
                main.wait(self.common.duration, |_| {});
            }
            if let Some(server) = &mut server {
                server.look();
            }
            main.end();
            warm.end();
            if failed {
                main.abort();
                warm.abort();
            }
            watch.progress.clear();
            let record: Record = join(jobs)?;
            let ([(_, before), (took, after)], false) = (memories.as_slice(), failed) else {
                return Err(Error::Server(record.samples.join("; ")));
            };
            let usage = server.as_ref().zip(used);
            Ok(Seen {
                before: *before,
                after: *after,
                connecting: *took,
                measured: Measured {
                    record,
                    begin: main.window().0,
                    seconds: began.elapsed().as_secs_f64(),
                    done: 0,
                    server: usage.map(|(server, used)| (server.usage().since(used), *after)),
                    client: cpu_time() - cpu,
                },
            })
        })
    }

    /// Waits until the server has done what it does for new connections, and reads its memory.
    fn settled(&self, control: &Control, server: Option<&mut Server>) -> Option<Memory> {
        control.go();
        control.wait(self.settle, |_| {});
        let server = server?;
        server.look();
        server.memory()
    }
}

fn all_connected(control: &Control, connections: usize, watch: &Watch<'_>) -> bool {
    control.wait_ready(|totals| {
        watch.progress.show(&format!(
            "connecting: {} of {}",
            count(totals.connected),
            count(connections as u64)
        ));
    })
}
