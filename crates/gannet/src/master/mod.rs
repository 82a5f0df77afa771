//! The master process: it owns every client socket.
//!
//! The main thread takes orders from the manager and passes them to the reactors, one thread each
//! (see [`reactor`]); what reactors report goes back to the manager. User code runs here in one
//! case only: the function given to `Server::dispatch_with`.
//!
//! | file                    | idea                                                        |
//! |-------------------------|-------------------------------------------------------------|
//! | `reactor`               | one turn of the loop, the clock                             |
//! | `accept`                | new connections                                             |
//! | `conn`, `conns`         | one connection, all connections                             |
//! | `input`                 | reading, and what was read                                  |
//! | `tls`                   | TLS between socket and protocol                             |
//! | `framed`, `http`,       | the protocols                                               |
//! | `exchange`, `http2`,    |                                                             |
//! | `websocket`             |                                                             |
//! | `proxied`               | who the client behind a proxy is                            |
//! | `packets`               | datagrams                                                   |
//! | `sending`, `output`     | what goes to clients                                        |
//! | `compress`              | compressing WebSocket messages                              |
//! | `pace`                  | clients that are too slow, or send too much of something    |
//! | `closing`               | how connections end; deadlines; stop                        |
//! | `places`                | which worker gets an event; redelivery                      |
//! | `link`, `ledger`        | the rings to a worker; what it owes                         |
//! | `commands`              | what workers ask for                                        |
//! | `audience`              | what the control socket wants of connections                |
//! | `topics`, `desk`        | publishing; tasks and messages between workers              |
//! | `wheel`                 | when to look at which connection                            |

mod accept;
mod audience;
mod closing;
mod commands;
mod compress;
mod conn;
mod conns;
mod desk;
mod exchange;
mod framed;
mod http;
mod http2;
mod input;
mod ledger;
mod link;
mod output;
mod pace;
mod packets;
mod places;
mod proxied;
mod reactor;
mod sending;
mod slow_reader;
mod tls;
mod topics;
mod websocket;
mod wheel;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{Arc, atomic::AtomicUsize, mpsc},
    thread,
};

use gannet_shm::Region;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    process::Pid,
};

use self::{
    link::Attachment,
    reactor::{Order, Parts, Reactor},
};
use crate::{
    Result, affinity,
    bootstrap::{Bootstrap, Role},
    channel::{Channel, FromMaster, ToMaster},
    id::{ConnId, WorkerId},
    inherit,
    layout::{CONTROL_KIND, WORKER_KIND},
    server::DispatchFn,
    settings::Settings,
    sys::SignalFd,
    tls::{Material, Serving},
};

/// Becomes the master: runs until the manager says stop.
pub(crate) fn run(bootstrap: Bootstrap, dispatch: Option<DispatchFn>) -> Result<()> {
    let channel = Channel::new(inherit::take(bootstrap.channel)?);
    // Before the reactors' threads begin: they inherit that the signals are blocked.
    let signals = SignalFd::steering()?;
    let outcome = Master::start(&bootstrap, dispatch).and_then(|master| {
        channel.send(&FromMaster::Ready, &[])?;
        master.serve(&channel, &signals, bootstrap.manager_pid)
    });
    if let Err(error) = &outcome {
        // The manager may be gone; then nobody needs to be told.
        let _ = channel.send(
            &FromMaster::Failed {
                error: error.to_string(),
            },
            &[],
        );
    }
    outcome
}

/// From a reactor to the main thread.
pub(crate) enum Report {
    Attached(WorkerId, u64),
    Stalled(WorkerId, u64),
    Retired(WorkerId, u64),
    Failed(String),
    Pong(u64),
    /// An event that kills workers is given up.
    GaveUp {
        worker: WorkerId,
        conn: Option<ConnId>,
        event: String,
    },
    /// What was asked has come to this on one reactor.
    Answer(u64, audience::Answer),
    /// Nothing is left on this reactor.
    Stopped,
}

/// Where reactors send their reports.
#[derive(Clone)]
pub(crate) struct Reports {
    sender: mpsc::Sender<Report>,
    bell: Arc<OwnedFd>,
}

impl Reports {
    fn send(&self, report: Report) {
        // The main thread ends last, or the process ends.
        let _ = self.sender.send(report);
        ring(&*self.bell);
    }
}

struct Master {
    reactors: Vec<Remote>,
    reports: mpsc::Receiver<Report>,
    report_bell: Arc<OwnedFd>,
    /// Reactors that have attached, and that have retired, an incarnation; until all have.
    attached: HashMap<u64, usize>,
    retired: HashMap<u64, usize>,
    /// What the reactors are asked, by number, and how many have answered.
    asked: HashMap<u64, (usize, audience::Answer)>,
    /// The same of questions whether they run.
    answered: HashMap<u64, usize>,
    stopped: usize,
    settings: Arc<Settings>,
    serving: Serving,
}

/// A reactor, from outside.
struct Remote {
    orders: mpsc::Sender<Order>,
    bell: OwnedFd,
}

impl Master {
    fn start(bootstrap: &Bootstrap, dispatch: Option<DispatchFn>) -> Result<Self> {
        let Role::Master {
            listeners,
            generation,
            tls,
        } = &bootstrap.role
        else {
            return Err(crate::Error::new("the bootstrap is not a master's"));
        };
        let control = Region::attach(inherit::take(bootstrap.control)?, CONTROL_KIND)?;
        let listeners = listeners
            .iter()
            .map(|&fd| inherit::take(fd))
            .collect::<io::Result<Vec<_>>>()?;
        let (sender, reports) = mpsc::channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let report_bell = Arc::new(eventfd(0, flags)?);
        let settings = Arc::new(bootstrap.settings.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let working = Arc::new(AtomicUsize::new(bootstrap.reactor_bells.len()));
        let mut serving = Serving::default();
        let material = match tls {
            Some(fd) => read_material(inherit::take(*fd)?)?,
            None => Material::default(),
        };
        let tls = serving.renew(&settings, &material)?;
        let mut reactors = Vec::new();
        for (id, &bell) in bootstrap.reactor_bells.iter().enumerate() {
            let bell = inherit::take(bell)?;
            let (orders, receiver) = mpsc::channel();
            let parts = Parts {
                id,
                settings: settings.clone(),
                dimensions: bootstrap.dimensions,
                dispatch: dispatch.clone(),
                control: control.clone(),
                bell: bell.try_clone()?,
                listeners: listeners
                    .iter()
                    .map(OwnedFd::try_clone)
                    .collect::<io::Result<Vec<_>>>()?,
                tls: tls.clone(),
                orders: receiver,
                reports: Reports {
                    sender: sender.clone(),
                    bell: report_bell.clone(),
                },
                connections: connections.clone(),
                working: working.clone(),
                generation: *generation,
            };
            let (started, start) = mpsc::channel();
            let reports = parts.reports.clone();
            thread::Builder::new()
                .name(format!("reactor {id}"))
                .spawn(move || {
                    let settings = &parts.settings;
                    let who = format!("reactor {id}");
                    affinity::pin_share(&settings.reactor_cpus, &who, id, settings.reactors);
                    let run = std::panic::AssertUnwindSafe(|| match Reactor::new(parts) {
                        Ok(reactor) => {
                            // The main thread waits for it.
                            let _ = started.send(Ok(()));
                            reactor.run();
                        }
                        Err(error) => {
                            let _ = started.send(Err(error));
                        }
                    });
                    if std::panic::catch_unwind(run).is_err() {
                        reports.send(Report::Failed(format!(
                            "reactor {id} panicked: see the log"
                        )));
                    }
                })?;
            start
                .recv()
                .map_err(|_| crate::Error::new("a reactor panicked at its start"))??;
            reactors.push(Remote { orders, bell });
        }
        Ok(Master {
            reactors,
            reports,
            report_bell,
            attached: HashMap::new(),
            retired: HashMap::new(),
            asked: HashMap::new(),
            answered: HashMap::new(),
            stopped: 0,
            settings,
            serving,
        })
    }

    fn serve(mut self, channel: &Channel, signals: &SignalFd, manager: u32) -> Result<()> {
        let manager = i32::try_from(manager).ok().and_then(Pid::from_raw);
        loop {
            let mut ready = [
                PollFd::new(channel, PollFlags::IN),
                PollFd::from_borrowed_fd(self.report_bell.as_fd(), PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut counter = [0; 8];
            // Empty: another report was enough to read it.
            let _ = rustix::io::read(&*self.report_bell, &mut counter);
            loop {
                match channel.recv::<ToMaster>() {
                    Ok(Some((order, fds))) => self.obey(order, fds)?,
                    // Without a manager there is no server.
                    Ok(None) => std::process::exit(1),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            while let Some((signal, from_process)) = signals.next_with_sender() {
                // What the terminal sends, the manager has had too.
                if let Some(manager) = manager.filter(|_| from_process) {
                    rustix::process::kill_process(manager, signal)?;
                }
            }
            while let Ok(report) = self.reports.try_recv() {
                if self.pass_on(report, channel)? {
                    return Ok(());
                }
            }
        }
    }

    fn obey(&mut self, order: ToMaster, fds: Vec<OwnedFd>) -> Result<()> {
        match order {
            ToMaster::Attach {
                worker,
                kind,
                incarnation,
            } => {
                let Ok([region, bell]) = <[OwnedFd; 2]>::try_from(fds) else {
                    return Err(crate::Error::new(
                        "`attach` came without its two descriptors",
                    ));
                };
                let region = Region::attach(region, WORKER_KIND)?;
                for reactor in &self.reactors {
                    reactor.order(Order::Attach(Attachment {
                        worker,
                        kind,
                        incarnation,
                        region: region.clone(),
                        bell: bell.try_clone()?,
                    }));
                }
            }
            ToMaster::Dead {
                worker,
                incarnation,
                blame,
            } => {
                for reactor in &self.reactors {
                    reactor.order(Order::Dead {
                        worker,
                        incarnation,
                        blame,
                    });
                }
            }
            ToMaster::Certificates => {
                let Ok([material]) = <[OwnedFd; 1]>::try_from(fds) else {
                    return Err(crate::Error::new(
                        "`certificates` came without its descriptor",
                    ));
                };
                let renewed = read_material(material)
                    .and_then(|material| self.serving.renew(&self.settings, &material));
                match renewed {
                    Ok(listeners) => {
                        for reactor in &self.reactors {
                            reactor.order(Order::Tls(listeners.clone()));
                        }
                        tracing::info!("new connections get the new certificates");
                    }
                    // The manager has tried them out: this is something else.
                    Err(error) => tracing::error!("the certificates stay as they are: {error}"),
                }
            }
            ToMaster::Stop { deadline_ms } => {
                for reactor in &self.reactors {
                    reactor.order(Order::Stop { deadline_ms });
                }
            }
            ToMaster::Output { from, to, line } => {
                // Where pipe messages go through.
                if let Some(reactor) = self.reactors.first() {
                    reactor.order(Order::Pipe { from, to, line });
                }
            }
            ToMaster::Ping { number } => {
                for reactor in &self.reactors {
                    reactor.order(Order::Ping(number));
                }
            }
            ToMaster::LogLevel { level } => crate::logging::set_level(&level),
            ToMaster::Ask { id, to, what } => {
                let message = match fds.into_iter().next() {
                    Some(file) => read_file(file)?,
                    None => Vec::new(),
                };
                let question = Arc::new(audience::Question::new(id, to, what, message)?);
                for reactor in &self.reactors {
                    reactor.order(Order::Ask(question.clone()));
                }
            }
        }
        Ok(())
    }

    /// `true`: the server has stopped.
    fn pass_on(&mut self, report: Report, channel: &Channel) -> Result<bool> {
        match report {
            Report::Stalled(worker, incarnation) => {
                channel.send(
                    &FromMaster::Stalled {
                        worker,
                        incarnation,
                    },
                    &[],
                )?;
            }
            Report::Attached(worker, incarnation) => {
                if by_all(&mut self.attached, incarnation, self.reactors.len()) {
                    channel.send(
                        &FromMaster::Attached {
                            worker,
                            incarnation,
                        },
                        &[],
                    )?;
                }
            }
            Report::Retired(worker, incarnation) => {
                if by_all(&mut self.retired, incarnation, self.reactors.len()) {
                    channel.send(
                        &FromMaster::Retired {
                            worker,
                            incarnation,
                        },
                        &[],
                    )?;
                }
            }
            Report::Pong(number) => {
                if by_all(&mut self.answered, number, self.reactors.len()) {
                    channel.send(&FromMaster::Pong { number }, &[])?;
                }
            }
            Report::GaveUp {
                worker,
                conn,
                event,
            } => {
                let gave_up = FromMaster::GaveUp {
                    worker,
                    conn,
                    event,
                };
                channel.send(&gave_up, &[])?;
            }
            Report::Answer(id, answer) => {
                let (answered, all) = self.asked.entry(id).or_default();
                *answered += 1;
                all.merge(answer);
                if *answered == self.reactors.len()
                    && let Some((_, all)) = self.asked.remove(&id)
                {
                    let count = all.count;
                    let file = all.into_file()?;
                    let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
                    channel.send(&FromMaster::Answer { id, count }, &files)?;
                }
            }
            Report::Failed(error) => return Err(crate::Error::new(error)),
            Report::Stopped => {
                self.stopped += 1;
                if self.stopped == self.reactors.len() {
                    channel.send(&FromMaster::Stopped, &[])?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Remote {
    fn order(&self, order: Order) {
        // A reactor that has ended has reported why.
        let _ = self.orders.send(order);
        ring(&self.bell);
    }
}

/// Counts one more reactor; whether it was the last.
fn by_all(counts: &mut HashMap<u64, usize>, incarnation: u64, reactors: usize) -> bool {
    let count = counts.entry(incarnation).or_default();
    *count += 1;
    let all = *count == reactors;
    if all {
        counts.remove(&incarnation);
    }
    all
}

fn read_material(fd: OwnedFd) -> Result<Material> {
    Ok(serde_json::from_slice(&read_file(fd)?)?)
}

fn read_file(fd: OwnedFd) -> Result<Vec<u8>> {
    let file = File::from(fd);
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn ring(bell: impl AsFd) {
    // Full: it is rung already.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}
